"""Normalized images that somebody else made: found by relative path, missing ones by a rule."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.cli.options import Missing
from norface_lib.common.errors import DataError
from norface_lib.datasets.given import MISSING, given_places, identity_folders, load_given
from norface_lib.datasets.pairs import Pairs, SeveralPairs, VersionRows
from norface_lib.datasets.rendered import Rendered
from norface_lib.studies.experiment import Experiment
from norface_lib.training.classifier import predict_rows
from norface_lib.training.loader import StepSampler, of_versions


@pytest.fixture
def data(tiny_benchmark):
    return Rendered(tiny_benchmark)


def tree(data, folder, rename=lambda path: path):
    """The true normalized images of a benchmark under the paths of its originals."""
    for path, truth in zip(data.index["path"], data.index["truth"], strict=True):
        place = folder / rename(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data.root / truth, place)
    return folder


@pytest.mark.parametrize(
    "rename",
    [
        lambda path: path,
        lambda path: path.replace(".jpg", ".png"),
        lambda path: path.removesuffix(".jpg"),
        lambda path: f"seven/identities/{path}",
        lambda path: path.removeprefix("images/"),
    ],
    ids=["same", "suffix", "none", "deeper", "shorter"],
)
def test_images_are_found_by_relative_path(data, tmp_path, rename):
    folder = tree(data, tmp_path / "given", rename)
    places = given_places(data.index["path"], folder)
    assert list(places) == [rename(path) for path in data.index["path"]]

    found = load_given(data, folder, 112, tmp_path / "memory")
    np.testing.assert_array_equal(found.normalized, data.truths)
    np.testing.assert_array_equal(found.originals, data.originals)
    assert found.counts == {"given": 12, "without a given image, left out": 0}


def test_frames_without_an_image_are_left_out_or_show_their_original(data, tmp_path):
    folder = tree(data, tmp_path / "given")
    for path in data.index["path"][[1, 5]]:
        (folder / path).unlink()
    left = load_given(data, folder, 112, tmp_path / "memory")
    assert len(left.data) == 10 and left.counts["without a given image, left out"] == 2
    kept = load_given(data, folder, 112, tmp_path / "memory", missing="original")
    assert len(kept.data) == 12 and kept.counts["without a given image, original in its place"] == 2
    np.testing.assert_array_equal(kept.normalized[[1, 5]], data.originals[[1, 5]])
    np.testing.assert_array_equal(np.delete(kept.normalized, [1, 5], 0), left.normalized)
    assert kept.key != left.key


def test_a_changed_image_is_read_again(data, tmp_path):
    folder = tree(data, tmp_path / "given", lambda path: path.replace(".jpg", ".png"))
    before = load_given(data, folder, 112, tmp_path / "memory")
    place = folder / data.index["path"][0].replace(".jpg", ".png")
    cv2.imwrite(str(place), np.zeros((112, 112, 3), np.uint8))
    after = load_given(data, folder, 112, tmp_path / "memory")
    assert before.key != after.key and not after.normalized[0].any()
    np.testing.assert_array_equal(after.normalized[1:], before.normalized[1:])


def test_a_folder_of_other_images_is_refused(data, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(data.root / data.index["truth"][0], tmp_path / "other/me.png")
    with pytest.raises(DataError, match=r"holds no image of a frame such as .* but 'me\.png'"):
        given_places(data.index["path"], tmp_path / "other")
    with pytest.raises(DataError, match="give the folder of the normalized images"):
        given_places(data.index["path"], tmp_path / "nowhere")
    with pytest.raises(DataError, match="missing must be one of drop, original"):
        load_given(data, tmp_path / "other", 112, tmp_path, missing="guess")
    # the same file name in every folder must not serve all of them
    twins = pd.Series(["a/0.jpg", "b/0.jpg"])
    (tmp_path / "twins").mkdir()
    (tmp_path / "twins/0.png").write_bytes(b"")
    with pytest.raises(DataError, match="holds no image"):
        given_places(twins, tmp_path / "twins")


def test_a_classifier_is_trained_on_given_images(data, tmp_path):
    folder = tree(data, tmp_path / "noor")
    (folder / data.index["path"][3]).unlink()
    out = tmp_path / "out"
    call = ["train", str(data.root), str(out), "--normalized", str(folder), "--steps", "2"]
    call += ["--protocol", "rendered/2fold-seed0", "--inputs", "normalized"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    result = json.loads((out / "au_detection/result.json").read_text())
    assert result["counts"]["normalized"] == {"given": 11, "without a given image, left out": 1}
    assert result["counts"]["frames"] == 11 and result["counts"]["not_normalized"] == 1
    assert result["settings"]["experiment"]["given"] == "noor"
    assert not (out / "normalized/noor").exists(), "nothing was normalized"


def test_given_images_are_of_one_dataset_and_of_no_normalizer_of_ours(tmp_path):
    settings = {"task": "au_detection", "data": "bp4d", "root": tmp_path, "given": tmp_path}
    with pytest.raises(ValueError, match="given normalized images are of one dataset"):
        Experiment(**settings, leakage="per-fold")
    with pytest.raises(ValueError, match="given normalized images are of one dataset"):
        Experiment(**settings, test_data="disfa", test_root=tmp_path)
    assert Missing.__args__ == MISSING


# --- several identities ---------------------------------------------------------------------------


@pytest.fixture
def identities(data, tmp_path):
    """Two folders of target identities: the true images, and the same mirrored; the second lacks
    one, the first another."""
    folder = tmp_path / "identities"
    tree(data, folder / "noor")
    for path in (tree(data, folder / "emil")).rglob("*.jpg"):
        cv2.imwrite(str(path), cv2.imread(str(path))[:, ::-1])
    (folder / "noor" / data.index["path"][3]).unlink()
    (folder / "emil" / data.index["path"][5]).unlink()
    (folder / ".hidden").mkdir()
    return folder


def test_identities_are_the_folders_that_are_named(identities):
    assert list(identity_folders(identities, ("all",))) == ["emil", "noor"]
    assert identity_folders(identities, ("noor",)) == {"noor": identities / "noor"}
    with pytest.raises(DataError, match="no folder of the identity ada; its folders are 'emil', "):
        identity_folders(identities, ("noor", "ada"))
    with pytest.raises(DataError, match="has no folder of the identity all; its folders are none"):
        identity_folders(identities / ".hidden", ("all",))
    with pytest.raises(DataError, match="give the folder of the identities"):
        identity_folders(identities / "nowhere", ("all",))


@pytest.mark.parametrize(("missing", "frames"), [("drop", 10), ("original", 12)])
@pytest.mark.parametrize("backbone", ["frozen", "mini"])
def test_several_identities_are_trained_on_and_averaged(
    data, identities, tmp_path, missing, frames, backbone
):
    experiment = Experiment(
        task="au_detection",
        data="rendered",
        root=data.root,
        protocol="rendered/2fold-seed0",
        rows=("normalized",),
        steps=2,
        given=identities,
        identities=("all",),
        missing=missing,
        backbone=backbone,
    )
    result = experiment.run(tmp_path / "out", progress=False)
    rule = "left out" if missing == "drop" else "original in its place"
    counts = json.loads(result.path.read_text())["counts"]
    assert counts["normalized"] == {
        "emil: given": 11,
        f"emil: without a given image, {rule}": 1,
        "noor: given": 11,
        f"noor: without a given image, {rule}": 1,
    }
    assert counts["frames"] == frames and counts["not_normalized"] == 12 - frames
    row = result.rows["normalized"]
    view = experiment.prepare(tmp_path / "out", progress=False).views[0]
    _, test = row.folds[0]
    of_each = [predict_rows(row.models[0], version, test, row.task) for version in view.versions]
    assert not np.allclose(*of_each)
    np.testing.assert_allclose(row.predictions[0, test], np.mean(of_each, axis=0), rtol=1e-5)
    assert len(list((tmp_path / "out/normalized").glob("originals-given-*.npy"))) == 1


def test_a_sample_shows_one_identity_drawn_by_chance():
    faces = [np.full((4, 2, 2, 3), value, np.uint8) for value in (10, 20, 30)]
    originals = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
    labels, people = np.zeros((4, 1), np.float32), np.array(list("abcd"))
    pairs = SeveralPairs(tuple(Pairs(originals, face, labels, people) for face in faces))
    rows = VersionRows(pairs, np.array([3, 1]))
    sampler = StepSampler(2, 2, steps=60, choose=of_versions(None, 2, 3))
    batches = [rows[batch] for batch in sampler]
    shown = np.array(
        [(b.originals[:, 0, 0, 0].numpy(), b.normalized[:, 0, 0, 0].numpy()) for b in batches]
    )
    assert all(sorted(frames) == [1, 3] for frames in shown[:, 0]), "each frame once an epoch"
    for frame in (1, 3):
        values, times = np.unique(shown[:, 1][shown[:, 0] == frame], return_counts=True)
        assert values.tolist() == [10, 20, 30] and times.min() > 8
    again = [rows[batch].normalized for batch in sampler]
    assert all((a == b.normalized).all() for a, b in zip(again, batches, strict=True))


def test_the_command_takes_identities(data, identities, tmp_path):
    call = ["train", str(data.root), str(tmp_path / "out"), "--normalized", str(identities)]
    call += ["--steps", "2", "--protocol", "rendered/2fold-seed0", "--inputs", "both"]
    done = CliRunner().invoke(app, [*call, "--identities", "noor+emil"])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out/au_detection/result.json").read_text())
    assert result["settings"]["experiment"]["identities"] == ["noor", "emil"]
    with pytest.raises(ValueError, match="identities are folders of given"):
        Experiment(task="au_detection", data="bp4d", root=tmp_path, identities=("noor",))


@pytest.mark.slow  # draws 24 faces with their AUs
def test_our_own_sets_of_two_targets_are_identities(data, tmp_path):
    run = CliRunner()
    for target in ("noor", "emil"):
        call = ["normalize", str(data.root), str(tmp_path / "set"), "--layout", "rendered"]
        done = run.invoke(app, [*call, "--draw", "render", "--target", target])
        assert done.exit_code == 0, done.output
    call = ["train", str(data.root), str(tmp_path / "out"), "--normalized", str(tmp_path / "set")]
    call += ["--steps", "2", "--protocol", "rendered/2fold-seed0", "--inputs", "both"]
    done = run.invoke(app, [*call, "--identities", "noor+emil"])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out/au_detection/result.json").read_text())
    assert result["counts"]["normalized"]["emil: given"] == 12
