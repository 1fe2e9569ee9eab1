"""From ordinary photographs and videos to aligned faces: a mirror tree of crops, with tables of
the faces of each.

Each image ``a/b.jpg`` becomes ``a/b.png``, further faces of it ``a/b_1.png``...; each frame of a
video ``a/c.mp4`` becomes ``a/c.mp4/000012.png``. ``faces.csv`` has a row for each face, for each
image or frame without one, and for each file that is left out. A run that was stopped goes on where
it was, in the middle of a video too, and memory does not grow.
"""

import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError, NorfaceError, StoppedError
from norface_lib.common.failures import check_readable, is_passing, not_read, reason_of, writing
from norface_lib.common.locks import only_process
from norface_lib.datasets.frames import VideoFrame, read_video
from norface_lib.images.crop import (
    ALIGNED,
    POINT_COLUMNS,
    align_face,
    crop_of,
    mark_crop,
    pixels_within,
)
from norface_lib.images.files import SMALLEST, decode, write_png
from norface_lib.photos.detection import Detector, Face, WholeImage
from norface_lib.photos.journal import (
    AlignmentJournal,
    Progress,
    Settings,
    crop_path,
    remove_alignment,
)
from norface_lib.photos.listing import Listing, Source, Sources, list_sources, output_names
from norface_lib.photos.statuses import (
    LEFT_OUT,
    NO_FACE,
    NOT_CHOSEN,
    TOO_SMALL,
    status_of,
)
from norface_lib.photos.tables import (
    BLENDSHAPES,
    BOX,
    FACES,
    KEY,
    POSE,
    write_blendshapes,
    write_faces,
)

Rows = list[dict[str, Any]]


def align_tree(
    source: Sources | Listing,
    out: Path,
    detector: Detector,
    *,
    size: int = 112,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    all_faces: bool = False,
    smallest: int = SMALLEST,
    overwrite: bool = False,
    mirrors: Sequence[Path] = (),
    progress: bool = True,
) -> Counter[str]:
    """Writes an aligned crop of ``size`` px for faces of images and videos, and the tables, to
    ``out``.

    ``source``: a file, a folder, a pattern, or several of them. ``all_faces``: every face, else the
    largest of each image or frame. ``every``: takes each k-th frame of a video; ``start``, ``end``:
    only those between these seconds. A face whose crop would be made of fewer than ``smallest``
    pixels along a side is listed, not written. ``overwrite``: deletes first what an earlier call
    made in ``out``. ``mirrors``: folders with a file for each crop, which is deleted with it.

    A call after an interruption goes on; a source that changed, or of which a crop is missing, is
    done anew, one that is no longer there leaves tables and folder. The tables hold what this call
    was asked for. A file that cannot be read or searched costs that file alone.

    Returns how many rows of ``faces.csv`` have which status. Raises :class:`DataError` for sources
    without images, an ``out`` inside them, that another process writes to, or that was made from
    another folder or with other settings, and
    :class:`norface_lib.common.errors.StoppedError` if the disk is full or fails.
    """
    out = Path(out)
    settings = Settings(
        detector=detector.name,
        levels=getattr(detector, "levels", None),
        size=size,
        every=every,
        start=start,
        end=end,
        all_faces=all_faces,
        smallest=smallest,
    )
    listing = source if isinstance(source, Listing) else list_sources(source, out)
    with only_process(out):
        if overwrite:
            remove_alignment(out, mirrors)
        with AlignmentJournal(out, settings, listing.roots, mirrors) as journal:
            mark_crop(out, settings.crop)
            run = _Run(listing=listing, journal=journal, detector=detector, settings=settings)
            try:
                run.align(progress)
            except BaseException:
                with suppress(NorfaceError, OSError):
                    run.write_tables()
                raise
            return run.write_tables()


@dataclass(kw_only=True)
class _Run:
    """All sources of a call on their way into the journal and the tables."""

    listing: Listing
    journal: AlignmentJournal
    detector: Detector
    settings: Settings

    def align(self, progress: bool) -> None:
        """Aligns all sources that are not done."""
        sources = self.listing.sources
        names = self._prepare(sources)
        lengths = self._lengths(sources) if progress else [1] * len(sources)
        in_frames = max(lengths) > 1
        bar = tqdm(
            desc=f"align {self.listing.title}",
            total=sum(lengths),
            unit="frame" if in_frames else "file",
            disable=not progress,
        )
        end = 0
        root = None
        with bar:
            for source, length in zip(sources, lengths, strict=True):
                if source.root != root and isinstance(self.detector, WholeImage):
                    root = source.root
                    self.detector.crop = crop_of(root)
                job = _Job(
                    source=source,
                    output=names[source.name],
                    detector=self.detector,
                    settings=self.settings,
                    journal=self.journal,
                )
                job.run(bar if in_frames else None)
                end += length
                bar.update(end - bar.n)

    def _prepare(self, sources: Sequence[Source]) -> dict[str, Path]:
        """Paths of the crops of each source; forgets sources that are no longer there, and those
        whose crops go by another path now."""
        journal = self.journal
        asked = {source.name: source.is_video for source in sources}
        kept = {name: progress.is_video for name, progress in journal.known.items()}
        for name in [name for name in kept if name not in asked and not journal.exists(name)]:
            journal.forget(name)
            del kept[name]

        outputs = output_names((kept | asked).items(), journal.out)
        for name in [*journal.known]:
            if journal.known[name].output != outputs[name].as_posix():
                journal.forget(name)
        return outputs

    def _lengths(self, sources: Sequence[Source]) -> list[int]:
        """Frames that each source has by its container's count, for an estimate of the time; 1 for
        each source if a video does not tell, or only a part of it is taken."""
        if self.settings.start or self.settings.end is not None:
            return [1] * len(sources)
        counts = [_frames_of(source) if source.is_video else 1 for source in sources]
        if not all(counts):
            return [1] * len(sources)
        every = [self.settings.every if source.is_video else 1 for source in sources]
        return [-(-count // step) for count, step in zip(counts, every, strict=True)]

    def write_tables(self) -> Counter[str]:
        """Writes the tables of what is done; counts the statuses."""
        out = self.journal.out
        names = [source.name for source in self.listing.sources]
        entries = self.journal.entries
        counts = write_faces(out / FACES, entries(names), self.listing.left_out)
        if self.detector.blendshapes:
            write_blendshapes(out / BLENDSHAPES, self.detector.blendshapes, entries(names))
        return counts


def _frames_of(source: Source) -> int:
    """Frames of a video by its own count, 0 if it tells none."""
    if not source.path.is_file():
        return 0
    return max(int(cv2.VideoCapture(str(source.path)).get(cv2.CAP_PROP_FRAME_COUNT)), 0)


@dataclass(kw_only=True)
class _Job:
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
        image = decode(path.read_bytes(), str(path))
        return self._faces(image, self.detector.detect(image))

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
