"""Kinds of failure while files are read and written: those of one file, and those of the disk, the
network or memory, which stop a run and may have passed when it is called again."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from norface_lib.common.errors import StoppedError, without_addresses

_PASSING = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EINTR", "EBUSY", "ETIMEDOUT"),
        *("ENODEV", "ENXIO", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ECONNRESET"),
        *("ENOSPC", "EDQUOT", "EROFS", "ENOLCK", "EREMOTEIO"),
    )
    if hasattr(errno, name)
}
"""Errors of a disk, a network or a machine, not of a file."""

_GOES_ON = "once that is mended, the same command goes on"


def is_passing(error: BaseException | None) -> bool:
    """True for an error that another attempt may not meet: of the disk, the network, or memory."""
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, MemoryError)


def not_read(path: Path, error: BaseException) -> StoppedError:
    """The error of a run that a passing failure stopped at a file."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    if isinstance(error, MemoryError | cv2.error):
        reason = f"not enough memory: {reason}"
    return StoppedError(f"{_printable(path)}: could not be read ({reason}); {_GOES_ON}")


def not_written(path: Path, error: OSError) -> StoppedError:
    """The error of a run that could not write a file."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StoppedError(f"{_printable(path)}: could not be written ({reason}); {_GOES_ON}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A block that writes a file; an ``OSError`` in it is a :class:`StoppedError` with its path."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def check_readable(path: Path, whole: bool = False) -> None:
    """Reads the start of a file, or all of it, so that an error of the disk is an ``OSError``:
    OpenCV tells none."""
    with path.open("rb") as file:
        while file.read(1 << 20) and whole:
            pass


def reason_of(error: BaseException, path: Path) -> str:
    """Sentence about a failure, in one line of valid UTF-8, without the file's own path."""
    text = without_addresses(getattr(error, "strerror", None) or str(error))
    text = text.replace(f"{path}: ", "").encode("utf-8", "backslashreplace").decode()
    return " ".join(text.split())


def _printable(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()
