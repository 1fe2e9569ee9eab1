"""Random changes of training images, on tensors (N, 3, S, S) in [0, 1], drawn from torch's global generator.

Photometric changes touch the original alone: the normalized image has one light by definition. Mirroring touches both.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def photometric(images: Tensor, strength: float = 1.0) -> Tensor:
    """Brightness, contrast, color cast, gamma, and one image in eight gray, as cameras and lamps do. Same shape, in [0, 1]."""
    count = len(images)

    def normal(channels: int, scale: float) -> Tensor:
        return torch.randn(count, channels, 1, 1, device=images.device) * (scale * strength)

    images = images.clamp(0, 1) ** torch.exp(normal(1, 0.15))
    images = (images - 0.5) * torch.exp(normal(1, 0.12)) + 0.5
    images = images * torch.exp(normal(1, 0.10) + normal(3, 0.04)) + normal(1, 0.02)
    gray = images.mean(1, keepdim=True).expand_as(images)
    images = torch.where(torch.rand(count, 1, 1, 1, device=images.device) < 0.125 * strength, gray, images)
    return images.clamp(0, 1)


def jitter(images: Tensor, turn: float = 0.05, zoom: float = 0.05, shift: float = 0.02) -> Tensor:
    """Rotates (radians), zooms and shifts (widths) each image a little, as imperfect alignment does. Same shape."""
    count = len(images)
    draw = torch.randn(count, 4, device=images.device) * torch.tensor((turn, zoom, shift, shift), device=images.device)
    cos, sin = torch.cos(draw[:, 0]) * torch.exp(draw[:, 1]), torch.sin(draw[:, 0]) * torch.exp(draw[:, 1])
    matrix = torch.stack([torch.stack([cos, -sin, 2 * draw[:, 2]], 1), torch.stack([sin, cos, 2 * draw[:, 3]], 1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirrors the images for which ``chosen`` (N,) is true, left to right."""
    return torch.where(chosen[:, None, None, None], images.flip(3), images)
