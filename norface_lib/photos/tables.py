"""The tables of an alignment: ``faces.csv`` with a row for each face and for each file or frame
without one, and ``blendshapes.csv``."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from norface_lib.common.failures import writing
from norface_lib.common.files import write_atomically
from norface_lib.images.crop import POINT_COLUMNS
from norface_lib.photos.statuses import LEFT_OUT

FACES = "faces.csv"
BLENDSHAPES = "blendshapes.csv"

BOX = ("x0", "y0", "x1", "y1")
POSE = ("pitch", "yaw", "roll")

KEY = ("source", "frame", "face", "track")
"""Columns that name a face in both tables."""

COLUMNS = (
    *("source", "frame", "time_s", "face", "track", "status", "output", "score", "turn"),
    *(*BOX, *POINT_COLUMNS, *POSE, "error"),
)
"""Of ``faces.csv``. ``time_s``: seconds from the start of a video, as its container says. Box and
points are in pixels of the source, counted from its corner; left is the left of the image, and of
the upright face where ``turn``, the degrees by which the image has to be turned clockwise for the
face to stand upright, is not 0. ``pitch``, ``yaw`` and ``roll`` of the head in degrees,
positive if it looks up, to the left of the image, and is tilted clockwise; empty if the detector
does not know them. ``error``: why a file could not be read, or is left
out."""


def write_faces(
    path: Path,
    entries: Iterable[tuple[str, Mapping[str, Any]]],
    left_out: Mapping[str, str],
) -> Counter[str]:
    """Writes ``faces.csv`` from lines of the journal, by source, and from what is left out, by
    name with its reason. Counts the statuses."""
    counts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for source, entry in entries:
            for row in entry["rows"]:
                yield {"source": source, **row}
        for source, reason in left_out.items():
            yield {"source": source, "status": LEFT_OUT, "error": reason}

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            for row in rows():
                counts[row["status"]] += 1
                writer.writerow(row)

    with writing(path):
        write_atomically(path, write)
    return counts


def write_blendshapes(
    path: Path, names: Sequence[str], entries: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    """Writes ``blendshapes.csv``: a row for each face with its key and its scores 0..1."""

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow((*KEY, *names))
            for source, entry in entries:
                writer.writerows([source, *row] for row in entry["shapes"])

    with writing(path):
        write_atomically(path, write)
