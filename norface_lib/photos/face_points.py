"""What the landmarker sees in aligned faces: 52 scores, and 478 points without their pose."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib.common.files import write_atomically
from norface_lib.images.arrays import Faces
from norface_lib.photos.landmarker import BLENDSHAPES, Landmarker

POINTS = 478


@dataclass(frozen=True)
class FacePoints:
    """Scores (N, 52) in 0..1 and points (N, 478, 3) of N faces, x and y in pixels, z away from the
    camera; NaN for a face that was not found."""

    scores: NDArray[np.float32]
    points: NDArray[np.float32]

    @property
    def found(self) -> NDArray[np.bool_]:
        """(N,) true for faces that have landmarks."""
        return ~np.isnan(self.scores[:, 0])

    def of(self, rows: NDArray) -> "FacePoints":
        """Those of some faces, by number or by a mask (N,)."""
        return FacePoints(self.scores[rows], self.points[rows])


def read_points(
    landmarker: Landmarker, faces: Faces, keep: Path | None = None, progress: bool = True
) -> FacePoints:
    """What a landmarker sees in aligned faces (N, S, S, 3) of 8 bits. ``keep``: a file (``.npz``)
    that holds it for the next call with the same faces."""
    key = sha256(np.ascontiguousarray(faces)).hexdigest()
    known = None if keep is None else _kept(keep, key)
    if known is not None:
        return known
    scores = np.full((len(faces), len(BLENDSHAPES)), np.nan, np.float32)
    points = np.full((len(faces), POINTS, 3), np.nan, np.float32)
    bar = tqdm(faces, desc="landmarks", unit="face", disable=not progress, leave=False)
    for row, image in enumerate(bar):
        detected = landmarker(np.ascontiguousarray(image))
        if detected:
            scores[row] = detected[0].blendshapes
            points[row, :, :2] = detected[0].points
            points[row, :, 2] = detected[0].depth
    if keep is not None:

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, key=key, scores=scores, points=points)

        write_atomically(keep, write)
    return FacePoints(scores, points)


def _kept(path: Path, key: str) -> FacePoints | None:
    """What a file holds of the faces with this hash; None if it is missing, damaged, or of
    others."""
    try:
        with np.load(path) as known:
            if str(known["key"]) == key:
                return FacePoints(known["scores"], known["points"])
    except (OSError, ValueError, KeyError, BadZipFile):
        pass
    return None


def upright(points: NDArray[np.floating], shape: NDArray[np.floating]) -> NDArray[np.float32]:
    """Points (N, 478, 3) moved, turned and scaled to come nearest to a ``shape`` (478, 3) (Kabsch
    1976; Umeyama 1991). Same shape; NaN stays NaN."""
    centered = points - points.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centered, axis=(1, 2), keepdims=True)
    goal = shape - shape.mean(axis=0)
    goal = goal / np.linalg.norm(goal)
    unit = np.nan_to_num(centered / norms)
    left, sizes, right = np.linalg.svd(np.einsum("npi,pj->nij", unit, goal))
    sign = np.ones_like(sizes)
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    turned = np.einsum("npi,nij->npj", unit, (left * sign[:, None]) @ right)
    turned *= (sizes * sign).sum(axis=1)[:, None, None]
    turned[np.isnan(points).any(axis=(1, 2))] = np.nan
    return turned.astype(np.float32)
