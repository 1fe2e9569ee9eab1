"""What a normalizer is worth on photographs of people whom it never met, where no true I_n exists.

Four questions, each a function: does the project's AU12 tell who smiles (`smile_measures`), does a
landmarker see the same expression in I_n as in the original (`agreement`), can a face recognizer
still tell people by I_n (`verification`), and how well are emotions told from original, I_n and
both (`emotion_measures`)? Beside the network stands a normalizer without one, and its teacher: the
target head drawn with what the landmarker sees ("landmarker + render").
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.records import write_result
from norface_lib.datasets.base import EMOTION
from norface_lib.datasets.pairs import Pairs, embed
from norface_lib.datasets.rendered import Rendered, load_rendered
from norface_lib.faces.benchmark import Studio
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.images.distances import neutral_ratio
from norface_lib.images.files import write_png
from norface_lib.images.sheets import contact_sheet
from norface_lib.networks.classifier import INPUTS
from norface_lib.networks.frozen import FrozenNetwork, frozen_network
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_classifier, load_normalizer
from norface_lib.photos.landmarker import BLENDSHAPES, Landmarker
from norface_lib.photos.pseudo_pairs import calibration_of, draw_shapes
from norface_lib.studies.experiments import recipe_for
from norface_lib.studies.statistics import bootstrap_interval
from norface_lib.tasks.metrics import auc
from norface_lib.tasks.tasks import Emotion, task_of
from norface_lib.training.classifier import predict, predict_rows, train_classifier

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
"""Values of ``emotion`` or ``expression`` that say whether somebody smiles."""


def smile_measures(
    scores: NDArray[np.floating], smiling: NDArray[np.bool_], subjects: NDArray[np.str_]
) -> dict[str, Any]:
    """How well scores (N,) tell smiling faces from neutral ones: AUC, and its 95 % interval over
    people (bootstrap).

    An AUC compares everybody with everybody, so it also asks whose mouth turns up at rest.
    ``own_neutral`` does not: it is the share of the ``compared`` people, those with both, who score
    higher when smiling (by the mean of their faces).
    """
    people = np.unique(subjects)
    rng, members = np.random.default_rng(0), [np.flatnonzero(subjects == name) for name in people]
    drawn = []
    for _ in range(1000):
        rows = np.concatenate([members[k] for k in rng.integers(0, len(people), len(people))])
        if 0 < smiling[rows].sum() < len(rows):
            drawn.append(auc(scores[rows], smiling[rows]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    both = [rows for rows in members if 0 < smiling[rows].sum() < len(rows)]
    higher = [
        scores[rows[smiling[rows]]].mean() > scores[rows[~smiling[rows]]].mean() for rows in both
    ]
    return {
        "auc": auc(scores, smiling),
        "interval": [float(low), float(high)],
        "faces": len(scores),
        "people": len(people),
        "own_neutral": float(np.mean(higher)) if both else None,
        "compared": len(both),
    }


def read_shapes(landmarker: Landmarker, faces: Faces, progress: bool = True) -> NDArray[np.float32]:
    """Blendshapes (N, 52) of aligned faces; NaN where the landmarker finds none."""
    found = np.full((len(faces), len(BLENDSHAPES)), np.nan, np.float32)
    for row, image in enumerate(
        tqdm(faces, desc="landmarks", unit="face", disable=not progress, leave=False)
    ):
        if seen := landmarker(np.ascontiguousarray(image)):
            found[row] = seen[0].blendshapes
    return found


def agreement(originals: NDArray[np.floating], others: NDArray[np.floating]) -> dict[str, Any]:
    """Correlation of blendshapes (N, 52) between originals and I_n, for each AU of ``SHAPES_OF``,
    and their mean.

    Faces in which the landmarker found nothing on either side are left out and counted.
    """
    both = ~(np.isnan(originals).any(1) | np.isnan(others).any(1))
    found = {}
    for au, names in SHAPES_OF.items():
        columns = [BLENDSHAPES.index(name) for name in names]
        one, two = (values[both][:, columns].mean(1) for values in (originals, others))
        found[au] = float(np.corrcoef(one, two)[0, 1]) if one.std() > 0 and two.std() > 0 else 0.0
    return {
        "mean": float(np.mean(list(found.values()))),
        "per_au": found,
        "faces": int(both.sum()),
        "not_found": int((~both).sum()),
    }


@torch.inference_mode()
def embeddings(network: FrozenNetwork, faces: Faces, batch_size: int = 32) -> NDArray[np.float32]:
    """(N, D) of length 1: what a face recognizer makes of faces in our crop."""
    parts = [
        network.embed(to_tensor(faces[start : start + batch_size]))
        for start in range(0, len(faces), batch_size)
    ]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()


def verification(embedded: NDArray[np.float32], subjects: NDArray[np.str_]) -> dict[str, float]:
    """Is it the same person? AUC of the cosine over all pairs of faces, and its mean for pairs of
    one person and of two."""
    cosine = embedded @ embedded.T
    one, two = np.triu_indices(len(cosine), 1)
    same, values = subjects[one] == subjects[two], cosine[one, two]
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
    drawn: tuple[Faces, Faces],
    seeds: tuple[int, ...] = (0, 1, 2),
) -> dict[str, Any]:
    """Emotions of photographs by a head over the frozen backbone, from original, I_n, and both:
    accuracy on people of ``test``.

    ``drawn``: I_n of either part. Means over ``seeds``; the interval is over people of ``test``
    (bootstrap), seeds averaged.
    """
    task = task_of("emotion", labels.EMOTIONS)
    parts = [_labeled(data, faces) for data, faces in zip((train, test), drawn, strict=True)]
    seen = [embed(pairs, normalizer) for pairs in parts]
    recipe = recipe_for(task, normalizer)
    found: dict[str, Any] = {
        "constant baseline": task.constant_baseline(parts[0].labels, parts[1].labels),
        "faces": len(parts[1]),
    }
    for inputs in INPUTS:
        sums = []
        for seed in seeds:
            made = recipe.with_config(inputs=inputs).seeded(seed)
            model = train_classifier(seen[0], np.arange(len(parts[0])), task, made, progress=False)
            read = predict_rows(model, seen[1], np.arange(len(parts[1])), task)
            sums.append(task.sums(read, parts[1].labels, parts[1].subjects))
        found[inputs] = _emotion_scores(task, np.stack(sums, axis=1))
    return found


def _emotion_scores(task: Emotion, sums: NDArray) -> dict[str, Any]:
    """Of sums (S, R, C, C) by subject and seed."""
    low, high = bootstrap_interval(sums, lambda drawn: task.score(drawn).mean(axis=-1))
    pooled = sums.sum(axis=0)
    further = [task.further(of_seed)["class_mean_accuracy"] for of_seed in pooled]
    return {
        "accuracy": float(task.score(pooled).mean()),
        "interval": [float(low), float(high)],
        "class_mean": float(np.mean(further)),
    }


def _labeled(data: Rendered, drawn: Faces) -> Pairs:
    named = data.table[EMOTION].fillna("").to_numpy(str)
    rows = named != ""
    numbers = np.array([labels.EMOTIONS.index(name) for name in named[rows]], np.float32)[:, None]
    return Pairs(data.originals[rows], drawn[rows], numbers, data.subjects[rows])


def smiling_of(table: pd.DataFrame) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Rows of a label table that say whether somebody smiles, and what they say."""
    said = table["expression"] if "expression" in table.columns else table[EMOTION]
    known = said.map(SMILING)
    rows = np.flatnonzero(known.notna())
    return rows, known.iloc[rows].to_numpy(bool)


def evaluate_photographs(
    root: Path,
    weights: str,
    reader: str,
    landmarker: Path,
    embedding: str,
    train: Path | None = None,
    out: Path | None = None,
    sheet: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """All measures on a folder of pseudo-pairs (`norface_lib.photos.pseudo_pairs`) of people whom
    no network met.

    ``reader``: AU detector over original and I_n; ``landmarker``: its ``.task`` file;
    ``embedding``: a face recognizer for `norface_lib.networks.frozen.frozen_network`; ``train``:
    pseudo-pairs of other people with emotions, on which heads for emotions learn. ``out``: the
    result file to write; ``sheet``: a picture (PNG) of the first 24 originals, what the network
    draws of them, and what the landmarker and the renderer do. Raises as `load_rendered` and the
    loaders of weights do.
    """
    started, data = time.monotonic(), load_rendered(root, progress=progress)
    normalizer, target, card = load_normalizer(weights)
    drawn = normalize_faces(normalizer, target, data.originals, progress=progress)
    eye = Landmarker(landmarker, levels=0)
    shapes = {"original": read_shapes(eye, data.originals, progress)}
    ways = {
        "network": drawn,
        "landmarker + render": draw_shapes(
            shapes["original"], Studio(len(data.target), data.names[0])
        ),
    }
    found: dict[str, Any] = {
        "weights": card["name"],
        "to_pseudo_truth": neutral_ratio(data.truths, drawn, data.target),
    }
    shapes |= {name: read_shapes(eye, faces, progress) for name, faces in ways.items()}
    found["agreement"] = {name: agreement(shapes["original"], shapes[name]) for name in ways}
    rows, smiling = smiling_of(data.table)
    if len(set(smiling)) == 2:
        found["smile"] = _smiles(
            reader, data.originals[rows], drawn[rows], shapes, rows, smiling, data.subjects[rows]
        )
    network = frozen_network(embedding)
    if pd.Series(data.subjects).duplicated().any():
        every = {"original": data.originals} | ways
        found["verification"] = {
            name: verification(embeddings(network, faces), data.subjects)
            for name, faces in every.items()
        }
    counts = {"faces": len(data), "people": len(set(data.subjects))}
    if train is not None:
        learned = load_rendered(train, truth=False, progress=progress)
        both = normalize_faces(normalizer, target, learned.originals, progress=progress), drawn
        found["emotion"] = emotion_measures(learned, data, normalizer, both)
        counts |= {"train_faces": len(learned), "train_people": len(set(learned.subjects))}
    if sheet is not None:
        write_png(
            sheet,
            contact_sheet([faces[:24] for faces in (data.originals, *ways.values())], columns=12),
        )
    if out is not None:
        settings = {
            "normalizer": card["sha256"],
            "reader": reader,
            "embedding": Path(embedding.partition(":")[2]).name,
        }
        write_result(
            out,
            found,
            seed=[0, 1, 2],
            started=started,
            counts=counts,
            leakage="pretrained",
            settings=settings,
        )
    return found


def _smiles(
    reader: str,
    originals: Faces,
    drawn: Faces,
    shapes: Mapping[str, NDArray],
    rows: NDArray[np.intp],
    smiling: NDArray[np.bool_],
    subjects: NDArray[np.str_],
) -> dict[str, Any]:
    """AU12 of the project's detector, and beside it the landmarker: its own score of a smile, and
    what all its scores say."""
    model, _ = load_classifier(reader)
    read = predict(model, originals, drawn, task_of("au_detection", model.config.labels))
    columns = [BLENDSHAPES.index(name) for name in SHAPES_OF["AU12"]]
    scores = {"AU12": read[:, model.config.labels.index("AU12")]}
    scores |= {
        f"landmarker, {name}": np.nan_to_num(values[rows][:, columns].mean(1))
        for name, values in shapes.items()
    }
    every = [
        dict(zip(BLENDSHAPES, map(float, row), strict=True))
        for row in np.nan_to_num(shapes["original"][rows])
    ]
    scores["landmarker, original, all scores"] = np.array(
        [calibration_of().smiles(row) for row in every]
    )
    return {name: smile_measures(values, smiling, subjects) for name, values in scores.items()}


def as_text(found: Mapping[str, Any]) -> str:
    """The measures for people to read."""
    lines = [
        f"distance to the pseudo-truth, of the neutral target's: {found['to_pseudo_truth']:.3f}"
    ]
    for name, row in found["agreement"].items():
        lines.append(
            f"blendshapes of I_n and original, mean correlation, {name}: {row['mean']:.3f} "
            f"({row['not_found']} not found)"
        )
    for name, row in found.get("smile", {}).items():
        lines.append(
            "smile, {}: AUC {:.3f} [{:.3f}, {:.3f}]".format(name, row["auc"], *row["interval"])
        )
        if row["compared"]:
            lines[-1] += (
                f"; higher than one's own neutral face: {row['own_neutral']:.2f} of "
                f"{row['compared']} people"
            )
    for name, row in found.get("verification", {}).items():
        lines.append(f"same person, {name}: AUC {row['auc']:.3f}")
    for name in INPUTS if "emotion" in found else ():
        row = found["emotion"][name]
        lines.append("emotion, {}: accuracy {:.3f} [{:.3f}, {:.3f}], class mean {:.3f}".format(
            name, row["accuracy"], *row["interval"], row["class_mean"]))  # fmt: skip
    return "\n".join(lines)
