"""Gates that balance their experts without auxiliary losses, and the shared expert."""

from dataclasses import replace

import pytest
import torch

from norface_lib.networks.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierHead,
    input_stage,
    output_stage,
    parameter_count,
)
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.mixtures import MixtureOfExperts, OutputMixture, dense_sum
from norface_lib.networks.routing import ROUTINGS, BiasBalancedGate, ExpertChoiceGate
from norface_lib.networks.weights import load_classifier, save_classifier

DIM = 8
CONFIG = ClassifierConfig(
    ("AU01", "AU12", "AU25"),
    encoder=EncoderConfig(image_size=32, patch_size=16, dim=DIM, depth=1, heads=2),
    hidden=8,
)


def biased(gate):
    """The gate with a taste for its first expert."""
    with torch.no_grad():
        gate.clean.weight.zero_()
        gate.clean.weight[0] = 1.0
    return gate


def test_the_bias_evens_out_how_many_samples_the_experts_get():
    torch.manual_seed(0)
    gate = BiasBalancedGate(DIM, experts=4, top_k=2)
    gate.RATE = 0.01
    x = torch.rand(64, DIM) + 0.5
    with torch.no_grad():
        gate.clean.weight[0] = 1.0  # all like the first expert
    assert gate(x).load.sum(dim=0)[0] == 64
    loads = torch.stack([gate(x).load.sum(dim=0) for _ in range(600)])
    assert torch.all(loads.sum(dim=1) == 2 * 64)
    assert (loads[-200:].mean(dim=0) - 32).abs().max() < 4


def test_the_bias_chooses_and_does_not_weigh():
    gate = BiasBalancedGate(DIM, experts=3, top_k=2).eval()
    x = torch.randn(5, DIM)
    with torch.no_grad():
        gate.bias.copy_(torch.tensor([5.0, 0.0, 5.0]))
    gating = gate(x)
    scores = gate.clean(x).sigmoid()[:, [0, 2]]
    torch.testing.assert_close(gating.load, torch.tensor([1.0, 0.0, 1.0]).expand(5, 3))
    torch.testing.assert_close(gating.gates[:, [0, 2]], scores / scores.sum(dim=1, keepdim=True))
    gating.gates[:, 0].sum().backward()
    assert gate.clean.weight.grad.any()


def test_a_network_in_use_moves_no_bias_and_no_cutoff():
    for kind in (BiasBalancedGate, ExpertChoiceGate):
        gate = kind(DIM, experts=3, top_k=1, labels=2).eval()
        before = {name: value.clone() for name, value in gate.state_dict().items()}
        gate(torch.randn(7, DIM))
        assert all(torch.equal(before[name], value) for name, value in gate.state_dict().items())


def test_experts_choose_as_many_samples_each():
    gate = ExpertChoiceGate(DIM, experts=4, top_k=2, labels=3)
    kept = gate(torch.randn(40, DIM)).load
    assert kept.shape == (40, 3, 4)
    assert torch.equal(kept.sum(dim=0), torch.full((3, 4), 20.0))
    assert (kept.sum(dim=-1) != 2).any()  # a sample has as many as chose it


def test_the_gates_of_a_face_do_not_depend_on_the_others_read_with_it():
    gate = biased(ExpertChoiceGate(DIM, experts=4, top_k=1))
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        gate(torch.randn(64, DIM, generator=generator))
    gate.eval()
    x = torch.randn(512, DIM, generator=generator)
    together = gate(x)
    torch.testing.assert_close(together.gates[:1], gate(x[:1]).gates)
    shares = together.load.mean(dim=0)  # the cutoffs let in what they let in during training
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.08, rtol=0)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("shared", [False, True])
def test_mixtures_are_the_sum_of_their_experts(routing, shared):
    x = torch.randn(6, DIM)
    options = {"gate": ROUTINGS[routing], "shared": shared}
    mixture = MixtureOfExperts(DIM, 4, experts=3, top_k=2, **options).eval()
    total, gating = mixture(x)
    expected = dense_sum(mixture.experts, x, gating.gates[:, None])
    torch.testing.assert_close(total, expected + mixture.shared(x) if shared else expected)

    heads = OutputMixture(DIM, 4, labels=2, experts=3, top_k=2, **options).eval()
    logits, gating = heads(x)
    features = torch.stack([expert(x) for expert in heads.experts], dim=-1)  # (N, D, m)
    mixed = torch.einsum("nlm,ndm->nld", gating.gates, features)
    mixed = mixed + heads.shared(x)[:, None] if shared else mixed
    expected = (mixed * heads.head_weight).sum(dim=-1) + heads.head_bias
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_classifiers_of_every_routing_learn_and_come_back_from_their_file(routing, tmp_path):
    torch.manual_seed(0)
    config = replace(CONFIG, routing=routing, shared_expert=True)
    head = ClassifierHead(config)
    x = torch.randn(16, DIM)
    head(original=x, normalized=x).logits.square().sum().backward()
    names = [name for name, value in head.named_parameters() if value.grad is None]
    # of noisy gates the load loss alone teaches the noise
    assert all("gate" in name for name in names), names

    model = Classifier(config).eval()
    path = save_classifier(model, tmp_path / "detector.safetensors", {})
    again = load_classifier(path)[0]
    images = torch.rand(2, 3, 3, 32, 32)
    assert again.config == config
    # a file holds half precision
    torch.testing.assert_close(again(*images).logits, model(*images).logits, atol=1e-3, rtol=1e-3)


def test_a_dense_network_is_as_large_as_a_mixture_with_its_shared_expert():
    config = replace(CONFIG, shared_expert=True)
    off = replace(config, input_mixture=False, output_mixture=False)
    for stage in (input_stage, output_stage):
        larger = parameter_count(stage(config)) - parameter_count(stage(CONFIG))
        assert larger == 2 * DIM * config.hidden + DIM + config.hidden  # one more expert
        assert abs(parameter_count(stage(off)) - parameter_count(stage(config))) <= DIM + 1
