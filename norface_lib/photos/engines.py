"""Engines: what computes the networks of `predict`, PyTorch or onnxruntime."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from norface_lib.common.devices import device_of
from norface_lib.common.errors import CheckpointError
from norface_lib.common.paths import models
from norface_lib.images.arrays import Faces, to_tensor, to_uint8
from norface_lib.networks.cards import fingerprint, read_card
from norface_lib.networks.drawing import Drawing
from norface_lib.networks.export_onnx import (
    OPSET,
    export_onnx,
    metadata_of,
    open_session,
    run_session,
)
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import find_weights, load_normalizer
from norface_lib.photos.readers import (
    KINDS,
    Reader,
    check_normalizer,
    columns_of,
    load_reader,
    normalizer_for,
    read_table,
)

ENGINES = ("torch", "onnx")
"""What computes the networks; the tables agree within 1e-3 of each column's range."""


class Engine(Protocol):
    """Networks that normalize and read a batch of faces. ``size``: pixels of a face;
    ``fingerprint``: a text that is another one if they would read another value; ``columns``: of
    what they read."""

    size: int
    fingerprint: str
    columns: list[str]

    def run(self, originals: Faces) -> tuple[Faces, pd.DataFrame]:
        """I_n of a batch (N, S, S, 3) of 8 bits, RGB, and a row of ``columns`` for each face."""
        ...


def open_engine(
    name: str,
    *,
    weights: str | None = None,
    target: str | None = None,
    readers: Sequence[str],
    device: str = "auto",
) -> "TorchEngine | OnnxEngine":
    """An engine by its name of ``ENGINES``, with a normalizer and readers that belong to it.
    ``weights``: of the normalizer; default: `norface_lib.photos.readers.normalizer_for`.

    Raises :class:`CheckpointError` for a reader of another normalizer, and ``ValueError`` for an
    unknown engine and for a device that it does not have.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if name == "onnx" and device not in ("auto", "cpu"):
        raise ValueError(f"the engine onnx computes on the CPU, not on {device}: take torch")
    device = "cpu" if name == "onnx" else device
    weights = weights or normalizer_for(readers)

    normalizer, face, card = load_normalizer(weights, target)
    networks = [load_reader(reader, device) for reader in readers]
    for reader in networks:
        check_normalizer(reader, weights, normalizer, card)
    key = _fingerprint(card, face, networks)
    if name == "onnx":
        size = normalizer.config.encoder.image_size
        return OnnxEngine(weights, target, networks, size=size, key=key)
    return TorchEngine(normalizer.to(device_of(device)), face, networks, key=key)


def _fingerprint(card: dict[str, Any], target: Tensor, readers: Sequence[Reader]) -> str:
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    digest.update(target.numpy().tobytes())
    for reader in readers:
        digest.update(f"{reader.name}\n{reader.fingerprint}\n".encode())
    return digest.hexdigest()


class TorchEngine:
    """Normalizer and readers in PyTorch. ``target``: its face (1, 3, S, S) in [0, 1]."""

    def __init__(self, normalizer: Normalizer, target: Tensor, readers: list[Reader], *, key: str):
        self.normalizer = normalizer
        self.target = target
        self.readers = readers
        self.size = normalizer.config.encoder.image_size
        self.columns = columns_of(readers)
        self.fingerprint = f"torch {key}"

    def run(self, originals: Faces) -> tuple[Faces, pd.DataFrame]:
        """I_n of a batch (N, S, S, 3) of 8 bits, RGB, and a row of ``columns`` for each face."""
        normalized = normalize_faces(self.normalizer, self.target, originals)
        return normalized, read_table(self.readers, originals, normalized)


class OnnxEngine:
    """Normalizer and readers in onnxruntime, on as many threads as PyTorch would use: one ONNX
    file, which is exported once and kept in the user's cache."""

    def __init__(
        self,
        weights: str,
        target: str | None,
        readers: list[Reader],
        *,
        size: int,
        key: str,
    ):
        names = [weights, *(reader.name for reader in readers)]
        self.readers = readers
        self.size = size
        self.columns = columns_of(readers)
        self.fingerprint = f"onnx {key}"
        self.path, self.session = exported(names, target)

    def run(self, originals: Faces) -> tuple[Faces, pd.DataFrame]:
        """I_n of a batch (N, S, S, 3) of 8 bits, RGB, and a row of ``columns`` for each face."""
        faces = to_tensor(originals).contiguous().numpy()
        normalized, *predictions = run_session(self.session, {"original": faces}, self.path)
        tables = [
            reader.rows(values) for reader, values in zip(self.readers, predictions, strict=True)
        ]
        table = pd.concat(tables, axis=1).set_axis(self.columns, axis=1)
        return to_uint8(torch.from_numpy(normalized)), table


class Redrawn:
    """An engine whose I_n another drawing makes. Its readers go on reading the images that they
    were trained on; only what `run` returns is drawn otherwise."""

    def __init__(self, engine: Engine, drawing: Drawing):
        self.engine = engine
        self.drawing = drawing
        self.size = engine.size
        self.columns = engine.columns
        self.fingerprint = f"{engine.fingerprint} {drawing.fingerprint}"

    def run(self, originals: Faces) -> tuple[Faces, pd.DataFrame]:
        """I_n (N, T, T, 3) of a batch (N, S, S, 3) of 8 bits, RGB, at the drawing's own size, and a
        row of ``columns`` for each face."""
        return self.drawing.draw(originals), self.engine.run(originals)[1]


def exported(names: Sequence[str], target: str | None) -> tuple[Path, Any]:
    """The ONNX file of a normalizer and its readers, and its session: the file of an earlier call
    if there is one, else a new one in the user's cache.

    Its name is a hash of all fingerprints, so that other weights never get this file.
    """
    weights, *readers = names
    paths = [find_weights(weights, "normalizer")]
    paths += [find_weights(reader, *KINDS) for reader in readers]
    fingerprints = {path.stem: fingerprint(path, read_card(path)) for path in paths}
    made_by = [fingerprints, target, OPSET, torch.__version__]
    key = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16]
    path = models(f"onnx/{key}.onnx")

    session = _session_of(path, fingerprints)
    if session is None:
        export_onnx(paths, path, target=target)
        session = open_session(path)
    return path, session


def _session_of(path: Path, fingerprints: dict[str, str]) -> Any:
    """The session of a file; None unless it is there, readable, and of these weights."""
    if not path.is_file():
        return None
    try:
        session = open_session(path)
    except CheckpointError:
        return None
    return session if metadata_of(session).get("fingerprints") == fingerprints else None
