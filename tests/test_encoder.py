"""The encoder: its colors and layer scale, its config as JSON, and the presets, each of which can
be trained."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from norface_lib.datasets.rendered import Rendered
from norface_lib.networks.encoder import EncoderConfig, FaceEncoder
from norface_lib.networks.normalizer import PRESETS, Normalizer, NormalizerConfig
from norface_lib.networks.weights import find_weights
from norface_lib.training.loop import TrainConfig
from norface_lib.training.normalizer import NormalizerTraining, train_normalizer

SMALL = EncoderConfig(image_size=64, dim=32, depth=1, heads=2, stem=(16, 16))


def test_images_are_standardized_channel_by_channel():
    encoder = FaceEncoder(replace(SMALL, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2)))
    gray = torch.full((1, 3, 64, 64), 0.6)
    assert encoder.standardized(gray)[0, :, 5, 7].tolist() == pytest.approx([1.0, 1.6, 1.5])


def test_the_default_is_what_shipped_weights_were_trained_with():
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(FaceEncoder(SMALL).standardized(images), (images - 0.5) * 4.0)


def test_the_shipped_weights_still_fit_and_see_the_same():
    weights = {
        name: value
        for name, value in load_file(find_weights("tiny")).items()
        if name.startswith("encoder.")
    }
    encoder = FaceEncoder(PRESETS["tiny"].encoder).eval()
    encoder.load_state_dict(
        {name.removeprefix("encoder."): value for name, value in weights.items()}, strict=True
    )
    images = torch.rand(2, 3, 112, 112)
    assert torch.equal(encoder(images), encoder.vit.forward_features((images - 0.5) * 4.0))


def test_colors_are_not_among_the_weights():
    names = FaceEncoder(SMALL).state_dict()
    assert not {"mean", "std"} & names.keys() and all(name.startswith("vit.") for name in names)


def test_layer_scale_starts_where_the_config_says_or_is_not_there():
    assert (FaceEncoder(replace(SMALL, layer_scale=0.25)).vit.blocks[0].ls1.gamma == 0.25).all()
    assert not [
        name for name in FaceEncoder(replace(SMALL, layer_scale=None)).state_dict() if ".ls" in name
    ]


def test_configs_survive_json():
    config = replace(SMALL, mean=(0.1, 0.2, 0.3), layer_scale=None)
    assert EncoderConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
    assert (
        NormalizerConfig.from_dict(json.loads(json.dumps(asdict(PRESETS["base"]))))
        == PRESETS["base"]
    )
    with pytest.raises(TypeError, match="unknown"):
        EncoderConfig.from_dict({"unknown": 1})


def test_the_base_preset_is_a_vit_b_16():
    """Without its head, timm's ViT-B/16 at 224 px has 85,798,656 parameters, a class token and its
    position among them."""
    with torch.device("meta"):
        encoder = FaceEncoder(replace(PRESETS["base"].encoder, image_size=224))
    assert sum(p.numel() for p in encoder.parameters()) == 85_798_656 - 2 * 768


def random_pairs(size, count=2):
    """Noise in place of faces, with the intensity of two AUs."""
    rng = np.random.default_rng(0)
    originals, truths = rng.integers(0, 256, (2, count, size, size, 3), np.uint8)
    table = pd.DataFrame(
        {"subject": "a", "AU01": rng.uniform(0, 5, count), "AU12": rng.uniform(0, 5, count)}
    )
    return Rendered.from_arrays(table, originals=originals, truths=truths, targets=originals[:1])


@pytest.mark.parametrize(
    "name", ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("small", "base"))]
)
def test_each_preset_takes_a_step_of_both_stages(name):
    config = PRESETS[name]
    step = TrainConfig(steps=1, batch_size=2, average=0.0)
    torch.manual_seed(step.seed)
    before = Normalizer(config).state_dict()
    data, training = (
        random_pairs(config.encoder.image_size),
        NormalizerTraining(expression=step, synthesis=step),
    )
    model = train_normalizer(data, config, training, device="cpu", progress=False)
    moved = [
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    ]
    assert {key.split(".")[0] for key in moved} == {"encoder", "expression", "merging", "decoder"}
    size = config.encoder.image_size
    assert model(torch.rand(1, 3, size, size), torch.rand(1, 3, size, size)).shape == (
        1,
        3,
        size,
        size,
    )
