"""MediaPipe's face landmarker without the package mediapipe: its three networks, run by LiteRT, and
the geometry between them.

A detector (BlazeFace, 128 px) finds faces, a second network sets 478 landmarks into each, a third
reads 52 blendshapes of them. The package itself is no requirement: it installs a second OpenCV
(opencv-contrib-python) over the present one, and two packages that own ``cv2`` break each other.
The constants are those of MediaPipe's graphs (Google, Apache 2.0: ``face_detector_graph.cc``,
``face_landmarks_detector_graph.cc``, ``face_blendshapes_graph.cc``).
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import CheckpointError, needs
from norface_lib.images.crop import similarity, warp
from norface_lib.photos.views import (
    View,
    box_of,
    levels_for,
    merged,
    quarter_turn,
    same_face,
    square_around,
    turned,
    views_of,
    wider,
)

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

_NAMES = """
_neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight
eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight
eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose
mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft
mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight
mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight
mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight
"""
BLENDSHAPES = tuple(_NAMES.split())
"""Names of the blendshapes, in the network's order; left and right are the subject's."""

_NUMBERS = """
0 1 4 5 6 7 8 10 13 14 17 21 33 37 39 40 46 52 53 54 55 58 61 63 65 66 67 70 78 80 81 82 84 87 88 91
93 95 103 105 107 109 127 132 133 136 144 145 146 148 149 150 152 153 154 155 157 158 159 160 161
162 163 168 172 173 176 178 181 185 191 195 197 234 246 249 251 263 267 269 270 276 282 283 284 285
288 291 293 295 296 297 300 308 310 311 312 314 317 318 321 323 324 332 334 336 338 356 361 362 365
373 374 375 377 378 379 380 381 382 384 385 386 387 388 389 390 397 398 400 402 405 409 415 454 466
468 469 470 471 472 473 474 475 476 477
"""
_INPUT_OF_BLENDSHAPES = np.array(_NUMBERS.split(), dtype=int)
"""The 146 landmarks that the third network takes."""

NETWORKS = {
    "face_detector.tflite": "b4578f35940bf5a1a655214a1cce5cab13eba73c1297cd78e1a04c2380b0152f",
    "face_landmarks_detector.tflite": (
        "c7d54204ce0448474c7f3fa9af494787c0965cbdd6f20fc72867e43046bd43d5"
    ),
    "face_blendshapes.tflite": "4f36dded049db18d76048567439b2a7f58f1daabc00d78bfe8f3ad396a2d2082",
}
"""The networks that a bundle must hold, with their SHA-256. Google packs the same three into files
of several names."""

_DETECTOR_SIZE = 128
"""Pixels along a side of the detector's input."""

_FACE_SIZE = 256
"""Pixels along a side of the landmark network's input."""

_LONGEST = 1280
"""Pixels along the longer side of an image to which larger ones are shrunk, for views that do not
lose by it."""

_MIN_SCORE = 0.5
"""Least score of a detection."""

_MIN_PRESENCE = 0.5
"""Least score of a face that has landmarks."""

_FOREHEAD = 10
_CHIN = 152
"""Landmarks in the middle of the face, one at its top, one at its bottom."""


@dataclass(frozen=True)
class Landmarks:
    """One face: ``points`` (478, 2) in pixels of the image, and their ``depth`` (478,), larger away
    from the camera, in pixels too; ``score`` in 0..1, ``blendshapes`` (52,) in 0..1 of the upright
    face, ``turn``: see `norface_lib.photos.views.quarter_turn`."""

    points: NDArray[np.float64]
    depth: NDArray[np.float64]
    score: float
    blendshapes: NDArray[np.float32]
    turn: int = 0


def down_of(points: NDArray) -> NDArray[np.float64]:
    """Direction (2,), of length 1, from the forehead to the chin of landmarks (478, 2)."""
    down = points[_CHIN] - points[_FOREHEAD]
    return down / max(np.linalg.norm(down), 1e-9)


class Landmarker:
    """Finds landmarks of all faces in an image. ``path``: MediaPipe's bundle of networks
    (``.task``).

    ``levels``: how often the image is halved in the search for small faces, see `views_of`; None
    for as often as its size asks for, see `levels_for`. Raises :class:`CheckpointError` as
    `read_networks` does.
    """

    def __init__(self, path: Path, levels: int | None = None):
        self.levels = levels
        self._detector, self._landmarks, self._shapes = map(_interpreter, read_networks(path))

    def __call__(self, image: NDArray[np.uint8], levels: int | None = None) -> list[Landmarks]:
        """All faces of an image (H, W, 3) RGB, the best first. ``levels``: no more than these."""
        limit = self.levels
        if limit is None:
            limit = levels_for(image.shape[1], image.shape[0])
        places = self._detect(image, limit if levels is None else min(levels, limit))
        faces = [self.face_in(image, square_around(place)) for place in places]
        return distinct([face for face in faces if face is not None])

    def face_in(self, image: NDArray[np.uint8], corners: NDArray) -> Landmarks | None:
        """The face in a turned square (3, 2) - top left, top right, bottom left - of an image; None
        if there is none."""
        points, depth, score = self._landmarks_in(image, corners)
        if score < _MIN_PRESENCE:
            return None
        turn = quarter_turn(down_of(points))
        shapes = self._blendshapes(turned(points, turn))
        return Landmarks(points, depth, score, shapes, turn)

    def look(self, image: NDArray[np.uint8], corners: NDArray) -> tuple[float, NDArray[np.float64]]:
        """Best score 0..1 of an upright face in a turned square (3, 2) of an image, and the square
        (3, 2) in which `face_in` finds its landmarks."""
        square = np.array([(0, 0), (1, 0), (0, 1)]) * float(_DETECTOR_SIZE)
        matrix = similarity(corners, square)
        scores, places = self._detect_by(image, matrix)
        best = int(scores.argmax())
        back = cv2.invertAffineTransform(matrix)
        return float(scores[best]), square_around(places[best]) @ back[:, :2].T + back[:, 2]

    def _detect(self, image: NDArray[np.uint8], levels: int) -> list[NDArray[np.float64]]:
        """Places (8,) of faces: box x0, y0, x1, y1 and two eyes, in pixels of the image, the best
        first.

        The detector misses some faces that fill the picture; if there is none, it searches once
        more in a wider view.
        """
        height, width = image.shape[:2]
        pyramid = _Pyramid(image)
        views = views_of(width, height, levels)
        return self._detect_in(pyramid, views) or self._detect_in(pyramid, [wider(views[0])])

    def _detect_in(self, pyramid: "_Pyramid", views: Sequence[View]) -> list[NDArray[np.float64]]:
        """Places (8,) of the faces in some views, each face once."""
        scores, places = zip(*(self._detect_in_view(pyramid, view) for view in views), strict=True)
        return merged(np.concatenate(scores), np.concatenate(places))

    def _detect_in_view(self, pyramid: "_Pyramid", view: View) -> tuple[NDArray, NDArray]:
        """Scores (N,) and places (N, 8) - box x0, y0, x1, y1, two eyes - of the faces in a square
        of the image."""
        image, shrink = pyramid.image_for(view)
        start = np.array(view[:2])
        scale = _DETECTOR_SIZE / view[2]
        matrix = np.concatenate([np.diag(scale / shrink), -scale * start[:, None]], axis=1)
        scores, places = self._detect_by(image, matrix)
        good = scores >= _MIN_SCORE
        return scores[good], places[good] / scale + np.tile(start, 4)

    def _detect_by(self, image: NDArray[np.uint8], matrix: NDArray) -> tuple[NDArray, NDArray]:
        """Scores (896,) and places (896, 8) of all cells of the detector, in pixels of the square
        into which a similarity (2, 3) carries the image."""
        square = warp(image, matrix, _DETECTOR_SIZE, cv2.BORDER_CONSTANT)
        offsets, logits = _run(self._detector, square / np.float32(127.5) - 1)
        middle = offsets[0, :, :2] + _DETECTOR_SIZE * _anchors()
        half = offsets[0, :, 2:4] / 2
        eyes = offsets[0, :, 4:8] + _DETECTOR_SIZE * np.tile(_anchors(), 2)
        places = np.concatenate([middle - half, middle + half, eyes], axis=1)
        return _sigmoid(logits[0, :, 0]), places

    def _landmarks_in(
        self, image: NDArray[np.uint8], corners: NDArray
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Landmarks (478, 2) in pixels of the image, their depth (478,), and the score of the face
        in a turned square (3, 2) of it."""
        square = np.array([(0, 0), (_FACE_SIZE, 0), (0, _FACE_SIZE)], np.float64)
        to_face = similarity(corners, square)
        outputs = _run(self._landmarks, warp(image, to_face, _FACE_SIZE) / np.float32(255))
        places = outputs[0].reshape(-1, 3).astype(np.float64)
        back = cv2.invertAffineTransform(to_face)
        points = places[:, :2] @ back[:, :2].T + back[:, 2]
        depth = places[:, 2] * np.hypot(*back[0, :2])
        return points, depth, float(_sigmoid(outputs[1]).item())

    def _blendshapes(self, points: NDArray) -> NDArray[np.float32]:
        return _run(self._shapes, points[_INPUT_OF_BLENDSHAPES].astype(np.float32))[0].ravel()


class _Pyramid:
    """An image (H, W, 3), and the same shrunk to `_LONGEST`."""

    def __init__(self, image: NDArray[np.uint8]):
        self.image = image
        self.small = image
        height, width = image.shape[:2]
        scale = _LONGEST / max(height, width)
        if scale < 1:
            size = (max(1, round(scale * width)), max(1, round(scale * height)))
            self.small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self.shrink = np.array(self.small.shape[1::-1]) / (width, height)

    def image_for(self, view: View) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The smallest image that still has two pixels for each that the detector takes of a view,
        and how much it is shrunk in width and height."""
        if view[2] * self.shrink.max() >= 2 * _DETECTOR_SIZE:
            return self.small, self.shrink
        return self.image, np.ones(2)


def distinct(faces: Sequence[Landmarks]) -> list[Landmarks]:
    """Faces without those that an earlier one overlaps, or holds, or lies within."""
    kept: list[Landmarks] = []
    for face in faces:
        boxes = np.array([box_of(other.points) for other in kept]).reshape(-1, 4)
        if not same_face(box_of(face.points), boxes).any():
            kept.append(face)
    return kept


def read_networks(path: Path) -> list[bytes]:
    """The three networks of a bundle.

    Raises :class:`CheckpointError`, naming the file, if they are not those of `NETWORKS`.
    """
    try:
        with zipfile.ZipFile(path) as bundle:
            contents = {name: bundle.read(name) for name in NETWORKS}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: no bundle of MediaPipe's face landmarker ({error}); delete it and call again"
        ) from error
    for name, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        if digest != NETWORKS[name]:
            raise CheckpointError(
                f"{path}: the SHA-256 of its {name} is {digest}, not {NETWORKS[name]}; delete it "
                "and call again"
            )
    return list(contents.values())


@cache
def _anchors() -> NDArray[np.float64]:
    """Middles (896, 2) in 0..1 of the detector's cells: two in each of 16 x 16, then six in each of
    8 x 8."""
    grids = []
    for cells, each in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells, each, axis=0))
    return np.concatenate(grids)


def _interpreter(content: bytes) -> "Interpreter":
    with needs("photos"):
        from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(model_content=content, num_threads=1)
    net.allocate_tensors()
    return net


def _run(net: "Interpreter", values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Outputs of a network for one input, to which it adds the batch's axis."""
    net.set_tensor(net.get_input_details()[0]["index"], values[None])
    net.invoke()
    return [net.get_tensor(detail["index"]) for detail in net.get_output_details()]


def _sigmoid(logits: NDArray) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
