"""Faces that are not upright: looked at again in a turned image.

The detector takes a mouth and brows that stand upside down for eyes and a mouth, with a high score.
It scores the same face higher where it stands upright, by 0.12 or more; upright faces score lower
when turned (measured on the London Set and 150 press photographs).
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib.photos.landmarker import Landmarker, Landmarks, distinct, down_of
from norface_lib.photos.views import box_of, square_at, turned, turned_back

_SURE = 0.9
"""Score of an upright face from which on it is not looked at again: faces that stand upside down
stay below 0.82."""

_HIGHER = 0.05
"""How much higher a face must score turned to be turned: the other turns of 410 upright faces score
lower by 0.03 or more."""

_DOUBTFUL = 0.72
"""Least score, as an upright face, of a small face and of one in a turned image. Textures and parts
of larger faces, of which a large image has many, stay below; 97 of 100 faces do not."""

_SMALL = 12
"""Times that a small face goes into the longer side of its image."""

_SIDE = 1.6
"""Side of the square that is looked at, over that of the face's box."""

_LEVELS = 1
"""Levels of the search in a turned image: see `norface_lib.photos.views.views_of`."""

QUARTERS = {
    180: cv2.ROTATE_180,
    90: cv2.ROTATE_90_CLOCKWISE,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
"""Codes for ``cv2.rotate`` by degrees clockwise."""


def find_upright(landmarker: Landmarker, image: NDArray[np.uint8]) -> list[Landmarks]:
    """All faces of an image (H, W, 3) RGB, also those that lie on a side or stand upside down.

    A face that hardly looks upright is looked at again, turned by 180, 90 and 270 degrees. So is an
    image without a face, of which the turn with the best face is taken.
    """
    small = max(image.shape[:2]) / _SMALL
    faces, _ = _stood_up(landmarker, image, landmarker(image), doubtful=small)
    return faces or _searched_turned(landmarker, image)


def _searched_turned(landmarker: Landmarker, image: NDArray[np.uint8]) -> list[Landmarks]:
    """Faces of an image without upright ones."""
    best: list[Landmarks] = []
    highest = 0.0
    for turn, code in QUARTERS.items():
        other = cv2.rotate(image, code)
        candidates = landmarker(other, levels=_LEVELS)
        faces, score = _stood_up(landmarker, other, candidates, doubtful=np.inf)
        if score > highest:
            highest = score
            best = [_turned_back(face, turn, image, other) for face in faces]
    return best


def _turned_back(
    face: Landmarks, turn: int, image: NDArray[np.uint8], other: NDArray[np.uint8]
) -> Landmarks:
    """A face of the image that was turned, in the image as it was."""
    points = turned_back(face.points, turn, image.shape[1::-1], other.shape[1::-1])
    return replace(face, points=points, turn=(face.turn + turn) % 360)


def _stood_up(
    landmarker: Landmarker,
    image: NDArray[np.uint8],
    faces: list[Landmarks],
    *,
    doubtful: float,
) -> tuple[list[Landmarks], float]:
    """Faces, of which those that are not upright are corrected, and the best of their scores as
    upright ones. Those with a box smaller than ``doubtful`` pixels must have a high score."""
    scored = []
    for candidate in faces:
        face, score = _corrected(landmarker, image, candidate)
        box = box_of(face.points)
        if score >= _DOUBTFUL or (box[2:] - box[:2]).max() >= doubtful:
            scored.append((face, score))

    scored.sort(key=lambda each: -each[1])
    best = scored[0][1] if scored else 0.0
    return distinct([face for face, _ in scored]), best


def _corrected(
    landmarker: Landmarker, image: NDArray[np.uint8], face: Landmarks
) -> tuple[Landmarks, float]:
    """A face as it looks most upright, and its score."""
    score, corners = landmarker.look(image, _square(face, 0))
    best = face
    if face.turn:  # the search tells eyes of faces that lie on a side less exactly
        best = landmarker.face_in(image, corners) or face
    if score >= _SURE:
        return best, score

    least = score + _HIGHER
    for turn in QUARTERS:
        other_score, corners = landmarker.look(image, _square(face, turn))
        other = landmarker.face_in(image, corners) if other_score > max(least, score) else None
        if other is not None:
            best = other
            score = other_score
    return best, score


def _square(face: Landmarks, turn: int) -> NDArray[np.float64]:
    """Turned square (3, 2) about a face, in which it stands upright, or turned by degrees."""
    box = box_of(face.points)
    down = down_of(face.points)
    across = turned(np.array([(down[1], -down[0])]), turn)[0]
    half = 0.5 * _SIDE * (box[2:] - box[:2]).max()
    return square_at((box[:2] + box[2:]) / 2, across, half)
