"""`predict` with onnxruntime in place of PyTorch: normalizer and readers as one ONNX file, which is
exported once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from norface_lib.common.errors import CheckpointError
from norface_lib.common.paths import models
from norface_lib.images.arrays import Faces, to_tensor, to_uint8
from norface_lib.networks.cards import fingerprint, read_card
from norface_lib.networks.export_onnx import (
    OPSET,
    export_onnx,
    metadata_of,
    open_session,
    run_session,
)
from norface_lib.networks.weights import find_weights

if TYPE_CHECKING:
    from norface_lib.photos.prediction import Reader


class OnnxEngine:
    """Normalizer and readers in onnxruntime, on as many threads as PyTorch would use: aligned
    originals (N, S, S, 3) to the normalized faces of the same shape, and to a table with a row for
    each."""

    def __init__(
        self, weights: str, target: str | None, readers: Sequence[Reader], image_size: int
    ):
        names = [weights, *(reader.name for reader in readers)]
        self.readers = readers
        self.image_size = image_size
        self.path, self.session = exported(names, target)

    def run(self, originals: Faces) -> tuple[Faces, pd.DataFrame]:
        faces = to_tensor(originals).contiguous().numpy()
        normalized, *predictions = run_session(self.session, {"original": faces}, self.path)
        tables = [
            reader.rows(values) for reader, values in zip(self.readers, predictions, strict=True)
        ]
        return to_uint8(torch.from_numpy(normalized)), pd.concat(tables, axis=1)


def exported(names: Sequence[str], target: str | None) -> tuple[Path, Any]:
    """The ONNX file of a normalizer and its readers, and its session: the file of an earlier call
    if there is one, else a new one in the user's cache.

    Its name is a hash of all fingerprints, so that other weights never get this file.
    """
    kinds = ["normalizer"] + ["classifier"] * (len(names) - 1)
    paths = [find_weights(name, kind) for name, kind in zip(names, kinds, strict=True)]
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
