"""Masked autoencoding: nothing of a hidden patch reaches the encoder, patches come back as they
were, training learns."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.datasets import open_dataset
from norface_lib.datasets.rendered import Rendered
from norface_lib.networks.encoder import EncoderConfig, FaceEncoder
from norface_lib.networks.masked import (
    MaskedAutoencoder,
    MaskedConfig,
    from_patches,
    reconstruct,
    standardized_patches,
    to_patches,
)
from norface_lib.networks.normalizer import PRESETS
from norface_lib.networks.pretrained import load_encoder_weights
from norface_lib.training.encoder_recipe import pretrain_and_save
from norface_lib.training.learned_faces import check_learned
from norface_lib.training.loop import TrainConfig
from norface_lib.training.masked import masked_pretraining
from norface_lib.training.normalizer import MASKED

STEM = EncoderConfig(image_size=64, dim=32, depth=2, heads=2, stem=(16, 16))
PLAIN = EncoderConfig(
    image_size=64, dim=32, depth=2, heads=2, stem=(), layer_scale=None, std=(0.2, 0.25, 0.3)
)
SMALL = MaskedConfig(dim=16, depth=1, heads=2)
both_kinds = pytest.mark.parametrize("config", [STEM, PLAIN], ids=["stem", "plain"])


def autoencoder(config, masked=SMALL):
    torch.manual_seed(0)
    return MaskedAutoencoder(FaceEncoder(config), masked).eval()


def test_a_quarter_of_the_patches_is_visible_and_each_as_often_as_the_others():
    model = autoencoder(STEM)
    torch.manual_seed(0)
    mask = model.random_mask(2000)
    assert mask.shape == (2000, 16) and (mask.sum(dim=1) == 12).all()
    assert (mask.float().mean(dim=0) - 0.75).abs().max() < 0.05
    # one is always visible
    assert (
        autoencoder(STEM, MaskedConfig(ratio=0.99, dim=16, depth=1, heads=2))
        .random_mask(5)
        .sum(dim=1)
        == 15
    ).all()


def test_patches_are_rows_of_pixels_in_row_major_order():
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4).float()
    patches = to_patches(images, 2)
    # the third is the lower left
    assert torch.equal(patches[1, 2], images[1, :, 2:4, 0:2].permute(1, 2, 0).flatten())
    assert torch.equal(from_patches(patches, 2), images)


def test_standardized_patches_are_what_numpy_gives():
    images = torch.rand(2, 3, 8, 8)
    patches, mean, spread = standardized_patches(images, 4)
    corner = images[0, :, :4, :4].numpy()
    assert mean[0, 0].item() == pytest.approx(corner.mean(), rel=1e-5)
    assert spread[0, 0].item() == pytest.approx(corner.std(ddof=1), rel=1e-4)
    assert torch.allclose(patches * spread + mean, to_patches(images, 4), atol=1e-5)
    # an even patch
    assert standardized_patches(torch.full((1, 3, 8, 8), 0.3), 4)[0].abs().max() < 1e-3


@both_kinds
def test_hidden_pixels_reach_neither_token_nor_prediction(config):
    model = autoencoder(config)
    images, mask = torch.rand(2, 3, 64, 64, requires_grad=True), model.random_mask(2)
    visible = model.encode(images, mask)
    prediction = model.decode(visible, mask)
    (visible.square().sum() + prediction.square().sum()).backward()
    by_patch = to_patches(images.grad, 16).abs().sum(dim=2)
    assert (by_patch[mask] == 0).all() and (by_patch[~mask] > 0).all()
    painted = torch.where(mask[:, :, None], torch.rand(2, 16, 768), to_patches(images.detach(), 16))
    assert torch.equal(model.encode(from_patches(painted, 16), mask), visible)


@both_kinds
def test_other_visible_pixels_do_reach_a_token(config):
    """What the test above would not notice: an encoder that sees nothing at all."""
    model = autoencoder(config)
    images, mask = torch.rand(1, 3, 64, 64), model.random_mask(1)
    assert not torch.allclose(model.encode(images, mask), model.encode(1 - images, mask), atol=1e-3)


def test_visible_tokens_are_the_encoders_own():
    """With a plain patch embedding, one block that looks nowhere: the token of a patch does not
    depend on the others."""
    model = autoencoder(EncoderConfig(image_size=64, dim=32, depth=1, heads=2, stem=()))
    torch.nn.init.zeros_(model.encoder.vit.blocks[0].attn.proj.weight)
    images, mask = torch.rand(3, 3, 64, 64), model.random_mask(3)
    assert torch.allclose(
        model.encode(images, mask).flatten(0, 1), model.encoder(images)[~mask], atol=1e-5
    )


def test_predictions_lie_at_their_places():
    """Hidden patches all start as one token: only their positions tell them apart."""
    model = autoencoder(STEM)
    images, mask = torch.rand(1, 3, 64, 64), model.random_mask(1)
    _, predicted, _ = model(images, mask)
    assert predicted.shape == (1, 16, 768)
    flat = predicted[0, mask[0]]
    assert (flat[1:] - flat[:1]).abs().amax(dim=1).min() > 1e-4
    model.places.zero_()
    blind = model(images, mask)[1][0, mask[0]]
    assert torch.allclose(blind, blind[:1].expand_as(blind), atol=1e-5)


def test_the_loss_is_that_of_hidden_patches_alone():
    model = autoencoder(PLAIN)
    images, mask = torch.rand(2, 3, 64, 64), model.random_mask(2)
    loss, predicted, _ = model(images, mask)
    config = PLAIN
    standard = (images - torch.tensor(config.mean).view(3, 1, 1)) / torch.tensor(config.std).view(
        3, 1, 1
    )
    errors = [
        ((predicted[n, i] - (patch - patch.mean()) / patch.std()) ** 2).mean().item()
        for n in range(2)
        for i, patch in enumerate(to_patches(standard, 16)[n])
        if mask[n, i]
    ]
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-4)


@both_kinds
def test_a_perfect_prediction_reconstructs_the_original(config, monkeypatch):
    model = autoencoder(config)
    images, mask = torch.rand(2, 3, 64, 64), model.random_mask(2)
    perfect, _, _ = standardized_patches(model.encoder.standardized(images), 16)
    monkeypatch.setattr(model, "decode", lambda *_: perfect)
    original, masked, drawn = reconstruct(model, images, mask)
    assert torch.equal(original, images)
    assert torch.allclose(drawn, images, atol=1e-5)
    assert (to_patches(masked, 16)[mask] == 0.5).all()
    assert torch.equal(to_patches(masked, 16)[~mask], to_patches(images, 16)[~mask])


def test_masks_and_settings_that_make_no_sense_are_refused():
    model = autoencoder(STEM)
    images, mask = torch.rand(2, 3, 64, 64), model.random_mask(2)
    with pytest.raises(ValueError, match=r"must be \(2, 16\) of bool"):
        model(images, mask[:1])
    with pytest.raises(ValueError, match="of bool"):
        model(images, mask.float())
    uneven = mask.clone()
    uneven[0] = True
    for wrong in (uneven, torch.ones_like(mask), torch.zeros_like(mask)):
        with pytest.raises(ValueError, match="as many patches"):
            model(images, wrong)
    with pytest.raises(ValueError, match="takes images of shape"):
        model(torch.rand(2, 3, 32, 32))
    with pytest.raises(ValueError, match="ratio"):
        MaskedConfig(ratio=1.0)


# --- training -------------------------------------------------------------------------------------


def striped(count=24):
    """Faces (count, 64, 64, 3) whose hidden parts follow from the visible ones: stripes of one
    direction and period each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    waves = [
        np.sin((x if rng.random() < 0.5 else y) * 2 * np.pi / rng.choice([4, 8]))
        for _ in range(count)
    ]
    return np.repeat(np.uint8(127 + 100 * np.array(waves))[..., None], 3, axis=3)


def test_pretraining_learns_to_draw_what_is_hidden(tmp_path):
    torch.manual_seed(0)
    encoder = FaceEncoder(PLAIN)
    before = encoder.vit.blocks[0].attn.qkv.weight.clone()
    training = TrainConfig(steps=150, batch_size=12, learning_rate=3e-3, log_every=10)
    model = masked_pretraining(
        encoder, striped(), training, folder=tmp_path, device="cpu", progress=False, config=SMALL
    )
    log = [json.loads(line) for line in (tmp_path / "masked.jsonl").read_text().splitlines()]
    assert log[0]["unexplained"] > 0.9 and log[-1]["unexplained"] < 0.6
    assert model.encoder is encoder and not torch.equal(
        before, encoder.vit.blocks[0].attn.qkv.weight
    )


def test_pretraining_goes_on_where_it_stopped(tmp_path, monkeypatch):
    training = TrainConfig(steps=4, batch_size=4, log_every=1, checkpoint_seconds=0.0)

    def run(folder):
        torch.manual_seed(1)
        return masked_pretraining(
            FaceEncoder(STEM),
            striped(8),
            training,
            folder=folder,
            device="cpu",
            progress=False,
            config=SMALL,
        ).state_dict()

    whole, calls, forward = run(tmp_path / "whole"), [], MaskedAutoencoder.forward

    def stopping(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, *arguments)

    monkeypatch.setattr(MaskedAutoencoder, "forward", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_command_writes_an_encoder_that_other_trainings_take(
    tiny_benchmark, tmp_path, monkeypatch
):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], encoder=STEM))
    call = ["train-encoder", tiny_benchmark, tmp_path, "--layout", "rendered"]
    call += ["--steps", 3, "--batch-size", 4, "--license", "CC0"]
    done = CliRunner().invoke(app, [str(part) for part in call])
    assert done.exit_code == 0, done.output

    torch.manual_seed(0)  # as the command begins
    first, encoder = FaceEncoder(STEM).vit.state_dict(), FaceEncoder(STEM)
    report = load_encoder_weights(encoder, tmp_path / "encoder.safetensors")
    assert (report.loaded, report.dropped, report.changed) == (len(first), {}, ())
    learned = encoder.vit.state_dict()
    moved = (learned["pos_embed"] - first["pos_embed"]).abs().max()
    assert 0 < moved < 3 * MASKED.learning_rate * 1.5, "three steps away from the first weights"

    faces = len(Rendered(tiny_benchmark))
    about = json.loads((tmp_path / "encoder.json").read_text())
    assert about["counts"] == {"faces": faces}
    assert about["result"]["license"] == "CC0" and 0 < about["result"]["unexplained"] < 3
    assert about["settings"]["encoder"]["dim"] == STEM.dim
    again = CliRunner().invoke(app, [str(part) for part in call])
    assert again.exit_code == 0, again.output
    taken = json.loads((tmp_path / "encoder.json").read_text())["result"]
    assert taken == about["result"], "the time of the training, not of the call that found it"
    settings = about["settings"]
    assert (settings["preset"], settings["steps"], settings["batch_size"]) == ("tiny", 3, 4)
    height, width, _ = cv2.imread(str(tmp_path / "encoder.png")).shape
    assert height > 3 * 64 and width >= min(8, faces) * 64
    text = json.dumps(about)
    assert str(tmp_path) not in text and str(tiny_benchmark) not in text


def test_a_folder_is_of_the_faces_that_were_learned_from_there(tmp_path):
    faces = striped()
    check_learned(tmp_path, faces, faces[:3])
    check_learned(tmp_path, faces, faces[:3])
    for others in ((faces,), (faces, faces[:4]), (faces[::-1], faces[:3])):
        with pytest.raises(DataError, match="learned from other faces; choose another folder"):
            check_learned(tmp_path, *others)


def test_a_folder_is_of_the_weights_that_a_training_began_with(tmp_path):
    faces = striped()
    check_learned(tmp_path, faces, start={"sha256": "1"})
    check_learned(tmp_path, faces, start={"sha256": "1"})
    for other in (None, {"sha256": "2"}):
        with pytest.raises(DataError, match="began with other weights; choose another folder"):
            check_learned(tmp_path, faces, start=other)


def test_a_folder_from_before_its_beginning_was_noted_is_taken_as_it_is(tmp_path):
    faces = striped()
    check_learned(tmp_path, faces, start={"sha256": "1"})
    noted = json.loads((tmp_path / "faces.json").read_text())
    (tmp_path / "faces.json").write_text(json.dumps(noted["faces"]))
    check_learned(tmp_path, faces, start={"sha256": "2"})


@pytest.mark.parametrize(
    "call",
    [
        "train-encoder {faces} {out} --layout rendered",
        "train-evaluator {faces} {out}",
        "train-normalizer {faces} {out}",
        "train-reader {out} {faces}",
        "train-sides {out} {faces} --calibrate {faces}",
    ],
)
def test_a_training_is_not_taken_for_one_of_other_faces(call, tiny_benchmark, tmp_path):
    (tmp_path / "faces.json").write_text("[]")  # as of a training that learned from others
    call = call.format(faces=tiny_benchmark, out=tmp_path).split()
    done = CliRunner().invoke(app, call)
    assert isinstance(done.exception, DataError) or "learned from other faces" in done.output


def test_an_encoder_needs_faces_and_a_preset(tiny_benchmark, tmp_path):
    data = open_dataset("rendered", tiny_benchmark)
    with pytest.raises(DataError, match="no preset 'huge'; there are tiny"):
        pretrain_and_save(data, tmp_path, preset="huge")
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(app, ["train-encoder", str(tmp_path / "empty"), str(tmp_path)])
    assert done.exit_code != 0 and not (tmp_path / "encoder.safetensors").exists()
