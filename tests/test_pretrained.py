"""Weights of other encoders: read to the letter, or refused with what does not fit."""

import argparse
import io
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer

from norface_lib.common.errors import CheckpointError
from norface_lib.networks.encoder import EncoderConfig, FaceEncoder, TimmEncoder
from norface_lib.networks.pretrained import load_encoder_weights

CONFIG = EncoderConfig(
    image_size=64,
    dim=32,
    depth=2,
    heads=2,
    stem=(),
    layer_scale=None,
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
)


def vit(image_size=64, class_token=True, **settings):
    """A ViT of timm with random weights everywhere, so that nothing agrees by chance."""
    torch.manual_seed(0)
    sizes = {
        "patch_size": 16,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    } | settings
    model = VisionTransformer(
        image_size, class_token=class_token, global_pool="token" if class_token else "avg", **sizes
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    return FaceEncoder(CONFIG).eval()


def saved(weights, path, **more):
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"model": weights} | more if more or path.suffix == ".pth" else weights, path)
    return path


def mae(image_size=64):
    """Pre-training weights as facebookresearch/mae names them."""
    weights = {
        name: value
        for name, value in vit(image_size).state_dict().items()
        if not name.startswith("head.")
    }
    decoder = {"decoder_embed.weight": torch.ones(8, 32), "decoder_pos_embed": torch.ones(1, 17, 8)}
    return (
        weights
        | decoder
        | {"mask_token": torch.ones(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)}
    )


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_tokens_are_those_of_timm(encoder, tmp_path, suffix):
    theirs = vit(class_token=False, fc_norm=False)
    report = load_encoder_weights(encoder, saved(theirs.state_dict(), tmp_path / f"vit{suffix}"))
    images = torch.rand(2, 3, 64, 64)
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    assert torch.allclose(
        encoder(images), theirs.forward_features((images - mean) / std), atol=1e-5
    )
    assert report.loaded == len(encoder.vit.state_dict())
    # the head's weight and bias
    assert list(report.dropped.values()) == [2] and report.changed == ()


def test_pretraining_checkpoints_lose_decoder_and_class_token(encoder, tmp_path):
    weights = mae()
    report = load_encoder_weights(encoder, saved(weights, tmp_path / "mae.pth"))
    ours = encoder.vit.state_dict()
    assert torch.equal(ours["pos_embed"], weights["pos_embed"][:, 1:])
    assert all(
        torch.equal(value, weights[name]) for name, value in ours.items() if name != "pos_embed"
    )
    assert sum(report.dropped.values()) == 5 and report.loaded + 5 == len(weights)
    assert any("class token" in reason for reason in report.dropped)
    assert "5 left out" in str(report) and "pos_embed without the class token's position" in str(
        report
    )


@pytest.mark.parametrize("class_token", [True, False])
def test_positions_are_resampled_to_the_grid(encoder, tmp_path, class_token):
    weights = vit(96, class_token, fc_norm=False).state_dict()
    report = load_encoder_weights(encoder, saved(weights, tmp_path / "large.pth"))
    wanted = resample_abs_pos_embed(
        weights["pos_embed"], [4, 4], num_prefix_tokens=int(class_token)
    )[:, int(class_token) :]
    assert torch.equal(encoder.vit.pos_embed, wanted)
    assert report.changed[-1] == "pos_embed from a grid of 6 x 6 to 4 x 4"


def test_a_ramp_of_positions_stays_one(encoder, tmp_path):
    """Left stays left and top stays top: what an exchange of rows and columns would break."""
    weights = mae(128)
    y, x = torch.meshgrid(torch.linspace(0, 1, 8), torch.linspace(0, 1, 8), indexing="ij")
    weights["pos_embed"][0, 1:, 0], weights["pos_embed"][0, 1:, 1] = y.flatten(), x.flatten()
    load_encoder_weights(encoder, saved(weights, tmp_path / "mae.pth"))
    down, across = encoder.vit.pos_embed[0, :, :2].detach().view(4, 4, 2).unbind(-1)
    assert (down.diff(dim=0) > 0.2).all() and down.diff(dim=1).abs().max() < 1e-4
    assert (across.diff(dim=1) > 0.2).all() and across.diff(dim=0).abs().max() < 1e-4


def test_a_fine_tuned_vit_brings_its_last_normalization(encoder, tmp_path):
    """MAE's fine-tuning pools first: it has fc_norm and no norm. Its training also stores the
    command line."""
    weights = vit().state_dict()
    weights |= {f"fc_norm.{part}": weights.pop(f"norm.{part}") for part in ("weight", "bias")}
    report = load_encoder_weights(
        encoder, saved(weights, tmp_path / "tuned.pth", args=argparse.Namespace(lr=1e-3), epoch=3)
    )
    assert torch.equal(encoder.vit.norm.weight, weights["fc_norm.weight"])
    assert any("fc_norm" in change for change in report.changed) and list(
        report.dropped.values()
    ) == [1, 2]


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("blocks.1.attn.qkv.weight"), r"1 missing: blocks\.1\.attn\.qkv\.weight"),
        (
            lambda w: w.update({"blocks.2.norm1.weight": torch.ones(32)}),
            r"1 unexpected: blocks\.2\.norm1\.weight",
        ),
        (lambda w: w.update(dist_token=torch.ones(1, 1, 32)), "1 unexpected: dist_token"),
        (
            lambda w: w.update({"norm.weight": torch.ones(16)}),
            r"1 of another shape: norm\.weight \(16,\), not \(32,\)",
        ),
        (
            lambda w: w.update({"patch_embed.proj.weight": torch.ones(32, 3, 8, 8)}),
            r"patch_embed\.proj\.weight \(32, 3, 8, 8\)",
        ),
        (
            lambda w: w.update(pos_embed=torch.ones(1, 19, 32)),
            r"pos_embed \(1, 19, 32\), not \(1, 16, 32\)",
        ),
        (lambda w: w.update({"header.weight": torch.ones(2)}), r"1 unexpected: header\.weight"),
    ],
)
def test_whatever_is_not_on_the_list_is_an_error_and_changes_nothing(
    encoder, tmp_path, change, words
):
    weights = mae()
    change(weights)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(
        CheckpointError,
        match=rf"mae\.pth: does not fit an encoder of width 32.*EncoderConfig.*{words}",
    ):
        load_encoder_weights(encoder, saved(weights, tmp_path / "mae.pth"))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_an_encoder_with_stem_or_layer_scale_takes_no_plain_vit(tmp_path):
    path = saved(mae(), tmp_path / "mae.pth")
    with pytest.raises(
        CheckpointError,
        match=r"stem \(16, 16\).*missing: patch_embed\.body.*unexpected: patch_embed\.proj",
    ):
        load_encoder_weights(FaceEncoder(replace(CONFIG, stem=(16, 16))), path)
    with pytest.raises(
        CheckpointError, match=r"layer scale 0\.1.*4 missing: blocks\.0\.ls1\.gamma"
    ):
        load_encoder_weights(FaceEncoder(replace(CONFIG, layer_scale=0.1)), path)


def test_files_that_hold_no_weights_are_refused(encoder, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
        load_encoder_weights(encoder, tmp_path / "none.pth")
    buffer = io.BytesIO()
    # anything that is no tensor: it might run code
    torch.save({"model": mae(), "optimizer": io.StringIO}, buffer)
    for name, content in (
        ("half.pth", buffer.getvalue()[:2000]),
        ("code.pth", buffer.getvalue()),
        ("a.safetensors", b"{"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}: damaged, or holds more than weights"):
            load_encoder_weights(encoder, tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match=r"empty\.pt: holds no named weights"):
        load_encoder_weights(encoder, tmp_path / "empty.pt")


# --- weights that timm fetches --------------------------------------------------------------------


def fetched(mean):
    model = vit(class_token=True)
    model.pretrained_cfg = {"mean": mean, "std": IMAGENET_DEFAULT_STD}
    return model


def test_weights_of_timm_by_name(encoder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained: asked.append((name, pretrained)) or fetched([0.485, 0.456, 0.406]),
    )
    report = load_encoder_weights(encoder, "timm:some_vit.mae")
    assert asked == [("some_vit.mae", True)] and report.source == "timm:some_vit.mae"
    assert torch.equal(encoder.vit.blocks[1].mlp.fc1.weight, fetched(None).blocks[1].mlp.fc1.weight)


def test_weights_for_other_colors_are_refused(encoder, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: fetched([0.5, 0.5, 0.5]))
    with pytest.raises(CheckpointError, match=r"standardized by \{'mean': \(0\.5, 0\.5, 0\.5\)"):
        load_encoder_weights(encoder, "timm:some_vit")


def test_without_the_hub_the_cure_is_a_file(encoder, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        CheckpointError,
        match=r"timm cannot fetch these weights \(no route to the hub\).*give its path",
    ):
        load_encoder_weights(encoder, "timm:vit_base_patch16_224.mae")


def test_unknown_names_are_refused(encoder):
    with pytest.raises(CheckpointError, match=r"timm:no_such_vit: timm cannot fetch"):
        load_encoder_weights(encoder, "timm:no_such_vit")


# --- networks of timm as they are -----------------------------------------------------------------

RESNET, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"


def with_head(name, seed=3):
    """The network of timm with the head it was trained with, and random weights."""
    torch.manual_seed(seed)
    return timm.create_model(name)


@pytest.mark.parametrize("name", [RESNET, VIT])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_network_of_timm_takes_its_file(tmp_path, name, suffix):
    theirs, encoder = with_head(name), TimmEncoder(name)
    report = load_encoder_weights(encoder, saved(theirs.state_dict(), tmp_path / f"timm{suffix}"))
    wanted = theirs.state_dict()
    assert all(
        torch.equal(value, wanted[key]) for key, value in encoder.network.state_dict().items()
    )
    assert (
        list(report.dropped.values()) == [2]
        and report.changed == ()
        and report.loaded + 2 == len(wanted)
    )


def test_timm_resamples_positions_to_another_image_size(tmp_path):
    encoder = TimmEncoder(VIT, image_size=96)
    report = load_encoder_weights(encoder, saved(with_head(VIT).state_dict(), tmp_path / "vit.pth"))
    assert report.changed == ("pos_embed from (1, 101, 64) to (1, 37, 64)",)
    assert encoder.network.pos_embed.shape == (1, 37, 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("layer1.0.conv1.weight"), r"Missing key.*layer1\.0\.conv1\.weight"),
        (lambda w: w.update(more=torch.ones(2)), "Unexpected key.*more"),
        (lambda w: w.update({"layer1.0.conv1.weight": torch.ones(2)}), "size mismatch for layer1"),
    ],
)
def test_a_file_of_another_network_is_refused_and_changes_nothing(tmp_path, change, words):
    weights, encoder = with_head(RESNET).state_dict(), TimmEncoder(RESNET)
    change(weights)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=rf"other\.pth: does not fit timm's test_resnet.*{words}"
    ):
        load_encoder_weights(encoder, saved(weights, tmp_path / "other.pth"))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_network_of_timm_takes_what_timm_fetches(monkeypatch):
    theirs, encoder, asked = with_head(RESNET), TimmEncoder(RESNET), []
    monkeypatch.setattr(
        timm, "create_model", lambda name, **settings: asked.append((name, settings)) or theirs
    )
    load_encoder_weights(encoder, f"timm:{RESNET}")
    assert asked == [(RESNET, {"pretrained": True, "num_classes": 1000})]
    assert torch.equal(encoder.network.conv1[0].weight, theirs.conv1[0].weight)


def test_a_network_of_timm_says_what_it_cannot_fetch(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to the hub")

    encoder = TimmEncoder(RESNET)
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        CheckpointError,
        match=r"timm cannot fetch these weights \(no route to the hub\).*give its path",
    ):
        load_encoder_weights(encoder, f"timm:{RESNET}")
    with pytest.raises(
        CheckpointError, match=r"need backbone='timm:resnet18', which here is 'timm:test_resnet"
    ):
        load_encoder_weights(encoder, "timm:resnet18")
