"""Losses of synthesized images, as functions on tensors; each names the source of its formula."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_l1(
    prediction: Tensor, target: Tensor, weight_map: Tensor, softness: float = 0.0
) -> Tensor:
    """Weighted mean of |prediction - target|: images (N, C, H, W), weight map (1 or N, 1, H, W) >=
    0 -> scalar.

    Divided by the sum of weights, so only their ratios count (our choice). ``softness`` s makes it
    sqrt(d^2 + s^2) - s (Charbonnier et al. 1994): squared for differences below s, so that what is
    in doubt is synthesized half-way and not left out. Raises ``ValueError`` if shapes differ.
    """
    _same_images(prediction, target)
    if weight_map.shape[1:] != (1, *target.shape[2:]) or weight_map.shape[0] not in (
        1,
        len(target),
    ):
        raise ValueError(
            f"no weight map for images {tuple(target.shape)}: {tuple(weight_map.shape)}"
        )
    weights = weight_map.expand_as(target)
    error = prediction - target
    error = (error.square() + softness**2).sqrt() - softness if softness else error.abs()
    return (weights * error).sum() / weights.sum().clamp(min=1e-8)


def gradient_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of neighboring-pixel differences, across plus down: images (N, C, H,
    W) -> scalar.

    Asks for edges where the target has them (gradient difference loss, Mathieu et al. 2016, with
    the sign kept: our choice). Raises ``ValueError`` if shapes differ.
    """
    _same_images(prediction, target)
    error = prediction - target
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def _same_images(prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim != 4 or prediction.shape != target.shape:
        raise ValueError(
            f"images must share one shape (N, C, H, W), got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}"
        )


def perceptual_loss(features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
    """Distance of what a frozen network sees in two sets of images: maps (N, C, H, W) of some
    layers -> scalar >= 0.

    The maps of Johnson et al. 2016, compared as LPIPS does (Zhang et al. 2018) without its learned
    weights: the channels of each place are scaled to length 1, and their squared differences are
    summed. 0 if they point alike, 2 if they are orthogonal. The mean over layers, where LPIPS sums,
    keeps its size from growing with their number: our choice. Raises ``ValueError`` if there is no
    map or if shapes differ.
    """
    shapes = [[tuple(maps.shape) for maps in features] for features in (features_a, features_b)]
    if not shapes[0] or shapes[0] != shapes[1]:
        raise ValueError(
            f"two lists of maps (N, C, H, W) of the same shapes are needed, got {shapes[0]} and "
            f"{shapes[1]}"
        )
    layers = [
        (F.normalize(a.float(), dim=1, eps=1e-8) - F.normalize(b.float(), dim=1, eps=1e-8))
        .square()
        .sum(dim=1)
        .mean()
        for a, b in zip(features_a, features_b, strict=True)
    ]
    return torch.stack(layers).mean()


def embedding_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean of 1 - cosine of embeddings (N, D) and (N or 1, D) -> scalar in [0, 2].

    The identity loss of face swapping with ArcFace embeddings (FaceShifter, Li et al. 2020); used
    for expressions as well, our choice. Raises ``ValueError`` if shapes differ.
    """
    if a.ndim != 2 or b.shape not in (a.shape, (1, *a.shape[1:])):
        raise ValueError(
            f"embeddings must have shapes (N, D) and (N or 1, D), got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
    return (1 - F.cosine_similarity(a.float(), b.float(), dim=1)).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean of max(0, 1 - D(real)) plus mean of max(0, 1 + D(fake)) (Lim and Ye 2017): logits of any
    shape -> scalar >= 0."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Mean of -D(fake) (Lim and Ye 2017): logits of any shape -> scalar, which a generator
    minimizes."""
    return -fake.mean()


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """Half the mean squared length of the gradient of D at real images (Mescheder et al. 2018, R1
    with gamma = 1) -> scalar.

    ``real_logits`` (N, ...) were computed from ``real_images`` (N, C, H, W), which need
    ``requires_grad``. D of an image is the mean of its patches' logits, so that the penalty does
    not depend on their number: our choice. No image may reach another's logits, as batch
    normalization would let it. Raises ``ValueError`` for images without a gradient.
    """
    if not real_images.requires_grad:
        raise ValueError("the real images need requires_grad before the discriminator sees them")
    scores = real_logits.float().flatten(1).mean(dim=1).sum()
    (gradient,) = torch.autograd.grad(scores, real_images, create_graph=True)
    return 0.5 * gradient.flatten(1).square().sum(dim=1).mean()
