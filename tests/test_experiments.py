"""From a dataset's folder to the table of a paper: every layout, the leakage switch, an
interruption, and bad settings."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.datasets.label_table import coded_table
from norface_lib.datasets.rendered import Rendered
from norface_lib.datasets.write_as import CLEAN, write_as
from norface_lib.networks.weights import load_classifier
from norface_lib.studies import experiment as experiments
from norface_lib.studies import preparation
from norface_lib.studies.experiment import Experiment
from norface_lib.studies.recipes import COMPARISONS, ROWS, SECOND_FACES
from norface_lib.studies.second_faces import KINDS
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
    ("rendered", "emotion", 3, 8),
]


@pytest.mark.parametrize(("dataset", "task", "folds", "outputs"), LAYOUTS)
def test_every_layout_ends_in_its_table(dataset, task, folds, outputs, benchmark, tmp_path):
    root = benchmark
    if dataset != "rendered":
        write_as(dataset, benchmark, root := tmp_path / "data", None, CLEAN)
    experiment = Experiment(task=task, data=dataset, root=root, rows=("both",), steps=2)
    result = experiment.run(tmp_path / "out")
    content = json.loads(result.path.read_text())
    (row,) = result.rows.values()
    written = content["result"]["rows"]["both"]
    assert np.shape(written["per_label_per_seed_and_fold"]) == (1, folds, outputs)
    counts = content["counts"]
    assert len(counts["train_and_test"]) == folds and counts["not_normalized"] == 0
    assert content["leakage"] == "pretrained" and counts["frames"] == len(row.labels)
    assert str(tmp_path) not in json.dumps(content), "no folder of this machine"
    tested = np.concatenate([test for _, test in row.folds])
    assert not np.isnan(row.predictions[0, tested]).any() and len(set(tested)) == len(tested)
    assert f"both: {row.score:.3f}" in result.report()
    weights = sorted((tmp_path / "out" / task / "weights").glob("*.safetensors"))
    model, card = load_classifier(weights[0])
    assert len(weights) == folds and model.config.labels == row.task.outputs
    assert card["task"] == task and card["protocol"] == experiment.protocol


def test_an_interrupted_run_ends_with_the_same_numbers(benchmark, tmp_path, monkeypatch):
    experiment = Experiment(
        task="au_detection",
        data="rendered",
        root=benchmark,
        rows=("original", "both"),
        steps=3,
        seeds=(0, 1),
    )
    whole = experiment.run(tmp_path / "whole")
    calls, trained = [], experiments.cross_validate

    def stops(*arguments, **options):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*arguments, **options)

    monkeypatch.setattr(experiments, "cross_validate", stops)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(tmp_path / "cut")
    resumed = experiment.run(tmp_path / "cut")
    for name, row in whole.rows.items():
        np.testing.assert_array_equal(row.per_fold, resumed.rows[name].per_fold)
    assert resumed.counts == whole.counts  # what the first call normalized counts, too
    (added,) = resumed.differences().values()
    assert added["value"] == resumed.rows["both"].score - resumed.rows["original"].score


def test_other_settings_never_meet_an_old_training(benchmark, tmp_path):
    plain = Experiment(
        task="au_detection", data="rendered", root=benchmark, rows=("both",), steps=3
    )
    first = plain.run(tmp_path)
    for other in ({"loss": "bce"}, {"balanced": True}, {"protocol": "rendered/2fold-seed1"}):
        changed = replace(plain, **other).run(tmp_path)
        assert not np.array_equal(
            changed.rows["both"].predictions, first.rows["both"].predictions
        ), other
    again = plain.run(tmp_path).rows["both"]
    np.testing.assert_array_equal(again.predictions, first.rows["both"].predictions)


def test_a_benchmark_is_rendered_coded_and_compared(
    tiny_spec, tiny_benchmark, tmp_path, monkeypatch
):
    monkeypatch.setenv("NORFACE_RUNS", str(tmp_path))
    experiment = Experiment(
        task="au_detection",
        data=tiny_spec,
        root=tiny_benchmark,
        coder_errors=0.3,
        protocol="rendered/2fold-seed0",
        rows=tuple(ROWS),
        steps=2,
        seeds=(0, 1),
    )
    prepared = experiment.prepare(progress=False)
    exact = Rendered(tiny_benchmark)
    coded = Rendered.from_arrays(coded_table(exact.table, 0.3, tiny_spec.seed))
    labels = coded.occurrences()
    np.testing.assert_array_equal(prepared.pairs.labels, labels)
    assert (labels != exact.occurrences()).any()

    result = experiment.run(prepared=prepared, progress=False)
    assert result.path is None and list(result.differences()) == list(COMPARISONS)
    assert result.table()["score"]["both"] == pytest.approx(result.rows["both"].score)
    adds = result.differences()["the normalized face, beside the original"]
    scores = result.rows["both"].scores - result.rows["original"].scores
    assert adds["value"] == pytest.approx(scores.mean()) and 0 < adds["p"] <= 1
    assert adds["trainings"][0] <= scores.mean() <= adds["trainings"][1]
    table = result.difference_table()
    assert table["adds"].notna().all() and table.equals(table.round(3)), "no exponents to read"
    json.dumps(result.as_dict())


def test_each_fold_is_read_by_its_own_normalizer(benchmark, tmp_path, monkeypatch):
    asked = []
    made = preparation.normalizers_of_folds

    def noted(leakage, start, folds, sources_of, *rest, **options):
        def recorded(rows):
            asked.append(rows)
            return sources_of(rows)

        return made(leakage, start, folds, recorded, *rest, **options)

    monkeypatch.setattr(preparation, "normalizers_of_folds", noted)
    terms = experiments.terms_of(
        ["reconstruction=0", "edge=0", "reading=0", "self_reconstruction=1"], []
    )
    experiment = Experiment(
        task="au_detection",
        data="rendered",
        root=benchmark,
        rows=("normalized",),
        steps=1,
        leakage="per-fold",
        tuning=NormalizerTraining.of_steps(0, 1, terms=terms),
    )
    result = experiment.run(tmp_path / "out")
    for faces, (train, test) in zip(asked, result.rows["normalized"].folds, strict=True):
        np.testing.assert_array_equal(faces, train)
        assert not set(faces) & set(test)
    assert json.loads(result.path.read_text())["leakage"] == "per-fold"


def test_wrong_settings_are_refused(tmp_path):
    plain = {"task": "au_detection", "data": "disfa", "root": tmp_path}
    for settings, message in (
        ({"task": "emotion"}, "no 'emotion' on 'disfa'"),
        ({"backbone": "resnet"}, "backbone must be"),
        ({"rows": ("left",)}, "rows must be of original; normalized; both"),
        ({"leakage": "none"}, "leakage must be"),
        ({"leakage": "per-fold", "final": True}, "none for a final classifier"),
        ({"root": None}, "disfa needs root"),
        ({"coder_errors": 0.1}, "simulated on rendered faces"),
    ):
        with pytest.raises(ValueError, match=message):
            Experiment(**(plain | settings))


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


REPLACED = {
    "the normalized face instead of the original",
    "the normalized face, beside a second view",
    "the true normalized face instead of the original",
    "what the normalizer misses",
    "read and render instead of the original",
    "read and render instead of the normalizer",
}
"""Comparisons of two rows of which each has one face that the other lacks."""


def test_a_comparison_adds_what_its_second_row_lacks():
    """The first of two rows is never the poorer one: it has each mixture, face and setting of the
    second, unless one face is replaced by another."""

    def parts(name):
        row = {"input_mixture": True, "output_mixture": True, "shared": True} | ROWS[name]
        inputs = row.pop("inputs")
        faces = {"original": "original", "second": f"{SECOND_FACES.get(name, 'normalized')} face"}
        if inputs != "both":
            del faces["second" if inputs == "original" else "original"]
        row["own backbones"] = not row.pop("shared")
        return {*faces.values(), *(key for key, value in row.items() if value)}

    for question, (first, second) in COMPARISONS.items():
        added, lacking = parts(first) - parts(second), parts(second) - parts(first)
        if question in REPLACED:
            assert len(added) == len(lacking) == 1, question
        else:
            assert added and not lacking, question


def test_every_second_face_is_one_that_can_be_made():
    assert set(SECOND_FACES) <= set(ROWS) and set(SECOND_FACES.values()) <= set(KINDS)
