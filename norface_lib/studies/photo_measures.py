"""Measures of a normalizer on photographs, for which no true I_n exists.

AU12 of smiling against neutral faces (`smile_measures`), agreement of a landmarker's blendshapes in
I_n and original (`agreement`), recognition of people by I_n (`verification`), and emotions from
original, I_n and both (`emotion_measures`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.datasets.index import EMOTION
from norface_lib.datasets.pairs import Pairs, embed
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.classifier import INPUTS
from norface_lib.networks.frozen import FrozenNetwork
from norface_lib.networks.normalizer import Normalizer
from norface_lib.photos.face_points import read_points
from norface_lib.photos.landmarker import BLENDSHAPES, Landmarker
from norface_lib.studies.recipes import recipe_for
from norface_lib.studies.resampling import person_weights, weighted_auc, with_intervals
from norface_lib.studies.statistics import bootstrap_interval
from norface_lib.tasks.metrics import auc
from norface_lib.tasks.tasks import Emotion, task_of
from norface_lib.training.classifier import predict_rows, train_classifier

SHAPES_OF: Mapping[str, tuple[str, ...]] = {
    "AU01": ("browInnerUp",),
    "AU02": ("browOuterUpLeft", "browOuterUpRight"),
    "AU04": ("browDownLeft", "browDownRight"),
    "AU05": ("eyeWideLeft", "eyeWideRight"),
    "AU12": ("mouthSmileLeft", "mouthSmileRight"),
    "AU15": ("mouthFrownLeft", "mouthFrownRight"),
    "AU17": ("mouthShrugLower",),
    "AU25": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "AU26": ("jawOpen",),
    "AU43": ("eyeBlinkLeft", "eyeBlinkRight"),
}
"""Blendshapes that a landmarker reads well in photographs, by the AU that they belong to; sides are
averaged. Our choice."""

SMILING = {"happy": True, "neutral": False, "smile": True}
"""Values of ``emotion`` or ``expression`` that are a smile, or none."""


def smile_measures(
    scores: NDArray[np.floating], smiling: NDArray[np.bool_], subjects: NDArray[np.str_]
) -> dict[str, Any]:
    """AUC of scores (N,) for smiling against neutral faces, and its 95 % interval over people
    (bootstrap).

    An AUC compares everybody with everybody, so it also asks whose mouth turns up at rest.
    ``own_neutral`` does not: it is the share of the ``compared`` people, those with both, who score
    higher when smiling (by the mean of their faces).
    """
    samples = weighted_auc(scores, smiling, person_weights(subjects))
    higher = higher_than_own_neutral(scores, smiling, subjects)
    return {
        "auc": auc(scores, smiling),
        "interval": with_intervals(samples)["interval"],
        "faces": len(scores),
        "people": len(set(subjects)),
        "own_neutral": float(np.mean([*higher.values()])) if higher else None,
        "compared": len(higher),
    }


def higher_than_own_neutral(
    scores: NDArray[np.floating], smiling: NDArray[np.bool_], subjects: NDArray[np.str_]
) -> dict[str, bool]:
    """Whether a person scores higher when smiling than when not, by the mean of the faces of each;
    for those people of whom there are both."""
    higher = {}
    for name in np.unique(subjects):
        rows = subjects == name
        smiles, rests = scores[rows & smiling], scores[rows & ~smiling]
        if len(smiles) and len(rests):
            higher[str(name)] = bool(smiles.mean() > rests.mean())
    return higher


def read_shapes(landmarker: Landmarker, faces: Faces, progress: bool = True) -> NDArray[np.float32]:
    """Blendshapes (N, 52) of aligned faces; NaN where the landmarker finds none."""
    return read_points(landmarker, faces, progress=progress).scores


def agreement(originals: NDArray[np.floating], others: NDArray[np.floating]) -> dict[str, Any]:
    """Correlation of blendshapes (N, 52) between originals and I_n, for each AU of ``SHAPES_OF``,
    and their mean.

    Faces in which the landmarker found nothing on either side are left out and counted.
    """
    both = ~(np.isnan(originals).any(1) | np.isnan(others).any(1))
    per_au = {}
    for au, names in SHAPES_OF.items():
        columns = [BLENDSHAPES.index(name) for name in names]
        one = originals[both][:, columns].mean(1)
        two = others[both][:, columns].mean(1)
        varies = one.std() > 0 and two.std() > 0
        per_au[au] = float(np.corrcoef(one, two)[0, 1]) if varies else 0.0
    return {
        "mean": float(np.mean(list(per_au.values()))),
        "per_au": per_au,
        "faces": int(both.sum()),
        "not_found": int((~both).sum()),
    }


@torch.inference_mode()
def embeddings(network: FrozenNetwork, faces: Faces, batch_size: int = 32) -> NDArray[np.float32]:
    """(N, D) of length 1: embeddings of faces in our crop by a face recognizer."""
    parts = [
        network.embed(to_tensor(faces[start : start + batch_size]))
        for start in range(0, len(faces), batch_size)
    ]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()


def verification(embedded: NDArray[np.float32], subjects: NDArray[np.str_]) -> dict[str, float]:
    """AUC of the cosine for "the same person" over all pairs of faces, and its mean for pairs of
    one person and of two."""
    cosine = embedded @ embedded.T
    one, two = np.triu_indices(len(cosine), 1)
    same = subjects[one] == subjects[two]
    values = cosine[one, two]
    return {
        "auc": auc(values, same),
        "same_person": float(values[same].mean()),
        "two_people": float(values[~same].mean()),
        "pairs_of_one_person": int(same.sum()),
    }


def emotion_measures(
    train: Rendered,
    test: Rendered,
    normalizer: Normalizer,
    normalized: tuple[Faces, Faces],
    seeds: tuple[int, ...] = (0, 1, 2),
) -> dict[str, Any]:
    """Accuracy of emotions of photographs by a head over the frozen backbone, from original, I_n,
    and both, on people of ``test``.

    ``normalized``: I_n of either part. Means over ``seeds``; the interval is over people of
    ``test`` (bootstrap), seeds averaged.
    """
    task = task_of("emotion", labels.EMOTIONS)
    train_pairs = embed(_labeled(train, normalized[0]), normalizer)
    test_pairs = embed(_labeled(test, normalized[1]), normalizer)
    recipe = recipe_for(task, normalizer)
    scores: dict[str, Any] = {
        "constant baseline": task.constant_baseline(train_pairs.labels, test_pairs.labels),
        "faces": len(test_pairs),
    }
    for inputs in INPUTS:
        sums = []
        for seed in seeds:
            of_seed = recipe.with_config(inputs=inputs).seeded(seed)
            rows = np.arange(len(train_pairs))
            model = train_classifier(train_pairs, rows, task, of_seed, progress=False)
            predictions = predict_rows(model, test_pairs, np.arange(len(test_pairs)), task)
            sums.append(task.sums(predictions, test_pairs.labels, test_pairs.subjects))
        scores[inputs] = _emotion_scores(task, np.stack(sums, axis=1))
    return scores


def _emotion_scores(task: Emotion, sums: NDArray) -> dict[str, Any]:
    """Scores of sums (S, R, C, C) by subject and seed."""
    low, high = bootstrap_interval(sums, lambda means: task.score(means).mean(axis=-1))
    pooled = sums.sum(axis=0)
    further = [task.further(of_seed)["class_mean_accuracy"] for of_seed in pooled]
    return {
        "accuracy": float(task.score(pooled).mean()),
        "interval": [float(low), float(high)],
        "class_mean": float(np.mean(further)),
    }


def _labeled(data: Rendered, normalized: Faces) -> Pairs:
    """Pairs of the faces that have an emotion."""
    names = data.table[EMOTION].fillna("").to_numpy(str)
    rows = names != ""
    numbers = np.array([labels.EMOTIONS.index(name) for name in names[rows]], np.float32)
    return Pairs(data.originals[rows], normalized[rows], numbers[:, None], data.subjects[rows])


def smiling_of(table: pd.DataFrame) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Rows of a label table that are known to be a smile or none, and which they are."""
    expressions = table["expression"] if "expression" in table.columns else table[EMOTION]
    known = expressions.map(SMILING)
    rows = np.flatnonzero(known.notna())
    return rows, known.iloc[rows].to_numpy(bool)
