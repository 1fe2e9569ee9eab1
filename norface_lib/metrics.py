"""Metrics of action units, as plain functions on numpy arrays; formulas are those of PAPER.md section 3.

Rows are frames (N), columns are labels (L). A label that is NaN or 9 is unknown (9 is what BP4D writes for "not coded") and is
left out of every metric, for that label only.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


class F1Counter:
    """Counts true positives, false positives and false negatives of each label over batches of any size.

    F1 belongs to all frames of a test fold: it is never averaged over batches. ``counts`` (3, L) holds TP, FP and FN; those of
    several subjects or processes may be added up and given to `f1_from_counts`.
    """

    def __init__(self, labels: int):
        self.counts = np.zeros((3, labels), dtype=np.int64)

    def update(self, probabilities: ArrayLike, labels: ArrayLike, threshold: float = 0.5) -> None:
        """Add a batch: probabilities (N, L) in [0, 1], labels (N, L) in {0, 1, 9, NaN}; positive from ``threshold`` on.

        Raises ``ValueError`` for another shape, and for probabilities (logits? NaN?) or labels (intensities?) of another range.
        """
        probabilities, labels = _frames_by_labels(probabilities, labels)
        if labels.shape[1] != self.counts.shape[1]:
            raise ValueError(f"this counter holds {self.counts.shape[1]} labels, the batch has {labels.shape[1]}")
        if ((probabilities < 0) | (probabilities > 1)).any():
            raise ValueError("probabilities must be within 0..1: apply the sigmoid to logits first")
        mask = known(labels)
        if not np.isin(labels[mask], (0, 1)).all():
            raise ValueError("labels must be 0, 1, 9 or NaN: apply the dataset's occurrence threshold to intensities first")
        predicted, present = probabilities >= threshold, labels == 1
        cells = (predicted & present, predicted & ~present, ~predicted & present)
        self.counts += np.stack([(cell & mask).sum(axis=0) for cell in cells])

    def compute(self) -> NDArray[np.float64]:
        """F1 of each label, (L,) in [0, 1]; see `f1_from_counts`."""
        return f1_from_counts(self.counts)


def f1_from_counts(counts: ArrayLike) -> NDArray[np.float64]:
    """F1 = 2 TP / (2 TP + FP + FN) from counts (3, L) of TP, FP, FN -> (L,); 0 where it is undefined (PAPER.md 3)."""
    tp, fp, fn = np.asarray(counts, dtype=float)
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)


def f1_per_label(probabilities: ArrayLike, labels: ArrayLike, threshold: float = 0.5) -> NDArray[np.float64]:
    """F1 of each label over all frames: probabilities and labels (N, L) -> (L,). Ranges and errors are `F1Counter.update`'s."""
    counter = F1Counter(np.shape(labels)[-1])
    counter.update(probabilities, labels, threshold)
    return counter.compute()


def constant_predictor_f1(rates: ArrayLike) -> NDArray[np.float64]:
    """F1 of calling every label present in every frame, the floor to beat: 2 r / (1 + r) for rates r (L,) in [0, 1]."""
    rates = np.asarray(rates, dtype=float)
    return 2 * rates / (1 + rates)


def icc3_1(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Intraclass correlation ICC(3,1) of each label between prediction and label: (N, L) and (N, L) -> (L,) in [-1, 1].

    PAPER.md 3 (Shrout and Fleiss 1979) with k = 2 raters. A constant offset between the raters does not lower it, another scale
    does. It is 0 where it is undefined: both raters constant, or fewer than two known frames. Raises ``ValueError`` for other
    shapes and for NaN predictions.
    """
    predictions, labels = _frames_by_labels(predictions, labels)
    columns = zip(predictions.T, labels.T, known(labels).T, strict=True)
    return np.array([_icc_of_one(np.stack([prediction[mask], label[mask]], axis=1)) for prediction, label, mask in columns])


def _icc_of_one(ratings: NDArray[np.float64]) -> float:
    """ICC(3,1) of ratings (n, 2)."""
    frames, raters = ratings.shape
    if frames < 2:
        return 0.0
    ratings = ratings - ratings[0]  # no offset matters to ICC(3,1), and so a constant rater is 0 without rounding
    of_frame, of_rater, mean = ratings.mean(axis=1), ratings.mean(axis=0), ratings.mean()
    bms = raters * ((of_frame - mean) ** 2).sum() / (frames - 1)
    within = ((ratings - of_frame[:, None]) ** 2).sum()
    ems = (within - frames * ((of_rater - mean) ** 2).sum()) / ((frames - 1) * (raters - 1))
    total = bms + (raters - 1) * ems
    return float((bms - ems) / total) if total > 0 else 0.0


def mse(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Mean squared error of each label over known frames: (N, L) and (N, L) -> (L,), in squared units of the label.

    Predictions are taken as they are: clip intensities to 0..5 before. NaN for a label without a known frame. Raises
    ``ValueError`` for other shapes and for NaN predictions.
    """
    return _mean_of_known(*_frames_by_labels(predictions, labels), np.square)


def mae(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Mean absolute error of each label over known frames, (L,), in units of the label; else as `mse`."""
    return _mean_of_known(*_frames_by_labels(predictions, labels), np.abs)


def _mean_of_known(predictions: NDArray, labels: NDArray, penalty: Callable) -> NDArray[np.float64]:
    mask = known(labels)
    total = np.where(mask, penalty(predictions - labels), 0.0).sum(axis=0)
    return np.divide(total, mask.sum(axis=0), out=np.full(total.shape, np.nan), where=mask.any(axis=0))


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


def mean_over_folds(folds: Sequence[ArrayLike]) -> tuple[NDArray[np.float64], float]:
    """Mean over folds of each label (L,), and the mean of those: the headline number of PAPER.md 3.

    ``folds`` holds one (L,) array per fold. Raises ``ValueError`` if there is none or if their lengths differ.
    """
    shapes = {np.shape(fold) for fold in folds}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"folds must be arrays of one shape (L,), got {sorted(shapes) or 'no fold'}")
    per_label = np.mean(np.asarray(folds, dtype=float), axis=0)
    return per_label, float(per_label.mean())


def bootstrap_interval(
    values_per_subject: ArrayLike,
    statistic: Callable[[NDArray], float] = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval over subjects (Efron and Tibshirani 1993): lower and upper end, 95 % by default.

    Frames of one subject are alike, so subjects are what is drawn again. ``values_per_subject`` (S, ...) has a row per subject
    and ``statistic`` maps drawn rows (S, ...) to a number; for F1 the rows are `F1Counter.counts`, (S, 3, L), and the statistic
    ``lambda rows: f1_from_counts(rows.sum(axis=0)).mean()``. Raises ``ValueError`` for fewer than two subjects.
    """
    values = np.asarray(values_per_subject, dtype=float)
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"a bootstrap over subjects needs a row for each of two subjects or more, got shape {values.shape}")
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile([statistic(values[draw]) for draw in draws], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
