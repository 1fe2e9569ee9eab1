"""Rendered faces: wrinkles, parts, the head, and what each AU changes in the picture."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from norface_lib import labels
from norface_lib.faces.benchmark import target_face
from norface_lib.faces.head import FRAME, HAIR, TEETH
from norface_lib.faces.parts import STYLES, Glasses
from norface_lib.faces.render import Renderer
from norface_lib.faces.sampling import Frame, sample_face, sample_frame
from norface_lib.faces.scene import Camera, Light, camera_frame
from norface_lib.faces.skin import dressed
from norface_lib.faces.studio import shot_of
from norface_lib.faces.wrinkles import FOLDS, depths

PLAIN = Frame({}, {})

REGION = {
    **dict.fromkeys((1, 2, 4), "brows"),
    **dict.fromkeys((5, 7, 43), "eyes"),
    **dict.fromkeys((6, 9), "cheeks"),
    **dict.fromkeys((10, 12, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 28), "mouth"),
}
# where the change is centered, of 112 rows
ROWS = {"brows": (20, 40), "eyes": (36, 56), "cheeks": (40, 62), "mouth": (64, 95)}

every_au = pytest.mark.parametrize("au", labels.AUS)
sided_aus = pytest.mark.parametrize("au", [au for au in labels.AUS if labels.AUS[au].sided])


@pytest.fixture(scope="module")
def change(studio):
    """``change(left, right)``: how much an expression changes each pixel of the normalized image,
    (112, 112), 0..255."""
    neutral = studio.neutral().astype(int)
    return lambda left, right=None: np.abs(
        studio.normalized(left, right).astype(int) - neutral
    ).mean(2)


# --- wrinkles and parts ---------------------------------------------------------------------------


def test_wrinkles_deepen_on_the_side_that_acts_and_with_age(head):
    smile = depths({6: 5.0}, {}, age=0.5)
    left, right = head.neutral[:, 0] > 0.02, head.neutral[:, 0] < -0.02
    assert smile[left].max() > 0.8
    assert smile[right].max() < 0.02
    assert np.abs(depths({}, {}, age=0.5)).max() == 0
    assert depths({}, {}, age=0.95).sum() > depths({}, {}, age=0.75).sum() > 0


def test_every_fold_has_grooves_in_its_reach():
    for fold in FOLDS:
        x, z = (
            np.linspace(-1, 1, 81) * reach + middle
            for middle, reach in zip(fold.center, fold.reach, strict=True)
        )
        x, z = np.meshgrid(np.abs(x), z)
        assert fold.depth(x, np.full_like(x, -0.02), z).max() > 0.4, fold.depth.__name__


@pytest.mark.parametrize("style", [None, *STYLES])
def test_hair_covers_the_skull_and_leaves_the_face_free(studio, head, style):
    face = studio.target
    look = replace(face.look, hair_style=style)
    subject = dressed(head.subject(face.subject.phenotype, {}), look)
    sheet = subject.vertices[np.unique(head.triangles[head.materials == HAIR])]
    assert np.isfinite(subject.vertices).all()
    assert (np.ptp(sheet, axis=0).max() > 0.1) == (style is not None)
    gray = studio.renderer.textures(np.full_like(face.texture[None], 0.3))
    green = replace(look, hair=np.array([0, 1, 0], np.float32))
    image = studio.renderer.render(
        [
            replace(
                shot_of(face, PLAIN),
                vertices=subject.vertices,
                attribute=subject.to_tip,
                look=green,
            )
        ],
        gray,
    )[0]
    hair = image[..., 1] - image[..., 0] > 0.05
    assert not hair[38:95, 36:76].any(), "hair hides the eyes or the mouth"
    assert hair.mean() > 0.08 or style in (None, "buzz", "tied"), "hardly any hair to be seen"


def test_glasses_sit_in_front_of_the_eyes(studio, head):
    face = studio.target
    subject = dressed(face.subject, replace(face.look, glasses=Glasses()))
    frame = subject.vertices[np.unique(head.triangles[head.materials == FRAME])]
    front = frame[frame[:, 1] < subject.eyes[:, 1].min() - 0.02]
    assert {round(float(side), 2) for side in (front[:, 0].min(), front[:, 0].max())} <= {
        -0.06,
        -0.05,
        0.05,
        0.06,
    }
    assert frame[:, 1].max() > 0.05  # the arms reach the ears


# --- the head -------------------------------------------------------------------------------------


def test_every_au_is_made_of_actions_that_the_head_has(head):
    # ARKit's 52, and the halves of browInnerUp
    assert len(head.action_names) == len(set(head.action_names)) == 54
    for au in labels.AUS.values():
        for name in au.actions:
            assert np.abs(head.actions[head.action_names.index(name)]).max() > 1e-4, name
    whole, left, right = (
        head.actions[head.action_names.index(f"browInnerUp{side}")]
        for side in ("", "Left", "Right")
    )
    np.testing.assert_allclose(left + right, whole, atol=1e-6)


def test_actions_add_up(head):
    face = target_face().subject
    smile, jaw = {"mouthSmileLeft": 0.7}, {"jawOpen": 0.4}
    alone = [head.expression(face, action) - face.vertices for action in (smile, jaw)]
    np.testing.assert_allclose(
        head.expression(face, smile | jaw), face.vertices + sum(alone), atol=1e-6
    )


def test_the_subject_s_left_is_at_positive_x(head):
    left, right = head.eyeballs(head.neutral)
    assert left[0] > 0.02
    assert right[0] < -0.02
    five = head.five_points(head.neutral, head.eyeballs(head.neutral))
    assert five[0, 0] < 0 < five[1, 0]  # as seen in the image: its left eye is the subject's right
    assert five[3, 0] < 0 < five[4, 0]


def test_only_the_lower_teeth_follow_the_jaw(head):
    teeth = np.unique(head.triangles[head.materials == TEETH])
    upper, lower = np.split(head.neutral[teeth], 2)
    upper_moved, lower_moved = np.split(head.actions[head.action_names.index("jawOpen")][teeth], 2)
    assert upper[:, 2].min() > lower[:, 2].max()
    assert np.abs(upper_moved).max() == 0
    assert lower_moved[:, 2].max() < -0.005


# --- the picture ----------------------------------------------------------------------------------


def test_faces_look_different(studio):
    faces = [sample_face(np.random.default_rng([7, number])) for number in range(4)]
    images = [studio.original(face, PLAIN, np.random.default_rng(0)).astype(int) for face in faces]
    assert min(np.abs(a - b).mean() for a, b in combinations(images, 2)) > 3


@every_au
def test_an_au_changes_the_normalized_image_where_it_should(change, au):
    changed = change({au: 5.0})
    upper, lower = changed[:56].mean(), changed[56:].mean()
    assert changed.mean() > 0.3
    if REGION[au] == "mouth":
        assert lower > 5 * upper
    elif REGION[au] != "cheeks":
        assert upper > 2 * lower
    first, last = ROWS[REGION[au]]
    assert first < changed.mean(1) @ (np.arange(112) + 0.5) / changed.mean(1).sum() < last


@every_au
def test_more_of_an_au_changes_more(change, au):
    amounts = [change({au: float(intensity)}).mean() for intensity in range(6)]
    assert amounts[0] == 0
    assert min(np.diff(amounts)) > 0.01


@sided_aus
def test_an_au_on_one_side_changes_that_side(change, au):
    left, right = change({au: 5.0}, {}), change({}, {au: 5.0})
    # the subject's left is on the image's right
    assert left[:, 56:].mean() > 2 * left[:, :56].mean()
    assert right[:, :56].mean() > 2 * right[:, 56:].mean()


def test_the_normalized_image_is_frontal(studio):
    """Its outline is that of its mirror image; a head turned by 3 degrees would overlap by 86 %
    only."""
    neutral = studio.neutral().astype(int)
    head = (np.abs(neutral - neutral[:, :1]) > 12).any(2)  # the wall behind has one color per row
    assert 0.5 < head.mean() < 0.85
    assert (head & head[:, ::-1]).sum() / (head | head[:, ::-1]).sum() > 0.95


def test_the_normalized_image_does_not_depend_on_what_was_rendered_before(studio):
    left, right = {4: 3.0, 12: 5.0}, {4: 3.0, 12: 1.0}
    before = studio.normalized(left, right)
    face = sample_face(np.random.default_rng([7, 1]))
    studio.original(face, sample_frame(np.random.default_rng(3)), np.random.default_rng(4))
    np.testing.assert_array_equal(studio.normalized(left, right), before)


def test_a_camera_from_the_side_sees_the_head_turned(head):
    five = shot_of(target_face(), PLAIN).anchor

    def nose(camera):
        _, right, up, _ = camera_frame(camera)
        return (five[2] - five[:2].mean(0)) @ right, (five[2] - five[:2].mean(0)) @ up

    straight = nose(Camera())
    assert nose(Camera(yaw=0.4))[0] < straight[0] - 0.005  # to the image's left
    assert nose(Camera(pitch=0.3))[1] > straight[1] + 0.005  # up


def test_heads_rendered_in_one_launch_are_those_rendered_one_by_one(studio):
    people = [sample_face(np.random.default_rng([7, number])) for number in range(3)]
    rng = np.random.default_rng(0)
    shots = [shot_of(person, sample_frame(rng, "wild")) for person in people]
    together = Renderer(112, batch=3)
    images = together.render(
        shots, together.textures(np.stack([person.texture for person in people]))
    )
    for shot, person, image in zip(shots, people, images, strict=True):
        alone = studio.renderer.render([shot], studio.renderer.textures(person.texture[None]))[0]
        np.testing.assert_array_equal(image, alone)
    with pytest.raises(ValueError, match="3 heads at a time, got 1"):
        together.render(shots[:1], None)


@pytest.mark.parametrize(("x", "brighter"), [(1.0, "right"), (-1.0, "left")])
def test_the_lit_side_is_the_brighter_one(studio, x, brighter):
    face, light = studio.target, Light(direction=(x, 0.0, 0.3))
    texture = studio.renderer.textures(face.texture[None])
    shot = replace(shot_of(face, PLAIN), light=light)
    image = studio.renderer.render([shot], texture)[0, 30:90, 30:82, :3]
    left, right = image[:, :26].mean(), image[:, 26:].mean()
    assert (right > 1.5 * left) if brighter == "right" else (left > 1.5 * right)


@pytest.mark.parametrize(
    ("gaze", "axis"), [((0.3, 0.0), 1), ((0.0, -0.3), 0)], ids=["sideways", "down"]
)
def test_the_irises_follow_the_gaze(studio, head, gaze, axis):
    """Irises painted green on a gray face: positive yaw moves them to the image's right, negative
    pitch down."""
    face = studio.target
    look = replace(face.look, iris=np.array([0, 1.5, 0], np.float32))
    gray = studio.renderer.textures(np.full_like(face.texture[None], 0.1))
    vertices = head.expression(face.subject, {"eyeWideLeft": 1.0, "eyeWideRight": 1.0})
    shot = replace(shot_of(face, PLAIN), vertices=vertices, look=look)

    def center(gaze):
        image = studio.renderer.render([replace(shot, gaze=gaze)], gray)[0, 35:52]
        return np.argwhere(image[..., 1] - image[..., 0] > 0.1).mean(0)

    moved = center(gaze) - center((0.0, 0.0))
    assert moved[axis] > 0.5
    # lids may cover one iris more than the other
    assert abs(moved[1 - axis]) < min(0.7, abs(moved[axis]))
