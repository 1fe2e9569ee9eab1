"""Small faces in large pictures are found, each once, and pictures of any shape are searched."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from norface_lib.cli.bench.small_faces import bench_small_faces
from norface_lib.images.crop import overlap
from norface_lib.photos.folders import align_tree
from norface_lib.photos.tables import FACES
from norface_lib.photos.views import levels_for, same_face, views_of

PANORAMA = Path(os.environ.get("NORFACE_PHOTOS", "none")).parent / "cases" / "panorama.jpg"


# --- views ----------------------------------------------------------------------------------------


def test_smaller_views_for_larger_images():
    sizes = ((200, 300), (640, 480), (1920, 1080), (4000, 3000), (6000, 400))
    assert [levels_for(*size) for size in sizes] == [1, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [(1920, 1080), (4000, 3000), (6000, 400), (300, 5000)])
def test_any_face_that_a_larger_view_may_miss_lies_whole_in_a_smaller_one(size):
    views = np.array(views_of(*size, levels=levels_for(*size)))
    side = views[:, 2].min()
    assert 256 <= side <= 512
    smallest = views[views[:, 2] == side]
    room = np.array(size) - side / 2
    for x, y in np.random.default_rng(0).uniform((0, 0), room.clip(1), (200, 2)):
        end = np.minimum((x + side / 2, y + side / 2), size)
        start = smallest[:, :2]
        assert ((start <= (x, y)) & (end <= start + side)).all(1).any()


def test_a_part_of_a_face_is_the_same_face_and_a_neighbor_is_not():
    face = np.array([100.0, 100, 200, 220])
    boxes = np.array(
        [(120, 120, 160, 150), (0, 0, 300, 300), (105, 95, 210, 215), (180, 100, 280, 220)]
    )
    assert same_face(face, boxes.astype(float)).tolist() == [True, True, True, False]


# --- pictures -------------------------------------------------------------------------------------


def test_a_small_face_is_found_wherever_it_is_in_a_large_picture(landmarker, portrait):
    small = cv2.resize(portrait[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
    box = landmarker.detect(small)[0].box
    assert 50 < box[3] - box[1] < 80
    picture = np.full((2000, 3000, 3), 110, np.uint8)
    places = np.array([(30, 40), (1420, 900), (2830, 1830)])
    for x, y in places:
        picture[y : y + 160, x : x + 160] = small
    boxes = np.array([face.box for face in landmarker.detect(picture)])
    assert len(boxes) == 3
    for place in places:
        assert overlap(box + np.tile(place, 2), boxes).max() > 0.7


def test_a_large_face_in_a_large_picture_is_one_face(landmarker, portrait):
    large = cv2.resize(portrait, (3000, 3000), interpolation=cv2.INTER_CUBIC)
    faces = landmarker.detect(large)
    assert len(faces) == 1
    np.testing.assert_allclose(
        faces[0].points * 512 / 3000, landmarker.detect(portrait)[0].points, atol=2
    )


def test_pictures_of_one_pixel_have_a_row_each(landmarker, tmp_path):
    for name, shape in {"flat": (1, 5000), "high": (5000, 1), "dot": (1, 1)}.items():
        path = tmp_path / "in" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(path)
    counts = align_tree(tmp_path / "in", tmp_path / "out", landmarker, progress=False)
    assert counts == {"no face": 3}


def test_the_panorama(landmarker, tmp_path):
    if not PANORAMA.is_file():
        pytest.skip("no panorama.jpg in a folder cases beside that which NORFACE_PHOTOS names")
    counts = align_tree(PANORAMA, tmp_path, landmarker, all_faces=True, progress=False)
    assert counts == {"aligned": 8}
    table = pd.read_csv(tmp_path / FACES).sort_values("x0")
    assert (table["turn"] == 0).all() and (table["x0"].diff().dropna() > 500).all()


def test_the_figure_shows_both_searches_of_each_size_of_pictures():
    pytest.importorskip("seaborn", reason='pip install "norface[notebooks]"')
    from norface_lib.common.paths import ROOT
    from norface_lib.viz import plots

    lines = (ROOT / "results" / "bench-small-faces.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in lines]
    axes = plots.small_faces(measured).axes
    assert axes[0].get_title() == "1280 x 720 px" and len(axes) == 4
    assert all(len(axis.get_lines()) == 2 for axis in axes)
    found = [each["value"] for each in measured if each["search"] == "tiles" and each["face"] >= 60]
    assert min(found) == 1.0


# --- the measure ----------------------------------------------------------------------------------


def test_recall_of_small_faces_is_measured(landmarker, portrait, tmp_path, monkeypatch):
    monkeypatch.setattr("norface_lib.cli.bench.small_faces.PICTURES", ((1920, 600),))
    monkeypatch.setattr("norface_lib.cli.bench.small_faces.HEIGHTS", (15, 70, 700))
    Image.fromarray(portrait[:256, 96:352]).save(tmp_path / "a.png")
    figures = list(bench_small_faces(tmp_path, pictures=1, faces=3))
    recall = {(each["face"], each["search"]): each["value"] for each in figures}
    assert recall == {
        (15, "one shrunk picture"): 0.0,
        (15, "tiles"): 0.0,
        (70, "one shrunk picture"): pytest.approx(0.5, abs=0.5),
        (70, "tiles"): 1.0,
    }  # faces of 700 px do not fit
    assert all(each["faces"] == 3 and each["false_faces"] == 0 for each in figures)
