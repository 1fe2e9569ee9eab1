"""DISFA (Mavadati et al. 2013): 27 subjects, one sequence each from two cameras, 12 AUs with
intensity (PAPER.md 2.3)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.counting import (
    FIRST_FRAME,
    FIRST_LABEL,
    checked_first,
    first_of_images,
    first_of_labels,
)
from norface_lib.datasets.frames import numbered, video_frames
from norface_lib.datasets.index import known_values, note_blanks, read_codes, sequence_rows
from norface_lib.datasets.listing import VIDEO_SUFFIXES, walk

INTENSITY_AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
"""The 12 coded AUs."""

DETECTION_AUS = (1, 2, 4, 6, 9, 12, 25, 26)
"""The 8 AUs of the field's detection protocol."""

DETECTION_THRESHOLD = 2
"""An AU counts as present from this intensity on."""

CAMERAS = ("left", "right")

_SUBJECT = r"SN\d{3}"
_LABELS = re.compile(rf"({_SUBJECT})_au(\d+)\.txt", re.IGNORECASE)
_VIDEO = re.compile(rf"(left|right)_?video_?({_SUBJECT})(?:_comp)?", re.IGNORECASE)
"""Names of a video, or of a folder of its images."""

_CAMERA = re.compile(r"(left|right)(?:_?camera|_?video|(?=/|$))", re.IGNORECASE)
"""What a path says of its camera."""


Key = tuple[str, str]  # subject and camera


class DISFA(FaceDataset):
    """DISFA from its videos, or from images that others extracted from them (``SN001/0.png``).

    ``task`` is ``au_intensity`` (12 AUs, 0..5) or ``au_detection`` (8 AUs, 1 from intensity 2 on).
    ``camera`` is ``left``, ``right`` or ``both``, and names the sequence. Extracted images serve
    where there is no such video: those whose folder tells that camera, else those that tell none.
    The report says which it was. Labels count from 1, and extracted
    images from 0 or 1, as their numbers say; the report says which, and what is ambiguous is
    refused. ``first_frame`` and ``first_label``, 0 or 1, decide it. An AU without a label file is
    taken for 0, as the field does, and counted; one whose file cannot be read is masked.
    """

    title = "DISFA"
    source = (
        "DISFA is given out by the University of Denver to researchers who fill in its agreement: "
        "https://mohammadmahoor.com/pages/databases/disfa/"
    )
    tree = """
ActionUnit_Labels/SN001/SN001_au1.txt        lines "frame,intensity", one file per AU
Video_LeftCamera/LeftVideoSN001_comp.avi     and Video_RightCamera, in any case;
                                             or images SN001/0.png, or
                                             LeftVideoSN001/00001.jpg"""
    tasks = ("au_detection", "au_intensity")
    published = "27 subjects, 130,814 frames from each camera"

    def __init__(
        self,
        root: Path,
        task: str = "au_detection",
        camera: str = "left",
        transform: Callable[..., Any] | None = None,
        index: Any = None,
        first_frame: int | None = None,
        first_label: int | None = None,
    ):
        if camera not in (*CAMERAS, "both"):
            raise ValueError(f"camera of DISFA must be left, right or both, got {camera!r}")
        self.task = self.checked_task(task)
        self.first_frame = checked_first(FIRST_FRAME, first_frame)
        self.first_label = checked_first(FIRST_LABEL, first_label)
        self.cameras = CAMERAS if camera == "both" else (camera,)
        self.aus = DETECTION_AUS if task == "au_detection" else INTENSITY_AUS
        self.labels = labels.columns(self.aus)
        self.highest = 1.0 if task == "au_detection" else labels.INTENSITY_MAX
        super().__init__(root, transform, index)

    def _scan(self) -> pd.DataFrame:
        self.elsewhere: dict[str, str] = {}  # a path of a camera that was not asked for
        leaf = rf"{_SUBJECT}|{_VIDEO.pattern}"
        paths = walk(self.root, leaf=leaf, unreadable=self._unreadable_folder)
        folders = [
            path
            for path in paths
            if re.fullmatch(leaf, path.name, re.IGNORECASE) and (self.root / path).is_dir()
        ]
        files = paths + [folder / name for folder in folders for name in self._names(folder)]
        codes = self._codes(files)
        videos, images = self._of_camera(self._videos(paths), self._images(folders))
        frames = self._counted(videos, images, codes)
        for subject in sorted({subject for subject, _ in frames} - set(codes)):
            self.report.note("subject without labels", subject)
        subjects = [self._subject(subject, codes[subject], frames) for subject in sorted(codes)]
        return pd.concat([pd.DataFrame(), *subjects], ignore_index=True)

    def _codes(self, files: list[Path]) -> dict[str, dict[int, pd.Series | None]]:
        """Codes of each subject and AU by frame number; None where the file cannot be read: its
        fault costs no other file."""
        codes: dict[str, dict[int, pd.Series | None]] = {}
        for path in files:
            match = _LABELS.fullmatch(path.name)
            if match is None:
                continue
            self.accounted.add(path.as_posix())
            of_subject = codes.setdefault(match[1].upper(), {})
            if int(match[2]) in of_subject:
                self.report.note("second label file of an AU, not used", path)
                continue
            try:
                table = read_codes(self.root / path, self.report, header=False)
                of_subject[int(match[2])] = note_blanks(table.iloc[:, 0], self.report, path.name)
            except DataError as error:
                self.report.drop("label file that cannot be read", error)
                of_subject[int(match[2])] = None
        return codes

    def _videos(self, paths: list[Path]) -> dict[Key, dict[int, str]]:
        """Frames of the videos by position."""
        videos: dict[Key, dict[int, str]] = {}
        for path in paths:
            match = _VIDEO.fullmatch(path.stem)
            if match is None or path.suffix.lower() not in VIDEO_SUFFIXES:
                continue
            self.accounted.add(path.as_posix())
            if match[1].lower() not in self.cameras:
                self.elsewhere[match[1].lower()] = path.as_posix()
                continue
            key = (match[2].upper(), match[1].lower())
            if key in videos:
                self.report.note("second copy of a video, not used", path)
                continue
            try:
                videos[key] = video_frames(self.root, path)
            except DataError as error:
                self.report.drop("video that cannot be read", error)
        return videos

    def _images(self, folders: list[Path]) -> dict[Key, dict[int, str]]:
        """Images of each subject by their number; without a camera where their folders tell
        none."""
        images: dict[Key, dict[int, str]] = {}
        for path in folders:
            names = (f"{path.as_posix()}/{name}" for name in self._names(path))
            frames = numbered(names, self.report)
            self.accounted.update(frames.values())
            if not frames:
                continue
            cameras = _CAMERA.findall(path.as_posix())
            camera = cameras[-1].lower() if cameras else ""
            key = (re.search(_SUBJECT, path.name.upper())[0], camera)
            if camera and camera not in self.cameras:
                self.elsewhere[camera] = path.as_posix()
            elif key in images:
                self.report.note("second folder of images of a subject, not used", path)
            else:
                images[key] = frames
        return images

    def _of_camera(
        self, videos: dict[Key, dict[int, str]], images: dict[Key, dict[int, str]]
    ) -> tuple[dict[Key, dict[int, str]], dict[Key, dict[int, str]]]:
        """The videos alone; or the images whose folders tell their camera; or those that tell none.
        The report says which."""
        told = {key: frames for key, frames in images.items() if key[1]}
        used = videos or told or images
        beside = "the videos" if videos else "those whose folders tell their camera"
        for key, frames in images.items():
            if key not in used:
                self.report.note(
                    f"image of a subject, not used beside {beside}", key[0], len(frames)
                )

        asked = " and ".join(self.cameras)
        if not used:
            for camera, example in self.elsewhere.items():
                self.report.note(f"{camera} camera alone, where {asked} was asked for", example)
        elif videos or told:
            found = " and ".join(sorted({camera for _, camera in used}))
            names = "videos" if videos else "folders"
            self.report.counting.append(f"camera: {found}, by the names of the {names}")
        else:
            self.report.counting.append(f"camera: told by no folder of images, taken for {asked}")
        return (videos, {}) if videos else ({}, used)

    def _counted(
        self,
        videos: dict[Key, dict[int, str]],
        images: dict[Key, dict[int, str]],
        codes: dict[str, dict[int, pd.Series | None]],
    ) -> dict[Key, dict[int, str]]:
        """Frames of each sequence by the number that labels give them: of the videos, or where
        there is none, of the images."""
        files = {
            f"{subject}_au{au}.txt": set(values.index)
            for subject, of_subject in codes.items()
            for au, values in of_subject.items()
            if values is not None
        }
        lengths = {
            f"{subject}_au{au}.txt": len(frames)
            for (subject, _), frames in videos.items()
            for au in codes.get(subject, ())
        }
        first_label = self.first_label
        why = "as was asked for"
        if first_label is None:
            first_label, why = first_of_labels(files, lengths, self.root)
        if files:
            self.report.counting.append(f"label rows count from {first_label}: {why}")

        if videos:
            shift = first_label
            frames_of = videos
        else:
            shift = first_label - self._first_frame(images, codes, first_label)
            frames_of = images
        return {
            key: {number + shift: path for number, path in frames.items()}
            for key, frames in frames_of.items()
        }

    def _first_frame(
        self,
        images: dict[Key, dict[int, str]],
        codes: dict[str, dict[int, pd.Series | None]],
        first_label: int,
    ) -> int:
        """The number of the first image of a sequence."""
        labeled: dict[Key, set[int]] = {}
        for key in images:
            of_subject = codes.get(key[0], {})
            known = [set(values.index) for values in of_subject.values() if values is not None]
            labeled[key] = set().union(*known)
        numbers = {key: set(frames) for key, frames in images.items()}
        if not any(labeled.values()):
            return 0  # nothing to shift

        first = self.first_frame
        why = "as was asked for"
        if first is None:
            first, why = first_of_images(numbers, labeled, first_label, self.root)
        self.report.counting.append(f"images count from {first}: {why}")
        return first

    def _subject(
        self,
        subject: str,
        codes: dict[int, pd.Series | None],
        frames: dict[Key, dict[int, str]],
    ) -> pd.DataFrame:
        coded = self._coded(subject, codes)
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

    def _coded(self, subject: str, codes: dict[int, pd.Series | None]) -> pd.DataFrame:
        columns = {}
        for au, column in zip(INTENSITY_AUS, labels.columns(INTENSITY_AUS), strict=True):
            if codes.get(au) is not None:
                columns[column] = codes[au]
            elif au in self.aus and au not in codes:
                self.report.note("AU without a label file, taken for 0", f"{subject}_au{au}.txt")
        coded = known_values(
            pd.DataFrame(columns).sort_index(), labels.INTENSITY_MAX, self.report, subject
        )
        for au, column in zip(self.aus, self.labels, strict=True):
            if column not in columns:
                # of an AU whose file cannot be read nothing is known
                coded[column] = np.nan if au in codes else 0.0
        coded = coded[list(self.labels)]
        if self.task == "au_intensity":
            return coded
        return (coded >= DETECTION_THRESHOLD).astype(float).where(coded.notna())
