"""Gates, sparse dispatch, the classifier with each of its settings, and that it can learn."""

import json
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from norface_lib.classifier import (
    Classifier,
    ClassifierConfig,
    MixtureOfExperts,
    NoisyTopKGate,
    OutputMixture,
    auxiliary_loss,
    input_stage,
    keep_top_k,
    output_stage,
    parameter_count,
)
from norface_lib.encoder import EncoderConfig
from norface_lib.losses import importance, load

CONFIG = ClassifierConfig(
    labels=("AU01", "AU02", "AU04"),
    encoder=EncoderConfig(image_size=16, patch_size=8, dim=32, depth=1, heads=2, stem=()),
    hidden=24,
    dropout=0.0,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def faces():
    """Original and normalized images, (8, 3, 16, 16)."""
    return {"original": torch.rand(8, 3, 16, 16), "normalized": torch.rand(8, 3, 16, 16)}


def opinionated(mixture):
    """The mixture with gates that prefer some experts to others, as after training."""
    torch.nn.init.normal_(mixture.gate.clean.weight)
    return mixture


@pytest.mark.parametrize("labels", [None, 5])
@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_gates_keep_k_experts_and_sum_to_one(labels, top_k, training):
    gating = NoisyTopKGate(16, 4, top_k, labels).train(training)(torch.randn(50, 16))
    shape = (50, 4) if labels is None else (50, 5, 4)
    assert all(tensor.shape == shape for tensor in gating)
    assert ((gating.gates > 0).sum(dim=-1) == top_k).all()
    torch.testing.assert_close(gating.gates.sum(dim=-1), torch.ones(shape[:-1]))
    assert ((gating.load >= 0) & (gating.load <= 1)).all()
    if not training:
        assert torch.equal(gating.load, (gating.gates > 0).float())


def test_kept_gates_are_a_softmax_of_the_largest_logits():
    gates, kept = keep_top_k(torch.tensor([[1.0, 3.0, -2.0, 2.0]]), 2)
    torch.testing.assert_close(gates, torch.tensor([[0.0, 0.731059, 0.0, 0.268941]]))
    assert kept.tolist() == [[0, 1, 0, 1]]


def test_gates_are_noisy_in_training_only():
    gate, x = NoisyTopKGate(16, 4, 2), torch.randn(50, 16)
    assert not torch.equal(gate(x).gates, gate(x).gates)
    gate.eval()
    assert torch.equal(gate(x).gates, gate(x).gates)


@pytest.mark.parametrize("out", [None, 7])
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_sparse_dispatch_is_the_dense_sum(top_k, out):
    mixture, x = opinionated(MixtureOfExperts(16, 24, 4, top_k, out)), torch.randn(50, 16)
    output, gating = mixture(x)
    every = torch.stack([expert(x) for expert in mixture.experts], dim=1)
    torch.testing.assert_close(output, (gating.gates[..., None] * every).sum(dim=1))


def test_only_the_chosen_experts_compute_a_sample():
    mixture, rows = opinionated(MixtureOfExperts(16, 24, 4, 2)), []
    for expert in mixture.experts:
        expert.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    _, gating = mixture(torch.randn(50, 16))
    assert rows == (gating.gates > 0).sum(dim=0).tolist()
    assert sum(rows) == 2 * 50


def test_an_expert_that_nobody_chose_has_a_gradient_of_zero():
    mixture = MixtureOfExperts(16, 24, 4, 1).eval()  # gates start at 0, so that all samples choose alike
    output, gating = mixture(torch.randn(5, 16))
    output.sum().backward()
    chosen = gating.gates.sum(dim=0) > 0
    moved = torch.stack([expert[0].weight.grad.any() for expert in mixture.experts])
    assert chosen.sum() == 1
    assert torch.equal(moved, chosen)


def test_output_mixture_is_a_gate_and_a_head_for_each_label():
    mixture, x = opinionated(OutputMixture(16, 24, labels=3)), torch.randn(10, 16)
    logits, gating = mixture(x)
    for label in range(3):
        mixed = sum(gating.gates[:, label, [index]] * expert(x) for index, expert in enumerate(mixture.experts))
        torch.testing.assert_close(logits[:, label], mixed @ mixture.head_weight[label] + mixture.head_bias[label])


def test_output_mixture_computes_each_expert_once():
    mixture, rows = OutputMixture(16, 24, labels=3), []
    for expert in mixture.experts:
        expert.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    mixture(torch.randn(10, 16))
    assert rows == [10] * 4


@pytest.mark.parametrize("build", [MixtureOfExperts, partial(OutputMixture, labels=3)])
def test_gradient_flows_to_gates_from_task_importance_and_load(build):
    mixture = build(16, 24)
    output, gating = opinionated(mixture)(torch.randn(50, 16))
    for value in (output.square().mean(), importance(gating.gates), load(gating.load)):
        gradients = torch.autograd.grad(value, [mixture.gate.clean.weight, mixture.gate.noise.weight], retain_graph=True)
        assert all(gradient.any() for gradient in gradients)


def test_auxiliary_losses_spread_a_collapsed_gate():
    mixture = MixtureOfExperts(16, 24)
    torch.nn.init.zeros_(mixture.gate.noise.weight)
    x = torch.randn(64, 16) + 1
    with torch.no_grad():
        mixture.gate.clean.weight[:2] = 0.3  # the mean of x is 1, so that the first two experts take nearly all
    optimizer = torch.optim.Adam(mixture.gate.parameters(), lr=0.02)
    history = []
    for _ in range(40):
        gating = mixture(x)[1]
        loss = importance(gating.gates) + load(gating.load)
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history[0] > 1
    assert history[-1] < 0.1 * history[0]


@pytest.mark.parametrize("stage", [input_stage, output_stage])
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, experts=8, hidden=100), ClassifierConfig(CONFIG.labels)])
def test_a_mixture_that_is_off_leaves_equal_parameters(stage, config):
    dense = stage(replace(config, input_mixture=False, output_mixture=False))
    difference = abs(parameter_count(dense) - parameter_count(stage(config)))
    assert difference <= 0.02 * parameter_count(dense)
    assert difference <= config.encoder.dim + 1  # half of what one unit of width adds
    assert not any(parameter.is_meta for parameter in dense.parameters())


@pytest.mark.parametrize("input_mixture", [True, False])
@pytest.mark.parametrize("output_mixture", [True, False])
@pytest.mark.parametrize("inputs", ["original", "normalized", "both"])
def test_every_setting_classifies(faces, inputs, input_mixture, output_mixture):
    config = replace(CONFIG, inputs=inputs, input_mixture=input_mixture, output_mixture=output_mixture)
    output = Classifier(config)(**faces)
    assert output.logits.shape == (8, 3)
    assert (output.input_gating is not None, output.output_gating is not None) == (input_mixture, output_mixture)
    expected = sum(
        0.1 * importance(gating.gates) + 0.01 * load(gating.load)
        for gating in (output.input_gating, output.output_gating)
        if gating is not None
    )
    torch.testing.assert_close(auxiliary_loss(output, 0.1, 0.01), torch.as_tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("inputs", ["original", "normalized", "both"])
def test_logits_depend_on_the_named_inputs_only(faces, inputs):
    classifier = Classifier(replace(CONFIG, inputs=inputs)).eval()
    before = classifier(**faces).logits
    for name in faces:
        changed = not torch.equal(before, classifier(**faces | {name: faces[name].flip(-1)}).logits)
        assert changed == (inputs in (name, "both"))


def test_backbone_runs_once_on_both_images_and_keeps_pairs_together(faces):
    classifier, calls = Classifier(CONFIG).eval(), []
    classifier.encoder.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    whole = classifier(**faces).logits
    assert calls == [16]
    third = classifier(**{name: images[2:3] for name, images in faces.items()}).logits
    torch.testing.assert_close(whole[2:3], third, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mixtures", [True, False])
def test_classifier_overfits_eight_images(faces, mixtures):
    classifier = Classifier(replace(CONFIG, input_mixture=mixtures, output_mixture=mixtures))
    labels = torch.randint(0, 2, (8, 3)).float()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for _ in range(60):
        output = classifier(**faces)
        loss = F.binary_cross_entropy_with_logits(output.logits, labels) + auxiliary_loss(output)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = classifier.eval()(**faces).logits
    assert F.binary_cross_entropy_with_logits(logits, labels) < 0.1


def test_classifier_trains_in_bfloat16(faces):
    classifier = Classifier(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        output = classifier(**faces)
    (output.logits.float().square().mean() + auxiliary_loss(output)).backward()
    assert output.input_gating.gates.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in classifier.parameters())


def test_config_survives_json():
    config = replace(CONFIG, inputs="normalized", experts=6, top_k=3, encoder=EncoderConfig())
    assert ClassifierConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(TypeError, match="expert_count"):
        ClassifierConfig.from_dict(asdict(config) | {"expert_count": 4})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": ()}, "labels"),
        ({"labels": "AU01"}, "labels"),
        ({"labels": (1, 2)}, "labels"),
        ({"labels": ("AU01", "AU01")}, "labels"),
        ({"inputs": "target"}, "inputs"),
        ({"hidden": 0}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"top_k": 5}, "top_k"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_config_refuses_what_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **values)


@pytest.mark.parametrize("inputs", ["original", "normalized", "both"])
def test_the_head_reads_the_embeddings_that_the_backbone_makes(faces, inputs):
    classifier = Classifier(replace(CONFIG, inputs=inputs)).eval()
    embeddings = {name: classifier.expression(classifier.encoder(images)) for name, images in faces.items()}
    torch.testing.assert_close(classifier.head(**embeddings).logits, classifier(**faces).logits, atol=1e-5, rtol=1e-4)


def test_classifier_refuses_missing_or_unlike_images(faces):
    classifier = Classifier(CONFIG)
    with pytest.raises(ValueError, match="needs the normalized images"):
        classifier(original=faces["original"])
    with pytest.raises(ValueError, match="as many"):
        classifier(faces["original"], faces["normalized"][:3])
    with pytest.raises(ValueError, match="shape"):
        classifier(torch.rand(8, 3, 20, 20), torch.rand(8, 3, 20, 20))
