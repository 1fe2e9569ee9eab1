"""From ordinary photographs and videos to aligned faces: a mirror tree of crops, with tables of
what was found where.

Each image ``a/b.jpg`` becomes ``a/b.png``, further faces of it ``a/b_1.png``...; each frame of a
video ``a/c.mp4`` becomes ``a/c.mp4/000012.png``. ``faces.csv`` has a line for each face and for
each image or frame without one. A journal beside it grows line by line, so that a run that was
stopped goes on where it was, in the middle of a video too, and memory does not grow.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.datasets.frames import VIDEO_SUFFIXES, read_video
from norface_lib.images.crop import (
    ALIGNED,
    NORFACE_CROP,
    POINT_COLUMNS,
    Crop,
    align_face,
    crop_of,
    mark_crop,
    overlap,
    pixels_within,
)
from norface_lib.images.files import SMALLEST, SUFFIXES, decode
from norface_lib.photos.detection import Detector, Face, WholeImage

FACES, BLENDSHAPES, JOURNAL = "faces.csv", "blendshapes.csv", ".align.jsonl"

COLUMNS = (
    *("source", "frame", "face", "track", "status", "output", "score", "x0", "y0", "x1", "y1"),
    *POINT_COLUMNS,
    "error",
)
"""Of ``faces.csv``. Box and points are in pixels of the source, counted from its corner; left is
the image's left."""

NO_FACE, TOO_SMALL, NOT_CHOSEN, UNREADABLE = "no face", "too small", "not the largest", "unreadable"
"""Values of the column ``status``."""


@dataclass(frozen=True)
class Settings:
    """How faces are aligned. ``size``: pixels of a crop; ``every``: which frames of a video;
    ``smallest``: see `align_tree`."""

    detector: str
    size: int = 112
    every: int = 1
    all_faces: bool = False
    smallest: int = SMALLEST
    crop: Crop = NORFACE_CROP

    def __post_init__(self):
        if self.size < SMALLEST or self.every < 1:
            raise DataError(
                f"size must be at least {SMALLEST} and every at least 1, not {self.size} and "
                f"{self.every}"
            )

    def as_dict(self) -> dict[str, Any]:
        """For the journal's first line."""
        return {**self.__dict__, "crop": [list(point) for point in self.crop.points]}


class Tracker:
    """Numbers the faces of a video: one whose box overlaps a face of the last few frames is the
    same, any other is new.

    ``least``: intersection over union that it takes; ``patience``: frames, of those looked at, that
    a face may be away.
    """

    def __init__(self, least: float = 0.3, patience: int = 10):
        self.least, self.patience, self.next = least, patience, 0
        self.frames = 0
        self.known: dict[int, tuple[NDArray[np.float64], int]] = {}

    def number(self, boxes: Sequence[NDArray]) -> list[int]:
        """Track numbers of the boxes (4,) of the next frame; the pairs that overlap most are
        matched first."""
        self.frames += 1
        self.known = {
            track: known
            for track, known in self.known.items()
            if self.frames - known[1] <= self.patience
        }
        tracks = list(self.known)
        places = np.array([self.known[track][0] for track in tracks]).reshape(-1, 4)
        shared = np.array([overlap(box, places) for box in boxes]).reshape(len(boxes), len(tracks))
        found: list[int | None] = [None] * len(boxes)
        while shared.size and shared.max() >= self.least:
            face, track = np.unravel_index(shared.argmax(), shared.shape)
            found[face] = tracks[track]
            shared[face], shared[:, track] = -1, -1
        for face, track in enumerate(found):
            if track is None:
                found[face] = self.next
                self.next += 1
            self.known[found[face]] = boxes[face], self.frames
        return found

    def restore(self, boxes: Sequence[NDArray], tracks: Sequence[int]) -> None:
        """Takes a frame as it was numbered before."""
        self.frames += 1
        self.known |= {track: (box, self.frames) for track, box in zip(tracks, boxes, strict=True)}
        self.next = max([self.next, *(track + 1 for track in tracks)])


@dataclass
class _Progress:
    """What the journal says of a source: the file it was, whether it is finished, its last frame,
    the tracks of a video."""

    stamp: list[int]
    start: int  # line of the journal from which on it counts
    done: bool = False
    frame: int = -1
    whole: bool = True  # all of its crops are there
    outputs: list[str] = field(default_factory=list)  # of an image
    tracker: Tracker = field(default_factory=Tracker)


def align_tree(
    source: Path,
    out: Path,
    detector: Detector,
    size: int = 112,
    every: int = 1,
    all_faces: bool = False,
    smallest: int = SMALLEST,
    progress: bool = True,
) -> Counter[str]:
    """Writes an aligned crop of ``size`` px for faces of every image and video under ``source``,
    and the tables, to ``out``.

    ``all_faces``: every face, else the largest of each image or frame. ``every``: takes each k-th
    frame of a video. A face whose crop would be made of fewer than ``smallest`` pixels along a side
    is listed, not written. A call after an interruption goes on; a source that changed, or of which
    a crop is missing, is done anew.

    Returns how many lines of ``faces.csv`` have which status, and how many ``other files`` there
    were. Raises :class:`DataError` for a folder without images, an ``out`` inside it, and an
    ``out`` that other settings have made.
    """
    source, out = Path(source), Path(out)
    settings = Settings(detector.name, size, every, all_faces, smallest)
    if isinstance(detector, WholeImage):
        detector.crop = crop_of(source)
    sources, others = list_sources(source)
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"{out}: lies inside {source}, and would be taken for a part of it; choose another "
            "folder"
        )
    known = _open_journal(out, settings)
    mark_crop(out, settings.crop)
    names = _names(sources)
    try:
        with (out / JOURNAL).open("a", encoding="utf-8") as journal:
            bar = tqdm(sources, desc=f"align {source.name}", unit="file", disable=not progress)
            for path in bar:
                _Job(source, path, out, names[path], detector, settings, journal).run(
                    known.get(path.as_posix()), bar
                )
    finally:
        counts = _write_tables(out, detector.blendshapes)
    return counts + Counter({"other files": others} if others else {})


def list_sources(root: Path) -> tuple[list[Path], int]:
    """Images and videos under a folder, relative to it and sorted, and how many other files lie
    there.

    Hidden files are no sources. Raises :class:`DataError` for a folder that is missing or holds
    neither.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    inside = (path.relative_to(root) for path in root.rglob("*"))
    files = sorted(
        path
        for path in inside
        if not any(part.startswith(".") for part in path.parts) and (root / path).is_file()
    )
    wanted = [path for path in files if path.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES)]
    if not wanted:
        raise DataError(
            f"{root}: holds no image ({', '.join(SUFFIXES)}) and no video "
            f"({', '.join(VIDEO_SUFFIXES)})"
        )
    return wanted, len(files) - len(wanted)


def _names(sources: Sequence[Path]) -> dict[Path, Path]:
    """Where a source's crops go: ``a/b.jpg`` -> ``a/b``, to which suffixes are added. A video keeps
    its whole name.

    An image does so, too, where another would take the same name, or that of one of its further
    faces.
    """
    stems = Counter(path.with_suffix("") for path in sources if not _is_video(path))
    numbered = {
        stem.with_name(stem.name.rpartition("_")[0] or "_")
        for stem in stems
        if stem.name.rpartition("_")[2].isdigit()
    }
    plain = {stem for stem, count in stems.items() if count == 1 and stem not in numbered}
    return {
        path: path.with_suffix("")
        if path.with_suffix("") in plain and not _is_video(path)
        else path
        for path in sources
    }


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


# --- one source -----------------------------------------------------------------------------------


@dataclass
class _Job:
    """An image or a video on its way through detection and alignment into the journal."""

    root: Path
    path: Path
    out: Path
    name: Path
    detector: Detector
    settings: Settings
    journal: TextIO

    def run(self, known: _Progress | None, bar: tqdm) -> None:
        state = (self.root / self.path).stat()
        stamp = [state.st_size, state.st_mtime_ns]
        same = known is not None and known.stamp == stamp and known.whole
        if same and known.done:
            return
        if not same:
            self._clear(known)
            self._log(stamp=stamp)
            known = _Progress(stamp, 0)
        if _is_video(self.path):
            self._video(known, bar)
        else:
            self._image()

    def _clear(self, known: _Progress | None) -> None:
        """Deletes what an earlier version of this source left."""
        if known:
            folder = self.out / self.name
            for path in (
                folder.glob("*.png")
                if _is_video(self.path)
                else map(self.out.joinpath, known.outputs)
            ):
                path.unlink(missing_ok=True)

    def _image(self) -> None:
        try:
            path = self.root / self.path
            image = decode(path.read_bytes(), str(path))
            rows, shapes = self._faces(image, self.detector.detect(image), "", None)
        except (DataError, OSError) as error:
            rows, shapes = [self._failure(error)], []
        self._log(rows=rows, shapes=shapes, done=True)

    def _video(self, known: _Progress, bar: tqdm) -> None:
        rows = []
        try:
            for position, image in read_video(
                self.root / self.path, self.settings.every, known.frame + 1
            ):
                bar.set_postfix(frame=position)
                faces = self.detector.detect(image)
                tracks = known.tracker.number([face.box for face in faces])
                found, shapes = self._faces(image, faces, position, tracks)
                self._log(frame=position, rows=found, shapes=shapes)
        except (DataError, OSError) as error:
            rows = [self._failure(error)]
        bar.set_postfix()
        self._log(rows=rows, shapes=[], done=True)

    def _faces(
        self,
        image: NDArray[np.uint8],
        faces: list[Face],
        frame: int | str,
        tracks: list[int] | None,
    ):
        """Writes the crops of an image or a frame. Rows for ``faces.csv``, and those for
        ``blendshapes.csv``."""
        rows, shapes = [], []
        for number, face in enumerate(faces):
            key = {
                "source": self.path.as_posix(),
                "frame": frame,
                "face": number,
                "track": tracks[number] if tracks else "",
            }
            status, output = self._crop(image, face, number, frame)
            box = dict(zip(("x0", "y0", "x1", "y1"), _rounded(face.box), strict=True))
            points = dict(zip(POINT_COLUMNS, _rounded(face.points.ravel()), strict=True))
            rows.append(
                {
                    **key,
                    "status": status,
                    "output": output,
                    "score": round(face.score, 4),
                    **box,
                    **points,
                }
            )
            if face.blendshapes:
                shapes.append(
                    [*key.values(), *(round(value, 4) for value in face.blendshapes.values())]
                )
        return rows or [{"source": self.path.as_posix(), "frame": frame, "status": NO_FACE}], shapes

    def _crop(
        self, image: NDArray[np.uint8], face: Face, number: int, frame: int | str
    ) -> tuple[str, str]:
        """Status of a face, and the path of its crop if it is written."""
        if number and not self.settings.all_faces:
            return NOT_CHOSEN, ""
        size, crop = self.settings.size, self.settings.crop
        if pixels_within(face.points, crop) < self.settings.smallest:
            return TOO_SMALL, ""
        name = self.name if frame == "" else self.name / f"{frame:06d}"
        path = name.with_name(name.name + (f"_{number}" if number else "") + ".png")
        data = cv2.imencode(".png", align_face(image, face.points, crop, size)[..., ::-1])[
            1
        ].tobytes()
        write_atomically(self.out / path, lambda part: part.write_bytes(data))
        return ALIGNED, path.as_posix()

    def _failure(self, error: Exception) -> dict[str, Any]:
        reason = str(error).replace(f"{self.root / self.path}: ", "")
        return {"source": self.path.as_posix(), "status": UNREADABLE, "error": reason}

    def _log(self, **entry: Any) -> None:
        self.journal.write(json.dumps({"source": self.path.as_posix(), **entry}) + "\n")
        self.journal.flush()


def _rounded(values: NDArray) -> list[float]:
    return [round(float(value), 2) for value in values]


# --- the journal and the tables -------------------------------------------------------------------


def _open_journal(out: Path, settings: Settings) -> dict[str, _Progress]:
    """What an earlier call did, by source; begins a journal if there is none.

    The half line of a call that was killed is cut off. Raises :class:`DataError` for a journal of
    other settings.
    """
    path = out / JOURNAL
    if not path.exists():
        text = json.dumps({"settings": settings.as_dict()}) + "\n"
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
        return {}
    known: dict[str, _Progress] = {}
    end = 0
    for number, entry, position in _entries(path):
        end = position
        if number == 0:
            _check_settings(entry, settings, path)
        else:
            _replay(known, number, entry, out)
    with path.open("r+b") as file:
        file.truncate(end)
    return known


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Whole lines of a journal: number, content, and the position behind them."""
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                yield number, json.loads(line), end
            except ValueError as error:
                raise DataError(
                    f"{path}: line {number + 1} is damaged; delete the folder, and align again"
                ) from error


def _check_settings(entry: dict[str, Any], settings: Settings, path: Path) -> None:
    before, now = entry.get("settings", {}), settings.as_dict()
    if before != now:
        changed = ", ".join(
            f"{key} {before.get(key)}, not {now[key]}" for key in now if before.get(key) != now[key]
        )
        raise DataError(
            f"{path.parent}: was aligned with other settings ({changed}); choose another folder or "
            "delete this one"
        )


def _replay(known: dict[str, _Progress], number: int, entry: dict[str, Any], out: Path) -> None:
    source = entry["source"]
    if "stamp" in entry:
        known[source] = _Progress(entry["stamp"], number)
        return
    at = known[source]
    outputs = [row["output"] for row in entry["rows"] if row.get("output")]
    at.whole &= all((out / output).is_file() for output in outputs)
    at.done = entry.get("done", False)
    if "frame" in entry:
        at.frame = entry["frame"]
        faces = [row for row in entry["rows"] if row["status"] != NO_FACE]
        at.tracker.restore(
            [np.array([row[k] for k in ("x0", "y0", "x1", "y1")]) for row in faces],
            [row["track"] for row in faces],
        )
    else:
        at.outputs = outputs


def _write_tables(out: Path, shapes: Sequence[str]) -> Counter[str]:
    """Turns the journal into ``faces.csv`` and, if the detector knows them, ``blendshapes.csv``.
    Counts the statuses."""
    path = out / JOURNAL
    last = {entry["source"]: number for number, entry, _ in _entries(path) if "stamp" in entry}
    counts: Counter[str] = Counter()

    def valid(kind: str) -> Iterator[Any]:
        for number, entry, _ in _entries(path):
            if number and number > last[entry["source"]]:
                yield from entry.get(kind, [])

    def write_faces(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            for row in valid("rows"):
                counts[row["status"]] += 1
                writer.writerow(row)

    def write_shapes(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("source", "frame", "face", "track", *shapes))
            writer.writerows(valid("shapes"))

    write_atomically(out / FACES, write_faces)
    if shapes:
        write_atomically(out / BLENDSHAPES, write_shapes)
    return counts
