"""Notes in a training's folder which faces it learns from, so that its checkpoint is not taken for
one of other faces."""

import hashlib
import json
from pathlib import Path

import numpy as np

from norface_lib.common.devices import processes
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_json
from norface_lib.images.arrays import Faces

_FILE = "faces.json"
_COMPARED = 16
"""Faces of each source whose pixels are compared, spread evenly over it."""


def check_faces(folder: Path, *sources: Faces) -> None:
    """Writes into a folder how many faces (N, S, S, 3) each source holds and a hash of some. Raises
    :class:`DataError` if it holds others already.

    A folder from before this was noted is taken as it is.
    """
    known = Path(folder) / _FILE
    now = [{"faces": len(faces), "sha256": _hash(faces)} for faces in sources]
    if not known.is_file():
        if processes().is_main_process:
            write_json(now, known)
    elif json.loads(known.read_text(encoding="utf-8")) != now:
        raise DataError(
            f"{folder}: a training there learned from other faces; choose another folder, or "
            "delete that one to start anew"
        )


def _hash(faces: Faces) -> str:
    if not len(faces):
        return ""
    rows = np.linspace(0, len(faces) - 1, min(_COMPARED, len(faces))).astype(int)
    return hashlib.sha256(np.ascontiguousarray(faces[rows]).tobytes()).hexdigest()
