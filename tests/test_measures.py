"""Measures of a normalizer on images whose values are known, and the command that takes all."""

import json
import shutil
from copy import copy
from dataclasses import asdict
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.common.paths import cache
from norface_lib.datasets.rendered import Rendered
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.evaluator import Evaluator, EvaluatorConfig, EvaluatorOutput
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.weights import save_evaluator, save_normalizer
from norface_lib.studies import normalizer_measures
from norface_lib.studies.image_measures import image_measures, moving_ratio, psnr, ssim
from norface_lib.studies.leakage_probes import (
    Probes,
    identity_leakage,
    nuisance_leakage,
    nuisance_of,
)
from norface_lib.studies.normalizer_measures import (
    as_text,
    evaluate_normalizer,
    evaluator_measures,
)
from norface_lib.studies.stability import CHANGES, render_scenes, sample_scenes, spread_ratio

PROBES = Probes(side=8, components=16, hidden=32)


def noise(count, size=32, seed=0):
    return np.random.default_rng(seed).integers(40, 160, (count, size, size, 3), np.uint8)


# --- distance to the true image -------------------------------------------------------------------


def test_psnr_by_hand():
    faces = noise(2)
    assert psnr(faces + np.uint8(10), faces) == pytest.approx(10 * np.log10(255**2 / 100))
    assert psnr(faces, faces) == pytest.approx(10 * np.log10(255**2 * 12))


def test_ssim_by_hand():
    dark, light = (np.full((1, 32, 32, 3), value, np.uint8) for value in (60, 180))
    c1 = (0.01 * 255) ** 2
    # nothing but luminance differs
    assert ssim(dark, light) == pytest.approx((2 * 60 * 180 + c1) / (60**2 + 180**2 + c1))
    assert ssim(noise(1), noise(1)) == pytest.approx(1.0)
    assert ssim(noise(1), noise(1, seed=1))[0] < 0.2


def test_ssim_is_that_of_gaussian_windows_within_the_image():
    """The formula of Wang et al. (2004) by channel, means over windows of 11 x 11 px."""
    x, y = noise(1)[0].astype(float), noise(1)[0].astype(float) // 2 + noise(1, seed=1)[0] // 2

    def mean(values):
        return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean(x) * mean(y) + c1) / (mean(x) ** 2 + mean(y) ** 2 + c1)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    contrast = (2 * (mean(x * y) - mean(x) * mean(y)) + c2) / (variances + c2)
    value = ssim(x.astype(np.uint8)[None], y.astype(np.uint8)[None])[0]
    assert value == pytest.approx((luminance * contrast).mean(), abs=1e-6)


def test_perfect_images_have_ratio_0_and_the_neutral_target_1():
    truths, target = noise(6, 40), noise(1, 40, seed=1)[0]
    perfect = image_measures(truths, truths, target)
    neutral = image_measures(truths, np.broadcast_to(target, truths.shape), target)
    ratios = [name for name in perfect if name.endswith("_ratio")]
    assert {"distance_ratio", "moving_ratio", "ssim_ratio", "mouth_ratio"} <= set(ratios)
    assert [perfect[name] for name in ratios] == pytest.approx([0] * len(ratios))
    assert [neutral[name] for name in ratios] == pytest.approx([1] * len(ratios))
    assert (
        perfect["normalized"]["ssim"] == pytest.approx(1)
        and neutral["normalized"] == neutral["target"]
    )
    assert neutral["normalized"]["l1"] == pytest.approx(
        np.abs(truths.astype(float) - target).mean() / 255
    )


def test_only_the_tenth_that_moves_counts_as_moving():
    target = np.full((40, 40, 3), 100, np.uint8)
    truths, drawn = np.repeat(target[None], 3, 0), np.repeat(target[None], 3, 0)
    truths[:, :4] = 180  # a tenth of the rows
    drawn[:, :4], drawn[:, 4:] = 160, 30
    assert moving_ratio(truths, drawn, target) == pytest.approx(20 / 80)


# --- expression -----------------------------------------------------------------------------------


class BrightnessEvaluator(nn.Module):
    """Predicts AU12 in a bright face, as strong as it is bright."""

    def __init__(self):
        super().__init__()
        self.config = EvaluatorConfig(aus=(12,), image_size=32)
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, images):
        light = images.mean((1, 2, 3))[:, None]
        return EvaluatorOutput((light - 0.5) * 100, light * self.scale, torch.zeros(len(images), 8))


@pytest.fixture(scope="module")
def smiles():
    """Forty faces of ten people on a dark target: true images are white where AU12 shows, originals
    are noise."""
    rng = np.random.default_rng(0)
    shown, subjects = rng.integers(0, 2, 40), np.repeat([f"lab{k:04d}" for k in range(10)], 4)
    table = pd.DataFrame(
        {"subject": subjects, "AU12": 5.0 * shown, "emotion": "", "yaw": rng.normal(0, 0.2, 40)}
    )
    table = table.assign(
        pitch=rng.normal(0, 0.1, 40), light_x=0.1, light_y=0.2, light_z=rng.normal(0, 1, 40)
    )
    truths = np.broadcast_to((255 * shown).astype(np.uint8)[:, None, None, None], (40, 32, 32, 3))
    return Rendered.from_arrays(
        table, originals=noise(40), truths=truths, targets=np.zeros((1, 32, 32, 3), np.uint8)
    )


def test_the_evaluator_finds_everything_in_perfect_images_and_nothing_in_the_neutral_target(smiles):
    evaluator, neutral = BrightnessEvaluator(), np.broadcast_to(smiles.target, smiles.truths.shape)
    perfect, nothing = (
        evaluator_measures(evaluator, smiles, smiles.truths),
        evaluator_measures(evaluator, smiles, neutral),
    )
    assert perfect["f1_ratio"] == 1 and perfect["normalized"] == perfect["truth"]
    assert perfect["truth"]["f1"] == 1 and perfect["truth"]["intensity_error"] == pytest.approx(
        0, abs=1e-5
    )
    assert nothing["f1_ratio"] == 0 and nothing["normalized"] == nothing["target"]
    assert nothing["target"]["intensity_error"] == pytest.approx(smiles.table["AU12"].mean())
    assert perfect["normalized"]["f1_per_au"] == {"AU12": 1.0}


# --- what should be gone --------------------------------------------------------------------------


def test_probes_find_the_person_whom_colors_tell_and_nobody_in_noise():
    subjects, colors = (
        np.repeat([f"S{k}" for k in range(8)], 24),
        np.random.default_rng(6).integers(0, 200, (8, 3), np.uint8),
    )
    telling = noise(192, 16, seed=2) // 4 + np.repeat(colors, 24, axis=0)[:, None, None]
    found = identity_leakage({"original": telling, "normalized": noise(192, 16)}, subjects, PROBES)
    assert found["chance"] == 1 / 8
    for kind in ("linear", "nonlinear"):
        assert found["original"][kind] > 0.9
        assert found["normalized"][kind] < 0.3
        assert found["original"][f"{kind}_times_chance"] == pytest.approx(
            8 * found["original"][kind]
        )


def test_faces_that_are_all_one_tell_nothing():
    subjects, one = (
        np.repeat([f"S{k}" for k in range(8)], 4),
        {"collapsed": np.repeat(noise(1), 32, axis=0)},
    )
    found = identity_leakage(one, subjects)["collapsed"]
    assert found["linear"] == found["nonlinear"] == 1 / 8 and found["linear_times_chance"] == 1
    yaw = np.random.default_rng(0).normal(0, 0.2, (32, 1))
    told = nuisance_leakage(one, yaw, ("yaw",), subjects)["collapsed"]
    assert told["linear"]["yaw"] == pytest.approx(0) and told["nonlinear"]["mean"] == pytest.approx(
        0
    )


def test_a_probe_for_identity_is_tested_on_faces_it_has_not_seen():
    """Each face is unlike any other, so that a probe can know those of its training by heart, and
    these alone."""
    subjects = np.repeat(["A", "B"], 40)
    assert identity_leakage({"x": noise(80, seed=3)}, subjects, PROBES)["x"]["linear"] < 0.75
    with pytest.raises(ValueError, match="two faces of every subject"):
        identity_leakage({"x": noise(3)}, np.array(["A", "A", "B"]), PROBES)


@pytest.fixture(scope="module")
def turned():
    """Two hundred faces of twenty people, as bright as yaw; pitch is how far yaw is from 0, light_x
    is told by nothing."""
    rng = np.random.default_rng(4)
    yaw = rng.uniform(-1, 1, 200)
    faces = np.clip(
        128 + 100 * yaw[:, None, None, None] + rng.normal(0, 4, (200, 16, 16, 3)), 0, 255
    ).astype(np.uint8)
    return (
        faces,
        np.column_stack([yaw, np.abs(yaw), rng.normal(size=200)]),
        np.repeat(np.arange(20), 10).astype(str),
    )


def test_probes_read_the_pose_that_brightness_tells(turned):
    faces, nuisance, subjects = turned
    names = ("yaw", "pitch", "light_x")
    found = nuisance_leakage(
        {"original": faces, "normalized": noise(200)}, nuisance, names, subjects, PROBES
    )
    linear, network = found["original"]["linear"], found["original"]["nonlinear"]
    assert linear["yaw"] > 0.95 and network["yaw"] > 0.5
    assert linear["pitch"] < 0.2 < network["pitch"]  # no straight line tells it
    assert linear["light_x"] < 0.1
    assert linear["mean"] == pytest.approx(np.mean([linear[name] for name in names]))
    assert found["normalized"]["linear"]["yaw"] < 0.1


def test_a_probe_for_nuisance_is_tested_on_people_it_has_not_seen():
    """Each person has one yaw and one brightness, in no order: known people would be read, new ones
    cannot be."""
    yaw = np.random.default_rng(5).permutation(np.linspace(-1, 1, 20))
    faces = noise(100) // 8 + np.repeat(np.arange(20) * 12, 5).astype(np.uint8)[:, None, None, None]
    subjects = np.repeat(np.arange(20), 5).astype(str)
    nuisance = np.column_stack([np.repeat(yaw, 5), np.random.default_rng(6).normal(size=100)])
    found = nuisance_leakage({"x": faces}, nuisance, ("yaw", "pitch"), subjects, PROBES)
    assert found["x"]["linear"]["yaw"] < 0.3
    # folds of unlike size, and more components than the smallest has rows
    few = np.repeat(np.arange(5), 20).astype(str)
    assert (
        nuisance_leakage({"x": faces}, nuisance, ("yaw", "pitch"), few, Probes(side=8))["x"][
            "linear"
        ]["pitch"]
        < 0.3
    )


def test_the_background_is_read_at_the_sides(smiles):
    originals = smiles.originals.copy()
    originals[:, :16, :1], originals[:, :16, -1:] = (10, 20, 30), (30, 40, 50)
    changed = copy(smiles)
    changed.originals = originals
    values, names = nuisance_of(changed)
    assert values[:, 5:] == pytest.approx(np.broadcast_to([20.0, 30.0, 40.0], (40, 3)))
    assert names[0] == "yaw" and values[:, 0] == pytest.approx(smiles.table["yaw"].to_numpy())


# --- what should stay the same --------------------------------------------------------------------


def test_spread_is_that_over_scenes_relative_to_that_over_expressions():
    step = np.array([0, 60, 120], np.uint8)[:, None, None, None]
    by_expression = np.broadcast_to(step[:, None], (3, 3, 8, 8, 3))
    assert spread_ratio(by_expression) == 0
    assert spread_ratio(by_expression.swapaxes(0, 1)) is None
    assert spread_ratio(by_expression + by_expression.swapaxes(0, 1) // 2) == pytest.approx(0.5)


def test_a_scene_changes_one_thing_at_a_time(studio):
    scenes = sample_scenes("lab", 2)
    first = render_scenes(studio, scenes[:1], 2)
    assert first.shape == (2, 1, 112, 112, 3) and np.abs(first[0].astype(int) - first[1]).max() > 20
    assert np.array_equal(first, render_scenes(studio, scenes[:1], 2))
    for kind, change in CHANGES.items():
        changed, same = change(*scenes), change(scenes[0], scenes[0])
        differing = {
            "people": changed.person is not scenes[0].person,
            "pose": changed.frame.camera != scenes[0].frame.camera,
            "light": changed.frame.light is not scenes[0].frame.light,
            "background": changed.seed != scenes[0].seed,
        }
        assert same.person is scenes[0].person and same.seed == scenes[0].seed
        assert [name for name, differs in differing.items() if differs] == (
            [kind] if kind in differing else list(differing)
        )


# --- all of it ------------------------------------------------------------------------------------


@pytest.fixture
def saved(tiny_benchmark, tmp_path, monkeypatch):
    """Weights of a small normalizer and of a small evaluator, both untrained, and a folder of its
    own for what is rendered."""
    monkeypatch.setenv("NORFACE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        normalizer_measures,
        "spread_measures",
        partial(normalizer_measures.spread_measures, expressions=2, scenes=2),
    )
    torch.manual_seed(0)
    normalizer = Normalizer(
        NormalizerConfig(
            encoder=EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16)),
            merging_blocks=1,
            widths=(16, 16),
        )
    )
    evaluator = Evaluator(EvaluatorConfig(widths=(8, 8, 16, 16), hidden=16))
    card = {"data": {"target": "noor"}, "license": "MIT"}
    return (
        save_normalizer(
            normalizer.eval(), tiny_benchmark / "target.png", tmp_path / "mine.safetensors", card
        ),
        save_evaluator(evaluator.eval(), tmp_path / "reader.safetensors", card),
    )


def test_the_command_prints_json_alone_or_a_table(saved, tiny_spec, tiny_benchmark):
    # as if an earlier call had rendered it
    shutil.copytree(tiny_benchmark, cache("evaluate", **asdict(tiny_spec)))
    weights = ["--weights", str(saved[0]), "--evaluator", str(saved[1])]
    done = CliRunner().invoke(
        app, ["evaluate", "normalizer", *weights, "--subjects", "4", "--frames", "3", "--json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found["result"]) == ["images", "evaluator", "identity", "nuisance", "spread"]
    # untrained: the target itself
    assert found["result"]["images"]["distance_ratio"] == pytest.approx(1, abs=0.02)
    assert found["result"]["spread"]["all"]["normalized"] is None  # it moves nothing
    assert (
        found["counts"] == {"subjects": 4, "faces": 12}
        and found["settings"]["benchmark"]["pool"] == "lab"
    )
    assert {"seed", "seconds", "machine", "versions"} <= found.keys()
    lines = {
        line.split()[0]: line.split()[1:] for line in as_text(found).splitlines() if line.strip()
    }
    assert lines["psnr"] == [
        f"{found['result']['images'][name]['psnr']:.3f}" for name in ("normalized", "target")
    ]
    assert lines["distance_ratio"] == ["1.000"] and lines["people"][1:] == []
    assert "12 faces of 4 people" in as_text(found)


def test_what_cannot_be_measured_is_said(saved, monkeypatch):
    with pytest.raises(DataError, match="no domain 'pretrain'; there are lab, wild"):
        evaluate_normalizer(saved[0], domain="pretrain", evaluator=saved[1])
    with pytest.raises(DataError, match="needed are 4 and 2"):
        evaluate_normalizer(saved[0], subjects=3, evaluator=saved[1])
    with pytest.raises(CheckpointError, match="no weights 'nobody'"):
        evaluate_normalizer("nobody")
    with pytest.raises(CheckpointError, match="of kind evaluator, not of kind normalizer"):
        evaluate_normalizer(saved[1], evaluator=saved[1])
    monkeypatch.setattr("sys.argv", ["norface", "evaluate", "normalizer", "--weights", "nobody"])
    from norface_lib.cli.app import main

    assert main() == 1
