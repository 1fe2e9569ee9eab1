"""One image or video on its way through detection and alignment: what becomes of each face, and
what each kind of failure costs."""

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError, StoppedError
from norface_lib.common.failures import check_readable, is_passing, not_read, reason_of, writing
from norface_lib.images.crop import (
    ALIGNED,
    POINT_COLUMNS,
    align_face,
    pixels_within,
)
from norface_lib.images.files import decode, pages, write_png
from norface_lib.photos.detection import Detector, Face
from norface_lib.photos.journal import (
    AlignmentJournal,
    Progress,
    Settings,
    crop_path,
)
from norface_lib.photos.listing import Source
from norface_lib.photos.statuses import (
    LEFT_OUT,
    NO_FACE,
    NOT_CHOSEN,
    TOO_SMALL,
    status_of,
)
from norface_lib.photos.tables import (
    BOX,
    KEY,
    POSE,
)
from norface_lib.photos.videos import VideoFrame, read_video

Rows = list[dict[str, Any]]


@dataclass(kw_only=True)
class Job:
    """An image or a video on its way through detection and alignment into the journal."""

    source: Source
    output: Path
    detector: Detector
    settings: Settings
    journal: AlignmentJournal

    def run(self, bar: tqdm | None) -> None:
        """Aligns the faces that the journal does not hold yet. ``bar`` counts frames."""
        try:
            stamp = self._stamp()
        except (OSError, DataError) as error:
            self._begin([-1, -1])
            self.journal.log(self.source.name, rows=[self._failure(error)], shapes=[], done=True)
            return

        progress = self._begin(stamp)
        if progress.done:
            return
        try:
            rows, shapes = self._frames(progress, bar) if self.source.is_video else self._image()
        except StoppedError:
            raise
        except Exception as error:
            rows = [self._failure(error)]
            shapes = []
        self.journal.log(self.source.name, rows=rows, shapes=shapes, done=True)

    def _stamp(self) -> list[int]:
        """Size and time of the file. Raises ``OSError`` if it is not there."""
        state = self.source.path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise DataError(f"{self.source.path}: not a regular file")
        return [state.st_size, state.st_mtime_ns]

    def _begin(self, stamp: list[int]) -> Progress:
        """Progress of this very file; begins it anew if it changed, lacks a crop, or failed."""
        known = self.journal.known.get(self.source.name)
        if known and known.stamp == stamp and known.whole and not (known.done and known.again):
            return known
        return self.journal.begin(
            self.source.name,
            stamp=stamp,
            output=self.output.as_posix(),
            is_video=self.source.is_video,
        )

    def _image(self) -> tuple[Rows, list[Any]]:
        path = self.source.path
        data = path.read_bytes()
        image = decode(data, str(path))
        rows, shapes = self._faces(image, self.detector.detect(image))
        count = pages(data, str(path))
        if count > 1:
            rows[0].setdefault("error", f"only the first of its {count} pages was read")
        return rows, shapes

    def _frames(self, progress: Progress, bar: tqdm | None) -> tuple[Rows, list[Any]]:
        """Logs each frame; returns the rows that are left at the end."""
        path = self.source.path
        check_readable(path)
        try:
            for frame in self._chosen(progress.frame + 1):
                rows, shapes = self._frame(frame, progress)
                self.journal.log(self.source.name, frame=frame.position, rows=rows, shapes=shapes)
                progress.frame = frame.position
                if bar is not None:
                    bar.update()
        except DataError:
            check_readable(path, whole=True)
            raise
        if progress.frame < 0:
            return [{"status": LEFT_OUT, "error": "no frame between --start and --end"}], []
        return [], []

    def _chosen(self, first: int) -> Iterator[VideoFrame]:
        """Frames of a video from ``first`` on that the settings choose."""
        start = self.settings.start
        end = self.settings.end
        limited = start > 0 or end is not None
        for frame in read_video(self.source.path, every=self.settings.every, first=first):
            if limited and frame.time_s is None:
                raise DataError("the video tells no times; leave out --start and --end")
            if limited and frame.time_s < start:
                continue
            if end is not None and frame.time_s > end:
                return
            yield frame

    def _frame(self, frame: VideoFrame, progress: Progress) -> tuple[Rows, list[Any]]:
        """Rows of a frame, whose failure costs that frame alone."""
        key = {"frame": frame.position}
        if frame.time_s is not None:
            key["time_s"] = round(frame.time_s, 4)
        try:
            if frame.image is None:
                raise DataError("this frame cannot be decoded; download or convert the video again")
            faces = self.detector.detect(frame.image)
        except Exception as error:
            progress.tracker.number([])
            return [key | self._failure(error)], []
        tracks = progress.tracker.number([face.box for face in faces])
        return self._faces(frame.image, faces, key, tracks)

    def _faces(
        self,
        image: NDArray[np.uint8],
        faces: Sequence[Face],
        key: Mapping[str, Any] | None = None,
        tracks: Sequence[int] | None = None,
    ) -> tuple[Rows, list[Any]]:
        """Writes the crops of an image or a frame. Rows for ``faces.csv``, and those for
        ``blendshapes.csv``."""
        rows = []
        shapes = []
        for number, face in enumerate(faces):
            row = {**(key or {}), "face": number}
            if tracks is not None:
                row["track"] = tracks[number]
            row |= self._crop(image, face, number, row.get("frame"))
            row |= _described(face)
            rows.append(row)
            if face.blendshapes:
                place = [row.get(name, "") for name in KEY[1:]]
                shapes.append([*place, *(round(value, 4) for value in face.blendshapes.values())])
        return rows or [{**(key or {}), "status": NO_FACE}], shapes

    def _crop(
        self, image: NDArray[np.uint8], face: Face, number: int, frame: int | None
    ) -> dict[str, str]:
        """Status of a face, and the path of its crop if it is written."""
        if number and not self.settings.all_faces:
            return {"status": NOT_CHOSEN}
        crop = self.settings.crop
        try:
            if pixels_within(face.points, crop) < self.settings.smallest:
                return {"status": TOO_SMALL}
            aligned = align_face(image, face.points, crop, self.settings.size)
        except Exception as error:
            return self._failure(error)

        path = crop_path(self.output if frame is None else self.output / f"{frame:06d}", number)
        with writing(self.journal.out / path):
            write_png(self.journal.out / path, aligned)
        return {"status": ALIGNED, "output": path.as_posix()}

    def _failure(self, error: Exception) -> dict[str, str]:
        """Status of what could not be read or searched. Raises :class:`StoppedError` if another
        attempt may succeed."""
        if is_passing(error):
            raise not_read(self.source.path, error) from error
        return {"status": status_of(error), "error": reason_of(error, self.source.path)}


def _described(face: Face) -> dict[str, Any]:
    """Score, turn, box, points and pose of a face, as tables have them."""
    row = {"score": round(face.score, 4), "turn": face.turn}
    row.update(zip(BOX, _rounded(face.box), strict=True))
    row.update(zip(POINT_COLUMNS, _rounded(face.points.ravel()), strict=True))
    if face.pose is not None:
        row.update(zip(POSE, _rounded(face.pose), strict=True))
    return row


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 2) for value in values]
