"""The index of a dataset, a table with a row per frame: its columns, its rows from label files, and
saved ones."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.paths import shown
from norface_lib.datasets.report import Report
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
        table["subject"] = (
            table["part"]
            + "/"
            + table["path"].str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
        )
    return table.assign(sequence="", frame=0)


def read_codes(path: Path, report: Report, header: bool) -> pd.DataFrame:
    """A table of codes, indexed by the frame number in its first column, with its other columns as
    floats.

    A row that is cut short is dropped, and so is a frame that was listed before; both are counted.
    Raises :class:`DataError`, naming the line, if this is no table, or a row does not begin with a
    frame number.
    """
    options = {
        "header": 0 if header else None,
        "index_col": False,
        "skipinitialspace": True,
        "encoding": "utf-8-sig",
    }
    try:
        with warnings.catch_warnings():
            # rows that are longer than the header
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, **options)
    # pandas' parser errors are ValueErrors
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise DataError(
            f"{path}: not a readable label table ({error}); download it again"
        ) from error
    if table.shape[1] < 2 or table.empty:
        raise DataError(
            f"{path}: holds no label (frame and code, separated by commas, are expected); download "
            "it again"
        )
    whole = table.notna().all(axis=1)
    report.drop("label row that is cut short", path.name, int((~whole).sum()))
    numbers = table[whole]
    if not all(map(pd.api.types.is_numeric_dtype, numbers.dtypes)):
        # -1 is no code and no frame, as text is not
        numbers = numbers.apply(pd.to_numeric, errors="coerce").fillna(-1.0)
    frames = numbers.iloc[:, 0]
    if (wrong := ~((frames >= 0) & (frames < 1e9) & (frames % 1 == 0))).any():
        line = int(numbers.index[wrong][0]) + 1 + header
        raise DataError(
            f"{path}: line {line} does not begin with a frame number; download it again"
        )
    codes = numbers.iloc[:, 1:].set_axis(pd.Index(frames.astype(int), name="frame"), axis=0)
    again = codes.index.duplicated()
    report.drop("label row of a frame that was listed before", path.name, int(again.sum()))
    return codes[~again]


def known_values(
    codes: pd.DataFrame, highest: float, report: Report, where: object
) -> pd.DataFrame:
    """Codes of AUs, NaN where a code is 9 (unknown) or is no whole number of 0..``highest``; both
    are counted."""
    values = codes.to_numpy(float)
    unknown = values == UNKNOWN
    valid = (values >= 0) & (values <= highest) & (values % 1 == 0)
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
    or a label outside 0..``highest``.
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
    numbers = table[["frame", *columns]].apply(pd.to_numeric, errors="coerce")
    values = numbers[list(columns)]
    wrong = table[list(columns)].notna() & ~((values >= 0) & (values <= highest + 1e-4))
    if table.empty or numbers["frame"].isna().any() or wrong.to_numpy().any():
        raise DataError(
            f"{name}: holds no row, a frame that is no number, or a label outside 0..{highest:g}; "
            "scan again"
        )
    return table.assign(**{column: values[column].astype(float) for column in columns})
