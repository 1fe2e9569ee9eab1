"""Wrinkles: folds that an AU makes in the skin, where the mesh is too coarse to show them.

FACS names the folds of each AU. Here every fold is a set of grooves on the neutral head, a function
of place; its depth in a frame is a vertex attribute, made from the AUs of that side. So one picture
of all grooves serves every frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from norface_lib import labels
from norface_lib.faces.head import head_model

_Field = NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """Grooves in one place, and the AUs that deepen them.

    ``depth(x, y, z)``: 0..1, of places on the subject's left half (x >= 0; the right half mirrors
    it). ``center`` and ``reach``: the vertices that it is for. ``aus``: AU number -> depth at
    intensity 5.
    """

    depth: Callable[[_Field, _Field, _Field], _Field]
    center: tuple[float, float]  # x, z in meters
    reach: tuple[float, float]
    aus: dict[int, float]
    age: float  # depth that age alone gives to the oldest


def _groove(distance: _Field, width: float) -> _Field:
    return np.exp(-((distance / width) ** 2))


def _forehead(x: _Field, y: _Field, z: _Field) -> _Field:
    """Lines across the forehead that rise a little outwards."""
    lines = [0.028, 0.0355, 0.044, 0.0525]
    waves = 0.0012 * np.sin(x / 0.011 + 1.0) + 0.0005 * np.sin(x / 0.0037) + 0.06 * x
    return sum(
        _groove(z - line - waves * (1 + 0.2 * k), 0.0019) for k, line in enumerate(lines)
    ).clip(0, 1)


def _frown(x: _Field, y: _Field, z: _Field) -> _Field:
    """The "eleven" between the brows."""
    inside = expit((z - 0.004) / 0.002) * expit((0.034 - z) / 0.003)
    return _groove(x - 0.0065 - 0.08 * (z - 0.015), 0.0013) * inside


def _crows_feet(x: _Field, y: _Field, z: _Field) -> _Field:
    """Rays from the outer corner of the eye."""
    dx, dz = x - 0.043, z + 0.001
    far, turn = np.hypot(dx, dz), np.arctan2(dz, dx)
    rays = sum(_groove((turn - angle) * far, 0.0012) for angle in (-0.75, -0.35, 0.05, 0.45))
    return rays * expit((far - 0.006) / 0.001) * expit((0.024 - far) / 0.003) * (dx > 0)


def _nose_root(x: _Field, y: _Field, z: _Field) -> _Field:
    """Lines across the root of the nose, and slanting ones on its sides."""
    across = sum(_groove(z - line + 0.25 * x, 0.0012) for line in (0.000, -0.006)) * expit(
        (0.011 - x) / 0.001
    )
    slanting = sum(
        _groove(z - line - 0.9 * (x - 0.010), 0.0012) for line in (-0.017, -0.022, -0.027)
    )
    return 0.7 * across + 0.6 * slanting * expit((x - 0.005) / 0.001) * expit((0.016 - x) / 0.001)


def _cheek_fold(x: _Field, y: _Field, z: _Field) -> _Field:
    """The nasolabial fold, from the wing of the nose around the corner of the mouth."""
    down = ((-0.036 - z) / 0.040).clip(0, 1)
    return (
        _groove(x - (0.0185 + 0.0150 * down**0.8), 0.0020)
        * expit((-0.034 - z) / 0.002)
        * expit((z + 0.078) / 0.003)
    )


def _pouch(x: _Field, y: _Field, z: _Field) -> _Field:
    """Folds below the lower lid."""
    arc = sum(
        _groove(z + low - 0.35 * ((x - 0.029) ** 2) / 0.02, 0.0013) for low in (0.0125, 0.0165)
    )
    return arc * expit((x - 0.016) / 0.002) * expit((0.043 - x) / 0.002)


def _chin(x: _Field, y: _Field, z: _Field) -> _Field:
    """Dimples of a raised chin."""
    bumps = np.cos(x / 0.0011) * np.cos(z / 0.0012 + 0.6 * np.sin(x / 0.0023))
    return (0.5 + 0.5 * bumps) * np.exp(-((x / 0.013) ** 2) - ((z + 0.0925) / 0.0085) ** 2)


def _dimple(x: _Field, y: _Field, z: _Field) -> _Field:
    """A short upright fold beside the corner of the mouth."""
    return _groove(x - 0.0285 - 6 * (z + 0.068) ** 2, 0.0016) * np.exp(
        -(((z + 0.068) / 0.008) ** 2)
    )


def _corner(x: _Field, y: _Field, z: _Field) -> _Field:
    """A fold that runs down and out from the corner of the mouth."""
    down = (-0.070 - z).clip(0, 0.03)
    return (
        _groove(x - 0.0245 - 0.35 * down, 0.0016)
        * expit((-0.071 - z) / 0.0015)
        * expit((z + 0.088) / 0.003)
    )


FOLDS = (
    Fold(_forehead, (0.000, 0.040), (0.019, 0.030), {1: 1.0, 2: 0.5}, 0.22),
    Fold(_forehead, (0.038, 0.040), (0.020, 0.030), {2: 1.0, 1: 0.2}, 0.18),
    Fold(_frown, (0.000, 0.014), (0.016, 0.020), {4: 1.0, 9: 0.3}, 0.2),
    Fold(_crows_feet, (0.052, -0.002), (0.015, 0.020), {6: 1.0, 7: 0.25}, 0.28),
    Fold(_nose_root, (0.004, -0.012), (0.016, 0.018), {9: 1.0, 4: 0.2}, 0.0),
    Fold(
        _cheek_fold,
        (0.026, -0.055),
        (0.016, 0.026),
        {12: 0.75, 10: 0.7, 9: 0.5, 6: 0.4, 14: 0.3, 20: 0.2},
        0.5,
    ),
    Fold(_pouch, (0.029, -0.014), (0.016, 0.009), {6: 0.8, 7: 0.7}, 0.35),
    Fold(_chin, (0.000, -0.0925), (0.016, 0.013), {17: 1.0}, 0.0),
    Fold(_dimple, (0.029, -0.068), (0.008, 0.012), {14: 1.0, 12: 0.25, 20: 0.3, 24: 0.3}, 0.1),
    Fold(_corner, (0.027, -0.080), (0.010, 0.012), {15: 1.0, 20: 0.3}, 0.3),
)
"""All folds. Depths are ours, by eye, after the FACS manual's descriptions."""


def groove_map(position: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(S, S, 4) for places (S, S, 3) of the texture's texels on the neutral head: slope of the
    grooves (x, y, z), and depth."""
    front = covered & (position[..., 1] < 0.012)
    x, y, z = np.moveaxis(position[front].astype(np.float64), -1, 0)
    step = 1e-4

    def depth(x: _Field, y: _Field, z: _Field) -> _Field:
        return sum(fold.depth(x, y, z) * _near(fold, x, z) for fold in FOLDS)

    here = depth(np.abs(x), y, z)
    slope_x = (depth(np.abs(x) + step, y, z) - here) / step * np.sign(x)
    slope_z = (depth(np.abs(x), y, z + step) - here) / step

    grooves = np.zeros((*covered.shape, 4), np.float32)
    # a groove is about 0.5 mm deep; a normal leans towards where the depth grows
    slopes = [slope_x * 5e-4, np.zeros_like(x), slope_z * 5e-4]
    grooves[front] = np.stack([*slopes, here.clip(0, 1)], -1)
    return grooves


def _near(fold: Fold, x: _Field, z: _Field) -> _Field:
    """1 around a fold's center, 0 beyond its reach, so that neighboring folds share the skin
    between them."""
    far = np.hypot((x - fold.center[0]) / fold.reach[0], (z - fold.center[1]) / fold.reach[1])
    return expit((1.15 - far) / 0.08)


@lru_cache(maxsize=1)
def _shares() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(V, folds) share of each fold at each vertex of the left half, and of the right half."""
    x, y, z = head_model().neutral.T.astype(np.float64)
    near = np.stack([_near(fold, np.abs(x), z) for fold in FOLDS], 1) * (y < 0.02)[:, None]
    near /= np.maximum(1.0, near.sum(1, keepdims=True))
    near[head_model().skin_count :] = 0
    left = expit(x / 0.003)[:, None]
    return (near * left).astype(np.float32), (near * (1 - left)).astype(np.float32)


def depths(left: dict[int, float], right: dict[int, float], age: float) -> NDArray[np.float32]:
    """(V,) depth of the grooves at each vertex for AU intensities 0..5 of both sides and an age of
    0..1."""

    left_share, right_share = _shares()
    return left_share @ _fold_depths(left, age) + right_share @ _fold_depths(right, age)


def _fold_depths(aus: dict[int, float], age: float) -> NDArray[np.float32]:
    """(folds,) depth of each fold on a side that shows these AUs."""
    old = max(0.0, age - 0.6) / 0.35
    depths = []
    for fold in FOLDS:
        shown = sum(weight * aus.get(au, 0.0) for au, weight in fold.aus.items())
        depths.append(fold.age * old + shown / labels.INTENSITY_MAX)
    return np.minimum(depths, 1.3).astype(np.float32)
