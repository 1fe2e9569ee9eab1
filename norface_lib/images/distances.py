"""Distances of normalized faces to the true ones, as a whole and by region."""

import numpy as np
from numpy.typing import NDArray

from norface_lib.images.arrays import Faces


def distance_to(truths: Faces, normalized: Faces) -> NDArray[np.float64]:
    """(N,) mean absolute difference of each face to its true normalized image, in units of the full
    range, 0..1."""
    return np.array(
        [
            np.abs(d.astype(np.int16) - t).mean() / 255
            for d, t in zip(normalized, truths, strict=True)
        ]
    )


def neutral_ratio(truths: Faces, normalized: Faces, target: NDArray[np.uint8]) -> float:
    """Distance of I_n to the true I_n, relative to that of the neutral target face (S, S, 3): 0 is
    perfect, 1 moves nothing."""
    neutral = np.broadcast_to(target, truths.shape)
    return float(distance_to(truths, normalized).mean() / distance_to(truths, neutral).mean())


REGIONS = {"brows": (0.22, 0.36), "eyes": (0.36, 0.47), "mouth": (0.60, 0.86)}
"""Bands of rows of the crop, as shares of its height, in which brows, lids and mouth move."""


def region_slices(size: int) -> dict[str, tuple[slice, slice]]:
    """Rows and columns of each of ``REGIONS`` in faces of ``size`` px (the middle 70 % of the
    width)."""
    side = slice(round(0.15 * size), round(0.85 * size))
    return {
        name: (slice(round(top * size), round(bottom * size)), side)
        for name, (top, bottom) in REGIONS.items()
    }


def region_ratios(truths: Faces, normalized: Faces, target: NDArray[np.uint8]) -> dict[str, float]:
    """:func:`neutral_ratio` within each of ``REGIONS``."""
    return {
        name: neutral_ratio(truths[:, rows, side], normalized[:, rows, side], target[rows, side])
        for name, (rows, side) in region_slices(truths.shape[1]).items()
    }
