"""The journal of an alignment, which grows line by line so that a stopped run goes on where it was.

Its first line names the settings and the folders of the sources. A source begins with a line that
holds its stamp (size and time of the file) and the path of its crops; a line for each frame of a
video follows, and a last one that says that it is done.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from norface_lib.common.errors import DataError
from norface_lib.common.failures import writing
from norface_lib.common.files import remove_empty
from norface_lib.common.journal import Journal, Line, read_lines
from norface_lib.common.paths import inside
from norface_lib.images.crop import NORFACE_CROP, Crop
from norface_lib.images.files import SMALLEST
from norface_lib.photos.statuses import TRIED_AGAIN
from norface_lib.photos.tables import BLENDSHAPES, BOX, FACES
from norface_lib.photos.tracking import Tracker

JOURNAL = ".align.jsonl"

_VERSION = 2
"""Of the journal's lines; one of another version is begun anew."""

_FRAME_CROP = re.compile(r"\d{6,}(_\d+)?\.png")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Choices of an alignment. ``levels``: how far the detector searches for small faces, None if
    the image decides, or there are no levels; ``size``: pixels of a crop; ``every``: which frames
    of a video; ``start`` and ``end``: seconds of a video between which frames are taken;
    ``smallest``: see `norface_lib.photos.folders.align_tree`."""

    detector: str
    levels: int | None = None
    size: int = 112
    every: int = 1
    start: float = 0.0
    end: float | None = None
    all_faces: bool = False
    smallest: int = SMALLEST
    crop: Crop = NORFACE_CROP

    def __post_init__(self):
        if self.size < SMALLEST or self.every < 1:
            raise DataError(
                f"size must be at least {SMALLEST} and every at least 1, not {self.size} and "
                f"{self.every}"
            )
        if self.start < 0 or (self.end is not None and self.end < self.start):
            raise DataError(
                f"start must be at least 0 and end at least start, not {self.start} and {self.end}"
            )

    def as_dict(self) -> dict[str, Any]:
        """For the journal's first line."""
        crop = [list(point) for point in self.crop.points]
        return {**self.__dict__, "crop": crop, "version": _VERSION}


@dataclass
class Progress:
    """State of a source by the journal: the file it was, the path of its crops, whether it is
    finished, holds what is tried again, its last frame, and the tracks of a video."""

    stamp: list[int]
    output: str
    is_video: bool
    spans: list[list[int]] = field(default_factory=list)  # bytes of the journal with its rows
    done: bool = False
    again: bool = False
    frame: int = -1
    whole: bool = True  # all of its crops are there
    outputs: list[str] = field(default_factory=list)  # of an image
    tracker: Tracker = field(default_factory=Tracker)


class AlignmentJournal:
    """Progress of each source by its name, kept in a file.

    ``roots``: folders of the sources by the prefix of their names. ``mirrors``: folders with a file
    for each crop, which is deleted with it. Raises :class:`DataError` for a journal of other
    settings or roots.
    """

    def __init__(
        self, out: Path, settings: Settings, roots: dict[str, str], mirrors: Sequence[Path] = ()
    ):
        self.out = out
        self.path = out / JOURNAL
        self.roots = roots
        self.mirrors = mirrors
        self.known: dict[str, Progress] = {}
        head = {"settings": settings.as_dict(), "roots": roots}
        end = self._replay(head)
        with writing(self.path):
            self._journal = Journal(self.path, end)
        if end == 0:
            self._journal.append(head)

    def __enter__(self) -> "AlignmentJournal":
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.__exit__()

    def _replay(self, head: dict[str, Any]) -> int:
        """Takes the lines of an earlier call; returns the bytes that are whole."""
        end = 0
        if self.path.exists():
            for line in read_lines(self.path):
                if line.start == 0:
                    _check_same(line.entry, head, self.out)
                else:
                    self._take(line)
                end = line.end
        return end

    def _take(self, line: Line) -> None:
        entry = line.entry
        name = entry["source"]
        if "gone" in entry:
            self.known.pop(name, None)
            return
        if "stamp" in entry:
            inside(self.out, entry["output"])
            self.known[name] = Progress(entry["stamp"], entry["output"], entry["is_video"])
            return

        progress = self.known[name]
        _extend(progress.spans, line)
        outputs = [row["output"] for row in entry["rows"] if row.get("output")]
        # crops that are no longer wanted are deleted by these names
        if not all(inside(self.out, output).is_file() for output in outputs):
            progress.whole = False
        if any(row["status"] in TRIED_AGAIN for row in entry["rows"]):
            progress.again = True
        progress.done = entry.get("done", False)
        if "frame" in entry:
            progress.frame = entry["frame"]
            faces = [row for row in entry["rows"] if "x0" in row]
            boxes = [np.array([row[name] for name in BOX]) for row in faces]
            progress.tracker.restore(boxes, [row["track"] for row in faces])
        elif not progress.is_video:
            progress.outputs = outputs

    def check_free(self, output: str, is_video: bool) -> None:
        """Raises :class:`DataError` if a crop of a source that is not known would overwrite a
        file."""
        for path in _crops(Progress([], output, is_video), self.out):
            if path.exists():
                raise DataError(
                    f"{path}: is there already, and no earlier call made it; choose another folder"
                )

    def begin(self, name: str, *, stamp: list[int], output: str, is_video: bool) -> Progress:
        """Begins a source anew: deletes the crops that an earlier version of it left."""
        self.clear(name)
        self._journal.append(
            {"source": name, "stamp": stamp, "output": output, "is_video": is_video}
        )
        self.known[name] = Progress(stamp, output, is_video)
        return self.known[name]

    def log(self, name: str, **entry: Any) -> None:
        """Appends rows of a source, of one frame if ``frame`` is among them."""
        line = self._journal.append({"source": name, **entry})
        _extend(self.known[name].spans, line)

    def forget(self, name: str) -> None:
        """Deletes the crops of a source, and its rows."""
        self.clear(name)
        self._journal.append({"source": name, "gone": True})
        del self.known[name]

    def clear(self, name: str) -> None:
        """Deletes the crops of a source, and what mirrors them."""
        if progress := self.known.get(name):
            _delete_crops(progress, self.out, self.mirrors)

    def exists(self, name: str) -> bool:
        """True if the file of a source that the journal knows is still there."""
        for prefix, root in self.roots.items():
            if not prefix or name.startswith(f"{prefix}/"):
                return Path(root, name[len(prefix) + bool(prefix) :]).exists()
        return False

    def entries(self, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Lines with rows of some sources, in this order."""
        for name in names:
            if name in self.known:
                for start, end in self.known[name].spans:
                    for line in read_lines(self.path, start, end):
                        yield name, line.entry


def _extend(spans: list[list[int]], line: Line) -> None:
    if spans and spans[-1][1] == line.start:
        spans[-1][1] = line.end
    else:
        spans.append([line.start, line.end])


def _check_same(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Raises unless a journal was begun with the same settings and roots."""
    cure = "choose another folder, or start anew with --overwrite"
    old = before.get("settings", {})
    new = now["settings"]
    if old.get("version") != new["version"]:
        raise DataError(f"{out}: was aligned by an earlier version of norface; {cure}")
    if before["roots"] != now["roots"]:
        raise DataError(
            f"{out}: holds the faces of {', '.join(before['roots'].values())}, not of "
            f"{', '.join(now['roots'].values())}; {cure}"
        )
    if old != new:
        changed = [
            f"{key} {old.get(key)}, not {new[key]}" for key in new if old.get(key) != new[key]
        ]
        raise DataError(f"{out}: was aligned with other settings ({', '.join(changed)}); {cure}")


def _delete_crops(progress: Progress, out: Path, mirrors: Sequence[Path]) -> None:
    for folder in (out, *mirrors):
        for path in _crops(progress, folder):
            path.unlink(missing_ok=True)
            remove_empty(path.parent, folder)


def _crops(progress: Progress, folder: Path) -> list[Path]:
    """Crops of a source in a folder, those that were written just before a kill among them."""
    target = folder / progress.output
    if progress.is_video:
        inside = target.iterdir() if target.is_dir() else ()
        return [path for path in inside if _FRAME_CROP.fullmatch(path.name)]
    if progress.done:
        return [folder / output for output in progress.outputs]
    paths = [crop_path(target, 0)]
    while paths[-1].exists():
        paths.append(crop_path(target, len(paths)))
    return paths


def crop_path(output: Path, number: int) -> Path:
    """File of a face's crop: ``a/b.png`` for the largest, ``a/b_1.png`` for the next."""
    return output.with_name(output.name + (f"_{number}" if number else "") + ".png")


def remove_alignment(out: Path, mirrors: Sequence[Path] = ()) -> None:
    """Deletes what an alignment made in a folder, and nothing else: its crops, tables and
    journal."""
    path = out / JOURNAL
    if not path.exists():
        return
    known: dict[str, Progress] = {}
    try:
        for line in read_lines(path):
            _note_crops(known, line.entry, out, mirrors)
    except (DataError, KeyError):  # damaged from here on
        pass
    for progress in known.values():
        _delete_crops(progress, out, mirrors)
    for name in (FACES, BLENDSHAPES, "crop.json", JOURNAL):
        (out / name).unlink(missing_ok=True)


def _note_crops(
    known: dict[str, Progress], entry: dict[str, Any], out: Path, mirrors: Sequence[Path]
) -> None:
    name = entry.get("source")
    if name is None:
        return
    if "stamp" in entry:
        inside(out, entry["output"])
        known[name] = Progress(entry["stamp"], entry["output"], entry["is_video"])
    elif entry.get("done") and name in known:
        known[name].done = True
        outputs = [row["output"] for row in entry["rows"] if row.get("output")]
        for output in outputs:
            inside(out, output)
        known[name].outputs = outputs
