"""Trained on one dataset, tested on another: shared labels, folds, gaps, and the command line."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.datasets.write_as import CLEAN, write_as
from norface_lib.studies.cross_result import gap_difference
from norface_lib.studies.data_sources import DEFAULT_PROTOCOLS, default_protocol
from norface_lib.studies.experiment import Experiment

PEOPLE = {"lab": 9, "wild": 12}


def many_people(source, root, pool):
    """The faces of the tiny benchmark as those of many people with emotions, each once, so that no
    fold is empty."""
    shutil.copytree(source, root)
    labels = pd.read_csv(root / "labels.csv")
    count = PEOPLE[pool]
    rows = labels.iloc[np.arange(2 * count) % len(labels)].reset_index(drop=True)
    people = [f"{pool}{number // 2:04d}" for number in range(2 * count)]
    emotions = np.resize(["happy", "contempt", "fear", "sad"], 2 * count)
    rows = rows.assign(subject=people, frame=np.arange(2 * count) % 2, sequence="T1")
    rows = rows.assign(emotion=emotions)
    (root / "copies").mkdir()
    for column, suffix in (("image", ".jpg"), ("truth", ".png")):
        moved = [f"copies/{number}{suffix}" for number in range(2 * count)]
        for old, new in zip(rows[column], moved, strict=True):
            shutil.copy(root / old, root / new)
        rows[column] = moved
    rows.to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="module")
def benchmarks(tiny_benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return {pool: many_people(tiny_benchmark, folder / pool, pool) for pool in PEOPLE}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder for all tests of the same two benchmarks, so that they are normalized once."""
    return tmp_path_factory.mktemp("out")


def across(benchmarks, **settings):
    settings = {
        "task": "au_detection",
        "data": "rendered",
        "root": benchmarks["lab"],
        "test_data": "rendered",
        "test_root": benchmarks["wild"],
        "rows": ("original", "normalized", "both"),
        "steps": 2,
    } | settings
    return Experiment(**settings)


SEVEN = "neutral happy sad surprise fear disgust anger"

LAYOUTS = [
    ("bp4d", "disfa", "au_detection", "3fold", 3, "AU01 AU02 AU04 AU06 AU12"),
    ("disfa", "bp4d", "au_intensity", "3fold", 3, "AU06 AU12 AU17"),
    (
        "affectnet",
        "rafdb",
        "emotion",
        "official",
        1,
        SEVEN,
    ),
]


@pytest.mark.filterwarnings("ignore:.*official subject")
@pytest.mark.parametrize(("source", "target", "task", "split", "folds", "labels"), LAYOUTS)
def test_every_pair_of_layouts_ends_in_its_table(
    source, target, task, split, folds, labels, benchmarks, tmp_path
):
    roots = {}
    for layout, pool in ((source, "lab"), (target, "wild")):
        roots[layout] = tmp_path / layout
        write_as(layout, benchmarks[pool], roots[layout], None, CLEAN)
    if split == "3fold":  # twelve people are not in every official fold
        split = "3fold-seed0"
    experiment = across(
        benchmarks,
        task=task,
        data=source,
        root=roots[source],
        test_data=target,
        test_root=roots[target],
        protocol=f"{source}->{target}/{split}",
        rows=("both",),
    )
    result = experiment.run(tmp_path / "out")
    content = json.loads(result.path.read_text())
    written = content["result"]
    for rows in (written["rows"], written["in_domain"]):
        assert list(rows["both"]["per_label"]) == labels.split()
        assert np.shape(rows["both"]["per_label_per_seed_and_fold"]) == (
            1,
            folds,
            len(labels.split()),
        )
    assert written["gaps"]["both"]["value"] == pytest.approx(
        written["in_domain"]["both"]["headline"] - written["rows"]["both"]["headline"]
    )
    sides = [content["counts"][side] for side in ("source", "target")]
    assert [side["dataset"] for side in sides] == [source, target]
    if task == "au_detection":
        assert "1 (A)" in sides[0]["labels"] and "2 (B)" in sides[1]["labels"]
    if task == "emotion":
        # RAF-DB does not know it
        contempt = (pd.read_csv(benchmarks["lab"] / "labels.csv")["emotion"] == "contempt").sum()
        assert sides[0]["other_emotions"] == contempt > 0 and sides[1]["other_emotions"] == 0
    assert str(tmp_path) not in json.dumps(content), "no folder of this machine"
    assert f"source: {source}" in result.report() and "gap" in result.report()


def test_each_split_learns_from_the_one_and_tests_the_other(benchmarks, out):
    prepared = across(benchmarks).prepare(out, progress=False)
    people = prepared.pairs.subjects
    assert sum(name.startswith("lab") for name in people) == 2 * PEOPLE["lab"]
    for (train, test), (own, again) in zip(prepared.folds, prepared.in_domain.folds, strict=True):
        assert all(name.startswith("lab") for name in people[train])
        assert all(name.startswith("wild") for name in people[[*test, *own]])
        np.testing.assert_array_equal(test, again)
        assert not set(people[own]) & set(people[test])
    tested = np.concatenate([test for _, test in prepared.folds])
    assert len(set(tested)) == len(tested) == 2 * PEOPLE["wild"]


def test_the_joined_faces_and_embeddings_are_those_of_each(benchmarks, out, tmp_path):
    """Frozen and not, a row is the same face, with its own label."""
    experiment = across(benchmarks, task="emotion")
    frozen = experiment.prepare(out, progress=False)
    plain = replace(experiment, backbone="scratch").prepare(out, progress=False)
    for root, rows in (("lab", slice(0, 18)), ("wild", slice(18, None))):
        single = Experiment(task="emotion", data="rendered", root=benchmarks[root])
        alone = single.prepare(tmp_path / root, progress=False)
        np.testing.assert_array_equal(plain.pairs.originals[rows], alone.pairs.originals[:])
        np.testing.assert_array_equal(frozen.pairs.labels[rows], alone.pairs.labels)
        view = frozen.views[0]
        assert (view.normalized[:, rows] - alone.views[0].normalized).abs().max() < 1e-5


def test_what_is_there_of_either_dataset_is_used_on_the_way_back(
    benchmarks, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("NORFACE_RUNS", str(tmp_path))
    across(benchmarks).prepare(progress=False)
    before = sorted((tmp_path / "cache").rglob("embedded-*.safetensors"))
    times = [path.stat().st_mtime_ns for path in before]
    back = across(benchmarks, root=benchmarks["wild"], test_root=benchmarks["lab"])
    back.prepare(progress=False)
    assert sorted((tmp_path / "cache").rglob("embedded-*.safetensors")) == before
    assert [path.stat().st_mtime_ns for path in before] == times and len(before) == 2


def test_gaps_and_how_they_shrink(benchmarks, out):
    result = across(benchmarks, seeds=(0, 1)).run(out)
    table = result.gap_table()
    np.testing.assert_allclose(table["gap"], table["in-domain"] - table["cross-dataset"])
    assert (table["low"] <= table["high"]).all()
    shrinks = result.shrinkages()["the normalized face, beside the original"]
    assert shrinks["value"] == pytest.approx(table["gap"]["original"] - table["gap"]["both"])
    low, high = shrinks["subjects"]
    assert low <= shrinks["value"] <= high
    assert len(shrinks["trainings"]) == 2 and "shrinks" in result.report()


def test_a_gap_that_is_the_same_does_not_shrink(benchmarks, out):
    result = across(benchmarks, rows=("original",)).run(out)
    pair = (result.in_domain["original"], result.rows["original"])
    none = gap_difference(pair, pair)
    assert none["value"] == 0 and none["subjects"] == [0, 0]
    assert gap_difference(pair, pair[::-1])["value"] == pytest.approx(
        2 * result.gaps()["original"]["value"]
    )


def test_per_fold_each_normalizer_learns_from_the_training_side(benchmarks, out, monkeypatch):
    from norface_lib.studies import preparation
    from norface_lib.studies.experiment import _unpaired_tuning

    folds = []
    made = preparation.normalizers_of_folds

    def noted(leakage, start, given, *rest, **options):
        folds.extend(given)
        return made("pretrained", start, given, *rest, **options)

    monkeypatch.setattr(preparation, "normalizers_of_folds", noted)
    experiment = across(benchmarks, leakage="per-fold", tuning=_unpaired_tuning())
    prepared = experiment.prepare(out, progress=False)
    names = [set(prepared.pairs.subjects[train]) for train, _ in folds]
    assert all(name.startswith("lab") for part in names[:3] for name in part)
    assert all(name.startswith("wild") for part in names[3:] for name in part)


def test_a_split_that_tests_everybody_has_no_in_domain_rows(benchmarks, out):
    experiment = across(benchmarks, protocol="rendered->rendered/all", rows=("original",))
    result = experiment.run(out)
    assert result.in_domain == {} and result.gaps() == {}
    assert "no in-domain training" in result.report()


def test_the_usual_split_is_that_of_both():
    assert default_protocol("bp4d", "disfa") == "bp4d->disfa/3fold"
    assert default_protocol("affectnet", "rafdb") == "affectnet->rafdb/official"
    assert default_protocol("bp4d_plus", "disfa") == "bp4d_plus->disfa/3fold-seed0"
    assert all(default_protocol(name) == usual for name, usual in DEFAULT_PROTOCOLS.items())


def test_wrong_settings_are_refused(benchmarks):
    for settings, message in (
        ({"test_data": "rafdb"}, "no 'au_detection' on 'rafdb'"),
        ({"test_data": "disfa", "test_root": None}, "disfa needs test_root"),
        ({"test_data": None}, "test_options need test_data"),
        ({"protocol": "rendered/3fold-seed0"}, "protocol must begin with rendered->rendered/"),
    ):
        with pytest.raises(ValueError, match=message):
            across(benchmarks, **settings)


def test_the_command_prints_the_gaps(benchmarks, out):
    arguments = ["train", benchmarks["lab"], out, "--test-dataset", "rendered"]
    arguments += ["--test-root", benchmarks["wild"], "--steps", "2"]
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0 and "in-domain" in done.output and "gap shrinks by" in done.output
    assert (out / "au_detection/result.json").is_file()
