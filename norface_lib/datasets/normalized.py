"""Normalized datasets: frames in folders, zips and videos, normalized into a tree of images, with
a list of the original of each.

The paper's authors gave out their normalized datasets in this form, a folder for each target
identity (PAPER.md 1.3). A `FaceDataset` says where its frames are; a plain folder of images is one,
too. The hash of an original is that of its pixels as they are read, since a frame of a video has no
bytes of its own.
"""

import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from norface_lib.common.devices import default_workers, device_of, processes
from norface_lib.common.errors import DataError, NorfaceError
from norface_lib.common.failures import is_passing, not_read, writing
from norface_lib.common.locks import only_process
from norface_lib.common.paths import inside
from norface_lib.common.workers import Workers, workers_of
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.face_files import in_memory, mapped
from norface_lib.datasets.manifest import (
    MANIFEST,
    Row,
    check_root,
    forget_missing,
    joined_rows,
    manifest_rows,
    mirror_of,
    read_manifest,
    refuse_foreign,
    remove_image,
    remove_normalized,
    share_name,
    write_manifest,
)
from norface_lib.images.arrays import Faces
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
    workers: int | None = None,
) -> Counter[str]:
    """Writes ``out/<target>/<mirror_of(path)>`` for each frame of a dataset, and
    ``out/<target>/manifest.csv``.

    The frames must be aligned faces, framed as the dataset's ``framing`` says. ``target``: name of
    one of those that the weights know; default: the first. Memory does not grow with the number of
    frames; a call after an interruption goes on, and normalizes anew what is missing or whose
    original has changed; what is no longer there leaves the manifest and the folder.
    ``overwrite``: deletes first what an earlier call made in the target's folder. ``drawing``:
    another one than that of the network; then ``weights``, ``target`` and ``device`` mean nothing.
    ``workers``: processes that read and write, 0 for this one; default: those of
    `norface_lib.common.devices.default_workers`.

    Several processes that were started together take turns with the batches; the first writes the
    manifest.

    Returns how many were ``normalized``, ``there already`` and ``unreadable``, which is also what
    an image that is no aligned face counts as. Raises :class:`DataError` for two frames that would
    become one image, for an ``out`` that was made by other weights, by another drawing or from
    another root, that another process writes to, or that lies inside the dataset's root, and
    :class:`norface_lib.common.errors.StoppedError` if the disk is full or fails.
    """
    check_batch_size(batch_size)
    if workers is None:
        workers = default_workers(device_of(device))
    drawing = drawing or NetworkDrawing(weights, target, device)
    data = data.sized(drawing.input_size)
    _refuse_doubles(data)
    folder = Path(out) / drawing.target
    if folder.resolve().is_relative_to(data.root.resolve()):
        raise DataError(
            f"{out}: lies inside {data.root}, and would be taken for a part of it; choose another "
            "folder"
        )
    here = processes()
    every = here.num_processes
    first = here.is_main_process
    with only_process(folder) if first else nullcontext():
        if first:
            known = _prepared(folder, data, drawing.fingerprint, overwrite)
            if every > 1:
                write_manifest(folder, known.values(), drawing.fingerprint)
        here.wait_for_everyone()
        if not first:
            known = manifest_rows(folder, drawing.fingerprint)
        run = _Run(folder=folder, known=known, drawing=drawing, process=here.process_index)
        starts = range(here.process_index * batch_size, len(data), every * batch_size)
        with tqdm(
            total=sum(min(batch_size, len(data) - start) for start in starts),
            desc=f"normalize {data.title}" + (f" (1 of {every} shares)" if every > 1 else ""),
            unit="face",
            disable=not (progress and first),
        ) as bar:
            try:
                with workers_of(workers) as pool:
                    parts = islice(data.batches(batch_size), here.process_index, None, every)
                    for finished in run.all(parts, pool):
                        bar.update(finished)
            except BaseException:
                with suppress(NorfaceError):
                    run.save()
                raise
            run.save()
        here.wait_for_everyone()
        if first and every > 1:
            joined_rows(folder, drawing.fingerprint)
        counts = gather_object([run.counts])
        here.wait_for_everyone()
    return sum(counts, Counter())


def _prepared(folder: Path, data: FaceDataset, fingerprint: str, overwrite: bool) -> dict[str, Row]:
    """Rows of earlier calls, in a folder that fits the dataset. Errors are those of
    `normalize_dataset`."""
    refuse_foreign(folder, data.index["path"])
    if overwrite:
        remove_normalized(folder)
    known = joined_rows(folder, fingerprint)
    check_root(folder, data.root)
    forget_missing(known, data, folder)
    return known


@dataclass(kw_only=True)
class _Run:
    """A dataset, or one process's share of it, on its way into a target's folder; ``known``: rows
    of the manifest of earlier calls by path."""

    folder: Path
    known: dict[str, Row]
    drawing: Drawing
    process: int = 0
    done: dict[str, Row] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    saved: float = field(default_factory=time.monotonic)

    def all(self, parts: Iterable[FaceDataset], pool: Workers) -> Iterator[int]:
        """Normalizes those frames of each part that need it. Yields the number of frames of a part
        when all of them are on disk."""
        size = self.drawing.input_size
        calls = ((part, self._before(part), self.folder, size) for part in parts)
        written: deque[tuple[_Rows, Future]] = deque()
        for rows, faces in pool.in_order(_read_batch, calls):
            images = self.drawing.draw(np.stack(list(faces.values()))) if faces else []
            drawn = dict(zip(faces, images, strict=True))
            written.append((rows, pool.submit(_write_batch, self.folder, drawn)))
            while written and (len(written) > pool.ahead or written[0][1].done()):
                yield self._finish(*written.popleft())
        while written:
            yield self._finish(*written.popleft())

    def _before(self, part: FaceDataset) -> dict[str, Row]:
        """Rows of an earlier call of the frames of a part."""
        return {path: self.known[path] for path in part.index["path"] if path in self.known}

    def _finish(self, rows: "_Rows", written: Future) -> int:
        """Notes what became of the frames of a part, when their images are written."""
        hashes = written.result()
        for status, row in rows:
            self.counts[status] += 1
            if row.error and row.path in self.known:  # it could be read before it changed
                remove_image(self.folder, self.known[row.path])
            digest = hashes.get(row.path, row.normalized_sha256)
            self.done[row.path] = row._replace(normalized_sha256=digest)
        if time.monotonic() - self.saved > _SAVE_SECONDS:
            self.save()
        return len(rows)

    def save(self) -> None:
        """Writes the manifest, or that of this process's share."""
        rows = self.done if self.process else self.known | self.done
        name = share_name(self.process)
        write_manifest(self.folder, rows.values(), self.drawing.fingerprint, name)
        self.saved = time.monotonic()


_Rows = list[tuple[str, Row]]
"""Status and row of the manifest of each frame of a batch."""


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
    data: FaceDataset, before: Mapping[str, Row], folder: Path, size: int
) -> tuple[_Rows, dict[str, Faces]]:
    """Status and row of each frame of a batch, and the faces (path -> (S, S, 3)) that must be
    normalized. ``before``: rows of an earlier call."""
    rows: _Rows = []
    faces: dict[str, Faces] = {}
    for _, frame in data.index.iterrows():
        path = frame["path"]
        try:
            image = data.image(frame)
            digest = _hash_of(image.tobytes())
            known = before.get(path)
            if (
                known
                and known.sha256 == digest
                and not known.error
                and (folder / known.normalized).is_file()
            ):
                rows.append(("there already", known))
                continue
            faces[path] = aligned(image, f"{data.root / path}", size, data.framing)
            rows.append(("normalized", Row(path, digest, mirror_of(path).as_posix(), "", "")))
        except Exception as error:  # of one frame, unless of the disk or of memory
            if is_passing(error) or is_passing(error.__cause__):
                raise not_read(data.root / path, error.__cause__ or error) from error
            reason = str(error).removeprefix(f"{data.root}/")
            rows.append(("unreadable", Row(path, "", "", "", " ".join(reason.split()))))
    return rows, faces


def _write_batch(folder: Path, images: Mapping[str, Faces]) -> dict[str, str]:
    """Writes the normalized images (T, T, 3) of some frames, and returns the hash of each file by
    the path of its frame."""
    hashes = {}
    for path, image in images.items():
        place = inside(folder, mirror_of(path).as_posix(), writes=True)
        with writing(place):
            hashes[path] = _hash_of(write_png(place, image))
    return hashes


def _hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load_pairs(
    data: FaceDataset,
    folder: Path,
    size: int,
    memory: Path | None = None,
    progress: bool = False,
    workers: int = 0,
) -> tuple[FaceDataset, Faces, Faces]:
    """The frames of a dataset that ``folder``, a target's, holds normalized; with originals and
    normalized (N, S, S, 3) of 8 bits.

    The dataset that is returned has just these rows. ``memory``: a folder for the faces as files
    that are mapped into memory, so that a dataset may be larger than that; they are taken from
    there if manifest and rows are the same. ``workers``: processes that read, 0 for this one.
    Raises :class:`DataError` for a manifest that is missing or names none of the frames, and for an
    image that is missing.
    """
    manifest = read_manifest(folder).set_index("path")
    places = data.index["path"].map(manifest["normalized"]).fillna("")
    if not (places != "").any():
        raise DataError(
            f"{Path(folder) / MANIFEST}: names no frame of {data.root}; normalize the dataset into "
            "this folder"
        )
    part = data.sized(size).select(places != "")
    files = [Path(folder) / place for place in manifest.loc[part.index["path"], "normalized"]]
    key = key_of(part, folder, size)

    def gathered(kind: str, batches: Iterator[Faces]) -> Faces:
        if memory is None:
            return in_memory(batches, len(part), size, progress)
        return mapped(batches, len(part), size, Path(memory) / f"{kind}-{key}.npy", progress)

    with workers_of(workers) as pool:
        originals = gathered("originals", originals_of(part, size, pool))
        normalized = gathered("normalized", faces_of(files, size, pool))
    return part, originals, normalized


READ = 64
"""Faces that are read at once."""


def originals_of(data: FaceDataset, size: int, pool: Workers) -> Iterator[Faces]:
    """The aligned faces of a dataset in batches (B, size, size, 3), read by workers."""
    return pool.in_order(_originals, ((part, size) for part in data.batches(READ)))


def _originals(part: FaceDataset, size: int) -> Faces:
    rows = (row for _, row in part.index.iterrows())
    return np.stack([aligned(part.image(row), row["path"], size, part.framing) for row in rows])


def faces_of(files: Sequence[Path], size: int, pool: Workers) -> Iterator[Faces]:
    """Files of aligned faces in batches (B, size, size, 3), read by workers."""
    starts = range(0, len(files), READ)
    return pool.in_order(_faces, ((files[start : start + READ], size) for start in starts))


def _faces(files: Sequence[Path], size: int) -> Faces:
    return np.stack([read_face(file, size) for file in files])


def key_of(part: FaceDataset, folder: Path, *more: object) -> str:
    """A text for the name of what is made of some normalized frames: another one if a frame, its
    normalized image, or ``more`` changes."""
    rows = read_manifest(folder).set_index("path").loc[part.index["path"]]
    return _hash_of(
        "".join([*map(str, more), *rows["sha256"], *rows["normalized_sha256"]]).encode()
    )[:16]
