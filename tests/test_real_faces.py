"""A normalizer that learns from real faces: of any folder or dataset, read as they are needed, by
terms that need no true normalized image; and the larger presets from their weights to a result."""

import json
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from test_loaders import CLEAN
from test_pretraining import MEASURE, SMALL
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.datasets.bp4d import BP4D
from norface_lib.datasets.image_folder import FolderFaces
from norface_lib.datasets.rendered import Rendered
from norface_lib.datasets.streamed import StreamedFaces
from norface_lib.datasets.write_as import write_as
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.crop import ALIGNED, NORFACE_CROP, POINT_COLUMNS
from norface_lib.images.files import list_images, read_faces
from norface_lib.networks.encoder import FaceEncoder
from norface_lib.networks.normalizer import PRESETS, Normalizer
from norface_lib.networks.weights import load_normalizer
from norface_lib.training import normalizer_recipe
from norface_lib.training.normalizer import NormalizerTraining, fine_tune
from norface_lib.training.normalizer_losses import Sources
from norface_lib.training.normalizer_terms import terms_of

UNPAIRED = ("expression=1", "identity=1", "self_reconstruction=1", "adversarial=0.1")
OF_EVALUATOR = ("identity=evaluator",)


def norface(*arguments):
    """Runs a command and returns what it prints."""
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def soon_done(monkeypatch):
    """No evaluation of people whom the network does not know, which takes minutes."""
    monkeypatch.setattr(normalizer_recipe, "measure", partial(MEASURE, subjects=1, frames=1))
    monkeypatch.setattr(normalizer_recipe, "_watch", lambda spec, out: None)


@pytest.fixture
def frames(tiny_benchmark, tmp_path):
    """The tiny benchmark as BP4D, and a table of points of its frames, in which one has no face."""
    write_as("bp4d", tiny_benchmark, tmp_path / "bp4d", quirks=CLEAN)
    paths = BP4D(tmp_path / "bp4d").index["path"]
    places = NORFACE_CROP.pixels(112).ravel() + 0.37
    table = pd.DataFrame([dict(zip(POINT_COLUMNS, places, strict=True))] * len(paths))
    table = table.assign(path=paths, status=ALIGNED, score=1.0)
    table.loc[0, "status"] = "no face"
    table.to_csv(tmp_path / "points.csv", index=False)
    return tmp_path / "bp4d", tmp_path / "points.csv"


def test_faces_are_read_when_they_are_asked_for(tiny_benchmark, frames):
    folder = tiny_benchmark / "images"
    faces = StreamedFaces(FolderFaces(folder), 96)
    whole = read_faces(list_images(folder), 96)
    assert faces.shape == whole.shape == (12, 96, 96, 3)
    np.testing.assert_array_equal(faces[np.array([7, 2, 7])], whole[[7, 2, 7]])
    np.testing.assert_array_equal(faces[3:5], whole[3:5])
    assert faces[np.array([], int)].shape == (0, 96, 96, 3)

    root, points = frames
    data = BP4D(root).aligned_by(points)
    cropped = StreamedFaces(data, 64)
    assert len(cropped) == 11
    np.testing.assert_array_equal(cropped[np.array([4])][0], data.sized(64)[4]["image"])
    (root / data.index["path"][4]).write_bytes(b"")
    cropped[np.array([3])]
    with pytest.raises(DataError, match="unreadable frame"):
        cropped[np.array([4])]


def test_an_image_that_is_no_face_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((112, 150, 3), np.uint8))
    with pytest.raises(DataError, match=r"wide\.png: 150 x 112 px is no face crop"):
        StreamedFaces(FolderFaces(tmp_path), 112)[np.array([0])]


def test_the_target_itself_stands_for_the_truth_that_real_faces_lack(tiny_benchmark, tmp_path):
    data = Rendered(tiny_benchmark)
    terms = terms_of(
        ["reconstruction=0", "edge=0", "reading=0", "self_reconstruction=1", "perceptual=1"], []
    )
    torch.manual_seed(0)
    model = Normalizer(SMALL)
    with torch.no_grad():  # a new decoder draws the target as it is
        for weights in model.decoder.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.05)
    fine_tune(
        model,
        Sources(data.targets, faces=StreamedFaces(FolderFaces(tiny_benchmark / "images"), 112)),
        NormalizerTraining.of_steps(0, 1, terms=terms, batch_size=2),
        folder=tmp_path,
        progress=False,
    )
    (line,) = (tmp_path / "synthesis.jsonl").read_text().splitlines()
    figures = json.loads(line)
    assert figures["perceptual"] > 0
    wanted = figures["self_reconstruction"] + figures["perceptual"]
    assert figures["loss"] == pytest.approx(wanted, rel=1e-5)


def test_the_command_mixes_rendered_pairs_with_frames_of_a_dataset(
    tiny_benchmark, frames, tmp_path, monkeypatch, soon_done
):
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    root, points = frames
    call = ["train-normalizer", tiny_benchmark, tmp_path / "out", "--batch-size", 4]
    call += ["--masked-steps", 1, "--expression-steps", 1, "--synthesis-steps", 2]
    call += ["--faces", root, "--layout", "bp4d", "--points", points, "--unpaired-share", 0.25]
    for term in (*UNPAIRED, "perceptual=1"):
        call += ["--term", term]
    norface(*call, "--network", *OF_EVALUATOR)
    lines = (tmp_path / "out/synthesis.jsonl").read_text().splitlines()
    for term in (*UNPAIRED, "perceptual=1", "reconstruction=1", "edge=1", "reading=1"):
        assert json.loads(lines[-1])[term.partition("=")[0]] != 0
    card = load_normalizer(str(tmp_path / "out/tiny.safetensors"))[2]
    assert card["data"]["faces"] == 11 and card["data"]["faces_of"] == "BP4D"
    assert card["data"]["faces_left"] == {"frame: no face": 1}
    assert card["training"]["terms"]["unpaired_share"] == 0.25
    assert {
        stage["batch_size"] for stage in map(card["training"].get, ("masked", "synthesis"))
    } == {4}


def test_faces_that_no_term_learns_from_are_refused(tiny_benchmark, tmp_path):
    call = ["train-normalizer", tiny_benchmark, tmp_path / "out", "--faces", tiny_benchmark]
    done = CliRunner().invoke(app, list(map(str, call)))
    assert done.exit_code == 2 and "teach nothing" in done.output


def mae_face(config):
    """Weights of the names and shapes of MAE-Face's file: a masked autoencoder at 224 px, under
    ``model``, with the class token and the decoder that our encoder has no place for."""
    torch.manual_seed(0)
    weights = {
        name: torch.randn_like(value) * 0.02
        for name, value in FaceEncoder(config).vit.state_dict().items()
    }
    dim = config.dim
    weights["pos_embed"] = torch.randn(1, 14 * 14 + 1, dim) * 0.02
    weights |= {"cls_token": torch.zeros(1, 1, dim), "mask_token": torch.zeros(1, 1, 512)}
    weights |= {
        "decoder_pos_embed": torch.zeros(1, 14 * 14 + 1, 512),
        "decoder_embed.weight": torch.zeros(512, dim),
        "decoder_blocks.0.norm1.weight": torch.ones(512),
        "decoder_pred.bias": torch.zeros(16 * 16 * 3),
    }
    return weights


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a busy machine takes long for the larger one
@pytest.mark.parametrize(("preset", "backbone"), [("small", "tuned"), ("base", "frozen")])
def test_a_larger_preset_goes_from_its_first_step_to_a_result(
    preset, backbone, tmp_path, soon_done
):
    """Two steps of a batch of two: that it works, not how well."""
    config = PRESETS[preset]
    spec = BenchmarkSpec(pool="lab", subjects=4, frames=1, size=config.size)
    root = write_benchmark(spec, tmp_path / "rendered", workers=1, progress=False)
    call = ["train-normalizer", root, tmp_path / "normalizer", "--preset", preset]
    call += ["--batch-size", 2, "--expression-steps", 1, "--synthesis-steps", 2]
    call += ["--faces", root / "images", "--network", *OF_EVALUATOR]
    for term in UNPAIRED:
        call += ["--term", term]
    if preset == "base":
        torch.save({"model": mae_face(config.encoder)}, mae := tmp_path / "mae_face.pth")
        call += ["--encoder", mae]
    norface(*call)
    weights = tmp_path / f"normalizer/{preset}.safetensors"
    card = load_normalizer(str(weights))[2]
    assert card["training"]["synthesis"]["steps"] == 2 and card["data"]["faces"] == 4
    if preset == "base":
        begun = card["start"]["encoder"]
        assert begun["source"] == "mae_face.pth" and sum(begun["dropped"].values()) == 6
        assert "pos_embed from a grid of 14 x 14 to 16 x 16" in begun["changed"]

    out = tmp_path / "out"
    said = norface(
        "normalize", root, out / "normalized", "--layout", "rendered", "--weights", weights
    )
    assert "4 normalized" in said
    call = ["train", root, out, "--weights", weights, "--protocol", "rendered/2fold-seed0"]
    call += ["--inputs", "both", "--steps", 2, "--batch-size", 2, "--backbone", backbone]
    norface(*call)
    result = json.loads((out / "au_detection/result.json").read_text())
    assert result["counts"]["normalized"] == {"normalized": 4}
    assert (
        result["settings"]["recipe"]["config"]["encoder"]["image_size"] == config.encoder.image_size
    )
