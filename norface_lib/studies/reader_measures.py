"""Measures of a reader on faces of people that it never met: emotions, the AUs that go along with
them, false alarms on neutral faces, smiles, and the truth where faces are rendered.

Photographs have no FACS truth here. What people called a face is compared with what the reader
says of it; pseudo labels are never used. Each measure is a dictionary of numbers and of samples
(`norface_lib.studies.resampling`), or a sentence that says why it cannot be taken.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.studies.face_readings import FaceReadings
from norface_lib.studies.known_faces import KnownFaces
from norface_lib.studies.photo_measures import higher_than_own_neutral
from norface_lib.studies.resampling import (
    Samples,
    Weights,
    mean_of,
    weighted_auc,
    weighted_mean,
)
from norface_lib.tasks.metrics import (
    accuracy,
    class_mean_accuracy,
    confusion,
    f1_counts,
    f1_from_counts,
    intensity_metrics,
    intensity_sums,
    recall,
)

LEAST_FACES = 10
"""Faces of an emotion that must be there for it to be measured."""

SHOWN = 0.5
"""Probability from which on an AU counts as shown."""

Measure = dict[str, Any] | str
"""Numbers and samples by name, or why there are none."""


def measure_readings(
    readings: FaceReadings, known: KnownFaces, weights: Weights
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """All measures of ``MEASURES`` that can be taken, and for the others why not."""
    taken, left_out = {}, {}
    for name, measure in MEASURES.items():
        result = measure(readings, known, weights)
        (left_out if isinstance(result, str) else taken)[name] = result
    return taken, left_out


def emotion_measure(readings: FaceReadings, known: KnownFaces, weights: Weights) -> Measure:
    """Accuracy, class mean (mean recall) and recalls of emotions over the classes that have
    ``LEAST_FACES`` or more, the confusion, and which of these classes are never called.

    The reader may call any class that it knows. ``most_frequent`` is the accuracy of always calling
    the most frequent class; the class mean of that is 1 / (number of classes).
    """
    if readings.emotions is None:
        return "the reader reads no emotions"
    classes = _frequent(known)
    if len(classes) < 2:
        return f"there are no two emotions with {LEAST_FACES} faces or more"
    rows = np.isin(known.emotions, list(classes))
    truth = np.array([labels.EMOTIONS.index(name) for name in known.emotions[rows]])
    called = readings.emotions[rows].argmax(axis=1)
    counts = confusion(called, truth, len(labels.EMOTIONS), np.arange(len(truth)))
    sums = np.tensordot(weights[:, rows], counts, axes=1)
    recalls = recall(sums)
    never = [name for name in classes if not (called == labels.EMOTIONS.index(name)).any()]
    return {
        "faces": len(truth),
        "undecided": known.undecided,
        "classes": classes,
        "accuracy": accuracy(sums),
        "class_mean": class_mean_accuracy(sums),
        "most_frequent": max(classes.values()) / len(truth),
        "recall": {name: recalls[:, labels.EMOTIONS.index(name)] for name in classes},
        "never_called": never,
        "confusion": {
            name: dict(zip(labels.EMOTIONS, row, strict=True))
            for name, row in zip(labels.EMOTIONS, sums[0].astype(int).tolist(), strict=True)
            if name in classes
        },
    }


def sign_measure(readings: FaceReadings, known: KnownFaces, weights: Weights) -> Measure:
    """AUC of each AU that must show in an emotion (EMFACS, ``labels.EMOTION_AUS``), for the faces
    that people called so against neutral ones, and the mean over all pairs of emotion and AU.

    This is no FACS truth: it asks whether the AUs that a reader names go along with what people
    see. A face that is called angry need not lower its brows. ``mean_bp4d`` is over the pairs whose
    AU is among the 12 of BP4D.
    """
    if readings.probabilities is None:
        return "the reader reads no occurrence of AUs"
    classes = _frequent(known)
    if "neutral" not in classes or len(classes) < 2:
        return (
            f"there are not {LEAST_FACES} faces that are called neutral and as many of an emotion"
        )
    per_emotion: dict[str, dict[str, Samples]] = {}
    for emotion in classes:
        rows = np.isin(known.emotions, ("neutral", emotion))
        shown = known.emotions[rows] == emotion
        columns = [readings.aus.index(au) for au in signs_of(emotion) if au in readings.aus]
        values = {
            readings.aus[k]: weighted_auc(readings.probabilities[rows, k], shown, weights[:, rows])
            for k in columns
        }
        if values:
            per_emotion[emotion] = values
    pairs = [(au, value) for values in per_emotion.values() for au, value in values.items()]
    if not pairs:
        return "the reader reads no AU that belongs to these emotions"
    names, values = zip(*pairs, strict=True)
    of_bp4d = np.isin(names, labels.columns())
    return {
        "neutral_faces": classes["neutral"],
        "per_emotion": per_emotion,
        "pairs": len(pairs),
        "pairs_bp4d": int(of_bp4d.sum()),
        **_means("mean", np.stack(values, axis=1), of_bp4d),
    }


def signs_of(emotion: str) -> tuple[str, ...]:
    """AUs that must show in any variant of an emotion, by column: ``('AU01', 'AU04', 'AU15')``."""
    aus = {au for must, _ in labels.EMOTION_AUS[emotion] for au in must}
    return labels.columns(tuple(sorted(aus)))


def neutral_measure(readings: FaceReadings, known: KnownFaces, weights: Weights) -> Measure:
    """Share of neutral faces on which each AU counts as shown (p of ``SHOWN`` or more): their mean,
    and the largest.

    People call a face neutral that shows no emotion; a brow that is a little raised may be there.
    """
    if readings.probabilities is None:
        return "the reader reads no occurrence of AUs"
    rows = known.neutral
    if rows.sum() < LEAST_FACES:
        return f"there are not {LEAST_FACES} neutral faces"
    shares = weighted_mean(readings.probabilities[rows] >= SHOWN, weights[:, rows])
    return {
        "faces": int(rows.sum()),
        "per_au": _columns(readings, shares),
        **_means("mean", shares, readings.of_bp4d),
        "largest": shares.max(axis=1),
        "largest_au": readings.aus[int(shares[0].argmax())],
    }


def smile_measure(readings: FaceReadings, known: KnownFaces, weights: Weights) -> Measure:
    """AUC of AU12 for smiling against neutral faces: of all people, and of both halves of them, so
    that what was chosen on one half can be checked on the other.

    ``own_neutral`` is the share of the ``compared`` people, those with both, who score higher when
    smiling.
    """
    if readings.probabilities is None or "AU12" not in readings.aus:
        return "the reader reads no occurrence of AU12"
    smiling, subjects = known.smiling, known.subjects[known.smile_rows]
    scores = readings.probabilities[known.smile_rows, readings.aus.index("AU12")]
    weights = weights[:, known.smile_rows]
    first = known.first_half[known.smile_rows]
    parts = {"all": np.ones(len(smiling), bool), "first half": first, "second half": ~first}
    found: dict[str, Any] = {
        name: {
            "auc": weighted_auc(scores[part], smiling[part], weights[:, part]),
            "faces": int(part.sum()),
            "people": len(set(subjects[part])),
        }
        for name, part in parts.items()
        if len(set(smiling[part])) == 2
    }
    if not found:
        return "there are no smiling and neutral faces"
    higher = higher_than_own_neutral(scores, smiling, subjects)
    if higher:
        people = [int(np.flatnonzero(subjects == name)[0]) for name in higher]
        found["own_neutral"] = weighted_mean(np.array([*higher.values()]), weights[:, people])
    return found | {"compared": len(higher)}


def truth_measure(readings: FaceReadings, known: KnownFaces, weights: Weights) -> Measure:
    """Rendered faces, whose AUs are known exactly: for each AU the AUC and the F1 (at ``SHOWN``) of
    its occurrence, the ICC(3,1) of its intensity, and for one with sides the correlation of left
    minus right; and their means.

    A mean is over the AUs that the reader reads, and ``_bp4d`` over those of BP4D among them.
    """
    if known.sides is None:
        return "the AUs of photographs are not known"
    if not readings.aus:
        return "the reader reads no AUs"
    truth = known.truth(readings)
    faces = np.arange(len(truth))
    columns: dict[str, NDArray[np.float64]] = {}
    if readings.probabilities is not None:
        shown = truth.max(axis=2) >= labels.OCCURRENCE_THRESHOLD - 1e-4  # tables hold six digits
        aucs = [
            weighted_auc(scores, positives, weights)
            for scores, positives in zip(readings.probabilities.T, shown.T, strict=True)
        ]
        columns["auc"] = np.stack(aucs, axis=1)
        counts = f1_counts(readings.probabilities, shown, SHOWN, subjects=faces)
        columns["f1"] = f1_from_counts(np.tensordot(weights, counts, axes=1))
    if readings.intensities is not None:
        sums = intensity_sums(readings.intensities, truth.max(axis=2), faces)
        columns["icc"] = intensity_metrics(np.tensordot(weights, sums, axes=1))["icc"]
    if readings.sides is not None:
        sums = intensity_sums(_left_minus_right(readings.sides), _left_minus_right(truth), faces)
        values = intensity_metrics(np.tensordot(weights, sums, axes=1))["pcc"]
        sided = [labels.AUS[au].sided for au in readings.numbers]
        columns["sides"] = np.where(sided, values, np.nan)
    measures: dict[str, Any] = {"faces": len(truth), "aus": len(readings.aus)}
    measures |= {name: _columns(readings, values) for name, values in columns.items()}
    for name, values in columns.items():
        measures |= _means(f"{name}_mean", values, readings.of_bp4d)
    return measures


def _left_minus_right(sides: NDArray[np.floating]) -> NDArray[np.floating]:
    return sides[..., 0] - sides[..., 1]


MEASURES: Mapping[str, Callable[[FaceReadings, KnownFaces, Weights], Measure]] = {
    "emotion": emotion_measure,
    "signs": sign_measure,
    "neutral": neutral_measure,
    "smile": smile_measure,
    "truth": truth_measure,
}
"""The measures by name."""


def _frequent(known: KnownFaces) -> dict[str, int]:
    """Number of faces of each emotion that has enough, in the order of ``labels.EMOTIONS``."""
    counts = {name: int((known.emotions == name).sum()) for name in labels.EMOTIONS}
    return {name: count for name, count in counts.items() if count >= LEAST_FACES}


def _columns(readings: FaceReadings, values: NDArray[np.float64]) -> dict[str, Samples]:
    """Samples (R, A) by AU, without those that are defined nowhere."""
    return {
        au: values[:, k] for k, au in enumerate(readings.aus) if not np.isnan(values[:, k]).all()
    }


def _means(
    name: str, values: NDArray[np.float64], of_bp4d: NDArray[np.bool_]
) -> dict[str, Samples]:
    """Means of samples (R, K) over all columns, and over those of BP4D if there are any."""
    means = {name: mean_of(values)}
    return means | ({f"{name}_bp4d": mean_of(values[:, of_bp4d])} if of_bp4d.any() else {})
