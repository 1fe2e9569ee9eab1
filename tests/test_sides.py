"""How a token reader tells the left side of a face from the right one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from norface_lib import labels
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import to_tensor
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.token_reader import (
    Reading,
    TokenReader,
    TokenReaderConfig,
    half_faces,
)
from norface_lib.networks.weights import load_token_reader, save_token_reader
from norface_lib.training.reader_calibration import EVEN, side_weights, with_side_weights

CONFIG = TokenReaderConfig(encoder=EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16)))
AUS = CONFIG.aus


@pytest.fixture
def reader():
    torch.manual_seed(0)
    model = TokenReader(CONFIG).eval()
    with torch.no_grad():
        model.head.bias[: 2 * len(AUS)].fill_(2.0)
    return model


def images(count=5):
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def test_half_faces_are_symmetric_and_of_one_side_each():
    faces = images()
    left, right = half_faces(faces)
    for half in (left, right):
        assert half.shape == faces.shape
        assert torch.equal(half, half.flip(3))
    assert torch.equal(left[..., 56:], faces[..., 56:])  # the subject's left is right in the image
    assert torch.equal(right[..., :56], faces[..., :56])


def test_another_difference_leaves_the_stronger_side_as_it_was():
    sides = torch.tensor([[[3.0, 3.0], [2.0, 1.0], [0.5, 0.4]]])
    reading = Reading(sides, torch.zeros(1, 3), torch.zeros(1, 8))
    changed = reading.with_difference(torch.tensor([[1.0, -0.5, 2.0]])).sides
    torch.testing.assert_close(changed, torch.tensor([[[3.0, 2.0], [1.5, 2.0], [0.5, 0.0]]]))


def test_small_differences_are_none(reader):
    weights = tuple((0.5, 2.0, 0.4) for _ in AUS)
    model = with_side_weights(reader, weights)
    signs = torch.zeros(3, len(AUS), 2)
    signs[0, :, 0] = 2.0  # 1.0, made smaller by 0.4
    signs[1, :, 1] = -0.5
    signs[2, :, 0] = 0.7  # 0.35
    expected = torch.tensor([0.6, -0.6, 0.0])[:, None].expand(3, len(AUS))
    torch.testing.assert_close(model.difference(signs), expected)


def test_side_weights_change_nothing_but_the_weaker_side(reader):
    weights = tuple((1.0, 1.0, 0.0) if sided else (0.0, 0.0, 0.0) for sided in CONFIG.sided)
    before, after = reader(images()), with_side_weights(reader, weights)(images())
    torch.testing.assert_close(after.intensity, before.intensity)
    torch.testing.assert_close(after.occurrence, before.occurrence)
    torch.testing.assert_close(after.emotion, before.emotion)
    assert not torch.allclose(after.sides, before.sides)
    unsided = ~torch.tensor(CONFIG.sided)
    torch.testing.assert_close(after.sides[:, unsided], before.sides[:, unsided])


def test_side_weights_are_kept_with_the_weights_of_a_reader(reader, tmp_path):
    weights = tuple((0.1 * k, 0.2, 0.3) for k in range(len(AUS)))
    model = with_side_weights(reader.half().float(), weights)
    again, _ = load_token_reader(save_token_reader(model, tmp_path / "own.safetensors", {}))
    assert again.config.side_weights == weights
    torch.testing.assert_close(again(images()).sides, model(images()).sides)


@pytest.mark.parametrize("wrong", [((1.0, 1.0, 0.0),), ((1.0, 1.0),) * len(AUS)])
def test_side_weights_are_three_numbers_for_each_au(wrong):
    with pytest.raises(ValueError, match="none or three numbers for each of 22 AUs, got"):
        replace(CONFIG, side_weights=wrong)


def test_side_weights_follow_what_tells_the_sides_apart(reader, tiny_benchmark, monkeypatch):
    """Signs that are the truth, twice as large, and noise beside them."""
    faces = Rendered(tiny_benchmark, aus=AUS)
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1, (len(faces), len(AUS), 1)) * rng.integers(0, 2, (len(faces), 1, 1))
    signs = np.concatenate([2 * true, 0.01 * rng.normal(size=true.shape)], axis=2)
    codes = np.concatenate([true.clip(0), (-true).clip(0)], axis=2)
    monkeypatch.setattr("norface_lib.training.reader_calibration.side_codes", lambda *_: codes)
    monkeypatch.setattr(
        TokenReader, "signs_of_sides", lambda self, batch, reading: torch.from_numpy(signs)
    )
    found = np.array(side_weights(reader, faces))
    sided = np.array(CONFIG.sided)
    assert (found[~sided] == 0).all()
    np.testing.assert_allclose(found[sided, 0], 0.5, atol=0.02)
    total = (signs[:, sided] * found[sided, :2]).sum(axis=2)
    alike = np.abs(true[:, sided, 0]) < 0.3
    even = np.abs(total) <= found[sided, 2] + 1e-3
    assert even[alike].mean() >= EVEN - 0.1
    assert (found[sided, 2] < 0.31).all()  # of these alone


@pytest.mark.parametrize("target", ["noor", "ada"])
def test_the_shipped_reader_sees_which_brow_is_raised_and_which_eye_winks(target):
    """Before, it read the same of both sides but for smiles."""
    reader, _ = load_token_reader("tiny-photo-reader")
    studio = Studio(112, target)
    for au, least in ((2, 1.0), (7, 1.0), (10, 1.0), (12, 1.0), (43, 1.0)):
        one = studio.normalized({au: 4.5}, {})
        both = studio.normalized({au: 4.5}, {au: 4.5})
        with torch.inference_mode():
            sides = reader(to_tensor(np.stack([one, one[:, ::-1], both]))).sides
        left, right = sides[:, AUS.index(au)].unbind(1)
        difference = left - right
        assert difference[0] > least and difference[1] < -least, labels.au_column(au)
        assert difference[2] == 0, labels.au_column(au)
