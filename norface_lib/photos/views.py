"""Geometry of the search for faces: the squares of an image that the detector takes, and the one
face of several detections."""

import math

import numpy as np
from numpy.typing import NDArray

from norface_lib.images.crop import overlap

View = tuple[float, float, float]
"""A square of an image: x and y of its top left corner, and its side, in pixels; it may reach
beyond the image."""

_SMALLEST_VIEW = 256
"""Least side of a view in pixels: faces in smaller ones would be too small to be read."""

_LARGEST_VIEW = 512
"""Side in pixels that the smallest views must not exceed: the detector finds faces of a ninth of
it."""

_SAME_FACE = 0.3
"""Overlap (IoU) above which two detections are one face."""

_WITHIN = 0.6
"""Share of a box within another from which on the two are one face: parts of large faces look like
small faces."""

_ROOM = 1.5
"""Side of the landmark network's view, over that of the detector's box."""


def views_of(width: int, height: int, levels: int = 1) -> list[View]:
    """Squares (x, y, side) of an image that the detector takes: around all of it, then halves,
    quarters..., overlapping.

    The detector misses faces much smaller than a tenth of its view. Views of fewer than 256 px are
    left out: they could only add faces that are too small to be read.
    """
    longest = max(width, height)
    views = [((width - longest) / 2, (height - longest) / 2, float(longest))]
    for level in range(1, levels + 1):
        side = longest / 2**level
        if side >= _SMALLEST_VIEW:
            views += [(x, y, side) for y in _starts(height, side) for x in _starts(width, side)]
    return views


def levels_for(width: int, height: int) -> int:
    """Levels with which faces of about 60 px are found, as large as the image may be; one at
    least."""
    return max(1, math.ceil(math.log2(max(width, height) / _LARGEST_VIEW)))


def _starts(length: float, side: float) -> list[float]:
    """Beginnings of views of a side that cover a length and overlap by half or more."""
    if length <= side:
        return [(length - side) / 2]
    return np.linspace(0, length - side, 1 + int(np.ceil(2 * (length - side) / side))).tolist()


def wider(view: View) -> View:
    x, y, side = view
    margin = 0.3
    return x - margin * side, y - margin * side, (1 + 2 * margin) * side


def box_of(points: NDArray) -> NDArray[np.float64]:
    return np.concatenate([points.min(0), points.max(0)])


def merged(scores: NDArray, places: NDArray) -> list[NDArray]:
    """Places (N, 8), which begin with a box, to one for each face: the mean of all that overlap its
    best, weighted by score."""
    faces = []
    rest = np.argsort(-scores)
    while len(rest):
        same = overlap(places[rest[0], :4], places[rest, :4]) > _SAME_FACE
        same[0] = True
        group = rest[same]
        faces.append(np.average(places[group], axis=0, weights=scores[group]))
        rest = rest[~same]
    return faces


def same_face(box: NDArray, boxes: NDArray) -> NDArray[np.bool_]:
    """True for those of the boxes (N, 4), x0, y0, x1, y1, that show the same face as a box (4,)."""
    common = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0)
    areas = np.minimum((boxes[:, 2:] - boxes[:, :2]).prod(1), (box[2:] - box[:2]).prod())
    within = common.prod(1) >= _WITHIN * np.maximum(areas, 1e-12)
    return within | (overlap(box, boxes) >= _SAME_FACE)


def square_around(place: NDArray) -> NDArray[np.float64]:
    """Three corners (3, 2) - top left, top right, bottom left - of the square about a place (8,) of
    a face, its box and two eyes, in which the eyes stand level."""
    box = place[:4]
    eyes = place[6:8] - place[4:6]
    across = eyes / max(np.linalg.norm(eyes), 1e-9)
    half = 0.5 * _ROOM * (box[2:] - box[:2]).max()
    return square_at((box[:2] + box[2:]) / 2, across, half)


def square_at(middle: NDArray, across: NDArray, half: float) -> NDArray[np.float64]:
    """Three corners (3, 2) - top left, top right, bottom left - of a turned square: its middle, the
    direction (2,) of its upper side, and half of its side."""
    down = np.array([-across[1], across[0]])
    return middle + half * np.stack([-across - down, across - down, down - across])


def quarter_turn(down: NDArray) -> int:
    """Degrees (0, 90, 180 or 270) by which an image has to be turned clockwise so that a face
    stands upright, within 45. ``down``: direction (2,) from its forehead to its chin."""
    return round(np.degrees(np.arctan2(down[0], down[1])) / 90) % 4 * 90


def turned(points: NDArray, degrees: float) -> NDArray[np.float64]:
    """Points (N, 2) turned clockwise about the image's corner."""
    angle = np.radians(degrees)
    rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    return points @ rotation.T if degrees else points


def turned_back(
    points: NDArray, turn: int, size: tuple[int, int], turned_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Points (N, 2) of an image that was turned clockwise, in the image as it was. Sizes are widths
    and heights."""
    return turned(points - np.array(turned_size) / 2, -turn) + np.array(size) / 2
