"""Bootstrap over people with weights: each resample gives every face the number of times that its
person was drawn.

A measure is computed from weights (R, N) of N faces: the first row is 1 for all, so that its value
is that of the faces as they are; the others are resamples. What measures give is (R,), of which
`with_intervals` makes a value and its interval. Measures of several methods from the same weights
can be subtracted resample by resample.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.studies.statistics import times_drawn
from norface_lib.tasks.metrics import ratio

Weights = NDArray[np.float64]
"""(R, N) weights of faces; the first row is 1."""

Samples = NDArray[np.float64]
"""(R,) values of a measure, NaN where it is undefined."""


def person_weights(subjects: NDArray[np.str_], resamples: int = 1000, seed: int = 0) -> Weights:
    """(1 + resamples, N) weights of the faces of ``subjects`` (N,): 1, then how often each person
    was drawn with replacement.

    Faces of one person are alike, so people are drawn, not faces (Efron and Tibshirani 1993).
    Raises :class:`DataError` for fewer than two people.
    """
    names, person = np.unique(subjects, return_inverse=True)
    count = len(names)
    if count < 2:
        raise DataError(f"intervals over people need two people or more, and there is {count}")
    times = times_drawn(count, resamples, np.random.default_rng(seed))
    return np.concatenate([np.ones((1, len(person))), times[:, person]])


def weighted_auc(
    scores: NDArray[np.floating], positives: NDArray[np.bool_], weights: Weights
) -> Samples:
    """Area under the ROC curve of scores (N,) for each row of weights, ties counting one half; NaN
    where a class has no weight."""
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    parts = weights[:, order]
    positive = np.add.reduceat(parts * positives[order], starts, axis=1)
    negative = np.add.reduceat(parts * ~positives[order], starts, axis=1)
    below = negative.cumsum(axis=1) - negative
    wins = (positive * (below + negative / 2)).sum(axis=1)
    return ratio(wins, positive.sum(axis=1) * negative.sum(axis=1))


def weighted_mean(values: NDArray, weights: Weights) -> NDArray[np.float64]:
    """Mean of values (N, ...) over faces: (R, ...), NaN where no face has weight."""
    sums = np.tensordot(weights, np.asarray(values, float), axes=1)
    total = weights.sum(axis=1).reshape(-1, *[1] * (sums.ndim - 1))
    return ratio(sums, np.broadcast_to(total, sums.shape))


def mean_of(columns: NDArray[np.float64]) -> Samples:
    """Mean of K measures (R, K) for each resample, without those that are undefined there."""
    defined = ~np.isnan(columns)
    return ratio(np.where(defined, columns, 0).sum(axis=1), defined.sum(axis=1))


def with_intervals(measures: Any) -> Any:
    """The same measures with ``value`` and ``interval`` (95 % of the resamples) in place of each
    array of samples; None where undefined."""
    if isinstance(measures, Mapping):
        return {name: with_intervals(part) for name, part in measures.items()}
    if not isinstance(measures, np.ndarray):
        return measures
    value, resampled = measures[0], measures[1:]
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not len(resampled):
        return {"value": None, "interval": None}
    ends = np.quantile(resampled, [0.025, 0.975])
    return {"value": float(value), "interval": ends.tolist()}
