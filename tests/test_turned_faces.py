"""Faces that lie on a side or stand upside down come out upright, and upright ones are left
alone."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from norface_lib.images.crop import align_face
from norface_lib.photos.detection import Insightface
from norface_lib.photos.folders import align_tree
from norface_lib.photos.tables import BLENDSHAPES, FACES
from norface_lib.photos.views import quarter_turn, turned, turned_back

PHOTOS = Path(os.environ.get("NORFACE_PHOTOS", "none"))
UPSIDE_DOWN = PHOTOS.parent / "cases" / "upside_down.jpg"

TURNS = (0, 90, 180, 270)


def lying(image, turn):
    """The image so that it has to be turned clockwise by ``turn`` to stand upright."""
    return np.ascontiguousarray(np.rot90(image, turn // 90))


def difference(image, face, other, other_face):
    """Mean absolute difference of two aligned faces, in gray levels."""
    crops = [align_face(image, face.points), align_face(other, other_face.points)]
    return np.abs(crops[0].astype(float) - crops[1]).mean()


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", TURNS)
def test_the_turn_is_what_makes_a_face_upright(turn):
    down = turned(np.array([(0.0, 1.0)]), -turn)[0]
    assert quarter_turn(down) == turn
    for tilt in (-40, 40):
        assert quarter_turn(turned(down[None], tilt)[0]) == turn


@pytest.mark.parametrize("turn", TURNS)
def test_points_of_a_turned_image_are_where_its_pixels_came_from(turn):
    image = np.zeros((30, 50), np.uint8)
    image[7, 41] = 1
    other = np.rot90(image, -turn // 90)
    row, column = np.argwhere(other)[0]
    point = np.array([(column + 0.5, row + 0.5)])
    back = turned_back(point, turn, image.shape[::-1], other.shape[::-1])
    np.testing.assert_allclose(back, [(41.5, 7.5)])


# --- MediaPipe's landmarker -----------------------------------------------------------------------


@pytest.mark.parametrize("turn", TURNS)
def test_a_face_is_aligned_upright_however_it_lies(landmarker, portrait, turn):
    face = landmarker.detect(portrait)[0]
    other = lying(portrait, turn)
    other_face = landmarker.detect(other)[0]
    assert face.turn == 0 and other_face.turn == turn
    assert difference(portrait, face, other, other_face) < 8
    smile = other_face.blendshapes["mouthSmileLeft"]
    assert smile == pytest.approx(face.blendshapes["mouthSmileLeft"], abs=0.15)


def test_the_face_that_stands_upside_down(landmarker, tmp_path):
    if not UPSIDE_DOWN.is_file():
        pytest.skip("no upside_down.jpg in a folder cases beside that which NORFACE_PHOTOS names")
    align_tree(UPSIDE_DOWN, tmp_path, landmarker, progress=False)
    row = pd.read_csv(tmp_path / FACES).iloc[0]
    assert row["turn"] == 180 and row["status"] == "aligned"
    assert row["eye_left_y"] > row["mouth_left_y"] and row["eye_left_x"] > row["eye_right_x"]

    crop = np.array(Image.open(tmp_path / row["output"]))
    again = landmarker.detect(crop)[0]
    assert again.turn == 0
    shapes = pd.read_csv(tmp_path / BLENDSHAPES).iloc[0]
    assert shapes["mouthSmileLeft"] == pytest.approx(again.blendshapes["mouthSmileLeft"], abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("turn", TURNS)
def test_faces_of_the_london_set_are_upright_at_every_turn(landmarker, turn):
    paths = sorted((PHOTOS / "london").glob("*.jpg"))[:50]
    if not paths:
        pytest.skip("NORFACE_PHOTOS names no folder with the London Set")
    for path in paths:
        image = np.array(Image.open(path).convert("RGB"))
        face = landmarker.detect(image)[0]
        other = lying(image, turn)
        other_face = landmarker.detect(other)[0]
        assert face.turn == 0 and other_face.turn == turn, path.name
        assert difference(image, face, other, other_face) < 25, path.name


# --- insightface ----------------------------------------------------------------------------------


class Upright:
    """Stands for insightface's networks: finds the mark of one channel where it is above the mark
    of another."""

    def get(self, image):
        top = np.argwhere(image[..., 2] == 255).mean(0)[::-1]
        bottom = np.argwhere(image[..., 0] == 255).mean(0)[::-1]
        if abs(top[0] - bottom[0]) > 1 or top[1] > bottom[1]:
            return []
        points = np.stack([top - (5, 0), top + (5, 0), (top + bottom) / 2, bottom, bottom]) + 0.5
        box = np.concatenate([points.min(0), points.max(0)])
        return [SimpleNamespace(bbox=box, kps=points, det_score=0.8)]


@pytest.mark.parametrize("turn", TURNS)
def test_insightface_searches_turned_images_if_it_finds_nothing(turn):
    image = np.zeros((60, 80, 3), np.uint8)
    image[20, 30] = (255, 0, 0)
    image[40, 30] = (0, 0, 255)
    detector = Insightface.__new__(Insightface)
    detector._app = Upright()
    other = lying(image, turn)
    face = detector.detect(other)[0]
    assert face.turn == turn and (face.box[2:] > face.box[:2]).all()
    row, column = np.argwhere(other[..., 0] == 255)[0]
    np.testing.assert_allclose(face.points[:2].mean(0), (column + 0.5, row + 0.5))
