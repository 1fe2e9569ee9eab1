"""Notes in a training's folder which faces it learns from and which weights it began with, so that
its checkpoint is not taken for one of others."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from norface_lib.common.devices import processes
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_json
from norface_lib.images.arrays import Faces

_FILE = "faces.json"
_COMPARED = 16
"""Faces of each source whose pixels are compared, spread evenly over it."""


def check_learned(folder: Path, *sources: Faces, start: Any = None) -> None:
    """Writes into a folder how many faces (N, S, S, 3) each source holds, a hash of some, and one
    of ``start``: what the card says of the weights that the training begins with. Raises
    :class:`DataError` if it holds others already.

    A folder from before either was noted is taken as it is.
    """
    known = Path(folder) / _FILE
    now = {
        "faces": [{"faces": len(faces), "sha256": _hash(faces)} for faces in sources],
        "start": hashlib.sha256(json.dumps(start, sort_keys=True).encode()).hexdigest(),
    }
    if not known.is_file():
        if processes().is_main_process:
            write_json(now, known)
        return
    noted = json.loads(known.read_text(encoding="utf-8"))
    if isinstance(noted, list):  # the start was not noted
        noted = now | {"faces": noted}
    cure = "choose another folder, or delete that one to start anew"
    if noted["faces"] != now["faces"]:
        raise DataError(f"{folder}: a training there learned from other faces; {cure}")
    if noted["start"] != now["start"]:
        raise DataError(f"{folder}: a training there began with other weights; {cure}")


def _hash(faces: Faces) -> str:
    if not len(faces):
        return ""
    rows = np.linspace(0, len(faces) - 1, min(_COMPARED, len(faces))).astype(int)
    return hashlib.sha256(np.ascontiguousarray(faces[rows]).tobytes()).hexdigest()
