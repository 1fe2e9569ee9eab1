"""The journal of an alignment, which grows line by line so that a stopped run goes on where it was,
and the tables that are made of it at the end."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.common.paths import inside
from norface_lib.images.crop import NORFACE_CROP, POINT_COLUMNS, Crop
from norface_lib.images.files import SMALLEST
from norface_lib.photos.tracking import Tracker

FACES = "faces.csv"
BLENDSHAPES = "blendshapes.csv"
JOURNAL = ".align.jsonl"

BOX = ("x0", "y0", "x1", "y1")

KEY = ("source", "frame", "face", "track")
"""Columns that name a face in both tables."""

COLUMNS = (*KEY, "status", "output", "score", *BOX, *POINT_COLUMNS, "error")
"""Of ``faces.csv``. Box and points are in pixels of the source, counted from its corner; left is
the image's left."""

NO_FACE = "no face"
TOO_SMALL = "too small"
NOT_CHOSEN = "not the largest"
UNREADABLE = "unreadable"
"""Values of the column ``status``, beside `norface_lib.images.crop.ALIGNED`."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Choices of an alignment. ``size``: pixels of a crop; ``every``: which frames of a video;
    ``smallest``: see `norface_lib.photos.folders.align_tree`."""

    detector: str
    size: int = 112
    every: int = 1
    all_faces: bool = False
    smallest: int = SMALLEST
    crop: Crop = NORFACE_CROP

    def __post_init__(self):
        if self.size < SMALLEST or self.every < 1:
            raise DataError(
                f"size must be at least {SMALLEST} and every at least 1, not {self.size} and "
                f"{self.every}"
            )

    def as_dict(self) -> dict[str, Any]:
        """For the journal's first line."""
        return {**self.__dict__, "crop": [list(point) for point in self.crop.points]}


@dataclass
class Progress:
    """State of a source by the journal: the file it was, whether it is finished, its last frame,
    the tracks of a video."""

    stamp: list[int]
    start: int  # line of the journal from which on it counts
    done: bool = False
    frame: int = -1
    whole: bool = True  # all of its crops are there
    outputs: list[str] = field(default_factory=list)  # of an image
    tracker: Tracker = field(default_factory=Tracker)


def open_journal(out: Path, settings: Settings) -> dict[str, Progress]:
    """Progress of an earlier call, by source; begins a journal if there is none.

    The half line of a call that was killed is cut off. Raises :class:`DataError` for a journal of
    other settings.
    """
    path = out / JOURNAL
    if not path.exists():
        text = json.dumps({"settings": settings.as_dict()}) + "\n"
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
        return {}
    known: dict[str, Progress] = {}
    end = 0
    for number, entry, position in _entries(path):
        end = position
        if number == 0:
            _check_settings(entry, settings, path)
        else:
            _replay(known, number, entry, out)
    with path.open("r+b") as file:
        file.truncate(end)
    return known


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Whole lines of a journal: number, content, and the position behind them."""
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path}: line {number + 1} is damaged; delete the folder, and align again"
                ) from error
            yield number, entry, end


def _check_settings(entry: dict[str, Any], settings: Settings, path: Path) -> None:
    before = entry.get("settings", {})
    now = settings.as_dict()
    if before != now:
        changed = ", ".join(
            f"{key} {before.get(key)}, not {now[key]}" for key in now if before.get(key) != now[key]
        )
        raise DataError(
            f"{path.parent}: was aligned with other settings ({changed}); choose another folder or "
            "delete this one"
        )


def _replay(known: dict[str, Progress], number: int, entry: dict[str, Any], out: Path) -> None:
    """Takes one line of a journal into the progress of its source."""
    source = entry["source"]
    if "stamp" in entry:
        known[source] = Progress(entry["stamp"], number)
        return
    progress = known[source]
    outputs = [row["output"] for row in entry["rows"] if row.get("output")]
    # crops that are no longer wanted are deleted by these names
    if not all(inside(out, output).is_file() for output in outputs):
        progress.whole = False
    progress.done = entry.get("done", False)
    if "frame" not in entry:
        progress.outputs = outputs
        return
    progress.frame = entry["frame"]
    faces = [row for row in entry["rows"] if row["status"] != NO_FACE]
    boxes = [np.array([row[name] for name in BOX]) for row in faces]
    progress.tracker.restore(boxes, [row["track"] for row in faces])


def write_tables(out: Path, shapes: Sequence[str]) -> Counter[str]:
    """Turns the journal into ``faces.csv`` and, if the detector knows them, ``blendshapes.csv``.
    Counts the statuses."""
    path = out / JOURNAL
    last = {entry["source"]: number for number, entry, _ in _entries(path) if "stamp" in entry}
    counts: Counter[str] = Counter()

    def valid(kind: str) -> Iterator[Any]:
        for number, entry, _ in _entries(path):
            if number and number > last[entry["source"]]:
                yield from entry.get(kind, [])

    def write_faces(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            for row in valid("rows"):
                counts[row["status"]] += 1
                writer.writerow(row)

    def write_shapes(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow((*KEY, *shapes))
            writer.writerows(valid("shapes"))

    write_atomically(out / FACES, write_faces)
    if shapes:
        write_atomically(out / BLENDSHAPES, write_shapes)
    return counts
