"""RAF-DB (Li et al. 2017), basic emotions: faces from the web with one of 7 emotions (PAPER.md
2.5)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.index import EMOTION, single_images
from norface_lib.images.files import SUFFIXES

EMOTIONS = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
"""Emotions in the order of RAF-DB's labels, which count from 1."""

LIST = "EmoLabel/list_patition_label.txt"  # so spelled
_PARTS = ("train", "test")


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
        table = self.listing.find(LIST, f"basic/{LIST}", f"raf-basic/{LIST}")
        return single_images(list(self._listed(table) if table else self._folders()))

    def _listed(self, file: str) -> Iterator[dict[str, Any]]:
        """The official layout."""
        base = file[: -len(LIST)]
        folder = f"{base}Image/{'aligned' if self.aligned else 'original'}"
        unlabeled = set(self.listing.names(self.listing.find(folder) or folder))
        for number, line in enumerate(_lines(self.root / file), start=1):
            name, _, label = line.strip().rpartition(" ")
            stem, dot, suffix = name.strip().rpartition(".")
            part = name.split("_")[0]
            if not (
                dot and part in _PARTS and label.isdigit() and 1 <= int(label) <= len(EMOTIONS)
            ):
                self.report.drop("line that cannot be parsed", f"{Path(file).name}, line {number}")
                continue
            image = f"{stem}_aligned.{suffix}" if self.aligned else name.strip()
            unlabeled.discard(image.lower())
            if path := self.listing.find(f"{folder}/{image}"):
                yield {"part": part, "path": path, EMOTION: float(int(label) - 1)}
            else:
                self.report.drop("listed image that is missing", f"{folder}/{image}")
        for image in sorted(unlabeled):
            self.report.drop("image without a label", f"{folder}/{image}")

    def _folders(self) -> Iterator[dict[str, Any]]:
        """Class folders. Copies are known that put test images into train (PAPER.md 2.5): those are
        dropped by their name."""
        for part in _PARTS:
            base = self.listing.find(part, f"DATASET/{part}", f"basic/{part}")
            for label in sorted(self.listing.names(base).values() if base else ()):
                if not (label.isdigit() and 1 <= int(label) <= len(EMOTIONS)):
                    self.report.note("entry that is no class folder 1..7", f"{base}/{label}")
                    continue
                for name in sorted(self.listing.names(f"{base}/{label}").values()):
                    other = _PARTS[1 - _PARTS.index(part)]
                    if name.lower().startswith(f"{other}_"):
                        self.report.drop(
                            f"{other} image in the {part} folder", f"{base}/{label}/{name}"
                        )
                    elif name.lower().endswith(SUFFIXES):
                        yield {
                            "part": part,
                            "path": f"{base}/{label}/{name}",
                            EMOTION: float(int(label) - 1),
                        }


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a readable label list ({error}); unpack RAF-DB again"
        ) from error
