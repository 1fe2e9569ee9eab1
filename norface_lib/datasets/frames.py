"""Frames of a dataset wherever they lie: image files, images inside a zip, and videos.

A frame is named by its path relative to the dataset's root: ``F001/T1/12.jpg``;
``2D+3D/F001.zip!F001/T1/12.jpg`` inside a zip; ``Videos/F001_T1.mp4#11`` for the twelfth frame of a
video (positions count from 0).
"""

import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.common.paths import leaves_folder
from norface_lib.datasets.listing import VIDEO_SUFFIXES, kind_of
from norface_lib.datasets.report import Report
from norface_lib.images.files import SUFFIXES, decode

IN_ZIP = re.compile(r"(?P<file>.+?\.zip)!(?P<entry>.+)", re.IGNORECASE)
IN_VIDEO = re.compile(
    rf"(?P<file>.+({'|'.join(map(re.escape, VIDEO_SUFFIXES))}))#(?P<position>\d+)", re.IGNORECASE
)
"""Names of a frame in a zip (``a.zip!b/c.jpg``) and of one in a video (``a.avi#12``)."""

_SKIP_AHEAD = 64
"""Frames of a video that are decoded and thrown away rather than sought: a seek goes back to the
last key frame anyway."""

LARGEST_IMAGE = 2**28
"""Bytes of an encoded image, in a zip or on disk, above which it is not read: no camera writes one,
and a zip of a few kilobytes can claim a thousand times as much."""


def leaves_dataset(path: str) -> bool:
    """True for a name of a frame that may lead out of the dataset's root, or out of its zip."""
    if match := IN_ZIP.fullmatch(path):
        return leaves_folder(match["file"]) or leaves_folder(match["entry"])
    return leaves_folder(path)


_NUMBERED = re.compile(r"(?P<beginning>(?:.*[^0-9])?)(?P<number>[0-9]+)", re.DOTALL)


def numbered(paths: Iterable[str], report: Report) -> dict[int, str]:
    """Images of one folder by the integer that their name is, whatever its padding: ``0012.jpg`` is
    frame 12. If no name is a bare number, by that at their ends, where one beginning is common to
    all that have one: ``frame_12.jpg``. Others are passed over; a folder without any such image is
    noted."""
    images = [path for path in sorted(paths) if path.lower().endswith(SUFFIXES)]
    by_beginning: dict[str, dict[int, str]] = {}
    for path in images:
        if match := _NUMBERED.fullmatch(os.path.splitext(path.rsplit("/", 1)[-1])[0]):
            frames = by_beginning.setdefault(match["beginning"], {})
            frames.setdefault(int(match["number"]), path)
    if "" in by_beginning:
        return by_beginning[""]
    if len(by_beginning) == 1:
        return next(iter(by_beginning.values()))
    report.note(
        "folder of images whose names are no frame numbers, as 12.jpg or frame_12.jpg are",
        images[0] if images else "",
        bool(images),
    )
    return {}


def zip_frames(root: Path, file: Path, sequence: str, report: Report) -> dict[str, dict[int, str]]:
    """Images of a zip by sequence and frame number. ``sequence`` is a pattern that the entry's
    folder matches. Entries whose name leads out of the zip are dropped, others that are not used
    are counted.

    Raises :class:`DataError` for a damaged zip.
    """
    entries: dict[str, list[str]] = {}
    names = [name for name in _open_zip(root / file).namelist() if not name.endswith("/")]
    for entry in names:
        folder = entry.rsplit("/", 2)[-2] if "/" in entry else ""
        if leaves_folder(entry):
            report.drop("entry of a zip whose name leads out of it", f"{file.as_posix()}!{entry}")
        elif re.fullmatch(sequence, folder, re.IGNORECASE):
            entries.setdefault(folder.upper(), []).append(f"{file.as_posix()}!{entry}")
        else:
            _leave_entry(report, f"{file.as_posix()}!{entry}")
    sequences = {name: numbered(paths, report) for name, paths in entries.items()}
    for name, paths in entries.items():
        for path in sorted(set(paths).difference(sequences[name].values())):
            _leave_entry(report, path)
    return sequences


def _leave_entry(report: Report, path: str) -> None:
    name = path.rsplit("/", 1)[-1]
    if not name.startswith("."):
        report.leave(f"{kind_of(name)} in a zip", path)


def video_frames(root: Path, file: Path) -> dict[int, str]:
    """All frames of a video by their position, from 0 on. Raises :class:`DataError`."""
    count = int(_open_video(root / file).get(cv2.CAP_PROP_FRAME_COUNT))
    if count <= 0:
        raise DataError(f"{root / file}: holds no frame; download it again")
    return {position: f"{file.as_posix()}#{position}" for position in range(count)}


_BAD_ZIP = (OSError, zipfile.BadZipFile, ValueError, RuntimeError, EOFError, OverflowError)
"""What `zipfile` raises for a damaged zip; one with a password, or an unknown compression, is a
``RuntimeError``."""


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _BAD_ZIP as error:
        raise DataError(
            f"{path}: not a readable zip ({error}); download it again, or delete it to do without"
        ) from error


def _open_video(path: Path) -> cv2.VideoCapture:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise DataError(
            f"{path}: not a readable video (missing, damaged or of an unknown codec); download or "
            "convert it again"
        )
    return video


class _Video:
    """A video that is read from front to back, and sought only where a frame is asked for out of
    order."""

    def __init__(self, path: Path):
        self.path = path
        self.video = _open_video(path)
        self.position = 0

    def read(self, position: int) -> NDArray[np.uint8] | None:
        """Frame ``position`` as (H, W, 3) RGB; None if it cannot be decoded."""
        if not 0 <= position - self.position <= _SKIP_AHEAD:
            self._seek(position)
        while self.position < position and self.video.grab():
            self.position += 1
        good, frame = self.video.read()
        if self.position != position or not good:
            self.position = -_SKIP_AHEAD - 1  # unknown: the next call seeks
            return None
        self.position += 1
        return np.ascontiguousarray(frame[..., ::-1])

    def _seek(self, position: int) -> None:
        self.video.set(cv2.CAP_PROP_POS_FRAMES, position)
        if self.video.get(cv2.CAP_PROP_POS_FRAMES) == position:
            self.position = position
        else:  # some containers cannot be sought exactly: read from the start instead
            self.video = _open_video(self.path)
            self.position = 0


def unreadable(name: str) -> DataError:
    """The error of a frame that is there but cannot be read."""
    return DataError(
        f"{name}: unreadable frame (missing, truncated or damaged); restore it, or drop it with "
        "check()"
    )


_INHERITED: list[Any] = []
"""Videos that a forked process got from its parent. They are never closed there: that would wait
for threads it has not."""


class FrameReader:
    """Reads frames by their names in an index; keeps a few zips and videos open.

    It may be copied, pickled and forked: each process opens its own files, as two must not share a
    position in one. What is unpickled is the one reader that a process has for a root, so that a
    worker does not open the same file for each of its tasks.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        # the directory of a zip may take 20 MB
        self._zip: Callable[[Path], Any] = lru_cache(maxsize=8)(_open_zip)
        self._video: Callable[[Path], Any] = lru_cache(maxsize=4)(_Video)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reader_of, (self.root,)

    def __call__(self, path: str) -> NDArray[np.uint8]:
        """The frame (H, W, 3) of 8 bits, RGB. Raises :class:`DataError`, naming it, if it is
        missing or unreadable."""
        if self._process != os.getpid():
            _INHERITED.append(self._video)
            self._open()
        name = str(self.root / path)
        if match := IN_VIDEO.fullmatch(path):
            frame = self._video(self.root / match["file"]).read(int(match["position"]))
            if frame is None:
                raise unreadable(name)
            return frame
        data = self._bytes(path, name)
        try:
            return decode(data, name)
        except DataError as error:
            raise unreadable(name) from error

    def _bytes(self, path: str, name: str) -> bytes:
        """An encoded image, at most ``LARGEST_IMAGE`` of it."""
        try:
            if match := IN_ZIP.fullmatch(path):
                archive = self._zip(self.root / match["file"])
                size = archive.getinfo(match["entry"]).file_size
                source = archive.open(match["entry"])
            else:
                source = (self.root / path).open("rb")
                size = os.fstat(source.fileno()).st_size
            with source:
                data = source.read(LARGEST_IMAGE + 1) if size <= LARGEST_IMAGE else b""
        except (*_BAD_ZIP, KeyError, zlib.error, lzma.LZMAError) as error:
            raise unreadable(name) from error
        if size > LARGEST_IMAGE or len(data) > LARGEST_IMAGE:
            raise DataError(
                f"{name}: unreadable frame (more than {LARGEST_IMAGE // 2**20} MB, too large for "
                "an image); drop it with check()"
            )
        return data


@lru_cache(maxsize=4)
def _reader_of(root: Path) -> FrameReader:
    return FrameReader(root)
