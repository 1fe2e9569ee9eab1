"""A folder of aligned faces, with or without a table that says what they show."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.datasets.base import FaceDataset
from norface_lib.images.crop import Crop, crop_of
from norface_lib.images.files import list_images, read_faces


@dataclass(frozen=True)
class ImageFolder:
    """Aligned faces in memory: (N, S, S, 3) RGB of 8 bits, their paths, and the rows of
    ``labels.csv`` if there is one."""

    root: Path
    paths: list[Path]
    faces: NDArray[np.uint8]
    table: pd.DataFrame | None
    crop: Crop

    def __len__(self) -> int:
        return len(self.paths)


def load_folder(root: Path, size: int, progress: bool = False) -> ImageFolder:
    """Reads all faces under a folder, or those that its ``labels.csv`` (column ``image``) names,
    into our crop at ``size`` px.

    Raises :class:`DataError`, naming the file, for a missing or empty folder, an unreadable image,
    one that is no face crop, or a table without the column ``image``.
    """
    root = Path(root)
    paths = list_images(root)
    table = _read_table(root / "labels.csv")
    if table is not None:
        paths = [root / str(name) for name in table["image"]]
    crop = crop_of(root)
    return ImageFolder(root, paths, read_faces(paths, size, crop, progress), table, crop)


class FolderFaces(FaceDataset):
    """All images under a folder, without labels; the subject of an image is its folder."""

    title = "Image folder"
    source = "Any folder of images will do"
    tree = "anything/portrait.jpg"
    labels = ()

    def _scan(self) -> pd.DataFrame:
        paths = [path.relative_to(self.root) for path in list_images(self.root)]
        keys = {
            "subject": [path.parent.as_posix() for path in paths],
            "path": [path.as_posix() for path in paths],
        }
        return pd.DataFrame(keys).assign(sequence="", frame=range(len(paths)), part="")


def _read_table(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype=str)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable CSV table ({error})") from error
    if "image" not in table.columns or table.empty:
        raise DataError(f"{path}: lacks the column image, or holds no row")
    return table
