"""Distances of I_n to the true one by person, and their ratios to the neutral target's, with
intervals over people."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import Faces
from norface_lib.images.distances import distance_to, region_slices
from norface_lib.studies.resampling import Samples, person_weights, weighted_mean, with_intervals

Distances = Mapping[str, NDArray[np.float64]]
"""Of the whole ``face`` and of each region, (P, 2): the mean distance of I_n, and of the neutral
target, to the true I_n of each of P people."""


def distances_by_person(data: Rendered, normalized: Faces) -> Distances:
    """The `Distances` of normalized faces (N, S, S, 3); people are in the order of their names."""
    size = normalized.shape[1]
    neutral = np.broadcast_to(data.target, data.truths.shape)
    parts = {"face": (slice(None), slice(None))} | region_slices(size)
    _, person = np.unique(data.subjects, return_inverse=True)
    frames = np.bincount(person)
    distances = {}
    for name, (rows, columns) in parts.items():
        of_faces = [
            distance_to(data.truths[:, rows, columns], faces[:, rows, columns])
            for faces in (normalized, neutral)
        ]
        sums = [np.bincount(person, weights=values) for values in of_faces]
        distances[name] = np.stack(sums, axis=1) / frames[:, None]
    return distances


def ratio_samples(by_person: ArrayLike) -> Samples:
    """(R,) distance of I_n over that of the neutral target, from (P, 2) distances: of all people,
    then of each resample of them, the same ones at each call with as many people."""
    by_person = np.asarray(by_person, float)
    means = weighted_mean(by_person, person_weights(np.arange(len(by_person)).astype(str)))
    return means[:, 0] / means[:, 1]


def with_ratios(distances: Distances) -> dict[str, Any]:
    """``<part>_ratio`` of each part, with value and 95 % interval over people."""
    return with_intervals(
        {f"{name}_ratio": ratio_samples(by_person) for name, by_person in distances.items()}
    )


def difference(first: ArrayLike, second: ArrayLike) -> dict[str, Any]:
    """Ratio of the first (P, 2) less that of the second, of the same people: value and interval."""
    return with_intervals(ratio_samples(first) - ratio_samples(second))
