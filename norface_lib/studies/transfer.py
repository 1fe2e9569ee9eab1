"""Does what is learned on one domain carry over to another? Rendered faces teach a linear reader of
AUs, photographs test it, once from originals and once from normalized faces.

The point of the paper: with identity, pose, light and background normalized away, two domains
should look more alike. The encoder is frozen and the same for all inputs; only a ridge regression
(Hoerl and Kennard 1970) is learned. Our choice: the paper fine-tunes. A normalizer that learned
from photographs brings what it learned there; one that did not (``tiny``) shows what normalization
does alone.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.label_table import read_spec, side_codes
from norface_lib.datasets.pairs import embed_faces
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import POOLS
from norface_lib.images.arrays import Faces
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_normalizer
from norface_lib.photos.read_and_render import ReadAndRender
from norface_lib.studies.face_readings import FaceReadings
from norface_lib.studies.known_faces import KnownFaces
from norface_lib.studies.reader_evaluation import (
    NOTES,
    data_settings,
    measures_as_text,
    side_by_side,
    write_evaluation,
)
from norface_lib.tasks.metrics import pcc

Drawing = Callable[[Faces], Faces]
"""From originals (N, S, S, 3) to what is embedded of them, of the same shape."""

ALPHAS = tuple(10.0**power for power in range(-1, 6))
"""Strengths of the ridge regression to choose from."""

FOLDS = 4
"""Of the people of the rendered faces, to choose the strength."""


def evaluate_transfer(
    root: Path,
    *,
    train: Path,
    weights: str = "tiny-photo",
    token_reader: str | None = None,
    further: Mapping[str, Drawing] | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Teaches a linear reader on the rendered faces of ``train`` and measures it on those of
    ``root``, for each way to draw them: ``original``, ``normalized`` (I_n of the network
    ``weights``), ``read + render`` if there is a ``token_reader`` (weights, see
    `norface_lib.photos.read_and_render`), and ``further`` ones by name.

    The measures are those of `norface_lib.studies.reader_measures`, with 95 % intervals over
    people; ``differences`` are those from originals on the same resamples. ``rendered`` is the mean
    correlation with the true intensities within the rendered faces (other people, `FOLDS` folds).
    ``out``: the result file to write.

    Raises :class:`DataError` if ``train`` is not rendered or has too few people, and the errors of
    `Rendered` and of
    `norface_lib.networks.weights.load_normalizer`.
    """
    started = time.monotonic()
    model, target, _ = load_normalizer(weights)
    taught = _rendered(train, progress)
    data = Rendered(root, progress=progress)
    size = model.config.encoder.image_size
    drawings: dict[str, Drawing] = {
        "original": lambda faces: faces,
        "normalized": partial(normalize_faces, model, target, size=size, progress=progress),
        **(further or {}),
    }
    if token_reader is not None:
        drawings["read + render"] = ReadAndRender(token_reader, size=size).draw
    read, fits = {}, {}
    for name, drawing in drawings.items():
        learned, fits[name] = _learned(taught, drawing, model, progress)
        features = embed_faces(drawing(data.originals), model, progress=progress)[0].numpy()
        read[name] = linear_readings(learned.predict(features))
    found, differences = side_by_side(read, KnownFaces.of(data))
    inputs = {name: measures | {"fit": fits[name]} for name, measures in found.items()}
    result = {"inputs": inputs, "differences": differences, "notes": NOTES}
    if out is not None:
        settings = data_settings(data, weights) | {"train": read_spec(train)}
        settings |= {"token_reader": token_reader}
        write_evaluation(out, result, data, started, settings)
    return result


def _rendered(train: Path, progress: bool) -> Rendered:
    data = Rendered(train, progress=progress)
    if read_spec(train).get("pool") not in POOLS:
        raise DataError(
            f"{train}: the AUs of these faces are not known; give a benchmark that `render` made"
        )
    people = len(set(data.subjects))
    if people < FOLDS:
        raise DataError(f"{train}: {people} people are too few; render {FOLDS} people or more")
    return data


def _learned(
    data: Rendered, drawing: Drawing, model: Normalizer, progress: bool
) -> tuple[Any, dict[str, float]]:
    """A linear reader that learned from faces and their mirror images, and how it fits: its
    strength, and the mean correlation on people it did not learn from."""
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    faces, mirrored = embed_faces(drawing(data.originals), model, progress=progress).numpy()
    features = np.concatenate([faces, mirrored])
    # the stronger side, which a mirror image shares
    codes = np.tile(side_codes(data.table, tuple(labels.AUS)).max(axis=2), (2, 1))
    people = np.tile(data.subjects, 2)
    folds = list(GroupKFold(FOLDS).split(features, groups=people))
    reader = make_pipeline(StandardScaler(), RidgeCV(ALPHAS, cv=folds)).fit(features, codes)
    alpha = float(reader[-1].alpha_)
    fixed = make_pipeline(StandardScaler(), Ridge(alpha))
    others = cross_val_predict(fixed, features, codes, cv=folds)
    return reader, {"alpha": alpha, "rendered": float(pcc(others, codes).mean())}


def as_text(result: Mapping[str, Any]) -> str:
    """The fit on rendered faces, and a table for each measure on those of ``root``."""
    lines = [
        f"{name}: correlation within the rendered faces {measures['fit']['rendered']:.3f}"
        for name, measures in result["inputs"].items()
    ]
    return "\n".join(lines) + "\n\n" + measures_as_text(result["inputs"])


def linear_readings(predicted: NDArray[np.floating]) -> FaceReadings:
    """Readings of predicted intensities (N, 22) of ``labels.AUS``: an AU counts as shown from
    intensity A on."""
    return FaceReadings(
        aus=labels.columns(tuple(labels.AUS)),
        # any rising function that is 1/2 at the threshold gives the same measures
        probabilities=expit(predicted - labels.OCCURRENCE_THRESHOLD).astype(np.float32),
        intensities=predicted.clip(0, labels.INTENSITY_MAX).astype(np.float32),
    )
