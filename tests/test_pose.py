"""Pose of heads: exact on the model face, near the truth on rendered heads."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from norface_lib.photos.folders import align_tree
from norface_lib.photos.pose import _FIVE, _RIGID, pose_of_five, pose_of_landmarks
from norface_lib.photos.tables import FACES


def rotation(pitch, yaw, roll):
    """(3, 3) from the head to the camera: x right, y up, z towards the camera; degrees."""
    x, y, z = np.radians((pitch, yaw, roll))
    up = cv2.Rodrigues(np.array([-x, 0.0, 0.0]))[0] @ cv2.Rodrigues(np.array([0.0, -y, 0.0]))[0]
    return cv2.Rodrigues(np.array([0.0, 0.0, -z]))[0] @ up


POSES = [(0, 0, 0), (20, 0, 0), (0, 30, 0), (0, 0, 40), (-15, -35, 10), (10, 20, 170)]


@pytest.mark.parametrize("pose", POSES)
def test_the_pose_of_the_model_face_is_exact(pose):
    landmarks = np.zeros((478, 3))
    landmarks[_RIGID[:, 0].astype(int)] = _RIGID[:, 2:5] * (-1, 1, 1)
    landmarks[_RIGID[:, 1].astype(int)] = _RIGID[:, 2:5]
    seen = 7 * landmarks @ rotation(*pose).T * (1, -1, -1) + (300, 200, 50)
    np.testing.assert_allclose(pose_of_landmarks(seen[:, :2], seen[:, 2]), pose, atol=1e-6)


@pytest.mark.parametrize("pose", POSES)
def test_the_pose_of_five_points_is_near(pose):
    seen = 30 * (_FIVE @ rotation(*pose).T)[:, :2] * (1, -1) + (300, 200)
    np.testing.assert_allclose(pose_of_five(seen), pose, atol=5)


def test_five_points_of_no_head_have_no_pose():
    assert pose_of_five(np.full((5, 2), 7.0)) is None


def test_a_turned_photograph_has_another_roll_and_a_mirrored_one_another_yaw(landmarker, tmp_path):
    portrait = pytest.importorskip("skimage.data").astronaut()
    for name, image in {
        "a": portrait, "b": portrait[:, ::-1], "c": portrait[::-1, ::-1],
    }.items():  # fmt: skip
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    align_tree(tmp_path, tmp_path.with_name("out"), landmarker, progress=False)
    table = pd.read_csv(tmp_path.with_name("out") / FACES)
    plain, mirrored, turned = table[["pitch", "yaw", "roll"]].to_numpy()
    assert np.abs(plain).max() < 35
    np.testing.assert_allclose(mirrored, plain * (1, -1, -1), atol=4)
    np.testing.assert_allclose(turned[:2], plain[:2], atol=4)
    assert abs(abs(turned[2] - plain[2]) - 180) < 4


# --- rendered heads -------------------------------------------------------------------------------


def true_pose(person, frame):
    """Pitch, yaw and roll of a rendered head in its image."""
    from norface_lib.faces.scene import camera_frame, pixel_to_plane
    from norface_lib.faces.studio import shot_of

    camera = frame.camera
    origin, right, up, forward = camera_frame(camera)
    to_plane = pixel_to_plane(shot_of(person, frame).anchor, camera, 224)
    middle = np.array([0.0, 0.03, -0.03])
    ends = np.stack([middle, middle + (0, 0, 0.01)]) - origin
    on_plane = np.stack([ends @ right, ends @ up, ends @ forward]) / (ends @ forward)
    start, end = np.linalg.solve(to_plane, on_plane)[:2].T
    roll = np.arctan2(end[0] - start[0], start[1] - end[1])
    return np.degrees((camera.pitch, camera.yaw, roll))


def errors_on_rendered_heads(detector, heads, seed):
    """Errors (N, 3) in degrees of pitch, yaw and roll by all landmarks, and by five points."""
    from norface_lib.faces.sampling import sample_face, sample_frame
    from norface_lib.faces.studio import Studio

    studio = Studio(224)
    by_landmarks = []
    by_five = []
    for number in range(heads):
        rng = np.random.default_rng([seed, number])
        person = sample_face(rng)
        frame = sample_frame(rng)
        yaw, pitch, tilt = rng.uniform(-1, 1, 3) * (0.8, 0.4, 0.5)
        camera = replace(frame.camera, yaw=yaw, pitch=pitch, tilt=tilt, zoom=0.7)
        frame = replace(frame, camera=camera)
        faces = detector.detect(studio.original(person, frame, rng))
        if faces:
            truth = true_pose(person, frame)
            by_landmarks.append(np.array(faces[0].pose) - truth)
            by_five.append(np.array(pose_of_five(faces[0].points)) - truth)
    return np.array(by_landmarks), np.array(by_five)


def test_the_pose_of_rendered_heads(landmarker):
    by_landmarks, by_five = errors_on_rendered_heads(landmarker, 12, seed=5)
    assert len(by_landmarks) >= 11
    assert (np.abs(by_landmarks).mean(0) < (6, 4, 4)).all()
    assert (np.abs(by_five).mean(0) < (13, 6, 5)).all()
