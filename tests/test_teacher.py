"""AUs of photographs by a teacher: points without pose, the map, votes, and its pseudo-pairs."""

from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.label_table import read_spec, side_codes
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.sampling import RENDERED_AUS
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.files import write_png
from norface_lib.photos.face_points import POINTS, FacePoints, read_points, upright
from norface_lib.photos.landmarker import BLENDSHAPES as NAMES
from norface_lib.photos.pseudo_pairs import write_pseudo_pairs
from norface_lib.photos.tables import BLENDSHAPES, FACES
from norface_lib.photos.teacher import Lesson, Map, Prior, Teacher

SMILE = RENDERED_AUS.index(12)
BROW = RENDERED_AUS.index(1)
PUCKER = RENDERED_AUS.index(18)
HAPPY = labels.EMOTIONS.index("happy")


def shape(seed=0):
    return np.random.default_rng(seed).normal(size=(POINTS, 3))


def drawn(count=400, seed=1):
    """Faces whose smile moves some points and one score, and their codes."""
    rng = np.random.default_rng(seed)
    codes = np.zeros((count, len(RENDERED_AUS), 2), np.float32)
    codes[:, SMILE] = rng.uniform(0, 5, (count, 1))
    codes[:, BROW] = rng.uniform(0, 5, (count, 1))
    points = np.repeat(shape()[None], count, axis=0)
    points[:, :40, 1] += 0.3 * codes[:, SMILE, :1]
    points += rng.normal(0, 0.01, points.shape)
    scores = rng.uniform(0, 0.02, (count, len(NAMES)))
    scores[:, NAMES.index("mouthSmileLeft")] = codes[:, SMILE, 0] / 5
    return FacePoints(scores.astype(np.float32), points.astype(np.float32)), codes


# --- points ---------------------------------------------------------------------------------------


def test_upright_points_do_not_know_place_turn_and_size():
    face = shape()
    rng = np.random.default_rng(0)
    turned = np.stack(
        [
            rng.uniform(0.5, 3) * face @ Rotation.random(random_state=n).as_matrix() + rng.normal()
            for n in range(5)
        ]
    )
    straight = upright(turned, face)
    goal = face - face.mean(axis=0)
    np.testing.assert_allclose(straight, np.stack([goal / np.linalg.norm(goal)] * 5), atol=1e-5)


def test_a_mirrored_face_is_not_turned_inside_out():
    face = shape()
    straight = upright(face[None] * (-1, 1, 1), face)[0]
    goal = face - face.mean(axis=0)
    assert np.abs(straight - goal / np.linalg.norm(goal)).max() > 0.01


def test_faces_without_landmarks_stay_unknown(tmp_path):
    calls = []

    def landmarker(image):
        calls.append(image)
        found = SimpleNamespace(
            blendshapes=np.full(len(NAMES), 0.5), points=shape()[:, :2], depth=shape()[:, 2]
        )
        return [found] if image.mean() > 100 else []

    faces = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (200, 10)])
    seen = read_points(landmarker, faces, tmp_path / "kept.npz", progress=False)
    assert seen.found.tolist() == [True, False]
    assert np.isnan(upright(seen.points, shape())[1]).all()
    again = read_points(landmarker, faces, tmp_path / "kept.npz", progress=False)
    np.testing.assert_array_equal(again.points, seen.points)
    assert len(calls) == 2, "the second call reads what the first has kept"
    others = read_points(landmarker, faces[::-1], tmp_path / "kept.npz", progress=False)
    assert others.found.tolist() == [False, True], "other faces are looked at anew"
    (tmp_path / "kept.npz").write_bytes(b"PK damaged")
    assert read_points(landmarker, faces, tmp_path / "kept.npz", progress=False).found[0]


# --- the map and what goes with an emotion --------------------------------------------------------


def test_the_map_reads_an_au_from_points_and_scores():
    seen, codes = drawn()
    others, truth = drawn(seed=2)
    read = Map(seen, codes)(others)
    assert np.corrcoef(read[:, SMILE, 0], truth[:, SMILE, 0])[0, 1] > 0.85
    assert abs(np.corrcoef(read[:, BROW, 0], truth[:, BROW, 0])[0, 1]) < 0.3


def test_a_prior_mixes_what_votes_say_with_any_face():
    codes = np.zeros((4, len(RENDERED_AUS), 2))
    codes[:2, SMILE] = 4.0
    shares = np.zeros((4, len(labels.EMOTIONS)))
    shares[:2, HAPPY] = 1
    shares[2:, 0] = 1
    for number in range(1, len(labels.EMOTIONS)):
        if number != HAPPY:
            codes = np.concatenate([codes, np.zeros((1, *codes.shape[1:]))])
            shares = np.concatenate([shares, np.eye(len(labels.EMOTIONS))[[number]]])
    prior = Prior.of(codes, shares)
    mean, variance = prior(shares[:1], trust=0.6)
    everybody = codes[:, SMILE, 0].mean()
    assert mean[0, SMILE, 0] == pytest.approx(0.6 * 4 + 0.4 * everybody)
    expected = 0.6 * 16 + 0.4 * (codes[:, SMILE, 0] ** 2).mean() - mean[0, SMILE, 0] ** 2
    assert variance[0, SMILE, 0] == pytest.approx(expected)
    assert np.isinf(variance[0, PUCKER]).all(), "no emotion says anything of AU18"


@pytest.fixture
def teacher():
    """A teacher whose map errs by 1 in every AU."""
    made = Teacher.__new__(Teacher)
    seen, codes = drawn()
    made.map = Map(seen, codes)
    made.error = np.ones((len(RENDERED_AUS), 2))
    made.spread = np.full((len(RENDERED_AUS), 2), 4.0)
    made.trust = 0.6
    shares = np.eye(len(labels.EMOTIONS), dtype=np.float32)[np.arange(400) % 8]
    codes = codes.copy()
    codes[shares[:, HAPPY] == 1, SMILE] = 4.0
    codes[shares[:, HAPPY] == 0, SMILE] = 0.0
    made.prior = Prior.of(codes, shares)
    return made


def test_votes_pull_an_au_towards_their_emotion(teacher):
    seen, _truth = drawn(40, seed=3)
    zero = np.zeros((len(RENDERED_AUS), 2))
    shares = np.zeros((40, len(labels.EMOTIONS)), np.float32)
    alone = teacher.teach(seen, zero, shares)
    shares[:20, HAPPY] = 1
    shares[20:, 0] = 1
    told = teacher.teach(seen, zero, shares)
    happy = told.codes[:20, SMILE, 0] - alone.codes[:20, SMILE, 0]
    neutral = told.codes[20:, SMILE, 0] - alone.codes[20:, SMILE, 0]
    faint = alone.codes[:20, SMILE, 0] < 2
    strong = alone.codes[20:, SMILE, 0] > 3
    assert (happy[faint] > 0.1).all() and (neutral[strong] < -0.1).all()
    np.testing.assert_array_equal(told.codes[:, PUCKER], alone.codes[:, PUCKER])
    assert told.reliability[SMILE] > alone.reliability[SMILE] == pytest.approx(0.75)


def test_zero_is_what_the_map_says_of_neutral_faces(teacher):
    seen, _truth = drawn(80, seed=4)
    shares = np.zeros((80, len(labels.EMOTIONS)), np.float32)
    shares[:40, 0] = 1
    zero = teacher.zero(seen, shares)
    assert zero[SMILE, 0] == pytest.approx(np.median(teacher.map(seen)[:40, SMILE, 0]))
    few = teacher.zero(seen, np.zeros_like(shares))
    assert few[SMILE, 0] == pytest.approx(np.quantile(teacher.map(seen)[:, SMILE, 0], 0.25))


# --- pseudo-pairs ---------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path, tiny_benchmark):
    """A folder as `align` makes it, of six faces, and a table with votes and a split."""
    folder = tmp_path / "aligned"
    names = [f"p{number}.png" for number in range(6)]
    for name, image in zip(names, Rendered(tiny_benchmark).originals[:6], strict=True):
        write_png(folder / name, image)
    where = pd.DataFrame({"source": names, "frame": "", "face": 0})
    where.assign(status="aligned", output=names).to_csv(folder / FACES, index=False)
    scores = pd.DataFrame(0.2, index=range(6), columns=list(NAMES))
    pd.concat([where, scores], axis=1).to_csv(folder / BLENDSHAPES, index=False)
    table = pd.DataFrame({"image": names, "emotion": ["happy", "neutral"] * 3})
    table["split"] = ["train"] * 4 + ["valid"] * 2
    table["votes_happy"] = [8, 0] * 3
    table["votes_neutral"] = [2, 10] * 3
    table.to_csv(tmp_path / "labels.csv", index=False)
    return folder, tmp_path / "labels.csv"


@pytest.fixture
def stub(teacher, photographs, monkeypatch):
    """A teacher that finds no face in the second photograph, and elsewhere a one-sided smile."""
    asked = []

    def teach(seen, zero, shares=None):
        asked.append(shares)
        codes = np.zeros((len(seen.scores), len(RENDERED_AUS), 2), np.float32)
        codes[:, SMILE, 0] = 3.0
        codes[~seen.found] = np.nan
        return Lesson(codes, np.full(len(RENDERED_AUS), 0.5))

    seen, _ = drawn(6)
    seen.scores[1] = np.nan
    monkeypatch.setattr("norface_lib.photos.pseudo_pairs.read_points", lambda *_: seen)
    made = SimpleNamespace(
        landmarker=None, teach=teach, zero=lambda seen, shares: len(shares), spec={"pool": "x"}
    )
    return made, asked


def test_a_teacher_names_the_aus_of_pseudo_pairs(photographs, stub, tmp_path):
    aligned, table = photographs
    made, asked = stub
    counts = write_pseudo_pairs(
        aligned, tmp_path / "out", table=table, teacher=made, truths=False, progress=False
    )
    assert counts["train faces"] == 3 and counts["test faces"] == 2
    assert counts["train faces not found by the teacher"] == 1
    rows = pd.read_csv(tmp_path / "out/train/labels.csv")
    assert (rows["AU12L"] == 3).all() and (rows["AU12R"] == 0).all()
    assert rows["votes_happy"].tolist() == [8, 8, 0] and rows["truth"].isna().all()
    assert read_spec(tmp_path / "out/train")["reliability"]["AU12"] == 0.5
    assert Rendered(tmp_path / "out/train").truths is None
    assert not (tmp_path / "out/train/truth").exists()
    happy_and_neutral = asked[0][:, [HAPPY, 0]]
    np.testing.assert_allclose(happy_and_neutral[0], (0.8, 0.2))
    assert asked[1] is None, "what people call faces for tests is not told"


def test_the_second_call_with_a_teacher_keeps_its_faces(photographs, stub, tmp_path):
    aligned, table = photographs
    for _ in range(2):
        write_pseudo_pairs(
            aligned, tmp_path / "out", table=table, teacher=stub[0], truths=False, progress=False
        )
    assert len(Rendered(tmp_path / "out/test")) == 2


def test_a_teacher_needs_photographs_that_are_not_for_tests(photographs, stub, tmp_path):
    aligned, table = photographs
    table.write_text(table.read_text().replace("train", "valid"))
    with pytest.raises(DataError, match="all photographs are for tests"):
        write_pseudo_pairs(aligned, tmp_path / "out", table=table, teacher=stub[0], progress=False)


def test_votes_that_are_no_numbers_are_named(photographs, stub, tmp_path):
    aligned, table = photographs
    text = table.read_text().replace("8,2", "many,2", 1)
    table.write_text(text)
    with pytest.raises(DataError, match="column votes_happy: 'many' is no number of votes"):
        write_pseudo_pairs(aligned, tmp_path / "out", table=table, progress=False)


def test_too_few_rendered_faces_are_refused(tiny_benchmark, tmp_path):
    own = copytree(tiny_benchmark, tmp_path / "own")
    with pytest.raises(DataError, match="needs 100 to learn from; render more"):
        Teacher(Rendered(own, aus=RENDERED_AUS), lambda image: [])


@pytest.mark.slow
def test_a_teacher_learns_from_rendered_faces(landmarker, tmp_path):
    spec = BenchmarkSpec(pool="pretrain", subjects=25, frames=5, size=112, seed=3)
    root = write_benchmark(spec, tmp_path / "own", progress=False)
    rendered = Rendered(root, aus=RENDERED_AUS)
    made = Teacher(rendered, landmarker._landmarker)
    assert (root / "landmarks.npz").is_file()
    lesson = made.teach(
        read_points(landmarker._landmarker, rendered.originals, progress=False),
        np.zeros((len(RENDERED_AUS), 2)),
    )
    truth = side_codes(rendered.table, RENDERED_AUS)
    off = np.abs(lesson.codes - truth)[lesson.found].mean()
    assert off < np.abs(truth.mean(axis=0) - truth).mean(), "it remembers what it has learned from"
    assert min(lesson.weights.values()) >= 0 and max(lesson.weights.values()) <= 1
