"""RAF-DB (Li et al. 2017), basic emotions: faces from the web with one of 7 emotions (PAPER.md
2.5)."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.index import EMOTION, single_images
from norface_lib.datasets.text_tables import read_text, whole_number
from norface_lib.images.files import SUFFIXES

EMOTIONS = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
"""Emotions in the order of RAF-DB's labels, which count from 1."""

LIST = "EmoLabel/list_patition_label.txt"  # so spelled
_LISTS = tuple(f"{base}{LIST}" for base in ("", "basic/", "raf-basic/"))
_PARTS = ("train", "test")

_FOLDERS = {"train": ("train", "training"), "test": ("test", "testing")}
"""Names that copies give the folder of a part, in any case. ``valid`` is none: RAF-DB has no such
part, and copies mean different images by it."""

_LINE = re.compile(r"(?P<name>.+?)[\s,;]+(?P<label>[^\s,;]+)[\s,;]*")
"""A line of the list: name and label, between them a space, a tab, a comma or a semicolon."""


class RAFDB(FaceDataset):
    """RAF-DB with its label list and aligned or original images, or a copy sorted into class
    folders.

    The label is the position in ``classes``: RAF-DB's own number less 1. ``aligned`` chooses the
    images that its authors aligned; class folders hold whatever their maker chose.
    """

    title = "RAF-DB"
    source = (
        "RAF-DB is given out by the Beijing University of Posts and Telecommunications to "
        "researchers who write to its "
        "authors: http://www.whdeng.cn/RAF/model1.html"
    )
    tree = """
basic/EmoLabel/list_patition_label.txt                  lines "train_00001.jpg 5"
basic/Image/aligned/train_00001_aligned.jpg             and Image/original/train_00001.jpg
train/1/train_00001_aligned.jpg, test/1/...             or a folder for each class 1..7"""
    tasks = ("emotion",)
    published = "train 12,271, test 3,068"
    classes = EMOTIONS
    labels = (EMOTION,)
    highest = 6.0

    def __init__(
        self,
        root: Path,
        task: str = "emotion",
        aligned: bool = True,
        transform: Callable[..., Any] | None = None,
        index: Any = None,
    ):
        self.task = self.checked_task(task)
        self.aligned = aligned
        super().__init__(root, transform, index)

    def _scan(self) -> pd.DataFrame:
        table = self.listing.find(*_LISTS)
        return single_images(list(self._listed(table) if table else self._folders()))

    def _listed(self, file: str) -> Iterator[dict[str, Any]]:
        """The official layout."""
        self.accounted.add(file)
        base = file[: -len(LIST)]
        folder = f"{base}Image/{'aligned' if self.aligned else 'original'}"
        folder = self.listing.find(folder) or folder
        unlabeled = set(self.listing.names(folder))
        lines = list(self._lines(file))
        self._check_labels({label for _, _, label in lines}, file)
        for number, name, label in lines:
            stem, dot, suffix = name.rpartition(".")
            stem = re.sub("_aligned$", "", stem, flags=re.IGNORECASE)
            part = name.split("_")[0].lower()
            if not (dot and part in _PARTS and 1 <= label <= len(EMOTIONS)):
                self.report.drop("line that cannot be parsed", f"{Path(file).name}, line {number}")
                continue
            image = f"{stem}_aligned.{suffix}" if self.aligned else f"{stem}.{suffix}"
            if path := self.listing.find_image(f"{folder}/{image}"):
                unlabeled.discard(path.rsplit("/", 1)[-1])
                yield _row(part, path, label)
            else:
                self.report.drop("listed image that is missing", f"{folder}/{image}")
        for image in sorted(unlabeled):
            if image.lower().endswith(SUFFIXES):
                self.accounted.add(f"{folder}/{image}")
                self.report.drop("image without a label", f"{folder}/{image}")

    def _lines(self, file: str) -> Iterator[tuple[int, str, int]]:
        """Number of the line, name of the image without its folder, and label, -1 for what is no
        number; for each line of the list."""
        for number, line in enumerate(read_text(self.root / file).splitlines(), start=1):
            line = line.replace('"', "").replace("\\", "/").strip()
            match = _LINE.fullmatch(line)
            try:
                label = whole_number(match["label"]) if match else -1
            except ValueError:
                label = -1
            name = match["name"] if match else line
            if line:
                yield number, name.strip().rsplit("/", 1)[-1], label

    def _check_labels(self, labels: set[int], where: str) -> None:
        if 0 in labels and len(EMOTIONS) not in labels:
            raise DataError(
                f"{self.root / where}: its labels count from 0 (there is a 0, and no "
                f"{len(EMOTIONS)}), and RAF-DB's from 1; add 1 to each, or name the class folders "
                f"1..{len(EMOTIONS)}"
            )

    def _folders(self) -> Iterator[dict[str, Any]]:
        """Class folders. Copies are known that put test images into train (PAPER.md 2.5): those are
        dropped by their name."""
        classes: list[tuple[str, str, int]] = []
        for part, names in _FOLDERS.items():
            bases = [f"{base}{name}" for base in ("", "DATASET/", "basic/") for name in names]
            folder = self.listing.find(*bases)
            for name in self.listing.names(folder) if folder else ():
                label = int(name) if name.isascii() and name.isdigit() else -1
                classes.append((part, f"{folder}/{name}", label))
        self._check_labels({label for _, _, label in classes}, "")
        for part, folder, label in classes:
            if 1 <= label <= len(EMOTIONS):
                yield from self._class(part, folder, label)
            else:
                self.report.note("entry that is no class folder 1..7", folder)

    def _class(self, part: str, folder: str, label: int) -> Iterator[dict[str, Any]]:
        """The images of one class folder."""
        other = _PARTS[1 - _PARTS.index(part)]
        for name in self.listing.names(folder):
            path = f"{folder}/{name}"
            if not name.lower().endswith(SUFFIXES):
                continue
            if name.lower().startswith(f"{other}_"):
                self.accounted.add(path)
                self.report.drop(f"{other} image in the {part} folder", path)
            else:
                yield _row(part, path, label)


def _row(part: str, path: str, label: int) -> dict[str, Any]:
    return {"part": part, "path": path, EMOTION: float(label - 1)}
