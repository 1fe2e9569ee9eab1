"""Metrics of action units and emotions, as plain functions on numpy arrays; formulas are those of
PAPER.md section 3.

Rows are frames (N), columns are labels (L). A label that is NaN or 9 is unknown (9 is what BP4D
writes for "not coded") and is left out of every metric, for that label only.

Each metric is made of sums over frames: `f1_counts`, `intensity_sums`, `confusion`. Those of
batches, processes or subjects (S) add up, which is how a metric is streamed, pooled over folds, and
given an interval by resampling subjects.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norface_lib.labels import UNKNOWN


def known(labels: ArrayLike) -> NDArray[np.bool_]:
    """Mask of labels, of any shape, that are neither NaN nor 9. Same shape, bool."""
    labels = np.asarray(labels, dtype=float)
    return ~np.isnan(labels) & (labels != UNKNOWN)


def _frames_by_labels(
    predictions: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float arrays of one shape (N, L). Raises ``ValueError`` for other shapes and for NaN
    predictions."""
    predictions = np.asarray(predictions, dtype=float)
    labels = np.asarray(labels, dtype=float)
    if predictions.ndim != 2 or predictions.shape != labels.shape:
        raise ValueError(
            f"predictions and labels must share one shape (N, L), got {predictions.shape} and "
            f"{labels.shape}"
        )
    if np.isnan(predictions).any():
        raise ValueError(
            f"{np.isnan(predictions).sum()} predictions are NaN: the network has diverged, or an "
            "image was broken"
        )
    return predictions, labels


def _sum_frames(values: NDArray, subjects: ArrayLike | None) -> NDArray:
    """Sum over frames of values (N, ...) -> (...), or over the frames of each subject -> (S, ...),
    subjects sorted."""
    if subjects is None:
        return values.sum(axis=0)
    names, subject = np.unique(np.asarray(subjects), return_inverse=True)
    if subject.shape != values.shape[:1]:
        raise ValueError(
            f"subjects must name one for each of the {len(values)} frames, got shape "
            f"{np.shape(subjects)}"
        )
    order = np.argsort(subject, kind="stable")
    starts = np.searchsorted(subject[order], np.arange(len(names)))
    return np.add.reduceat(
        values[order], starts, axis=0, dtype=np.int64 if values.dtype == bool else None
    )


def ratio(part: NDArray, whole: NDArray, undefined: float = np.nan) -> NDArray[np.float64]:
    """part / whole of one shape, and ``undefined`` where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), undefined), where=whole > 0)


def f1_counts(
    probabilities: ArrayLike,
    labels: ArrayLike,
    threshold: float = 0.5,
    subjects: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """True and false positives and false negatives of each label: (3, L), or (S, 3, L) by the
    subject (N,) of each frame.

    probabilities (N, L) in [0, 1], labels (N, L) in {0, 1, 9, NaN}; positive from ``threshold`` on.
    Subjects come sorted. Raises ``ValueError`` for another shape, and for probabilities (logits?
    NaN?) or labels (intensities?) of another range.
    """
    probabilities, labels = _frames_by_labels(probabilities, labels)
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise ValueError("probabilities must be within 0..1: apply the sigmoid to logits first")
    mask = known(labels)
    if not np.isin(labels[mask], (0, 1)).all():
        raise ValueError(
            "labels must be 0, 1, 9 or NaN: apply the dataset's occurrence threshold to "
            "intensities first"
        )
    predicted = probabilities >= threshold
    present = labels == 1
    cells = (predicted & present, predicted & ~present & mask, ~predicted & present)
    return _sum_frames(np.stack(cells, axis=1), subjects)


def f1_from_counts(counts: ArrayLike) -> NDArray[np.float64]:
    """F1 = 2 TP / (2 TP + FP + FN) from `f1_counts` (..., 3, L) -> (..., L); 0 where it is
    undefined (PAPER.md 3)."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=float), -2, 0)
    return ratio(2 * tp, 2 * tp + fp + fn, undefined=0.0)


def f1_per_label(
    probabilities: ArrayLike, labels: ArrayLike, threshold: float = 0.5
) -> NDArray[np.float64]:
    """F1 of each label over all frames: probabilities and labels (N, L) -> (L,). Ranges and errors
    are those of `f1_counts`."""
    return f1_from_counts(f1_counts(probabilities, labels, threshold))


def constant_predictor_f1(rates: ArrayLike) -> NDArray[np.float64]:
    """F1 of predicting every label in every frame, the constant baseline to beat: 2 r / (1 + r) for
    rates r (L,) in [0, 1]."""
    rates = np.asarray(rates, dtype=float)
    return 2 * rates / (1 + rates)


def oracle_f1(probabilities: ArrayLike, labels: ArrayLike) -> tuple[float, NDArray[np.float64]]:
    """The threshold, common to all labels, of 0.01, 0.02 .. 0.99 that has the best mean F1 (the
    lowest of equals), and the F1 (L,) there.

    Chosen on the test frames, as FMAE does (PAPER.md 3): an upper bound on what a threshold can
    give, never a result, and not comparable with F1 at a threshold fixed before the test. Ranges
    and errors are those of `f1_counts`.
    """
    thresholds = np.arange(1, 100) / 100
    scores = np.stack([f1_per_label(probabilities, labels, threshold) for threshold in thresholds])
    best = scores.mean(axis=1).argmax()
    return float(thresholds[best]), scores[best]


def auc(scores: ArrayLike, positives: ArrayLike) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties
    counting one half.

    scores (N,), any finite range; positives (N,) of bool or 0/1. Raises ``ValueError`` if a class
    is missing, where the area is undefined, for other shapes, and for NaN scores.
    """
    scores = np.asarray(scores, dtype=float)
    positives = np.asarray(positives)
    if scores.ndim != 1 or scores.shape != positives.shape:
        raise ValueError(
            f"scores and positives must share one shape (N,), got {scores.shape} and "
            f"{positives.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} scores are NaN")
    if not np.isin(positives, (0, 1)).all():
        raise ValueError(
            "positives must be bool or 0/1: leave out the frames of unknown label first"
        )
    count = int(positives.sum())
    if count in (0, len(positives)):
        raise ValueError(
            f"the area under the ROC curve needs both classes, got {count} positives and "
            f"{len(positives) - count} negatives"
        )
    # half a second to import, and `predict` needs no AUC
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positives, scores))


def intensity_sums(
    predictions: ArrayLike, labels: ArrayLike, subjects: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Sums over known frames that all metrics of intensity are made of: (8, L), or (S, 8, L) by the
    subject (N,) of each frame.

    They are the number of frames and the sums of x, y, x^2, y^2, xy, (x - y)^2 and |x - y|, with
    predictions x and labels y (N, L). Predictions are taken as they are: clip to 0..5 before.
    Raises ``ValueError`` for other shapes and NaN predictions.
    """
    predictions, labels = _frames_by_labels(predictions, labels)
    mask = known(labels)
    x = np.where(mask, predictions, 0)
    y = np.where(mask, labels, 0)
    terms = [mask, x, y, x * x, y * y, x * y, (x - y) ** 2, abs(x - y)]
    return _sum_frames(np.stack(terms, axis=1), subjects)


def intensity_metrics(sums: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """``icc``, ``pcc``, ``ccc`` in [-1, 1] and ``mse``, ``mae`` of each label, from
    `intensity_sums` (..., 8, L) -> (..., L).

    With S the centered sums of squares and products over n frames:

    - ICC(3,1) = (BMS - EMS) / (BMS + EMS) for two raters (Shrout and Fleiss 1979; PAPER.md 3),
      which is 2 Sxy / (Sxx + Syy):
      a constant offset between the raters does not lower it, another scale does;
    - PCC = Sxy / sqrt(Sxx Syy) (Pearson): neither lowers it;
    - CCC = 2 Sxy / (Sxx + Syy + n (mean x - mean y)^2) (Lin 1989): both lower it.

    The three are 0 where a constant rater leaves them without meaning. A rater counts as constant
    whose variance is less than 1e-10 of its mean square, which is rounding. The errors are NaN for
    a label without a known frame.
    """
    n, x, y, xx, yy, xy, squared, absolute = np.moveaxis(np.asarray(sums, dtype=float), -2, 0)
    sxx = _centered(n, x, xx)
    syy = _centered(n, y, yy)
    limit = np.sqrt(sxx * syy)
    # no further than Cauchy and Schwarz allow: the rest is rounding
    sxy = np.clip(xy - ratio(x * y, n, 0.0), -limit, limit)
    return {
        "icc": ratio(2 * sxy, sxx + syy, 0.0),
        "pcc": ratio(sxy, limit, 0.0),
        # the sum of (x - y)^2 is Sxx + Syy - 2 Sxy + n (mean x - mean y)^2
        "ccc": ratio(2 * sxy, squared + 2 * sxy, 0.0),
        "mse": ratio(squared, n),
        "mae": ratio(absolute, n),
    }


def _centered(n: NDArray, total: NDArray, squares: NDArray) -> NDArray[np.float64]:
    """Sum of squares about the mean, 0 where it is only rounding."""
    centered = squares - ratio(total**2, n, 0.0)
    return np.where(centered > 1e-10 * squares, centered, 0.0)


def icc3_1(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Intraclass correlation ICC(3,1) of each label: (N, L) and (N, L) -> (L,) in [-1, 1]; see
    `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["icc"]


def pcc(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Pearson's correlation of each label: (N, L) and (N, L) -> (L,) in [-1, 1]; see
    `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["pcc"]


def ccc(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Lin's concordance correlation of each label: (N, L) and (N, L) -> (L,) in [-1, 1]; see
    `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["ccc"]


def mse(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Mean squared error of each label, (L,), in squared units of the label; see
    `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["mse"]


def mae(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Mean absolute error of each label, (L,), in units of the label; see `intensity_metrics`."""
    return intensity_metrics(intensity_sums(predictions, labels))["mae"]


def confusion(
    predictions: ArrayLike, labels: ArrayLike, classes: int, subjects: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Counts of label (row) and predicted class (column): (C, C), or (S, C, C) by the subject (N,)
    of each image.

    predictions (N,) and labels (N,) are classes 0..C-1, of which there may be 9; images of unknown
    label (NaN or 9) are left out. Raises ``ValueError`` for other shapes and other values.
    """
    predictions = np.asarray(predictions, dtype=float)
    labels = np.asarray(labels, dtype=float)
    if predictions.ndim != 1 or predictions.shape != labels.shape:
        raise ValueError(
            f"predictions and labels must share one shape (N,), got {predictions.shape} and "
            f"{labels.shape}"
        )
    mask = known(labels)
    for name, values in (("predictions", predictions), ("labels", labels[mask])):
        if not 1 <= classes <= UNKNOWN or not np.isin(values, range(classes)).all():
            raise ValueError(f"{name} must be classes 0..{classes - 1}, at most 0..{UNKNOWN - 1}")
    cell = np.where(mask, labels, 0) * classes + predictions
    counts = _sum_frames((cell[:, None] == np.arange(classes**2)) & mask[:, None], subjects)
    return counts.reshape(*counts.shape[:-1], classes, classes)


def accuracy(confusions: ArrayLike) -> NDArray[np.float64]:
    """Share of images whose class is right, from `confusion` (..., C, C) -> (...) in [0, 1]; NaN
    without an image."""
    confusions = np.asarray(confusions, dtype=float)
    return ratio(np.trace(confusions, axis1=-2, axis2=-1), confusions.sum(axis=(-2, -1)))


def recall(confusions: ArrayLike, undefined: float = np.nan) -> NDArray[np.float64]:
    """Share of the images of each class that is right, from `confusion` (..., C, C) -> (..., C) in
    [0, 1]; ``undefined`` for a class without an image."""
    confusions = np.asarray(confusions, dtype=float)
    right = np.diagonal(confusions, axis1=-2, axis2=-1)
    return ratio(right, confusions.sum(axis=-1), undefined)


def class_mean_accuracy(confusions: ArrayLike) -> NDArray[np.float64]:
    """Mean recall of the classes that occur, from `confusion` (..., C, C) -> (...) in [0, 1]; NaN
    without an image.

    Of a constant prediction it is 1 / C, however often that class occurs (PAPER.md 3).
    """
    images = np.asarray(confusions, dtype=float).sum(axis=-1)
    recalls = recall(confusions, undefined=0.0)
    return ratio(recalls.sum(axis=-1), (images > 0).sum(axis=-1))
