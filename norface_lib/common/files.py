"""Writing files so that a reader never sees half of one, names that any file system takes, and
hashes of content."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePath

import pandas as pd

_LONGEST = 200
"""Bytes of a name that leave room for a number, a suffix and a process id: most file systems take
255 bytes."""

_LONGEST_PATH = 3500
"""Bytes of a path: Linux takes 4,096."""

_DISK_ERRORS = {
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO") if hasattr(errno, name)
}

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")

_PART = re.compile(r"\..+\.\d+\.part", re.DOTALL)


def short_name(name: str, longest: int = _LONGEST) -> str:
    """The name, or its start and a hash of the whole if it has more than ``longest`` bytes."""
    data = name.encode("utf-8", "surrogateescape")
    if len(data) <= longest:
        return name
    start = data[: longest - 11].decode("utf-8", "ignore")
    return f"{start}~{hashlib.sha256(data).hexdigest()[:10]}"


def short_path(path: PurePath, root: Path) -> Path:
    """The relative path with `short_name` for each of its parts, so that it can be written below
    ``root``; all in one part if it is too long as a whole."""
    result = Path(*(short_name(part) for part in path.parts))
    if len(os.fsencode(Path(root, result).absolute())) <= _LONGEST_PATH:
        return result
    return Path(short_name("~".join(path.parts)))


def remove_parts(folder: Path) -> int:
    """Deletes the temporary files that a killed `write_atomically` left anywhere under a folder,
    and returns how many. Call it only while no other process writes there."""
    count = 0
    for parent, _, names in os.walk(folder):
        for name in filter(_PART.fullmatch, names):
            Path(parent, name).unlink(missing_ok=True)
            count += 1
    return count


def remove_empty(folder: Path, top: Path) -> None:
    """Removes a folder and those above it, up to ``top``, that are empty."""
    while folder != top and folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone already
            return
        folder = folder.parent


def write_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Calls ``write`` with a temporary path in the same folder, then renames it to ``path``. A
    failure leaves the old file. A full or failing disk is an ``OSError`` that names ``path``,
    whatever error the library that writes makes of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    temporary = path.with_name(f".{short_name(path.name, _LONGEST)}.{os.getpid()}.part")
    try:
        write(temporary)
        os.replace(temporary, path)
    except Exception as error:
        if number := _disk_error(error):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def reserve(path: Path, size: int) -> None:
    """Gives a file ``size`` bytes, and takes the room from the disk where that can be done: a full
    disk is an ``OSError`` then, while a file that is mapped into memory would end the process."""
    with path.open("r+b") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


def _disk_error(error: BaseException | None) -> int:
    """Number of the disk's error behind an error, 0 if there is none: torch raises a
    ``RuntimeError`` while it handles that one, and safetensors names it in a text."""
    while error is not None:
        match = _SYSTEM_ERROR.search(str(error))
        number = int(match[1]) if match else getattr(error, "errno", None)
        if number in _DISK_ERRORS:
            return number
        error = error.__cause__ or error.__context__
    return 0


def write_json(content: object, path: Path) -> Path:
    """Writes JSON with a final newline, keys in the order given."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Writes a table as CSV without its index; floats keep six digits, more than labels and
    angles need."""
    return write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.6g"))


def sha256_of(path: Path) -> str:
    """Hash of a file's content, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
