"""Label files as people save them: their encoding, their separators, and tables whose rows are
found by the name of a file."""

import codecs
import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

import pandas as pd

from norface_lib.common.errors import DataError

SEPARATORS = (",", ";", "\t")

_LARGEST = 2**30
"""Bytes of a label file that is read as a whole: a thousand times more than any has."""

_LATIN_1 = "norface-latin-1"
"""Name of the way to read bytes that are not UTF-8."""


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(_LATIN_1, _as_latin_1)


def open_text(path: Path) -> TextIO:
    """A text file in UTF-8 or UTF-16, as its first bytes say; bytes that are no UTF-8 are read as
    Latin-1. Raises :class:`OSError`."""
    with path.open("rb") as file:
        start = file.read(3)
    encoding = "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    return path.open(encoding=encoding, errors=_LATIN_1, newline=None)


def read_text(path: Path) -> str:
    """The text of a label file.

    Raises :class:`DataError` if it is missing, larger than any label file, or no text.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: too large for a label file; download it again")
        with open_text(path) as file:
            text = file.read()
    except OSError as error:
        raise DataError(
            f"{path}: not a readable label file ({error.strerror}); download it again"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path}: not a readable label file (binary, or UTF-16 without its first two bytes); "
            "download it again, or save it as UTF-8"
        )
    return text


def whole_number(value: str | float) -> int:
    """The integer that a cell holds, ``"3"`` or ``"3.0"``. Raises ``ValueError`` for anything
    else."""
    number = float(value)
    if not number.is_integer():  # not for NaN and infinity either
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def separator_of(line: str) -> str:
    """The separator that a line of a table uses most: comma, semicolon or tab."""
    return max(SEPARATORS, key=line.count)


def split_line(line: str, separator: str) -> list[str]:
    """The values of a line, without the spaces and quotes around them.

    A stray quote cannot swallow what follows: it is taken for a part of its value.
    """
    if '"' in line and line.count('"') % 2 == 0:
        values = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    else:
        values = line.split(separator)
    return [value.strip().strip('"').strip() for value in values]


def read_named(path: Path) -> pd.DataFrame:
    """A table of text whose rows belong to files, as people write them: column names in lower
    case, no spaces around names and values, no blank rows, any of ``SEPARATORS``.

    Raises :class:`DataError` if it cannot be read, or lacks the column ``image``.
    """
    lines = read_text(path).splitlines()
    filled = [line for line in lines if line.strip(" \t,;\"'")]
    header = filled[0] if filled else ""
    separator = separator_of(header)
    try:
        rows = list(
            csv.reader(io.StringIO("\n".join(filled)), delimiter=separator, skipinitialspace=True)
        )
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table ({error}); save it as CSV again") from error

    columns = [name.strip().casefold() for name in rows[0]] if rows else []
    named = [number for number, name in enumerate(columns) if name]
    if "image" not in columns:
        listed = ", ".join(columns[number] for number in named) or "none"
        raise DataError(f"{path}: lacks the column image; its columns are {listed}")
    cells = [
        [row[number].strip() if number < len(row) else "" for number in named] for row in rows[1:]
    ]
    table = pd.DataFrame(cells, columns=[columns[number] for number in named], dtype=object)
    return table.loc[:, ~table.columns.duplicated()]


def match_names(names: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """Which file each name of a table means, by name: ``{"Ann\\\\1.JPG": "ann/1.jpg"}``.

    A name that is exactly a file's comes first; else slashes and backslashes, a leading ``./``,
    capitals and the way of writing accents make no difference. Names without a file are left out.
    """
    files = list(files)
    exact = set(files)
    loosely: dict[str, str] = {}
    for file in files:
        loosely.setdefault(_loose(file), file)
    matched = {}
    for name in names:
        file = name if name in exact else loosely.get(_loose(name))
        if file is not None:
            matched[name] = file
    return matched


def some(names: Sequence[str]) -> str:
    """The first three of some names, in quotes, for an error or a report."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in names[:3]) + more


def _loose(name: str) -> str:
    name = unicodedata.normalize("NFC", name.strip()).replace("\\", "/").casefold()
    return name.removeprefix("./")
