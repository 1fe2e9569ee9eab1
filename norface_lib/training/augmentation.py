"""Random changes of training images, on tensors (N, 3, S, S) in [0, 1], sampled from torch's global
generator: the same for a sample whatever the processes that share its batch.

Photometric changes touch the original alone: the normalized image has one light by definition.
Mirroring touches both.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from norface_lib.common import chance


def augmented_pairs(originals: Tensor, normalized: Tensor) -> tuple[Tensor, Tensor]:
    """Original and normalized images (N, 3, S, S) changed at random: geometry alike for both, light
    for the original alone."""
    flip = (chance.rand(len(originals)) < 0.5).to(originals.device)
    # as one image of six channels, so moved as one
    both = torch.cat([photometric(originals), normalized], dim=1)
    return jitter(mirrored(both, flip)).split(3, dim=1)


def two_views(originals: Tensor) -> tuple[Tensor, Tensor]:
    """Two views of originals (N, 3, S, S), each changed at random by itself, in geometry and in
    light."""
    views = torch.cat([originals, originals])
    flip = (chance.rand(len(views)) < 0.5).to(views.device)
    first, second = jitter(mirrored(photometric(views), flip)).chunk(2)
    return first, second


def mirrored_embeddings(originals: Tensor, normalized: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) out of those of face and mirror image (N, 2, D): half of the pairs are
    mirrored."""
    flip = (chance.rand(len(originals)) < 0.5).long().to(originals.device)
    rows = torch.arange(len(originals), device=originals.device)
    return originals[rows, flip], normalized[rows, flip]


def photometric(images: Tensor) -> Tensor:
    """Brightness, contrast, color cast, gamma, and one image in eight gray, as cameras and lamps
    do. Same shape, in [0, 1]."""
    count = len(images)

    def normal(channels: int, scale: float) -> Tensor:
        return chance.randn(count, channels, 1, 1, device=images.device) * scale

    images = images.clamp(0, 1) ** torch.exp(normal(1, 0.15))
    images = (images - 0.5) * torch.exp(normal(1, 0.12)) + 0.5
    images = images * torch.exp(normal(1, 0.10) + normal(3, 0.04)) + normal(1, 0.02)
    gray = images.mean(1, keepdim=True).expand_as(images)
    to_gray = chance.rand(count, 1, 1, 1, device=images.device) < 0.125
    return torch.where(to_gray, gray, images).clamp(0, 1)


def jitter(images: Tensor, turn: float = 0.05, zoom: float = 0.05, shift: float = 0.02) -> Tensor:
    """Rotates (radians), zooms and shifts (widths) each image a little, as imperfect alignment
    does. Same shape."""
    count = len(images)
    scales = torch.tensor((turn, zoom, shift, shift), device=images.device)
    change = chance.randn(count, 4, device=images.device) * scales
    angle, stretch, right, down = change.unbind(1)
    cos = torch.cos(angle) * torch.exp(stretch)
    sin = torch.sin(angle) * torch.exp(stretch)
    first = torch.stack([cos, -sin, 2 * right], 1)
    second = torch.stack([sin, cos, 2 * down], 1)
    matrix = torch.stack([first, second], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def camera(images: Tensor, degraded_share: float = 0.0) -> Tensor:
    """Originals as cameras might have taken them: `photometric`, then a share `degraded`."""
    images = photometric(images)
    return degraded(images, degraded_share) if degraded_share else images


def degraded(images: Tensor, share: float) -> Tensor:
    """Degrades a ``share`` of images as poor photographs are: off center, gray, soft or coarse,
    noisy, partly hidden. Same shape.

    Each chosen image gets each fault with chance one half, but the last with one fifth. Our choice.
    """
    count = len(images)
    device = images.device

    def chosen(likely: float) -> Tensor:
        return (chance.rand(count, 1, 1, 1, device=device) < share * likely).to(images)

    def mixed(other: Tensor, likely: float, images: Tensor) -> Tensor:
        return torch.lerp(images, other, chosen(likely))

    images = mixed(jitter(images), 0.5, images)
    images = mixed(images.mean(1, keepdim=True).expand_as(images), 0.5, images)
    coarse = F.interpolate(
        images, scale_factor=float(torch.empty(()).uniform_(0.3, 0.8)), mode="area"
    )
    images = mixed(F.interpolate(coarse, images.shape[2:], mode="bilinear"), 0.5, images)
    noise = chance.randn(count, 1, *images.shape[2:], device=device)
    noise = noise * chance.rand(count, 1, 1, 1, device=device) * 0.06
    images = mixed(images + noise, 0.5, images)
    hidden = _ellipses(images) * chosen(0.2) > 0
    color = chance.rand(count, 3, 1, 1, device=device)
    return torch.where(hidden, color, images).clamp(0, 1)


def _ellipses(images: Tensor) -> Tensor:
    """(N, 1, S, S) 1 inside an ellipse that covers some of each image, more often near its border
    than in the middle."""
    count, _, height, width = images.shape
    y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    x = torch.linspace(-1, 1, width, device=images.device)[None]
    direction, distance = chance.rand(2, count, 1, 1, batch=1, device=images.device)
    direction = direction * (2 * torch.pi)
    distance = 0.5 + 0.5 * distance
    radius = 0.15 + 0.4 * chance.rand(2, count, 1, 1, batch=1, device=images.device)
    off_x = x - distance * direction.cos()
    off_y = y - distance * direction.sin()
    return ((off_x / radius[0]) ** 2 + (off_y / radius[1]) ** 2 < 1)[:, None].to(images)


def mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirrors the images for which ``chosen`` (N,) is true."""
    return torch.where(chosen[:, None, None, None], images.flip(3), images)
