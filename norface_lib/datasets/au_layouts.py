"""A rendered benchmark in the layouts of BP4D, BP4D+ and DISFA."""

import zipfile
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.datasets import bp4d, bp4d_names, bp4d_plus, disfa
from norface_lib.datasets.layout_writer import LayoutWriter, csv_text
from norface_lib.datasets.protocols import SUBJECTS
from norface_lib.labels import UNKNOWN

_BP4D_SESSIONS = {task: code for code, task in bp4d_names.SESSIONS.items()}


class AUWriter(LayoutWriter):
    """Writer of a dataset with AUs, whose official subjects the rendered ones become in order."""

    layout: ClassVar[str]

    def rename(self, table: pd.DataFrame) -> pd.DataFrame:
        official = sorted(SUBJECTS[self.layout])
        names = dict(zip(table["subject"].unique(), official, strict=False))
        more = ~table["subject"].isin(list(names))
        self.drop(f"frame of a subject beyond the official {len(official)}", table, more)
        return table[~more].assign(subject=table["subject"].map(names)).reset_index(drop=True)


class BP4DWriter(AUWriter):
    """Writer of BP4D; AUs that the benchmark lacks are 9, not coded."""

    layout = "bp4d"
    tasks = bp4d.BP4D.coded_sequences
    columns = tuple(range(1, 28))

    def first_numbers(self) -> tuple[int, int]:
        """Numbers of a sequence's first label row and of its first image: an excerpt's."""
        first = 1 if self.variant == "video" else int(self.rng.integers(1, 900))
        return first, first

    def video_name(self, subject: str, task: str) -> str:
        """Path of a sequence as a video."""
        return f"Videos/2{subject[0]}{subject[2:]}_{_BP4D_SESSIONS[task]}.avi"

    def write(self) -> None:
        keys = ["subject", _tasks(self.table, self.tasks)]
        sequences = list(self.table.groupby(keys, sort=False).indices.items())
        for number, ((subject, task), rows) in enumerate(sequences):
            first_label, first_image = self.first_numbers()
            frames = np.arange(first_label, first_label + len(rows))
            if self.quirks.missing_labels and number == len(sequences) - 1 > 0:
                self.report.note("sequence without labels", f"{subject}/{task}")
            else:
                self._write_codes(f"{subject}_{task}", self.table.iloc[rows], frames)
            if self.variant == "video":
                self.video(self.video_name(subject, task), rows, 25)
                continue
            digits = int(self.rng.choice((0, 3, 4, 5))) if self.quirks.padding else 0
            suffix = self.suffix(".jpg")
            for number, row in enumerate(rows, start=first_image):
                self._put_frame(subject, f"{task}/{number:0{digits}d}{suffix}", self.image(row))

    def _write_codes(self, name: str, table: pd.DataFrame, frames: NDArray[np.intp]) -> None:
        occurrence = self._with_nines(np.minimum(_codes(table, self.columns), 1), name)
        self.put(
            f"AUCoding/AU_OCC/{name}.csv",
            csv_text([(0, *self.columns), *np.column_stack([frames, occurrence])]),
        )
        intensity = self._with_nines(_codes(table, bp4d.INTENSITY_AUS), name)
        for au, codes in zip(bp4d.INTENSITY_AUS, intensity.T, strict=True):
            self.put(
                f"AUCoding/AU_INT/AU{au:02d}/{name}_AU{au:02d}.csv",
                csv_text(zip(frames, codes, strict=True)),
            )

    def _with_nines(self, codes: NDArray[np.float64], name: str) -> NDArray[np.intp]:
        nines = ~np.isnan(codes) & (self.rng.random(codes.shape) < self.quirks.nines)
        self.report.note("label written as 9", name, int(nines.sum()))
        return np.where(nines | np.isnan(codes), UNKNOWN, codes).astype(int)

    def _put_frame(self, subject: str, name: str, data: bytes) -> None:
        """Puts an image of BP4D into its subject's folder or zip."""
        if self.variant == "images":
            return self.put(f"Sequences(2D+3D)/{subject}/{name}", data)
        path = self.out / f"2D+3D/{subject}.zip"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "a") as file:
            # dated 1980: the same bytes each time
            file.writestr(zipfile.ZipInfo(f"{subject}/{name}"), data)


class BP4DPlusWriter(BP4DWriter):
    """Writer of BP4D+."""

    layout = "bp4d_plus"
    tasks = bp4d_plus.BP4DPlus.coded_sequences
    columns = bp4d_plus.OCCURRENCE_COLUMNS

    def first_numbers(self) -> tuple[int, int]:
        """Numbers of a sequence's first label row and of its first image (PAPER.md 2.2)."""
        return 1, 0

    def video_name(self, subject: str, task: str) -> str:
        """Path of a sequence as a video."""
        return f"Videos/{subject}_{task}.mp4"


class DISFAWriter(AUWriter):
    """Writer of DISFA; AUs that the benchmark lacks are 0. Both cameras get the same images."""

    layout = "disfa"

    def write(self) -> None:
        codes = np.nan_to_num(_codes(self.table, disfa.INTENSITY_AUS)).astype(int)
        subjects = self.table.groupby("subject", sort=False).indices
        places = [(s, au) for s in subjects for au in disfa.DETECTION_AUS]
        sums = {
            (s, au): codes[subjects[s], disfa.INTENSITY_AUS.index(au)].sum() for s, au in places
        }
        # where zeros are wrong least often
        least = min(sums, key=sums.get) if self.quirks.missing_labels else None
        for subject, rows in subjects.items():
            for au, values in zip(disfa.INTENSITY_AUS, codes[rows].T, strict=True):
                name = f"ActionUnit_Labels/{subject}/{subject}_au{au}.txt"
                if (subject, au) == least:
                    self.report.note("AU without a label file", name)
                else:
                    self.put(name, csv_text(enumerate(values, start=1)))
            if self.variant == "images":
                for number, row in enumerate(rows):
                    self.put(f"{subject}/{number}.png", self.image(row, ".png"))
            else:
                comp = "Comp" if self.quirks.mixed_case else "comp"
                videos = "Videos" if self.quirks.mixed_case else "Video"
                self.video(f"Video_LeftCamera/LeftVideo{subject}_comp.avi", rows, 20)
                self.video(f"{videos}_RightCamera/RightVideo{subject}_{comp}.avi", rows, 20)


def _tasks(table: pd.DataFrame, tasks: tuple[str, ...]) -> pd.Series:
    """The task of each frame: the benchmark's sequences in order, or where it names none, frames in
    equal runs."""
    names = pd.Series("", table.index)
    for rows in table.groupby("subject").indices.values():
        sequence = table["sequence"].iloc[rows]
        units = sequence.to_numpy() if (sequence != "").any() else np.arange(len(rows))
        order = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
        runs = np.array_split(np.arange(len(order)), min(len(order), len(tasks)))
        task_of = np.concatenate(
            [[task] * len(run) for task, run in zip(tasks, runs, strict=False)]
        )
        names.iloc[rows] = [task_of[order[unit]] for unit in units]
    return names.rename("task")


def _codes(table: pd.DataFrame, aus: tuple[int, ...]) -> NDArray[np.float64]:
    """(N, A) whole intensities 0..5, NaN for an AU that the benchmark lacks."""
    values = table.reindex(columns=list(labels.columns(aus))).to_numpy(float)
    # tables hold six digits
    return np.where(values < labels.OCCURRENCE_THRESHOLD - 1e-4, 0.0, values.round())
