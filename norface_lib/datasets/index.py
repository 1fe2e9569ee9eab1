"""The index of a dataset, a table with a row per frame: its columns, its rows from label files, and
saved ones."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.paths import shown
from norface_lib.datasets.frames import leaves_dataset
from norface_lib.datasets.report import Report
from norface_lib.datasets.text_tables import read_text, separator_of
from norface_lib.labels import UNKNOWN

KEYS = ("subject", "sequence", "frame", "path", "part")
"""Columns that every index has before its labels. ``frame`` is the dataset's own number, ``part``
train, val, test or empty."""

_TEXT = tuple(key for key in KEYS if key != "frame")

EMOTION = "emotion"
"""The one label of an emotion dataset: the position of the emotion in the dataset's ``classes``."""


def sequence_rows(
    subject: str,
    sequence: str,
    coded: pd.DataFrame,
    frames: dict[int, str],
    report: Report,
    where: object,
) -> pd.DataFrame:
    """Index rows of one sequence: ``coded`` (label columns by frame number) joined with the images
    of ``frames``.

    Frames are matched by number. Labels without an image are dropped and images without labels
    noted, both counted.
    """
    there = coded.index.isin(list(frames))
    missing = coded.index[~there]
    uncoded = sorted(set(frames) - set(coded.index))
    report.drop("label row without an image", f"{where}, frame {missing.min()}", len(missing))
    report.note("image without a label row", frames[uncoded[0]] if uncoded else "", len(uncoded))
    table = coded[there].rename_axis("frame").reset_index()
    table["path"] = [frames[number] for number in table["frame"]]
    return table.assign(subject=subject, sequence=sequence, part="")


def single_images(images: list[dict[str, Any]]) -> pd.DataFrame:
    """Index of images that are no video: each its own subject, as datasets from the web name no
    persons."""
    table = pd.DataFrame(images, columns=None if images else [*KEYS, EMOTION])
    if len(table):
        # two folders may hold two people in images of one name
        table["subject"] = table["path"]
    return table.assign(sequence="", frame=0)


class NoCodesError(DataError):
    """A label table without a row."""


def read_codes(path: Path, report: Report, header: bool) -> pd.DataFrame:
    """A table of codes, indexed by the frame number in its first column, with its other columns as
    floats: NaN where a cell is blank, -1 (no code) where it is no number.

    The separator is a comma, a semicolon or a tab. A row that is dropped is counted: one that is
    cut short or too long, that begins with no frame number, or whose frame was listed before.
    Raises :class:`DataError` if this is no table, and `NoCodesError` if it has no row.
    """
    text = read_text(path).replace('"', "")
    lines = [line for line in text.splitlines() if line.strip(" \t,;")]
    separator = separator_of(lines[0]) if lines else ","
    rows = _whole_rows(lines, separator, path, report, header)
    first = rows[:1] if header else []
    body = rows[1:] if header else rows
    if not lines or (header and len(lines) == 1 and separator in lines[0]):
        raise NoCodesError(f"{path}: holds no row of labels; download it again")
    if not body or body[0].count(separator) < 1:
        raise DataError(
            f"{path}: not a readable label table (holds no label: frame and code, separated by "
            "commas, are expected); download it again"
        )

    numbers = _numbers(body, separator)
    frames = numbers[0]
    wrong = ~((frames >= 0) & (frames < 1e9) & (frames % 1 == 0))
    if wrong.all():
        raise DataError(
            f"{path}: line {1 + header} does not begin with a frame number; download it again"
        )
    report.drop("label row without a frame number", path.name, int(wrong.sum()))

    codes = numbers[~wrong].set_index(0).rename_axis("frame")
    codes.index = codes.index.astype(int)
    again = codes.index.duplicated()
    report.drop("label row of a frame that was listed before", path.name, int(again.sum()))
    if header:
        codes.columns = [name.strip() for name in first[0].split(separator)[1:]]
    return codes[~again]


def _whole_rows(
    lines: list[str], separator: str, path: Path, report: Report, header: bool
) -> list[str]:
    """Lines with as many values as the header has, or where there is none, as most have. Separators
    at their end that separate nothing are cut off."""
    counts = [line.count(separator) for line in lines]
    if not counts:
        return []
    count = counts[0] if header else Counter(counts).most_common(1)[0][0]
    if len(set(counts)) == 1:
        return lines

    rows = []
    for line, own_count in zip(lines, counts, strict=True):
        if own_count > count:
            start = line.rsplit(separator, own_count - count)
            if any(value.strip() for value in start[1:]):
                report.drop("label row that is longer than its header", path.name)
                continue
            line = start[0]
        if own_count < count:
            report.drop("label row that is cut short", path.name)
            continue
        rows.append(line)
    return rows


def _numbers(rows: list[str], separator: str) -> pd.DataFrame:
    """Values of rows of one length, as floats: NaN for a blank, -1 for what is no number."""
    try:
        return pd.DataFrame(np.loadtxt(rows, delimiter=separator, comments=None, ndmin=2))
    except ValueError:
        pass  # a blank, or text: pandas reads it cell by cell
    text = io.StringIO("\n".join(rows))
    options = {"sep": separator, "header": None, "skipinitialspace": True, "quoting": 3}
    try:
        table = pd.read_csv(text, **options)
    except (ValueError, OverflowError):  # pandas' parser errors are ValueErrors
        text.seek(0)
        table = pd.read_csv(text, **options, dtype=str)
    if all(dtype.kind in "iuf" for dtype in table.dtypes):
        return table.astype(float)
    values = table.apply(pd.to_numeric, errors="coerce").astype(float)
    blank = table.isna() | table.map(lambda value: isinstance(value, str) and not value.strip())
    return values.where(values.notna() | blank, -1.0)


def note_blanks(codes: Any, report: Report, name: object) -> Any:
    """The codes as they are; counts their blank cells as masked."""
    report.note("label that is blank, masked", name, int(np.isnan(codes.to_numpy()).sum()))
    return codes


def known_values(
    codes: pd.DataFrame, highest: float, report: Report, where: object
) -> pd.DataFrame:
    """Codes of AUs, NaN where a code is 9 (unknown) or is no whole number of 0..``highest``; both
    are counted."""
    values = codes.to_numpy(float)
    unknown = values == UNKNOWN
    valid = (values >= 0) & (values <= highest) & (np.floor(values) == values)
    report.note("label value 9 (unknown), masked", where, int(unknown.sum()))
    report.note(
        "label value that is no code, masked",
        where,
        int((~valid & ~unknown & ~np.isnan(values)).sum()),
    )
    return pd.DataFrame(np.where(valid, values, np.nan), codes.index, codes.columns)


def load_index(
    index: pd.DataFrame | Path, columns: tuple[str, ...], highest: float = 1.0
) -> pd.DataFrame:
    """An index table, checked, from a table or from a CSV that ``save_index`` wrote.

    Raises :class:`DataError` if it is no table, lacks a column, holds the labels of another task,
    a label outside 0..``highest``, or a path that leads out of the dataset's root.
    """
    if isinstance(index, pd.DataFrame):
        return _check_index(index.reset_index(drop=True), columns, highest, "index")
    path = Path(index)
    try:
        blank = {name: [""] for name in columns}
        table = pd.read_csv(
            path, dtype=dict.fromkeys(_TEXT, str), na_values=blank, keep_default_na=False
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable index table ({error}); leave it out to scan the folder again"
        ) from error
    return _check_index(table, columns, highest, shown(path))


def _check_index(
    table: pd.DataFrame, columns: tuple[str, ...], highest: float, name: str
) -> pd.DataFrame:
    if missing := [column for column in (*KEYS, *columns) if column not in table.columns]:
        raise DataError(
            f"{name}: lacks the column(s) {', '.join(missing)}; leave it out to scan the folder "
            "again"
        )
    names = [column for column in table.columns if column == EMOTION or column.startswith("AU")]
    if names != list(columns):
        raise DataError(
            f"{name}: holds the labels {', '.join(names)}, but {', '.join(columns)} are needed; "
            "scan again"
        )
    outside = table["path"].map(lambda path: leaves_dataset(str(path)))
    if outside.any():
        raise DataError(
            f"{name}: the path {table['path'][outside].iloc[0]!r} leads out of the dataset; scan "
            "again"
        )
    numbers = table[["frame", *columns]].apply(pd.to_numeric, errors="coerce")
    values = numbers[list(columns)]
    wrong = table[list(columns)].notna() & ~((values >= 0) & (values <= highest + 1e-4))
    if table.empty or numbers["frame"].isna().any() or wrong.to_numpy().any():
        raise DataError(
            f"{name}: holds no row, a frame that is no number, or a label outside 0..{highest:g}; "
            "scan again"
        )
    return table.assign(**{column: values[column].astype(float) for column in columns})
