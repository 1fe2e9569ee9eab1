"""Normalized images that somebody else made, such as those that the paper's authors gave out, as
the second face of a dataset's frames.

They are found by relative path (PAPER.md 1.3): a folder that mirrors the dataset's, with any suffix
of an image or none, in whole or below some folder of either. Our choice of rules: frames without
one are left out, or keep their original in its place.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.paths import no_folder
from norface_lib.common.workers import workers_of
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.face_files import mapped
from norface_lib.datasets.manifest import mirror_of
from norface_lib.datasets.normalized import READ, originals_of
from norface_lib.datasets.text_tables import some
from norface_lib.images.arrays import Faces
from norface_lib.images.files import aligned, read_face

MISSING = ("drop", "original")
"""What to do with a frame without a given image: leave it out, or show its original twice."""

ALL = "all"
"""In place of the names of identities: all that a folder holds."""

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", "")
"""Suffixes of given images, in the order in which one of several with the same stem is taken."""

_DEEPEST = 4
"""Folders at the beginning of a path that may differ between a dataset and the given images."""


class Given(NamedTuple):
    """Frames with given images: N originals and given faces (N, S, S, 3) of 8 bits."""

    data: FaceDataset  # the frames that are used
    originals: Faces
    normalized: Faces
    key: str  # another one if a frame or a file changes
    counts: dict[str, int]


def load_given(
    data: FaceDataset,
    folder: Path,
    size: int,
    memory: Path,
    missing: str = "drop",
    workers: int = 0,
    progress: bool = False,
) -> Given:
    """The frames of a dataset beside the images in ``folder``, that of one target identity.

    ``size``: pixels of the faces; ``memory``: a folder for them, as files that are mapped into
    memory; ``missing``: one of ``MISSING``; ``workers``: processes that read, 0 for this one.
    Raises :class:`DataError` if there is no such folder, if no frame has an image in it, and for an
    image that cannot be read.
    """
    if missing not in MISSING:
        raise DataError(f"missing must be one of {', '.join(MISSING)}, got {missing!r}")
    data = data.sized(size)
    places = given_places(data.index["path"], folder)
    counts = {
        "given": int(places.notna().sum()),
        f"without a given image, {RULES[missing]}": int(places.isna().sum()),
    }
    part = data if missing == "original" else data.select(places.notna().to_numpy())
    places = places if missing == "original" else places[places.notna()]
    key = _key(part.index["path"], places, folder, size)
    # one file for all identities
    frames = _key(part.index["path"], pd.Series(np.nan, part.index), folder, size)

    with workers_of(workers) as pool:
        shown = pool.in_order(_shown, _calls(part, list(places), Path(folder), size))
        faces = [
            mapped(batches, len(part), size, memory / f"{name}.npy", progress)
            for name, batches in (
                (f"originals-given-{frames}", originals_of(part, size, pool)),
                (f"normalized-given-{key}", shown),
            )
        ]
    return Given(part, *faces, key, counts)


def _calls(
    data: FaceDataset, places: Sequence[str | float], folder: Path, size: int
) -> Iterator[tuple[FaceDataset, list[Path | None], int]]:
    """For each batch of frames: the frames, their given images, None where there is none, and the
    size."""
    files = [None if pd.isna(place) else folder / place for place in places]
    start = 0
    for part in data.batches(READ):
        yield part, files[start : start + len(part)], size
        start += len(part)


def _shown(part: FaceDataset, files: Sequence[Path | None], size: int) -> Faces:
    """(B, S, S, 3): the given image of each frame, or the original where there is none."""
    faces = []
    for (_, row), file in zip(part.index.iterrows(), files, strict=True):
        if file is None:
            faces.append(aligned(part.image(row), str(row["path"]), size, part.framing))
        else:
            faces.append(read_face(file, size))
    return np.stack(faces)


RULES = {"drop": "left out", "original": "original in its place"}
"""What becomes of a frame without an image, in words."""


def given_places(paths: pd.Series, folder: Path) -> pd.Series:
    """Path below ``folder`` of the given image of each frame, NaN for those that have none.

    The folders at the beginning of either path may differ: the number of them that gives the most
    images is taken, the fewest of several. Raises :class:`DataError` if no frame has an image.
    """
    files = _files(folder)
    frames = [_parts(mirror_of(path).with_suffix("").as_posix()) for path in paths]
    best: list[str | None] = []
    most = 0
    for skipped in range(_DEEPEST):  # of the given images' paths
        index = {parts[skipped:]: name for parts, name in files.items() if len(parts) > skipped}
        for left in range(_DEEPEST):  # of the frames'
            found = [index.get(parts[left:]) if len(parts) > left else None for parts in frames]
            count = len(found) - found.count(None)
            if count > most and _one_each(found):
                best, most = found, count
    if not most:
        names = [name for _, name in zip(range(3), files.values(), strict=False)]
        raise DataError(
            f"{folder}: holds no image of a frame such as {some(list(paths))}, but {some(names)}; "
            "name the folder of one identity, whose images have the paths of the dataset's frames; "
            "with identities, the folder that holds theirs"
        )
    places = pd.Series(best, paths.index, dtype=object)
    return places.where(places.notna(), np.nan)


def identity_folders(folder: Path, identities: Sequence[str]) -> dict[str, Path]:
    """Folders of target identities by name: the subfolders of ``folder`` that are named, or all of
    them for ``("all",)``. Raises :class:`DataError` for one that is not there."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: {no_folder(folder)}; give the folder of the identities")
    there = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    names = there if tuple(identities) == (ALL,) else list(dict.fromkeys(identities))
    unknown = [name for name in names if name not in there]
    if unknown or not names:
        raise DataError(
            f"{folder}: has no folder of the identity {', '.join(unknown) or ALL}; its folders are "
            f"{some(there) or 'none'}"
        )
    return {name: folder / name for name in names}


def _one_each(found: list[str | None]) -> bool:
    """Tells whether no image would serve two frames."""
    names = [name for name in found if name is not None]
    return len(set(names)) == len(names)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def _files(folder: Path) -> dict[tuple[str, ...], str]:
    """Images below a folder: the parts of their paths without suffix -> path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: {no_folder(folder)}; give the folder of the normalized images")
    found: dict[tuple[str, ...], tuple[int, str]] = {}
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in _IMAGES:
                continue
            path = (Path(place) / name).relative_to(folder)
            parts = (*path.parts[:-1], stem)
            rank = _IMAGES.index(suffix.lower())
            if parts not in found or rank < found[parts][0]:
                found[parts] = rank, path.as_posix()
    return {parts: name for parts, (_, name) in found.items()}


def _key(paths: pd.Series, places: pd.Series, folder: Path, size: int) -> str:
    """A text that is another one if a frame, or the size or time of a given file, changes."""
    digest = hashlib.sha256(str(size).encode())
    for path, place in zip(paths, places, strict=True):
        digest.update(f"{path}\n{place}\n".encode())
        if not pd.isna(place):
            state = (Path(folder) / place).stat()
            digest.update(f"{state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
