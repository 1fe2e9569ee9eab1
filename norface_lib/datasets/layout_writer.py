"""The common part of writing a layout: a benchmark's frames with official names, and how images,
videos and tables are put on disk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.common.paths import inside
from norface_lib.datasets.label_table import read_labels
from norface_lib.datasets.report import Report
from norface_lib.images.files import decode


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """Oddities of real data that are written too."""

    mixed_case: bool = True  # .JPG beside .jpg, Comp beside comp, Videos beside Video
    padding: bool = True  # each sequence pads its frame numbers in its own way
    nines: float = 0.01  # share of BP4D's labels that are written as 9, unknown
    missing_labels: bool = True  # no labels for BP4D's last sequence, no file for one AU of DISFA
    unreadable: bool = True  # one truncated image; videos have none
    # lines that cannot be parsed, codes that are no emotion, a list without a header, a misplaced
    # image
    odd_rows: bool = True


class LayoutWriter:
    """One call of `write_as`: the table of frames, and how their images and labels are put on disk.

    Subclasses give frames official names and parts (`rename`), and write them (`write`).
    """

    def __init__(
        self,
        benchmark: Path,
        out: Path,
        variant: str,
        quirks: Quirks,
        rng: np.random.Generator,
        report: Report,
    ):
        self.benchmark = benchmark
        self.out = out
        self.variant = variant
        self.quirks = quirks
        self.rng = rng
        self.report = report

        self.table = self.rename(_ordered(read_labels(benchmark, aus=())))
        report.found = {"frames": len(self.table), "subjects": self.table["subject"].nunique()}
        self.broken = rng.integers((len(self.table) + 1) // 2) if quirks.unreadable else -1

    def rename(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a benchmark's table that are written, with official subjects or parts."""
        raise NotImplementedError

    def write(self) -> None:
        """Puts all images and labels on disk."""
        raise NotImplementedError

    def drop(self, reason: str, table: pd.DataFrame, rows: pd.Series) -> None:
        """Counts rows (a mask) of a table as left out."""
        example = table["image"][rows].iloc[0] if rows.any() else ""
        self.report.drop(reason, example, int(rows.sum()))

    def put(self, path: str, data: bytes | str) -> None:
        """Writes a file at ``path``, relative to the root."""
        file = inside(self.out, path, writes=True)
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
        source = inside(self.benchmark, str(self.table["image"].iloc[row]))
        data = image_bytes(source)
        if change or source.suffix.lower() != suffix:
            pixels = decode(data, str(source))
            if change is not None:
                pixels = change(pixels)
            options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else []
            data = cv2.imencode(suffix, pixels[..., ::-1], options)[1].tobytes()
        if row != self.broken:
            return data
        self.report.note("truncated image", self.table["image"].iloc[row])
        return data[: len(data) // 2]

    def video(self, path: str, rows: NDArray[np.intp], rate: float) -> None:
        """Writes frames ``rows`` as a video of ``rate`` frames a second."""
        frames = [inside(self.benchmark, str(name)) for name in self.table["image"].iloc[rows]]
        size = decode(image_bytes(frames[0]), str(frames[0])).shape
        file = inside(self.out, path, writes=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        codec = cv2.VideoWriter_fourcc(*("MJPG" if file.suffix.lower() == ".avi" else "mp4v"))
        video = cv2.VideoWriter(str(file), codec, rate, (size[1], size[0]))
        for source in frames:
            pixels = decode(image_bytes(source), str(source))
            # OpenCV would leave the frame out without a word
            if not video.isOpened() or pixels.shape != size:
                raise DataError(
                    f"{source}: cannot be written to a video of {size[1]} x {size[0]} px; use "
                    "another variant"
                )
            video.write(np.ascontiguousarray(pixels[..., ::-1]))
        video.release()

    def suffix(self, name: str) -> str:
        """A suffix, in capitals by chance where cases are mixed."""
        return name.upper() if self.quirks.mixed_case and self.rng.random() < 0.5 else name


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """By subject, sequence (T2 before T10) and frame."""
    names = (
        table["sequence"].fillna("").astype(str)
        if "sequence" in table.columns
        else pd.Series("", table.index)
    )
    table = table.assign(sequence=names, length=names.str.len())
    return table.sort_values(["subject", "length", "sequence", "frame"], ignore_index=True)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as lines of values with commas between them."""
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def image_bytes(path: Path) -> bytes:
    """An encoded image as it lies on disk. Raises :class:`DataError` if it is missing."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: no such image; render the benchmark again") from error
