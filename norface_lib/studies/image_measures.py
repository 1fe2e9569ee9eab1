"""Distance of normalized faces to the true ones: PSNR, SSIM, and ratios to the neutral target.

Shapes: N faces (N, S, S, 3) of 8 bits in RGB.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import needs
from norface_lib.images.arrays import Faces
from norface_lib.images.distances import distance_to, neutral_ratio, region_ratios
from norface_lib.training.normalizer_losses import moving_pixels

with needs("render"):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

_HIGHEST_PSNR = 10 * np.log10(255**2 * 12)
"""58.9 dB, of a mean squared error of 1/12, in levels, that rounding to 8 bits alone leaves."""


def psnr(images: Faces, truths: Faces) -> NDArray[np.float64]:
    """(N,) peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE), at most 58.9: what rounding to
    8 bits leaves."""
    with np.errstate(divide="ignore"):
        ratios = [
            peak_signal_noise_ratio(truth, image, data_range=255)
            for image, truth in zip(images, truths, strict=True)
        ]
    return np.minimum(ratios, _HIGHEST_PSNR)


def ssim(images: Faces, truths: Faces) -> NDArray[np.float64]:
    """(N,) mean structural similarity, at most 1 (Wang et al. 2004): windows of 11 x 11 px,
    Gaussian of 1.5 px, by channel."""
    settings = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 255,
        "channel_axis": -1,
    }
    pairs = zip(images, truths, strict=True)
    return np.array([structural_similarity(image, truth, **settings) for image, truth in pairs])


MOVING_SHARE = 0.1
"""Share of the pixels that count as moving: those that expressions move most (our choice)."""


def moving_ratio(truths: Faces, normalized: Faces, target: NDArray[np.uint8]) -> float:
    """`neutral_ratio` over the tenth of the pixels that move most in the true images, by root mean
    square."""
    motion = moving_pixels(truths, target)
    most = motion >= np.quantile(motion, 1 - MOVING_SHARE)
    return neutral_ratio(truths[:, most], normalized[:, most], target[most])


def image_measures(truths: Faces, normalized: Faces, target: NDArray[np.uint8]) -> dict[str, Any]:
    """Distance of I_n and of the neutral target (S, S, 3) to the true images, and their ratios: 0
    is perfect, 1 moves nothing.

    ``l1`` in 0..1 of the full range, ``psnr`` in dB, ``ssim`` at most 1.
    """
    faces = {"normalized": normalized, "target": np.broadcast_to(target, truths.shape)}
    means = {}
    for name, images in faces.items():
        means[name] = {
            "l1": float(distance_to(truths, images).mean()),
            "psnr": float(psnr(images, truths).mean()),
            "ssim": float(ssim(images, truths).mean()),
        }

    ratios = {
        "distance_ratio": neutral_ratio(truths, normalized, target),
        "moving_ratio": moving_ratio(truths, normalized, target),
        "ssim_ratio": (1 - means["normalized"]["ssim"]) / (1 - means["target"]["ssim"]),
    }
    for region, ratio in region_ratios(truths, normalized, target).items():
        ratios[f"{region}_ratio"] = ratio
    return means | ratios
