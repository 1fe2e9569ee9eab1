"""The normalizer: shapes, its start at the target, cached target tokens, training on pairs."""

import json
from copy import copy
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import to_tensor
from norface_lib.images.distances import neutral_ratio, region_ratios
from norface_lib.networks.encoder import EncoderConfig, FaceEncoder
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import PRESETS, MergingBlock, Normalizer, NormalizerConfig
from norface_lib.training.augmentation import mirrored, photometric
from norface_lib.training.normalizer import NormalizerTraining, train_normalizer
from norface_lib.training.normalizer_losses import moving_pixels

SMALL = NormalizerConfig(
    encoder=EncoderConfig(image_size=112, dim=32, depth=1, heads=2, stem=(16, 16)),
    merging_blocks=1,
    widths=(16, 16),
)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Normalizer(SMALL).eval()


@pytest.fixture(scope="module")
def data(tiny_benchmark):
    return Rendered(tiny_benchmark)


def stirred(model):
    """The model with a last layer that draws something."""
    with torch.no_grad():
        model.decoder.draw[2].weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return model


def test_the_untrained_network_draws_the_target(small):
    original, target = torch.rand(3, 3, 112, 112), torch.rand(1, 3, 112, 112)
    assert torch.equal(small(original, target), target.expand(3, -1, -1, -1))


def test_what_is_drawn_depends_on_original_and_target(small):
    stirred(small)
    original, target = torch.rand(2, 3, 112, 112), torch.rand(2, 3, 112, 112)
    drawn = small(original, target)
    assert drawn.shape == original.shape and drawn.min() >= 0 and drawn.max() <= 1
    assert not torch.allclose(drawn, small(original.flip(0), target), atol=1e-6)
    assert not torch.allclose(
        drawn - target, small(original, target.flip(0)) - target.flip(0), atol=1e-4
    )


def test_targets_can_be_kept_and_chosen_for_each_original(small):
    stirred(small)
    original, targets = torch.rand(3, 3, 112, 112), torch.rand(2, 3, 112, 112)
    kept, tokens = small.target(targets), small.encoder(original)
    for first in (0, 1):
        alone = small(original, targets[first : first + 1])
        assert torch.allclose(
            small.synthesize(tokens, kept.of(torch.tensor([first]))), alone, atol=1e-6
        )
    mixed = small.synthesize(tokens, kept.of(torch.tensor([1, 0, 1])))
    assert torch.allclose(mixed, small(original, targets[[1, 0, 1]]), atol=1e-6)


def test_queries_are_the_targets():
    """What a merging block gives depends on the original, and at first most on what lies at the
    same place."""
    torch.manual_seed(0)
    block = MergingBlock(16, 2, grid=3).eval()
    target, first, second = torch.randn(3, 1, 9, 16)
    assert not torch.allclose(block(target, first), block(target, second))
    far = first.clone()
    # the corner token changes: the opposite one hardly notices before training, its neighbor does
    far[:, 8] = second[:, 8]
    moved = (
        block.cross(target, far, far, attn_mask=block.nearness)[0]
        - block.cross(target, first, first, attn_mask=block.nearness)[0]
    )
    distances = moved.norm(dim=-1)[0]
    assert distances[0] < 0.2 * distances[8]


def test_attention_starts_near_by_and_is_what_the_block_uses():
    torch.manual_seed(0)
    block = MergingBlock(16, 2, grid=3).eval()
    target, original = torch.randn(2, 1, 9, 16)
    looks = block.attention(target, original)
    assert looks.shape == (1, 9, 9) and torch.allclose(looks.sum(-1), torch.ones(1, 9))
    # from corner to corner
    assert looks[0, 0, 8] < 0.2 * looks[0, 0, 0] and looks[0, 8, 0] < 0.2 * looks[0, 8, 8]
    with torch.no_grad():
        block.nearness.zero_()
        block.nearness[:, 5] = 1000.0  # all tokens look at place 5 alone
    changed = original.clone()
    changed[:, :5] = torch.randn(5, 16)
    assert torch.equal(block(target, original), block(target, changed))
    assert block.attention(target, original)[0].argmax(-1).tolist() == [5] * 9


def test_attention_of_the_merging_module_is_that_of_its_blocks(small):
    tokens = torch.randn(2, 49, 32)
    looks = small.merging.attention(tokens, tokens.flip(0), torch.zeros(2, 32))
    first = tokens + small.merging.tell(torch.zeros(2, 32))[:, None]
    assert looks.shape == (1, 2, 49, 49)
    assert torch.allclose(looks[0], small.merging.blocks[0].attention(first, tokens.flip(0)))


def test_gradients_reach_every_parameter(small):
    stirred(small).train()
    small(torch.rand(2, 3, 112, 112), torch.rand(1, 3, 112, 112)).square().mean().backward()
    assert [name for name, p in small.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("shape", [(1, 3, 96, 96), (1, 1, 112, 112), (1, 3, 112, 100)])
def test_another_image_size_is_refused(small, shape):
    with pytest.raises(ValueError, match="takes images of shape"):
        small.encoder(torch.zeros(shape))


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="doublings"):
        NormalizerConfig(encoder=EncoderConfig(), merging_blocks=1, widths=(8,) * 5)
    with pytest.raises(ValueError, match="stem"):
        FaceEncoder(EncoderConfig(patch_size=8))


def test_a_plain_vit_is_an_encoder_too():
    config = EncoderConfig(dim=32, depth=1, heads=2, stem=())
    assert FaceEncoder(config)(torch.rand(2, 3, 112, 112)).shape == (2, 49, 32)


def test_the_tiny_preset_is_tiny():
    assert sum(p.numel() for p in Normalizer(PRESETS["tiny"]).parameters()) < 8e6


def test_configs_survive_json():
    assert NormalizerConfig.from_dict(json.loads(json.dumps(asdict(SMALL)))) == SMALL


# --- training -------------------------------------------------------------------------------------


def test_moving_pixels_lie_in_the_face(data):
    moving = moving_pixels(data.truths, data.target)
    assert moving.shape == (112, 112) and moving.max() == 1
    assert moving[70:95, 40:72].mean() > 5 * moving[:20].mean() + 1e-6  # the mouth against the hair


@pytest.mark.slow
def test_training_on_a_few_pairs_learns_to_draw_them(data, tmp_path):
    recipe = NormalizerTraining.of_steps(30, 300)
    # twelve pairs, learned by heart
    fast = {"batch_size": 12, "learning_rate": 3e-3, "average": 0.9}
    recipe = replace(
        recipe, **{name: replace(stage, **fast) for name, stage in recipe.stages.items()}
    )
    model = train_normalizer(data, SMALL, recipe, folder=tmp_path, progress=False)
    drawn = normalize_faces(model, to_tensor(data.target), data.originals)
    # 1 is the neutral target, where a collapsed network stays
    assert neutral_ratio(data.truths, drawn, data.target) < 0.85
    log = [json.loads(line) for line in (tmp_path / "synthesis.jsonl").read_text().splitlines()]
    assert log[-1]["to_neutral"] < log[0]["to_neutral"]


def test_training_needs_truths(data):
    without = copy(data)
    without.truths = None
    with pytest.raises(ValueError, match="true normalized images"):
        train_normalizer(without, SMALL, NormalizerTraining.of_steps(1, 1), progress=False)


def test_ratios_are_1_for_the_target_and_0_for_the_truth(data):
    neutral = np.broadcast_to(data.target, data.truths.shape)
    assert neutral_ratio(data.truths, neutral, data.target) == pytest.approx(1)
    assert neutral_ratio(data.truths, data.truths, data.target) == 0
    assert set(region_ratios(data.truths, data.truths, data.target).values()) == {0.0}


def test_batches_do_not_change_what_is_drawn(small, data):
    stirred(small)
    target = to_tensor(data.target)
    whole, parts = (
        normalize_faces(small, target, data.originals, batch_size=size) for size in (64, 5)
    )
    assert np.abs(whole.astype(int) - parts).max() <= 1


def test_photometric_changes_light_and_keeps_the_range():
    torch.manual_seed(0)
    images = torch.rand(16, 3, 32, 32)
    changed = photometric(images)
    assert changed.min() >= 0 and changed.max() <= 1
    assert not torch.allclose(changed, images)


def test_only_chosen_images_are_mirrored():
    images = torch.rand(2, 3, 4, 4)
    changed = mirrored(images, torch.tensor([True, False]))
    assert torch.equal(changed[0], images[0].flip(2)) and torch.equal(changed[1], images[1])
