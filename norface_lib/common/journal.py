"""Files that grow by a line of JSON at a time, so that a killed process loses at most the last."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from norface_lib.common.errors import DataError
from norface_lib.common.failures import writing


class Line(NamedTuple):
    """A whole line of a journal: its content, and the bytes of the file that it takes."""

    entry: dict[str, Any]
    start: int
    end: int


def read_lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[Line]:
    """Whole lines of a journal, within some bytes of it; the half line of a killed process is left
    out. Raises :class:`DataError` for a damaged line."""
    with Path(path).open("rb") as file:
        file.seek(start)
        for line in file:
            stop = start + len(line)
            if not line.endswith(b"\n") or (end is not None and stop > end):
                return
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError("no JSON object")
            except ValueError as error:
                raise DataError(
                    f"{path}: the line at byte {start} is damaged; start anew with --overwrite, or "
                    "choose another folder"
                ) from error
            yield Line(entry, start, stop)
            start = stop


class Journal:
    """Appends lines to a journal, of which the first ``end`` bytes are whole."""

    def __init__(self, path: Path, end: int):
        self.path = Path(path)
        self.file = self.path.open("ab", buffering=0)
        self.file.truncate(end)
        self.end = end

    def append(self, entry: dict[str, Any]) -> Line:
        """Writes a line, whole or not at all.

        Raises `norface_lib.common.errors.StoppedError` if there is no room.
        """
        data = (json.dumps(entry) + "\n").encode()
        with writing(self.path):
            try:
                if self.file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self.file.truncate(self.end)
                raise
        line = Line(entry, self.end, self.end + len(data))
        self.end = line.end
        return line

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
