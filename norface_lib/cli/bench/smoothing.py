"""Jitter against lag of the filter that smooths AU intensities over time, by its two settings."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from norface_lib.cli.bench.measuring import Figure, figure_of
from norface_lib.faces.benchmark import BenchmarkSpec, face_of
from norface_lib.faces.sampling import Frame, Person, sample_frame
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import Faces
from norface_lib.photos.read_and_render import TOKEN_READER, ReadAndRender
from norface_lib.photos.smoothing import OneEuro

MIN_CUTOFFS = (0.25, 0.5, 1.0, 2.0)
BETAS = (0.0, 0.25, 0.5, 1.0, 2.0)

RATE = 25.0
"""Frames a second."""

MOST_LAG = 0.5
"""Frames that an expression may be late: the defaults are the settings with the least jitter among
those that are not later."""

STILL = 1.2
RISE = 0.3
APEX = 0.4
FALL = 0.5
"""Seconds of a sequence: still before and after, and an expression between."""

_SETTLED = 0.6
"""Seconds of the second still part that are not measured: the filter comes to rest."""

_TREMOR = 0.004
"""Deviation of the crop from frame to frame: its shift in widths, its zoom, its turn in radians."""

_NOISE = 2.5
"""Deviation of the camera's noise, of 255."""


def bench_smoothing(
    reader: str = TOKEN_READER, *, people: int = 8, seed: int = 0
) -> Iterator[Figure]:
    """Jitter of a still face and lag of an expression, for each pair of settings and without a
    filter.

    Rendered people go from neutral to an expression and back, with a camera's noise and a trembling
    crop, and a token reader reads each frame. ``value``: jitter, the mean absolute second
    difference of the intensities (of all AUs and sides) while the face is still, as a share of what
    it is without a filter. ``lag_frames``: by which the curves of the AUs that move best agree with
    those that were read; ``apex``: how much of their height is left.
    """
    readings = [_read_sequence(reader, number, seed) for number in range(people)]
    times = np.arange(len(readings[0])) / RATE
    raw = float(np.mean([jitter(values) for values in readings]))
    settings = [None, *(OneEuro(min_cutoff=c, beta=b) for c, b in product(MIN_CUTOFFS, BETAS))]
    for setting in settings:
        smoothed = [setting.smooth(times, each) if setting else each for each in readings]
        value = float(np.mean([jitter(values) for values in smoothed]))
        moved = [
            pair
            for before, after in zip(readings, smoothed, strict=True)
            for pair in zip(moving(before), moving(after, like=before), strict=True)
        ]
        yield figure_of(
            "smoothing",
            value / raw,
            "of the jitter without a filter",
            min_cutoff=setting.min_cutoff if setting else None,
            beta=setting.beta if setting else None,
            jitter=round(value, 5),
            lag_frames=round(float(np.mean([lag(*pair) for pair in moved])), 3),
            apex=round(float(np.mean([after.max() / before.max() for before, after in moved])), 3),
            frames_per_s=RATE,
            sequences=people,
            curves=len(moved),
            seed=seed,
            reader=Path(reader).stem,
        )


def _read_sequence(reader: str, number: int, seed: int) -> NDArray[np.float64]:
    """Intensities (T, A, 2) that are read of a rendered person in a sequence."""
    drawing = ReadAndRender(reader)
    spec = BenchmarkSpec(pool="lab", subjects=number + 1, seed=seed)
    rng = np.random.default_rng([seed, number])
    faces = _sequence(face_of(spec, number), sample_frame(rng, "lab"), drawing.input_size, rng)
    return np.concatenate([drawing.read(faces[i : i + 16]) for i in range(0, len(faces), 16)])


def _sequence(face: Person, apex: Frame, size: int, rng: np.random.Generator) -> Faces:
    studio = Studio(size)
    texture = studio.renderer.textures(face.texture[None])
    images = []
    for level in levels():
        tremor = rng.normal(0, _TREMOR, 4)
        camera = replace(
            apex.camera, shift=tuple(tremor[:2]), zoom=1 + tremor[2], tilt=float(tremor[3])
        )
        frame = replace(
            apex,
            left={au: level * value for au, value in apex.left.items()},
            right={au: level * value for au, value in apex.right.items()},
            camera=camera,
        )
        image = studio.plain(face, frame, texture=texture) + rng.normal(0, _NOISE, (size, size, 3))
        images.append((image + 0.5).clip(0, 255).astype(np.uint8))
    return np.stack(images)


def levels() -> NDArray[np.float64]:
    """Strength 0..1 (T,) of the expression in each frame."""
    ends = np.cumsum([STILL, RISE, APEX, FALL, STILL])
    times = np.arange(round(ends[-1] * RATE)) / RATE
    level = np.interp(times, ends[:4], (0, 1, 1, 0))
    return 0.5 - 0.5 * np.cos(np.pi * level)  # muscles start and stop softly


def jitter(values: NDArray[np.floating]) -> float:
    """Mean absolute second difference of intensities (T, ...) where the face is still."""
    first = round(STILL * RATE)
    last = round((STILL - _SETTLED) * RATE)
    parts = (values[:first], values[len(values) - last :])
    return float(np.mean([np.abs(np.diff(part, n=2, axis=0)).mean() for part in parts]))


def moving(values: NDArray, like: NDArray | None = None) -> list[NDArray]:
    """Curves (T,) of the intensities that rise by 1.5 or more in ``like``, above their first
    still part."""
    like = values if like is None else like
    still = round(STILL * RATE)
    curves = (values - values[:still].mean(0)).reshape(len(values), -1).T
    rises = (like - like[:still].mean(0)).reshape(len(like), -1).max(0)
    return [curve for curve, rise in zip(curves, rises, strict=True) if rise >= 1.5]


def lag(before: NDArray, after: NDArray, most: int = 12) -> float:
    """Frames by which a curve (T,) is later than another: where their cross correlation is highest,
    between frames by a parabola."""
    shifts = np.arange(-most, most + 1)
    inner = slice(most, len(before) - most)
    scores = np.array([after[inner] @ np.roll(before, shift)[inner] for shift in shifts])
    best = int(scores.argmax().clip(1, len(shifts) - 2))
    low, high, up = scores[best - 1 : best + 2]
    bend = low - 2 * high + up
    return float(shifts[best] + (0.5 * (low - up) / bend if bend else 0.0))
