"""What a reader says of many faces, in one form for classifiers and token readers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.errors import CheckpointError
from norface_lib.images.arrays import Faces
from norface_lib.networks.cards import read_card
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.places import find_weights
from norface_lib.networks.token_reader import parts_of
from norface_lib.networks.weights import load_normalizer
from norface_lib.photos.readers import (
    ClassifierReader,
    Embeddings,
    Reader,
    SidesReader,
    check_normalizer,
    load_reader,
)

JOINED = "+"
"""Joins the names of classifiers that are one reader together."""

Values = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FaceReadings:
    """What one reader says of N faces; None for what it does not read.

    ``aus`` names the A columns, as in ``AU12``. ``probabilities`` (N, A) of 0..1, from 0.5 on an
    AU counts as shown; ``intensities`` (N, A) of 0..5; ``sides`` (N, A, 2) intensities of the
    subject's left and right; ``emotions`` (N, E) probabilities in the order of
    ``labels.EMOTIONS``, 0 for one that the reader does not know.
    """

    aus: tuple[str, ...] = ()
    probabilities: Values | None = None
    intensities: Values | None = None
    sides: Values | None = None
    emotions: Values | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The AUs as numbers."""
        return tuple(int(name.removeprefix("AU")) for name in self.aus)

    @property
    def of_bp4d(self) -> NDArray[np.bool_]:
        """(A,) which AUs are among the 12 of BP4D."""
        return np.isin(self.numbers, labels.BP4D_AUS)

    def of(self, chosen: NDArray[np.bool_]) -> "FaceReadings":
        """The readings of the ``chosen`` (N,) faces."""
        names = ("probabilities", "intensities", "sides", "emotions")
        values = {name: getattr(self, name) for name in names}
        return replace(self, **{k: v[chosen] for k, v in values.items() if v is not None})


class FacesToRead:
    """Originals (N, S, S, 3) and their I_n by a normalizer (name or path), drawn at first use: a
    token reader does not need them."""

    def __init__(self, originals: Faces, weights: str, progress: bool = False):
        self.originals = originals
        self.weights = weights
        self.progress = progress

    @cached_property
    def normalizer(self) -> tuple[Any, Any, dict[str, Any]]:
        """Network, target face and card."""
        return load_normalizer(self.weights)

    @cached_property
    def normalized(self) -> Faces:
        """(N, S, S, 3) the normalized faces."""
        model, target, _ = self.normalizer
        size = model.config.encoder.image_size
        return normalize_faces(model, target, self.originals, size=size, progress=self.progress)


def load_together(name: str) -> list[Reader]:
    """A token reader, or the classifiers whose names or paths are joined by ``+``; each is named by
    its file.

    Raises :class:`CheckpointError` if weights are missing or damaged, are neither of these, or do
    not go together: two of one task, or other AUs for occurrence than for intensity.
    """
    readers = [load_reader(str(find_weights(part)), "cpu") for part in name.split(JOINED)]
    if len(readers) > 1:
        _check_together(name, readers)
    return readers


def _check_together(name: str, readers: Sequence[Reader]) -> None:
    for reader in readers:
        if not isinstance(reader, ClassifierReader):
            raise CheckpointError(
                f"{Path(reader.name).stem}: a token reader reads all there is; give it alone, not "
                f"in {name}"
            )
    by_task = {reader.task.name: reader for reader in readers}
    if len(by_task) < len(readers):
        raise CheckpointError(f"{name}: two of these are of one task; give one for each task")
    if len({by_task[task].task.outputs for task in _OF_AUS if task in by_task}) > 1:
        raise CheckpointError(
            f"{name}: one reads other AUs than the other; give classifiers of the same AUs"
        )


_OF_AUS = ("au_detection", "au_intensity")
"""Tasks whose outputs are AUs."""


def hashes_of(readers: Sequence[Reader]) -> dict[str, str]:
    """SHA-256 of the weights of readers that `load_together` loaded, by name."""
    return {Path(reader.name).stem: read_card(Path(reader.name))["sha256"] for reader in readers}


def read_by(readers: Sequence[Reader], faces: FacesToRead) -> FaceReadings:
    """What readers that `load_together` loaded say of faces. Raises :class:`CheckpointError` for
    classifiers of another normalizer, and for unknown emotions."""
    (first, *_) = readers
    if isinstance(first, SidesReader):
        (predictions,) = _predictions(readers, faces, normalized=faces.originals)
        return _of_sides(first, predictions)
    normalizer, _, card = faces.normalizer
    for reader in readers:
        check_normalizer(reader, faces.weights, normalizer, card)
    predictions = _predictions(readers, faces, normalized=faces.normalized)
    return _of_classifiers(readers, predictions)


@torch.inference_mode()
def _predictions(
    readers: Sequence[Reader], faces: FacesToRead, normalized: Faces, batch_size: int = 64
) -> list[Values]:
    """What each reader predicts, (N, C); a batch is embedded once for all readers of one
    backbone."""
    parts = []
    starts = range(0, len(faces.originals), batch_size)
    bar = tqdm(starts, desc="read", unit="batch", disable=not faces.progress, leave=False)
    for start in bar:
        rows = slice(start, start + batch_size)
        known: Embeddings = {}
        batch = (faces.originals[rows], normalized[rows], known)
        parts.append([reader.predictions(*batch) for reader in readers])
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _of_sides(reader: SidesReader, predictions: Values) -> FaceReadings:
    config = reader.model.config
    chances, sides, emotions = parts_of(predictions, config)
    return FaceReadings(
        aus=labels.columns(config.aus),
        probabilities=chances,
        intensities=sides.max(axis=2),
        sides=sides,
        emotions=_in_order(reader.name, emotions, config.emotions),
    )


def _of_classifiers(
    readers: Sequence[ClassifierReader], predictions: Sequence[Values]
) -> FaceReadings:
    aus: tuple[str, ...] = ()
    of_task: dict[str, Values] = {}
    for reader, values in zip(readers, predictions, strict=True):
        task = reader.task
        if task.name in _OF_AUS:
            aus = task.outputs
        else:
            values = _in_order(reader.name, values, task.outputs)
        of_task[task.name] = values
    return FaceReadings(
        aus=aus,
        probabilities=of_task.get("au_detection"),
        intensities=of_task.get("au_intensity"),
        emotions=of_task.get("emotion"),
    )


def _in_order(name: str, probabilities: Values, names: Sequence[str]) -> Values:
    """(N, E) probabilities in the order of ``labels.EMOTIONS``."""
    if unknown := sorted(set(names) - set(labels.EMOTIONS)):
        raise CheckpointError(
            f"{name}: reads the unknown emotion(s) {', '.join(unknown)}; known are "
            f"{', '.join(labels.EMOTIONS)}"
        )
    ordered = np.zeros((len(probabilities), len(labels.EMOTIONS)), np.float32)
    ordered[:, [labels.EMOTIONS.index(emotion) for emotion in names]] = probabilities
    return ordered
