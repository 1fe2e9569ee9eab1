"""From a dataset's folder to the table of a paper: every layout, the leakage switch, an
interruption, and bad settings."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.datasets.write_as import CLEAN, write_as
from norface_lib.networks.weights import load_classifier
from norface_lib.studies import experiments
from norface_lib.studies.experiments import Experiment, report, run, table
from norface_lib.training.normalizer import NormalizerTraining


@pytest.fixture(scope="module")
def benchmark(tiny_benchmark, tmp_path_factory):
    """The twelve faces of the tiny benchmark as those of 27 people with emotions, so that no
    official fold is empty."""
    root = shutil.copytree(tiny_benchmark, tmp_path_factory.mktemp("emotional") / "benchmark")
    labels = pd.read_csv(root / "labels.csv")
    rows = labels.iloc[np.arange(27) % len(labels)].reset_index(drop=True)
    people = [f"lab{number:04d}" for number in range(27)]
    rows = rows.assign(
        subject=people, frame=0, sequence="T1", emotion=np.resize(["happy", "sad", "fear"], 27)
    )
    for column, suffix in (("image", ".jpg"), ("truth", ".png")):
        moved = [f"copies/{person}{suffix}" for person in people]
        for old, new in zip(rows[column], moved, strict=True):
            (root / "copies").mkdir(exist_ok=True)
            shutil.copy(root / old, root / new)
        rows[column] = moved
    rows.to_csv(root / "labels.csv", index=False)
    return root


LAYOUTS = [
    ("bp4d", "au_detection", 3, 12),
    ("bp4d", "au_intensity", 3, 5),
    ("bp4d_plus", "au_detection", 4, 12),
    ("disfa", "au_detection", 3, 8),
    ("disfa", "au_intensity", 3, 12),
    ("affectnet", "emotion", 1, 8),
    ("rafdb", "emotion", 1, 7),
    ("rendered", "au_detection", 3, 12),
]


@pytest.mark.parametrize(("dataset", "task", "folds", "outputs"), LAYOUTS)
def test_every_layout_ends_in_its_table(dataset, task, folds, outputs, benchmark, tmp_path):
    root = benchmark
    if dataset != "rendered":
        write_as(dataset, benchmark, root := tmp_path / "data", None, CLEAN)
    settings = Experiment(task, dataset, inputs=("both",), steps=2)
    rows, path = run(settings, root, tmp_path / "out")
    found = json.loads(path.read_text())
    row = found["result"]["rows"]["both"]
    assert np.shape(row["per_label_per_seed_and_fold"]) == (1, folds, outputs)
    assert (
        len(found["counts"]["train_and_test"]) == folds and found["counts"]["not_normalized"] == 0
    )
    assert found["leakage"] == "pretrained" and found["counts"]["frames"] == len(
        rows["both"].labels
    )
    tested = np.concatenate([test for _, test in rows["both"].folds])
    assert not np.isnan(rows["both"].predictions[0, tested]).any() and len(set(tested)) == len(
        tested
    )
    assert table(rows).shape == (1, outputs + 1)
    assert f"both: {rows['both'].score:.3f}" in report(rows, path)
    weights = sorted((tmp_path / "out" / task / "weights").glob("*.safetensors"))
    assert (
        len(weights) == folds
        and load_classifier(weights[0])[0].config.labels == rows["both"].task.outputs
    )


def test_an_interrupted_run_ends_with_the_same_numbers(benchmark, tmp_path, monkeypatch):
    settings = Experiment(
        "au_detection", "rendered", inputs=("original", "both"), steps=3, seeds=(0, 1)
    )
    _, whole = run(settings, benchmark, tmp_path / "whole")
    calls, trained = [], experiments.cross_validate

    def stops(*arguments, **options):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*arguments, **options)

    monkeypatch.setattr(experiments, "cross_validate", stops)
    with pytest.raises(KeyboardInterrupt):
        run(settings, benchmark, tmp_path / "cut")
    _, resumed = run(settings, benchmark, tmp_path / "cut")
    first, second = (json.loads(path.read_text())["result"]["rows"] for path in (whole, resumed))
    for name in first:
        assert (
            first[name]["per_label_per_seed_and_fold"]
            == second[name]["per_label_per_seed_and_fold"]
        )


def test_each_fold_is_read_by_its_own_normalizer(benchmark, tmp_path, monkeypatch):
    asked = []
    made = experiments.normalizers_of_folds

    def noted(leakage, start, folds, sources_of, *rest):
        def recorded(rows):
            asked.append(rows)
            return sources_of(rows)

        return made(leakage, start, folds, recorded, *rest)

    monkeypatch.setattr(experiments, "normalizers_of_folds", noted)
    terms = experiments.terms_of(
        ["reconstruction=0", "edge=0", "reading=0", "self_reconstruction=1"], []
    )
    tuning = NormalizerTraining.of_steps(0, 1, terms=terms)
    settings = Experiment(
        "au_detection",
        "rendered",
        inputs=("normalized",),
        steps=1,
        leakage="per-fold",
        tuning=tuning,
    )
    rows, path = run(settings, benchmark, tmp_path / "out")
    for faces, (train, test) in zip(asked, rows["normalized"].folds, strict=True):
        np.testing.assert_array_equal(faces, train)
        assert not set(faces) & set(test)
    assert json.loads(path.read_text())["leakage"] == "per-fold"


def test_wrong_settings_are_refused(tmp_path):
    for settings, what in (
        ({"task": "emotion", "dataset": "disfa"}, "no 'emotion' on 'disfa'"),
        ({"task": "au_detection", "dataset": "disfa", "backbone": "resnet"}, "backbone must be"),
        ({"task": "au_detection", "dataset": "disfa", "inputs": ("left",)}, "inputs must be of"),
        ({"task": "au_detection", "dataset": "disfa", "leakage": "none"}, "leakage must be"),
    ):
        with pytest.raises(ValueError, match=what):
            Experiment(**settings)


def test_the_command_prints_the_table(benchmark, tmp_path):
    arguments = [
        "train",
        str(benchmark),
        str(tmp_path / "out"),
        "--task",
        "emotion",
        "--steps",
        "2",
        "--inputs",
        "both",
    ]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert (
        shown.exit_code == 0 and "accuracy, last step" in shown.output and "happy" in shown.output
    )
    again = CliRunner().invoke(app, [*arguments, "--seeds", "0,1"], catch_exceptions=False)
    assert "2 seed(s)" in again.output
