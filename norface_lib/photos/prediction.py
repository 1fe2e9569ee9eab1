"""Photographs and videos in, a tidy table out: faces detected, aligned, normalized, and read for
AUs, intensities and emotions."""

import csv
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from norface_lib.common.devices import device_of
from norface_lib.common.errors import CheckpointError
from norface_lib.common.files import write_atomically
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import read_faces, write_png
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_classifier, load_normalizer, normalizer_hash
from norface_lib.photos.detection import Detector
from norface_lib.photos.engines import OnnxEngine
from norface_lib.photos.folders import align_tree
from norface_lib.photos.journal import FACES
from norface_lib.tasks.tasks import Task, task_of

READERS = ("tiny-photo-au", "tiny-photo-intensity", "tiny-photo-emotion")
"""Shipped classifiers for photographs: AU detection, AU intensity, emotion."""

ENGINES = ("torch", "onnx")
"""What computes the networks; the tables agree within 1e-3 of each column's range."""

PREDICTIONS = "predictions.csv"

WHERE = ("source", "frame", "face", "track", "score", "x0", "y0", "x1", "y1")
"""First columns of the table, as in ``faces.csv``: the file, the frame of a video, the face's
number, its box in pixels."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A classifier, what its outputs mean, and which normalizer it belongs to."""

    name: str  # of its weights, for messages
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
    return pd.concat(tables, axis=1)


@dataclass(frozen=True, kw_only=True)
class TorchEngine:
    """Normalizer and readers in PyTorch: aligned originals (N, S, S, 3) to the normalized faces of
    the same shape, and to a table with a row for each."""

    normalizer: Normalizer
    target: Tensor  # (1, 3, S, S) in [0, 1]
    readers: Sequence[Reader]

    @property
    def image_size(self) -> int:
        """S, the side of the faces in pixels."""
        return self.normalizer.config.encoder.image_size

    def run(self, originals: Faces) -> tuple[Faces, pd.DataFrame]:
        normalized = normalize_faces(self.normalizer, self.target, originals)
        return normalized, read_table(self.readers, originals, normalized)


def open_engine(
    name: str,
    weights: str,
    target: str | None,
    readers: Sequence[str],
    device: str = "auto",
) -> TorchEngine | OnnxEngine:
    """An engine by its name of ``ENGINES``, with a normalizer and readers that belong to it.

    Raises :class:`CheckpointError` for a reader of another normalizer, and ``ValueError`` for an
    unknown engine and for a device that it does not have.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if name == "onnx" and device not in ("auto", "cpu"):
        raise ValueError(f"the engine onnx computes on the CPU, not on {device}: take torch")
    device = "cpu" if name == "onnx" else device

    normalizer, face, card = load_normalizer(weights, target)
    networks = [load_reader(reader, device) for reader in readers]
    for reader in networks:
        check_normalizer(reader, weights, normalizer, card)
    if name == "onnx":
        return OnnxEngine(weights, target, networks, normalizer.config.encoder.image_size)
    return TorchEngine(normalizer=normalizer.to(device_of(device)), target=face, readers=networks)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def predict_tree(
    source: Path,
    out: Path,
    detector: Detector,
    *,
    readers: Sequence[str] = READERS,
    weights: str = "tiny-photo",
    target: str | None = None,
    every: int = 1,
    all_faces: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    engine: str = "torch",
    progress: bool = True,
) -> Counter[str]:
    """Reads the faces of an image, a video, or a folder of both, into ``out/predictions.csv``: a
    row for each face and frame.

    Faces that are aligned already need no search: the detector ``none``. Beside the table lie
    ``aligned/`` with ``faces.csv``, which also lists what holds no face and what cannot be read,
    and ``normalized/``, the mirror tree of I_n. Memory does not grow with the number of faces;
    alignment goes on after an interruption. ``engine``: one of ``ENGINES``. Returns the counts of
    `norface_lib.photos.folders.align_tree`; errors as there, and :class:`CheckpointError` for a
    reader that belongs to another normalizer.
    """
    source, out = Path(source), Path(out)
    networks = open_engine(engine, weights, target, readers, device)

    counts = align_tree(
        _as_folder(source, out),
        out / "aligned",
        detector,
        size=networks.image_size,
        every=every,
        all_faces=all_faces,
        progress=progress,
    )
    faces = pd.read_csv(out / "aligned" / FACES)
    faces = faces[faces["status"] == ALIGNED]
    bar = tqdm(total=len(faces), desc="read", unit="face", disable=not progress)

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                [*WHERE, *(name for reader in networks.readers for name in reader.columns)]
            )
            for start in range(0, len(faces), batch_size):
                batch = faces.iloc[start : start + batch_size]
                writer.writerows(_rows(batch, out, networks))
                bar.update(len(batch))

    write_atomically(out / PREDICTIONS, write)
    return counts


def _rows(
    batch: pd.DataFrame,
    out: Path,
    engine: TorchEngine | OnnxEngine,
) -> Iterator[list[Any]]:
    """Lines of the table for some lines of ``faces.csv``; writes the normalized faces."""
    files = [out / "aligned" / name for name in batch["output"]]
    originals = read_faces(files, engine.image_size)
    normalized, predictions = engine.run(originals)
    for name, image in zip(batch["output"], normalized, strict=True):
        write_png(out / "normalized" / name, image)

    places = batch[list(WHERE)].astype(object)
    places = places.where(places.notna(), "")
    for place, values in zip(places.values.tolist(), predictions.values.tolist(), strict=True):
        yield [*place, *values]


def _as_folder(source: Path, out: Path) -> Path:
    """The folder to align: the source itself, or one with nothing but the file that it is."""
    if not source.is_file():
        return source
    folder = out / "input"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / source.name).exists():
        write_atomically(folder / source.name, lambda part: shutil.copy2(source, part))
    return folder
