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
from norface_lib.images.crop import overlap, similarity, warp

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
"""Pixels along the longer side of an image in which faces are searched; larger ones are shrunk
first."""

_ROOM = 1.5
"""Side of the landmark network's view, over that of the detector's box."""

_MIN_SCORE = 0.5
"""Least score of a detection."""

_MIN_PRESENCE = 0.5
"""Least score of a face that has landmarks."""

_SAME_FACE = 0.3
"""Overlap (IoU) above which two detections are one face."""

View = tuple[float, float, float]
"""A square of an image: x and y of its top left corner, and its side, in pixels; it may reach
beyond the image."""


@dataclass(frozen=True)
class Landmarks:
    """One face: ``points`` (478, 2) in pixels of the image, ``score`` in 0..1, ``blendshapes``
    (52,) in 0..1."""

    points: NDArray[np.float64]
    score: float
    blendshapes: NDArray[np.float32]


class Landmarker:
    """Finds landmarks of all faces in an image. ``path``: MediaPipe's bundle of networks
    (``.task``).

    ``levels``: how often the image is halved in the search for small faces, see `views_of`. Raises
    :class:`CheckpointError` as `read_networks` does.
    """

    def __init__(self, path: Path, levels: int = 1):
        self.levels = levels
        self._detector, self._landmarks, self._shapes = map(_interpreter, read_networks(path))

    def __call__(self, image: NDArray[np.uint8]) -> list[Landmarks]:
        """All faces of an image (H, W, 3) RGB, the best first."""
        faces: list[Landmarks] = []
        for place in self._detect(image):
            corners = square_around(place[:4], place[4:6], place[6:])
            points, score = self._landmarks_in(image, corners)
            boxes = np.array([_box(face.points) for face in faces]).reshape(-1, 4)
            if score >= _MIN_PRESENCE and (overlap(_box(points), boxes) < _SAME_FACE).all():
                faces.append(Landmarks(points, score, self._blendshapes(points)))
        return faces

    def _detect(self, image: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        """Places (8,) of faces: box x0, y0, x1, y1 and two eyes, in pixels of the image, the best
        first.

        The detector misses some faces that fill the picture; if there is none, it searches once
        more in a wider view.
        """
        height, width = image.shape[:2]
        scale = min(1.0, _LONGEST / max(height, width))
        small = image
        if scale < 1:
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        views = views_of(small.shape[1], small.shape[0], self.levels)
        places = self._detect_in(small, views) or self._detect_in(small, [_wider(views[0])])
        ratio = np.tile((width / small.shape[1], height / small.shape[0]), 4)
        return [place * ratio for place in places]

    def _detect_in(
        self, image: NDArray[np.uint8], views: Sequence[View]
    ) -> list[NDArray[np.float64]]:
        """Places (8,) of the faces in some views, each face once."""
        scores, places = zip(*(self._detect_in_view(image, view) for view in views), strict=True)
        return merged(np.concatenate(scores), np.concatenate(places))

    def _detect_in_view(self, image: NDArray[np.uint8], view: View) -> tuple[NDArray, NDArray]:
        """Scores (N,) and places (N, 8) - box x0, y0, x1, y1, two eyes - of the faces in a square
        of the image."""
        x, y, side = view
        scale = _DETECTOR_SIZE / side
        matrix = np.array([(scale, 0, -x * scale), (0, scale, -y * scale)])
        square = warp(image, matrix, _DETECTOR_SIZE, cv2.BORDER_CONSTANT)
        offsets, logits = _run(self._detector, square / np.float32(127.5) - 1)
        scores = _sigmoid(logits[0, :, 0])
        good = scores >= _MIN_SCORE

        anchors = _anchors()[good]
        offsets = offsets[0, good, :8] / _DETECTOR_SIZE
        middle = offsets[:, :2] + anchors
        half = offsets[:, 2:4] / 2
        eyes = offsets[:, 4:] + np.tile(anchors, 2)
        places = np.concatenate([middle - half, middle + half, eyes], axis=1)
        return scores[good], places * side + np.tile((x, y), 4)

    def _landmarks_in(
        self, image: NDArray[np.uint8], corners: NDArray
    ) -> tuple[NDArray[np.float64], float]:
        """Landmarks (478, 2) in pixels of the image and the score of the face in a turned square
        (3, 2) of it."""
        square = np.array([(0, 0), (_FACE_SIZE, 0), (0, _FACE_SIZE)], np.float64)
        to_face = similarity(corners, square)
        outputs = _run(self._landmarks, warp(image, to_face, _FACE_SIZE) / np.float32(255))
        points = outputs[0].reshape(-1, 3)[:, :2].astype(np.float64)
        back = cv2.invertAffineTransform(to_face)
        return points @ back[:, :2].T + back[:, 2], float(_sigmoid(outputs[1]).item())

    def _blendshapes(self, points: NDArray) -> NDArray[np.float32]:
        return _run(self._shapes, points[_INPUT_OF_BLENDSHAPES].astype(np.float32))[0].ravel()


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
        if side >= 2 * _DETECTOR_SIZE:
            views += [(x, y, side) for y in _starts(height, side) for x in _starts(width, side)]
    return views


def _starts(length: float, side: float) -> list[float]:
    """Beginnings of views of a side that cover a length and overlap by half or more."""
    if length <= side:
        return [(length - side) / 2]
    return np.linspace(0, length - side, 1 + int(np.ceil(2 * (length - side) / side))).tolist()


def _wider(view: View, margin: float = 0.3) -> View:
    x, y, side = view
    return x - margin * side, y - margin * side, (1 + 2 * margin) * side


def _box(points: NDArray) -> NDArray[np.float64]:
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


def square_around(box: NDArray, eye_left: NDArray, eye_right: NDArray) -> NDArray[np.float64]:
    """Three corners (3, 2) - top left, top right, bottom left - of the square about a box in which
    the eyes stand level."""
    across = (eye_right - eye_left) / max(np.linalg.norm(eye_right - eye_left), 1e-9)
    down = np.array([-across[1], across[0]])
    half = 0.5 * _ROOM * (box[2:] - box[:2]).max()
    middle = (box[:2] + box[2:]) / 2
    return middle + half * np.stack([-across - down, across - down, down - across])


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
