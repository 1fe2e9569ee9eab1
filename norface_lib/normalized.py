"""Normalized datasets: a tree of aligned faces redrawn into a mirror tree, with a list of what was made from what.

The paper's authors gave out their normalized datasets in this form, a folder for each target identity (PAPER.md 1.3).
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib.align import crop_of
from norface_lib.checkpoints import load_normalizer, target_names
from norface_lib.errors import DataError
from norface_lib.evaluation import normalize_faces
from norface_lib.files import write_atomically
from norface_lib.images import list_images, read_face
from norface_lib.training import device_of

MANIFEST = "manifest.csv"


class Row(NamedTuple):
    """One line of the manifest; ``normalized`` and its hash are empty, and ``error`` is not, if a face could not be read."""

    path: str
    sha256: str
    normalized: str
    normalized_sha256: str
    error: str


def normalize_tree(
    source: Path,
    out: Path,
    weights: str = "tiny",
    target: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    progress: bool = True,
) -> Counter[str]:
    """Writes ``out/<target>/<same path>.png`` for every aligned face under ``source``, and ``out/<target>/manifest.csv``.

    ``target``: name of one of those that the weights know; default: the first. Memory does not grow with the number of faces; a
    call after an interruption goes on, and draws anew what is missing or whose original has changed. Returns how many were
    ``normalized``, ``there already`` and ``unreadable``. Raises :class:`DataError` for a folder without images, for two images
    that differ in their suffix alone, and for an ``out`` that other weights have drawn, or that lies inside ``source``.
    """
    source, (model, face, card) = Path(source), load_normalizer(weights, target)
    paths = [path.relative_to(source) for path in list_images(source)]
    if doubled := [str(path) for path, count in Counter(path.with_suffix("") for path in paths).items() if count > 1]:
        raise DataError(f"{source / doubled[0]}: two images differ in their suffix alone; rename one")
    folder = Path(out) / (target or target_names(card)[0])
    if folder.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out}: lies inside {source}, and would be normalized itself next time; choose another folder")
    done = manifest_rows(folder, card["sha256"])
    model, crop, size = model.to(device_of(device)), crop_of(source), model.config.encoder.image_size
    counts: Counter[str] = Counter()
    with tqdm(total=len(paths), desc="normalize", unit="face", disable=not progress) as bar:
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            rows, faces = _read_batch(source, folder, batch, done, size, crop)
            drawn = normalize_faces(model, face, np.stack(list(faces.values()))) if faces else []
            hashes = {str(path): write_face(folder, path, face) for path, face in zip(faces, drawn, strict=True)}
            for status, row in rows:
                counts[status] += 1
                done[row.path] = row._replace(normalized_sha256=hashes.get(row.path, row.normalized_sha256))
            write_manifest(folder, done.values(), card["sha256"])
            bar.update(len(batch))
    return counts


def _read_batch(source: Path, folder: Path, batch, done: dict[str, Row], size: int, crop):
    """What is known of each face of a batch, as (status, row), and the faces (path -> (S, S, 3)) that must be drawn."""
    rows: list[tuple[str, Row]] = []
    faces: dict[Path, NDArray[np.uint8]] = {}
    for path in batch:
        digest = hashlib.sha256((source / path).read_bytes()).hexdigest()
        row = Row(str(path), digest, str(drawn_path(path)), "", "")
        before = done.get(str(path))
        if before and before.sha256 == digest and not before.error and (folder / before.normalized).is_file():
            rows.append(("there already", before))
            continue
        try:
            faces[path] = read_face(source / path, size, crop)
            rows.append(("normalized", row))
        except DataError as error:
            rows.append(("unreadable", row._replace(normalized="", error=str(error).removeprefix(f"{source}/"))))
    return rows, faces


def drawn_path(path: Path) -> Path:
    """Where in a mirror tree a normalized face lies: a PNG, as what an expression moves is little beside JPEG's noise."""
    return path.with_suffix(".png")


def write_face(folder: Path, path: Path, face: NDArray[np.uint8]) -> str:
    """Writes a normalized face and returns its hash."""
    data = cv2.imencode(".png", face[..., ::-1])[1].tobytes()
    write_atomically(folder / drawn_path(path), lambda part: part.write_bytes(data))
    return hashlib.sha256(data).hexdigest()


def write_manifest(folder: Path, rows: Iterable[Row], weights: str) -> None:
    """Writes the rows sorted by path, below a line with the hash of the weights."""

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            file.write(f"# weights {weights}\n")
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(sorted(rows))

    write_atomically(folder / MANIFEST, write)


def manifest_rows(folder: Path, weights: str) -> dict[str, Row]:
    """Rows of an earlier call by path; none if there was none.

    Raises :class:`DataError` for a manifest that is damaged or of other weights.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        first, _, *rows = _lines(path)
        found = {row[0]: Row(*row) for row in rows}
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged; delete it, and every face is drawn anew") from error
    if first != [f"# weights {weights}"]:
        raise DataError(f"{path}: these faces were drawn by other weights; choose another folder or delete this one")
    return found


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.reader(file)
