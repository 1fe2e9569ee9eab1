"""Readers of faces: networks with the columns of a table that they fill."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib import labels
from norface_lib.common.devices import device_of
from norface_lib.common.errors import CheckpointError
from norface_lib.images.arrays import Faces, resized, to_tensor
from norface_lib.networks.cards import FOLDER, read_card
from norface_lib.networks.classifier import OWN_BACKBONE, Classifier
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.places import find_normalizer, find_weights
from norface_lib.networks.token_reader import TokenReader, parts_of
from norface_lib.networks.weights import load_classifier, load_token_reader, normalizer_hash
from norface_lib.tasks.tasks import Task, task_of

READERS = ("tiny-photo-reader",)
"""Shipped weights that read photographs unless others are named: all AUs and the emotion."""

CLASSIFIERS = ("tiny-photo-au", "tiny-photo-intensity", "tiny-photo-emotion")
"""Shipped classifiers of original and I_n for photographs, as the paper has them: AU detection, AU
intensity, emotion."""

NORMALIZER = "tiny-photo-224"
"""Shipped weights that draw photographs unless others are named."""

KINDS = ("reader", "classifier")
"""Kinds of weights that read faces."""

Embeddings = dict[tuple[str, str], Tensor]
"""Embeddings (N, D) of a batch by hash of the backbone and kind of image, so that each is computed
once."""


@dataclass(frozen=True, kw_only=True)
class Reader(ABC):
    """A network that reads faces: ``name`` of its weights, for messages, and ``fingerprint`` of its
    card, which names the hash of its weights."""

    name: str
    fingerprint: str = ""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of what it reads."""

    @abstractmethod
    def predictions(
        self, originals: Faces, normalized: Faces, known: Embeddings
    ) -> NDArray[np.float32]:
        """What it reads of a batch of originals (N, S, S, 3) and I_n (N, T, T, 3): (N, C).
        ``known`` grows."""

    @abstractmethod
    def rows(self, predictions: NDArray[np.float32]) -> pd.DataFrame:
        """A row for each face with its ``columns``, from predictions (N, C)."""


@dataclass(frozen=True, kw_only=True)
class ClassifierReader(Reader):
    """A classifier, what its outputs mean, and which normalizer it belongs to."""

    model: Classifier
    task: Task
    backbone: str  # hash of encoder and expression embedding
    trained: bool  # whether the backbone was trained with the head
    normalizer: str | None  # SHA-256 of the weights of its normalizer, if its card names them

    @property
    def columns(self) -> tuple[str, ...]:
        """``AU12`` holds a probability, ``AU12_intensity`` 0..5, ``emotion`` a name and ``happy``
        its probability."""
        if self.task.name == "au_intensity":
            return tuple(f"{name}_intensity" for name in self.task.outputs)
        return ("emotion", *self.task.outputs) if self.task.name == "emotion" else self.task.outputs

    def predictions(
        self, originals: Faces, normalized: Faces, known: Embeddings
    ) -> NDArray[np.float32]:
        """See `Reader`: what the task predicts, (N, L)."""
        inputs = {}
        for kind, images in (("original", originals), ("normalized", normalized)):
            if self.model.config.inputs not in (kind, "both"):
                continue
            key = (self.backbone, kind)
            if key not in known:
                faces = to_tensor(resized(images, self.model.config.input_size))
                known[key] = self.model.embed(faces.to(_device(self.model)), kind)
            inputs[kind] = known[key]
        return self.task.predictions(self.model.head(**inputs).logits)

    def rows(self, predictions: NDArray[np.float32]) -> pd.DataFrame:
        """See `Reader`."""
        values = predictions.astype(float)
        table = pd.DataFrame(values.round(4), columns=self.columns[-values.shape[1] :])
        if self.task.name == "emotion":
            table.insert(0, "emotion", _likeliest(values, self.task.outputs))
        return table


@dataclass(frozen=True, kw_only=True)
class SidesReader(Reader):
    """A token reader: AUs, each side of them, and the emotion, of the original alone."""

    model: TokenReader

    @property
    def columns(self) -> tuple[str, ...]:
        """``AU12`` holds a probability, ``AU12_intensity`` 0..5 of the stronger side,
        ``AU12_left`` and ``AU12_right`` those of the subject's sides, ``emotion`` a name and
        ``happy`` its probability."""
        aus = labels.columns(self.model.config.aus)
        sides = [f"{name}_{side}" for name in self._sided for side in ("left", "right")]
        intensities = [f"{name}_intensity" for name in aus]
        return (*aus, *intensities, *sides, "emotion", *self.model.config.emotions)

    @property
    def _sided(self) -> list[str]:
        return [labels.au_column(au) for au in self.model.config.aus if labels.AUS[au].sided]

    def predictions(
        self, originals: Faces, normalized: Faces, known: Embeddings
    ) -> NDArray[np.float32]:
        """See `Reader`: `norface_lib.networks.token_reader.Reading.predictions`."""
        images = to_tensor(originals).to(_device(self.model))
        return self.model(images).predictions.float().cpu().numpy()

    def rows(self, predictions: NDArray[np.float32]) -> pd.DataFrame:
        """See `Reader`."""
        config = self.model.config
        chances, sides, emotions = parts_of(predictions.astype(float), config)
        of_sides = sides[:, np.array(config.sided)].reshape(len(sides), -1)
        values = np.concatenate([chances, sides.max(axis=2), of_sides, emotions], axis=1)
        names = [name for name in self.columns if name != "emotion"]
        table = pd.DataFrame(values.round(4), columns=names)
        place = len(names) - len(config.emotions)
        table.insert(place, "emotion", _likeliest(emotions, config.emotions))
        return table


def _likeliest(chances: NDArray[np.floating], names: Sequence[str]) -> list[str]:
    return [names[number] for number in chances.argmax(axis=1)]


def load_reader(name: str, device: str = "auto") -> Reader:
    """A token reader or a classifier by shipped name or path. Raises :class:`CheckpointError` if
    the card of a classifier does not name its task."""
    if read_card(find_weights(name, *KINDS))["kind"] == "reader":
        model, card = load_token_reader(name)
        key = json.dumps(card, sort_keys=True)
        return SidesReader(name=str(name), model=model.to(device_of(device)), fingerprint=key)
    return _classifier_reader(name, device)


def _classifier_reader(name: str, device: str) -> ClassifierReader:
    model, card = load_classifier(name)
    if "task" not in card:
        raise CheckpointError(f"{name}: the card of these weights does not say their task")
    config = model.config
    # cards from before this entry: only a backbone that was trained has stochastic depth
    trained = card.get("backbone") == "trained" or config.drop_path_rate > 0
    return ClassifierReader(
        name=str(name),
        model=model.to(device_of(device)),
        task=task_of(card["task"], config.labels),
        backbone=_backbone_hash(model),
        trained=trained or config.backbone != OWN_BACKBONE,
        normalizer=normalizer_hash(card),
        fingerprint=json.dumps(card, sort_keys=True),
    )


def _backbone_hash(model: Classifier | Normalizer) -> str:
    digest = hashlib.sha256(str(model.encoder.image_size).encode())
    own = getattr(model, "own", None)
    for part in (model.encoder, model.expression, *([] if own is None else [own])):
        for key, value in part.state_dict().items():
            digest.update(key.encode() + value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def normalizer_for(readers: Sequence[str]) -> str:
    """Name or path of the normalizer to draw with where none is named: the one that the first
    classifier among some readers learned from, if its card names one that can be found, else
    ``NORMALIZER``.

    Raises :class:`CheckpointError` for a reader that is not there.
    """
    for name in readers:
        path = find_weights(name, *KINDS)
        card = read_card(path)
        if isinstance(card.get("normalizer"), dict) and (place := find_normalizer(path, card)):
            return place.stem if place.parent == FOLDER else str(place)
    return NORMALIZER


def check_normalizer(
    reader: Reader, weights: str, normalizer: Normalizer, card: dict[str, Any]
) -> None:
    """Raises :class:`CheckpointError` if a reader belongs to another normalizer than this one, of
    these ``weights`` and this card.

    A classifier belongs to the normalizer whose images it learned from. If its backbone was trained
    and it reads originals alone, or if its card names none, it goes with any, as a token reader
    does.
    """
    if not isinstance(reader, ClassifierReader):
        return
    if reader.trained and (reader.normalizer is None or reader.model.config.inputs == "original"):
        return
    if reader.normalizer is None:
        fits = reader.backbone == _backbone_hash(normalizer)
    else:
        fits = reader.normalizer == card["sha256"]
    if not fits:
        raise CheckpointError(
            f"{reader.name}: belongs to another normalizer than {weights}; give the weights that "
            "its card names as normalizer, or a reader that was trained on these"
        )


@torch.inference_mode()
def read_table(readers: Sequence[Reader], originals: Faces, normalized: Faces) -> pd.DataFrame:
    """All columns of some readers, a row for each face. A batch of originals (N, S, S, 3) and of
    I_n (N, T, T, 3) is embedded once for all readers of one backbone."""
    known: Embeddings = {}
    tables = [reader.rows(reader.predictions(originals, normalized, known)) for reader in readers]
    return pd.concat(tables, axis=1).set_axis(columns_of(readers), axis=1)


def columns_of(readers: Sequence[Reader]) -> list[str]:
    """All columns of some readers. One that several of them have is named ``<reader>.AU12``."""
    names = [Path(reader.name).stem for reader in readers]
    if len(set(names)) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names, start=1)]
    counts = Counter(column for reader in readers for column in reader.columns)
    return [
        f"{name}.{column}" if counts[column] > 1 else column
        for name, reader in zip(names, readers, strict=True)
        for column in reader.columns
    ]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
