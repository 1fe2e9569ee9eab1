"""Normalized datasets: frames in folders, zips and videos, normalized into a tree of images, with
a list of the original of each.

The paper's authors gave out their normalized datasets in this form, a folder for each target
identity (PAPER.md 1.3). A `FaceDataset` says where its frames are; a plain folder of images is one,
too. The hash of an original is that of its pixels as they are read, since a frame of a video has no
bytes of its own.
"""

import csv
import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from norface_lib.common.devices import device_of
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.common.paths import inside, plain_name
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.frames import IN_VIDEO, IN_ZIP
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import Crop
from norface_lib.images.files import aligned, read_face, write_png
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.weights import load_normalizer, target_names

MANIFEST = "manifest.csv"


class Row(NamedTuple):
    """One line of the manifest; ``normalized`` and its hash are empty, and ``error`` is not, if a
    face could not be read."""

    path: str
    sha256: str
    normalized: str
    normalized_sha256: str
    error: str


_SAVE_SECONDS = 10.0
"""Between two writings of the manifest: that of 150,000 frames takes a second."""


def mirror_of(path: str) -> Path:
    """Path of the normalized image of a frame, below the folder of the target. A zip or a video
    becomes a folder.

    ``F001/T1/12.jpg`` -> ``F001/T1/12.png``; ``F001.zip!F001/T1/12.jpg`` ->
    ``F001.zip/F001/T1/12.png``; ``F001_T1.mp4#11`` -> ``F001_T1.mp4/11.png``. All are PNG: what an
    expression moves is little beside JPEG's noise. Raises :class:`DataError` for a name that leads
    out of a folder.
    """
    if match := IN_VIDEO.fullmatch(path):
        return inside(Path(), match["file"]) / f"{match['position']}.png"
    if match := IN_ZIP.fullmatch(path):
        return inside(inside(Path(), match["file"]), match["entry"]).with_suffix(".png")
    return inside(Path(), path).with_suffix(".png")


def normalize_dataset(
    data: FaceDataset,
    out: Path,
    weights: str = "tiny",
    target: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    progress: bool = True,
) -> Counter[str]:
    """Writes ``out/<target>/<mirror_of(path)>`` for each frame of a dataset, and
    ``out/<target>/manifest.csv``.

    The frames must be aligned faces, framed as the dataset's ``framing`` says. ``target``: name of
    one of those that the weights know; default: the first. Memory does not grow with the number of
    frames; a call after an interruption goes on, and draws anew what is missing or whose original
    has changed. Returns how many were ``normalized``, ``there already`` and ``unreadable``, which
    is also what an image that is no aligned face counts as. Raises :class:`DataError` for two
    frames that would become one image, and for an ``out`` that was made by other weights, or that
    lies inside the dataset's root.
    """
    model, face, card = load_normalizer(weights, target)
    _refuse_doubles(data)
    folder = Path(out) / plain_name(target or target_names(card)[0], weights)
    if folder.resolve().is_relative_to(data.root.resolve()):
        raise DataError(
            f"{out}: lies inside {data.root}, and would be taken for a part of it; choose another "
            "folder"
        )
    done = _manifest_rows(folder, card["sha256"])
    model = model.to(device_of(device))
    crop = data.framing
    size = model.config.encoder.image_size
    counts: Counter[str] = Counter()
    saved = time.monotonic()
    with tqdm(
        total=len(data), desc=f"normalize {data.title}", unit="face", disable=not progress
    ) as bar:
        try:
            for start in range(0, len(data), batch_size):
                batch = data.index.iloc[start : start + batch_size]
                rows, faces = _read_batch(data, batch, done, folder, size, crop)
                normalized = (
                    normalize_faces(model, face, np.stack(list(faces.values()))) if faces else []
                )
                written = [
                    write_png(inside(folder, mirror_of(path).as_posix(), writes=True), image)
                    for path, image in zip(faces, normalized, strict=True)
                ]
                hashes = dict(zip(faces, map(_hash_of, written), strict=True))
                for status, row in rows:
                    counts[status] += 1
                    done[row.path] = row._replace(
                        normalized_sha256=hashes.get(row.path, row.normalized_sha256)
                    )
                if time.monotonic() - saved > _SAVE_SECONDS:
                    _write_manifest(folder, done.values(), card["sha256"])
                    saved = time.monotonic()
                bar.update(len(batch))
        finally:
            _write_manifest(folder, done.values(), card["sha256"])
    return counts


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
        except DataError as error:
            rows.append(
                ("unreadable", Row(path, "", "", "", str(error).removeprefix(f"{data.root}/")))
            )
    return rows, faces


def _hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_manifest(folder: Path, rows: Iterable[Row], weights: str) -> None:
    """Writes the rows sorted by path, below a line with the hash of the weights."""

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            file.write(f"# weights {weights}\n")
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(sorted(rows))

    write_atomically(folder / MANIFEST, write)


def _manifest_rows(folder: Path, weights: str) -> dict[str, Row]:
    """Rows of an earlier call by path; none if there was none.

    Raises :class:`DataError` for a manifest that is damaged or of other weights.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        first, _, *rows = _lines(path)
        by_path = {row[0]: Row(*row) for row in rows}
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged; delete it, and every face is normalized anew") from error
    if first != [f"# weights {weights}"]:
        raise DataError(
            f"{path}: these faces were normalized by other weights; choose another folder or "
            "delete this one"
        )
    _check_places(folder, (row.normalized for row in by_path.values()))
    return by_path


def _check_places(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if name:  # an unreadable face has none
            inside(folder, name)


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.reader(file)


def read_manifest(folder: Path) -> pd.DataFrame:
    """The manifest of a target's folder: ``path``, ``sha256``, ``normalized``,
    ``normalized_sha256``, ``error``, all texts.

    Raises :class:`DataError` if it is missing or damaged.
    """
    path = Path(folder) / MANIFEST
    try:
        table = pd.read_csv(path, skiprows=1, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(
            f"{path}: missing or damaged; normalize the dataset into this folder again"
        ) from error
    if tuple(table.columns) != Row._fields:
        raise DataError(f"{path}: damaged; delete it, and every face is normalized anew")
    _check_places(Path(folder), table["normalized"])
    return table


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
    part = data.select(places != "")
    rows = manifest.loc[part.index["path"]]
    key = key_of(part, folder, size)
    names = (
        None
        if memory is None
        else [Path(memory) / f"{kind}-{key}.npy" for kind in ("originals", "normalized")]
    )
    if names and all(name.is_file() for name in names):
        return part, *(np.load(name, mmap_mode="r") for name in names)
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
    write_atomically(
        path, lambda part: fill(np.lib.format.open_memmap(part, "w+", np.uint8, shape)).flush()
    )
    return np.load(path, mmap_mode="r")
