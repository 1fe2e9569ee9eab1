"""What the speed of normalizing is compared with: FLOPs counted by hand, and figures that fit together."""

import pytest
import torch

from norface_lib import bench
from norface_lib.encoder import EncoderConfig, FaceEncoder
from norface_lib.normalizer import Normalizer, NormalizerConfig

SMALL = NormalizerConfig(EncoderConfig(image_size=112, dim=32, depth=1, heads=2, stem=(16, 16)), 1, (16, 16))
CPU = torch.device("cpu")


def vit_flops(dim, depth, tokens, patch=16):
    """By hand: two for each multiplication; 12 D^2 per token and block, the two products of attention, the patch embedding."""
    return 2 * (depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim) + tokens * 3 * patch**2 * dim)


@pytest.mark.parametrize(("dim", "depth"), [(32, 1), (64, 3)])
def test_flops_are_those_counted_by_hand(dim, depth):
    encoder = FaceEncoder(EncoderConfig(dim=dim, depth=depth, heads=2, stem=(), layer_scale=None)).eval()
    assert bench._flops(encoder, torch.rand(1, 3, 112, 112)) == vit_flops(dim, depth, 49)


def test_the_whole_normalizer_costs_more_than_its_encoder_and_less_than_two_passes():
    model = Normalizer(SMALL).eval()
    encoder = bench._flops(model.encoder, torch.rand(1, 3, 112, 112))
    anew = bench._flops(lambda image: model(image, image), torch.rand(1, 3, 112, 112))
    assert encoder < bench._whole_flops(model) < anew - 0.9 * encoder  # the target's tokens are there already


def test_the_line_of_a_preset():
    figure = bench._preset_figure("small", SMALL, 2, CPU)
    model = Normalizer(SMALL).eval()
    assert figure["parameters"] == sum(p.numel() for p in model.parameters())
    assert figure["gflops_per_image"] == pytest.approx(bench._whole_flops(model) / 1e9, abs=1e-3)
    assert figure["value"] > 0 and figure["latency_ms"] > 0 and figure["peak_memory_mb"] > 100
    assert figure["size"] == 112 and figure["batch"] == 2 and figure["unit"] == "images/s"


def test_the_ratio_is_measured_over_expected_speed(monkeypatch):
    """A ViT of 1,000 images a second leads to expect 1,000 times its FLOPs over those of the encoder."""
    speeds = iter([1000.0, 50.0])
    monkeypatch.setattr(bench, "_best_of", lambda run: next(speeds))
    figure = bench._figure_against_vit(SMALL, 2, CPU, depth=2)
    model = Normalizer(SMALL).eval()
    bare, whole = bench._flops(model.encoder, torch.rand(1, 3, 112, 112)), bench._whole_flops(model)
    speed = 1000 * vit_flops(32, 2, 49)
    assert figure["value"] == pytest.approx(50 / (speed / bare), abs=1e-3)
    assert figure["ratio_by_all_flops"] == pytest.approx(50 / (speed / whole), abs=1e-3)
    assert figure["vit"]["tokens"] == 49 and figure["images_per_s"] == 50


def test_the_ratio_is_measured_on_both_networks():
    figure = bench._figure_against_vit(SMALL, 2, CPU, depth=1)
    assert 0 < figure["value"] < figure["ratio_by_all_flops"]


def test_the_speed_of_matrix_products_counts_all_their_operations(monkeypatch):
    monkeypatch.setattr(bench, "_best_of", lambda run: 10 * run())  # ten passes a second
    assert bench._matrix_speed(32, CPU) == 10 * 2 * 32**3


def test_a_line_for_each_preset_in_a_process_of_its_own(monkeypatch):
    asked = []

    class Here:
        """Runs in this process what belongs in another."""

        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, name, config, batch, device):
            asked.append((name, batch))
            return self

        def result(self):
            return {"preset": asked[-1][0]}

    monkeypatch.setattr(bench, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(bench, "device_of", lambda: CPU)
    monkeypatch.setattr(bench, "_figure_against_vit", lambda config, batch, device: {"batch": batch})
    lines = list(bench.bench_normalize())
    assert [line.get("preset") for line in lines] == ["tiny", "small", "base", None]
    assert asked == [("tiny", 32), ("small", 8), ("base", 2)] and lines[-1]["batch"] == 32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_compiled_network_stays_below_the_ceiling():
    figure = bench._compiled_figure(SMALL, 8, torch.device("cuda"), matrix=4096)
    assert 0 < figure["share_of_ceiling"] < 1
