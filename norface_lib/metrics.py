"""Metrics of action units and emotions, as plain functions on numpy arrays; formulas are those of PAPER.md section 3.

Rows are frames (N), columns are labels (L). A label that is NaN or 9 is unknown (9 is what BP4D writes for "not coded") and is
left out of every metric, for that label only.

Each metric is made of sums over frames: `f1_counts`, `intensity_sums`, `confusion`. Those of batches, processes or subjects
(S) add up, which is how a metric is streamed, pooled over folds, and given an interval by drawing subjects again.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Metric = Callable[[NDArray], NDArray]
"""From sums (..., K, L) to values (..., L), as `f1_from_counts`, or to one value (...), as `accuracy`."""

UNKNOWN = 9
"""Label value of BP4D for a frame whose AU could not be coded (PAPER.md 2.1). NaN means the same."""


def known(labels: ArrayLike) -> NDArray[np.bool_]:
    """Where labels, of any shape, are neither NaN nor 9. Same shape, bool."""
    labels = np.asarray(labels, dtype=float)
    return ~np.isnan(labels) & (labels != UNKNOWN)


def _frames_by_labels(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float arrays of one shape (N, L). Raises ``ValueError`` for other shapes and for NaN predictions."""
    predictions, labels = np.asarray(predictions, dtype=float), np.asarray(labels, dtype=float)
    if predictions.ndim != 2 or predictions.shape != labels.shape:
        raise ValueError(f"predictions and labels must share one shape (N, L), got {predictions.shape} and {labels.shape}")
    if np.isnan(predictions).any():
        raise ValueError(f"{np.isnan(predictions).sum()} predictions are NaN: the network has diverged, or an image was broken")
    return predictions, labels


def _sum_frames(values: NDArray, subjects: ArrayLike | None) -> NDArray:
    """Sum over frames of values (N, ...) -> (...), or over the frames of each subject -> (S, ...), subjects sorted."""
    if subjects is None:
        return values.sum(axis=0)
    names, subject = np.unique(np.asarray(subjects), return_inverse=True)
    if subject.shape != values.shape[:1]:
        raise ValueError(f"subjects must name one for each of the {len(values)} frames, got shape {np.shape(subjects)}")
    order = np.argsort(subject, kind="stable")
    starts = np.searchsorted(subject[order], np.arange(len(names)))
    return np.add.reduceat(values[order], starts, axis=0, dtype=np.int64 if values.dtype == bool else None)


def _ratio(part: NDArray, whole: NDArray, undefined: float) -> NDArray[np.float64]:
    """part / whole, and ``undefined`` where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), undefined), where=whole > 0)


# --- detection ----------------------------------------------------------------------------------------------------------


def f1_counts(
    probabilities: ArrayLike, labels: ArrayLike, threshold: float = 0.5, subjects: ArrayLike | None = None
) -> NDArray[np.int64]:
    """True and false positives and false negatives of each label: (3, L), or (S, 3, L) by the subject (N,) of each frame.

    probabilities (N, L) in [0, 1], labels (N, L) in {0, 1, 9, NaN}; positive from ``threshold`` on. Subjects come sorted.
    Raises ``ValueError`` for another shape, and for probabilities (logits? NaN?) or labels (intensities?) of another range.
    """
    probabilities, labels = _frames_by_labels(probabilities, labels)
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise ValueError("probabilities must be within 0..1: apply the sigmoid to logits first")
    mask = known(labels)
    if not np.isin(labels[mask], (0, 1)).all():
        raise ValueError("labels must be 0, 1, 9 or NaN: apply the dataset's occurrence threshold to intensities first")
    predicted, present = probabilities >= threshold, labels == 1
    cells = (predicted & present, predicted & ~present & mask, ~predicted & present)
    return _sum_frames(np.stack(cells, axis=1), subjects)


def f1_from_counts(counts: ArrayLike) -> NDArray[np.float64]:
    """F1 = 2 TP / (2 TP + FP + FN) from `f1_counts` (..., 3, L) -> (..., L); 0 where it is undefined (PAPER.md 3)."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=float), -2, 0)
    return _ratio(2 * tp, 2 * tp + fp + fn, undefined=0.0)


def f1_per_label(probabilities: ArrayLike, labels: ArrayLike, threshold: float = 0.5) -> NDArray[np.float64]:
    """F1 of each label over all frames: probabilities and labels (N, L) -> (L,). Ranges and errors are those of `f1_counts`."""
    return f1_from_counts(f1_counts(probabilities, labels, threshold))


class F1Counter:
    """Adds up the counts of each label over batches of any size: F1 belongs to all frames of a fold, never to a batch.

    ``counts`` (3, L) holds TP, FP and FN; those of several counters may be added up and given to `f1_from_counts`.
    """

    def __init__(self, labels: int):
        self.counts = np.zeros((3, labels), dtype=np.int64)

    def update(self, probabilities: ArrayLike, labels: ArrayLike, threshold: float = 0.5) -> None:
        """Add a batch of (N, L); ranges and errors are those of `f1_counts`, or ``ValueError`` for another number of labels."""
        counts = f1_counts(probabilities, labels, threshold)
        if counts.shape != self.counts.shape:
            raise ValueError(f"this counter holds {self.counts.shape[1]} labels, the batch has {counts.shape[1]}")
        self.counts += counts

    def compute(self) -> NDArray[np.float64]:
        """F1 of each label, (L,) in [0, 1]: exactly that of all frames at once."""
        return f1_from_counts(self.counts)


def constant_predictor_f1(rates: ArrayLike) -> NDArray[np.float64]:
    """F1 of calling every label present in every frame, the floor to beat: 2 r / (1 + r) for rates r (L,) in [0, 1]."""
    rates = np.asarray(rates, dtype=float)
    return 2 * rates / (1 + rates)


class OracleF1(NamedTuple):
    """F1 (L,) at the threshold that suits the test frames best. Not comparable with F1 at a threshold fixed before the test."""

    threshold: float
    f1: NDArray[np.float64]
    name: str = "oracle threshold (chosen on the test frames, not comparable)"


def oracle_f1(probabilities: ArrayLike, labels: ArrayLike) -> OracleF1:
    """The best mean F1 of one threshold common to all labels, of 0.01, 0.02 .. 0.99; the lowest of equals.

    What FMAE reports (PAPER.md 3), and an upper bound on what a threshold can give, never a result: call it by its ``name``
    wherever it is shown. Ranges and errors are those of `f1_counts`.
    """
    thresholds = np.arange(1, 100) / 100
    scores = np.stack([f1_per_label(probabilities, labels, threshold) for threshold in thresholds])
    best = scores.mean(axis=1).argmax()
    return OracleF1(float(thresholds[best]), scores[best])


def auc(scores: ArrayLike, positives: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting one half (Mann-Whitney U).

    scores (N,), any finite range; positives (N,) of bool or 0/1. Raises ``ValueError`` if a class is missing, where the area is
    undefined, for other shapes, and for NaN scores.
    """
    scores, positives = np.asarray(scores, dtype=float), np.asarray(positives)
    if scores.ndim != 1 or scores.shape != positives.shape:
        raise ValueError(f"scores and positives must share one shape (N,), got {scores.shape} and {positives.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} scores are NaN")
    if not np.isin(positives, (0, 1)).all():
        raise ValueError("positives must be bool or 0/1: leave out the frames of unknown label first")
    positives = positives.astype(bool)
    count, others = positives.sum(), (~positives).sum()
    if not count or not others:
        raise ValueError(f"the area under the ROC curve needs both classes, got {count} positives and {others} negatives")
    _, inverse, ties = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(ties) - (ties - 1) / 2  # of each distinct score, the mean rank of those who tie at it
    return float((rank[inverse][positives].sum() - count * (count + 1) / 2) / (count * others))


# --- intensity ----------------------------------------------------------------------------------------------------------


def intensity_sums(predictions: ArrayLike, labels: ArrayLike, subjects: ArrayLike | None = None) -> NDArray[np.float64]:
    """Sums over known frames that all metrics of intensity are made of: (8, L), or (S, 8, L) by the subject (N,) of each frame.

    They are the number of frames and the sums of x, y, x^2, y^2, xy, (x - y)^2 and |x - y|, with predictions x and labels y
    (N, L). Predictions are taken as they are: clip to 0..5 before. Raises ``ValueError`` for other shapes and NaN predictions.
    """
    x, y = _frames_by_labels(predictions, labels)
    mask = known(y)
    x, y = np.where(mask, x, 0), np.where(mask, y, 0)
    return _sum_frames(np.stack([mask, x, y, x * x, y * y, x * y, (x - y) ** 2, abs(x - y)], axis=1), subjects)


def intensity_metrics(sums: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """``icc``, ``pcc``, ``ccc`` in [-1, 1] and ``mse``, ``mae`` of each label, from `intensity_sums` (..., 8, L) -> (..., L).

    With S the centered sums of squares and products over n frames:

    - ICC(3,1) = (BMS - EMS) / (BMS + EMS) for two raters (Shrout and Fleiss 1979; PAPER.md 3), which is 2 Sxy / (Sxx + Syy):
      a constant offset between the raters does not lower it, another scale does;
    - PCC = Sxy / sqrt(Sxx Syy) (Pearson): neither lowers it;
    - CCC = 2 Sxy / (Sxx + Syy + n (mean x - mean y)^2) (Lin 1989): both lower it.

    The three are 0 where a constant rater leaves them without meaning. A rater counts as constant whose variance is less than
    1e-10 of its mean square, which is rounding. The errors are NaN for a label without a known frame.
    """
    n, x, y, xx, yy, xy, squared, absolute = np.moveaxis(np.asarray(sums, dtype=float), -2, 0)
    sxx, syy = _centered(n, x, xx), _centered(n, y, yy)
    limit = np.sqrt(sxx * syy)
    sxy = np.clip(xy - _ratio(x * y, n, 0.0), -limit, limit)  # no further than Cauchy and Schwarz allow: the rest is rounding
    return {
        "icc": _ratio(2 * sxy, sxx + syy, 0.0),
        "pcc": _ratio(sxy, limit, 0.0),
        "ccc": _ratio(2 * sxy, squared + 2 * sxy, 0.0),  # the sum of (x - y)^2 is Sxx + Syy - 2 Sxy + n (mean x - mean y)^2
        "mse": _ratio(squared, n, np.nan),
        "mae": _ratio(absolute, n, np.nan),
    }


def _centered(n: NDArray, total: NDArray, squares: NDArray) -> NDArray[np.float64]:
    """Sum of squares about the mean, 0 where it is only rounding."""
    centered = squares - _ratio(total**2, n, 0.0)
    return np.where(centered > 1e-10 * squares, centered, 0.0)


def icc3_1(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Intraclass correlation ICC(3,1) of each label: (N, L) and (N, L) -> (L,) in [-1, 1]; see `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["icc"]


def pcc(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Pearson's correlation of each label: (N, L) and (N, L) -> (L,) in [-1, 1]; see `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["pcc"]


def ccc(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Lin's concordance correlation of each label: (N, L) and (N, L) -> (L,) in [-1, 1]; see `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["ccc"]


def mse(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Mean squared error of each label, (L,), in squared units of the label; see `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["mse"]


def mae(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Mean absolute error of each label, (L,), in units of the label; see `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["mae"]


# --- emotions -----------------------------------------------------------------------------------------------------------


def confusion(predictions: ArrayLike, labels: ArrayLike, classes: int, subjects: ArrayLike | None = None) -> NDArray[np.int64]:
    """Counts of label (row) and predicted class (column): (C, C), or (S, C, C) by the subject (N,) of each image.

    predictions (N,) and labels (N,) are classes 0..C-1, of which there may be 9; images of unknown label (NaN or 9) are left
    out. Raises ``ValueError`` for other shapes and other values.
    """
    predictions, labels = np.asarray(predictions, dtype=float), np.asarray(labels, dtype=float)
    if predictions.ndim != 1 or predictions.shape != labels.shape:
        raise ValueError(f"predictions and labels must share one shape (N,), got {predictions.shape} and {labels.shape}")
    mask = known(labels)
    for name, values in (("predictions", predictions), ("labels", labels[mask])):
        if not 1 <= classes <= UNKNOWN or not np.isin(values, range(classes)).all():
            raise ValueError(f"{name} must be classes 0..{classes - 1}, at most 0..{UNKNOWN - 1}")
    cell = np.where(mask, labels, 0) * classes + predictions
    counts = _sum_frames((cell[:, None] == np.arange(classes**2)) & mask[:, None], subjects)
    return counts.reshape(*counts.shape[:-1], classes, classes)


def accuracy(confusions: ArrayLike) -> NDArray[np.float64]:
    """Share of images whose class is right, from `confusion` (..., C, C) -> (...) in [0, 1]; NaN without an image."""
    confusions = np.asarray(confusions, dtype=float)
    return _ratio(np.trace(confusions, axis1=-2, axis2=-1), confusions.sum(axis=(-2, -1)), np.nan)


def class_mean_accuracy(confusions: ArrayLike) -> NDArray[np.float64]:
    """Mean recall of the classes that occur, from `confusion` (..., C, C) -> (...) in [0, 1]; NaN without an image.

    Of a predictor that always says the same it is 1 / C, however often that class occurs (PAPER.md 3).
    """
    confusions = np.asarray(confusions, dtype=float)
    images = confusions.sum(axis=-1)
    recall = _ratio(np.diagonal(confusions, axis1=-2, axis2=-1), images, 0.0)
    return _ratio(recall.sum(axis=-1), (images > 0).sum(axis=-1), np.nan)


# --- folds, intervals, differences --------------------------------------------------------------------------------------


def mean_over_folds(folds: Sequence[ArrayLike]) -> tuple[NDArray[np.float64], float]:
    """Mean over folds of each label (L,), and the mean of those: the headline number of PAPER.md 3.

    ``folds`` holds one (L,) array per fold. Raises ``ValueError`` if there is none or if their lengths differ.
    """
    shapes = {np.shape(fold) for fold in folds}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"folds must be arrays of one shape (L,), got {sorted(shapes) or 'no fold'}")
    per_label = np.mean(np.asarray(folds, dtype=float), axis=0)
    return per_label, float(per_label.mean())


def mean_and_pooled(per_fold: ArrayLike, metric: Metric) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A metric of each fold, averaged over the folds, and the metric of all frames pooled (PAPER.md 3: the first is quoted).

    ``per_fold`` holds sums of each fold, (F, 3, L) for ``f1_from_counts``.
    """
    per_fold = np.asarray(per_fold)
    return metric(per_fold).mean(axis=0), metric(per_fold.sum(axis=0))


def _as_they_are(values: NDArray) -> NDArray:
    return values


def bootstrap_interval(
    per_subject: ArrayLike,
    metric: Metric = _as_they_are,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    folds: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap interval over subjects (Efron and Tibshirani 1993): lower and upper end, 95 % by default.

    Frames of one subject are alike, so subjects are what is drawn again. ``per_subject`` (S, ...) has a row of sums for each,
    and ``metric`` maps the means over the drawn subjects (resamples, ...) to values (resamples,) or (resamples, L); metrics of
    this module do not care whether they are given sums or means. For the mean F1, rows are `f1_counts` by subject, and the
    metric is ``lambda counts: f1_from_counts(counts).mean(axis=-1)``; left out, it is the mean of values (S,).

    With ``folds`` (S,), the fold that tests each subject, subjects are drawn within their fold and the metric is averaged over
    folds, as the headline is. Raises ``ValueError`` for a fold of fewer than two subjects.
    """
    return _interval(_resampled(per_subject, metric, resamples, seed, folds), level)


def _interval(values: NDArray, level: float) -> tuple[NDArray, NDArray]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _resampled(per_subject: ArrayLike, metric: Metric, resamples: int, seed: int, folds: ArrayLike | None) -> NDArray:
    """The metric of each resample, averaged over folds; the same draws for the same seed, subjects and folds."""
    rng = np.random.default_rng(seed)
    return np.mean([metric(_drawn_means(rows, resamples, rng)) for rows in _by_fold(per_subject, folds)], axis=0)


def _by_fold(per_subject: ArrayLike, folds: ArrayLike | None) -> list[NDArray[np.float64]]:
    values = np.asarray(per_subject, dtype=float)
    folds = np.zeros(values.shape[:1]) if folds is None else np.asarray(folds)
    if folds.shape != values.shape[:1]:
        raise ValueError(f"folds must name one for each of the {len(values)} subjects, got shape {folds.shape}")
    parts = [values[folds == fold] for fold in np.unique(folds)]
    if not parts or values.ndim == 0 or min(map(len, parts)) < 2:
        raise ValueError(f"a bootstrap over subjects needs a row for each of two subjects or more, got shape {values.shape}")
    return parts


def _drawn_means(values: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means (resamples, ...) of as many rows (S, ...) as there are, drawn with replacement."""
    count = len(values)
    draws = rng.integers(count, size=(resamples, count)) + count * np.arange(resamples)[:, None]
    times = np.bincount(draws.ravel(), minlength=resamples * count).reshape(resamples, count)
    return np.tensordot(times / count, values, axes=1)


class Difference(NamedTuple):
    """First minus second method, with the ends of its interval."""

    value: NDArray[np.float64] | float
    low: NDArray[np.float64] | float
    high: NDArray[np.float64] | float


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    metric: Metric = _as_they_are,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    folds: ArrayLike | None = None,
) -> Difference:
    """Difference of a metric between two methods on the same subjects, with its percentile bootstrap interval.

    Both methods are given the same draws, so that what makes a subject hard for both cancels out. ``first`` and ``second``
    (S, ...) hold sums of the same subjects in the same order; else as `bootstrap_interval`. It answers for other test subjects,
    not for another training. Raises ``ValueError`` for unlike shapes.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"both methods need the same subjects and labels, got shapes {np.shape(first)} and {np.shape(second)}")
    drawn = [_resampled(values, metric, resamples, seed, folds) for values in (first, second)]
    ours, theirs = (np.mean([metric(rows.mean(axis=0)) for rows in _by_fold(v, folds)], axis=0) for v in (first, second))
    return Difference(ours - theirs, *_interval(drawn[0] - drawn[1], level))


def _paired(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Differences (P,) of pairs."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(f"two pairs or more are needed, got shapes {first.shape} and {second.shape}")
    if not np.isfinite(first - second).all():
        raise ValueError("a pair holds NaN or infinity: a run has failed, or its metric is undefined")
    return first - second


def paired_t_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Difference:
    """Mean difference of two methods over the same folds and seeds (P,), with the interval of Student's paired t test.

    Folds share training subjects and seeds share test subjects, which makes it too narrow (Dietterich 1998): read it beside
    `paired_bootstrap`. Raises ``ValueError`` for fewer than two pairs, unlike shapes, and NaN.
    """
    differences = _paired(first, second)
    count = len(differences)
    half = stdtrit(count - 1, (1 + level) / 2) * differences.std(ddof=1) / np.sqrt(count)
    return Difference(differences.mean(), differences.mean() - half, differences.mean() + half)


def sign_flip_test(first: ArrayLike, second: ArrayLike, resamples: int = 100_000, seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test (Fisher 1935) on the mean difference over the same folds and seeds (P,).

    If the methods are alike, each difference could as well have had the other sign. Up to 16 pairs all 2^P signs are tried,
    beyond that ``resamples`` random ones. The least p-value is 2 / 2^P: three folds of one seed (0.25) can show nothing. Errors
    as in `paired_t_interval`.
    """
    differences = _paired(first, second)
    count = len(differences)
    exact = count <= 16
    if exact:
        flips = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        flips = np.random.default_rng(seed).integers(2, size=(resamples, count))
    sums = np.abs((1 - 2 * flips) @ differences)
    reached = int((sums >= np.abs(differences.sum()) - 1e-12 * np.abs(differences).sum()).sum())  # equal but for rounding
    return reached / len(flips) if exact else (reached + 1) / (len(flips) + 1)  # the data are a sample of their own
