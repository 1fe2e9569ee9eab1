"""The decoder that moves and mixes reference pictures of its targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.studio import REFERENCES, Studio
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import resized, to_tensor
from norface_lib.networks.decoders import MovingDecoder, moved
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.export_onnx import export_onnx
from norface_lib.networks.layers import PlacedLinear
from norface_lib.networks.normalizer import PRESETS, Normalizer, NormalizerConfig
from norface_lib.networks.weights import load_normalizer, save_normalizer
from norface_lib.training.normalizer import (
    NormalizerTraining,
    fine_tune,
    references_of,
    train_normalizer,
)
from norface_lib.training.normalizer_losses import Sources, plain_codes
from norface_lib.training.normalizer_recipe import train_and_save
from norface_lib.training.optimizer import TrainConfig

MOVING = NormalizerConfig(
    encoder=EncoderConfig(image_size=112, dim=32, depth=1, heads=2, stem=(16, 16)),
    merging_blocks=1,
    scale=2,
    references=3,
    targets=2,
    codes=labels.EXPRESSION_COLUMNS,
)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Eight people of two frames at 224 px, with two targets in turn."""
    spec = BenchmarkSpec(pool="pretrain", subjects=8, frames=2, size=224, target="noor+mira")
    folder = tmp_path_factory.mktemp("moving") / "benchmark"
    return write_benchmark(spec, folder, workers=1, progress=False)


@pytest.fixture(scope="module")
def pictures(benchmark):
    """References (2, 3, 3, 224, 224) of both targets."""
    return torch.stack([to_tensor(of_one) for of_one in references_of(Rendered(benchmark), 3)])


@pytest.fixture
def network(pictures):
    """An untrained network that knows both targets."""
    torch.manual_seed(0)
    model = Normalizer(MOVING)
    model.decoder.remember(pictures)
    return model.eval()


def stirred(model):
    """The network with a last layer that moves something."""
    with torch.no_grad():
        model.decoder.out.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return model


# --- its parts ------------------------------------------------------------------------------------


def test_each_place_has_a_linear_layer_of_its_own():
    layer = PlacedLinear(3, 4, 5)
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        layer.bias.normal_()
        for place in range(3):
            alone = x[:, place] @ layer.weight[place] + layer.bias[place]
            torch.testing.assert_close(layer(x)[:, place], alone)


def test_a_flow_says_where_each_place_is_taken_from():
    picture = torch.rand(1, 3, 16, 16)
    flow = torch.zeros(2, 2, 16, 16)
    flow[1, 0] = 2 * 3 / 16  # from three pixels to the right
    flow[1, 1] = -2 * 2 / 16  # and from two above
    drawn = moved(picture, flow)
    torch.testing.assert_close(drawn[0], picture[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn[1, :, 2:, :13], picture[0, :, :14, 3:], atol=1e-5, rtol=0)


def test_maps_of_tokens_lie_where_the_tokens_do():
    decoder = MovingDecoder(8, grid=2, patch=8, targets=1, references=1)
    placed = torch.zeros(1, 4, 6 * 4)  # 2 x 2 cells for each token
    placed.view(1, 4, 6, 2, 2)[0, 2, 5] = 1.0  # blue of the lower left token
    flows, weights, change = decoder._maps(placed)
    assert flows.shape == (1, 1, 2, 16, 16) and weights.shape == (1, 1, 16, 16)
    assert torch.all(change[0, 2, 10:, :6] > 0.29) and torch.all(change[0, :2] == 0)
    assert torch.all(change[0, 2, :6] == 0) and torch.all(change[0, 2, :, 10:] == 0)


def test_weights_of_the_references_sum_to_one_and_begin_with_the_target():
    decoder = MovingDecoder(8, grid=2, patch=8, targets=1, references=3)
    _, weights, _ = decoder._maps(torch.randn(2, 4, 12 * 4))
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 16, 16))
    _, weights, _ = decoder._maps(torch.zeros(1, 4, 12 * 4))
    assert weights[:, 0].min() > 0.95


def test_tokens_must_cover_whole_cells():
    with pytest.raises(ValueError, match="a multiple of 4 px, not 6"):
        MovingDecoder(8, grid=2, patch=6, targets=1, references=1)


# --- the network ----------------------------------------------------------------------------------


def test_the_untrained_network_draws_about_the_target(network, pictures):
    originals = torch.rand(2, 3, 112, 112)
    drawn = network(originals, pictures[:1, 0])
    assert drawn.shape == (2, 3, 224, 224)
    moves = (pictures[0, 1] - pictures[0, 0]).abs().mean()
    assert (drawn - pictures[:1, 0]).abs().mean() < 0.2 * moves


def test_what_is_drawn_depends_on_original_intensities_and_target(network, pictures):
    stirred(network)
    originals, targets = torch.rand(2, 3, 112, 112), pictures[:, 0]
    drawn = network(originals, targets)
    assert not torch.allclose(drawn, network(originals.flip(0), targets), atol=1e-4)
    kept, tokens = network.target(targets), network.encoder(originals)
    other = network.synthesize(tokens, kept.of(torch.tensor([1, 0])))
    assert (other[0] - drawn[0]).abs().mean() > 0.02  # another person
    torch.testing.assert_close(network.synthesize(tokens, kept.of(torch.tensor([0, 1]))), drawn)

    codes = torch.zeros(2, len(MOVING.codes))
    codes[1, MOVING.codes.index("AU12L")] = 1
    neutral, smile = network.draw(codes, network.target(targets[:1]))
    assert not torch.allclose(neutral, smile, atol=1e-4)


def test_parts_make_up_what_is_drawn(network, pictures):
    stirred(network)
    originals = torch.rand(2, 3, 112, 112)
    kept, tokens = network.target(pictures[:1, 0]), network.encoder(originals)
    expression = network.expression(tokens)
    merged = network.merged(tokens, kept, expression)
    moved_pictures, weights, change = network.decoder.parts(merged, expression, kept.details)
    assert moved_pictures.shape == (2, 3, 3, 224, 224) and weights.shape == (2, 3, 224, 224)
    drawn = (moved_pictures * weights[:, :, None]).sum(1) + change
    torch.testing.assert_close(drawn.clamp(0, 1), network.synthesize(tokens, kept))


def test_another_target_is_refused(network, pictures):
    with pytest.raises(ValueError, match="train it for that target"):
        network.target(pictures[:1, 1])


def test_operations_can_be_counted_without_values():
    with torch.device("meta"):
        model = Normalizer(MOVING)
        (references,) = model.target(torch.empty(2, 3, 224, 224)).details
    assert references.is_meta and references.shape == (2, 3, 3, 224, 224)


@pytest.mark.parametrize("changes", [{"references": -1}, {"targets": 0}])
def test_counts_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match="there must be a target"):
        replace(MOVING, **changes)


def test_weights_hold_their_references(network, benchmark, tmp_path, pictures):
    stirred(network)
    card = {"data": {"target": "noor+mira"}}
    path = save_normalizer(network, benchmark / "target.png", tmp_path / "m.safetensors", card)
    originals = torch.rand(2, 3, 112, 112)
    for number, name in enumerate(("noor", "mira")):
        model, face, _ = load_normalizer(path, name)
        expected = network(originals, pictures[number : number + 1, 0])
        torch.testing.assert_close(model(originals, face), expected, atol=0.01, rtol=0)


def test_an_exported_file_draws_the_same(network, benchmark, tmp_path):
    import onnxruntime

    card = {"data": {"target": "noor+mira"}}
    stirred(network)
    path = save_normalizer(network, benchmark / "target.png", tmp_path / "m.safetensors", card)
    export_onnx([str(path)], tmp_path / "m.onnx", target="mira")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    faces = to_tensor(resized(Rendered(benchmark).originals[:2], 112)).contiguous()
    (drawn,) = session.run(None, {"original": faces.numpy()})
    model, face, _ = load_normalizer(path, "mira")
    with torch.inference_mode():
        np.testing.assert_allclose(drawn, model(faces, face).numpy(), atol=1e-4)


# --- its training ---------------------------------------------------------------------------------


def test_references_are_pictures_of_the_target():
    pictures = Studio(112, "mira").references()
    assert pictures.shape == (len(REFERENCES), 112, 112, 3)
    np.testing.assert_array_equal(pictures[0], Studio(112, "mira").neutral())
    assert np.abs(pictures[1].astype(int) - pictures[2]).mean() > 2
    with pytest.raises(ValueError, match="has 3 references, not 4"):
        Studio(112, "mira").references(4)


def test_data_with_another_picture_of_the_target_is_refused(benchmark):
    data = Rendered(benchmark)
    np.testing.assert_array_equal(references_of(data, 2)[:, 0], data.targets)
    data.targets = data.targets[::-1]
    with pytest.raises(DataError, match="target noor is not what this version renders"):
        references_of(data, 3)


def test_it_learns_to_draw_from_intensities_in_a_few_steps(tiny_benchmark):
    data = Rendered(tiny_benchmark)
    config = replace(MOVING, scale=1, targets=1)
    steps = TrainConfig(steps=60, batch_size=16, learning_rate=5e-3, average=0)
    last = replace(steps, steps=1, learning_rate=1e-6)  # there must be one
    training = NormalizerTraining(expression=None, drawing=steps, synthesis=last)
    model = train_normalizer(data, config, training, progress=False)

    codes = plain_codes(data, config.codes)
    with torch.no_grad():
        drawn = model.draw(codes, model.target(to_tensor(data.targets)))
    truths = to_tensor(data.truths)
    neutral = to_tensor(data.targets) - truths
    assert (drawn - truths).abs().mean() < 0.7 * neutral.abs().mean()


def test_other_targets_than_those_of_the_weights_are_refused(network, benchmark):
    data = Rendered(benchmark)
    sources = Sources(data.truths[:1], None, data.originals)
    with pytest.raises(ValueError, match="train it for that target"):
        fine_tune(network, sources, NormalizerTraining.of_steps(0, 1), progress=False)


def test_the_recipe_counts_the_targets_of_its_data(benchmark, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny-224", replace(MOVING, targets=3))
    monkeypatch.setattr(
        "norface_lib.training.normalizer_recipe.measure", lambda model, folder, target: {}
    )
    training = NormalizerTraining.of_steps(0, 1, drawing=1)
    saved = train_and_save(benchmark, tmp_path / "out", "tiny-224", training)
    model, _, card = load_normalizer(saved, "mira")
    assert model.config.targets == 2 and card["config"]["references"] == 3
