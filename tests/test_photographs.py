"""Photographs as teachers and as tests: pseudo-pairs, joined benchmarks, degraded originals, and
what is measured on them."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from skimage.data import astronaut

from norface_lib import labels
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.common.paths import ROOT
from norface_lib.datasets.joined import join_benchmarks
from norface_lib.datasets.label_table import read_spec
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.studio import Studio
from norface_lib.images.files import read_faces, write_png
from norface_lib.networks.cards import read_card
from norface_lib.networks.weights import find_weights
from norface_lib.photos.calibration import Calibration, calibration_of, intensities_of, smile_of
from norface_lib.photos.detection import LANDMARKER_FILE, open_detector
from norface_lib.photos.landmarker import BLENDSHAPES as NAMES
from norface_lib.photos.prediction import predict_tree
from norface_lib.photos.pseudo_pairs import (
    is_held_out,
    read_photographs,
    render_shapes,
    write_pseudo_pairs,
)
from norface_lib.photos.read_and_render import ReadAndRender
from norface_lib.photos.sources import fetch
from norface_lib.photos.tables import BLENDSHAPES, FACES
from norface_lib.studies.photo_evaluation import _smile_scores, evaluate_photographs
from norface_lib.studies.photo_measures import (
    SHAPES_OF,
    agreement,
    smile_measures,
    smiling_of,
    verification,
)
from norface_lib.tasks.metrics import auc
from norface_lib.training import normalizer_recipe
from norface_lib.training.augmentation import camera, degraded

LEAST = 0.92
"""AUC below which the shipped weights have become worse; what they reach stands in their cards."""

PLAIN = Calibration(zero=dict.fromkeys(NAMES[1:], 0.1), full=dict.fromkeys(NAMES[1:], 0.9))


def scores(**given):
    return dict.fromkeys(NAMES, 0.0) | given


@pytest.fixture
def photographs(tmp_path, tiny_benchmark):
    """An aligned folder as `align` leaves it, with blendshapes that were made up, and a table of
    its people."""
    folder = tmp_path / "aligned"
    rows, shapes, people = [], [], []
    for number in range(6):
        image = cv2.imread(str(sorted(tiny_benchmark.glob("images/*/*.jpg"))[number]))[..., ::-1]
        write_png(folder / f"{number}.png", image)
        rows.append(
            {
                "source": f"{number}.jpg",
                "frame": "",
                "face": 0,
                "status": "aligned",
                "output": f"{number}.png",
            }
        )
        read = scores(
            mouthSmileLeft=number / 6, mouthSmileRight=number / 6, jawOpen=0.5 * (number % 2)
        )
        shapes.append({"source": f"{number}.jpg", "frame": "", "face": 0, "track": ""} | read)
        people.append(
            {
                "image": f"{number}.jpg",
                "subject": f"p{number // 2}",
                "emotion": ("neutral", "happiness")[number > 2],
            }
        )
    rows.append({"source": "none.jpg", "status": "no face"})
    pd.DataFrame(rows).to_csv(folder / FACES, index=False)
    pd.DataFrame(shapes).to_csv(folder / BLENDSHAPES, index=False)
    pd.DataFrame(people).to_csv(tmp_path / "people.csv", index=False)
    return folder


# --- from scores to intensities -------------------------------------------------------------------


@pytest.mark.parametrize("au", [2, 4, 5, 7, 10, 12, 15, 17, 18, 20, 22, 26, 43])
def test_intensities_are_those_that_the_actions_were_rendered_with(au):
    actions = labels.facial_actions({au: 3.0})
    left, right = intensities_of(actions, damping=1e-3)
    assert left[au] == pytest.approx(3.0, abs=0.05) and right[au] == pytest.approx(3.0, abs=0.05)
    again = labels.facial_actions(left, right)
    names = set(actions) | set(again)
    assert max(abs(again.get(name, 0) - actions.get(name, 0)) for name in names) < 0.02


def test_each_side_is_read_on_its_own():
    left, right = intensities_of(PLAIN.actions(scores(mouthSmileLeft=0.9)))
    assert left[12] > 3 and right[12] == pytest.approx(0, abs=0.05)


def test_a_score_at_zero_or_below_moves_nothing_and_one_at_full_moves_most():
    resting, strong, beyond = (
        PLAIN.actions(scores(jawOpen=value))["jawOpen"] for value in (0.1, 0.9, 1.0)
    )
    assert (resting, strong, beyond) == (0.0, pytest.approx(1.25), pytest.approx(1.25))
    assert PLAIN.actions(scores(jawOpen=0.5))["jawOpen"] == pytest.approx(0.625)


def test_what_the_landmarker_cannot_see_follows_what_it_can():
    actions = PLAIN.actions(scores(noseSneerLeft=0.9, cheekSquintLeft=0.9))
    assert actions["noseSneerLeft"] == actions["cheekSquintLeft"] == 0
    actions = PLAIN.actions(scores(mouthSmileLeft=0.9, browDownLeft=0.9, mouthUpperUpLeft=0.5))
    assert actions["cheekSquintLeft"] > 0.5 and actions["noseSneerLeft"] == pytest.approx(0.625)
    assert actions["cheekSquintRight"] == actions["noseSneerRight"] == 0


@pytest.mark.parametrize(
    ("name", "lift"),
    [
        ("browDownLeft", 4),
        ("eyeWideLeft", 4),
        ("mouthFrownRight", 4),
        ("jawOpen", 1),
        ("mouthSmileLeft", 1),
    ],
)
def test_faint_brows_count_for_more_and_the_ends_stay(name, lift):
    def strength(calibration, share):
        return calibration.actions(scores(**{name: 0.1 + 0.8 * share}))[name]

    straight = replace(PLAIN, lift=1.0)
    assert strength(PLAIN, 1e-4) == pytest.approx(lift * strength(straight, 1e-4), rel=1e-2)
    assert strength(PLAIN, 0.5) == pytest.approx(0.625 if lift == 1 else 1.0)
    assert (
        strength(PLAIN, 0) == strength(straight, 0) == 0
        and strength(PLAIN, 1) == pytest.approx(strength(straight, 1)) == 1.25
    )


def test_calibration_is_taken_from_neutral_faces_and_does_not_stretch_noise():
    rng = np.random.default_rng(0)
    shapes = pd.DataFrame(
        {"jawOpen": rng.uniform(0, 0.9, 2000), "jawLeft": rng.uniform(0, 0.01, 2000)}
    )
    emotions = np.where(shapes["jawOpen"] < 0.2, "neutral", "surprise")
    made = Calibration.of(shapes, emotions)
    assert made.zero["jawOpen"] == pytest.approx(0.1, abs=0.02) and made.full[
        "jawOpen"
    ] == pytest.approx(0.9, abs=0.01)
    assert made.full["jawLeft"] - made.zero["jawLeft"] == pytest.approx(0.3, abs=1e-3)
    assert made.smile == calibration_of().smile, "nobody was labeled happy"
    assert Calibration.of(shapes).zero["jawOpen"] == pytest.approx(0.45, abs=0.03)


def test_the_shipped_calibration_knows_all_names_and_a_missing_one_is_named(tmp_path):
    made = calibration_of()
    assert set(made.zero) == set(made.full) == set(made.smile) - {"bias"} == set(NAMES[1:])
    assert all(made.full[name] > made.zero[name] >= 0 for name in made.zero)
    with pytest.raises(CheckpointError, match="other"):
        calibration_of(tmp_path / "other.json")


def test_a_smile_is_learned_from_all_scores_and_from_many_people():
    rng = np.random.default_rng(0)
    truth = rng.random(3000) < 0.5
    noise = 0.1 * rng.standard_normal((3000, 2))
    shapes = pd.DataFrame({"mouthSmileLeft": 0.2 * truth, "mouthDimpleLeft": 0.2 * truth}) + noise
    # one in ten is wrong about it
    emotions = np.where(truth ^ (rng.random(3000) < 0.1), "happy", "neutral")
    weights = smile_of(shapes, emotions)
    odds = shapes @ pd.Series(weights).drop("bias") + weights["bias"]
    assert auc(odds, truth) > auc(shapes["mouthSmileLeft"], truth) + 0.04
    assert ((odds > 0) == truth).mean() > (emotions == np.where(truth, "happy", "neutral")).mean()
    rare = np.where(np.arange(3000) < 50, "happy", "neutral")
    assert smile_of(shapes, rare) == {} and smile_of(shapes, np.full(3000, "")) == {}


def test_all_scores_together_decide_whether_there_is_a_smile():
    weights = dict.fromkeys(NAMES[1:], 0.0) | {"mouthDimpleLeft": 2.0, "bias": -1.0}
    made = replace(PLAIN, smile=weights)
    faint, at_rest = (
        scores(mouthSmileLeft=0.12, mouthDimpleLeft=0.8),
        scores(mouthSmileLeft=0.5, mouthSmileRight=0.5),
    )
    assert made.sides(faint)[0][12] == made.sides(faint)[1][12] == 1.5 > PLAIN.sides(faint)[0][12]
    assert (
        made.sides(at_rest)[0][12]
        == made.sides(at_rest)[1][12]
        == 0.9
        < PLAIN.sides(at_rest)[0][12]
    )
    others = [
        {au: value for au, value in side.items() if au != 12}
        for side in (made.sides(faint)[0], PLAIN.sides(faint)[0])
    ]
    assert others[0] == others[1], "nothing but AU12"
    strong = scores(mouthSmileLeft=0.9, mouthSmileRight=0.9, mouthDimpleLeft=0.8)
    assert made.sides(strong) == PLAIN.sides(strong)


def test_a_normalizer_without_a_network_renders_the_scores_of_the_landmarker(studio):
    shapes = np.zeros((3, len(NAMES)))
    shapes[1, NAMES.index("jawOpen")] = 0.9
    shapes[2] = np.nan
    neutral, opened, lost = render_shapes(shapes, studio, PLAIN)
    assert np.array_equal(neutral, studio.neutral()) and np.array_equal(lost, neutral)
    left, right = intensities_of(PLAIN.actions(scores(jawOpen=0.9)))
    assert np.array_equal(opened, studio.normalized(left, right)) and not np.array_equal(
        opened, neutral
    )


# --- writing --------------------------------------------------------------------------------------


def test_pseudo_pairs_are_a_benchmark_whose_parts_share_nobody(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "norface_lib.photos.pseudo_pairs.is_held_out", lambda name, share: name == "p2"
    )
    out, table = tmp_path / "pairs", tmp_path / "people.csv"
    counts = write_pseudo_pairs(photographs, out, table=table, calibration=PLAIN, progress=False)
    assert counts == {"train faces": 4, "train people": 2, "test faces": 2, "test people": 1}
    train, test = (Rendered(out / part) for part in ("train", "test"))
    assert set(train.subjects) == {"p0", "p1"} and set(test.subjects) == {"p2"}
    assert list(train.table["emotion"]) == ["neutral"] * 3 + ["happy"]
    smile = train.intensities((12,))[:, 0]
    assert smile[0] == 0 and (np.diff(smile) > 0).all()
    off = np.abs(train.truths.astype(int) - train.target).mean((1, 2, 3))
    assert off[0] < 0.2 < off[3], "only a face without any score is neutral"
    assert (
        json.loads((out / "train/benchmark.json").read_text())["calibration"]["full"]["jawOpen"]
        == 0.9
    )


def test_mirrored_pairs_are_those_of_train_with_their_sides_exchanged(photographs, tmp_path):
    shapes = pd.read_csv(photographs / BLENDSHAPES)
    shapes.assign(mouthSmileLeft=0.0, mouthSmileRight=0.9).to_csv(
        photographs / BLENDSHAPES, index=False
    )
    counts = write_pseudo_pairs(
        photographs,
        tmp_path / "pairs",
        calibration=PLAIN,
        held_out=0.5,
        mirrored=True,
        progress=False,
    )
    assert counts["mirrored faces"] == counts["train faces"] == 6 - counts["test faces"] > 0
    plain, other = (Rendered(tmp_path / "pairs" / part) for part in ("train", "mirrored"))
    assert np.array_equal(other.originals, plain.originals[:, :, ::-1]) and list(
        other.subjects
    ) == list(plain.subjects)
    codes, names, swap = plain.expression_codes()
    assert np.allclose(other.expression_codes()[0], codes[:, swap])
    assert (codes[:, names.index("AU12R")] > 0.5).all() and (
        codes[:, names.index("AU12L")] == 0
    ).all()
    moved = [
        np.abs(data.truths - data.target.astype(int)).mean((0, 1, 3)) for data in (plain, other)
    ]
    assert (
        moved[0][:56].sum() > 1.5 * moved[0][56:].sum()
        and moved[1][56:].sum() > 1.5 * moved[1][:56].sum()
    ), "half a smile"


def test_pseudo_truths_of_a_token_reader_show_several_targets_in_turn(photographs, tmp_path):
    reader = ReadAndRender(device="cpu")
    counts = write_pseudo_pairs(
        photographs,
        tmp_path / "pairs",
        calibration=PLAIN,
        held_out=0.0,
        target="noor+mira",
        size=64,
        teacher=reader,
        progress=False,
    )
    pairs = Rendered(tmp_path / "pairs/train")
    assert counts == {"train faces": 6, "train people": 6}
    assert pairs.names == ("noor", "mira") and pairs.target_of.tolist() == [0, 1] * 3
    assert read_spec(tmp_path / "pairs/train")["reader"] == reader.reader

    crops = read_faces([photographs / f"{number}.png" for number in range(6)], 112)
    (left, right) = reader.expression(reader.read(crops)[1])
    row = pairs.table.iloc[1]
    assert row["AU12L"] == pytest.approx(left[12], abs=1e-5)
    assert row["AU12R"] == pytest.approx(right[12], abs=1e-5)
    drawn = Studio(64, "mira").normalized(left, right).astype(int)
    assert np.abs(pairs.truths[1] - drawn).max() <= 1


def test_a_second_call_keeps_rendered_faces_and_other_settings_are_refused(photographs, tmp_path):
    out = tmp_path / "pairs"
    settings = {"table": tmp_path / "people.csv", "calibration": PLAIN, "progress": False}
    write_pseudo_pairs(photographs, out, held_out=0.0, **settings)
    first, *others = sorted((out / "train/truth").glob("*.png"))
    first.unlink()
    before = [path.stat().st_mtime_ns for path in others]
    write_pseudo_pairs(photographs, out, held_out=0.0, **settings)
    assert [path.stat().st_mtime_ns for path in others] == before and first.exists()
    with pytest.raises(DataError, match="other settings"):
        write_pseudo_pairs(photographs, out, held_out=0.1, **settings)


def test_what_is_missing_of_photographs_is_named(photographs, tmp_path):
    assert list(read_photographs(photographs)["subject"]) == [
        f"{number}.jpg" for number in range(6)
    ]
    table = pd.read_csv(tmp_path / "people.csv")
    for change, words in (
        (table.drop(columns="image"), "lacks the column image"),
        (table.iloc[1:], "no subject for 1 photographs: '0.jpg'"),
        (table.assign(emotion="joyful"), "unknown emotion.* joyful"),
    ):
        change.to_csv(tmp_path / "changed.csv", index=False)
        with pytest.raises(DataError, match=words):
            read_photographs(photographs, tmp_path / "changed.csv")
    expected = read_photographs(photographs, tmp_path / "people.csv")
    text = (tmp_path / "people.csv").read_text().replace(",", " ;").replace("happy", " Happy ")
    (tmp_path / "changed.csv").write_text("\ufeff" + text.replace("image", "Image ") + ";;;\n\n")
    pd.testing.assert_frame_equal(read_photographs(photographs, tmp_path / "changed.csv"), expected)
    (tmp_path / "changed.csv").write_text("image,subject\nx.jpg,p\n")
    with pytest.raises(DataError, match=r"names none of the photographs, but .x\.jpg.; they are"):
        read_photographs(photographs, tmp_path / "changed.csv")
    (photographs / BLENDSHAPES).unlink()
    with pytest.raises(DataError, match="--detector mediapipe"):
        read_photographs(photographs)


def test_people_are_held_out_by_name_alone_in_the_share_that_was_asked_for():
    names = [f"person {number}" for number in range(4000)]
    held = [is_held_out(name, 0.15) for name in names]
    assert np.mean(held) == pytest.approx(0.15, abs=0.02)
    assert all(is_held_out(name, 0.3) for name, small in zip(names, held, strict=True) if small)


def test_joined_benchmarks_hold_all_faces_with_their_truths(tiny_benchmark, photographs, tmp_path):
    write_pseudo_pairs(
        photographs,
        tmp_path / "pairs",
        table=tmp_path / "people.csv",
        calibration=PLAIN,
        held_out=0.0,
        progress=False,
    )
    parts = [tiny_benchmark, tmp_path / "pairs/train"]
    assert join_benchmarks(parts, tmp_path / "joined") == 18
    whole = Rendered(tmp_path / "joined")
    first, second = (Rendered(part) for part in parts)
    assert np.array_equal(whole.originals, np.concatenate([first.originals, second.originals]))
    assert np.array_equal(whole.truths, np.concatenate([first.truths, second.truths]))
    assert np.array_equal(whole.expression_codes()[0][:12], first.expression_codes()[0])
    said = json.loads((tmp_path / "joined/benchmark.json").read_text())
    assert said["pool"] == "lab" and [part["faces"] for part in said["parts"]] == [12, 6]
    with pytest.raises(DataError, match="is there already"):
        join_benchmarks(parts, tmp_path / "joined")


def test_a_normalizer_can_be_trained_on_photographs_first(tiny_benchmark, photographs, tmp_path):
    write_pseudo_pairs(
        photographs, tmp_path / "pairs", calibration=PLAIN, held_out=0.0, progress=False
    )
    pairs = tmp_path / "pairs/train"
    path = pairs / "benchmark.json"
    spec = json.loads(path.read_text())
    spec.pop("seed")  # earlier versions wrote none
    path.write_text(json.dumps(spec))
    write_pseudo_pairs(
        photographs, tmp_path / "pairs", calibration=PLAIN, held_out=0.0, progress=False
    )
    path.write_text(json.dumps(spec))
    join_benchmarks([pairs, tiny_benchmark], tmp_path / "joined")
    for folder in (pairs, tmp_path / "joined"):
        watch = normalizer_recipe._watch(read_spec(folder), tmp_path)
        assert len(watch.faces) == 64 and watch.faces.names == ("noor",)


def test_benchmarks_of_two_targets_are_not_joined(tiny_benchmark, photographs, tmp_path):
    write_pseudo_pairs(
        photographs,
        tmp_path / "ada",
        calibration=PLAIN,
        target="ada",
        held_out=0.0,
        progress=False,
    )
    with pytest.raises(DataError, match="target"):
        join_benchmarks([tiny_benchmark, tmp_path / "ada/train"], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


# --- photographs that anyone can get --------------------------------------------------------------


def test_lfw_is_a_folder_for_each_person_and_is_fetched_once(tmp_path, monkeypatch):
    calls = []

    def fetch_lfw_people(data_home, **options):
        calls.append(options["funneled"])
        for name in ("Ann_A/Ann_A_0001.jpg", "Ann_A/Ann_A_0002.jpg", "Bo_B/Bo_B_0001.jpg"):
            place = Path(data_home, "lfw_home/lfw", name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()

    monkeypatch.setattr("sklearn.datasets.fetch_lfw_people", fetch_lfw_people)
    for _ in range(2):
        assert fetch("lfw", tmp_path) == tmp_path / "lfw_home/lfw"
    assert calls == [False]
    people = pd.read_csv(tmp_path / "people.csv")
    assert (
        people["subject"].tolist() == ["Ann_A", "Ann_A", "Bo_B"]
        and people["image"][2] == "Bo_B/Bo_B_0001.jpg"
    )


def test_an_lfw_archive_that_was_not_unpacked_whole_is_unpacked_again(tmp_path, monkeypatch):
    folder = tmp_path / "lfw_home/lfw"
    (folder / "Half").mkdir(parents=True)
    (tmp_path / "lfw_home/lfw.tgz").touch()
    monkeypatch.setattr(
        "sklearn.datasets.fetch_lfw_people", lambda **_: (folder / "Ann_A").mkdir(parents=True)
    )
    fetch("lfw", tmp_path)
    assert [path.name for path in folder.iterdir()] == ["Ann_A"]


def test_celeba_names_its_people_by_number(tmp_path, monkeypatch):
    def celeba(root, **options):
        assert options["download"]
        Path(root, "celeba").mkdir(parents=True)
        Path(root, "celeba/identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 17\n")

    monkeypatch.setattr("torchvision.datasets.CelebA", celeba)
    assert fetch("celeba", tmp_path / "new") == tmp_path / "new/celeba/img_align_celeba"
    people = pd.read_csv(tmp_path / "new/people.csv", dtype=str)
    assert people.to_dict("list") == {
        "image": ["000001.jpg", "000002.jpg"],
        "subject": ["2880", "17"],
    }


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    def fail(**_):
        raise OSError("no route")

    monkeypatch.setattr("sklearn.datasets.fetch_lfw_people", fail)
    with pytest.raises(DataError, match=r"no route.*with a network"):
        fetch("lfw", tmp_path)
    with pytest.raises(DataError, match="lfw, celeba"):
        fetch("faces", tmp_path)


# --- degraded originals ---------------------------------------------------------------------------


def test_a_share_of_the_originals_is_degraded_and_the_rest_is_not():
    torch.manual_seed(0)
    images = torch.rand(400, 3, 16, 16) * 0.8 + 0.1
    changed = degraded(images, 0.5)
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    same = (changed == images).flatten(1).all(1).float().mean().item()
    # each of four faults has a chance of one quarter here and the fifth of one tenth, so 0.75^4 x
    # 0.9 stay as they are
    assert same == pytest.approx(0.75**4 * 0.9, abs=0.08)
    assert torch.equal(degraded(images, 0.0), images)


def test_only_a_share_above_zero_degrades_what_is_seen():
    images = torch.rand(8, 3, 16, 16)
    torch.manual_seed(1)
    plain = camera(images)
    torch.manual_seed(1)
    assert not torch.equal(camera(images, 1.0), plain)


# --- measures -------------------------------------------------------------------------------------


def test_agreement_is_the_correlation_over_faces_in_which_both_were_found():
    rng = np.random.default_rng(0)
    originals = rng.random((200, len(NAMES))).astype(np.float32)
    noise = rng.random(originals.shape).astype(np.float32)
    others = originals + noise
    others[:7] = np.nan
    found = agreement(originals, others)
    assert (found["faces"], found["not_found"]) == (193, 7)
    assert found["per_au"]["AU26"] == pytest.approx(
        np.corrcoef(originals[7:, 25], others[7:, 25])[0, 1], abs=1e-5
    )
    assert found["per_au"].keys() == SHAPES_OF.keys() and found["mean"] == pytest.approx(
        0.5**0.5, abs=0.05
    )
    assert agreement(originals, np.zeros_like(originals))["mean"] == 0


def test_verification_tells_people_by_what_is_near():
    people = np.array(["a", "a", "b", "b"])
    apart = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    found = verification(apart, people)
    assert found == {"auc": 1.0, "same_person": 1.0, "two_people": 0.0, "pairs_of_one_person": 2}
    assert verification(np.ones((4, 2), np.float32) / np.sqrt(2), people)["auc"] == 0.5


def test_smiles_are_known_from_an_expression_or_an_emotion():
    rows, smiling = smiling_of(pd.DataFrame({"emotion": ["happy", "anger", "neutral", np.nan]}))
    assert rows.tolist() == [0, 2] and smiling.tolist() == [True, False]
    rows, smiling = smiling_of(
        pd.DataFrame({"expression": ["smile", "neutral"], "emotion": [np.nan, np.nan]})
    )
    assert rows.tolist() == [0, 1] and smiling.tolist() == [True, False]


def test_the_interval_of_smiles_is_over_people():
    people = np.repeat([f"p{number}" for number in range(30)], 2)
    smiling = np.tile([False, True], 30)
    clear, chance = smiling + 0.0, np.random.default_rng(0).random(60)
    found = smile_measures(clear, smiling, people)
    assert (found["auc"], found["interval"], found["faces"], found["people"]) == (
        1.0,
        [1.0, 1.0],
        60,
        30,
    )
    low, high = smile_measures(chance, smiling, people)["interval"]
    assert low < 0.5 < high and high - low > 0.15


def test_smiles_are_also_compared_with_a_persons_own_neutral_face():
    people = np.array(["calm", "calm", "merry", "merry", "merry", "sour", "alone"])
    smiling = np.array([False, True, False, True, True, True, False])
    at_rest = np.array([0.1, 0.3, 0.5, 0.9, 0.4, 0.2, 0.0])  # "merry" at rest above "calm" smiling
    found = smile_measures(at_rest, smiling, people)
    assert found["own_neutral"] == 1.0 and found["compared"] == 2 and found["auc"] < 1
    assert smile_measures(1 - at_rest, smiling, people)["own_neutral"] == 0.0
    # nothing told, nothing won
    assert smile_measures(np.zeros(7), smiling, people)["own_neutral"] == 0.0
    alone = smile_measures(at_rest[[0, 5]], smiling[[0, 5]], people[[0, 5]])
    assert alone["own_neutral"] is None and alone["compared"] == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_photographs_are_measured_as_a_whole(photographs, tmp_path):
    folder = os.environ.get("NORFACE_MODELS", "")
    networks = [Path(folder, name) for name in (LANDMARKER_FILE, "mobileface.onnx")]
    if not all(path.is_file() for path in networks):
        pytest.skip(
            "NORFACE_MODELS names no folder with MediaPipe's landmarker and mobileface.onnx"
        )
    write_pseudo_pairs(
        photographs,
        tmp_path / "pairs",
        table=tmp_path / "people.csv",
        calibration=PLAIN,
        held_out=0.0,
        progress=False,
    )
    pairs = tmp_path / "pairs/train"
    out, embedding = tmp_path / "result.json", f"arcface:{networks[1]}"
    weights = find_weights("tiny")
    sheet = tmp_path / "sheet.png"
    found = evaluate_photographs(
        pairs,
        weights=str(weights),
        reader="tiny-au",
        token_reader="tiny-photo-reader",
        landmarker=networks[0],
        embedding=embedding,
        train=pairs,
        out=out,
        sheet=sheet,
        progress=False,
    )
    assert cv2.imread(str(sheet)).shape[0] >= 4 * 112
    assert set(found) == {
        "weights",
        "to_pseudo_truth",
        "agreement",
        "smile",
        "verification",
        "emotion",
    }
    assert found["smile"].keys() >= {
        "AU12",
        "landmarker, original",
        "landmarker, original, all scores",
    }
    assert found["smile"]["AU12"]["faces"] == 6 and set(found["emotion"]) > {
        "original",
        "normalized",
        "both",
    }
    assert json.loads(out.read_text())["counts"] == {
        "faces": 6,
        "people": 3,
        "train_faces": 6,
        "train_people": 3,
    }


def test_the_readme_reads_a_photograph_from_python(tmp_path, monkeypatch, capsys):
    if not Path(os.environ.get("NORFACE_MODELS", ""), LANDMARKER_FILE).is_file():
        pytest.skip("NORFACE_MODELS names no folder with MediaPipe's landmarker")
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("me.jpg", astronaut()[..., ::-1])
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    (row,) = names["table"].to_dict("records")
    assert row["AU12"] > 0.9 > 0.5 > row["AU15"], "the astronaut smiles"
    assert row["emotion"] in capsys.readouterr().out
    (face,) = Path("out/normalized").rglob("*.png")
    assert cv2.imread(str(face)).shape == (224, 224, 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shipped_weights_tell_who_smiles(tmp_path):
    """The whole road on photographs of 51 people of whom nothing was learned: `predict`, then its
    AU12."""
    photos, folder = (
        Path(os.environ.get("NORFACE_PHOTOS", "none"), "london"),
        os.environ.get("NORFACE_MODELS", ""),
    )
    if not photos.is_dir() or not Path(folder, LANDMARKER_FILE).is_file():
        pytest.skip(
            "NORFACE_PHOTOS names no folder with london/, or NORFACE_MODELS none with MediaPipe's "
            "landmarker"
        )
    counts = predict_tree(photos, tmp_path, open_detector("mediapipe"), progress=False)
    assert counts["aligned"] == 102
    found = pd.read_csv(tmp_path / "predictions.csv").merge(
        pd.read_csv(photos / "labels.csv"), left_on="source", right_on="image"
    )
    smiling = found["expression"] == "smile"
    assert auc(found["AU12"], smiling) > LEAST and auc(found["AU12_intensity"], smiling) > LEAST
    assert (
        (found["emotion"][smiling] == "happy").mean()
        > 0.5
        > (found["emotion"][~smiling] == "happy").mean()
    )


def test_smiles_are_not_read_by_a_detector_of_other_normalized_faces():
    faces = np.zeros((2, 112, 112, 3), np.uint8)
    assert _smile_scores("tiny-au", {"sha256": "of another"}, faces, faces) == {}
    card = read_card(find_weights("tiny"))
    assert _smile_scores("tiny-au", card, faces, faces)["AU12"].shape == (2,)
