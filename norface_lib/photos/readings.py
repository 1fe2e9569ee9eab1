"""The journal of readings, so that faces are read once, and the table that is made of it."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from norface_lib.common.errors import DataError, needs
from norface_lib.common.failures import writing
from norface_lib.common.files import write_atomically
from norface_lib.common.journal import Journal, read_lines
from norface_lib.images.crop import POINT_COLUMNS
from norface_lib.photos.tables import BLENDSHAPES, BOX, FACES, KEY, POSE

READINGS = ".readings.jsonl"

PREDICTIONS = "predictions.csv"

FORMATS = ("csv", "parquet", "json")
"""Kinds of the table of predictions."""

PLACES = (
    *("source", "frame", "time_s", "face", "track", "status", "score", "turn"),
    *(*BOX, *POINT_COLUMNS, *POSE, "error"),
)
"""First columns of the table of predictions, as in ``faces.csv``."""

INTEGERS = ("frame", "face", "track", "turn")


class Readings:
    """What was read of each crop, kept in a file that grows by a line for each batch.

    ``key``: hash of all that a reading depends on beside the crop; the lines of another key are
    deleted. A crop is known by its path, size and time.
    """

    def __init__(self, folder: Path, key: str):
        self.crops = folder / "aligned"
        self.normalized = folder / "normalized"
        self.path = folder / READINGS
        self._places: dict[str, tuple[int, int, list[int]]] = {}
        self._line: tuple[int, list[list[Any]]] = (-1, [])
        end = self._replay(key)
        with writing(self.path):
            self._journal = Journal(self.path, end)
        if end == 0:
            self._journal.append({"key": key})

    def __enter__(self) -> "Readings":
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.__exit__()

    def _replay(self, key: str) -> int:
        end = 0
        if self.path.exists():
            for line in read_lines(self.path):
                if line.start == 0 and line.entry != {"key": key}:
                    return 0
                self._take(line.start, line.entry)
                end = line.end
        return end

    def _take(self, start: int, entry: dict[str, Any]) -> None:
        for row, (output, stamp) in enumerate(
            zip(entry.get("outputs", ()), entry.get("stamps", ()), strict=True)
        ):
            self._places[output] = (start, row, stamp)

    def knows(self, output: str) -> bool:
        """True if this very crop was read, and its normalized face is there."""
        place = self._places.get(output)
        if place is None or not (self.normalized / output).is_file():
            return False
        return place[2] == self._stamp(output)

    def _stamp(self, output: str) -> list[int]:
        try:
            state = (self.crops / output).stat()
        except FileNotFoundError:
            return []
        return [state.st_size, state.st_mtime_ns]

    def append(self, outputs: Sequence[str], values: list[list[Any]]) -> None:
        """Keeps the values of some crops, a row for each."""
        stamps = [self._stamp(output) for output in outputs]
        entry = {"outputs": list(outputs), "stamps": stamps, "values": values}
        line = self._journal.append(entry)
        self._take(line.start, entry)

    def of(self, output: str) -> list[Any] | None:
        """What was read of a crop; None if it was not read."""
        place = self._places.get(output)
        if place is None or place[2] != self._stamp(output):
            return None
        start, row, _ = place
        if self._line[0] != start:
            line = next(read_lines(self.path, start))
            self._line = (start, line.entry["values"])
        return self._line[1][row]


def write_predictions(
    out: Path,
    readings: Readings,
    *,
    columns: Sequence[str],
    blendshapes: Sequence[str],
    kind: str = "csv",
) -> Path:
    """Writes ``predictions.csv`` from the tables of ``aligned/`` and the readings of each crop: a
    row for each row of ``faces.csv``. ``kind``: also writes the table as one of `FORMATS`, and its
    path is returned."""
    aligned = out / "aligned"
    shapes = _shapes(aligned / BLENDSHAPES) if blendshapes else iter(())

    def rows() -> Iterator[list[Any]]:
        following = next(shapes, None)
        with (aligned / FACES).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = readings.of(row["output"]) if row["output"] else None
                scores: list[str] = [""] * len(blendshapes)
                if following and following[: len(KEY)] == [row[name] for name in KEY]:
                    scores = following[len(KEY) :]
                    following = next(shapes, None)
                places = [row[name] for name in PLACES]
                yield [*places, *(values or [""] * len(columns)), *scores]

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*PLACES, *columns, *blendshapes])
            writer.writerows(rows())

    path = out / PREDICTIONS
    with writing(path):
        write_atomically(path, write)
    return path if kind == "csv" else _converted(path, kind)


def _shapes(path: Path) -> Iterator[list[str]]:
    """Rows of ``blendshapes.csv``, which are in the order of ``faces.csv``."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        next(lines)
        yield from lines


def _converted(path: Path, kind: str) -> Path:
    """The table in another format, beside it: ``parquet``, or ``json`` as a list of records, which
    `pandas.read_json` reads as it is."""
    table = read_predictions(path)
    target = path.with_suffix(f".{kind}")
    with writing(target):
        if kind == "json":
            return write_atomically(
                target, lambda part: table.to_json(part, orient="records", force_ascii=False)
            )
        return write_atomically(target, lambda part: table.to_parquet(part, index=False))


def check_format(kind: str) -> None:
    """Raises :class:`DataError` for an unknown format, and
    `norface_lib.common.errors.MissingExtraError` for one whose package is not installed."""
    if kind not in FORMATS:
        raise DataError(f"no table format {kind!r}; there are {', '.join(FORMATS)}")
    if kind == "parquet":
        with needs("parquet"):
            import pyarrow  # noqa: F401


def read_predictions(path: Path) -> pd.DataFrame:
    """``predictions.csv`` or ``faces.csv`` as a table: integers where a cell may be empty are of
    the type ``Int64``, texts stay texts whatever they say."""
    try:
        names = pd.read_csv(path, nrows=0).columns
        texts = [name for name in ("source", "status", "output", "error") if name in names]
        types = dict.fromkeys(texts, "str") | dict.fromkeys(INTEGERS, "Int64")
        return pd.read_csv(
            path,
            dtype={name: kind for name, kind in types.items() if name in names},
            keep_default_na=False,
            na_values={name: [""] for name in names},
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable table ({error}); predict again") from error


def read_faces_with_predictions(out: Path) -> pd.DataFrame:
    """Lines of ``aligned/faces.csv`` with what ``predictions.csv`` says of each. Raises
    :class:`DataError` if a table is missing."""
    tables = []
    for path in (out / "aligned" / FACES, out / PREDICTIONS):
        if not path.is_file():
            raise DataError(f"{path}: no such table; run `predict` into {out} first")
        tables.append(read_predictions(path))
    faces, predictions = tables
    new = [name for name in predictions.columns if name not in faces.columns]
    return faces.merge(predictions[[*KEY, *new]], on=list(KEY), how="left")


def remove_predictions(out: Path) -> None:
    """Deletes the tables and the journal of readings of a folder."""
    for name in (READINGS, *(PREDICTIONS.replace("csv", kind) for kind in FORMATS)):
        (out / name).unlink(missing_ok=True)
