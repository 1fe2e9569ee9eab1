"""Finding the images and videos that were asked for: files, folders and patterns, from one or
several places, under names that tell them apart."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePosixPath

from norface_lib.common.errors import DataError
from norface_lib.common.failures import is_passing, not_read
from norface_lib.common.files import short_path
from norface_lib.images.files import SUFFIXES
from norface_lib.photos.videos import VIDEO_SUFFIXES, is_video

Sources = str | PathLike[str] | Sequence[str | PathLike[str]]
"""One or several files, folders, or patterns such as ``photos/*.jpg``."""

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image or a video. ``name``: what tables call it, valid UTF-8 with ``/`` between folders;
    ``root``: the folder that was asked for, or that of the file that was."""

    path: Path
    name: str
    root: Path

    @cached_property
    def is_video(self) -> bool:
        """True for a video by its suffix, and for a moving picture."""
        return is_video(self.path)


@dataclass
class Listing:
    """Sources sorted by name, ``left_out`` with the reason of each file and folder that is none,
    and ``roots``: the folders of all by the prefix of their names (one folder alone has none)."""

    sources: list[Source] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Names of the roots, for a progress bar."""
        return ", ".join(Path(root).name for root in self.roots.values())


def list_sources(given: Sources, out: Path | None = None) -> Listing:
    """Images and videos among files, folders (with their subfolders) and patterns.

    A file that is named itself is a source whatever its suffix. Links to folders are followed, each
    folder once. Hidden files, other kinds of files, and ``out`` if a link leads there, are left
    out. Raises :class:`DataError` for a path that is missing, for a folder that holds ``out``, and
    if there is no image and no video.
    """
    files, folders = _split(_expanded(given))
    for folder in folders:
        if out is not None and Path(out).resolve().is_relative_to(folder):
            raise DataError(
                f"{out}: lies inside {folder}, and would be taken for a part of it; choose another "
                "folder"
            )
    roots = list(dict.fromkeys([*folders, *(path.parent for path in files)]))
    prefixes = _prefixes(roots)
    listing = Listing(roots={prefix: _text(root) for root, prefix in prefixes.items()})

    for path in files:
        _add(listing, path, path.parent, prefixes)
    for root in folders:
        for path in _Walk(root, out, listing, prefixes[root]).files():
            if reason := _why_not(path):
                listing.left_out[_name(path, root, prefixes[root])] = reason
            else:
                _add(listing, path, root, prefixes)

    if not listing.sources:
        raise DataError(
            f"{', '.join(map(_text, roots))}: holds no image ({', '.join(SUFFIXES)}) and no video "
            f"({', '.join(VIDEO_SUFFIXES)})"
        )
    listing.sources.sort(key=lambda source: PurePosixPath(source.name).parts)
    return listing


def one_folder(given: Sources) -> Path:
    """The only source, for commands that take no other. Raises :class:`DataError` if there are
    several."""
    paths = [given] if isinstance(given, str | PathLike) else list(given)
    if len(paths) != 1:
        raise DataError(
            f"{len(paths)} sources: give one folder, since only a detector takes several at a time"
        )
    return Path(paths[0])


def _expanded(given: Sources) -> list[Path]:
    """The paths, with those of each pattern that is no path itself."""
    paths = []
    for each in [given] if isinstance(given, str | PathLike) else given:
        path = Path(each)
        if path.exists() or path.is_symlink():
            paths.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []
        if not matches:
            kind = "matches no file" if glob.has_magic(str(path)) else "no such file or folder"
            raise DataError(f"{_text(path)}: {kind}; check the path")
        paths += map(Path, matches)
    if not paths:
        raise DataError("no source: name a file or a folder")
    return paths


def _split(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files, with resolved folders, and resolved folders; what another folder holds is not listed
    twice."""
    folders: list[Path] = []
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            folders.append(path.resolve())
        else:
            files.append(path.parent.resolve() / path.name)
    outer = [one for one in folders if not any(_holds(other, one) for other in folders)]
    loose = [path for path in files if not (_is_listed(path) and _any_holds(outer, path))]
    return list(dict.fromkeys(loose)), list(dict.fromkeys(outer))


def _holds(folder: Path, path: Path) -> bool:
    return folder != path and path.is_relative_to(folder)


def _any_holds(folders: Iterable[Path], path: Path) -> bool:
    return any(_holds(folder, path) and not _is_hidden(path, folder) for folder in folders)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _is_listed(path: Path) -> bool:
    """True if a folder's listing would take the file."""
    return path.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES)


def _prefixes(roots: Sequence[Path]) -> dict[Path, str]:
    """A prefix for the names of each root's files: none for a single root, else as many of its last
    folders as tell all apart."""
    if len(roots) == 1:
        return {roots[0]: ""}
    for depth in range(1, max(len(root.parts) for root in roots)):
        names = {root: "/".join(root.parts[1:][-depth:]) for root in roots}
        if len(set(names.values())) == len(roots):
            break
    return {root: _safe(name) for root, name in names.items()}


def _name(path: Path, root: Path, prefix: str) -> str:
    return _safe(PurePosixPath(prefix, path.relative_to(root).as_posix()).as_posix())


def _safe(name: str) -> str:
    """Valid UTF-8: bytes of a file's name that are not become ``\\udce9``."""
    return name.encode("utf-8", "backslashreplace").decode()


def _text(path: Path) -> str:
    return _safe(str(path))


def _add(listing: Listing, path: Path, root: Path, prefixes: dict[Path, str]) -> None:
    name = _name(path, root, prefixes[root])
    listing.sources.append(Source(path=path, name=name, root=root))


def _why_not(path: Path) -> str:
    """Reason why a file of a folder is no source; empty if it is one."""
    if path.name.startswith("."):
        return "hidden"
    suffix = path.suffix.lower()
    if suffix in ARCHIVES:
        return f"an archive ({suffix}): unpack it first"
    if suffix not in (*SUFFIXES, *VIDEO_SUFFIXES):
        return f"neither image nor video by its suffix ({suffix or 'it has none'})"
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError:  # missing, or not permitted: the run will say so
        return ""
    return "" if regular else "not a regular file"


class _Walk:
    """A walk through a root, its links to folders included, each folder once."""

    def __init__(self, root: Path, out: Path | None, listing: Listing, prefix: str):
        self.root = root
        self.out = None if out is None else Path(out).resolve()
        self.left_out = listing.left_out
        self.prefix = prefix
        self.entered: dict[Path, Path] = {}
        self.links: list[Path] = []

    def files(self) -> list[Path]:
        """All files, also hidden ones. Folders that are really here are entered before links."""
        paths = self._below(self.root)
        while self.links:
            link = self.links.pop(0)
            target = link.resolve()
            if self.out is not None and target.is_relative_to(self.out):
                self._leave_out(link, "a link to the folder of results")
            elif target in self.entered:
                again = self.entered[target].relative_to(self.root).as_posix()
                self._leave_out(link, f"a link to the folder {again}, which is read already")
            else:
                paths += self._below(link)
        return sorted(paths)

    def _below(self, top: Path) -> list[Path]:
        paths = []
        for parent, folders, names in os.walk(top, onerror=self._refused):
            here = Path(parent)
            real = here.resolve()
            if here != top and real in self.entered:
                self._leave_out(here, "a folder that is read already, by a link")
                folders.clear()
                continue
            self.entered[real] = here
            paths += [here / name for name in names]
            for name in sorted(folders):
                if name.startswith("."):
                    self._leave_out(here / name, "a hidden folder")
                    folders.remove(name)
                elif (here / name).is_symlink():
                    self.links.append(here / name)
                    folders.remove(name)
            folders.sort()
        return paths

    def _refused(self, error: OSError) -> None:
        if is_passing(error):
            raise not_read(Path(error.filename), error) from error
        self._leave_out(Path(error.filename), f"cannot be listed ({error.strerror})")

    def _leave_out(self, path: Path, reason: str) -> None:
        self.left_out[_name(path, self.root, self.prefix)] = reason


def output_names(names: Iterable[tuple[str, bool]], out: Path) -> dict[str, Path]:
    """Path of each source's crops below ``out`` without suffix: ``a/b.jpg`` -> ``a/b``. A video
    (True beside its name) keeps its whole name.

    An image does so, too, where another would take the same path, or that of one of its further
    faces. What is too long for a file system is shortened.
    """
    all_names = list(names)
    paths = {name: PurePosixPath(name) for name, _ in all_names}
    stems = Counter(paths[name].with_suffix("") for name, is_film in all_names if not is_film)
    numbered = set()
    for stem in stems:
        start, _, end = stem.name.rpartition("_")
        if end.isdigit():
            numbered.add(stem.with_name(start or "_"))

    outputs = {}
    for name, is_film in all_names:
        stem = paths[name].with_suffix("")
        plain = not is_film and stems[stem] == 1 and stem not in numbered
        outputs[name] = short_path(stem if plain else paths[name], out)
    return outputs
