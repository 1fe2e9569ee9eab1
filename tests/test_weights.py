"""Weights on disk: files and cards of normalizers and classifiers, heads that name their
normalizer, and everything that is refused."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from norface_lib.common.errors import CheckpointError
from norface_lib.common.files import sha256_of
from norface_lib.images.arrays import to_tensor
from norface_lib.networks.cards import FOLDER
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.weights import (
    find_weights,
    load_classifier,
    load_evaluator,
    load_normalizer,
    load_token_reader,
    save_classifier,
    save_normalizer,
)

ENCODER = EncoderConfig(image_size=112, dim=32, depth=1, heads=2, stem=(16, 16))
NORMALIZER = NormalizerConfig(encoder=ENCODER, merging_blocks=1, widths=(16, 16))
CLASSIFIER = ClassifierConfig(("AU12", "AU01"), inputs="both", encoder=ENCODER, hidden=16)


def images(count=3):
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def normalizer():
    """A network whose last layer changes the target."""
    torch.manual_seed(0)
    model = Normalizer(NORMALIZER).eval()
    torch.nn.init.normal_(model.decoder.draw[2].weight, std=0.05)
    return model


@pytest.fixture
def saved(normalizer, tiny_benchmark, tmp_path):
    card = {"data": {"target": "noor"}, "license": "MIT"}
    path = tmp_path / "mine.safetensors"
    return save_normalizer(normalizer, tiny_benchmark / "target.png", path, card)


@pytest.fixture
def classifier(saved):
    """Over the backbone of the saved normalizer, which it shares bit for bit."""
    torch.manual_seed(1)
    model = Classifier(CLASSIFIER)
    model.start_from(load_normalizer(saved)[0])
    return model.to(memory_format=torch.channels_last).eval()


def edit(path, **changes):
    """Changes entries of a card; those that are None go."""
    card_path = path.with_suffix(".json")
    card = json.loads(card_path.read_text()) | changes
    card = {key: value for key, value in card.items() if value is not None}
    card_path.write_text(json.dumps(card))


def rewrite(path, weights):
    """Other tensors for a card, whose hash is that of the new file."""
    save_file(weights, path)
    edit(path, sha256=sha256_of(path))


# --- normalizers ----------------------------------------------------------------------------------


def test_saved_weights_synthesize_the_same(normalizer, saved):
    model, target, card = load_normalizer(saved)
    assert card["config"]["merging_blocks"] == 1
    assert card["license"] == "MIT" and card["color"] == "RGB"
    faces = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), np.uint8)
    before = normalize_faces(normalizer, target, faces)
    after = normalize_faces(model, target, faces)
    assert np.abs(after.astype(int) - before).max() <= 2  # half precision


def test_weights_of_several_targets_give_the_one_that_is_asked_for(normalizer, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    for name, picture in zip(("target.png", "target-ada.png"), pictures, strict=True):
        cv2.imwrite(str(tmp_path / name), picture[..., ::-1])
    path = tmp_path / "out" / "two.safetensors"
    card = {"data": {"target": "noor+ada"}}
    saved = save_normalizer(normalizer, tmp_path / "target.png", path, card)
    for name, picture in ((None, pictures[0]), ("noor", pictures[0]), ("ada", pictures[1])):
        assert torch.equal(load_normalizer(saved, name)[1], to_tensor(picture))
    with pytest.raises(CheckpointError, match="cannot synthesize 'emil'; its targets are noor, ad"):
        load_normalizer(saved, "emil")


def test_a_changed_byte_in_a_weights_file_is_noticed(saved):
    """Any tensor still loads after it: only the hash of the file shows it."""
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_normalizer(saved)


def test_damaged_or_foreign_weights_are_refused(saved):
    with pytest.raises(CheckpointError, match="not of kind classifier"):
        load_classifier(saved)
    edit(saved, fingerprint=None)  # which would notice each of these changes
    card_path = saved.with_suffix(".json")
    card = json.loads(card_path.read_text())
    for change, words in (
        ({"sha256": "0"}, "damaged"),
        ({"crop": {"name": "other", "points": [[0.3, 0.3]] * 5}}, "another crop"),
        ({"config": card["config"] | {"merging_blocks": 2}}, "do not fit their card"),
        ({"config": card["config"] | {"unknown": 1}}, "do not fit their card"),
    ):
        card_path.write_text(json.dumps(card | change))
        with pytest.raises(CheckpointError, match=words):
            load_normalizer(saved)
    card_path.write_text(json.dumps({key: value for key, value in card.items() if key != "config"}))
    with pytest.raises(CheckpointError, match="the card lacks config"):
        load_normalizer(saved)
    card_path.unlink()
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_normalizer(saved)


def test_weights_are_found_by_name_in_the_users_folder_first(saved, monkeypatch):
    with pytest.raises(CheckpointError, match=r"no weights 'mine'.*shipped:"):
        find_weights("mine")
    monkeypatch.setenv("NORFACE_WEIGHTS", str(saved.parent))
    assert find_weights("mine") == saved


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved, value):
    weights = load_file(saved)
    weights["merging.norm.bias"][3] = value
    rewrite(saved, weights)
    with pytest.raises(CheckpointError, match=r"merging\.norm\.bias holds values that are no fini"):
        load_normalizer(saved)


def test_another_target_picture_is_refused(saved):
    picture = saved.with_suffix(".png")
    cv2.imwrite(str(picture), np.full((112, 112, 3), 128, np.uint8))
    with pytest.raises(CheckpointError, match="does not belong to these weights"):
        load_normalizer(saved)
    picture.unlink()
    with pytest.raises(CheckpointError, match=r"mine\.png: the target picture .* is missing"):
        load_normalizer(saved)


def test_tensors_of_another_training_are_refused(saved):
    weights = load_file(saved)
    weights["merging.norm.bias"] += 1
    rewrite(saved, weights)
    with pytest.raises(CheckpointError, match="does not belong to these weights"):
        load_normalizer(saved)
    edit(saved, fingerprint=None)  # as cards from before there were fingerprints
    with pytest.warns(UserWarning, match=r"mine\.json: has no fingerprint"):
        load_normalizer(saved)


def test_numbers_that_are_too_large_for_half_precision_are_saved_as_they_are(
    normalizer, tiny_benchmark, tmp_path
):
    model = deepcopy(normalizer)
    model.expression.body[0].running_var[3] = 1e6
    card = {"data": {"target": "noor"}}
    path = save_normalizer(model, tiny_benchmark / "target.png", tmp_path / "w.safetensors", card)
    assert load_normalizer(path)[0].expression.body[0].running_var[3] == 1e6


# --- classifiers ----------------------------------------------------------------------------------


def test_a_head_over_the_backbone_of_a_normalizer_is_saved_alone(saved, classifier, tmp_path):
    path = save_classifier(classifier, tmp_path / "r.safetensors", {}, normalizer=saved)
    assert all(name.startswith("head.") for name in load_file(path))
    model, card = load_classifier(path)
    normalizer_card = json.loads(saved.with_suffix(".json").read_text())
    assert card["normalizer"] == {"name": "mine", "sha256": normalizer_card["sha256"]}
    faces = images(), images().flip(3)
    torch.testing.assert_close(model(*faces).logits, classifier(*faces).logits, atol=1e-2, rtol=0)
    assert torch.equal(model.embed(faces[0]), classifier.embed(faces[0]))


def test_a_head_finds_its_normalizer_beside_it_or_in_the_users_folder(
    saved, classifier, tmp_path, monkeypatch
):
    path = save_classifier(classifier, tmp_path / "r.safetensors", {}, normalizer=saved)
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copy(path.with_suffix(suffix), alone)
    with pytest.raises(CheckpointError, match=r"the normalizer mine .* not found; put mine\.safet"):
        load_classifier(alone / "r.safetensors")
    monkeypatch.setenv("NORFACE_WEIGHTS", str(saved.parent))
    load_classifier(alone / "r.safetensors")
    edit(saved, sha256="0")  # a normalizer of the same name, from another training
    with pytest.raises(CheckpointError, match=r"the normalizer mine .* not found"):
        load_classifier(alone / "r.safetensors")


def test_a_head_without_a_normalizer_in_its_card_is_refused(saved, classifier, tmp_path):
    path = save_classifier(classifier, tmp_path / "r.safetensors", {}, normalizer=saved)
    edit(path, normalizer=None, fingerprint=None)
    with pytest.raises(CheckpointError, match="its card names no normalizer"):
        load_classifier(path)


def test_a_backbone_that_load_would_not_find_is_saved_too(saved, classifier, tmp_path):
    path = save_classifier(classifier, tmp_path / "far" / "r.safetensors", {}, normalizer=saved)
    saved.unlink()
    assert torch.equal(load_classifier(path)[0].embed(images()), classifier.embed(images()))


@pytest.mark.parametrize("changed", ["encoder.vit.norm.bias", "expression.body.1.bias"])
def test_a_trained_backbone_is_saved_with_its_head(saved, classifier, tmp_path, changed):
    with torch.no_grad():
        classifier.get_parameter(changed).add_(0.5)
    path = save_classifier(classifier, tmp_path / "r.safetensors", {}, normalizer=saved)
    model, card = load_classifier(path)
    assert card["backbone"] == "trained" and card["normalizer"]["name"] == "mine"
    torch.testing.assert_close(
        model.embed(images()), classifier.embed(images()), atol=2e-2, rtol=1e-2
    )


def test_files_with_a_backbone_and_a_bare_hash_load_as_before(saved, classifier, tmp_path):
    path = save_classifier(classifier, tmp_path / "old.safetensors", {"normalizer": "ab12"})
    edit(path, fingerprint=None, backbone=None)
    model, card = load_classifier(path)
    assert card["normalizer"] == "ab12"
    assert torch.equal(model.embed(images()), classifier.embed(images()))


def test_classifiers_keep_their_label_order(classifier, tmp_path):
    path = save_classifier(classifier, tmp_path / "detector.safetensors", {"license": "MIT"})
    model, card = load_classifier(path)
    assert model.config == CLASSIFIER and card["config"]["labels"] == ["AU12", "AU01"]
    edit(path, config=card["config"] | {"labels": ["AU01", "AU12"]})
    with pytest.raises(CheckpointError, match="label order"):
        load_classifier(path)


def test_a_classifier_that_is_taken_for_another_task_is_refused(classifier, tmp_path):
    path = save_classifier(classifier, tmp_path / "r.safetensors", {"task": "au_detection"})
    edit(path, task="au_intensity")
    with pytest.raises(CheckpointError, match="does not belong to these weights"):
        load_classifier(path)


def test_a_timm_backbone_is_saved_whole(saved, tmp_path):
    config = replace(CLASSIFIER, backbone="timm:test_vit.r160_in1k", image_size=112)
    model = Classifier(config).eval()
    path = save_classifier(model, tmp_path / "r.safetensors", {}, normalizer=saved)
    assert load_classifier(path)[1]["backbone"] == "trained"


# --- shipped --------------------------------------------------------------------------------------


def test_shipped_weights_are_small_and_have_fingerprints():
    names = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
    heads = [name for name in names if name.endswith(("-au", "-intensity", "-emotion"))]
    assert len(heads) == 7
    for name in heads:
        assert (FOLDER / f"{name}.safetensors").stat().st_size < 1e6
        assert "fingerprint" in load_classifier(name)[1]
    for name in set(names) - set(heads) - {"evaluator", "tiny-photo-reader"}:
        assert "fingerprint" in load_normalizer(name)[2]
    assert "fingerprint" in load_token_reader("tiny-photo-reader")[1]
    assert "fingerprint" in load_evaluator()[1]
