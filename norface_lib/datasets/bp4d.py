"""BP4D-Spontaneous (Zhang et al. 2014): 41 subjects, 8 tasks, 12 AUs as they occur and 5 with
intensity (PAPER.md 2.1)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.frames import (
    VIDEO_SUFFIXES,
    folder_frames,
    video_frames,
    walk,
    zip_frames,
)
from norface_lib.datasets.index import known_values, read_codes, sequence_rows
from norface_lib.datasets.report import Report

INTENSITY_AUS = (6, 10, 12, 14, 17)
"""AUs whose intensity is coded."""

SESSIONS = {
    "01": "T1",
    "03": "T2",
    "07": "T3",
    "08": "T4",
    "09": "T5",
    "10": "T6",
    "11": "T7",
    "13": "T8",
}
"""Task of the session code in a video's name: ``2F01_11.avi`` is task T7 of F001."""

_SUBJECT = r"[FM]\d{3}"
_TASK = r"T\d{1,2}"
_LABELS = re.compile(rf"({_SUBJECT})_({_TASK})(?!\d).*\.csv", re.IGNORECASE)
_VIDEO = re.compile(rf"({_SUBJECT})_({_TASK})", re.IGNORECASE)
_SESSION_VIDEO = re.compile(r"2([FM])(\d{2})_(\d{2})", re.IGNORECASE)
_AU_FOLDER = re.compile(r"AU0?(\d+)", re.IGNORECASE)
_OTHER_CAMERAS = {"thermal", "irfeatures"}

Key = tuple[str, str]  # subject and task


class BP4D(FaceDataset):
    """BP4D as it was given out: images in folders or zips, or videos; labels of today's release or
    of FERA 2015.

    ``task`` is ``au_detection`` (12 AUs, 0 or 1) or ``au_intensity`` (5 AUs, 0..5). Frames that are
    not in the label tables are no part of the dataset.
    """

    title = "BP4D"
    source = (
        "BP4D is given out by Binghamton University to researchers who sign its license agreement: "
        "http://www.cs.binghamton.edu/~lijun/Research/3DFE/3DFE_Analysis.html"
    )
    tree = """
AUCoding/AU_OCC/F001_T1.csv                  occurrence, with a header of AU numbers
AUCoding/AU_INT/AU06/F001_T1_AU06.csv        intensity, without a header
Sequences(2D+3D)/F001/T1/2440.jpg            or 2D+3D/F001.zip,
                                             or videos 2F01_01.avi or F001_T1.mp4"""
    published = "41 subjects, 328 sequences, 146,847 coded frames"
    tasks = ("au_detection", "au_intensity")
    coded_sequences: ClassVar[tuple[str, ...]] = tuple(f"T{n}" for n in range(1, 9))

    def __init__(
        self,
        root: Path,
        task: str = "au_detection",
        transform: Callable[..., Any] | None = None,
        index: Any = None,
    ):
        self.task = self.checked_task(task)
        self.aus = labels.BP4D_AUS if task == "au_detection" else INTENSITY_AUS
        self.labels = labels.columns(self.aus)
        self.highest = 1.0 if task == "au_detection" else labels.INTENSITY_MAX
        super().__init__(root, transform, index)

    def _scan(self) -> pd.DataFrame:
        paths = walk(self.root, leaf=_SUBJECT)
        tables = _label_tables(paths, self.task)
        if not tables:
            raise self._refusal(f"holds no label table of {self.task}")
        frames = self._frames(paths)
        for key in sorted(set(frames) - set(tables)):
            self.report.note("sequence without labels (not coded)", "/".join(key))
        sequences = [
            self._sequence(key, tables[key], frames.get(key, {}))
            for key in sorted(tables, key=_order)
        ]
        return pd.concat(sequences, ignore_index=True)

    def _sequence(self, key: Key, tables: dict[int, Path], frames: dict[int, str]) -> pd.DataFrame:
        read = self._occurrence if self.task == "au_detection" else self._intensity
        coded = known_values(read(tables), self.highest, self.report, "/".join(key))
        return sequence_rows(*key, coded, frames, self.report, "/".join(key))

    def _occurrence(self, tables: dict[int, Path]) -> pd.DataFrame:
        """Columns are taken by name: in BP4D+ the position of an AU is not its number (PAPER.md
        2.2)."""
        path = self.root / tables[0]
        table = read_codes(path, self.report, header=True)
        names = {
            name: re.fullmatch(r"\s*(?:AU)?\s*0*(\d+)\s*", str(name), re.IGNORECASE)
            for name in table.columns
        }
        table = table.rename(
            columns={name: int(match[1]) for name, match in names.items() if match}
        )
        missing = [au for au in self.aus if au not in table.columns]
        # a first line of codes in place of names may look like AU1, and no more
        if len(missing) > len(self.aus) // 2:
            raise DataError(
                f"{path}: its first line must name a column for each AU, and lacks {missing}; "
                "download it again"
            )
        for au in missing:
            self.report.note(f"label file without AU{au:02d}, masked", path.name)
        return table.reindex(columns=list(self.aus)).set_axis(list(self.labels), axis=1)

    def _intensity(self, tables: dict[int, Path]) -> pd.DataFrame:
        columns = {}
        for au, column in zip(self.aus, self.labels, strict=True):
            if au in tables:
                columns[column] = read_codes(
                    self.root / tables[au], self.report, header=False
                ).iloc[:, 0]
            else:
                self.report.note(
                    f"sequence without intensities of AU{au:02d}, masked",
                    next(iter(tables.values())).name,
                )
        return pd.DataFrame(columns).reindex(columns=list(self.labels)).sort_index()

    def _frames(self, paths: list[Path]) -> dict[Key, dict[int, str]]:
        """Images by sequence and frame number. Folders are preferred to zips and zips to videos, as
        they read faster."""
        frames_of: dict[Key, dict[int, str]] = {}
        for source in (self._folders, self._zips, self._videos):
            for key, frames in source(paths):
                if key in frames_of:
                    self.report.note(
                        "second copy of a sequence, not used", next(iter(frames.values()))
                    )
                elif frames:
                    frames_of[key] = frames
        return frames_of

    def _folders(self, paths: list[Path]):
        for path in paths:
            other = _OTHER_CAMERAS & {part.lower() for part in path.parts}
            if (
                re.fullmatch(_SUBJECT, path.name, re.IGNORECASE)
                and (self.root / path).is_dir()
                and not other
            ):
                for task in sorted((self.root / path).iterdir()):
                    if re.fullmatch(_TASK, task.name, re.IGNORECASE) and task.is_dir():
                        yield (
                            (path.name.upper(), task.name.upper()),
                            folder_frames(self.root, path / task.name),
                        )

    def _zips(self, paths: list[Path]):
        for path in paths:
            if path.suffix.lower() == ".zip" and re.fullmatch(_SUBJECT, path.stem, re.IGNORECASE):
                for task, frames in zip_frames(self.root, path, _TASK).items():
                    yield (path.stem.upper(), task), frames

    def _videos(self, paths: list[Path]):
        for path in paths:
            if path.suffix.lower() in VIDEO_SUFFIXES and (
                key := _video_key(path.stem, self.report)
            ):
                yield key, video_frames(self.root, path)


def _label_tables(paths: list[Path], task: str) -> dict[Key, dict[int, Path]]:
    """Label files of each sequence: by AU, or under 0 for occurrence. ``AU_OCC`` is preferred to
    files beside it."""
    tables: dict[Key, dict[int, Path]] = {}
    for path in sorted(paths, key=lambda path: "AU_OCC" not in path.parts):
        au = _AU_FOLDER.fullmatch(path.parent.name)
        if (match := _LABELS.fullmatch(path.name)) and (task == "au_intensity") == bool(au):
            tables.setdefault((match[1].upper(), match[2].upper()), {}).setdefault(
                int(au[1]) if au else 0, path
            )
    return tables


def _video_key(stem: str, report: Report) -> Key | None:
    if match := _VIDEO.fullmatch(stem):
        return match[1].upper(), match[2].upper()
    if not (match := _SESSION_VIDEO.fullmatch(stem)):
        return None
    if match[3] not in SESSIONS:
        report.note("video of a session without AU codes", stem)
        return None
    return f"{match[1].upper()}0{match[2]}", SESSIONS[match[3]]


def _order(key: Key) -> tuple[str, int]:
    return key[0], int(key[1][1:])
