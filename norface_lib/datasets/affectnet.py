"""AffectNet (Mollahosseini et al. 2019): faces from the web with one of 8 emotions (PAPER.md
2.4)."""

import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.paths import leaves_folder
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.counting import checked_first
from norface_lib.datasets.index import EMOTION, single_images
from norface_lib.datasets.text_tables import SEPARATORS, open_text, split_line, whole_number
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

_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
"""Names that copies give the folder of a part, in any case."""

_CLASS = re.compile(r"(?:class[_-]?)?([0-9]+)", re.IGNORECASE)
"""Name of the folder of a class: 3, or class003."""

_OTHER_ANNOTATIONS = ("_val.npy", "_aro.npy", "_lnd.npy")
"""Ends of the names of annotations that are not read: valence, arousal, landmarks."""

_LARGEST_ANNOTATION = 2**16
"""Bytes of an annotation, which holds one number."""


class AffectNet(FaceDataset):
    """AffectNet in its old release (lists and boxes), its new one (a file per label), or sorted
    into class folders.

    ``classes`` is 8, or 7 to leave out contempt. The label is the emotion's code, its position in
    ``classes``. There is no public test set: part ``val`` is tested on. With ``crop``, images of
    the old release are cut to their face box. ``first_class``: number of the class folder of code
    0, neutral, which is asked for where no folder is 0.
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
train/0/0.jpg, val/0/0.jpg                                      or a folder for each class;
train_class/class001/0.jpg, val_class/class001/0.jpg            for these, say first_class=1"""
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
        first_class: int | None = None,
    ):
        if classes not in (7, 8):
            raise ValueError(f"AffectNet has 7 or 8 classes, got {classes}")
        self.task = self.checked_task(task)
        self.classes = EMOTIONS[:classes]
        self.labels = (EMOTION,)
        self.highest = float(classes - 1)
        self.crop = crop
        self.first_class = checked_first("first_class", first_class)
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
            self.accounted.add(path)
            what = CODES[code] if 0 <= code < len(CODES) else "unknown"
            self.report.drop(f"code {code} ({what})", path)

    def _lists(self) -> Iterator[dict[str, Any]]:
        """The old release."""
        for name, part in _PARTS.items():
            path = self.listing.find(f"Manually_Annotated_file_lists/{name}.csv", f"{name}.csv")
            if path is None:
                continue
            self.accounted.add(path)
            try:
                for line, row in _rows(self.root / path):
                    yield from self._listed(part, f"{Path(path).name}, line {line}", row)
            except OSError as error:
                self.report.drop("label list that cannot be read", f"{path}: {error.strerror}")

    def _listed(self, part: str, where: str, row: dict[str, str]) -> Iterator[dict[str, Any]]:
        try:
            code = whole_number(row["expression"])
            box = [float(row[column]) for column in BOX]
            name = row[COLUMNS[0]].replace("\\", "/")
        except (KeyError, ValueError):
            self.report.drop("row that cannot be parsed", where)
            return
        folders = (
            "Manually_Annotated/Manually_Annotated_Images/",
            "Manually_Annotated_Images/",
            "",
        )
        path = None
        if not leaves_folder(name):
            path = self.listing.find_image(*(folder + name for folder in folders))
        if path is not None:
            self.accounted.add(path)
        if not 0 <= code < len(self.classes):
            yield from self._emotion(code, part, path or name)
        elif not (all(0 <= value < np.inf for value in box) and min(box[2:]) >= 1):
            self.report.drop("face box that is negative or empty", where)
        elif path is None or not path.lower().endswith(SUFFIXES):
            self.report.drop("listed image that is missing", name)
        else:
            for image in self._emotion(code, part, path):
                yield image | dict(zip(BOX, box, strict=True))

    def _annotations(self) -> Iterator[dict[str, Any]]:
        """The new release."""
        for part, names in _FOLDERS.items():
            base = self.listing.find(*(f"{name}_set" for name in names))
            if base is None:
                continue
            folder = self.listing.find(f"{base}/images") or f"{base}/images"
            images = {Path(name).stem: name for name in self._image_names(folder)}
            annotations = self.listing.find(f"{base}/annotations") or f"{base}/annotations"
            for name in self.listing.names(annotations):
                if name.lower().endswith(_OTHER_ANNOTATIONS):
                    self.accounted.add(f"{annotations}/{name}")
                if not name.lower().endswith("_exp.npy"):
                    continue
                self.accounted.add(f"{annotations}/{name}")
                image = images.pop(name[: -len("_exp.npy")], None)
                if image is None:
                    self.report.drop("annotation without an image", f"{annotations}/{name}")
                else:
                    yield from self._annotated(part, f"{annotations}/{name}", f"{folder}/{image}")
            for name in images.values():
                self.accounted.add(f"{folder}/{name}")
                self.report.drop("image without an annotation", f"{folder}/{name}")

    def _annotated(self, part: str, annotation: str, image: str) -> Iterator[dict[str, Any]]:
        try:
            code = _annotated_code(self.root / annotation)
        except (OSError, ValueError) as error:
            self.accounted.add(image)
            self.report.drop("annotation that cannot be read", f"{annotation} ({error})")
        else:
            yield from self._emotion(code, part, image)

    def _folders(self) -> Iterator[dict[str, Any]]:
        """Copies sorted by class."""
        folders = {}
        for part, names in _FOLDERS.items():
            folder = self.listing.find(*names, *(f"{name}_class" for name in names))
            for name in self.listing.names(folder) if folder else ():
                if match := _CLASS.fullmatch(name):
                    folders[part, int(match[1]), f"{folder}/{name}"] = None
        first = self._first_class({number for _, number, _ in folders})
        for part, number, folder in sorted(folders, key=lambda key: (key[0] != "train", key[1])):
            for name in self._image_names(folder):
                yield from self._emotion(number - first, part, f"{folder}/{name}")

    def _first_class(self, numbers: set[int]) -> int:
        """Number of the class folder of code 0."""
        if self.first_class is not None:
            return self.first_class
        if numbers and 0 not in numbers and max(numbers) >= len(EMOTIONS) - 1:
            raise DataError(
                f"{self.root}: its class folders have no 0 (neutral) and go up to {max(numbers)}, "
                "as if they counted from 1; say first_class=1 (with `--option`) if they are "
                f"AffectNet's codes plus 1, or rename them to its codes, 0..{len(EMOTIONS) - 1}"
            )
        return 0

    def _image_names(self, folder: str) -> list[str]:
        return [name for name in self.listing.names(folder) if name.lower().endswith(SUFFIXES)]


def _annotated_code(path: Path) -> int:
    """The one whole number of an ``.npy`` file; some copies hold it as text.

    Raises ``ValueError`` or ``OSError`` for anything else. Nothing larger than an annotation is
    read, and no pickled object.
    """
    with path.open("rb") as file:
        data = file.read(_LARGEST_ANNOTATION + 1)
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(stream)
        one_value = math.prod(shape) == 1 and len(data) <= _LARGEST_ANNOTATION
        if not one_value or dtype.kind not in "iufSU":  # integer, float, or text
            raise ValueError("it does not hold one number")
        value = np.frombuffer(data, dtype, 1, offset=stream.tell())[0]
        return whole_number(value.decode() if isinstance(value, bytes) else value)
    except (ValueError, OSError):
        raise
    except Exception as error:  # a damaged header lets the parser of Python fail in many ways
        raise ValueError(f"no .npy file of one number ({error})") from error


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values by column of a list, with or without a header."""
    with open_text(path) as file:
        columns = COLUMNS
        separator = ","
        for number, line in enumerate(file, start=1):
            if number == 1:
                separator = _separator(line)
            row = split_line(line, separator)
            if number == 1 and "expression" in map(str.lower, row):
                columns = tuple(_NAMES.get(name.lower(), name) for name in row)
            elif line.strip():
                yield number, dict(zip(columns, row, strict=False))


_NAMES = {name.lower(): name for name in COLUMNS}


def _separator(line: str) -> str:
    """The separator by which a list's first line has all columns: the landmarks in it are separated
    by semicolons themselves."""
    for separator in SEPARATORS:
        row = split_line(line, separator)
        if len(row) == len(COLUMNS) or "expression" in map(str.lower, row):
            return separator
    return ","
