"""Readers of faces: classifiers with the columns of a table that they fill."""

import hashlib
import json
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

from norface_lib.common.devices import device_of
from norface_lib.common.errors import CheckpointError
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_classifier, normalizer_hash
from norface_lib.tasks.tasks import Task, task_of

READERS = ("tiny-photo-au", "tiny-photo-intensity", "tiny-photo-emotion")
"""Shipped classifiers for photographs: AU detection, AU intensity, emotion."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A classifier, what its outputs mean, and which normalizer it belongs to."""

    name: str  # of its weights, for messages
    model: Classifier
    task: Task
    backbone: str  # hash of encoder and expression embedding
    trained: bool  # whether the backbone was trained with the head
    normalizer: str | None  # SHA-256 of the weights of its normalizer, if its card names them
    fingerprint: str = ""  # of its card, which names the hash of its weights

    @property
    def columns(self) -> tuple[str, ...]:
        """``AU12`` holds a probability, ``AU12_intensity`` 0..5, ``emotion`` a name and ``happy``
        its probability."""
        if self.task.name == "au_intensity":
            return tuple(f"{name}_intensity" for name in self.task.outputs)
        return ("emotion", *self.task.outputs) if self.task.name == "emotion" else self.task.outputs

    def table(self, logits: Tensor) -> pd.DataFrame:
        """A row for each face with its ``columns``, from the network's logits (N, L)."""
        return self.rows(self.task.predictions(logits))

    def rows(self, predictions: NDArray[np.float32]) -> pd.DataFrame:
        """A row for each face with its ``columns``, from the task's predictions (N, L)."""
        values = predictions.astype(float)
        table = pd.DataFrame(values.round(4), columns=self.columns[-values.shape[1] :])
        if self.task.name == "emotion":
            table.insert(0, "emotion", [self.task.outputs[i] for i in values.argmax(axis=1)])
        return table


def load_reader(name: str, device: str = "auto") -> Reader:
    """A classifier by shipped name or path. Raises :class:`CheckpointError` if its card does not
    name its task."""
    model, card = load_classifier(name)
    if "task" not in card:
        raise CheckpointError(f"{name}: the card of these weights does not say their task")
    config = model.config
    # cards from before this entry: only a backbone that was trained has stochastic depth
    trained = card.get("backbone") == "trained" or config.drop_path_rate > 0
    return Reader(
        name=str(name),
        model=model.to(device_of(device)),
        task=task_of(card["task"], config.labels),
        backbone=_backbone_hash(model),
        trained=trained or config.timm_name is not None,
        normalizer=normalizer_hash(card),
        fingerprint=json.dumps(card, sort_keys=True),
    )


def _backbone_hash(model: Classifier | Normalizer) -> str:
    digest = hashlib.sha256(str(model.encoder.image_size).encode())
    for part in (model.encoder, model.expression):
        for key, value in part.state_dict().items():
            digest.update(key.encode() + value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def check_normalizer(
    reader: Reader, weights: str, normalizer: Normalizer, card: dict[str, Any]
) -> None:
    """Raises :class:`CheckpointError` if a reader belongs to another normalizer than this one, of
    these ``weights`` and this card.

    A reader belongs to the normalizer whose images it learned from. If its backbone was trained and
    it reads originals alone, or if its card names none, it goes with any.
    """
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
    """All columns of some readers, a row for each face. A batch (N, S, S, 3) is embedded once for
    all readers of one backbone."""
    faces = {"original": originals, "normalized": normalized}
    embeddings: dict[tuple[str, str], Tensor] = {}
    tables = []
    for reader in readers:
        inputs = {}
        for kind, images in faces.items():
            if reader.model.config.inputs not in (kind, "both"):
                continue
            key = (reader.backbone, kind)
            if key not in embeddings:
                embeddings[key] = reader.model.embed(to_tensor(images).to(_device(reader.model)))
            inputs[kind] = embeddings[key]
        tables.append(reader.table(reader.model.head(**inputs).logits))
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
