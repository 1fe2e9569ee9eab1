"""Putting a drawn face over that of a picture, such that nothing of the original face shows.

What is covered is an ellipse around the crop and one around the detector's box. It is first filled
with the blurred surroundings of all covered faces, then the drawn head is put on it at the place,
size and turn of the original. Our choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib.images.crop import NORFACE_CROP, similarity

Image = NDArray[np.uint8]
Mask = NDArray[np.float32]

_OVAL = ((0.5, 0.52), (0.4, 0.52))
"""Middle and half axes, in sides of the crop, of the ellipse that holds any face in it, from the
hairline to below the chin."""

_AROUND_BOX = 1.15
"""Half axes of the ellipse around a box, in halves of its sides."""

_SOFT = 0.15
"""Width of the soft border outside an ellipse, in its half axes."""

_NECK = (0.95, 1.0)
"""Between these heights of the crop the drawn neck fades out where nothing must be covered."""

_COLLAR = (1.04, 1.12)
"""Between these it fades out everywhere, for below it is dressed."""

_BORDER = 0.04
"""Share of a drawn picture over which its border fades out."""

_COARSE = 40
"""Pixels along a side of the picture that the surroundings are blurred in."""

_WIDTHS = (20, 10, 5, 2.5, 1.2)
"""Widths of that blur in its pixels, from far to near."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A drawn face on its way into a picture.

    ``drawn``: (S, S, 4), RGB and cover, ``room`` times as wide as the crop. ``at``: where its five
    points (5, 2) come to stand, in pixels. ``points`` (5, 2) and ``box`` (4,): of the original
    face, which is covered.
    """

    drawn: Image
    room: float
    at: NDArray
    points: NDArray
    box: NDArray


def paste(image: Image, patches: Sequence[Patch]) -> Image:
    """The picture (H, W, 3) with drawn faces over the original ones, the largest of which come
    last. The picture that was given stays as it was.

    No pixel of an original face within its ellipses has any influence on the result.
    """
    covers = [_cover(image.shape[:2], patch) for patch in patches]
    covered = np.zeros(image.shape[:2], np.float32)
    for (rows, columns), mask in covers:
        covered[rows, columns] = np.maximum(covered[rows, columns], mask)

    result = image.astype(np.float32)
    fills = [_surroundings(image, covered, area) for area, _ in covers]
    for ((rows, columns), mask), fill in zip(covers, fills, strict=True):
        part = result[rows, columns]
        part += mask[..., None] * (fill - part)
    for patch in sorted(patches, key=lambda each: np.prod(each.box[2:] - each.box[:2])):
        _put(result, patch, covered)
    return (result + 0.5).clip(0, 255).astype(np.uint8)


def oval(size: int) -> Mask:
    """How much (size, size), 0..1, a face fills its crop: an ellipse whose soft border ends with
    the crop."""
    middle, axes = np.array(_OVAL) * size
    ellipse = np.array([(1, 0, -middle[0]), (0, 1, -middle[1])]) / axes[:, None] * (1 + _SOFT)
    return _ellipse((slice(0, size), slice(0, size)), ellipse)


Area = tuple[slice, slice]
"""Rows and columns of a part of a picture."""


def _cover(shape: tuple[int, int], patch: Patch) -> tuple[Area, Mask]:
    """Where a face is covered, 1 in its ellipses and less around them, and the part of the picture
    that holds all of it."""
    to_crop = similarity(patch.points, NORFACE_CROP.pixels(1))
    middle, axes = map(np.array, _OVAL)
    oval = np.concatenate([to_crop[:, :2], (to_crop[:, 2] - middle)[:, None]], axis=1)
    oval /= axes[:, None]

    box = np.asarray(patch.box, float)
    halves = _AROUND_BOX * (box[2:] - box[:2]).clip(2) / 2
    round_box = np.concatenate([np.eye(2), -(box[:2] + box[2:])[:, None] / 2], axis=1)
    round_box /= halves[:, None]

    area = _area_of(shape, [oval, round_box], 1 + _SOFT)
    return area, np.maximum(*(_ellipse(area, each) for each in (oval, round_box)))


def _area_of(shape: tuple[int, int], ellipses: Sequence[NDArray], reach: float) -> Area:
    """The part of a picture (H, W) that holds ellipses, ``reach`` times as large. Each is a map (2,
    3) from the picture to the unit circle."""
    corners = []
    for ellipse in ellipses:
        back = np.linalg.inv(ellipse[:, :2])
        middle = -back @ ellipse[:, 2]
        extent = reach * np.hypot(back[:, 0], back[:, 1])
        corners += [middle - extent, middle + extent]
    return _slices(np.min(corners, 0), np.max(corners, 0), shape)


def _slices(first: NDArray, last: NDArray, shape: tuple[int, int]) -> Area:
    x0, y0 = np.floor(first).clip(0, shape[::-1]).astype(int)
    x1, y1 = np.ceil(last).clip(0, shape[::-1]).astype(int)
    return slice(y0, max(y0, y1)), slice(x0, max(x0, x1))


def _ellipse(area: Area, ellipse: NDArray) -> Mask:
    """How much an ellipse covers the pixels of an area: 1 inside, falling to 0 at its border."""
    y, x = np.mgrid[area].astype(np.float32) + 0.5
    u, v = (row[0] * x + row[1] * y + row[2] for row in ellipse)
    share = ((1 + _SOFT - np.hypot(u, v)) / _SOFT).clip(0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


def _surroundings(image: Image, covered: Mask, area: Area) -> NDArray[np.float32]:
    """Colors (h, w, 3) for an area, smooth, of the pixels around it that no face covers; gray if
    there are none."""
    rows, columns = area
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width:
        return np.zeros((height, width, 3), np.float32)
    first = np.array([columns.start - width / 4, rows.start - height / 4])
    around = _slices(first, first + 1.5 * np.array([width, height]), image.shape[:2])

    free = (covered[around] == 0).astype(np.float32)[..., None]
    weighted = np.concatenate([image[around] * free, free], axis=2)
    weighted = cv2.resize(weighted, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    colors = np.full((_COARSE, _COARSE, 3), 128, np.float32)
    for blur in _WIDTHS:  # the nearest colors count, and far ones where there are no nearer
        blurred = cv2.GaussianBlur(weighted, (0, 0), blur)
        share = (blurred[..., 3:] / 0.2).clip(0, 1)
        colors += share * (blurred[..., :3] / blurred[..., 3:].clip(1e-6) - colors)
    whole = cv2.resize(colors, free.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    top, left = rows.start - around[0].start, columns.start - around[1].start
    return whole[top : top + height, left : left + width]


def _put(result: NDArray[np.float32], patch: Patch, covered: Mask) -> None:
    """Puts a drawn head into a picture; below the chin only where the picture is covered."""
    head, fade = _premultiplied(patch.drawn, patch.room)
    size = len(head)
    source = 0.5 + (np.array(NORFACE_CROP.points) - 0.5) / patch.room
    scale = float(np.hypot(*similarity(source * size, patch.at)[0, :2]))
    if scale < 1:  # warpAffine does not filter
        size = max(8, round(size * scale))
        head, fade = (
            cv2.resize(each, (size, size), interpolation=cv2.INTER_AREA) for each in (head, fade)
        )

    matrix = similarity(source * size, patch.at)
    corners = size * np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) @ matrix[:, :2].T + matrix[:, 2]
    rows, columns = _slices(corners.min(0), corners.max(0), result.shape[:2])
    part = result[rows, columns]
    if not part.size:
        return
    # warpAffine counts from the middle of the first pixel
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5 - (columns.start, rows.start)
    head, fade = (cv2.warpAffine(each, matrix, part.shape[1::-1]) for each in (head, fade))
    weight = np.maximum(fade, covered[rows, columns])[..., None]
    part *= 1 - weight * head[..., 3:]
    part += weight * head[..., :3]


def _premultiplied(drawn: Image, room: float) -> tuple[NDArray[np.float32], Mask]:
    """RGB times cover and cover in 0..1 (S, S, 4), with a soft border of the picture; and how much
    of each pixel (S, S) is head, not neck."""
    size = len(drawn)
    place = (np.arange(size, dtype=np.float32) + 0.5) / size
    border = (np.minimum(place, 1 - place) / _BORDER).clip(0, 1)
    height = 0.5 + (place - 0.5) * room
    rows = border * np.interp(height, _COLLAR, (1, 0))
    cover = drawn[..., 3:] / np.float32(255) * rows[:, None, None] * border[:, None]
    head = np.concatenate([drawn[..., :3] * cover, cover], axis=2).astype(np.float32)
    above = np.interp(height, _NECK, (1, 0)).astype(np.float32)
    return head, np.repeat(above[:, None], size, axis=1)
