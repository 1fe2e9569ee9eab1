"""Photographs and videos in, a tidy table out: faces detected, aligned, normalized, and read for
AUs, intensities and emotions."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from norface_lib.common.devices import device_of
from norface_lib.common.errors import CheckpointError, DataError, NorfaceError, StoppedError
from norface_lib.common.failures import not_read, writing
from norface_lib.common.locks import only_process
from norface_lib.common.paths import inside
from norface_lib.datasets.normalized import check_batch_size
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import read_face, write_png
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_classifier, load_normalizer, normalizer_hash
from norface_lib.photos.detection import Detector
from norface_lib.photos.folders import align_tree
from norface_lib.photos.listing import Sources, list_sources
from norface_lib.photos.readings import (
    PREDICTIONS,
    Readings,
    check_format,
    read_predictions,
    remove_predictions,
    write_predictions,
)
from norface_lib.photos.tables import FACES
from norface_lib.tasks.tasks import Task, task_of

__all__ = ["PREDICTIONS", "READERS", "load_reader", "predict_tree", "read_table"]

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
        values = self.task.predictions(logits).astype(float)
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
    """Raises :class:`CheckpointError` if a reader with a frozen backbone belongs to another
    normalizer than this one, of these ``weights`` and this card."""
    if reader.trained:
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


class Engine(Protocol):
    """Networks that normalize and read a batch of faces. ``size``: pixels of a face;
    ``fingerprint``: a text that is another one if they would read another value; ``columns``: of
    what they read."""

    size: int
    fingerprint: str
    columns: list[str]

    def normalize(self, originals: Faces) -> Faces:
        """I_n of a batch (N, S, S, 3) of 8 bits, RGB."""
        ...

    def read(self, originals: Faces, normalized: Faces) -> pd.DataFrame:
        """A row of ``columns`` for each face of a batch."""
        ...


class TorchEngine:
    """The networks as `torch` runs them.

    Raises :class:`CheckpointError` for a reader that belongs to another normalizer.
    """

    def __init__(
        self,
        *,
        weights: str = "tiny-photo",
        target: str | None = None,
        readers: Sequence[str] = READERS,
        device: str = "auto",
    ):
        normalizer, self.target, card = load_normalizer(weights, target)
        self.readers = [load_reader(name, device) for name in readers]
        for reader in self.readers:
            check_normalizer(reader, weights, normalizer, card)
        self.normalizer = normalizer.to(device_of(device))
        self.size = normalizer.config.encoder.image_size
        self.columns = columns_of(self.readers)
        self.fingerprint = self._fingerprint(card)

    def _fingerprint(self, card: dict[str, Any]) -> str:
        digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
        digest.update(self.target.numpy().tobytes())
        for reader in self.readers:
            digest.update(f"{reader.name}\n{reader.fingerprint}\n".encode())
        return digest.hexdigest()

    def normalize(self, originals: Faces) -> Faces:
        """I_n of a batch (N, S, S, 3) of 8 bits, RGB."""
        return normalize_faces(self.normalizer, self.target, originals)

    def read(self, originals: Faces, normalized: Faces) -> pd.DataFrame:
        """A row of ``columns`` for each face of a batch."""
        return read_table(self.readers, originals, normalized)


def predict_tree(
    source: Sources,
    out: Path,
    detector: Detector,
    *,
    readers: Sequence[str] = READERS,
    weights: str = "tiny-photo",
    target: str | None = None,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    all_faces: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    table_format: str = "csv",
    overwrite: bool = False,
    engine: Engine | None = None,
    progress: bool = True,
) -> Counter[str]:
    """Reads the faces of images and videos into ``out/predictions.csv``: a row for each face, and
    for each file and frame without one, with its status.

    ``source``: a file, a folder, a pattern, or several of them. Faces that are aligned already need
    no search: the detector ``none``. Beside the table lie ``aligned/`` with ``faces.csv``, and
    ``normalized/``, the mirror tree of I_n. ``table_format``: ``parquet`` or ``json`` for a second
    file with the same table. ``overwrite``: deletes first what an earlier call made in ``out``.
    ``engine``: runs the networks instead of `torch`; then ``readers``, ``weights``, ``target`` and
    ``device`` mean nothing.

    A call after an interruption goes on, and reads only what was not read by the same networks; the
    tables of what is done are there even then. Memory does not grow with the size of images and
    videos. Returns the counts of `norface_lib.photos.folders.align_tree`; errors as there, and
    :class:`CheckpointError` for a reader that belongs to another normalizer.
    """
    out = Path(out)
    check_batch_size(batch_size)
    check_format(table_format)
    engine = engine or TorchEngine(weights=weights, target=target, readers=readers, device=device)
    listing = list_sources(source, out)

    with only_process(out):
        if overwrite:
            remove_predictions(out)
        with Readings(out, engine.fingerprint) as readings:

            def write() -> None:
                write_predictions(
                    out,
                    readings,
                    columns=engine.columns,
                    blendshapes=detector.blendshapes,
                    kind=table_format,
                )

            try:
                counts = align_tree(
                    listing,
                    out / "aligned",
                    detector,
                    size=engine.size,
                    every=every,
                    start=start,
                    end=end,
                    all_faces=all_faces,
                    overwrite=overwrite,
                    mirrors=[out / "normalized"],
                    progress=progress,
                )
                _read_all(out, readings, engine, batch_size, progress)
            except (DataError, CheckpointError):
                raise
            except BaseException:
                with suppress(NorfaceError, OSError):
                    write()
                raise
            write()
    return counts


def _read_all(
    out: Path, readings: Readings, engine: Engine, batch_size: int, progress: bool
) -> None:
    """Normalizes and reads all crops that were not read yet."""
    faces = read_predictions(out / "aligned" / FACES)
    outputs = faces.loc[faces["status"] == ALIGNED, "output"].tolist()
    missing = [output for output in outputs if not readings.knows(output)]
    bar = tqdm(
        desc="read",
        total=len(outputs),
        initial=len(outputs) - len(missing),
        unit="face",
        disable=not progress,
    )
    with bar:
        for first in range(0, len(missing), batch_size):
            batch = missing[first : first + batch_size]
            originals = _crops([inside(out / "aligned", name) for name in batch], engine.size)
            normalized = engine.normalize(originals)
            for output, image in zip(batch, normalized, strict=True):
                path = inside(out / "normalized", output, writes=True)
                with writing(path):
                    write_png(path, image)
            readings.append(batch, engine.read(originals, normalized).values.tolist())
            bar.update(len(batch))


def _crops(paths: Sequence[Path], size: int) -> Faces:
    """Aligned faces (N, size, size, 3); one that was damaged since it was written is deleted, so
    that the next call makes it anew."""
    faces = np.empty((len(paths), size, size, 3), np.uint8)
    for row, path in enumerate(paths):
        try:
            faces[row] = read_face(path, size)
        except DataError as error:
            path.unlink(missing_ok=True)
            raise StoppedError(
                f"{path}: was damaged after it was written, and is deleted; the same command makes "
                "it anew"
            ) from error
        except OSError as error:
            raise not_read(path, error) from error
    return faces
