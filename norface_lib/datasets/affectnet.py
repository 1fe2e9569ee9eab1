"""AffectNet (Mollahosseini et al. 2019): faces from the web with one of 8 emotions (PAPER.md
2.4)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.index import EMOTION, single_images
from norface_lib.images.files import SUFFIXES

EMOTIONS = labels.EMOTIONS
"""Emotions by their code."""

CODES = (*EMOTIONS, "none", "uncertain", "non-face")
"""All codes; the last three are no emotions."""

COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
"""Columns of the old release's lists, which some copies lack the names of."""

BOX = COLUMNS[1:5]

_PARTS = {"training": "train", "validation": "val"}


class AffectNet(FaceDataset):
    """AffectNet in its old release (lists and boxes), its new one (a file per label), or sorted
    into class folders.

    ``classes`` is 8, or 7 to leave out contempt. The label is the emotion's code, its position in
    ``classes``. There is no public test set: part ``val`` is tested on. With ``crop``, images of
    the old release are cut to their face box.
    """

    title = "AffectNet"
    source = (
        "AffectNet is given out by the University of Denver to researchers who fill in its "
        "agreement: "
        "https://mohammadmahoor.com/pages/databases/affectnet/"
    )
    tree = """
Manually_Annotated_file_lists/training.csv, validation.csv      the old release, with
Manually_Annotated/Manually_Annotated_Images/1/0a1b.jpg
train_set/images/0.jpg, train_set/annotations/0_exp.npy         or the new one, and val_set
train/0/0.jpg, val/0/0.jpg                                      or a folder for each class"""
    tasks = ("emotion",)
    published = (
        "train 287,651 and val 4,000 (8 classes), 283,901 and 3,500 (7); the new release lacks one "
        "val image"
    )

    def __init__(
        self,
        root: Path,
        task: str = "emotion",
        classes: int = 8,
        crop: bool = True,
        transform: Callable[..., Any] | None = None,
        index: Any = None,
    ):
        if classes not in (7, 8):
            raise ValueError(f"AffectNet has 7 or 8 classes, got {classes}")
        self.task = self.checked_task(task)
        self.classes = EMOTIONS[:classes]
        self.labels = (EMOTION,)
        self.highest = float(classes - 1)
        self.crop = crop
        super().__init__(root, transform, index)

    def _scan(self) -> pd.DataFrame:
        for layout in (self._lists, self._annotations, self._folders):
            images = list(layout())
            if images or self.report.dropped:
                return single_images(images)
        return single_images([])

    def picture(self, row: pd.Series) -> NDArray[np.uint8]:
        """The picture of a row, cut to its face box if there is one and ``crop`` is set: (H, W, 3)
        of 8 bits, RGB."""
        image = self.read(row["path"])
        if not self.crop or BOX[0] not in row.index or np.isnan(row[BOX[0]]):
            return image
        x, y, width, height = (int(row[name]) for name in BOX)
        face = image[max(0, y) : y + height, max(0, x) : x + width]
        if not face.size:
            raise DataError(
                f"{self.root / row['path']}: the face box lies outside the image; drop it with "
                "check()"
            )
        return face

    def _emotion(self, code: int, part: str, path: str) -> Iterator[dict[str, Any]]:
        """The row of an image, unless its code is none of ``classes``."""
        if 0 <= code < len(self.classes):
            yield {"part": part, "path": path, EMOTION: float(code)}
        else:
            what = CODES[code] if 0 <= code < len(CODES) else "unknown"
            self.report.drop(f"code {code} ({what})", path)

    def _lists(self) -> Iterator[dict[str, Any]]:
        """The old release."""
        for name, part in _PARTS.items():
            path = self.listing.find(f"Manually_Annotated_file_lists/{name}.csv", f"{name}.csv")
            for line, row in _rows(self.root / path) if path else ():
                yield from self._listed(part, f"{Path(path).name}, line {line}", row)

    def _listed(self, part: str, where: str, row: dict[str, str]) -> Iterator[dict[str, Any]]:
        try:
            code, box, name = (
                int(float(row["expression"])),
                [float(row[column]) for column in BOX],
                row[COLUMNS[0]],
            )
        except (KeyError, ValueError, OverflowError):
            self.report.drop("row that cannot be parsed", where)
            return
        folders = (
            "Manually_Annotated/Manually_Annotated_Images/",
            "Manually_Annotated_Images/",
            "",
        )
        path = self.listing.find(*(folder + name for folder in folders))
        if not 0 <= code < len(self.classes):
            yield from self._emotion(code, part, name)
        elif not (all(value >= 0 for value in box) and all(value >= 1 for value in box[2:])):
            self.report.drop("face box that is negative or empty", where)
        elif path is None or not path.lower().endswith(SUFFIXES):
            self.report.drop("listed image that is missing", name)
        else:
            for image in self._emotion(code, part, path):
                yield image | dict(zip(BOX, box, strict=True))

    def _annotations(self) -> Iterator[dict[str, Any]]:
        """The new release."""
        for part in _PARTS.values():
            images = {Path(name).stem: name for name in self._image_names(f"{part}_set/images")}
            folder = self.listing.find(f"{part}_set/annotations")
            labeled = (
                sorted(n for n in self.listing.names(folder).values() if n.endswith("_exp.npy"))
                if folder
                else []
            )
            for name in labeled:
                image = images.pop(name.removesuffix("_exp.npy"), None)
                if image is None:
                    self.report.drop("annotation without an image", f"{folder}/{name}")
                else:
                    yield from self._annotated(
                        part, f"{folder}/{name}", self.listing.find(f"{part}_set/images/{image}")
                    )
            for name in images.values():
                self.report.drop("image without an annotation", f"{part}_set/images/{name}")

    def _annotated(self, part: str, annotation: str, image: str) -> Iterator[dict[str, Any]]:
        try:
            # some copies hold the number as text
            code = int(float(np.load(self.root / annotation).item()))
        except (OSError, ValueError, EOFError):
            self.report.drop("annotation that cannot be read", annotation)
        else:
            yield from self._emotion(code, part, image)

    def _folders(self) -> Iterator[dict[str, Any]]:
        """Copies sorted by class."""
        for part in _PARTS.values():
            folder = self.listing.find(part)
            codes = (
                [name for name in self.listing.names(folder).values() if name.isdigit()]
                if folder
                else []
            )
            for code in sorted(codes, key=int):
                for name in self._image_names(f"{folder}/{code}"):
                    yield from self._emotion(int(code), part, f"{folder}/{code}/{name}")

    def _image_names(self, folder: str) -> list[str]:
        existing = self.listing.find(folder)
        names = self.listing.names(existing).values() if existing else ()
        return sorted(name for name in names if name.lower().endswith(SUFFIXES))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values by column of a list, with or without a header."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        columns = COLUMNS
        # no quotes are used: a stray one must not swallow what follows
        for number, line in enumerate(file, start=1):
            row = [value.strip().strip('"') for value in line.split(",")]
            if number == 1 and "expression" in row:
                columns = tuple(row)
            elif line.strip():
                yield number, dict(zip(columns, row, strict=False))
