"""Measurements of speed: FLOPs against a count by hand, figures that fit together, and the work of
sparse experts."""

import pytest
import torch

from norface_lib.cli import bench
from norface_lib.cli.bench.classifier import (
    dense_sum,
    figure_against_backbone,
    inference,
    input_figures,
    loss_of,
    sparse_figure,
    training_step,
)
from norface_lib.cli.bench.loader import bench_loader
from norface_lib.cli.bench.measuring import best_rate, in_own_process, seconds_in_turns
from norface_lib.cli.bench.normalizer import (
    BATCHES,
    compiled_figure,
    figure_against_vit,
    flops_of_normalizer,
    preset_figure,
)
from norface_lib.cli.options import Stage
from norface_lib.networks.classifier import Classifier, ClassifierConfig, parameter_count
from norface_lib.networks.encoder import EncoderConfig, FaceEncoder
from norface_lib.networks.flops import flops_of
from norface_lib.networks.mixtures import MixtureOfExperts, sparse_sum
from norface_lib.networks.normalizer import PRESETS, Normalizer, NormalizerConfig

SMALL = NormalizerConfig(
    encoder=EncoderConfig(image_size=112, dim=32, depth=1, heads=2, stem=(16, 16)),
    merging_blocks=1,
    widths=(16, 16),
)
DETECTOR = ClassifierConfig(("AU01", "AU02"), encoder=SMALL.encoder, hidden=16)
CPU = torch.device("cpu")
IMAGE = torch.rand(1, 3, 112, 112)


def vit_flops(dim, depth, tokens, patch=16):
    """By hand: two for each multiplication; 12 D^2 per token and block, the two products of
    attention, the patch embedding."""
    return 2 * (depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim) + tokens * 3 * patch**2 * dim)


# --- ways of measuring ----------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "depth"), [(32, 1), (64, 3)])
def test_flops_are_those_counted_by_hand(dim, depth):
    encoder = FaceEncoder(
        EncoderConfig(dim=dim, depth=depth, heads=2, stem=(), layer_scale=None)
    ).eval()
    assert flops_of(encoder, IMAGE) == vit_flops(dim, depth, 49)


class Clock:
    """A clock that each run moves on by its own number of seconds."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)
        monkeypatch.setattr("time.process_time", lambda: self.now / 4)

    def run(self, *seconds):
        """A run that takes some seconds at its first call, others at the next..."""
        remaining = iter(seconds)

        def run():
            self.now += next(remaining)
            return 12

        return run


def test_the_best_rate_leaves_the_first_run_out(monkeypatch):
    assert best_rate(Clock(monkeypatch).run(1, 6, 3, 4)) == 4


def test_runs_take_turns_and_the_least_time_after_the_first_turn_counts(monkeypatch):
    clock = Clock(monkeypatch)
    a, b = seconds_in_turns([clock.run(1, 20, 12), clock.run(1, 4, 8)], CPU, turns=2)
    assert (a.clock, a.processor) == (12, 3)
    assert (b.clock, b.processor) == (4, 1)


def pretended_figure(value):
    return {"process": torch.initial_seed(), "value": value}


@pytest.mark.slow
def test_a_process_of_its_own_returns_the_figure():
    torch.manual_seed(12345)
    figure = in_own_process(pretended_figure, value=3)
    assert figure["value"] == 3 and figure["process"] != 12345


def test_each_figure_comes_with_machine_and_versions(monkeypatch):
    monkeypatch.setattr(
        "norface_lib.cli.bench.photographs.bench_align", lambda: [{"name": "align"}] * 2
    )
    lines = list(bench.run([Stage.ALIGN]))
    assert [line["name"] for line in lines] == ["align", "align"]
    assert {"machine", "versions"} <= lines[0].keys()


# --- normalizer -----------------------------------------------------------------------------------


def test_the_whole_normalizer_costs_more_than_its_encoder_and_less_than_two_passes():
    model = Normalizer(SMALL).eval()
    encoder = flops_of(model.encoder, IMAGE)
    with_target = flops_of(lambda image: model(image, image), IMAGE)
    # the target's tokens are there already
    assert encoder < flops_of_normalizer(model) < with_target - 0.9 * encoder


def test_the_figure_of_a_preset():
    figure = preset_figure("small", SMALL, batch=2, device=CPU)
    model = Normalizer(SMALL).eval()
    assert figure["parameters"] == parameter_count(model)
    assert figure["gflops_per_image"] == pytest.approx(flops_of_normalizer(model) / 1e9, abs=1e-3)
    assert figure["value"] > 0 and figure["latency_ms"] > 0 and figure["peak_memory_mb"] > 100
    assert figure["size"] == 112 and figure["batch"] == 2 and figure["unit"] == "images/s"


def test_the_speed_of_the_normalizer_is_over_that_of_a_vit():
    """A ViT of V FLOP/s leads to expect V over the encoder's FLOPs images a second."""
    figure = figure_against_vit(SMALL, batch=2, device=CPU, depth=2)
    model = Normalizer(SMALL).eval()
    vit_speed = 1e9 * figure["vit"]["gflops_per_s"]
    rate = figure["images_per_s"]
    assert figure["value"] == pytest.approx(
        rate * flops_of(model.encoder, IMAGE) / vit_speed, rel=0.02, abs=1e-3
    )
    assert figure["ratio_by_all_flops"] == pytest.approx(
        rate * flops_of_normalizer(model) / vit_speed, rel=0.02, abs=1e-3
    )
    assert figure["vit"]["tokens"] == 49 and figure["vit"]["depth"] == 2


def test_every_preset_has_a_batch_size():
    assert BATCHES.keys() == PRESETS.keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_compiled_network_stays_below_the_ceiling():
    figure = compiled_figure(SMALL, batch=8, device=torch.device("cuda"), matrix=4096)
    assert 0 < figure["share_of_ceiling"] < 1


# --- classifier -----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inputs", ["original", "both"])
def test_classifier_and_backbone_are_timed_on_the_same_images(training, inputs):
    config = ClassifierConfig(DETECTOR.labels, inputs=inputs, encoder=DETECTOR.encoder, hidden=16)
    figure = figure_against_backbone(
        "small", config, batch=4, training=training, device=CPU, turns=1
    )
    images = 8 if inputs == "both" else 4
    assert figure["name"] == ("classify_step" if training else "classify_inference")
    assert figure["images_per_s"] == pytest.approx(1000 * images / figure["ms"], rel=0.01)
    assert figure["value"] == pytest.approx(figure["ms"] / figure["backbone_ms"], rel=0.02)
    model = Classifier(config)
    assert figure["parameters"] == parameter_count(model)
    assert figure["backbone_parameters"] == parameter_count(model) - parameter_count(model.head)


def test_a_step_has_gradients_and_an_inference_has_none():
    model = Classifier(DETECTOR)
    images = torch.rand(4, 3, 112, 112)
    inference(model, lambda: loss_of(model(images, images)))
    assert all(parameter.grad is None for parameter in model.parameters())
    training_step(model, lambda: loss_of(model(images, images)))
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_both_inputs_are_compared_with_one():
    one, both = input_figures(2)
    assert one["inputs"] == "original" and "ratio" not in one
    assert both["ratio"] == pytest.approx(both["value"] / one["value"], abs=0.01)


@pytest.mark.parametrize(("at", "least"), [("input", 1.8), ("output", 1.0)])
def test_sparse_experts_are_measured_against_all(at, least):
    figure = sparse_figure(at, CPU, count=64, dim=16, hidden=32, experts=4, turns=1)
    assert figure["value"] == pytest.approx(figure["dense_ms"] / figure["ms"], rel=0.1)
    assert figure["forward"] > 0 and figure["samples"] == 64
    assert least <= figure["ideal"] <= 2


def test_two_of_sixteen_experts_compute_an_eighth_of_the_rows():
    mixture = MixtureOfExperts(16, 32, 16).eval()
    torch.nn.init.normal_(mixture.gate.clean.weight)
    rows = []
    for expert in mixture.experts:
        expert.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    x = torch.randn(64, 16)
    gates = mixture.gate(x).gates[:, None]

    sparse_sum(mixture.experts, x, gates)
    assert rows == (gates[:, 0] != 0).sum(dim=0).tolist() and sum(rows) == 2 * 64

    rows.clear()
    dense_sum(mixture.experts, x, gates)
    assert rows == [64] * 16


# --- reading and writing --------------------------------------------------------------------------


def test_pairs_and_frames_are_counted_for_each_number_of_workers():
    figures = list(bench_loader(pairs=12, frames=3, batch=4, workers=(0,)))
    assert [figure["name"] for figure in figures] == ["loader", "frames"]
    assert all(figure["workers"] == 0 and figure["value"] > 0 for figure in figures)
    assert figures[0]["own_ms_per_batch"] >= 0 and figures[1]["own_ms_per_frame"] >= 0
