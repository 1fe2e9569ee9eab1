"""Evaluation of a normalizer on photographs of people outside its training.

All measures of `norface_lib.studies.photo_measures`, of the network, of the target head rendered
with the AUs that a token reader reads ("read + render"), and of the method that needs no network:
the head rendered with the landmarker's blendshapes ("landmarker + render").
"""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib.common.records import write_result
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import Faces
from norface_lib.images.distances import neutral_ratio
from norface_lib.images.files import write_png
from norface_lib.images.sheets import contact_sheet
from norface_lib.networks.classifier import INPUTS
from norface_lib.networks.frozen import frozen_network
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.weights import load_classifier, load_normalizer, normalizer_hash
from norface_lib.photos.calibration import calibration_of
from norface_lib.photos.landmarker import BLENDSHAPES, Landmarker
from norface_lib.photos.pseudo_pairs import render_shapes
from norface_lib.photos.read_and_render import ReadAndRender
from norface_lib.studies.photo_measures import (
    SHAPES_OF,
    agreement,
    embeddings,
    emotion_measures,
    read_shapes,
    smile_measures,
    smiling_of,
    verification,
)
from norface_lib.tasks.tasks import task_of
from norface_lib.training.classifier import predict


def evaluate_photographs(
    root: Path,
    *,
    weights: str,
    reader: str,
    token_reader: str,
    landmarker: Path,
    embedding: str,
    train: Path | None = None,
    out: Path | None = None,
    sheet: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """All measures on a folder of pseudo-pairs (`norface_lib.photos.pseudo_pairs`) of people whom
    no network met.

    ``reader``: AU detector over original and I_n, left out where it learned from another
    normalizer's faces; ``token_reader``: reads for "read + render";
    ``landmarker``: its ``.task`` file;
    ``embedding``: a face recognizer for `norface_lib.networks.frozen.frozen_network`; ``train``:
    pseudo-pairs of other people with emotions, on which heads for emotions are trained. ``out``:
    the result file to write; ``sheet``: a picture (PNG) of the first 24 originals, their normalized
    faces, and those that the renderer makes of the landmarker's blendshapes. Errors are those of
    `Rendered` and of the loaders of weights.
    """
    started = time.monotonic()
    data = Rendered(root, progress=progress)
    normalizer, target, card = load_normalizer(weights)
    size = normalizer.config.encoder.image_size
    draw = partial(normalize_faces, normalizer, target, size=size, progress=progress)
    normalized = draw(data.originals)
    network = Landmarker(landmarker, levels=0)
    shapes = {"original": read_shapes(network, data.originals, progress)}
    studio = Studio(size, data.names[0])
    rendering = ReadAndRender(token_reader, target=data.names[0], size=size)
    methods = {
        "network": normalized,
        "read + render": rendering.draw(data.originals),
        "landmarker + render": render_shapes(shapes["original"], studio),
    }
    for name, faces in methods.items():
        shapes[name] = read_shapes(network, faces, progress)

    result: dict[str, Any] = {
        "weights": card["name"],
        # shrunk faces have other edges than rendered ones of that size
        "to_pseudo_truth": neutral_ratio(data.truths, normalized, data.target)
        if normalizer.config.size == data.truths.shape[1]
        else None,
        "agreement": {name: agreement(shapes["original"], shapes[name]) for name in methods},
    }
    rows, smiling = smiling_of(data.table)
    if len(set(smiling)) == 2:
        scores = _smile_scores(reader, card, data.originals[rows], normalized[rows])
        scores |= _landmarker_scores({name: values[rows] for name, values in shapes.items()})
        result["smile"] = {
            name: smile_measures(values, smiling, data.subjects[rows])
            for name, values in scores.items()
        }
    recognizer = frozen_network(embedding)
    if pd.Series(data.subjects).duplicated().any():
        result["verification"] = {
            name: verification(embeddings(recognizer, faces), data.subjects)
            for name, faces in ({"original": data.originals} | methods).items()
        }
    counts = {"faces": len(data), "people": len(set(data.subjects))}
    if train is not None:
        others = Rendered(train, progress=progress)
        of_others = draw(others.originals)
        result["emotion"] = emotion_measures(others, data, normalizer, (of_others, normalized))
        counts |= {"train_faces": len(others), "train_people": len(set(others.subjects))}

    if sheet is not None:
        rows_of_faces = [faces[:24] for faces in (data.originals, *methods.values())]
        write_png(sheet, contact_sheet(rows_of_faces, columns=12))
    if out is not None:
        write_result(
            out,
            result,
            seed=[0, 1, 2],
            started=started,
            counts=counts,
            leakage="pretrained",
            settings={
                "normalizer": card["sha256"],
                "reader": reader,
                "token_reader": token_reader,
                "embedding": Path(embedding.partition(":")[2]).name,
            },
        )
    return result


def _smile_scores(
    reader: str, normalizer: Mapping[str, Any], originals: Faces, normalized: Faces
) -> dict[str, NDArray]:
    """AU12 (N,) of the project's detector; nothing if it learned from the faces of another
    ``normalizer`` than that of this card."""
    model, card = load_classifier(reader)
    if normalizer_hash(card) not in (None, normalizer["sha256"]):
        return {}
    task = task_of("au_detection", model.config.labels)
    predictions = predict(model, originals, normalized, task)
    return {"AU12": predictions[:, model.config.labels.index("AU12")]}


def _landmarker_scores(shapes: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Smile scores (N,) of a landmarker from its blendshapes (N, 52): those of a smile, and all
    together."""
    columns = [BLENDSHAPES.index(name) for name in SHAPES_OF["AU12"]]
    scores = {
        f"landmarker, {name}": np.nan_to_num(values[:, columns].mean(1))
        for name, values in shapes.items()
    }
    calibration = calibration_of()
    scores["landmarker, original, all scores"] = np.array(
        [
            calibration.smiles(dict(zip(BLENDSHAPES, map(float, row), strict=True)))
            for row in np.nan_to_num(shapes["original"])
        ]
    )
    return scores


def as_text(result: Mapping[str, Any]) -> str:
    """The measures for people to read."""
    distance = result["to_pseudo_truth"]
    lines = []
    if distance is not None:
        lines.append(f"distance to the pseudo-truth, of the neutral target's: {distance:.3f}")
    for name, row in result["agreement"].items():
        lines.append(
            f"blendshapes of I_n and original, mean correlation, {name}: {row['mean']:.3f} "
            f"({row['not_found']} not found)"
        )
    for name, row in result.get("smile", {}).items():
        lines.append(
            "smile, {}: AUC {:.3f} [{:.3f}, {:.3f}]".format(name, row["auc"], *row["interval"])
        )
        if row["compared"]:
            lines[-1] += (
                f"; higher than one's own neutral face: {row['own_neutral']:.2f} of "
                f"{row['compared']} people"
            )
    for name, row in result.get("verification", {}).items():
        lines.append(f"same person, {name}: AUC {row['auc']:.3f}")
    for name in INPUTS if "emotion" in result else ():
        row = result["emotion"][name]
        low, high = row["interval"]
        lines.append(
            f"emotion, {name}: accuracy {row['accuracy']:.3f} [{low:.3f}, {high:.3f}], class mean "
            f"{row['class_mean']:.3f}"
        )
    return "\n".join(lines)
