"""Errors as users see them: one sentence, an exit code, and for what nobody foresaw a log file."""

import errno
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from norface_lib.cli.output import REFUSED, UNFORESEEN
from norface_lib.common.errors import NorfaceError, without_addresses
from norface_lib.common.paths import runs

_LIBRARY = str(Path(__file__).resolve().parents[1])

_CURES = {
    errno.ENOSPC: "free some space on that disk, and the same command goes on",
    errno.EDQUOT: "your quota is used up: free some space, and the same command goes on",
    errno.EACCES: "you may not read or write it: change its permissions or choose another folder",
    errno.EPERM: "you may not read or write it: change its permissions or choose another folder",
    errno.EROFS: "that disk cannot be written to: choose another folder",
    errno.ENOENT: "it is not there: check the path",
    errno.ENOTDIR: "a folder is needed there: choose another path",
    errno.EISDIR: "a file is needed there: choose another path",
    errno.EEXIST: "it is there already: choose another path",
    errno.ENAMETOOLONG: "choose a shorter name or path",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.EIO: "the disk or the network drive failed: check it, and the same command goes on",
}


def report_failure(error: Exception) -> int:
    """Prints an error on stderr as a sentence and returns the exit code: 1 for what a user can act
    on, 70 for anything else, which also leaves a log file.

    ``NORFACE_DEBUG=1`` shows the traceback of either.
    """
    if os.environ.get("NORFACE_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)

    sentence = _sentence(error)
    if sentence is not None:
        print(f"norface: {sentence}", file=sys.stderr)
        return REFUSED

    text = " ".join(without_addresses(f"{type(error).__name__}: {error}").split())
    print(
        f"norface: an unforeseen error ({text}); details, to send with a report, are in "
        f"{_write_log(error)}",
        file=sys.stderr,
    )
    return UNFORESEEN


def _sentence(error: Exception) -> str | None:
    """The sentence for an error that a user can act on, or None."""
    if isinstance(error, NorfaceError) or _is_refusal(error):
        return without_addresses(str(error))
    if isinstance(error, OSError):
        return _sentence_of_system(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            "not enough memory; choose a smaller --batch-size or --workers, or close other programs"
        )
    return None


def _sentence_of_system(error: OSError) -> str:
    """What the operating system or a connection refused, and the cure."""
    place = f"{error.filename}: " if error.filename else ""
    cure = f"; {_CURES[error.errno]}" if error.errno in _CURES else ""
    return place + without_addresses(error.strerror or str(error)) + cure


def _is_refusal(error: Exception) -> bool:
    """Tells a setting that the library refuses, by a ``raise ValueError`` of its own, from a
    ValueError that came out of other code or of a fault of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    if type(error) is not ValueError or not frames:
        return False
    last = frames[-1]
    return last.filename.startswith(_LIBRARY) and (last.line or "").startswith("raise ValueError")


def _write_log(error: Exception) -> Path:
    """Writes the command, the versions and the traceback; returns the file."""
    from norface_lib.common.records import machine, versions

    lines = [
        time.strftime("%Y-%m-%d %H:%M:%S"),
        "command: " + " ".join(["norface", *sys.argv[1:]]),
        f"machine: {machine()}",
        f"versions: {versions()}",
        "",
        *traceback.format_exception(error),
    ]
    name = f"norface-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (runs() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
            return path
        except OSError:
            continue
    return Path("no file, as neither the folder of runs nor that of temporary files can be written")
