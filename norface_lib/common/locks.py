"""One process at a time in a folder of results."""

import os
import platform
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
    """Holds what goes by one path, such as a table or a training, for this process; others may
    write beside it. Errors as of `only_process`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path.with_name(f".{path.name}.lock"), path):
        yield


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
