"""From ordinary photographs and videos to aligned faces: a mirror tree of crops, with tables of
the faces of each.

Each image ``a/b.jpg`` becomes ``a/b.png``, further faces of it ``a/b_1.png``...; each frame of a
video ``a/c.mp4`` becomes ``a/c.mp4/000012.png``. ``faces.csv`` has a line for each face and for
each image or frame without one. A run that was stopped goes on where it was, in the middle of a
video too, and memory does not grow.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError
from norface_lib.images.crop import (
    ALIGNED,
    POINT_COLUMNS,
    align_face,
    crop_of,
    mark_crop,
    pixels_within,
)
from norface_lib.images.files import SMALLEST, SUFFIXES, decode, write_png
from norface_lib.photos.detection import Detector, Face, WholeImage
from norface_lib.photos.journal import (
    BOX,
    JOURNAL,
    KEY,
    NO_FACE,
    NOT_CHOSEN,
    TOO_SMALL,
    UNREADABLE,
    Progress,
    Settings,
    open_journal,
    write_tables,
)
from norface_lib.photos.videos import VIDEO_SUFFIXES, read_video


def align_tree(
    source: Path,
    out: Path,
    detector: Detector,
    *,
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
    settings = Settings(
        detector=detector.name, size=size, every=every, all_faces=all_faces, smallest=smallest
    )
    if isinstance(detector, WholeImage):
        detector.crop = crop_of(source)
    sources, others = list_sources(source)
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"{out}: lies inside {source}, and would be taken for a part of it; choose another "
            "folder"
        )
    known = open_journal(out, settings)
    mark_crop(out, settings.crop)
    names = _names(sources)
    try:
        with (out / JOURNAL).open("a", encoding="utf-8") as journal:
            bar = tqdm(sources, desc=f"align {source.name}", unit="file", disable=not progress)
            for path in bar:
                job = _Job(
                    root=source,
                    path=path,
                    out=out,
                    name=names[path],
                    detector=detector,
                    settings=settings,
                    journal=journal,
                )
                job.run(known.get(path.as_posix()), bar)
    finally:
        counts = write_tables(out, detector.blendshapes)
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
    sources = [path for path in files if path.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES)]
    if not sources:
        raise DataError(
            f"{root}: holds no image ({', '.join(SUFFIXES)}) and no video "
            f"({', '.join(VIDEO_SUFFIXES)})"
        )
    return sources, len(files) - len(sources)


def _names(sources: Sequence[Path]) -> dict[Path, Path]:
    """Names of a source's crops without suffixes: ``a/b.jpg`` -> ``a/b``. A video keeps its whole
    name.

    An image does so, too, where another would take the same name, or that of one of its further
    faces.
    """
    stems = Counter(path.with_suffix("") for path in sources if not _is_video(path))
    numbered = set()
    for stem in stems:
        start, _, end = stem.name.rpartition("_")
        if end.isdigit():
            numbered.add(stem.with_name(start or "_"))
    names = {}
    for path in sources:
        stem = path.with_suffix("")
        plain = stems[stem] == 1 and stem not in numbered and not _is_video(path)
        names[path] = stem if plain else path
    return names


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(kw_only=True)
class _Job:
    """An image or a video on its way through detection and alignment into the journal."""

    root: Path
    path: Path
    out: Path
    name: Path
    detector: Detector
    settings: Settings
    journal: TextIO

    def run(self, known: Progress | None, bar: tqdm) -> None:
        """Aligns the faces that ``known`` does not hold yet."""
        state = (self.root / self.path).stat()
        stamp = [state.st_size, state.st_mtime_ns]
        same = known is not None and known.stamp == stamp and known.whole
        if same and known.done:
            return
        if not same:
            self._clear(known)
            self._log(stamp=stamp)
            known = Progress(stamp, 0)
        if _is_video(self.path):
            self._video(known, bar)
        else:
            self._image()

    def _clear(self, known: Progress | None) -> None:
        """Deletes the crops that an earlier version of this source left."""
        if known is None:
            return
        crops: Iterable[Path] = [self.out / output for output in known.outputs]
        if _is_video(self.path):
            crops = (self.out / self.name).glob("*.png")
        for path in crops:
            path.unlink(missing_ok=True)

    def _image(self) -> None:
        shapes = []
        try:
            path = self.root / self.path
            image = decode(path.read_bytes(), str(path))
            rows, shapes = self._faces(image, self.detector.detect(image))
        except (DataError, OSError) as error:
            rows = [self._failure(error)]
        self._log(rows=rows, shapes=shapes, done=True)

    def _video(self, known: Progress, bar: tqdm) -> None:
        failures = []
        frames = read_video(self.root / self.path, every=self.settings.every, first=known.frame + 1)
        try:
            for position, _, image in frames:
                bar.set_postfix(frame=position)
                faces = self.detector.detect(image)
                tracks = known.tracker.number([face.box for face in faces])
                rows, shapes = self._faces(image, faces, position, tracks)
                self._log(frame=position, rows=rows, shapes=shapes)
        except (DataError, OSError) as error:
            failures = [self._failure(error)]
        bar.set_postfix()
        self._log(rows=failures, shapes=[], done=True)

    def _faces(
        self,
        image: NDArray[np.uint8],
        faces: list[Face],
        frame: int | str = "",
        tracks: list[int] | None = None,
    ) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        """Writes the crops of an image or a frame. Rows for ``faces.csv``, and those for
        ``blendshapes.csv``."""
        source = self.path.as_posix()
        rows = []
        shapes = []
        for number, face in enumerate(faces):
            key = (source, frame, number, tracks[number] if tracks else "")
            status, output = self._crop(image, face, number, frame)
            row = dict(zip(KEY, key, strict=True))
            row.update(status=status, output=output, score=round(face.score, 4))
            row.update(zip(BOX, _rounded(face.box), strict=True))
            row.update(zip(POINT_COLUMNS, _rounded(face.points.ravel()), strict=True))
            rows.append(row)
            if face.blendshapes:
                scores = [round(value, 4) for value in face.blendshapes.values()]
                shapes.append([*key, *scores])
        return rows or [{"source": source, "frame": frame, "status": NO_FACE}], shapes

    def _crop(
        self, image: NDArray[np.uint8], face: Face, number: int, frame: int | str
    ) -> tuple[str, str]:
        """Status of a face, and the path of its crop if it is written."""
        if number and not self.settings.all_faces:
            return NOT_CHOSEN, ""
        crop = self.settings.crop
        if pixels_within(face.points, crop) < self.settings.smallest:
            return TOO_SMALL, ""
        name = self.name if frame == "" else self.name / f"{frame:06d}"
        path = name.with_name(name.name + (f"_{number}" if number else "") + ".png")
        write_png(self.out / path, align_face(image, face.points, crop, self.settings.size))
        return ALIGNED, path.as_posix()

    def _failure(self, error: Exception) -> dict[str, Any]:
        reason = str(error).replace(f"{self.root / self.path}: ", "")
        return {"source": self.path.as_posix(), "status": UNREADABLE, "error": reason}

    def _log(self, **entry: Any) -> None:
        self.journal.write(json.dumps({"source": self.path.as_posix(), **entry}) + "\n")
        self.journal.flush()


def _rounded(values: NDArray) -> list[float]:
    return [round(float(value), 2) for value in values]
