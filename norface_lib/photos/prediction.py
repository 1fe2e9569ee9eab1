"""Photographs and videos in, a tidy table out: faces found, aligned, normalized, and read for AUs,
intensities and emotions."""

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
from torch import Tensor
from tqdm.auto import tqdm

from norface_lib.common.devices import device_of
from norface_lib.common.errors import CheckpointError
from norface_lib.common.files import write_atomically
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.images.files import read_faces, write_png
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_classifier, load_normalizer
from norface_lib.photos.detection import Detector
from norface_lib.photos.folders import ALIGNED, FACES, align_tree
from norface_lib.tasks.tasks import Task, task_of

READERS = ("tiny-photo-au", "tiny-photo-intensity", "tiny-photo-emotion")
"""Shipped classifiers for photographs: AU detection, AU intensity, emotion."""

PREDICTIONS = "predictions.csv"

WHERE = ("source", "frame", "face", "track", "score", "x0", "y0", "x1", "y1")
"""First columns of the table, as in ``faces.csv``: the file, the frame of a video, the face's
number, its box in pixels."""


@dataclass(frozen=True)
class Reader:
    """A classifier and what its outputs mean."""

    model: Classifier
    task: Task
    backbone: str = ""  # the same text for readers whose backbones have the same weights

    @property
    def columns(self) -> tuple[str, ...]:
        """``AU12`` holds a probability, ``AU12_intensity`` 0..5, ``emotion`` a name and ``happy``
        its probability."""
        if self.task.name == "au_intensity":
            return tuple(f"{name}_intensity" for name in self.task.outputs)
        return ("emotion", *self.task.outputs) if self.task.name == "emotion" else self.task.outputs

    def read(self, originals: Faces, normalized: Faces) -> list[list[Any]]:
        """Values of ``columns`` for each face."""
        return read_all([self], originals, normalized)[0]

    def values(self, logits: Tensor) -> list[list[Any]]:
        """Values of ``columns`` from the network's logits (N, L)."""
        found = self.task.predictions(logits)
        rows = [[round(float(value), 4) for value in row] for row in found]
        if self.task.name == "emotion":
            return [
                [self.task.outputs[int(np.argmax(values))], *row]
                for values, row in zip(found, rows, strict=True)
            ]
        return rows


@torch.inference_mode()
def read_all(
    readers: Sequence[Reader], originals: Faces, normalized: Faces
) -> list[list[list[Any]]]:
    """What each reader says of each face. A batch (N, S, S, 3) is embedded once for all readers of
    one backbone."""
    faces = {"original": originals, "normalized": normalized}
    seen: dict[tuple[str, str], Tensor] = {}
    found = []
    for number, reader in enumerate(readers):
        inputs, device = reader.model.config.inputs, next(reader.model.parameters()).device
        keys = {
            name: (reader.backbone or str(number), name)
            for name in faces
            if inputs in (name, "both")
        }
        for name, key in keys.items():
            if key not in seen:
                seen[key] = reader.model.embed(to_tensor(faces[name]).to(device))
        output = reader.model.head(**{name: seen[key] for name, key in keys.items()})
        found.append(reader.values(output.logits))
    return found


def load_reader(name: str, device: str = "auto") -> Reader:
    """A classifier by shipped name or path. Raises :class:`CheckpointError` if its card does not
    name its task."""
    model, card = load_classifier(name)
    if "task" not in card:
        raise CheckpointError(f"{name}: the card of these weights does not say their task")
    backbone = hashlib.sha256()
    for part in (model.encoder, model.expression):
        for key, value in part.state_dict().items():
            backbone.update(key.encode() + value.contiguous().numpy().tobytes())
    return Reader(
        model.to(device_of(device)),
        task_of(card["task"], model.config.labels),
        backbone.hexdigest(),
    )


def predict_tree(
    source: Path,
    out: Path,
    detector: Detector,
    readers: Sequence[str] = READERS,
    weights: str = "tiny-photo",
    target: str | None = None,
    every: int = 1,
    all_faces: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    progress: bool = True,
) -> Counter[str]:
    """Reads the faces of an image, a video, or a folder of both, into ``out/predictions.csv``: a
    row for each face and frame.

    Beside it lie ``aligned/`` with ``faces.csv``, which also lists what holds no face and what
    cannot be read, and ``normalized/``, the mirror tree of I_n. Memory does not grow with the
    number of faces; alignment goes on after an interruption. Returns the counts of
    `norface_lib.photos.folders.align_tree`; errors as there.
    """
    source, out = Path(source), Path(out)
    networks = [load_reader(name, device) for name in readers]
    normalizer, face, _ = load_normalizer(weights, target)
    normalizer = normalizer.to(device_of(device))
    size = normalizer.config.encoder.image_size
    counts = align_tree(
        _as_folder(source, out),
        out / "aligned",
        detector,
        size,
        every,
        all_faces,
        progress=progress,
    )
    table = pd.read_csv(out / "aligned" / FACES)
    table = table[table["status"] == ALIGNED]

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*WHERE, *(name for reader in networks for name in reader.columns)])
            bar = tqdm(total=len(table), desc="read", unit="face", disable=not progress)
            for rows in _rows(table, out, networks, normalizer, face, batch_size):
                writer.writerows(rows)
                bar.update(len(rows))

    write_atomically(out / PREDICTIONS, write)
    return counts


def _rows(
    table: pd.DataFrame,
    out: Path,
    readers: Sequence[Reader],
    normalizer: Normalizer,
    target: Tensor,
    batch_size: int,
) -> Iterator[list[list[Any]]]:
    """Lines of the table, a batch at a time; writes the normalized faces."""
    for start in range(0, len(table), batch_size):
        batch = table.iloc[start : start + batch_size]
        originals = read_faces(
            [out / "aligned" / name for name in batch["output"]],
            normalizer.config.encoder.image_size,
        )
        normalized = normalize_faces(normalizer, target, originals)
        for name, image in zip(batch["output"], normalized, strict=True):
            write_png(out / "normalized" / name, image)
        read = read_all(readers, originals, normalized)
        where = (
            batch[list(WHERE)].astype(object).where(batch[list(WHERE)].notna(), "").values.tolist()
        )
        yield [
            [*place, *(value for values in row for value in values)]
            for place, *row in zip(where, *read, strict=True)
        ]


def _as_folder(source: Path, out: Path) -> Path:
    """The folder to align: the source itself, or one with nothing but the file that it is."""
    if not source.is_file():
        return source
    folder = out / "input"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / source.name).exists():
        write_atomically(folder / source.name, lambda part: shutil.copy2(source, part))
    return folder
