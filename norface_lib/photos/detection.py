"""Face detectors: one interface over MediaPipe's landmarker, insightface's detector, and aligned
crops.

The five points of a face mean the same for all: the fronts of the two eyeballs, the tip of the nose
and the corners of the mouth, as the rendered faces have them (``HeadModel.five_points``). So
photographs are cropped as renderings are.
"""

import shutil
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import CheckpointError, DataError, needs
from norface_lib.common.files import write_atomically
from norface_lib.common.paths import models
from norface_lib.images.crop import NORFACE_CROP, Crop
from norface_lib.photos.pose import Pose, pose_of_five, pose_of_landmarks
from norface_lib.photos.views import quarter_turn, turned_back

if TYPE_CHECKING:
    from norface_lib.photos.landmarker import Landmarks

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Face:
    """A face in an image, in pixels from the image's corner.

    ``box`` (4,): x0, y0, x1, y1. ``points`` (5, 2): image-left eye, image-right eye, nose tip,
    image-left and image-right mouth corner. ``score`` in 0..1. ``blendshapes``: name to 0..1, empty
    if the detector knows none. ``turn``: degrees (0, 90, 180, 270) by which the image has to be
    turned clockwise for the face to stand upright, within 45; box and points are in the image as
    it is, and "left" is the left of the upright face. ``pose``: pitch, yaw and roll of the head in
    degrees (see `norface_lib.photos.pose`), None if not known.
    """

    box: NDArray[np.float64]
    points: NDArray[np.float64]
    score: float
    blendshapes: dict[str, float] = field(default_factory=dict)
    turn: int = 0
    pose: Pose | None = None

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return float((self.box[2:] - self.box[:2]).prod())


class Detector(Protocol):
    """Finds faces. ``name`` goes into tables; ``blendshapes`` names the scores that its faces
    have."""

    name: str
    blendshapes: tuple[str, ...]

    def detect(self, image: Image) -> list[Face]:
        """All faces of an image (H, W, 3) RGB, the largest first."""
        ...


def open_detector(name: str, model: Path | None = None, levels: int | None = None) -> Detector:
    """A detector by name: one of `DETECTORS`.

    ``model``: the landmarker's ``.task`` file, or the folder of insightface's model pack; default:
    where `MediaPipe` and `Insightface` look. ``levels``: how far MediaPipe searches for small
    faces, see `MediaPipe`. Raises :class:`DataError` for an unknown name and
    :class:`CheckpointError` for networks that cannot be loaded.
    """
    if name == "mediapipe":
        return MediaPipe(model, levels)
    if name == "insightface":
        return Insightface(model)
    if name == "none":
        return WholeImage()
    raise DataError(f"no detector {name}; there are {', '.join(DETECTORS)}")


DETECTORS = ("mediapipe", "insightface", "none")


class WholeImage:
    """Detector of aligned crops, framed by ``crop``: the whole image is the face."""

    name = "none"
    blendshapes = ()

    def __init__(self, crop: Crop = NORFACE_CROP):
        self.crop = crop

    def detect(self, image: Image) -> list[Face]:
        """The image as a face. Raises :class:`DataError` if it is not square."""
        height, width = image.shape[:2]
        if height != width:
            raise DataError(
                f"{width} x {height} px is no face crop: aligned faces are square; choose another "
                "detector"
            )
        return [Face(np.array([0, 0, width, height], float), self.crop.pixels(width), 1.0)]


# --- MediaPipe ------------------------------------------------------------------------------------

LANDMARKER_URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
LANDMARKER_FILE = "face_landmarker_v2_with_blendshapes.task"

_FIVE = ((159, 145), (386, 374), (1,), (61,), (291,))
"""Landmarks that are averaged to each of the five points: middles of the upper and the lower lid,
tip of the nose, mouth corners."""

_TOO_LOW = np.array([0.013, 0.013, -0.018, -0.008, -0.008])
"""Distance of these landmarks below the points of rendered faces, in distances of the eyes:
measured on 160 renderings of 40 people of both domains, and taken off. Sideways they agree within
0.01."""


class MediaPipe:
    """Google's face landmarker, with 478 landmarks and 52 blendshapes for each face.

    ``path``: its ``.task`` file. By default ``face_landmarker_v2_with_blendshapes.task`` in the
    folder ``$NORFACE_MODELS`` or in the user's cache, into which it is downloaded once (3.8 MB).
    ``levels``: how often an image is halved in the search for small faces; by default as often as
    its size asks for, so that faces of 60 px are found in any image. Raises
    :class:`CheckpointError` if it cannot be downloaded or is damaged.
    """

    name = "mediapipe"

    def __init__(self, path: Path | None = None, levels: int | None = None):
        from norface_lib.photos.landmarker import BLENDSHAPES, Landmarker

        self.blendshapes = BLENDSHAPES
        self.levels = levels
        self._landmarker = Landmarker(landmarker_file(path), levels)

    def detect(self, image: Image) -> list[Face]:
        """All faces of an image (H, W, 3) RGB, also turned ones, the largest first. Their boxes are
        those of the landmarks."""
        from norface_lib.photos.turns import find_upright

        faces = [self._face(landmarks) for landmarks in find_upright(self._landmarker, image)]
        return sorted(faces, key=lambda face: -face.area)

    def _face(self, landmarks: "Landmarks") -> Face:
        points = landmarks.points
        box = np.concatenate([points.min(0), points.max(0)])
        scores = dict(zip(self.blendshapes, landmarks.blendshapes.tolist(), strict=True))
        pose = pose_of_landmarks(points, landmarks.depth)
        return Face(box, five_of(points), landmarks.score, scores, landmarks.turn, pose)


def landmarker_file(path: Path | None = None) -> Path:
    """File of the landmarker's networks: ``path``, or the default of `MediaPipe`; downloaded if
    missing."""
    path = Path(path) if path else models(LANDMARKER_FILE)
    return path if path.is_file() else download_landmarker(path)


def five_of(landmarks: NDArray) -> NDArray[np.float64]:
    """The five points (5, 2) of MediaPipe's landmarks (478, 2), both in pixels."""
    five = np.stack([landmarks[list(which)].mean(0) for which in _FIVE])
    across = five[1] - five[0]
    return five - _TOO_LOW[:, None] * (-across[1], across[0])


def download_landmarker(path: Path, url: str = LANDMARKER_URL) -> Path:
    """Fetches the landmarker's bundle, checks its networks and puts it at ``path``.

    Raises :class:`CheckpointError` if there is no network, or if it holds other networks.
    """
    from norface_lib.photos.landmarker import read_networks

    def fetch(part: Path) -> None:
        with urllib.request.urlopen(url, timeout=30) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
        read_networks(part)

    print(f"Downloading MediaPipe's face landmarker (3.8 MB, Apache 2.0) to {path}")
    try:
        return write_atomically(path, fetch)
    except OSError as error:
        raise CheckpointError(
            f"{path}: MediaPipe's face landmarker is not there, and its download failed ({error}); "
            f"fetch {url} on a machine "
            f"with a network and put it there, or as {LANDMARKER_FILE} into a folder that "
            "NORFACE_MODELS names"
        ) from error


# --- insightface ----------------------------------------------------------------------------------

INSIGHTFACE_PACK = "buffalo_l"


class Insightface:
    """Insightface's detector (SCRFD) with its five points; its networks are for research that is
    not commercial.

    ``folder``: a model pack, which holds the detector's ONNX file. By default the folder
    ``buffalo_l`` in ``$NORFACE_MODELS``, else ``~/.insightface/models/buffalo_l``, into which
    insightface downloads it once (280 MB). Raises :class:`CheckpointError` if there is no detector,
    or no network to download it over.
    """

    name = "insightface"
    blendshapes = ()

    def __init__(self, folder: Path | None = None):
        with needs("photos"):
            from insightface.app import FaceAnalysis

        here = Path(folder) if folder else models(INSIGHTFACE_PACK)
        if folder and not any(here.glob("*.onnx")):
            raise CheckpointError(
                f"{here}: holds no ONNX file; give the folder of an insightface model pack"
            )
        home = Path.home() / ".insightface" / "models" / INSIGHTFACE_PACK
        if not here.is_dir() and not home.is_dir():
            print(
                f"Downloading insightface's model pack {INSIGHTFACE_PACK} (280 MB, non-commercial "
                f"research only) to {home}"
            )
        try:
            self._app = FaceAnalysis(
                str(here) if here.is_dir() else INSIGHTFACE_PACK, allowed_modules=["detection"]
            )
            self._app.prepare(ctx_id=-1, det_size=(640, 640))
        # a refused connection, half a zip, a folder without a detector: each has a kind of its own
        except Exception as error:
            raise CheckpointError(
                f"{here if here.is_dir() else home}: no detector of insightface there, or its "
                f"download failed ({error}); fetch "
                f"{INSIGHTFACE_PACK}.zip from github.com/deepinsight/insightface/releases, unpack "
                "it there, or use mediapipe"
            ) from error

    def detect(self, image: Image) -> list[Face]:
        """All faces of an image (H, W, 3) RGB, the largest first; an image without one is searched
        again, turned by 180, 90 and 270 degrees."""
        faces = self._detect(image)
        if not faces:
            searches = [self._detect_turned(image, turn) for turn in (180, 90, 270)]
            faces = max(searches, key=lambda some: max([face.score for face in some], default=0))
        return sorted(faces, key=lambda face: -face.area)

    def _detect(self, image: Image) -> list[Face]:
        # it takes BGR, as OpenCV reads it
        detections = self._app.get(np.ascontiguousarray(image[..., ::-1]))
        return [_face_of(np.array(each.bbox), each.kps, each.det_score) for each in detections]

    def _detect_turned(self, image: Image, turn: int) -> list[Face]:
        """Faces of the image turned clockwise, in the image as it is."""
        other = np.rot90(image, -turn // 90)
        sizes = (image.shape[1::-1], other.shape[1::-1])
        faces = []
        for face in self._detect(other):
            corners = turned_back(face.box.reshape(2, 2), turn, *sizes)
            box = np.concatenate([corners.min(0), corners.max(0)])
            faces.append(_face_of(box, turned_back(face.points, turn, *sizes), face.score))
        return faces


def _face_of(box: NDArray, points: NDArray, score: float) -> Face:
    """A face by its box and five points, with its turn and pose."""
    points = np.asarray(points, float)
    turn = quarter_turn(points[3:].mean(0) - points[:2].mean(0))
    pose = pose_of_five(points)
    return Face(np.asarray(box, float), points, float(score), turn=turn, pose=pose)
