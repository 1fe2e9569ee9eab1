"""The shipped weights give the outputs that they gave before the code was reorganized: stored
tensors, in float64, so that no processor's rounding is in the way."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from norface_lib.networks.weights import (
    load_classifier,
    load_evaluator,
    load_normalizer,
    load_token_reader,
)

READERS = ("au", "intensity", "emotion")


@pytest.fixture(scope="module")
def golden():
    """Faces of ``lab`` and ``wild``, and what the networks made of them."""
    return load_file(Path(__file__).parent / "data" / "golden.safetensors")


@pytest.fixture(scope="module")
def images(golden):
    return golden["faces"].permute(0, 3, 1, 2).double() / 255


def assert_same(output, stored):
    assert output.dtype == torch.float64, "a network must not round what it is given in float64"
    torch.testing.assert_close(output, stored, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["tiny", "tiny-photo"])
@torch.inference_mode()
def test_normalizers_and_classifiers_give_the_stored_outputs(golden, images, name):
    model, target, _ = load_normalizer(name)
    model = model.double()
    normalized = model(images, target.double().expand_as(images))
    assert_same(normalized[:, :, ::3, ::3], golden[f"{name}/normalized"])
    assert_same(model.expression(model.encoder(images)), golden[f"{name}/embedding"])
    for reader in READERS:
        classifier, _ = load_classifier(f"{name}-{reader}")
        output = classifier.double()(images, normalized)
        assert_same(output.logits, golden[f"{name}-{reader}/logits"])


@torch.inference_mode()
def test_the_moving_decoder_gives_the_stored_outputs(golden, images):
    name = "tiny-photo-224"
    for identity in ("noor", "ada", "mira"):
        model, target, _ = load_normalizer(name, identity)
        model, target = model.double(), target.double()
        normalized = model(images, target.expand(len(images), -1, -1, -1))
        assert_same(normalized[:, :, ::12, ::12], golden[f"{name}/{identity}"])
    assert_same(model.expression(model.encoder(images)), golden[f"{name}/embedding"])
    codes = torch.zeros(3, len(model.config.codes), dtype=torch.float64)
    codes[1, ::3] = 1
    codes[2] = 0.5
    drawn = model.draw(codes, model.target(target))
    assert_same(drawn[:, :, ::12, ::12], golden[f"{name}/codes"])


@torch.inference_mode()
def test_the_classifier_of_normalized_faces_alone_gives_the_stored_outputs(golden, images):
    model, target, _ = load_normalizer("tiny-photo-224", "noor")
    normalized = model.double()(images, target.double().expand(len(images), -1, -1, -1))
    small = F.interpolate(normalized, size=112, mode="area")
    output = load_classifier("tiny-photo-224-au")[0].double()(normalized=small)
    assert_same(output.logits, golden["tiny-photo-224-au/logits"])


@torch.inference_mode()
def test_the_token_reader_gives_the_stored_outputs(golden, images):
    output = load_token_reader("tiny-photo-reader")[0].double()(images)
    assert_same(output.predictions, golden["tiny-photo-reader/predictions"])


@torch.inference_mode()
def test_the_evaluator_gives_the_stored_outputs(golden, images):
    output = load_evaluator()[0].double()(images)
    for name, values in output._asdict().items():
        assert_same(values, golden[f"evaluator/{name}"])
