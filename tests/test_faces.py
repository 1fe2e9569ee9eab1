"""The rendered benchmark: subjects and frames by seed, what each AU changes in the picture, and
interrupted writing."""

import hashlib
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations, pairwise

import cv2
import numpy as np
import pandas as pd
import pytest

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.paths import ROOT
from norface_lib.faces import benchmark
from norface_lib.faces.benchmark import (
    DRAWN_AUS,
    POOLS,
    TARGETS,
    BenchmarkSpec,
    Frame,
    draw_emotion,
    draw_face,
    draw_frame,
    draw_intensities,
    frames_of,
    sequence_of,
    shot_of,
)
from norface_lib.faces.head import FRAME, HAIR, TEETH
from norface_lib.faces.parts import STYLES, Glasses
from norface_lib.faces.render import Renderer
from norface_lib.faces.scene import Camera, Light, camera_frame
from norface_lib.faces.skin import dressed
from norface_lib.faces.wrinkles import FOLDS, depths

PLAIN = Frame({}, {}, "", "lab", (0.0, 0.0), Camera(), Light())

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


def read(path):
    """An image (S, S, 3) as signed RGB, or a failure."""
    image = cv2.imread(str(path))
    assert image is not None, path
    return image[..., ::-1].astype(int)


def files_of(root):
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def rendered(tmp_path):
    """Renders one subject in this process and returns its files: ``rendered(spec, number)``."""

    def render(spec, number):
        root = tmp_path / f"{spec.pool}-{spec.seed}-{number}"
        name = benchmark.render_subject(spec, number, str(root))
        return {
            path.removeprefix("parts/").replace(name, ""): data
            for path, data in files_of(root).items()
        }

    return render


@pytest.fixture(scope="module")
def change(studio):
    """``change(left, right)``: how much an expression changes each pixel of the normalized image,
    (112, 112), 0..255."""
    neutral = studio.neutral().astype(int)
    return lambda left, right=None: np.abs(
        studio.normalized(left, right).astype(int) - neutral
    ).mean(2)


# --- subjects and frames by seed ------------------------------------------------------------------


def test_the_same_seed_gives_the_same_files_in_another_process(tiny_spec, tiny_benchmark, rendered):
    files = rendered(tiny_spec, 0)
    assert sum(path.startswith("images/") for path in files) == tiny_spec.frames
    for path, data in files.items():
        if not path.endswith(".csv"):
            assert data == (tiny_benchmark / path.replace("//", "/lab0000/")).read_bytes(), path


@pytest.mark.parametrize("other", [{"seed": 1}, {"pool": "pretrain"}, {"pool": "wild"}], ids=str)
def test_another_seed_or_pool_gives_other_faces_and_expressions(tiny_spec, rendered, other):
    spec = replace(tiny_spec, frames=1)
    ours, theirs = rendered(spec, 0), rendered(replace(spec, **other), 0)
    assert ours.keys() == theirs.keys()
    assert all(data != theirs[path] for path, data in ours.items())


def test_no_two_pools_seeds_or_subjects_share_a_stream(monkeypatch, tmp_path):
    """Neither the generator that draws a subject, nor that of a frame, nor that of a target is ever
    used twice."""
    streams = []
    monkeypatch.setattr(
        benchmark,
        "_studio",
        lambda size, target: pytest.fail("a subject is drawn before any rendering"),
    )

    class Drawn(Exception):
        pass

    def note(rng, **_):
        streams.append(tuple(rng.random(4)))
        raise Drawn

    monkeypatch.setattr(benchmark, "draw_face", note)
    monkeypatch.setattr(
        benchmark, "draw_frame", lambda rng, domain, strength: streams.append(tuple(rng.random(4)))
    )
    for pool in POOLS:
        for seed in (0, 1, 2):
            spec = BenchmarkSpec(pool=pool, seed=seed, subjects=50, frames=3)
            for number in range(spec.subjects):
                with pytest.raises(Drawn):
                    benchmark.render_subject(spec, number, str(tmp_path))
                list(frames_of(spec, number))
    for name in TARGETS:
        with pytest.raises(Drawn):
            benchmark.target_face.__wrapped__(name)
    assert len(streams) == len(POOLS) * 3 * 50 * 4 + len(TARGETS)
    assert len(set(streams)) == len(streams)


def test_names_tell_the_pools_apart():
    names = {
        benchmark.subject_name(pool, number) for pool in POOLS for number in (0, 1, 9_999, 10_000)
    }
    assert len(names) == 4 * len(POOLS)


def test_faces_look_different(studio):
    faces = [draw_face(np.random.default_rng([7, number])) for number in range(4)]
    images = [studio.original(face, PLAIN, np.random.default_rng(0)).astype(int) for face in faces]
    assert min(np.abs(a - b).mean() for a, b in combinations(images, 2)) > 3


def test_labels_do_not_depend_on_size_or_target(tiny_spec):
    def rows(spec):
        return [
            benchmark.label_row("x", number, frame)
            for number, (frame, _) in enumerate(frames_of(spec, 2))
        ]

    assert rows(tiny_spec) == rows(replace(tiny_spec, size=224))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool": "street"}, "pool must be one of pretrain, lab, evaluator, wild"),
        ({"target": "nobody"}, "target must be of noor"),
        ({"subjects": 0}, "at least 1"),
        ({"frames": 0}, "at least 1"),
        ({"sequence": 0}, "at least 1"),
        ({"seed": -1}, "must not be negative"),
        ({"version": 1}, "not 1"),
        ({"size": -1}, "at least 1"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        BenchmarkSpec(**wrong)


# --- AU statistics --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draws():
    rng = np.random.default_rng(0)
    return [draw_intensities(rng) for _ in range(4000)]


def test_aus_occur_as_often_as_in_bp4d(draws):
    for au, rate in zip(labels.BP4D_AUS, labels.BP4D_RATES, strict=True):
        assert np.mean([au in left for left, _ in draws]) == pytest.approx(rate, abs=0.03), au


def test_aus_that_go_together_or_exclude_each_other_do_so(draws):
    occurs = {au: np.array([au in left for left, _ in draws], float) for au in DRAWN_AUS}
    for a, b in ((1, 2), (6, 12), (10, 12), (15, 17), (23, 24)):
        assert np.corrcoef(occurs[a], occurs[b])[0, 1] > 0.15
    for a, b in ((24, 25), (12, 15), (23, 25)):
        assert np.corrcoef(occurs[a], occurs[b])[0, 1] < -0.1


def test_an_au_that_occurs_is_at_least_a_trace_on_its_stronger_side(draws):
    stronger = [max(left[au], right[au]) for left, right in draws for au in left]
    assert min(stronger) >= 1
    assert max(stronger) <= 5
    assert 2.4 < np.median(stronger) < 3.1
    assert all(left.keys() == right.keys() for left, right in draws)


def test_only_smiles_and_dimples_are_one_sided_and_rarely(draws):
    weaker = {au: [] for au in DRAWN_AUS}
    for left, right in draws:
        for au in left:
            weaker[au].append(min(left[au], right[au]) / max(left[au], right[au]))
    for au, shares in weaker.items():
        one_sided = np.mean(np.array(shares) < 0.4)
        assert 0.04 < one_sided < 0.12 if au in (12, 14) else one_sided == 0
        assert labels.AUS[au].sided or min(shares) == 1


@pytest.mark.parametrize("emotion", labels.EMOTIONS)
def test_an_emotion_shows_the_aus_of_one_of_its_prototypes(emotion):
    rng = np.random.default_rng(1)
    for _ in range(100):
        left, right = draw_emotion(rng, emotion)
        shown = {au: max(left[au], right[au]) for au in left}
        assert any(shown.keys() >= must.keys() for must, _ in labels.EMOTION_AUS[emotion])
        assert all(1 <= value <= labels.INTENSITY_MAX for value in shown.values())
        one_sided = [au for au in shown if min(left[au], right[au]) < 0.4 * shown[au]]
        assert set(one_sided) == (set(shown) & {12, 14} if emotion == "contempt" else set())


def test_every_au_of_an_emotion_can_be_drawn():
    assert {
        au
        for kinds in labels.EMOTION_AUS.values()
        for parts in kinds
        for part in parts
        for au in part
    } <= set(DRAWN_AUS)
    assert tuple(labels.EMOTION_AUS) == labels.EMOTIONS


def test_wild_faces_turn_more_and_show_emotions():
    rng = np.random.default_rng(2)
    lab, wild = ([draw_frame(rng, domain) for _ in range(300)] for domain in ("lab", "wild"))
    assert np.std([f.camera.yaw for f in wild]) > 2 * np.std([f.camera.yaw for f in lab])
    assert {f.emotion for f in lab} == {""}
    assert {f.emotion for f in wild} == {"", *labels.EMOTIONS}


def test_a_sequence_rises_to_its_apex_and_falls_again():
    rng = np.random.default_rng(3)
    apex = replace(draw_frame(rng), left={12: 4.0}, right={12: 2.0})
    frames = list(sequence_of(apex, 12, rng))
    course = [frame.left[12] for frame in frames]
    assert course[0] == course[-1] == 0
    assert max(course) == pytest.approx(4.0, abs=0.5)
    top = int(np.argmax(course))
    assert (np.diff(course[: top + 1]) >= 0).all()
    assert (np.diff(course[top:]) <= 0).all()
    assert all(frame.right[12] == pytest.approx(frame.left[12] / 2) for frame in frames)
    assert max(abs(a.camera.yaw - b.camera.yaw) for a, b in pairwise(frames)) < 0.05


@pytest.mark.parametrize(("frames", "lengths"), [(6, [3, 3]), (7, [3, 3, 1])])
def test_a_subject_s_frames_are_cut_into_sequences(frames, lengths):
    spec = BenchmarkSpec("lab", subjects=1, frames=frames, sequence=3)
    drawn = [frame for frame, _ in frames_of(spec, 0)]
    rows = [benchmark.label_row("x", number, frame, 3) for number, frame in enumerate(drawn)]
    assert pd.Series([row["sequence"] for row in rows]).value_counts(sort=False).tolist() == lengths


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
    face = benchmark.target_face().subject
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


def test_the_normalized_image_does_not_depend_on_what_was_drawn_before(studio):
    left, right = {4: 3.0, 12: 5.0}, {4: 3.0, 12: 1.0}
    before = studio.normalized(left, right)
    face = draw_face(np.random.default_rng([7, 1]))
    studio.original(face, benchmark.draw_frame(np.random.default_rng(3)), np.random.default_rng(4))
    np.testing.assert_array_equal(studio.normalized(left, right), before)


def test_the_same_expression_has_the_same_truth_whoever_shows_it(tiny_spec, monkeypatch, rendered):
    frames = frames_of
    monkeypatch.setattr(benchmark, "frames_of", lambda spec, number: frames(spec, 0))
    one, other = rendered(tiny_spec, 1), rendered(tiny_spec, 2)
    for path in one:
        if not path.endswith(".csv"):
            assert (one[path] == other[path]) == path.startswith("truth/"), path


def test_a_camera_from_the_side_sees_the_head_turned(head):
    five = shot_of(benchmark.target_face(), PLAIN).anchor

    def nose(camera):
        _, right, up, _ = camera_frame(camera)
        return (five[2] - five[:2].mean(0)) @ right, (five[2] - five[:2].mean(0)) @ up

    straight = nose(Camera())
    assert nose(Camera(yaw=0.4))[0] < straight[0] - 0.005  # to the image's left
    assert nose(Camera(pitch=0.3))[1] > straight[1] + 0.005  # up


def test_heads_drawn_in_one_launch_are_those_drawn_one_by_one(studio):
    people = [draw_face(np.random.default_rng([7, number])) for number in range(3)]
    rng = np.random.default_rng(0)
    shots = [shot_of(person, draw_frame(rng, "wild")) for person in people]
    together = Renderer(112, batch=3)
    drawn = together.render(
        shots, together.textures(np.stack([person.texture for person in people]))
    )
    for shot, person, image in zip(shots, people, drawn, strict=True):
        alone = studio.renderer.render([shot], studio.renderer.textures(person.texture[None]))[0]
        np.testing.assert_array_equal(image, alone)
    with pytest.raises(ValueError, match="3 heads at a time, got 1"):
        together.render(shots[:1], None)


@pytest.mark.parametrize(("x", "brighter"), [(1.0, "right"), (-1.0, "left")])
def test_the_lit_side_is_the_brighter_one(studio, x, brighter):
    face, light = studio.target, Light(direction=(x, 0.0, 0.3))
    texture = studio.renderer.textures(face.texture[None])
    shot = replace(shot_of(face, PLAIN), light=light)
    drawn = studio.renderer.render([shot], texture)[0, 30:90, 30:82, :3]
    left, right = drawn[:, :26].mean(), drawn[:, 26:].mean()
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


# --- the dataset card -----------------------------------------------------------------------------

CARD = (ROOT / "DATASET.md").read_text()


def test_the_card_s_table_is_that_of_the_code():
    rows = re.findall(
        r"^\| (\d+) \| ([a-z ]+?)( \(both sides at once\))? \| (.+) \|$", CARD, re.MULTILINE
    )
    assert [int(row[0]) for row in rows] == list(labels.AUS)
    for number, name, single, actions in rows:
        au = labels.AUS[int(number)]
        assert (name, not single) == (au.name, au.sided)
        told = {
            action: float(weight)
            for action, weight in (part.split() for part in actions.split(", "))
        }
        assert told == {
            re.sub("(Left|Right)$", "", action): weight for action, weight in au.actions.items()
        }
    assert f"| version | {benchmark.VERSION} " in CARD


def test_the_reference_sample_has_the_card_s_labels():
    """Images may be rounded otherwise on another processor; labels may not."""
    spec = BenchmarkSpec("lab", subjects=2, frames=2)
    frames = [(n, k, frame) for n in range(2) for k, (frame, _) in enumerate(frames_of(spec, n))]
    table = pd.DataFrame(
        [benchmark.label_row(benchmark.subject_name("lab", n), k, frame) for n, k, frame in frames]
    )
    text = table.to_csv(index=False, float_format="%.6g").encode()
    assert f"| `labels.csv` | `{hashlib.sha256(text).hexdigest()}` |" in CARD


# --- writing --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tiny_benchmark):
    return pd.read_csv(tiny_benchmark / "labels.csv")


def test_the_table_has_a_row_per_frame_and_all_its_columns(table, tiny_spec):
    columns = ["subject", "sequence", "frame", "domain", "emotion", "image", "truth"]
    for au in DRAWN_AUS:
        name = labels.au_column(au)
        columns += [name, f"{name}L", f"{name}R"] if labels.AUS[au].sided else [name]
    columns += ["yaw", "pitch", "gaze_yaw", "gaze_pitch", "light_x", "light_y", "light_z"]
    assert list(table.columns) == columns
    assert list(zip(table["subject"], table["frame"], strict=True)) == [
        (f"lab{subject:04d}", frame)
        for subject in range(tiny_spec.subjects)
        for frame in range(tiny_spec.frames)
    ]
    assert not table.drop(columns="emotion").isna().any(axis=None)
    assert set(table["domain"]) == {"lab"}


def test_the_table_s_values_are_in_range(table):
    for au in DRAWN_AUS:
        name = labels.au_column(au)
        value = table[name]
        assert ((value == 0) | value.between(0.9999, 5)).all(), name
        if labels.AUS[au].sided:
            assert (value == table[[f"{name}L", f"{name}R"]].max(axis=1)).all(), name
    assert table["yaw"].abs().max() <= 0.8
    assert table["pitch"].abs().max() <= 0.4
    np.testing.assert_allclose(
        np.linalg.norm(table[["light_x", "light_y", "light_z"]], axis=1), 1, atol=1e-4
    )


def test_every_row_has_its_images_and_there_is_nothing_else(table, tiny_benchmark, tiny_spec):
    for path in (*table["image"], *table["truth"], "target.png"):
        image = read(tiny_benchmark / path)
        assert image.shape == (112, 112, 3)
        assert image.std() > 10
    assert files_of(tiny_benchmark).keys() == {
        *table["image"],
        *table["truth"],
        "target.png",
        "labels.csv",
        "benchmark.json",
    }
    assert BenchmarkSpec(**json.loads((tiny_benchmark / "benchmark.json").read_text())) == tiny_spec


def test_each_truth_shows_the_expression_of_its_row(table, tiny_benchmark, studio):
    def side(row, letter):
        sides = {au: letter if labels.AUS[au].sided else "" for au in DRAWN_AUS}
        return {au: row[labels.au_column(au) + ending] for au, ending in sides.items()}

    truths = np.stack([read(tiny_benchmark / path) for path in table["truth"]])
    for number, row in table.iterrows():
        drawn = studio.normalized(side(row, "L"), side(row, "R"))
        distances = np.abs(truths - drawn).mean((1, 2, 3))
        assert distances.argmin() == number
        assert distances[number] < 0.05  # the table's six digits
    np.testing.assert_array_equal(read(tiny_benchmark / "target.png"), studio.neutral())


def test_a_finished_folder_is_used_as_it_is_and_says_so(
    tiny_spec, tiny_benchmark, monkeypatch, capsys
):
    monkeypatch.setattr(benchmark, "_render_all", lambda *_: pytest.fail("rendered again"))
    before = files_of(tiny_benchmark)
    assert benchmark.write_benchmark(tiny_spec, tiny_benchmark) == tiny_benchmark
    assert "4 subjects x 3 frames are there already" in capsys.readouterr().out
    assert files_of(tiny_benchmark) == before


def test_a_subject_with_a_truncated_or_missing_image_is_rendered_again(
    tiny_spec, tiny_benchmark, tmp_path, monkeypatch, capsys
):
    root = shutil.copytree(tiny_benchmark, tmp_path / "copy")
    whole = files_of(root)
    image = root / "images" / "lab0001" / "0002.jpg"
    image.write_bytes(image.read_bytes()[:-100])
    (root / "truth" / "lab0003" / "0000.png").unlink()
    monkeypatch.setattr(
        benchmark, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(1)
    )
    benchmark.write_benchmark(tiny_spec, root, progress=False)
    assert "2 of 4 subjects have missing or truncated images" in capsys.readouterr().out
    assert files_of(root) == whole


@pytest.mark.parametrize(
    "other",
    [{"pool": "evaluator"}, {"subjects": 5}, {"frames": 2}, {"size": 64}, {"seed": 1}],
    ids=lambda other: next(iter(other)),
)
def test_a_folder_with_another_specification_is_an_error_with_its_path(
    tiny_spec, tiny_benchmark, other
):
    before = files_of(tiny_benchmark)
    with pytest.raises(DataError, match="holds another benchmark") as error:
        benchmark.write_benchmark(replace(tiny_spec, **other), tiny_benchmark)
    assert str(tiny_benchmark / "benchmark.json") in str(error.value)
    assert next(iter(other)) in str(error.value)
    assert files_of(tiny_benchmark) == before


def test_another_version_of_the_benchmark_is_an_error_too(tiny_spec, tiny_benchmark, tmp_path):
    root = shutil.copytree(tiny_benchmark, tmp_path / "old")
    text = (root / "benchmark.json").read_text()
    (root / "benchmark.json").write_text(
        text.replace(f'"version": {benchmark.VERSION}', '"version": 1')
    )
    with pytest.raises(DataError, match="version"):
        benchmark.write_benchmark(tiny_spec, root)


@pytest.mark.parametrize("lost", [[], ["lab0000"]], ids=["as left", "with one part lost"])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_files(
    tiny_spec, tiny_benchmark, tmp_path, monkeypatch, lost
):
    """The interrupt comes in the middle of the third subject; both runs render in this process."""
    root, written, rendered = tmp_path / "benchmark", [], []
    write_image, render_subject = benchmark._write_image, benchmark.render_subject

    def interrupted(path, image):
        # the target face, two subjects, half of the third
        if len(written) == 1 + 2 * 2 * tiny_spec.frames + 3:
            raise KeyboardInterrupt
        written.append(path)
        write_image(path, image)

    def noted(spec, number, folder):
        rendered.append(number)
        return render_subject(spec, number, folder)

    monkeypatch.setattr(
        benchmark, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(1)
    )
    monkeypatch.setattr(benchmark, "_write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benchmark.write_benchmark(tiny_spec, root, progress=False)
    assert not (root / "labels.csv").exists()
    assert sorted(path.stem for path in (root / "parts").glob("*.csv")) == ["lab0000", "lab0001"]
    for folder in ("images", "truth"):
        # whole subjects only
        assert sorted(path.name for path in (root / folder).iterdir()) == ["lab0000", "lab0001"]

    for name in lost:
        (root / "parts" / f"{name}.csv").unlink()
        shutil.rmtree(root / "images" / name)
    monkeypatch.setattr(benchmark, "_write_image", write_image)
    monkeypatch.setattr(benchmark, "render_subject", noted)
    benchmark.write_benchmark(tiny_spec, root, progress=False)
    assert rendered == [*range(len(lost)), 2, 3]
    assert files_of(root) == files_of(tiny_benchmark)


def test_progress_counts_subjects(tiny_spec, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        benchmark, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(1)
    )
    benchmark.write_benchmark(replace(tiny_spec, subjects=1, frames=1), tmp_path, progress=True)
    assert "render lab: 100%" in capsys.readouterr().out
