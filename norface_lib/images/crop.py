"""The crop: where the five points of a face stand in an image.

One specification serves rendered faces and photographs and travels with every checkpoint, so that a
network never sees two framings. The template is ArcFace's (Deng et al. 2019; insightface), drawn in
a little so that chin and forehead stay in the picture, which an AU needs and an identity does not.
Our choice.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_json


@dataclass(frozen=True)
class Crop:
    """A square crop and where its five points (image-left eye, image-right eye, nose tip, mouth
    corners) stand, in 0..1."""

    name: str
    points: tuple[tuple[float, float], ...]

    def pixels(self, size: int) -> NDArray[np.float64]:
        """The five points (5, 2) in pixels of an image of ``size`` px: x to the right, y down."""
        return np.array(self.points) * size


_ARCFACE = (
    np.array(
        [
            (38.2946, 51.6963),
            (73.5318, 51.5014),
            (56.0252, 71.7366),
            (41.5493, 92.3655),
            (70.7299, 92.2041),
        ]
    )
    / 112
)

ARCFACE_CROP = Crop("arcface", tuple(map(tuple, _ARCFACE.tolist())))
"""The crop of insightface's identity encoders (Deng et al. 2019): a tighter one, which cuts
forehead and chin."""


POINTS = ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right")
"""The five points of a face, in this order everywhere; left and right are the image's."""

POINT_COLUMNS = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")
"""Columns of a table of them."""

ALIGNED = "aligned"
"""Status, in such a table, of a face that was found and may be cropped."""


def _norface_points(
    scale: float = 0.92, eye_height: float = 0.385
) -> tuple[tuple[float, float], ...]:
    points = (_ARCFACE - (0.5, _ARCFACE[:2, 1].mean())) * scale + (0.5, eye_height)
    return tuple((round(float(x), 4), round(float(y), 4)) for x, y in points)


NORFACE_CROP = Crop("norface", _norface_points())
"""The crop of all checkpoints and of the rendered benchmark."""

LONDON_CROP = Crop(
    "london",
    ((0.4004, 0.5078), (0.5996, 0.5078), (0.5, 0.6016), (0.4277, 0.7207), (0.5723, 0.7207)),
)
"""The frame of the Face Research Lab London Set as the R package webmorphR.stim has it; measured on
the mean neutral face."""

CROPS = {crop.name: crop for crop in (NORFACE_CROP, LONDON_CROP)}
"""Crops of aligned faces by name."""


def crop_of(folder: Path) -> Crop:
    """Crop of the aligned faces of a folder.

    Its file ``crop.json`` says so (``{"points": [[x, y], ...]}``, five points in 0..1); without
    one, a folder named like a known crop has that crop, and any other the crop of this project.
    Raises :class:`DataError` for any other ``crop.json``.
    """
    path = Path(folder) / "crop.json"
    if not path.exists():
        return CROPS.get(Path(folder).resolve().name, NORFACE_CROP)
    try:
        points = np.array(json.loads(path.read_text(encoding="utf-8"))["points"], np.float64)
        similarity(points, NORFACE_CROP.pixels(1))
        if points.min() < 0 or points.max() > 1:
            raise ValueError("points in pixels")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{path}: must hold {{"points": [[x, y], ...]}} with five points in 0..1'
        ) from error
    framing = tuple(map(tuple, points.tolist()))
    return next(
        (crop for crop in CROPS.values() if crop.points == framing), Crop(path.parent.name, framing)
    )


def mark_crop(folder: Path, crop: Crop) -> Path:
    """Writes the ``crop.json`` by which `crop_of` knows how the faces of a folder are framed."""
    return write_json({"name": crop.name, "points": crop.points}, Path(folder) / "crop.json")


def similarity(source: NDArray, target: NDArray) -> NDArray[np.float64]:
    """The 2x3 matrix of rotation, uniform scale and shift that carries points (K, 2) closest to
    ``target`` (K, 2).

    Least squares (Umeyama 1991, without reflection, which five points of a face never ask for).
    Raises ``ValueError`` if all source points coincide, or if the two are not finite points of the
    same number.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if (
        source.shape != target.shape
        or source.shape[1:] != (2,)
        or not np.isfinite([source, target]).all()
    ):
        raise ValueError(
            f"two sets of finite points (K, 2) are needed, got shapes {source.shape} and "
            f"{target.shape}"
        )
    s, t = source - source.mean(0), target - target.mean(0)
    spread = (s**2).sum()
    if spread < 1e-12:
        raise ValueError("the points of a face coincide: they cannot be aligned")
    a, b = (s * t).sum() / spread, (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / spread
    rotation = np.array([(a, -b), (b, a)])
    return np.concatenate([rotation, (target.mean(0) - rotation @ source.mean(0))[:, None]], axis=1)


def overlap(box: NDArray, boxes: NDArray) -> NDArray[np.float64]:
    """Intersection over union of a box (4,), x0, y0, x1, y1, with others (N, 4)."""
    both = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = both.clip(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-12)


def align_face(
    image: NDArray[np.uint8], points: NDArray, crop: Crop = NORFACE_CROP, size: int = 112
) -> NDArray[np.uint8]:
    """The face (size, size, 3) whose five ``points`` (5, 2) in pixels of ``image`` (H, W, 3) come
    to stand as in ``crop``.

    Points are counted from the image's corner, so the middle of the first pixel is (0.5, 0.5). What
    lies beyond the image repeats its border. Raises ``ValueError`` as `similarity` does.
    """
    return warp(image, similarity(points, crop.pixels(size)), size)


def pixels_within(points: NDArray, crop: Crop = NORFACE_CROP) -> float:
    """Pixels along a side of what `align_face` cuts out for five ``points`` (5, 2): how much there
    is to see."""
    return float(1 / np.hypot(*similarity(points, crop.pixels(1))[0, :2]))


def warp(
    image: NDArray[np.uint8], matrix: NDArray, size: int, border: int = cv2.BORDER_REPLICATE
) -> NDArray[np.uint8]:
    """The square (size, size, 3) into which a similarity (2, 3) carries an image; filtered where it
    shrinks.

    The matrix counts from corners, as `align_face` says. ``warpAffine`` itself does not filter: an
    image that loses more than half of its side is first averaged over areas, and what is left to
    lose is blurred by what the warp will skip.
    """
    shrink = float(np.hypot(*matrix[0, :2]))
    image, matrix = _cut(image, matrix, size, margin=3 / min(shrink, 1) + 2)
    if shrink < 0.5:
        height, width = image.shape[:2]
        small = max(1, round(2 * shrink * width)), max(1, round(2 * shrink * height))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        matrix = matrix * (width / small[0], height / small[1], 1)
        shrink = 0.5
    if shrink < 1:
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * (1 / shrink - 1) + 1e-3)
    matrix = matrix.copy()
    # warpAffine counts from the middle of the first pixel
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def _cut(
    image: NDArray[np.uint8], matrix: NDArray, size: int, margin: float
) -> tuple[NDArray[np.uint8], NDArray]:
    """The part of an image that a warp will see, some pixels more around it, and the warp from
    there."""
    back = cv2.invertAffineTransform(matrix)
    corners = size * np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) @ back[:, :2].T + back[:, 2]
    limits = np.array(image.shape[1::-1])
    first = np.clip(np.floor(corners.min(0) - margin), 0, limits - 1).astype(int)
    last = np.clip(np.ceil(corners.max(0) + margin), first + 1, limits).astype(int)
    moved = np.concatenate([matrix[:, :2], (matrix[:, 2] + matrix[:, :2] @ first)[:, None]], axis=1)
    return np.ascontiguousarray(image[first[1] : last[1], first[0] : last[0]]), moved
