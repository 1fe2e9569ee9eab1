"""Detection of the faces in every frame of a dataset: the dataset stays as it is, a table holds the
points to crop it by.

BP4D, BP4D+ and DISFA are given out as whole frames, in zips or videos. Cropped copies would take
hundreds of gigabytes and lose their labels on the way; five points a frame take a few megabytes,
and `FaceDataset.aligned_by` crops what is read by them.
"""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError
from norface_lib.common.failures import is_passing, not_read, writing
from norface_lib.common.locks import only_writer
from norface_lib.datasets.base import FaceDataset, read_points
from norface_lib.images.crop import ALIGNED, POINT_COLUMNS
from norface_lib.photos.detection import Detector
from norface_lib.photos.statuses import NO_FACE, UNREADABLE

COLUMNS = ("path", "status", "score", *POINT_COLUMNS)
"""Columns of the table: the frame as the dataset's index names it, its status, and the five points
in pixels of the frame."""


def find_points(
    data: FaceDataset, path: Path, detector: Detector, *, progress: bool = True
) -> Counter[str]:
    """Writes the five points of the largest face of each frame of a dataset into the table ``path``
    (.csv).

    Each line is written as soon as its frame was searched, and a call after an interruption goes
    on with those that are missing. Returns how many frames have which status. Raises
    :class:`DataError` for a table that is damaged, or lies inside the dataset's root.
    """
    path = Path(path)
    if path.resolve().is_relative_to(data.root.resolve()):
        raise DataError(f"{path}: lies inside {data.root}; choose a place outside of the dataset")
    with only_writer(path):
        return _find(data, path, detector, progress)


def _find(data: FaceDataset, path: Path, detector: Detector, progress: bool) -> Counter[str]:
    done = _begin(path)
    missing = data.index[~data.index["path"].isin(done)]
    with writing(path), path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        bar = tqdm(
            missing.iterrows(),
            total=len(data),
            initial=len(data) - len(missing),
            disable=not progress,
        )
        bar.set_description(f"align {data.title}")
        for _, row in bar:
            writer.writerow(_line(data, row, detector))
            file.flush()
    return Counter(read_points(path)["status"])


def _begin(path: Path) -> set[str]:
    """Paths of the frames that the table holds; begins one if there is none, and cuts off the half
    line of a killed call."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with path.open("r+b") as file:
            file.truncate(whole)
    return set(read_points(path)["path"])


def _line(data: FaceDataset, row: Any, detector: Detector) -> dict[str, Any]:
    """Line of the table for one frame."""
    try:
        faces = detector.detect(data.picture(row))
    except Exception as error:  # of one frame, unless of the disk or of memory
        if is_passing(error) or is_passing(error.__cause__):
            raise not_read(data.root / row["path"], error.__cause__ or error) from error
        return {"path": row["path"], "status": UNREADABLE}
    if not faces:
        return {"path": row["path"], "status": NO_FACE}
    values = np.round(faces[0].points.ravel(), 2).tolist()
    points = dict(zip(POINT_COLUMNS, values, strict=True))
    return {"path": row["path"], "status": ALIGNED, "score": round(faces[0].score, 4)} | points
