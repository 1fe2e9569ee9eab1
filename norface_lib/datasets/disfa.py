"""DISFA (Mavadati et al. 2013): 27 subjects, one sequence each from two cameras, 12 AUs with
intensity (PAPER.md 2.3)."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from norface_lib import labels
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.frames import VIDEO_SUFFIXES, folder_frames, video_frames, walk
from norface_lib.datasets.index import known_values, read_codes, sequence_rows

INTENSITY_AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
"""The 12 coded AUs."""

DETECTION_AUS = (1, 2, 4, 6, 9, 12, 25, 26)
"""The 8 AUs of the field's detection protocol."""

DETECTION_THRESHOLD = 2
"""An AU counts as present from this intensity on."""

CAMERAS = ("left", "right")

_SUBJECT = r"SN\d{3}"
_LABELS = re.compile(rf"({_SUBJECT})_au(\d+)\.txt", re.IGNORECASE)
_VIDEO = re.compile(rf"(left|right)video({_SUBJECT})_comp", re.IGNORECASE)

Key = tuple[str, str]  # subject and camera


class DISFA(FaceDataset):
    """DISFA from its videos, or from images that others extracted from them (``SN001/0.png``).

    ``task`` is ``au_intensity`` (12 AUs, 0..5) or ``au_detection`` (8 AUs, 1 from intensity 2 on).
    ``camera`` is ``left``, ``right`` or ``both``, and names the sequence; extracted images, which
    serve where there is no such video, do not tell their camera. Label frame 1 is the first frame
    of the video and the image named 0; where no image of the whole set is named 0, it is the image
    named 1. An AU without a label file is taken for 0, as the field does, and counted.
    """

    title = "DISFA"
    source = (
        "DISFA is given out by the University of Denver to researchers who fill in its agreement: "
        "https://mohammadmahoor.com/pages/databases/disfa/"
    )
    tree = """
ActionUnit_Labels/SN001/SN001_au1.txt        lines "frame,intensity", one file per AU
Video_LeftCamera/LeftVideoSN001_comp.avi     and Video_RightCamera, in any case;
                                             or images SN001/0.png"""
    tasks = ("au_detection", "au_intensity")
    published = "27 subjects, 130,814 frames from each camera"

    def __init__(
        self,
        root: Path,
        task: str = "au_detection",
        camera: str = "left",
        transform: Callable[..., Any] | None = None,
        index: Any = None,
    ):
        if camera not in (*CAMERAS, "both"):
            raise ValueError(f"camera of DISFA must be left, right or both, got {camera!r}")
        self.task = self.checked_task(task)
        self.cameras = CAMERAS if camera == "both" else (camera,)
        self.aus = DETECTION_AUS if task == "au_detection" else INTENSITY_AUS
        self.labels = labels.columns(self.aus)
        self.highest = 1.0 if task == "au_detection" else labels.INTENSITY_MAX
        super().__init__(root, transform, index)

    def _scan(self) -> pd.DataFrame:
        paths = walk(self.root, leaf=_SUBJECT)
        folders = [
            path
            for path in paths
            if re.fullmatch(_SUBJECT, path.name, re.IGNORECASE) and (self.root / path).is_dir()
        ]
        files = paths + [
            folder / name for folder in folders for name in sorted(os.listdir(self.root / folder))
        ]
        tables: dict[str, dict[int, Path]] = {}
        for path in files:
            if match := _LABELS.fullmatch(path.name):
                tables.setdefault(match[1].upper(), {}).setdefault(int(match[2]), path)
        frames = self._videos(paths) or self._images(folders)
        for subject in sorted({subject for subject, _ in frames} - set(tables)):
            self.report.note("subject without labels", subject)
        subjects = [self._subject(subject, tables[subject], frames) for subject in sorted(tables)]
        return pd.concat([pd.DataFrame(), *subjects], ignore_index=True)

    def _videos(self, paths: list[Path]) -> dict[Key, dict[int, str]]:
        matches = [
            (path, _VIDEO.fullmatch(path.stem))
            for path in paths
            if path.suffix.lower() in VIDEO_SUFFIXES
        ]
        videos = [
            (path, match) for path, match in matches if match and match[1].lower() in self.cameras
        ]
        return {
            (match[2].upper(), match[1].lower()): video_frames(self.root, path)
            for path, match in videos
        }

    def _images(self, folders: list[Path]) -> dict[Key, dict[int, str]]:
        frames_of = {
            (path.name.upper(), ""): frames
            for path in folders
            if (frames := folder_frames(self.root, path))
        }
        first = 0 if any(0 in frames for frames in frames_of.values()) else 1
        return {
            key: {number + 1 - first: path for number, path in frames.items()}
            for key, frames in frames_of.items()
        }

    def _subject(
        self, subject: str, tables: dict[int, Path], frames: dict[Key, dict[int, str]]
    ) -> pd.DataFrame:
        coded = self._coded(subject, tables)
        sequences = [sequence for name, sequence in sorted(frames) if name == subject]
        if not sequences:
            self.report.drop(
                "label row without an image", f"{subject}: no video or images", len(coded)
            )
        parts = [
            sequence_rows(subject, s, coded, frames[subject, s], self.report, f"{subject} {s}")
            for s in sequences
        ]
        return pd.concat([pd.DataFrame(), *parts])

    def _coded(self, subject: str, tables: dict[int, Path]) -> pd.DataFrame:
        columns = {}
        for au, column in zip(INTENSITY_AUS, labels.columns(INTENSITY_AUS), strict=True):
            if au in tables:
                columns[column] = read_codes(
                    self.root / tables[au], self.report, header=False
                ).iloc[:, 0]
            elif au in self.aus:
                self.report.note("AU without a label file, taken for 0", f"{subject}_au{au}.txt")
        coded = known_values(
            pd.DataFrame(columns).sort_index(), labels.INTENSITY_MAX, self.report, subject
        )
        for column in set(self.labels) - set(columns):
            coded[column] = 0.0
        coded = coded[list(self.labels)]
        if self.task == "au_intensity":
            return coded
        return (coded >= DETECTION_THRESHOLD).astype(float).where(coded.notna())
