"""A rendered benchmark in the layout of a gated dataset, quirks included, so that the real loader
and protocol run on it.

Rendered subjects take the dataset's official subject ids in order, so the official folds apply. AUs
that the benchmark lacks are written as 9 (not coded) in BP4D and BP4D+, and as 0 in DISFA, which
has no code for that. Intensities are rounded; below 1 (A) an AU is absent. Both cameras of DISFA
get the same images. Frames without an emotion are left out of the emotion datasets, where a fifth
of the rendered subjects makes the part that is tested. All is deterministic by seed.
"""

import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets import affectnet, bp4d, bp4d_plus, disfa, rafdb
from norface_lib.datasets.base import EMOTION, Report
from norface_lib.datasets.protocols import SUBJECTS
from norface_lib.datasets.rendered import emotions_of, read_labels
from norface_lib.images.files import decode
from norface_lib.labels import UNKNOWN

VARIANTS = {
    "bp4d": ("images", "zip", "video"),
    "bp4d_plus": ("zip", "video", "images"),
    "disfa": ("video", "images"),
    "affectnet": ("old", "new", "folders"),
    "rafdb": ("aligned", "original", "folders"),
}
"""Layouts, and the forms that each was given out in; the first is the default."""

_BP4D_COLUMNS = tuple(range(1, 28))
_BP4D_SESSIONS = {task: code for code, task in bp4d.SESSIONS.items()}


@dataclass(frozen=True)
class Quirks:
    """What makes real data awkward. ``CLEAN`` is none of it."""

    mixed_case: bool = True  # .JPG beside .jpg, Comp beside comp, Videos beside Video
    padding: bool = True  # each sequence pads its frame numbers in its own way
    nines: float = 0.01  # share of BP4D's labels that are written as 9, unknown
    missing_labels: bool = True  # no labels for BP4D's last sequence, no file for one AU of DISFA
    unreadable: bool = True  # one truncated image; videos have none
    # lines that cannot be parsed, codes that are no emotion, a list without a header, a misplaced
    # image
    odd_rows: bool = True


CLEAN = Quirks(False, False, 0.0, False, False, False)


def write_as(
    layout: str,
    benchmark: Path,
    out: Path,
    variant: str | None = None,
    quirks: Quirks = Quirks(),
    seed: int = 0,
) -> Report:
    """Writes ``benchmark``, a folder that ``write_benchmark`` made, to ``out`` in a layout of
    ``VARIANTS``, all or nothing.

    The report says what was written and left out, and counts each quirk. Raises ``ValueError`` for
    an unknown layout or variant and :class:`DataError` for a damaged benchmark, one without
    emotions where they are needed, or an ``out`` that is in use.
    """
    layout = layout.lower().replace("+", "_plus")
    if layout not in VARIANTS or variant not in (None, *VARIANTS[layout]):
        known = "; ".join(f"{name}: {', '.join(forms)}" for name, forms in VARIANTS.items())
        raise ValueError(f"layout and variant must be among {known}; got {layout!r}, {variant!r}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is in use; choose a folder that does not exist")
    with _all_or_nothing(out) as part:
        writer = _Writer(
            Path(benchmark), part, layout, variant or VARIANTS[layout][0], quirks, seed
        )
        getattr(writer, f"write_{layout}")()
        return writer.report


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if out.exists():
            out.rmdir()
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class _Writer:
    """One call of `write_as`: the table of frames with official names, and how their images and
    labels are put on disk."""

    def __init__(
        self, benchmark: Path, out: Path, layout: str, variant: str, quirks: Quirks, seed: int
    ):
        self.benchmark, self.out, self.variant, self.quirks = benchmark, out, variant, quirks
        self.rng = np.random.default_rng([seed, list(VARIANTS).index(layout)])
        self.report = Report(f"written as {layout} ({variant})")
        self.table = _ordered(read_labels(benchmark, aus=()))
        if layout in SUBJECTS:
            self._rename_subjects(sorted(SUBJECTS[layout]))
        else:
            self._split_subjects(affectnet.EMOTIONS if layout == "affectnet" else rafdb.EMOTIONS)
        self.report.found = {"frames": len(self.table), "subjects": self.table["subject"].nunique()}
        self.broken = self.rng.integers((len(self.table) + 1) // 2) if quirks.unreadable else -1

    def _rename_subjects(self, official: list[str]) -> None:
        names = dict(zip(self.table["subject"].unique(), official, strict=False))
        more = ~self.table["subject"].isin(list(names))
        what = f"frame of a subject beyond the official {len(official)}"
        self.report.drop(what, _example(self.table, more), int(more.sum()))
        self.table = (
            self.table[~more]
            .assign(subject=self.table["subject"].map(names))
            .reset_index(drop=True)
        )

    def _split_subjects(self, emotions: tuple[str, ...]) -> None:
        names = emotions_of(self.table, self.benchmark)
        for emotion in sorted(set(names) - set(emotions)):
            what = f"frame with the emotion {emotion}" if emotion else "frame without an emotion"
            self.report.drop(
                what, _example(self.table, names == emotion), int((names == emotion).sum())
            )
        self.table = self.table.assign(emotion=names)[names.isin(emotions)].reset_index(drop=True)
        subjects = self.table["subject"].unique()
        if len(subjects) < 2:
            raise DataError(
                f"{self.benchmark}: two subjects with emotions are needed at least, one to train "
                "and one to test"
            )
        tested = self.rng.permutation(subjects)[: max(1, len(subjects) // 5)]
        self.table["tested"] = self.table["subject"].isin(tested)

    # --- files ------------------------------------------------------------------------------------

    def put(self, path: str, data: bytes | str) -> None:
        file = self.out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if isinstance(data, str) else data)

    def image(
        self,
        row: int,
        suffix: str = ".jpg",
        change: Callable[[NDArray[np.uint8]], NDArray] | None = None,
    ) -> bytes:
        """Frame ``row`` as an encoded image: the benchmark's own bytes where they serve, half of
        them if it is to be broken."""
        source = self.benchmark / str(self.table["image"].iloc[row])
        data = _bytes(source)
        if change or source.suffix.lower() != suffix:
            pixels = (
                decode(data, str(source)) if change is None else change(decode(data, str(source)))
            )
            options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else []
            data = cv2.imencode(suffix, pixels[..., ::-1], options)[1].tobytes()
        if row != self.broken:
            return data
        self.report.note("truncated image", self.table["image"].iloc[row])
        return data[: len(data) // 2]

    def video(self, path: str, rows: NDArray[np.intp], rate: float) -> None:
        frames = [self.benchmark / str(name) for name in self.table["image"].iloc[rows]]
        size = decode(_bytes(frames[0]), str(frames[0])).shape
        file = self.out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        codec = cv2.VideoWriter_fourcc(*("MJPG" if file.suffix.lower() == ".avi" else "mp4v"))
        video = cv2.VideoWriter(str(file), codec, rate, (size[1], size[0]))
        for source in frames:
            pixels = decode(_bytes(source), str(source))
            # OpenCV would leave the frame out without a word
            if not video.isOpened() or pixels.shape != size:
                raise DataError(
                    f"{source}: cannot be written to a video of {size[1]} x {size[0]} px; use "
                    "another variant"
                )
            video.write(np.ascontiguousarray(pixels[..., ::-1]))
        video.release()

    def frame(self, subject: str, name: str, data: bytes) -> None:
        """Puts an image of BP4D into its subject's folder or zip."""
        if self.variant == "images":
            return self.put(f"Sequences(2D+3D)/{subject}/{name}", data)
        path = self.out / f"2D+3D/{subject}.zip"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "a") as file:
            # dated 1980: the same bytes each time
            file.writestr(zipfile.ZipInfo(f"{subject}/{name}"), data)

    def suffix(self, name: str) -> str:
        return name.upper() if self.quirks.mixed_case and self.rng.random() < 0.5 else name

    # --- BP4D and BP4D+ ---------------------------------------------------------------------------

    def write_bp4d(self) -> None:
        self._write_sequences(
            bp4d.BP4D.coded_sequences,
            _BP4D_COLUMNS,
            lambda s, t: f"Videos/2{s[0]}{s[2:]}_{_BP4D_SESSIONS[t]}.avi",
        )

    def write_bp4d_plus(self) -> None:
        self._write_sequences(
            bp4d_plus.BP4DPlus.coded_sequences,
            bp4d_plus.OCCURRENCE_COLUMNS,
            lambda s, t: f"Videos/{s}_{t}.mp4",
        )

    def _write_sequences(
        self, tasks: tuple[str, ...], columns: tuple[int, ...], video: Callable[[str, str], str]
    ) -> None:
        sequences = list(
            self.table.groupby(["subject", _tasks(self.table, tasks)], sort=False).indices.items()
        )
        for number, ((subject, task), rows) in enumerate(sequences):
            first = 1 if self.variant == "video" else int(self.rng.integers(1, 900))
            frames = np.arange(first, first + len(rows))
            if self.quirks.missing_labels and number == len(sequences) - 1 > 0:
                self.report.note("sequence without labels", f"{subject}/{task}")
            else:
                self._write_codes(f"{subject}_{task}", self.table.iloc[rows], frames, columns)
            if self.variant == "video":
                self.video(video(subject, task), rows, 25)
                continue
            digits, suffix = (
                int(self.rng.choice((0, 3, 4, 5))) if self.quirks.padding else 0,
                self.suffix(".jpg"),
            )
            for frame, row in zip(frames, rows, strict=True):
                self.frame(subject, f"{task}/{frame:0{digits}d}{suffix}", self.image(row))

    def _write_codes(
        self, name: str, table: pd.DataFrame, frames: NDArray[np.intp], columns: tuple[int, ...]
    ) -> None:
        occurrence = self._with_nines(np.minimum(_codes(table, columns), 1), name)
        self.put(
            f"AUCoding/AU_OCC/{name}.csv",
            _csv([(0, *columns), *np.column_stack([frames, occurrence])]),
        )
        intensity = self._with_nines(_codes(table, bp4d.INTENSITY_AUS), name)
        for au, codes in zip(bp4d.INTENSITY_AUS, intensity.T, strict=True):
            self.put(
                f"AUCoding/AU_INT/AU{au:02d}/{name}_AU{au:02d}.csv",
                _csv(zip(frames, codes, strict=True)),
            )

    def _with_nines(self, codes: NDArray[np.float64], name: str) -> NDArray[np.intp]:
        nines = ~np.isnan(codes) & (self.rng.random(codes.shape) < self.quirks.nines)
        self.report.note("label written as 9", name, int(nines.sum()))
        return np.where(nines | np.isnan(codes), UNKNOWN, codes).astype(int)

    # --- DISFA ------------------------------------------------------------------------------------

    def write_disfa(self) -> None:
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
                    self.put(name, _csv(enumerate(values, start=1)))
            if self.variant == "images":
                for number, row in enumerate(rows):
                    self.put(f"{subject}/{number}.png", self.image(row, ".png"))
            else:
                comp, videos = ("Comp", "Videos") if self.quirks.mixed_case else ("comp", "Video")
                self.video(f"Video_LeftCamera/LeftVideo{subject}_comp.avi", rows, 20)
                self.video(f"{videos}_RightCamera/RightVideo{subject}_{comp}.avi", rows, 20)

    # --- emotions ---------------------------------------------------------------------------------

    def write_affectnet(self) -> None:
        for part, tested in (("train", False), ("val", True)):
            rows = np.flatnonzero(self.table["tested"] == tested)
            codes = [(row, affectnet.EMOTIONS.index(self.table[EMOTION].iloc[row])) for row in rows]
            odd = len(affectnet.CODES) - len(affectnet.EMOTIONS) if self.quirks.odd_rows else 0
            codes += [(rows[-1], len(affectnet.EMOTIONS) + number) for number in range(odd)]
            self.report.note("image whose code is no emotion", part, odd)
            getattr(self, f"_affectnet_{self.variant}")(part, codes)

    def _affectnet_old(self, part: str, codes: list[tuple[int, int]]) -> None:
        name = {"train": "training", "val": "validation"}[part]
        lines = [] if self.quirks.odd_rows and part == "val" else [",".join(affectnet.COLUMNS)]
        for number, (row, code) in enumerate(codes):
            digest = hashlib.md5(f"{part}{number}".encode()).hexdigest()
            file = f"{number % 7 + 1}/{digest}{self.suffix('.jpg')}"
            size = decode(_bytes(self.benchmark / str(self.table["image"].iloc[row])), file).shape[
                0
            ]
            self.put(
                f"Manually_Annotated/Manually_Annotated_Images/{file}",
                self.image(row, change=_framed),
            )
            lines.append(f"{file},{size // 4},{size // 4},{size},{size},,{code},-2,-2")
        if self.quirks.odd_rows:
            lines += [f"{file},-1,-1,{size},{size},,0,-2,-2", "###"]
            self.report.note("row with a negative box, and row that cannot be parsed", name, 2)
        self.put(f"Manually_Annotated_file_lists/{name}.csv", "\n".join(lines) + "\n")

    def _affectnet_new(self, part: str, codes: list[tuple[int, int]]) -> None:
        for number, (row, code) in enumerate(codes):
            self.put(f"{part}_set/images/{number}.jpg", self.image(row))
            as_text = self.quirks.odd_rows and number % 2
            self.put(
                f"{part}_set/annotations/{number}_exp.npy", _npy(str(code) if as_text else code)
            )

    def _affectnet_folders(self, part: str, codes: list[tuple[int, int]]) -> None:
        for number, (row, code) in enumerate(codes):
            self.put(f"{part}/{code}/{number}{self.suffix('.jpg')}", self.image(row))

    def write_rafdb(self) -> None:
        lines = []
        for part, digits in (("train", 5), ("test", 4)):
            for number, row in enumerate(
                np.flatnonzero(self.table["tested"] == (part == "test")), start=1
            ):
                name, label = (
                    f"{part}_{number:0{digits}d}",
                    rafdb.EMOTIONS.index(self.table[EMOTION].iloc[row]) + 1,
                )
                lines.append(f"{name}.jpg {label}")
                change = None if self.variant == "original" else _small
                self.put(self._rafdb_path(name, part, label), self.image(row, change=change))
        if self.quirks.odd_rows and self.variant == "folders":
            self.put(
                "train/1/test_0001_aligned.jpg", self.image(len(self.table) - 1, change=_small)
            )
            self.report.note("test image in the train folder", "train/1/test_0001_aligned.jpg")
        elif self.quirks.odd_rows:
            lines += ["train_99998.jpg", "train_99999.jpg 4"]
            self.report.note("line that cannot be parsed, and line without an image", lines[-2], 2)
        if self.variant != "folders":
            self.put(f"basic/{rafdb.LIST}", "\n".join(lines) + "\n")

    def _rafdb_path(self, name: str, part: str, label: int) -> str:
        folders = {
            "folders": f"{part}/{label}/{name}_aligned",
            "aligned": f"basic/Image/aligned/{name}_aligned",
        }
        return folders.get(self.variant, f"basic/Image/original/{name}") + ".jpg"


def _example(table: pd.DataFrame, rows: pd.Series) -> str:
    """The first image of some rows, as an example of them; empty if there is none."""
    return str(table["image"][rows].iloc[0]) if rows.any() else ""


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """By subject, sequence (T2 before T10) and frame."""
    names = (
        table["sequence"].fillna("").astype(str)
        if "sequence" in table.columns
        else pd.Series("", table.index)
    )
    table = table.assign(sequence=names, length=names.str.len())
    return table.sort_values(["subject", "length", "sequence", "frame"], ignore_index=True)


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


def _csv(rows: Iterable[Iterable[object]]) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: no such image; render the benchmark again") from error


def _framed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With a border of a quarter, so that a face box has something to cut off."""
    return cv2.copyMakeBorder(image, *[len(image) // 4] * 4, cv2.BORDER_REPLICATE)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As large as RAF-DB's aligned images."""
    return cv2.resize(image, (100, 100), interpolation=cv2.INTER_AREA)


def _npy(value: int | str) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(value))
    return buffer.getvalue()
