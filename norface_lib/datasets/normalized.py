"""Normalized datasets: frames in folders, zips and videos, normalized into a tree of images, with
a list of the original of each.

The paper's authors gave out their normalized datasets in this form, a folder for each target
identity (PAPER.md 1.3). A `FaceDataset` says where its frames are; a plain folder of images is one,
too. The hash of an original is that of its pixels as they are read, since a frame of a video has no
bytes of its own.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError, NorfaceError
from norface_lib.common.failures import is_passing, not_read, writing
from norface_lib.common.files import write_atomically
from norface_lib.common.locks import only_process, only_writer
from norface_lib.common.paths import inside
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.manifest import (
    MANIFEST,
    Row,
    check_root,
    forget_missing,
    manifest_rows,
    mirror_of,
    read_manifest,
    refuse_foreign,
    remove_image,
    remove_normalized,
    write_manifest,
)
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import Crop
from norface_lib.images.files import aligned, read_face, write_png
from norface_lib.networks.drawing import Drawing, NetworkDrawing

_SAVE_SECONDS = 10.0
"""Between two writings of the manifest: that of 150,000 frames takes a second."""


def check_batch_size(batch_size: int) -> None:
    """Raises :class:`DataError` for a batch without faces."""
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, not {batch_size}")


def normalize_dataset(
    data: FaceDataset,
    out: Path,
    weights: str = "tiny",
    target: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
    drawing: Drawing | None = None,
) -> Counter[str]:
    """Writes ``out/<target>/<mirror_of(path)>`` for each frame of a dataset, and
    ``out/<target>/manifest.csv``.

    The frames must be aligned faces, framed as the dataset's ``framing`` says. ``target``: name of
    one of those that the weights know; default: the first. Memory does not grow with the number of
    frames; a call after an interruption goes on, and normalizes anew what is missing or whose
    original has changed; what is no longer there leaves the manifest and the folder.
    ``overwrite``: deletes first what an earlier call made in the target's folder. ``drawing``:
    another one than that of the network; then ``weights``, ``target`` and ``device`` mean nothing.

    Returns how many were ``normalized``, ``there already`` and ``unreadable``, which is also what
    an image that is no aligned face counts as. Raises :class:`DataError` for two frames that would
    become one image, for an ``out`` that was made by other weights, by another drawing or from
    another root, that another process writes to, or that lies inside the dataset's root, and
    :class:`norface_lib.common.errors.StoppedError` if the disk is full or fails.
    """
    check_batch_size(batch_size)
    drawing = drawing or NetworkDrawing(weights, target, device)
    data = data.sized(drawing.input_size)
    _refuse_doubles(data)
    folder = Path(out) / drawing.target
    if folder.resolve().is_relative_to(data.root.resolve()):
        raise DataError(
            f"{out}: lies inside {data.root}, and would be taken for a part of it; choose another "
            "folder"
        )
    with only_process(folder):
        refuse_foreign(folder, data.index["path"])
        if overwrite:
            remove_normalized(folder)
        done = manifest_rows(folder, drawing.fingerprint)
        check_root(folder, data.root)
        forget_missing(done, data, folder)
        run = _Run(data=data, folder=folder, done=done, drawing=drawing)
        with tqdm(
            total=len(data), desc=f"normalize {data.title}", unit="face", disable=not progress
        ) as bar:
            try:
                for start in range(0, len(data), batch_size):
                    batch = data.index.iloc[start : start + batch_size]
                    run.batch(batch)
                    bar.update(len(batch))
            except BaseException:
                with suppress(NorfaceError):
                    run.save()
                raise
            run.save()
    return run.counts


@dataclass(kw_only=True)
class _Run:
    """A dataset on its way into a target's folder; ``done``: rows of the manifest by path."""

    data: FaceDataset
    folder: Path
    done: dict[str, Row]
    drawing: Drawing
    counts: Counter[str] = field(default_factory=Counter)
    saved: float = field(default_factory=time.monotonic)

    def batch(self, batch: pd.DataFrame) -> None:
        """Normalizes those frames of a batch that need it."""
        size = self.drawing.input_size
        rows, faces = _read_batch(self.data, batch, self.done, self.folder, size, self.data.framing)
        normalized = self.drawing.draw(np.stack(list(faces.values()))) if faces else []
        hashes = {}
        for path, image in zip(faces, normalized, strict=True):
            place = inside(self.folder, mirror_of(path).as_posix(), writes=True)
            with writing(place):
                hashes[path] = _hash_of(write_png(place, image))

        for status, row in rows:
            self.counts[status] += 1
            if row.error and row.path in self.done:  # it could be read before it changed
                remove_image(self.folder, self.done[row.path])
            digest = hashes.get(row.path, row.normalized_sha256)
            self.done[row.path] = row._replace(normalized_sha256=digest)
        if time.monotonic() - self.saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Writes the manifest."""
        write_manifest(self.folder, self.done.values(), self.drawing.fingerprint)
        self.saved = time.monotonic()


def _refuse_doubles(data: FaceDataset) -> None:
    paths = data.index["path"]
    if (again := paths.duplicated()).any():
        raise DataError(
            f"{data.root / paths[again].iloc[0]}: is listed twice; pass "
            "data.select(~data.index['path'].duplicated())"
        )
    if (again := paths.map(mirror_of).duplicated()).any():
        raise DataError(
            f"{data.root / paths[again].iloc[0]}: two frames differ in their suffix alone; rename "
            "one"
        )


def _read_batch(
    data: FaceDataset,
    batch: pd.DataFrame,
    done: Mapping[str, Row],
    folder: Path,
    size: int,
    crop: Crop,
) -> tuple[list[tuple[str, Row]], dict[str, Faces]]:
    """Status and row of each frame of a batch, and the faces (path -> (S, S, 3)) that must be
    normalized."""
    rows: list[tuple[str, Row]] = []
    faces: dict[str, Faces] = {}
    for _, frame in batch.iterrows():
        path = frame["path"]
        try:
            image = data.image(frame)
            digest = _hash_of(image.tobytes())
            before = done.get(path)
            if (
                before
                and before.sha256 == digest
                and not before.error
                and (folder / before.normalized).is_file()
            ):
                rows.append(("there already", before))
                continue
            faces[path] = aligned(image, f"{data.root / path}", size, crop)
            rows.append(("normalized", Row(path, digest, mirror_of(path).as_posix(), "", "")))
        except Exception as error:  # of one frame, unless of the disk or of memory
            if is_passing(error) or is_passing(error.__cause__):
                raise not_read(data.root / path, error.__cause__ or error) from error
            reason = str(error).removeprefix(f"{data.root}/")
            rows.append(("unreadable", Row(path, "", "", "", " ".join(reason.split()))))
    return rows, faces


def _hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load_pairs(
    data: FaceDataset, folder: Path, size: int, memory: Path | None = None, progress: bool = False
) -> tuple[FaceDataset, Faces, Faces]:
    """The frames of a dataset that ``folder``, a target's, holds normalized; with originals and
    normalized (N, S, S, 3) of 8 bits.

    The dataset that is returned has just these rows. ``memory``: a folder for the faces as files
    that are mapped into memory, so that a dataset may be larger than that; they are taken from
    there if manifest and rows are the same. Raises :class:`DataError` for a manifest that is
    missing or names none of the frames, and for an image that is missing.
    """
    manifest = read_manifest(folder).set_index("path")
    places = data.index["path"].map(manifest["normalized"]).fillna("")
    if not (places != "").any():
        raise DataError(
            f"{Path(folder) / MANIFEST}: names no frame of {data.root}; normalize the dataset into "
            "this folder"
        )
    part = data.sized(size).select(places != "")
    rows = manifest.loc[part.index["path"]]
    key = key_of(part, folder, size)
    names = (
        None
        if memory is None
        else [Path(memory) / f"{kind}-{key}.npy" for kind in ("originals", "normalized")]
    )
    kept = names and _kept(names, len(part), size)
    if kept:
        return part, *kept
    originals = (
        aligned(part.image(row), str(row["path"]), size, data.framing)
        for _, row in part.index.iterrows()
    )
    normalized = (read_face(Path(folder) / place, size) for place in rows["normalized"])
    faces = [
        _gathered(images, len(part), size, name, progress)
        for images, name in zip((originals, normalized), names or (None, None), strict=True)
    ]
    return part, *faces


def key_of(part: FaceDataset, folder: Path, *more: object) -> str:
    """A text for the name of what is made of some normalized frames: another one if a frame, its
    normalized image, or ``more`` changes."""
    rows = read_manifest(folder).set_index("path").loc[part.index["path"]]
    return _hash_of(
        "".join([*map(str, more), *rows["sha256"], *rows["normalized_sha256"]]).encode()
    )[:16]


def _kept(paths: Sequence[Path], count: int, size: int) -> list[Faces] | None:
    """Images of an earlier call, mapped into memory; None if a file is missing or damaged, so that
    all are read again."""
    try:
        faces = [np.lib.format.open_memmap(path, mode="r") for path in paths]
    except (OSError, ValueError):
        return None
    whole = all(each.shape == (count, size, size, 3) and each.dtype == np.uint8 for each in faces)
    return faces if whole else None


def _gathered(
    images: Iterable[Faces], count: int, size: int, path: Path | None, progress: bool
) -> Faces:
    """Images (N, S, S, 3) in memory, or in a file that is mapped into it and appears only when it
    is whole."""
    shape = (count, size, size, 3)

    def fill(faces: Faces) -> Faces:
        for row, image in enumerate(
            tqdm(images, total=count, desc="read faces", unit="face", disable=not progress)
        ):
            faces[row] = image
        return faces

    if path is None:
        return fill(np.empty(shape, np.uint8))

    def write(part: Path) -> None:
        faces = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        _reserve(part)
        fill(faces).flush()

    with only_writer(path.with_suffix("")):
        write_atomically(path, write)
    return np.load(path, mmap_mode="r")


def mapped(images: Iterable[Faces], count: int, size: int, path: Path) -> Faces:
    """Images (N, S, S, 3) in the file ``path`` (.npy), mapped into memory; N is ``count``, S
    ``size``. They are taken from it if an earlier call made it, so its name must tell them from all
    others."""
    kept = _kept([path], count, size)
    return kept[0] if kept else _gathered(images, count, size, path, progress=False)


def _reserve(path: Path) -> None:
    """Takes the room of a new file from the disk, where that can be done: a full disk is an
    ``OSError`` then, while a file that is mapped into memory would end the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
