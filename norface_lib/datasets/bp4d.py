"""BP4D-Spontaneous (Zhang et al. 2014): 41 subjects, 8 tasks, 12 AUs as they occur and 5 with
intensity (PAPER.md 2.1)."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.bp4d_names import (
    SEQUENCE,
    SUBJECT,
    TASK,
    Key,
    label_tables,
    order_of,
    sequence_key,
    task_of,
)
from norface_lib.datasets.counting import (
    FIRST_FRAME,
    FIRST_LABEL,
    checked_first,
    first_of_labels,
    shift_of_images,
)
from norface_lib.datasets.frames import IN_VIDEO, numbered, video_frames, zip_frames
from norface_lib.datasets.index import (
    NoCodesError,
    known_values,
    note_blanks,
    read_codes,
    sequence_rows,
)
from norface_lib.datasets.listing import VIDEO_SUFFIXES, walk

INTENSITY_AUS = (6, 10, 12, 14, 17)
"""AUs whose intensity is coded."""

_OTHER_CAMERAS = {"thermal", "irfeatures"}

UNREADABLE_LABELS = "label file that cannot be read"
"""Reason of the report for a label file that was left out."""


class BP4D(FaceDataset):
    """BP4D as it was given out: images in folders or zips, or videos; labels of today's release or
    of FERA 2015.

    ``task`` is ``au_detection`` (12 AUs, 0 or 1) or ``au_intensity`` (5 AUs, 0..5). Frames that are
    not in the label tables are no part of the dataset. An image is the frame of the label row with
    its number; where images begin with 0, whatever the ends of most sequences say, and a refusal if
    they leave it open. The first frame of a video is that of label row 1, or 0 where there is a row
    0. ``first_frame`` and ``first_label``, 0 or 1, say by what number the first image and the first
    label row of a sequence go, and so decide it. The report says which rule was used.
    """

    title = "BP4D"
    source = (
        "BP4D is given out by Binghamton University to researchers who sign its license agreement: "
        "http://www.cs.binghamton.edu/~lijun/Research/3DFE/3DFE_Analysis.html"
    )
    tree = """
AUCoding/AU_OCC/F001_T1.csv                  occurrence, with a header of AU numbers
AUCoding/AU_INT/AU06/F001_T1_AU06.csv        intensity, without a header
Sequences(2D+3D)/F001/T1/2440.jpg            or folders F001_T1 or 2F01_T1, or 2D+3D/F001.zip,
                                             or videos 2F01_01.avi or F001_T1.mp4"""
    published = "41 subjects, 328 sequences, 146,847 coded frames"
    tasks = ("au_detection", "au_intensity")
    coded_sequences: ClassVar[tuple[str, ...]] = tuple(f"T{n}" for n in range(1, 9))
    # of images that begin with 0, label row f is number f - 1, where nothing else tells
    from_zero: ClassVar[bool] = False

    def __init__(
        self,
        root: Path,
        task: str = "au_detection",
        transform: Callable[..., Any] | None = None,
        index: Any = None,
        first_frame: int | None = None,
        first_label: int | None = None,
    ):
        self.task = self.checked_task(task)
        self.first_frame = checked_first(FIRST_FRAME, first_frame)
        self.first_label = checked_first(FIRST_LABEL, first_label)
        self.aus = labels.BP4D_AUS if task == "au_detection" else INTENSITY_AUS
        self.labels = labels.columns(self.aus)
        self.highest = 1.0 if task == "au_detection" else labels.INTENSITY_MAX
        super().__init__(root, transform, index)

    def _scan(self) -> pd.DataFrame:
        self.uncoded: set[Key] = set()
        paths = walk(self.root, leaf=rf"{SUBJECT}|{SEQUENCE}", unreadable=self._unreadable_folder)
        tables = label_tables(paths, self.task)
        if not tables:
            raise self._refusal(f"holds no label table of {self.task}")
        self.accounted.update(path.as_posix() for of in tables.values() for path in of.values())

        coded = {key: self._coded(key, tables[key]) for key in sorted(tables, key=order_of)}
        coded = {key: codes for key, codes in coded.items() if codes is not None}
        frames = self._counted(self._frames(paths), coded)
        for key in sorted(set(frames) - set(tables)):
            self.report.note("sequence without labels (not coded)", "/".join(key))
        for key in sorted(set(frames) & self.uncoded):
            self.report.note(
                "image of a sequence without a coded frame, skipped",
                "/".join(key),
                len(frames[key]),
            )
        for key in sorted(set(frames) & set(tables) - set(coded) - self.uncoded):
            self.report.drop(
                "image of a sequence whose labels cannot be read", "/".join(key), len(frames[key])
            )
        sequences = [
            sequence_rows(*key, codes, frames.get(key, {}), self.report, "/".join(key))
            for key, codes in coded.items()
        ]
        return pd.concat([pd.DataFrame(), *sequences], ignore_index=True)

    def _coded(self, key: Key, tables: dict[int, Path]) -> pd.DataFrame | None:
        """The labels of one sequence by frame number; None if its files cannot be read, or know no
        label, which is noted in ``uncoded``."""
        read = self._occurrence if self.task == "au_detection" else self._intensity
        try:
            codes = read(tables)
        except NoCodesError:
            self.uncoded.add(key)
            self.report.note("sequence whose label file is empty, skipped", "/".join(key))
            return None
        if codes is None:
            return None
        values = known_values(codes, self.highest, self.report, "/".join(key))
        if values.isna().to_numpy().all():
            self.uncoded.add(key)
            self.report.note("sequence of which no label is known, skipped", "/".join(key))
            return None
        return values

    def _read(self, path: Path, header: bool) -> pd.DataFrame | None:
        """A label file, or None, counted, if it cannot be read: its fault costs no other file.
        Raises `NoCodesError` for an empty one."""
        try:
            return read_codes(self.root / path, self.report, header)
        except NoCodesError:
            raise
        except DataError as error:
            self.report.drop(UNREADABLE_LABELS, error)
            return None

    def _occurrence(self, tables: dict[int, Path]) -> pd.DataFrame | None:
        """Columns are taken by name: in BP4D+ the position of an AU is not its number (PAPER.md
        2.2)."""
        path = tables[0]
        table = self._read(path, header=True)
        if table is None:
            return None
        names = {
            name: re.fullmatch(r"(?:AU)?\s*0*(\d+)", name, re.IGNORECASE) for name in table.columns
        }
        table = table.rename(
            columns={name: int(match[1]) for name, match in names.items() if match}
        )
        table = table.loc[:, ~table.columns.duplicated()]
        missing = [au for au in self.aus if au not in table.columns]
        # a first line of codes in place of names may look like AU1, and no more
        if len(missing) > len(self.aus) // 2:
            self.report.drop(
                UNREADABLE_LABELS,
                f"{self.root / path}: its first line must name a column for each AU, and lacks "
                f"{missing}; download it again",
            )
            return None
        for au in missing:
            self.report.note(f"label file without AU{au:02d}, masked", path.name)
        coded = [au for au in self.aus if au not in missing]
        table = note_blanks(table[coded], self.report, path.name)
        return table.reindex(columns=list(self.aus)).set_axis(list(self.labels), axis=1)

    def _intensity(self, tables: dict[int, Path]) -> pd.DataFrame | None:
        columns = {}
        empty = []
        for au, column in zip(self.aus, self.labels, strict=True):
            try:
                codes = self._read(tables[au], header=False) if au in tables else None
            except NoCodesError as error:
                codes = None
                empty.append(error)
            if codes is not None:
                columns[column] = note_blanks(codes.iloc[:, 0], self.report, tables[au].name)
            else:
                self.report.note(
                    f"sequence without intensities of AU{au:02d}, masked",
                    next(iter(tables.values())).name,
                )
        if not columns and empty:
            raise empty[0]
        if not columns:
            return None
        return pd.DataFrame(columns).reindex(columns=list(self.labels)).sort_index()

    def _counted(
        self, frames: dict[Key, dict[int, str]], coded: dict[Key, pd.DataFrame]
    ) -> dict[Key, dict[int, str]]:
        """The images of each sequence by the number that its labels give them."""
        labeled = {key: set(codes.index) for key, codes in coded.items() if key in frames}
        videos = {key for key in frames if _in_video(frames[key])}
        images = {key: set(frames[key]) for key in frames if key not in videos}
        shift = self._shift(images, labeled) if images else 0
        first = self._first_label(frames, labeled, videos) if videos else 0
        return {
            key: {number + (first if key in videos else shift): path for number, path in of.items()}
            for key, of in frames.items()
        }

    def _first_label(
        self, frames: dict[Key, dict[int, str]], labeled: dict[Key, set[int]], videos: set[Key]
    ) -> int:
        """The number that labels give to the first frame of a video."""
        first = self.first_label
        why = "as was asked for"
        if first is None:
            lengths = {key: len(frames[key]) for key in videos}
            rows = {key: numbers for key, numbers in labeled.items() if key in videos}
            first, why = first_of_labels(rows, lengths, self.root)
        self.report.counting.append(f"labels count the frames of a video from {first}: {why}")
        return first

    def _shift(self, images: dict[Key, set[int]], labeled: dict[Key, set[int]]) -> int:
        """What is added to an image's number to get that of its label row."""
        if self.first_frame is None and self.first_label is None:
            shift, why = shift_of_images(images, labeled, self.root, self.from_zero)
            self.report.counting.append(why)
            return shift
        zero_image = any(0 in numbers for numbers in images.values())
        zero_label = any(0 in numbers for numbers in labeled.values())
        first_frame = int(not zero_image) if self.first_frame is None else self.first_frame
        first_label = int(not zero_label) if self.first_label is None else self.first_label
        frame = ("f - 1", "f", "f + 1")[first_frame - first_label + 1]
        self.report.counting.append(
            f"label row f is image {frame}: images count from {first_frame}, and label rows from "
            f"{first_label}, as was asked for"
        )
        return first_label - first_frame

    def _frames(self, paths: list[Path]) -> dict[Key, dict[int, str]]:
        """Images by sequence and number, those of a video by position. Folders are preferred to
        zips and zips to videos, as they read faster."""
        frames_of: dict[Key, dict[int, str]] = {}
        for source in (self._folders, self._zips, self._videos):
            for key, frames in source(paths):
                self.accounted.update(frames.values())
                if key in frames_of:
                    self.report.note(
                        "second copy of a sequence, not used", next(iter(frames.values()), "")
                    )
                elif frames:
                    frames_of[key] = frames
        return frames_of

    def _folders(self, paths: list[Path]) -> Iterator[tuple[Key, dict[int, str]]]:
        for path in paths:
            if _OTHER_CAMERAS & {part.lower() for part in path.parts}:
                continue
            if not (self.root / path).is_dir():
                continue
            if re.fullmatch(SUBJECT, path.name, re.IGNORECASE):
                for name in self._names(path):
                    task = task_of(name, path.name.upper(), self.report)
                    if task and (self.root / path / name).is_dir():
                        yield (path.name.upper(), task), self._images(path / name)
            elif key := sequence_key(path.name, self.report):
                yield key, self._images(path)

    def _images(self, folder: Path) -> dict[int, str]:
        names = (f"{folder.as_posix()}/{name}" for name in self._names(folder))
        return numbered(names, self.report)

    def _zips(self, paths: list[Path]) -> Iterator[tuple[Key, dict[int, str]]]:
        for path in paths:
            if path.suffix.lower() == ".zip" and re.fullmatch(SUBJECT, path.stem, re.IGNORECASE):
                self.accounted.add(path.as_posix())
                try:
                    folders = zip_frames(self.root, path, rf"{TASK}|{SEQUENCE}", self.report)
                except DataError as error:
                    self.report.drop("zip that cannot be read", error)
                    continue
                for name, frames in folders.items():
                    if task := task_of(name, path.stem.upper(), self.report):
                        yield (path.stem.upper(), task), frames

    def _videos(self, paths: list[Path]) -> Iterator[tuple[Key, dict[int, str]]]:
        for path in paths:
            if path.suffix.lower() in VIDEO_SUFFIXES and (
                key := sequence_key(path.stem, self.report)
            ):
                self.accounted.add(path.as_posix())
                try:
                    yield key, video_frames(self.root, path)
                except DataError as error:
                    self.report.drop("video that cannot be read", error)


def _in_video(frames: dict[int, str]) -> bool:
    return IN_VIDEO.fullmatch(next(iter(frames.values()))) is not None
