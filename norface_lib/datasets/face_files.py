"""Faces (N, S, S, 3) in files that are mapped into memory, so that there may be more of them than
that holds."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from norface_lib.common.devices import processes
from norface_lib.common.files import reserve, write_atomically
from norface_lib.common.locks import only_writer
from norface_lib.images.arrays import Faces


def mapped(
    batches: Iterable[Faces], count: int, size: int, path: Path, progress: bool = False
) -> Faces:
    """Images (N, S, S, 3) out of batches (B, S, S, 3), in the file ``path`` (.npy), mapped into
    memory; N is ``count``, S ``size``.

    They are taken from it if an earlier call made it, so its name must tell them from all others.
    Of several processes the first makes it.
    """
    with processes().main_process_first():
        kept = _kept(path, count, size)
        return _written(batches, count, size, path, progress) if kept is None else kept


def in_memory(batches: Iterable[Faces], count: int, size: int, progress: bool = False) -> Faces:
    """Images (N, S, S, 3) out of batches (B, S, S, 3)."""
    faces = np.empty((count, size, size, 3), np.uint8)
    _fill(faces, batches, progress)
    return faces


def _kept(path: Path, count: int, size: int) -> Faces | None:
    """Images of an earlier call; None if their file is missing or damaged, so that they are made
    again."""
    try:
        faces = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        return None
    whole = faces.shape == (count, size, size, 3) and faces.dtype == np.uint8
    return faces if whole else None


def _written(batches: Iterable[Faces], count: int, size: int, path: Path, progress: bool) -> Faces:
    """Images in a file that appears only when it is whole."""

    def write(part: Path) -> None:
        faces = np.lib.format.open_memmap(part, "w+", np.uint8, (count, size, size, 3))
        reserve(part, part.stat().st_size)
        _fill(faces, batches, progress)
        faces.flush()

    with only_writer(path.with_suffix("")):
        write_atomically(path, write)
    return np.load(path, mmap_mode="r")


def _fill(faces: Faces, batches: Iterable[Faces], progress: bool) -> None:
    row = 0
    with tqdm(total=len(faces), desc="read faces", unit="face", disable=not progress) as bar:
        for batch in batches:
            faces[row : row + len(batch)] = batch
            row += len(batch)
            bar.update(len(batch))
