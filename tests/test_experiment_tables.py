"""Tables of an experiment: published numbers beside ours, spreads, errors, confusions, files."""

import csv
from functools import cache

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from norface_lib import labels
from norface_lib.cli.app import app
from norface_lib.datasets.affectnet import EMOTIONS
from norface_lib.datasets.disfa import DETECTION_AUS, INTENSITY_AUS
from norface_lib.networks.classifier import ClassifierConfig
from norface_lib.studies.cross_validation import CrossValidation
from norface_lib.studies.experiment_tables import (
    error_table,
    export_tables,
    label_table,
    printed,
    summary_table,
    tables_of,
)
from norface_lib.studies.published import published
from norface_lib.studies.result import Result
from norface_lib.tasks.metrics import intensity_metrics, intensity_sums
from norface_lib.tasks.tasks import task_of
from norface_lib.training.classifier import Recipe
from norface_lib.training.loop import TrainConfig

OUTPUTS = {
    "au_detection": labels.columns(DETECTION_AUS),
    "au_intensity": labels.columns(INTENSITY_AUS),
    "emotion": EMOTIONS,
}


@cache
def row_of(name, outputs=None, seeds=2, folds=3):
    """A row of 120 faces of twelve people whose predictions are the labels and noise."""
    outputs = outputs or OUTPUTS[name]
    task = task_of(name, outputs)
    rng = np.random.default_rng(0)
    count, width = 120, len(outputs)
    if name == "emotion":
        truth = rng.integers(0, width, (count, 1)).astype(np.float32)
        exact = np.eye(width)[truth[:, 0].astype(int)]
    else:
        highest = 2 if name == "au_detection" else 6
        truth = rng.integers(0, highest, (count, width)).astype(np.float32)
        exact = truth
    predictions = exact + rng.normal(0, 0.5, (seeds, count, width))
    if name == "au_detection":
        predictions = predictions.clip(0, 1)
    subjects = np.repeat([f"S{number:02d}" for number in range(12)], 10)
    parts = np.array_split(np.unique(subjects), folds)
    tests = [np.isin(subjects, part) for part in parts]
    recipe = Recipe(config=ClassifierConfig(outputs), training=TrainConfig(steps=5, batch_size=8))
    return CrossValidation(
        task=task,
        recipe=recipe,
        folds=[(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests],
        labels=truth,
        subjects=subjects,
        predictions=predictions.astype(np.float32),
        best_epochs=np.full((seeds, folds), np.nan),
        seconds=1.0,
        images_per_second=None,
        extents=[recipe.extent(80)] * seeds * folds,
    )


def test_published_numbers_stand_beside_ours_label_by_label():
    row = row_of("au_detection")
    table = label_table({"both": row}, "disfa")
    numbers = published("au_detection", "disfa")
    assert list(table.index) == [*row.task.outputs, "mean F1"]
    np.testing.assert_allclose(table["both"], 100 * np.array([*row.per_label, row.score]))
    for method in ("Norface", "JAA-Net"):
        line = numbers.loc[method, [*row.task.outputs, "average"]]
        np.testing.assert_array_equal(table[f"{method} (published)"], line)
    averages = table.loc["mean F1"].iloc[1:]
    assert averages.is_monotonic_decreasing and len(averages) == len(numbers)


def test_there_are_no_published_numbers_of_rendered_faces():
    table = label_table({"both": row_of("au_detection")}, "rendered")
    assert list(table.columns) == ["both"]


def test_seven_emotions_stand_beside_those_who_have_seven():
    eight = label_table({"both": row_of("emotion")}, "affectnet")
    seven = label_table({"both": row_of("emotion", EMOTIONS[:7])}, "affectnet")
    for table, dataset in ((eight, "affectnet"), (seven, "affectnet7")):
        methods = {name.removesuffix(" (published)") for name in table.columns} - {"both"}
        assert methods == set(published("emotion", dataset).index)


def test_a_summary_has_mean_spread_baseline_and_oracle():
    row = row_of("au_detection")
    line = summary_table({"both": row}).loc["both"]
    assert line["mean"] == pytest.approx(row.scores.mean())
    assert line["sd over folds"] == pytest.approx(row.scores.mean(axis=0).std(ddof=1))
    assert line["sd over seeds"] == pytest.approx(row.scores.mean(axis=1).std(ddof=1))
    assert line["low"] < line["mean"] < line["high"]
    assert line["constant baseline"] == pytest.approx(row.constant_baseline)
    assert line["oracle best_threshold"] >= line["mean"]
    single = summary_table({"both": row_of("au_detection", seeds=1)}).loc["both"]
    assert np.isnan(single["sd over seeds"]) and not np.isnan(single["sd over folds"])


def test_errors_of_intensities_are_means_over_folds_and_seeds():
    row = row_of("au_intensity")
    for metric in ("mse", "mae"):
        table = error_table({"both": row}, metric)
        of_parts = [
            intensity_metrics(intensity_sums(of_seed[test], row.labels[test]))[metric]
            for _, test in row.folds
            for of_seed in row.predictions
        ]
        np.testing.assert_allclose(table["both"].iloc[:-1], np.mean(of_parts, axis=0))
        assert table.loc["mean", "both"] == pytest.approx(row.further[metric])
        assert row.as_dict()["further_per_label"][metric]["AU12"] == table.loc["AU12", "both"]


def test_a_confusion_counts_every_image_once():
    row = row_of("emotion")
    table = tables_of({"both": row}, "affectnet")["confusion-both"]
    shares = table[list(EMOTIONS)]
    np.testing.assert_allclose(shares.sum(axis=1), 100)
    counts = np.bincount(row.labels[:, 0].astype(int), minlength=8)
    np.testing.assert_array_equal(table["images"], counts)
    called = [(of_seed.argmax(1) == 3)[row.labels[:, 0] == 1].mean() for of_seed in row.predictions]
    assert shares.loc[EMOTIONS[1], EMOTIONS[3]] == pytest.approx(100 * np.mean(called))


@pytest.mark.parametrize(
    ("task", "dataset", "names"),
    [
        ("au_detection", "disfa", {"labels", "summary"}),
        ("au_intensity", "disfa", {"labels", "summary", "mse", "mae"}),
        ("emotion", "affectnet", {"labels", "summary", "confusion-both-no-mixture"}),
    ],
)
def test_every_table_is_in_the_report_and_in_files(task, dataset, names, tmp_path):
    row = row_of(task)
    name = "both, no mixture" if task == "emotion" else "both"
    tables = tables_of({name: row}, dataset)
    assert set(tables) == names
    files = export_tables(tables, tmp_path, ("csv", "latex", "markdown"))
    expected = {f"{table}{end}" for table in names for end in (".csv", ".tex", ".md")}
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()} == expected
    result = Result(
        rows={name: row},
        task=task,
        dataset=dataset,
        splits=["fold1", "fold2", "fold3"],
        seeds=(0, 1),
        leakage="pretrained",
        counts={},
        settings={},
        started=0.0,
    )
    report = result.report()
    assert all(printed(table) in report for table in tables.values())
    assert "published: " in report and "real faces" in report


def test_files_hold_the_numbers_of_the_tables(tmp_path):
    table = label_table({"both": row_of("au_detection")}, "disfa")
    export_tables({"labels": table}, tmp_path, ("csv", "latex"))
    header, *lines = csv.reader((tmp_path / "labels.csv").read_text().splitlines())
    assert header == ["", *table.columns] and [line[0] for line in lines] == list(table.index)
    for line, (_, values) in zip(lines, table.iterrows(), strict=True):
        found = pd.to_numeric(pd.Series(line[1:]).replace("", None)).to_numpy(float)
        np.testing.assert_allclose(found, values, atol=0.0501)
    latex = (tmp_path / "labels.tex").read_text()
    assert latex.count(r"\\") == len(table) + 1 and "72.7" in latex


@pytest.mark.parametrize("text", ["pdf", "csv,csv", ""])
def test_unknown_formats_are_refused(text, tmp_path):
    done = CliRunner().invoke(app, ["train", "a", "b", f"--export={text}"], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and "markdown, csv, latex" in done.stderr
