"""Names in a dataset's folder: listed once, found in any case, and told apart by kind."""

import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath

from norface_lib.common.errors import DataError
from norface_lib.common.tree import walk_tree
from norface_lib.images.files import SUFFIXES

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".wmv")


def walk(
    root: Path, leaf: str, depth: int = 5, unreadable: Callable[[str], None] | None = None
) -> list[Path]:
    """Files and folders under ``root``, relative to it and sorted, without hidden ones. Folders
    whose name matches ``leaf`` are not entered, links to others are. ``unreadable``: as of
    `walk_tree`.

    A dataset has a million frames in a few hundred folders of subjects: those are listed later, one
    at a time.
    """

    def enters(path: str) -> bool:
        *above, name = path.split("/")
        return len(above) + 1 < depth and not re.fullmatch(leaf, name, re.IGNORECASE)

    paths: list[Path] = []
    for folder in walk_tree(root, enters, unreadable):
        paths += [Path(folder.below(name)) for name in (*folder.folders, *folder.files)]
    return sorted(paths)


def list_names(folder: Path) -> list[str]:
    """Names in a folder, sorted, without hidden ones and those that are no text.

    Raises :class:`DataError` for a folder that cannot be listed.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); give yourself the right to read it"
        ) from error
    return [name for name in names if not name.startswith(".") and is_text(name)]


def is_text(name: str) -> bool:
    """False for a name on disk that is no UTF-8, which no table can hold."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


class Listing:
    """Existing files, in any case of their names, found by listing each folder once: 300,000 calls
    of ``stat`` take minutes."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self.names = lru_cache(maxsize=None)(self._names)
        self._spellings = lru_cache(maxsize=None)(self._spellings_of)

    def _names(self, folder: str) -> list[str]:
        """Names in a folder below the root, as `list_names`; none if there is no such folder."""
        path = self.root / folder
        return list_names(path) if path.is_dir() else []

    def _spellings_of(self, folder: str) -> dict[str, str]:
        """Names in a folder by what they may be called: by themselves, and in lower case."""
        names = self.names(folder)
        lower = {name.lower(): name for name in reversed(names)}
        return lower | {name: name for name in names}

    def find(self, *candidates: str) -> str | None:
        """The first relative path of ``candidates`` that exists, spelled as on disk. A name in the
        same case comes before others."""
        for candidate in candidates:
            path = ""
            for part in PurePosixPath(candidate).parts:
                spellings = self._spellings(path)
                name = spellings.get(part) or spellings.get(part.lower())
                if name is None:
                    break
                path = f"{path}/{name}" if path else name
            else:
                if path:
                    return path
        return None

    def find_image(self, *candidates: str) -> str | None:
        """As `find`; if none exists, the first that does with another suffix of an image."""
        others = (
            f"{os.path.splitext(path)[0]}{suffix}" for path in candidates for suffix in SUFFIXES
        )
        return self.find(*candidates) or self.find(*others)


def kind_of(name: str) -> str:
    """Kind of a file by its suffix: image, video, zip, or the suffix itself."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return f"{suffix} file" if suffix else "file without a suffix"
