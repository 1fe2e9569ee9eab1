"""All that lies below a folder, with links to folders followed."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from norface_lib.common.errors import DataError


class Folder(NamedTuple):
    """One folder of a tree: its path below the root with slashes (empty for the root itself), the
    names of its folders and of its files, both sorted and without hidden ones."""

    path: str
    folders: list[str]
    files: list[str]

    def below(self, name: str) -> str:
        """Path below the root of something in it."""
        return f"{self.path}/{name}" if self.path else name


def walk_tree(
    root: Path,
    enters: Callable[[str], bool] = lambda path: True,
    unreadable: Callable[[str], None] | None = None,
) -> Iterator[Folder]:
    """The folder ``root`` and all folders below it, links to folders among them.

    Each folder is listed once, under its own name where it has one in the tree: links are followed
    after all else, and one that leads to a folder that was listed is not followed again, so a
    circle of links ends. ``enters`` says whether a folder is entered, by its path below the root;
    ``unreadable`` is called with the path of a folder that cannot be listed. Without it, raises
    :class:`DataError` for such a folder.
    """
    listed: set[tuple[int, int]] = set()
    waiting = deque([""])
    links: deque[str] = deque()
    while waiting or links:
        path = waiting.popleft() if waiting else links.popleft()
        try:
            status = os.stat(os.path.join(root, path))
            identity = (status.st_dev, status.st_ino)
            if identity in listed:
                continue
            listed.add(identity)
            folder, linked = _list(root, path)
        except OSError as error:
            if unreadable is None:
                raise DataError(
                    f"{Path(root, path)}: cannot be listed ({error.strerror}); give yourself the "
                    "right to read it, or move it away"
                ) from error
            unreadable(path)
            continue

        yield folder
        entered = [name for name in folder.folders if enters(folder.below(name))]
        waiting.extendleft(folder.below(name) for name in reversed(entered) if name not in linked)
        links.extend(folder.below(name) for name in entered if name in linked)


def _list(root: Path, path: str) -> tuple[Folder, set[str]]:
    """A folder, and which of its folders are links."""
    folders = []
    files = []
    linked = set()
    with os.scandir(os.path.join(root, path)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                files.append(entry.name)
                continue
            folders.append(entry.name)
            if entry.is_symlink():
                linked.add(entry.name)
    return Folder(path, sorted(folders), sorted(files)), linked
