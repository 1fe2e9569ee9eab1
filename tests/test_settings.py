"""Settings of a training: what each changes, what is refused, what is told of a run."""

import json
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

from norface_lib.cli import checks
from norface_lib.cli.app import app
from norface_lib.cli.training_settings import OPTIONS, Fusion
from norface_lib.common.errors import DataError
from norface_lib.datasets import DATASETS, base
from norface_lib.datasets.manifest import read_manifest
from norface_lib.datasets.normalized import load_pairs, normalize_dataset
from norface_lib.datasets.options import loader_options, read_options
from norface_lib.datasets.rendered import Rendered
from norface_lib.datasets.write_as import CLEAN, write_as
from norface_lib.images.crop import ALIGNED, NORFACE_CROP, POINT_COLUMNS
from norface_lib.networks.classifier import FUSIONS, ClassifierConfig
from norface_lib.networks.normalizer import Normalizer
from norface_lib.studies.experiment import Experiment
from norface_lib.studies.recipes import BACKBONES, recipe_for
from norface_lib.studies.settings import (
    BASE_RATES,
    OF_BACKBONE,
    TrainingSettings,
    paper_settings,
)
from norface_lib.studies.text_table import FORMATS
from norface_lib.tasks.tasks import Detection
from norface_lib.training.classifier import Recipe
from norface_lib.training.loop import TrainConfig, fit

OTHER = {
    "steps": 7,
    "epochs": 1.5,
    "batch_size": 32,
    "accumulate": 3,
    "lr": 0.125,
    "base_lr": 0.25,
    "layer_decay": 0.5,
    "drop_path": 0.25,
    "warmup": 0.375,
    "weight_decay": 0.0625,
    "experts": 8,
    "top_k": 3,
    "input_mixture": False,
    "output_mixture": False,
    "fusion": "gated",
    "hidden": 48,
    "dropout": 0.3125,
    "importance": 0.0,
    "load": 0.5,
    "routing": "bias",
    "shared_expert": True,
    "compile": True,
    "amp": False,
    "watch": True,
}
"""Another value of each setting than any recipe has."""


def plain(backbone="tuned"):
    return recipe_for(Detection(("AU12",)), Normalizer(), backbone)


def flat(recipe):
    parts = (recipe, recipe.training, recipe.config)
    return {field.name: getattr(part, field.name) for part in parts for field in fields(part)}


def test_no_setting_leaves_every_recipe_as_it_is():
    for backbone in (name.replace("NAME", "resnet18") for name in BACKBONES):
        assert TrainingSettings().applied_to(plain(backbone)) == plain(backbone)


def test_each_setting_changes_what_it_names_and_nothing_else():
    assert set(OTHER) == {field.name for field in fields(TrainingSettings)}
    renamed = {"lr": "learning_rate", "drop_path": "drop_path_rate", "base_lr": "learning_rate"}
    before = flat(plain())
    for name, value in OTHER.items():
        after = flat(TrainingSettings(**{name: value}).applied_to(plain()))
        changed = {key for key in before if before[key] != after[key]} - {"config", "training"}
        rate = {"learning_rate"} if name in ("batch_size", "accumulate") else set()
        assert changed == {renamed.get(name, name)} | rate, name
        if name != "base_lr":
            assert after[renamed.get(name, name)] == value


def test_a_base_rate_goes_with_the_effective_batch():
    settings = TrainingSettings(base_lr=1e-3, batch_size=32, accumulate=4)
    training = settings.applied_to(plain()).training
    assert training.effective_batch == 128
    assert training.learning_rate == pytest.approx(1e-3 * 128 / 256)
    # without a rate, that of the recipe: base 1e-3 for a backbone that is tuned
    doubled = TrainingSettings(batch_size=128).applied_to(plain()).training
    assert doubled.learning_rate == pytest.approx(2 * plain().training.learning_rate)


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (2, 1), (4, 4), (8, 2)])
def test_mixtures_of_any_size(experts, top_k):
    config = TrainingSettings(experts=experts, top_k=top_k).applied_to(plain()).config
    assert (config.experts, config.top_k) == (experts, top_k)
    alone = TrainingSettings(experts=experts).applied_to(plain()).config
    assert alone.top_k == min(ClassifierConfig.top_k, experts)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 3, "epochs": 1}, "give steps or epochs, not both"),
        ({"lr": 0.1, "base_lr": 0.1}, "give lr or base_lr, not both"),
        ({"steps": 0}, r"steps must be within \[1, 100000000\], got 0"),
        ({"epochs": 0}, r"epochs must be within \(0, "),
        ({"epochs": float("nan")}, "epochs must be within"),
        ({"epochs": True}, "epochs must be a number, got True"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, got 2.5"),
        ({"layer_decay": 1.5}, r"layer_decay must be within \(0, 1\]"),
        ({"drop_path": 1.0}, r"drop_path must be within \[0, 1\)"),
        ({"importance": -1.0}, "importance must be within"),
        ({"experts": 2, "top_k": 3}, r"top_k must be within 1..2"),
        ({"top_k": 5}, r"top_k must be within 1..4"),
        ({"fusion": "product"}, "fusion must be one of concat, sum, gated"),
        ({"routing": "chance"}, "routing must be one of noisy, bias, expert-choice"),
        ({"compile": 1}, "compile must be true or false"),
    ],
)
def test_impossible_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        TrainingSettings(**wrong)


def test_the_later_settings_win_and_replace_what_they_exclude():
    paper = paper_settings("emotion")
    assert (
        paper.epochs == 40
        and paper.base_lr == 2e-5
        and set(BASE_RATES.values())
        == {
            1e-4,
            1e-3,
            2e-5,
        }
    )
    changed = paper.changed_by(TrainingSettings(steps=5, lr=0.1, experts=2, load=0.0))
    assert (changed.steps, changed.epochs, changed.lr, changed.base_lr) == (5, None, 0.1, None)
    assert (changed.experts, changed.top_k, changed.load, changed.importance) == (2, 2, 0.0, 1e-3)
    assert paper.changed_by(TrainingSettings()) == paper


def test_settings_come_from_a_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 40\nbase_lr: 1e-4  # a text, in YAML\nfusion: gated\namp: false\n")
    expected = TrainingSettings(epochs=40, base_lr=1e-4, fusion="gated", amp=False)
    assert TrainingSettings.from_file(file) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 40", "no setting epoch; there are steps, epochs, batch_size"),
        ("epochs: many", "epochs must be a number, got 'many'"),
        ("steps: 3\nepochs: 2", "give steps or epochs, not both"),
        ("epochs", "must hold settings of a training"),
        ("a: [", "no readable YAML file"),
        ("3: 4", "no setting 3"),
    ],
)
def test_a_wrong_file_is_refused_by_its_name(text, words, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=words) as refused:
        TrainingSettings.from_file(file)
    assert str(refused.value).startswith(str(file)) and "\n" not in str(refused.value)
    with pytest.raises(DataError, match="no readable YAML file"):
        TrainingSettings.from_file(tmp_path / "gone.yaml")


def test_an_experiment_refuses_settings_that_do_not_fit_it(tmp_path):
    plain = {"task": "au_detection", "data": "disfa", "root": tmp_path}
    for settings, words in (
        ({"steps": 3, "training": TrainingSettings(epochs=1)}, "length of a training once"),
        ({"training": TrainingSettings(layer_decay=0.7)}, "layer_decay: a frozen backbone has"),
        (
            {"training": TrainingSettings(input_mixture=False), "rows": ("both, no mixture",)},
            "input_mixture is what the row 'both, no mixture' decides",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            Experiment(**plain | settings)
    assert all(name in OTHER for name in OF_BACKBONE)


def test_a_row_is_trained_with_its_settings_and_says_so(tiny_benchmark, tmp_path):
    settings = TrainingSettings(epochs=2, batch_size=3, experts=3, top_k=1, importance=0, load=0.5)
    experiment = Experiment(
        task="au_detection",
        data="rendered",
        root=tiny_benchmark,
        protocol="rendered/2fold-seed0",
        rows=("both", "both, no mixture"),
        training=settings,
    )
    result = experiment.run(tmp_path, progress=False)
    row = result.rows["both"]
    assert (row.recipe.importance, row.recipe.load) == (0, 0.5)
    assert len(row.models[0].head.input_stage.experts) == 3
    assert row.models[0].head.input_stage.gate.top_k == 1
    content = json.loads(result.path.read_text())
    assert content["settings"]["experiment"]["training"]["experts"] == 3
    expected = [row.recipe.extent(len(train)) for train, _ in row.folds]
    assert content["result"]["rows"]["both"]["trained"] == expected
    assert all(told["epochs"] == pytest.approx(2) for told in expected)
    for number, (train, _) in enumerate(row.folds):
        log = (tmp_path / "au_detection" / "training").glob(f"both-*/*fold{number + 1}.jsonl")
        steps = [json.loads(path.read_text().splitlines()[-1])["step"] for path in log]
        assert set(steps) == {2 * (len(train) // 3)}
    assert "trained for 2 epochs of the training rows: " in result.report()
    assert "steps of 3 samples" in result.report()


# --- epochs, batches ------------------------------------------------------------------------------


def recipe(epochs=None, watch_every=250, **training):
    training = TrainConfig(**{"steps": 10, "batch_size": 8} | training, watch_every=watch_every)
    return Recipe(config=ClassifierConfig(("AU12",)), training=training, epochs=epochs)


def test_epochs_are_steps_of_each_fold():
    assert recipe(epochs=3).training_on(80).steps == 30
    assert recipe(epochs=3).training_on(87).steps == 30  # what does not fill a batch is left out
    assert recipe(epochs=0.5).training_on(80).steps == 5
    assert recipe(epochs=3, accumulate=2).training_on(80).steps == 15
    assert recipe(epochs=2).training_on(5).steps == 2
    assert recipe().training_on(80).steps == 10


def test_tested_rows_are_looked_at_once_an_epoch_at_most():
    assert recipe(watch_every=3).training_on(80).watch_every == 10
    assert recipe(watch_every=250).training_on(80).watch_every == 250
    assert recipe(watch_every=3, accumulate=2).training_on(80).watch_every == 5


def test_the_extent_of_a_training_is_told():
    told = recipe(epochs=3, accumulate=2).extent(80)
    assert told == {"steps": 15, "samples_seen": 240, "epochs": 3.0, "effective_batch": 16}
    assert recipe(steps=4).extent(5) == {
        "steps": 4,
        "samples_seen": 20,
        "epochs": 4.0,
        "effective_batch": 5,
    }


def learned(seen=None, **settings):
    """Weights of a linear layer after a training on 24 samples of known sums."""
    samples = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)

    def loss(model, batch):
        if seen is not None:
            seen.append(batch[0])
        return (model(batch[0]) - batch[0].sum(1, keepdim=True)).square().mean(), {"one": 1.0}

    config = TrainConfig(**{"steps": 6, "average": 0.0} | settings)
    model = fit(nn.Linear(3, 1), loss, TensorDataset(samples), config, progress=False)
    return torch.cat([weights.flatten() for weights in model.parameters()]).detach()


def test_accumulated_passes_make_the_step_of_one_batch_of_their_samples():
    whole, parts = [], []
    expected = learned(whole, batch_size=8)
    torch.testing.assert_close(learned(parts, batch_size=4, accumulate=2), expected)
    assert len(parts) == 2 * len(whole)
    for number, batch in enumerate(whole):
        torch.testing.assert_close(torch.cat(parts[2 * number : 2 * number + 2]), batch)
    assert not torch.allclose(learned(batch_size=4), expected)


def test_gradients_of_passes_are_their_mean():
    """Adam's step hardly knows the scale of a gradient, so the gradient itself is compared."""
    samples = TensorDataset(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    gradients = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        torch.manual_seed(5)
        config = TrainConfig(
            steps=1, batch_size=batch_size, accumulate=accumulate, clip=1e9, amp=False
        )
        model = nn.Linear(3, 1)
        fit(
            model,
            lambda model, batch: (model(batch[0]).square().mean(), {}),
            samples,
            config,
            progress=False,
        )
        gradients.append(model.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_training_with_accumulation_goes_on_where_it_was(tmp_path):
    samples = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(steps=6, batch_size=4, accumulate=2, checkpoint_seconds=0.0)
    calls = []

    def loss(model, batch):
        calls.append(0)
        if len(calls) == 8:  # in the second pass of the fourth step
            raise KeyboardInterrupt
        noise = torch.rand(1)
        return (model(batch[0]) - noise * batch[0].sum(1, keepdim=True)).square().mean(), {}

    def train(folder):
        torch.manual_seed(5)
        model = nn.Linear(3, 1)
        return fit(model, loss, TensorDataset(samples), config, folder=folder, progress=False)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    resumed = train(tmp_path / "cut").weight
    torch.testing.assert_close(resumed, train(tmp_path / "whole").weight, rtol=0, atol=0)


def test_bfloat16_may_be_asked_for_and_refused(monkeypatch):
    kinds = []

    def loss(model, batch):
        kinds.append(model(batch[0]).dtype)
        return model(batch[0]).float().square().mean(), {}

    for amp in (True, False):
        config = TrainConfig(steps=1, batch_size=4, amp=amp)
        fit(nn.Linear(3, 1), loss, TensorDataset(torch.randn(8, 3)), config, progress=False)
    assert kinds == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("wrong", [{"accumulate": 0}, {"warmup": 1.0}])
def test_impossible_trainings_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        replace(TrainConfig(steps=1), **wrong)
    assert np.isfinite(TrainConfig(steps=1).warmup)


# --- the command line -----------------------------------------------------------------------------


def test_the_command_line_has_an_option_for_each_setting():
    assert list(OPTIONS) == [field.name for field in fields(TrainingSettings)]
    assert set(Fusion.__args__) == set(FUSIONS) and checks.FORMATS == FORMATS


def chosen(monkeypatch, *arguments):
    """The experiment that `train` would run."""
    made = []

    class Stopped(Exception):
        pass

    def stop(experiment, *_, **__):
        made.append(experiment)
        raise Stopped

    monkeypatch.setattr(Experiment, "run", stop)
    done = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert isinstance(done.exception, Stopped), done.output
    return made[0]


def test_the_command_line_counts_more_than_the_file_and_that_more_than_the_profile(
    monkeypatch, tmp_path
):
    file = tmp_path / "settings.yaml"
    file.write_text("steps: 5\nexperts: 8\nload: 0.5\n")
    paper = chosen(monkeypatch, tmp_path, "out", "--profile", "paper")
    assert paper.training == paper_settings("au_detection") and paper.backbone == "tuned"
    filed = chosen(monkeypatch, tmp_path, "out", "--profile", "paper", "--config", file)
    assert (filed.training.steps, filed.training.epochs) == (5, None)
    assert (filed.training.experts, filed.training.load, filed.training.base_lr) == (8, 0.5, 1e-4)
    line = ("--epochs", 3, "--load", 0, "--lr", "1e-5", "--no-amp", "--no-input-mixture")
    both = chosen(
        monkeypatch, tmp_path, "out", *line, "--config", file, "--backbone", "timm:resnet18"
    )
    expected = TrainingSettings(
        epochs=3, experts=8, load=0, lr=1e-5, amp=False, input_mixture=False
    )
    assert both.training == expected and both.backbone == "timm:resnet18"
    plain = chosen(monkeypatch, tmp_path, "out")
    assert plain.training == TrainingSettings() and plain.backbone == "frozen"


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("--profile paper --backbone frozen", 2, "the paper trains the whole network"),
        ("--steps 3 --epochs 2", 1, "give steps or epochs, not both"),
        ("--epochs 0", 1, "epochs must be within (0, "),
        ("--layer-decay 0.7", 1, "layer_decay: a frozen backbone has none"),
        ("--option camera=right", 1, "Rendered has no option camera; it has none"),
        ("--dataset disfa --option aligned=true", 1, "DISFA has no option aligned; it has camera"),
        ("--dataset disfa --option camera=top", 2, "no option 'camera=top' of a dataset; there"),
        (
            "--dataset disfa --option camera=left --option camera=right",
            1,
            "the option camera is given twice",
        ),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(call, code, words, tmp_path):
    done = CliRunner().invoke(
        app,
        ["train", str(tmp_path), str(tmp_path / "out"), *call.split()],
        env={"COLUMNS": "250"},
    )
    refused = done.stderr if code == 2 else str(done.exception)
    assert words.lower() in refused.lower() and (done.exit_code, list(tmp_path.iterdir())) == (
        code,
        [],
    )


# --- options of the datasets ----------------------------------------------------------------------


def test_the_options_of_the_command_line_are_those_of_the_loaders():
    found = {}
    for dataset in DATASETS:
        found |= loader_options(dataset)
    assert set(found) == set(checks.LOADER)
    for dataset in DATASETS:
        for name, values in checks.LOADER.items():
            if name in loader_options(dataset):
                for value in values:
                    kind = found[name]
                    assert isinstance(read_options(dataset, [f"{name}={value}"])[name], kind)


@pytest.mark.parametrize(
    ("dataset", "texts", "expected"),
    [
        ("disfa", ["camera=right", "first_frame=0"], {"camera": "right", "first_frame": 0}),
        ("affectnet", ["classes=7", "crop=false"], {"classes": 7, "crop": False}),
        ("rafdb", ["aligned=True"], {"aligned": True}),
        ("folder", [], {}),
    ],
)
def test_options_of_a_loader_are_read_by_their_types(dataset, texts, expected):
    assert read_options(dataset, texts) == expected


@pytest.mark.parametrize("text", ["crop=maybe", "classes=seven", "classes=", "task=emotion"])
def test_wrong_options_of_a_loader_are_refused(text):
    with pytest.raises(ValueError, match=r"must be true or false|must be a whole|has no option"):
        read_options("affectnet", [text])


def test_a_camera_reaches_the_loader_and_the_result_file(tiny_benchmark, tmp_path):
    write_as("disfa", tiny_benchmark, tmp_path / "data", "video", CLEAN)
    seen = {}
    for camera in ("left", "right"):
        experiment = Experiment(
            task="au_intensity",
            data="disfa",
            root=tmp_path / "data",
            protocol="disfa/2fold-seed0",
            options={"camera": camera},
            rows=("original",),
            steps=1,
        )
        result = experiment.run(tmp_path / camera, progress=False)
        content = json.loads(result.path.read_text())
        assert content["settings"]["experiment"]["options"] == {"camera": camera}
        folder = next((tmp_path / camera / "normalized").glob("*/"))
        seen[camera] = " ".join(read_manifest(folder)["path"]).lower()
    assert "leftvideo" in seen["left"] and "rightvideo" not in seen["left"]
    assert "rightvideo" in seen["right"] and "leftvideo" not in seen["right"]


def test_crops_are_of_the_size_that_the_network_takes(tiny_benchmark, tmp_path, monkeypatch):
    data = Rendered(tiny_benchmark)
    places = NORFACE_CROP.pixels(112).ravel() + 0.37
    rows = [dict(zip(POINT_COLUMNS, places, strict=True)) for _ in range(len(data))]
    table = pd.DataFrame(rows).assign(path=data.index["path"], status=ALIGNED, score=1.0)
    table.to_csv(points := tmp_path / "points.csv", index=False)
    sizes = []
    real = base.align_face

    def noted(image, points, crop, size):
        sizes.append(size)
        return real(image, points, crop, size)

    monkeypatch.setattr(base, "align_face", noted)
    cropped = data.aligned_by(points)
    normalize_dataset(cropped, tmp_path / "out", "tiny", progress=False)
    folder = next((tmp_path / "out").iterdir())
    load_pairs(cropped, folder, 96)
    assert sizes == [112] * len(data) + [96] * len(data)
    assert cropped.image(cropped.index.iloc[0]).shape == (224, 224, 3)
