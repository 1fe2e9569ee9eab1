"""One process at a time in a folder of results."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from norface_lib.common.errors import DataError
from norface_lib.common.files import remove_parts

_LOCK = ".norface.lock"


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Holds a folder for this process, makes it if it is missing, and deletes the temporary files
    that a killed process left in it.

    The operating system frees the lock when a process ends, however it ends. Raises
    :class:`DataError`, naming the other process, if one holds the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / _LOCK, folder):
        remove_parts(folder)
        yield


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Holds what goes by one path, such as a table or a training, for this process, and deletes
    its temporary files that a killed process left; others may write beside it. Errors as of
    `only_process`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path.with_name(f".{path.name}.lock"), path):
        _remove_parts_of(path)
        yield


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder that is written all or nothing: yields another, which takes the name ``out`` at the
    end. Deletes what a killed process left; errors as of `only_process`."""
    out = Path(out)
    with only_writer(out):
        part = out.with_name(f".{out.name}.{os.getpid()}.part")
        part.mkdir()
        try:
            yield part
            if out.exists():
                out.rmdir()  # an empty one
            os.replace(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _remove_parts_of(path: Path) -> None:
    """Deletes temporary files and folders beside ``path`` whose names begin with its name."""
    pattern = re.compile(rf"\.{re.escape(path.name)}(\.\w+)?\.\d+\.part")
    for leftover in path.parent.iterdir():
        if pattern.fullmatch(leftover.name):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


@contextmanager
def _held(path: Path, busy: Path) -> Iterator[None]:
    """Holds the lock file ``path``; raises :class:`DataError` if another process does, saying that
    it writes to ``busy``."""
    lock = FileLock(path)
    holder = path.with_name(f"{path.name}.pid")  # Windows lets nobody read a locked file
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(
            f"{busy}: process {_name_in(holder)} is writing here; wait for it, or choose another "
            "folder"
        ) from error
    try:
        holder.write_text(f"{os.getpid()} {platform.node()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def _name_in(holder: Path) -> str:
    """Id of the process that a lock's file names, and its machine if that is another one."""
    try:
        number, _, machine = holder.read_text(encoding="utf-8").partition(" ")
    except OSError:  # it has the lock, and has not written its id yet
        return "of another user"
    return number if machine == platform.node() else f"{number} on {machine}"
