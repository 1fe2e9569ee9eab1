"""Intervals over subjects, and paired tests."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Metric = Callable[[NDArray], NDArray]
"""From sums (..., K, L) to values (..., L), as `f1_from_counts`, or to one value (...), as
`accuracy`."""


def _unchanged(values: NDArray) -> NDArray:
    return values


def bootstrap_interval(
    per_subject: ArrayLike,
    metric: Metric = _unchanged,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    folds: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap interval over subjects (Efron and Tibshirani 1993): lower and upper end,
    95 % by default.

    Frames of one subject are alike, so subjects are what is resampled. ``per_subject`` (S, ...)
    has a row of sums for each, and ``metric`` maps the means over the sampled subjects (resamples,
    ...) to values (resamples,) or (resamples, L); metrics of this project give the same for sums
    and for means. For the mean F1, rows are `f1_counts` by subject, and the metric is
    ``lambda counts: f1_from_counts(counts).mean(axis=-1)``; left out, it is the mean of values
    (S,).

    With ``folds`` (S,), the fold that tests each subject, subjects are sampled within their fold
    and the metric is averaged over folds, as the headline is. Raises ``ValueError`` for a fold of
    fewer than two subjects.
    """
    return _interval(_resampled(per_subject, metric, folds, resamples, seed), level)


def _interval(values: NDArray, level: float = 0.95) -> tuple[NDArray, NDArray]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _resampled(
    per_subject: ArrayLike,
    metric: Metric,
    folds: ArrayLike | None,
    resamples: int = 2000,
    seed: int = 0,
) -> NDArray:
    """The metric of each resample, averaged over folds; the same samples for the same seed,
    subjects and folds."""
    rng = np.random.default_rng(seed)
    parts = _by_fold(per_subject, folds)
    return np.mean([metric(_sampled_means(rows, resamples, rng)) for rows in parts], axis=0)


def _by_fold(per_subject: ArrayLike, folds: ArrayLike | None) -> list[NDArray[np.float64]]:
    values = np.asarray(per_subject, dtype=float)
    folds = np.zeros(values.shape[:1]) if folds is None else np.asarray(folds)
    if folds.shape != values.shape[:1]:
        raise ValueError(
            f"folds must name one for each of the {len(values)} subjects, got shape {folds.shape}"
        )
    parts = [values[folds == fold] for fold in np.unique(folds)]
    if not parts or values.ndim == 0 or min(map(len, parts)) < 2:
        raise ValueError(
            "a bootstrap over subjects needs a row for each of two subjects or more, got shape "
            f"{values.shape}"
        )
    return parts


def _sampled_means(
    values: NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means (resamples, ...) of as many rows (S, ...) as there are, sampled with replacement."""
    count = len(values)
    return np.tensordot(times_drawn(count, resamples, rng) / count, values, axes=1)


def times_drawn(count: int, resamples: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """(resamples, count) how often each of ``count`` subjects is drawn, as many times with
    replacement as there are subjects."""
    drawn = rng.integers(count, size=(resamples, count))
    cells = drawn + count * np.arange(resamples)[:, None]
    return np.bincount(cells.ravel(), minlength=resamples * count).reshape(resamples, count)


class Difference(NamedTuple):
    """First minus second method, with the ends of its interval."""

    value: NDArray[np.float64] | float
    low: NDArray[np.float64] | float
    high: NDArray[np.float64] | float


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    metric: Metric = _unchanged,
    folds: ArrayLike | None = None,
) -> Difference:
    """Difference of a metric between two methods on the same subjects, with its 95 % percentile
    bootstrap interval.

    Both methods are given the same samples, so that what makes a subject hard for both cancels out.
    ``first`` and ``second`` (S, ...) hold sums of the same subjects in the same order; else as
    `bootstrap_interval`. It is about other test subjects, not about another training. Raises
    ``ValueError`` for unlike shapes.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"both methods need the same subjects and labels, got shapes {np.shape(first)} and "
            f"{np.shape(second)}"
        )
    ours, theirs = (_resampled(values, metric, folds=folds) for values in (first, second))
    low, high = _interval(ours - theirs)
    return Difference(_score(first, metric, folds) - _score(second, metric, folds), low, high)


def _score(values: ArrayLike, metric: Metric, folds: ArrayLike | None) -> NDArray[np.float64]:
    """The metric of all subjects, averaged over folds."""
    return np.mean([metric(rows.mean(axis=0)) for rows in _by_fold(values, folds)], axis=0)


def _checked(first: ArrayLike, second: ArrayLike) -> tuple[NDArray, NDArray]:
    """Pairs (P,) as arrays. Raises ``ValueError`` for fewer than two, unlike shapes, and NaN."""
    first = np.asarray(first, dtype=float)
    second = np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(
            f"two pairs or more are needed, got shapes {first.shape} and {second.shape}"
        )
    if not np.isfinite(first - second).all():
        raise ValueError(
            "a pair holds NaN or infinity: a run has failed, or its metric is undefined"
        )
    return first, second


def paired_t_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Difference:
    """Mean difference of two methods over the same folds and seeds (P,), with the interval of
    Student's paired t test.

    Folds share training subjects and seeds share test subjects, which makes it too narrow
    (Dietterich 1998): read it beside `paired_bootstrap`. Raises ``ValueError`` for fewer than two
    pairs, unlike shapes, and NaN.
    """
    first, second = _checked(first, second)
    with warnings.catch_warnings():
        # equal differences: the interval has no width, and t no meaning
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = stats.ttest_rel(first, second).confidence_interval(level)
    return Difference((first - second).mean(), low, high)


def sign_flip_test(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p-value of the paired permutation test (Fisher 1935) on the mean difference over
    the same folds and seeds (P,).

    If the methods are alike, each difference could as well have had the other sign. Up to 16 pairs
    all 2^P signs are tried, beyond that 100,000 random ones. The least p-value is 2 / 2^P:
    three folds of one seed (0.25) can show nothing. Errors as in `paired_t_interval`.
    """
    result = stats.permutation_test(
        _checked(first, second),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        n_resamples=100_000,
        rng=0,
    )
    return float(result.pvalue)
