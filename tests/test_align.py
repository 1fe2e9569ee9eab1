"""The similarity against known transforms, the crop, and where a rendered face's five points come
to stand in the picture."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from norface_lib.common.errors import DataError
from norface_lib.images.crop import (
    CROPS,
    LONDON_CROP,
    NORFACE_CROP,
    crop_of,
    pixels_within,
    similarity,
)

FIVE = NORFACE_CROP.pixels(112)

points = arrays(np.float64, (5, 2), elements=st.floats(-100, 100).map(lambda x: round(x, 3)))
transforms = st.tuples(
    st.floats(-np.pi, np.pi), st.floats(0.1, 10), st.floats(-500, 500), st.floats(-500, 500)
)


def matrix(angle, scale, x, y):
    """A similarity written out."""
    return np.array(
        [
            (scale * np.cos(angle), -scale * np.sin(angle), x),
            (scale * np.sin(angle), scale * np.cos(angle), y),
        ]
    )


def carried(by, p):
    """Points (K, 2) under a transform (2, 3)."""
    return p @ by[:, :2].T + by[:, 2]


# --- similarity -----------------------------------------------------------------------------------


@given(points, transforms)
def test_similarity_recovers_a_known_transform(source, transform):
    assume(source.std(0).max() > 0.1)
    expected = matrix(*transform)
    np.testing.assert_allclose(
        similarity(source, carried(expected, source)), expected, rtol=1e-6, atol=1e-6
    )


@given(points, points)
def test_what_it_finds_is_a_rotation_with_one_scale(source, target):
    assume(source.std(0).max() > 0.1)
    turn = similarity(source, target)[:, :2]
    np.testing.assert_allclose(turn @ turn.T, np.linalg.det(turn) * np.eye(2), rtol=1e-9, atol=1e-9)
    assert np.linalg.det(turn) >= 0


def test_no_similarity_nearby_fits_better():
    rng = np.random.default_rng(0)
    target = carried(matrix(0.3, 1.7, 4, -2), FIVE) + rng.normal(0, 3, FIVE.shape)
    found = similarity(FIVE, target)

    def error(by):
        return ((carried(by, FIVE) - target) ** 2).sum()

    angle, scale = np.arctan2(found[1, 0], found[0, 0]), np.hypot(found[1, 0], found[0, 0])
    for step in rng.normal(0, 0.01, (200, 4)):
        assert error(matrix(angle + step[0], scale + step[1], *(found[:, 2] + step[2:]))) > error(
            found
        )


def test_a_mirrored_face_is_not_mirrored_back():
    mirrored = FIVE * (-1, 1)
    assert np.abs(carried(similarity(mirrored, FIVE), mirrored) - FIVE).max() > 5


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_points_that_coincide_are_refused(x, y):
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.full((5, 2), (x, y)), FIVE)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (FIVE[:4], FIVE),
        (FIVE[:1], FIVE),
        (FIVE[:, :1], FIVE),
        (np.c_[FIVE, FIVE], np.c_[FIVE, FIVE]),
        (FIVE[0], FIVE[0]),
        (FIVE * np.nan, FIVE),
        (FIVE, FIVE * np.inf),
    ],
)
def test_what_are_no_points_is_refused(source, target):
    with pytest.raises(ValueError, match="finite points"):
        similarity(source, target)


# --- crops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", CROPS.values(), ids=lambda crop: crop.name)
def test_a_crop_stands_upright_within_the_image(crop):
    eye_left, eye_right, nose, mouth_left, mouth_right = crop.points
    assert 0 < eye_left[0] < nose[0] < eye_right[0] < 1
    assert 0 < mouth_left[0] < nose[0] < mouth_right[0] < 1
    assert 0 < eye_left[1] < nose[1] < mouth_left[1] < 1
    np.testing.assert_allclose(crop.pixels(224), 2 * crop.pixels(112))


def test_the_crop_is_fixed_as_checkpoints_depend_on_it():
    expected = [(39.72, 43.21), (72.13, 43.03), (56.02, 61.64), (42.71, 80.63), (69.55, 80.47)]
    np.testing.assert_allclose(FIVE, expected, atol=0.01)


def test_the_crop_of_a_folder_is_that_of_its_name_or_of_its_file(tmp_path):
    (tmp_path / "london").mkdir()
    assert crop_of(tmp_path) == NORFACE_CROP
    assert crop_of(tmp_path / "london") == LONDON_CROP
    (tmp_path / "london" / "crop.json").write_text(json.dumps({"points": NORFACE_CROP.points}))
    assert crop_of(tmp_path / "london").points == NORFACE_CROP.points


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "{}",
        "[1]",
        '{"points": null}',
        '{"points": [[0.1, 0.2]]}',
        '{"points": [[0.1], [0.2], [0.3], [0.4], [0.5]]}',
        '{"points": [[NaN, 0], [1, 0], [0, 1], [1, 1], [0, 0]]}',
        json.dumps({"points": FIVE.tolist()}),  # pixels
    ],
)
def test_a_crop_file_of_another_shape_is_an_error_with_its_path(tmp_path, text):
    (tmp_path / "crop.json").write_text(text)
    with pytest.raises(DataError, match=r"crop\.json: must hold .* five points in 0\.\.1"):
        crop_of(tmp_path)


# --- rendered faces -------------------------------------------------------------------------------


def in_pixels(five, camera, size):
    """Where points (K, 3) of a head stand in its image: (K, 2)."""
    from norface_lib.faces.scene import camera_frame, pixel_to_plane

    origin, right, up, forward = camera_frame(camera)
    offset = five - origin
    on_plane = np.stack([offset @ right, offset @ up, offset @ forward]) / (offset @ forward)
    return np.linalg.solve(pixel_to_plane(five, camera, size), on_plane)[:2].T


@pytest.fixture(scope="module")
def some_faces():
    from norface_lib.faces.sampling import sample_face

    return [sample_face(np.random.default_rng([7, number])) for number in range(3)]


@pytest.mark.parametrize("size", [112, 224])
def test_points_in_the_template_s_proportions_meet_it_exactly(size):
    from norface_lib.faces.scene import Camera, camera_frame

    camera = Camera(yaw=0.3, pitch=-0.1, roll=0.2, distance=0.8)
    origin, right, up, forward = camera_frame(camera)
    flat = (NORFACE_CROP.pixels(1) - 0.5) * 0.2
    five = origin + 0.8 * forward + flat[:, :1] * right - flat[:, 1:] * up
    np.testing.assert_allclose(in_pixels(five, camera, size), NORFACE_CROP.pixels(size), atol=1e-6)


def test_five_points_of_rendered_faces_stand_around_the_template(some_faces, head):
    from norface_lib.faces.scene import Camera

    for face in some_faces:
        found = in_pixels(head.five_points(face.subject.vertices, face.subject.eyes), Camera(), 112)
        assert np.abs(found.mean(0) - FIVE.mean(0)).max() < 0.05  # the middle is met, whoever it is
        # and faces differ from the template as people do
        assert np.linalg.norm(found - FIVE, axis=1).max() < 7


def test_shift_zoom_and_tilt_of_the_camera_move_the_points_as_they_say(some_faces, head):
    from norface_lib.faces.scene import Camera

    five = head.five_points(some_faces[0].subject.vertices, some_faces[0].subject.eyes)
    straight = in_pixels(five, Camera(), 112)
    around = straight.mean(0)
    np.testing.assert_allclose(
        in_pixels(five, Camera(shift=(0.1, -0.05)), 112), straight + (11.2, -5.6), atol=1e-6
    )
    zoomed = in_pixels(five, Camera(zoom=1.2), 112)
    np.testing.assert_allclose(zoomed - zoomed.mean(0), 1.2 * (straight - around), atol=1e-6)
    tilted = in_pixels(five, Camera(tilt=0.2), 112)
    np.testing.assert_allclose(
        tilted - tilted.mean(0), (straight - around) @ matrix(0.2, 1, 0, 0)[:, :2].T, atol=1e-6
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"yaw": 0.4, "pitch": -0.2},
        {"yaw": -0.5, "tilt": 0.1, "shift": (0.05, -0.03), "zoom": 1.1},
    ],
    ids=["frontal", "turned", "jittered"],
)
def test_the_irises_are_drawn_where_the_eye_points_say(some_faces, head, studio, settings):
    """What ties the formulas to the picture: irises painted green on gray faces are found within a
    pixel of the points."""
    from norface_lib.faces.sampling import Frame
    from norface_lib.faces.scene import Camera, Light
    from norface_lib.faces.studio import shot_of

    camera, renderer = Camera(**settings), studio.renderer
    frame = Frame({}, {}, "", "lab", (0.0, 0.0), camera, Light())
    columns, rows = np.meshgrid(np.arange(112) + 0.5, np.arange(112) + 0.5)
    for face in some_faces:
        vertices = head.expression(face.subject, {"eyeWideLeft": 1.0, "eyeWideRight": 1.0})
        anchor = head.five_points(vertices, face.subject.eyes)
        look = replace(face.look, iris=np.array([0, 1.5, 0], np.float32))
        gray = renderer.textures(np.full_like(face.texture[None], 0.1))
        image = renderer.render(
            [replace(shot_of(face, frame), vertices=vertices, look=look, anchor=anchor)], gray
        )[0]
        green = (image[..., 1] - image[..., 0]) * (image[..., 1] - image[..., 0] > 0.1)
        for x, y in in_pixels(anchor, camera, 112)[:2]:
            near = green * (np.hypot(columns - x, rows - y) < 8)
            assert near.sum() > 1
            assert (near * columns).sum() / near.sum() == pytest.approx(x, abs=1)
            assert (near * rows).sum() / near.sum() == pytest.approx(y, abs=1)


def test_a_crop_sees_as_many_pixels_as_its_points_span():
    assert pixels_within(NORFACE_CROP.pixels(80) + 7) == pytest.approx(80)
    turned = (NORFACE_CROP.pixels(80) * 2) @ np.array([(0.6, 0.8), (-0.8, 0.6)])
    assert pixels_within(turned) == pytest.approx(160)
