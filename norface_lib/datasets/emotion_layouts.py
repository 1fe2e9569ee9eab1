"""A rendered benchmark in the layouts of AffectNet and RAF-DB."""

import hashlib
import io
from typing import ClassVar

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.datasets import affectnet, rafdb
from norface_lib.datasets.index import EMOTION
from norface_lib.datasets.label_table import emotions_of
from norface_lib.datasets.layout_writer import LayoutWriter, image_bytes
from norface_lib.images.files import decode


class EmotionWriter(LayoutWriter):
    """Writer of a dataset with emotions, where a fifth of the rendered subjects makes the part that
    is tested."""

    emotions: ClassVar[tuple[str, ...]]

    def rename(self, table: pd.DataFrame) -> pd.DataFrame:
        names = emotions_of(table, self.benchmark)
        for emotion in sorted(set(names) - set(self.emotions)):
            reason = f"frame with the emotion {emotion}" if emotion else "frame without an emotion"
            self.drop(reason, table, names == emotion)
        table = table.assign(emotion=names)[names.isin(self.emotions)].reset_index(drop=True)

        subjects = table["subject"].unique()
        if len(subjects) < 2:
            raise DataError(
                f"{self.benchmark}: two subjects with emotions are needed at least, one to train "
                "and one to test"
            )
        tested = self.rng.permutation(subjects)[: max(1, len(subjects) // 5)]
        return table.assign(tested=table["subject"].isin(tested))


class AffectNetWriter(EmotionWriter):
    """Writer of AffectNet."""

    emotions = affectnet.EMOTIONS

    def write(self) -> None:
        for part, tested in (("train", False), ("val", True)):
            rows = np.flatnonzero(self.table["tested"] == tested)
            codes = [(row, affectnet.EMOTIONS.index(self.table[EMOTION].iloc[row])) for row in rows]
            odd = len(affectnet.CODES) - len(affectnet.EMOTIONS) if self.quirks.odd_rows else 0
            codes += [(rows[-1], len(affectnet.EMOTIONS) + number) for number in range(odd)]
            self.report.note("image whose code is no emotion", part, odd)
            getattr(self, f"_write_{self.variant}")(part, codes)

    def _write_old(self, part: str, codes: list[tuple[int, int]]) -> None:
        name = {"train": "training", "val": "validation"}[part]
        lines = [] if self.quirks.odd_rows and part == "val" else [",".join(affectnet.COLUMNS)]
        for number, (row, code) in enumerate(codes):
            digest = hashlib.md5(f"{part}{number}".encode()).hexdigest()
            file = f"{number % 7 + 1}/{digest}{self.suffix('.jpg')}"
            source = self.benchmark / str(self.table["image"].iloc[row])
            size = decode(image_bytes(source), str(source)).shape[0]
            self.put(
                f"Manually_Annotated/Manually_Annotated_Images/{file}",
                self.image(row, change=_framed),
            )
            lines.append(f"{file},{size // 4},{size // 4},{size},{size},,{code},-2,-2")
        if self.quirks.odd_rows:
            lines += [f"{file},-1,-1,{size},{size},,0,-2,-2", "###"]
            self.report.note("row with a negative box, and row that cannot be parsed", name, 2)
        self.put(f"Manually_Annotated_file_lists/{name}.csv", "\n".join(lines) + "\n")

    def _write_new(self, part: str, codes: list[tuple[int, int]]) -> None:
        for number, (row, code) in enumerate(codes):
            self.put(f"{part}_set/images/{number}.jpg", self.image(row))
            as_text = self.quirks.odd_rows and number % 2
            self.put(
                f"{part}_set/annotations/{number}_exp.npy", _npy(str(code) if as_text else code)
            )

    def _write_folders(self, part: str, codes: list[tuple[int, int]]) -> None:
        for number, (row, code) in enumerate(codes):
            self.put(f"{part}/{code}/{number}{self.suffix('.jpg')}", self.image(row))


class RAFDBWriter(EmotionWriter):
    """Writer of RAF-DB."""

    emotions = rafdb.EMOTIONS

    def write(self) -> None:
        lines = []
        for part, digits in (("train", 5), ("test", 4)):
            rows = np.flatnonzero(self.table["tested"] == (part == "test"))
            for number, row in enumerate(rows, start=1):
                name = f"{part}_{number:0{digits}d}"
                label = rafdb.EMOTIONS.index(self.table[EMOTION].iloc[row]) + 1
                lines.append(f"{name}.jpg {label}")
                change = None if self.variant == "original" else _small
                self.put(self._path(name, part, label), self.image(row, change=change))
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

    def _path(self, name: str, part: str, label: int) -> str:
        folders = {
            "folders": f"{part}/{label}/{name}_aligned",
            "aligned": f"basic/Image/aligned/{name}_aligned",
        }
        return folders.get(self.variant, f"basic/Image/original/{name}") + ".jpg"


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
