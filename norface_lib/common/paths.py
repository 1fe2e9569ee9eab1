"""Folders that the project reads and writes, and a cache keyed by settings."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from norface_lib.common.errors import DataError, NorfaceError

_ABOVE = Path(__file__).resolve().parents[2]

IN_CHECKOUT = (_ABOVE / "pyproject.toml").is_file() and (_ABOVE / "notebooks").is_dir()
"""True where the package runs from a copy of the repository, False where it was installed."""

ROOT = _ABOVE if IN_CHECKOUT else Path.cwd()
"""The repository, with ``notebooks`` and ``results``; the present folder if installed."""

NOTEBOOKS = ROOT / "notebooks"


def require_checkout(command: str) -> None:
    """Raises :class:`NorfaceError` if a command reads files that only the repository has."""
    if not IN_CHECKOUT:
        raise NorfaceError(
            f"{command} needs the notebooks and results of the repository, which an installed "
            "package does not contain: clone the repository and run it there"
        )


def runs() -> Path:
    """Folder of everything that runs write; ``NORFACE_RUNS`` names another one."""
    return Path(os.environ.get("NORFACE_RUNS", ROOT / "runs"))


def run_file(profile: str, *names: str) -> Path:
    """A file that a notebook writes in its run, ``runs/<profile>/<names>``; its folder is made.
    `publish` copies those in ``results`` and ``figures`` to the folders that are tracked."""
    path = runs().joinpath(profile, *names)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def cache(name: str, **settings: Any) -> Path:
    """Folder of what these settings make, the same at each call: ``runs/cache/<name>-<hash of the
    settings>``."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return runs() / "cache" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def models(name: str) -> Path:
    """File or folder of a network of other people: in ``NORFACE_MODELS`` if it is there, else in
    the user's cache."""
    if "NORFACE_MODELS" in os.environ:
        path = Path(os.environ["NORFACE_MODELS"], name)
        if path.exists():
            return path

    return user_cache() / "norface" / name


def user_cache() -> Path:
    """Folder of what programs of this user download or make once; ``XDG_CACHE_HOME`` names another
    one."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def no_folder(path: Path) -> str:
    """The reason why a path is no folder: there is nothing, or a file."""
    if Path(path).exists():
        return "is a file, where a folder is needed"
    return "no such folder"


def no_file(path: Path) -> str:
    """The reason why a path is no file: there is nothing, or a folder."""
    return "is a folder, where a file is needed" if Path(path).is_dir() else "no such file"


def target_picture(first: Path, targets: Sequence[str], name: str) -> Path:
    """Picture file of one of several targets: ``tiny.png`` for the first of them, ``tiny-ada.png``
    for another."""
    return first if name == targets[0] else first.with_stem(f"{first.stem}-{name}")


def shown(path: Path) -> str:
    """Path to print, without a machine's folders: a relative path as it is, one inside ``ROOT``
    relative to that, else the file's name alone."""
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


_LEAVES = re.compile(
    r"""
    ^[./\\]*$                # no name at all, or the folder itself
    | ^[/\\]                 # absolute
    | ^[A-Za-z]:             # a drive of Windows
    | (^|[/\\])\.\.([/\\]|$)  # a step up
    | \x00                   # the end of a name for the operating system, not for Python
    """,
    re.VERBOSE,
)


def leaves_folder(name: str) -> bool:
    """True for a path that may lead out of the folder that it is relative to: empty, absolute, with
    a drive letter, with ``..``, or with a NUL. A backslash counts as a slash."""
    return _LEAVES.search(name) is not None


def inside(folder: Path, name: str, *, writes: bool = False) -> Path:
    """The path ``folder/name`` of a name that data hold: a line of a table, an entry of a zip, a
    field of a JSON file.

    Links inside the folder are followed, as its owner made them; with ``writes`` also they may not
    lead out of it. Raises :class:`DataError` for a name that leaves the folder.
    """
    folder = Path(folder)
    if leaves_folder(name):
        raise DataError(
            f"{folder}: a name in the data leads out of this folder ({name!r}); names must be "
            "relative, without `..`: correct the file that holds it"
        )
    path = folder / name
    if writes and not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{path}: lies outside {folder}, through a link; nothing is written there: remove the "
            "link"
        )
    return path


def plain_name(name: str, source: object) -> str:
    """A name from the file ``source`` that becomes a part of file names: no path.

    Raises :class:`DataError` for one with a slash, or that leaves its folder.
    """
    if leaves_folder(name) or "/" in name or "\\" in name:
        raise DataError(f"{source}: {name!r} cannot be a part of a file name; correct it")
    return name
