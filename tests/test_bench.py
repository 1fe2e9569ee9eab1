"""What the speed of normalizing is compared with: FLOPs counted by hand, and figures that fit
together."""

import time

import pytest
import torch

from norface_lib.cli import bench
from norface_lib.networks.classifier import Classifier, ClassifierConfig, parameter_count
from norface_lib.networks.encoder import EncoderConfig, FaceEncoder
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig

SMALL = NormalizerConfig(
    encoder=EncoderConfig(image_size=112, dim=32, depth=1, heads=2, stem=(16, 16)),
    merging_blocks=1,
    widths=(16, 16),
)
DETECTOR = ClassifierConfig(("AU01", "AU02"), encoder=SMALL.encoder, hidden=16)
CPU = torch.device("cpu")


def vit_flops(dim, depth, tokens, patch=16):
    """By hand: two for each multiplication; 12 D^2 per token and block, the two products of
    attention, the patch embedding."""
    return 2 * (depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim) + tokens * 3 * patch**2 * dim)


@pytest.mark.parametrize(("dim", "depth"), [(32, 1), (64, 3)])
def test_flops_are_those_counted_by_hand(dim, depth):
    encoder = FaceEncoder(
        EncoderConfig(dim=dim, depth=depth, heads=2, stem=(), layer_scale=None)
    ).eval()
    assert bench._flops(encoder, torch.rand(1, 3, 112, 112)) == vit_flops(dim, depth, 49)


def test_the_whole_normalizer_costs_more_than_its_encoder_and_less_than_two_passes():
    model = Normalizer(SMALL).eval()
    encoder = bench._flops(model.encoder, torch.rand(1, 3, 112, 112))
    anew = bench._flops(lambda image: model(image, image), torch.rand(1, 3, 112, 112))
    # the target's tokens are there already
    assert encoder < bench._whole_flops(model) < anew - 0.9 * encoder


def test_the_line_of_a_preset():
    figure = bench._preset_figure("small", SMALL, 2, CPU)
    model = Normalizer(SMALL).eval()
    assert figure["parameters"] == sum(p.numel() for p in model.parameters())
    assert figure["gflops_per_image"] == pytest.approx(bench._whole_flops(model) / 1e9, abs=1e-3)
    assert figure["value"] > 0 and figure["latency_ms"] > 0 and figure["peak_memory_mb"] > 100
    assert figure["size"] == 112 and figure["batch"] == 2 and figure["unit"] == "images/s"


def test_the_ratio_is_measured_over_expected_speed(monkeypatch):
    """A ViT of 1,000 images a second leads to expect 1,000 times its FLOPs over those of the
    encoder."""
    speeds = iter([1000.0, 50.0])
    monkeypatch.setattr(bench, "_best_of", lambda run: next(speeds))
    figure = bench._figure_against_vit(SMALL, 2, CPU, depth=2)
    model = Normalizer(SMALL).eval()
    neutral, whole = (
        bench._flops(model.encoder, torch.rand(1, 3, 112, 112)),
        bench._whole_flops(model),
    )
    speed = 1000 * vit_flops(32, 2, 49)
    assert figure["value"] == pytest.approx(50 / (speed / neutral), abs=1e-3)
    assert figure["ratio_by_all_flops"] == pytest.approx(50 / (speed / whole), abs=1e-3)
    assert figure["vit"]["tokens"] == 49 and figure["images_per_s"] == 50


def test_the_ratio_is_measured_on_both_networks():
    figure = bench._figure_against_vit(SMALL, 2, CPU, depth=1)
    assert 0 < figure["value"] < figure["ratio_by_all_flops"]


def test_the_speed_of_matrix_products_counts_all_their_operations(monkeypatch):
    monkeypatch.setattr(bench, "_best_of", lambda run: 10 * run())  # ten passes a second
    assert bench._matrix_speed(32, CPU) == 10 * 2 * 32**3


class Here:
    """Runs in this process what belongs in another."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        self.made = function(*arguments)
        return self

    def result(self):
        return self.made


def test_a_line_for_each_preset_in_a_process_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(bench, "device_of", lambda: CPU)
    monkeypatch.setattr(
        bench,
        "_preset_figure",
        lambda name, config, batch, _: asked.append((name, batch)) or {"preset": name},
    )
    monkeypatch.setattr(
        bench, "_figure_against_vit", lambda config, batch, device: {"batch": batch}
    )
    lines = list(bench.bench_normalize())
    assert [line.get("preset") for line in lines] == ["tiny", "small", "base", None]
    assert asked == [("tiny", 32), ("small", 8), ("base", 2)] and lines[-1]["batch"] == 32


# --- classifier -----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inputs", ["original", "both"])
def test_classifier_and_backbone_are_timed_on_the_same_images(monkeypatch, training, inputs):
    seen, config, embed = (
        [],
        ClassifierConfig(DETECTOR.labels, inputs=inputs, encoder=DETECTOR.encoder, hidden=16),
        Classifier.embed,
    )

    def times(runs, device):
        for run in runs:
            run()
        return bench.Times([0.3, 0.2], [0.5, 0.4])

    monkeypatch.setattr(
        Classifier, "embed", lambda model, images: seen.append(len(images)) or embed(model, images)
    )
    monkeypatch.setattr(bench, "_seconds_in_turns", times)
    figure = bench._against_backbone_figure("small", config, 4, training, CPU)
    images = 8 if inputs == "both" else 4
    assert seen == [images, images]
    assert figure["name"] == ("classify_step" if training else "classify_inference")
    assert figure["value"] == pytest.approx(1.5) and figure[
        "ratio_of_processor_time"
    ] == pytest.approx(1.25)
    assert figure["images_per_s"] == pytest.approx(images / 0.3, abs=1e-3) and figure["batch"] == 4
    model = Classifier(config)
    assert figure["parameters"] == parameter_count(model)
    assert figure["backbone_parameters"] == parameter_count(model) - parameter_count(model.head)


def test_a_step_has_gradients_and_an_inference_has_none():
    model, images = Classifier(DETECTOR), torch.rand(4, 3, 112, 112)
    bench._without_gradient(model, lambda: bench._loss(model(images, images)))
    assert all(parameter.grad is None for parameter in model.parameters())
    bench._step(model, lambda: bench._loss(model(images, images)))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_least_time_counts_and_the_first_turn_does_not(monkeypatch):
    clock, worked = iter([0, 1, 1, 11, 11, 16, 16, 20]), iter([0, 1, 1, 3, 3, 5, 5, 6])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "process_time", lambda: next(worked))
    order = []
    times = bench._seconds_in_turns(
        [lambda: order.append("a"), lambda: order.append("b")], CPU, turns=1
    )
    assert order == ["a", "b", "a", "b"]
    assert times == bench.Times([5, 4], [2, 1])
    assert times.ratio() == 1.25 and times.ratio_of_processor() == 2


@pytest.mark.parametrize(("at", "least"), [("input", 1.8), ("output", 1.0)])
def test_sparse_experts_are_measured_against_all(at, least):
    figure = bench._sparse_figure(at, CPU, count=64, dim=16, hidden=32, experts=4, turns=1)
    assert figure["value"] > 0 and figure["forward"] > 0 and figure["samples"] == 64
    assert least <= figure["ideal"] <= 2


def test_two_of_sixteen_experts_are_faster_than_all():
    figure = bench._sparse_figure("input", CPU, count=512, dim=128, hidden=512, turns=1)
    assert figure["ideal"] == 8 and figure["ratio_of_processor_time"] > 2


def test_the_lines_of_the_classifier(monkeypatch):
    monkeypatch.setattr(bench, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(bench, "device_of", lambda: CPU)
    monkeypatch.setattr(
        bench,
        "_against_backbone_figure",
        lambda name, config, batch, training, _: (name, config.inputs, training),
    )
    monkeypatch.setattr(bench, "_input_figures", lambda batch: [batch])
    monkeypatch.setattr(bench, "_sparse_figure", lambda at, _: at)
    lines = list(bench.bench_classify())
    assert lines == [("tiny", "both", True), ("tiny", "both", False), 64, "input", "output"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_compiled_network_stays_below_the_ceiling():
    figure = bench._compiled_figure(SMALL, 8, torch.device("cuda"), matrix=4096)
    assert 0 < figure["share_of_ceiling"] < 1
