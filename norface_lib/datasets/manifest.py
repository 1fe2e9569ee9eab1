"""The manifest of a folder of normalized faces: the original of each, hashes, and what could not be
read."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.failures import writing
from norface_lib.common.files import remove_empty, short_name, write_atomically, write_json
from norface_lib.common.paths import inside
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.frames import IN_VIDEO, IN_ZIP

MANIFEST = "manifest.csv"


class Row(NamedTuple):
    """One line of the manifest; ``normalized`` and its hash are empty, and ``error`` is not, if a
    face could not be read."""

    path: str
    sha256: str
    normalized: str
    normalized_sha256: str
    error: str


def mirror_of(path: str) -> Path:
    """Path of the normalized image of a frame, below the folder of the target. A zip or a video
    becomes a folder.

    ``F001/T1/12.jpg`` -> ``F001/T1/12.png``; ``F001.zip!F001/T1/12.jpg`` ->
    ``F001.zip/F001/T1/12.png``; ``F001_T1.mp4#11`` -> ``F001_T1.mp4/11.png``. All are PNG: what an
    expression moves is little beside JPEG's noise. Names that no file system takes, which an entry
    of a zip may have, are shortened. Raises :class:`DataError` for a name that leads out of a
    folder.
    """
    if match := IN_VIDEO.fullmatch(path):
        return inside(Path(), match["file"]) / f"{match['position']}.png"
    if match := IN_ZIP.fullmatch(path):
        place = inside(inside(Path(), match["file"]), match["entry"])
    else:
        place = inside(Path(), path)
    folders = [short_name(name) for name in place.parent.parts]
    return Path(*folders, f"{short_name(place.stem)}.png")


_ROOT = ".source.json"
"""Names the root of the dataset that a target's folder was made from."""


def check_root(folder: Path, root: Path) -> None:
    """Raises :class:`DataError` if a target's folder was made from another root."""
    path = folder / _ROOT
    now = str(root.resolve())
    if not path.exists():
        with writing(path):
            write_json({"root": now}, path)
        return
    before = json.loads(path.read_text(encoding="utf-8"))["root"]
    if before != now:
        raise DataError(
            f"{folder}: holds the normalized faces of {before}, not of {now}; choose another "
            "folder, or start anew with --overwrite"
        )


def refuse_foreign(folder: Path, paths: Iterable[str]) -> None:
    """Raises :class:`DataError` if a folder that no call wrote to holds a file by the name of a
    normalized image, which would be overwritten."""
    if (folder / _ROOT).exists() or (folder / MANIFEST).exists():
        return
    for path in paths:
        image = folder / mirror_of(path)
        if image.exists():
            raise DataError(
                f"{image}: is there already, and no earlier call made it; choose another folder"
            )


def forget_missing(done: dict[str, Row], data: FaceDataset, folder: Path) -> None:
    """Deletes the normalized images of frames whose file is no longer there, and their rows."""
    here = set(data.index["path"])
    for path in [path for path in done if path not in here]:
        match = IN_VIDEO.fullmatch(path) or IN_ZIP.fullmatch(path)
        if not (data.root / (match["file"] if match else path)).exists():
            remove_image(folder, done.pop(path))


def remove_image(folder: Path, row: Row) -> None:
    """Deletes the normalized image of a row, if it has one, and folders that become empty."""
    if row.normalized:
        path = folder / row.normalized
        path.unlink(missing_ok=True)
        remove_empty(path.parent, folder)


def remove_normalized(folder: Path) -> None:
    """Deletes what an earlier call made in a target's folder: the images that the manifest lists,
    and the manifest."""
    manifests = [folder / MANIFEST, *_shares(folder)]
    for path in manifests:
        if path.exists():
            for row in read_manifest(folder, path.name).itertuples(index=False):
                remove_image(folder, Row(*row))
    for path in (*manifests, folder / _ROOT):
        path.unlink(missing_ok=True)


def write_manifest(folder: Path, rows: Iterable[Row], weights: str, name: str = MANIFEST) -> None:
    """Writes the rows sorted by path, below a line with the fingerprint of the drawing: the hash
    of the weights, where a network draws."""

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            file.write(f"# weights {weights}\n")
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(sorted(rows))

    with writing(folder / name):
        write_atomically(folder / name, write)


def share_name(process: int) -> str:
    """Name of the manifest of what one of several processes has made so far; the first writes the
    whole one."""
    return f"manifest-{process}.csv" if process else MANIFEST


def _shares(folder: Path) -> list[Path]:
    return sorted(folder.glob("manifest-*.csv"))


def joined_rows(folder: Path, weights: str) -> dict[str, Row]:
    """`manifest_rows` with those of all processes, whose own manifests become a part of the
    whole one."""
    done = manifest_rows(folder, weights)
    if shares := _shares(folder):
        for path in shares:
            done |= manifest_rows(folder, weights, path.name)
        write_manifest(folder, done.values(), weights)
        for path in shares:
            path.unlink()
    return done


def manifest_rows(folder: Path, weights: str, name: str = MANIFEST) -> dict[str, Row]:
    """Rows of an earlier call by path; none if there was none.

    Raises :class:`DataError` for a manifest that is damaged, or of other weights or another way
    of drawing.
    """
    path = folder / name
    if not path.exists():
        return {}
    try:
        first, _, *rows = _lines(path)
        by_path = {row[0]: Row(*row) for row in rows}
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged; delete it, and every face is normalized anew") from error
    if first != [f"# weights {weights}"]:
        raise DataError(
            f"{path}: these faces were normalized by other weights, or drawn otherwise; choose "
            "another folder, or start anew with --overwrite"
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


def read_manifest(folder: Path, name: str = MANIFEST) -> pd.DataFrame:
    """The manifest of a target's folder: ``path``, ``sha256``, ``normalized``,
    ``normalized_sha256``, ``error``, all texts.

    Raises :class:`DataError` if it is missing or damaged.
    """
    path = Path(folder) / name
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
