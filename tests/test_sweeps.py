"""Sweeps: files are read strictly, what is done is skipped, a failure ends one experiment alone."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.common.paths import ROOT
from norface_lib.common.processes import end_with_process
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.studies import sweep_runner
from norface_lib.studies.experiment import Experiment
from norface_lib.studies.settings import TrainingSettings
from norface_lib.studies.sweep import find_sweep, read_sweep, shipped_names
from norface_lib.studies.sweep_runner import run_sweep
from norface_lib.studies.sweep_tables import read_results


@pytest.fixture(autouse=True)
def _own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NORFACE_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def write(tmp_path, tiny_benchmark):
    """Writes a sweep of short trainings on four rendered people."""

    def written(*runs, **defaults):
        plain = {
            "task": "au_detection",
            "data": "rendered",
            "root": str(tiny_benchmark),
            "protocol": "rendered/2fold-seed0",
            "rows": ["original"],
            "steps": 1,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"defaults": plain | defaults, "runs": list(runs)}))
        return path

    return written


def lines_of(configurations, out, **options):
    said = []
    report = run_sweep(configurations, out, say=said.append, **options)
    return report, said


# --- reading --------------------------------------------------------------------------------------


def test_each_stands_for_every_combination(write):
    path = write(
        {"name": "plain", "backbone": "mini", "people": 2},
        {
            "name": "gates",
            "training": {"importance": 0.0},
            "each": {"seeds": [[0], [0, 1]], "training": [{"experts": 2}, {"experts": 8}]},
        },
        training={"load": 0.5},
    )
    plain, *gates = read_sweep(path)
    assert plain.name == "plain" and plain.experiment.backbone == "mini"
    assert plain.experiment.people == 2 and plain.experiment.training.load == 0.5
    assert [one.name for one in gates] == [
        "gates-seeds-0-experts-2",
        "gates-seeds-0-experts-8",
        "gates-seeds-0-1-experts-2",
        "gates-seeds-0-1-experts-8",
    ]
    assert gates[3].experiment.seeds == (0, 1)
    assert gates[3].experiment.training == TrainingSettings(importance=0.0, load=0.5, experts=8)


def test_a_table_of_data_is_a_benchmark(write):
    wild, lab = {"pool": "wild", "subjects": 9}, {"pool": "lab", "subjects": 8}
    run = {"name": "a", "data": wild, "test_data": lab}
    (one,) = read_sweep(write(run, data="", root=None, protocol=""))
    assert one.experiment.data == BenchmarkSpec(pool="wild", subjects=9)
    assert one.experiment.test_data == BenchmarkSpec(pool="lab", subjects=8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("runs: [", "no YAML file"),
        ("[]", "must be a table with a list `runs`"),
        ("runs: {}", "must be a table with a list `runs`"),
        ("{runs: [], more: 1}", "has more beside kind, defaults and runs"),
        ("runs: [7]", "run 1 must be a table"),
        ("runs: [{people: 3}]", "run 1 needs a name"),
        ("runs: [{name: ../a}]", "needs a name of letters"),
        ("runs: [{name: a, steeps: 3}]", r"run 1 \(a\): no field steeps; there are task, data"),
        ("runs: [{name: a, each: [1]}]", "each must be a table"),
        ("runs: [{name: a, each: {people: 3}}]", "each must give people a list of values"),
        ("runs: [{name: a, data: {pools: lab}}]", "pools"),
        ("runs: [{name: a, training: {experts: 0}}]", "experts must be within"),
        ("runs: [{name: a, backbone: tall}]", "backbone must be one of"),
        ("runs: [{name: a, aus: [AU12]}]", "aus must be numbers of the FACS, as in 12, got 'AU12'"),
        ("runs: [{name: a}, {name: a}]", "two runs are called a"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(text, words, tmp_path):
    path = tmp_path / "sweep.yaml"
    if text.startswith("runs: [{name"):
        text = f"defaults: {{task: au_detection, data: {{pool: lab}}}}\n{text}"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as raised:
        read_sweep(path)
    assert str(path) in str(raised.value)


def test_shipped_sweeps_are_found_by_name_and_whole():
    assert shipped_names()
    for name in shipped_names():
        assert read_sweep(find_sweep(name)), name
    with pytest.raises(DataError, match="nothing: neither a file nor a sweep of"):
        find_sweep("nothing")


# --- running --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_is_what_its_experiments_are_alone(workers, write, tmp_path):
    path = write(
        {"name": "rows", "rows": ["original", "true normalized"], "each": {"people": [1, 2]}}
    )
    configurations = read_sweep(path)
    report, said = lines_of(configurations, tmp_path / "out", workers=workers)
    assert report.counts == {"done": 2, "done before": 0, "failed": 0}
    assert said[0].startswith("[1/2] rows-people-") and "min left" in said[0]
    assert said[1].startswith("[2/2]") and "left" not in said[1]
    for one in configurations:
        content = json.loads(one.path(tmp_path / "out").read_text())
        assert content["settings"]["experiment"]["people"] == one.experiment.people
        alone = one.experiment.run(progress=False)
        for name, row in alone.rows.items():
            assert content["result"]["rows"][name]["headline"] == pytest.approx(row.score)
        assert content["counts"]["train_and_test"][0] == [3 * one.experiment.people, 6]


def test_what_is_done_is_skipped_and_what_failed_is_tried_again(write, tmp_path, monkeypatch):
    configurations = read_sweep(write({"name": "run", "each": {"people": [1, 2]}}))
    trained = Experiment.run
    calls = []

    def fails(self, *arguments, **options):
        calls.append(self.people)
        if self.people == 1 and len(calls) < 3:
            raise RuntimeError("this one fails")
        return trained(self, *arguments, **options)

    monkeypatch.setattr(Experiment, "run", fails)
    out = tmp_path / "out"
    report, said = lines_of(configurations, out)
    assert report.counts == {"done": 1, "done before": 0, "failed": 1}
    assert "run-people-1: failed: RuntimeError: this one fails" in said[0]
    error = out / "run-people-1.error.txt"
    assert "Traceback" in error.read_text() and not (out / "run-people-1.json").exists()

    report, said = lines_of(configurations, out)
    assert said[0] == "1 of 2 are done already" and report.counts["failed"] == 0
    assert calls == [1, 2, 1] and not error.exists()
    report, said = lines_of(configurations, out)
    assert report.outcomes == [] and len(report.skipped) == 2


def test_what_cannot_be_prepared_fails_alone(write, tmp_path):
    path = write({"name": "gone", "root": str(tmp_path / "nowhere")}, {"name": "there"})
    report, said = lines_of(read_sweep(path), tmp_path / "out")
    assert report.counts == {"done": 1, "done before": 0, "failed": 1}
    assert "nowhere" in report.failed[0].error and said[0].startswith("[1/2] gone: failed")


def test_a_result_of_other_settings_is_never_taken_for_done(write, tmp_path):
    out = tmp_path / "out"
    run_sweep(read_sweep(write({"name": "one"})), out, say=print)
    changed = read_sweep(write({"name": "new"}, {"name": "one", "steps": 2}))
    with pytest.raises(DataError, match=r"one.json: was made with other settings \(steps\)"):
        run_sweep(changed, out)
    assert not (out / "new.json").exists(), "nothing runs before"
    (out / "one.json").write_text("{}")
    with pytest.raises(DataError, match="no result file of a sweep"):
        run_sweep(changed, out)


def test_settings_that_a_file_is_too_old_to_know_do_not_matter(write, tmp_path):
    out = tmp_path / "out"
    configurations = read_sweep(write({"name": "one"}))
    run_sweep(configurations, out, say=print)
    content = json.loads((out / "one.json").read_text())
    made = content["settings"]["experiment"]
    del made["people"], made["training"]["routing"]
    (out / "one.json").write_text(json.dumps(content))
    assert configurations[0].is_done(out)
    made["training"]["fusion"] = "sum"  # an older file is still one of its own settings
    (out / "one.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"other settings \(training\)"):
        configurations[0].is_done(out)


def test_a_result_of_fewer_seeds_is_extended(write, tmp_path):
    out = tmp_path / "out"
    path = write({"name": "one", "seeds": [0, 1]})
    (first,) = read_sweep(path, seeds=[0])
    (both,) = read_sweep(path)
    assert first.experiment.seeds == (0,) and both.experiment.seeds == (0, 1)
    run_sweep([first], out, say=print)
    assert first.is_done(out) and not both.is_done(out) and both.seeds_done(out) == (0,)
    assert read_results([both], out).unfinished == ["one"]
    before = json.loads(both.path(out).read_text())["result"]["rows"]["original"]
    assert run_sweep([both], out, say=print).counts["done"] == 1
    after = json.loads(both.path(out).read_text())["result"]["rows"]["original"]
    assert after["per_seed_and_fold"][0] == before["per_seed_and_fold"][0]
    assert len(after["per_seed_and_fold"]) == 2 and both.is_done(out) and first.is_done(out)


def test_faces_are_prepared_once_for_all_that_share_them(write, tmp_path, monkeypatch):
    path = write({"name": "a", "each": {"people": [1, 2]}}, {"name": "b", "backbone": "mini"})
    prepared = []
    prepare = Experiment.prepare

    def counted(self, *arguments, **options):
        prepared.append(self.backbone)
        return prepare(self, *arguments, **options)

    monkeypatch.setattr(Experiment, "prepare", counted)
    run_sweep(read_sweep(path), tmp_path / "out", say=print)
    assert prepared == ["frozen", "mini"]


def test_the_command_counts_and_exits_with_a_failure(write, tmp_path):
    path = write({"name": "gone", "root": str(tmp_path / "nowhere")}, {"name": "there"})
    done = CliRunner().invoke(app, ["sweep", str(path), str(tmp_path / "out")])
    assert done.exit_code == 1 and "1 done, 1 failed" in done.stdout
    assert "failed: gone:" in done.stdout and (tmp_path / "out/there.json").exists()
    path = write({"name": "there"})
    done = CliRunner().invoke(app, ["sweep", str(path), str(tmp_path / "out"), "--json"])
    content = json.loads(done.stdout)
    assert done.exit_code == 0 and content["counts"]["done before"] == 1


def test_a_worker_ends_with_its_parent():
    code = "import time; from norface_lib.common.processes import end_with_process as end\n{}"
    child = code.format(
        "import os; end(os.getppid()); print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environment
    )
    number = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker lives on")
    end_with_process(os.getpid())  # in the parent itself it does nothing


def test_the_estimate_counts_work_not_experiments(write):
    failed, short, head, long = read_sweep(
        write(
            {"name": "failed", "backbone": "mini", "steps": 500},
            {"name": "short", "backbone": "mini", "steps": 10},
            {"name": "head", "backbone": "frozen", "steps": 10},
            {"name": "long", "backbone": "mini", "steps": 990, "rows": ["both"]},
        )
    )
    progress = sweep_runner._Progress([failed, short, head, long], 1)
    error = sweep_runner.Outcome(name="failed", seconds=1, error="no such file")
    assert "left" not in progress.line(error)  # it tells nothing of the others
    line = progress.line(sweep_runner.Outcome(name="short", seconds=6))
    minutes = int(line.partition("(about ")[2].split()[0])
    assert minutes == pytest.approx(6 * 2 * 99 / 60, rel=0.1)
    assert progress.left["head"] < 10 * 0.05  # a step of a head takes a part of a network's
    two = sweep_runner._Progress([short, head, long], 2)
    halved = int(
        two.line(sweep_runner.Outcome(name="short", seconds=6)).split("(about ")[1].split()[0]
    )
    assert halved == pytest.approx(minutes / 2, abs=1)
