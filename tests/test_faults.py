"""A short part of the fault suite, and tests of its comparison, which must see what it looks for.

The whole suite is `make faults`.
"""

import json
import shutil
from random import Random

import pytest
from faults.__main__ import main
from faults.commands import OUT, Bench, Kind, Shared, clean_run, faults_of_end
from faults.comparing import Faults, bad_end, differences, leftovers, snapshot
from faults.inputs import faults_of_rows, faults_of_table
from faults.running import ROOT, Outcome, Server
from faults.suite import KINDS, Journal, kinds_of, run_suite, table
from faults.weights import faults_of_report

SHORT = (
    "kill -9: align",
    "kill -9: normalize",
    "kill -9: predict",
    "disk full: align",
    "two processes: normalize",
    "changed source: predict",
    "same names: normalize",
    "damaged images",
    "damaged videos",
    "damaged zips",
    "damaged label files",
)
"""Kinds of which an attempt takes seconds."""

SLOW = (
    "kill -9: render",
    "kill -9: train",
    "kill -9: train-normalizer",
    "disk full: train",
    "two processes: train",
)
"""Kinds of which it takes longer. The rest of the suite are the same faults of other commands."""

BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope="module")
def bench(tmp_path_factory, tiny_benchmark):
    folder = tmp_path_factory.mktemp("faults")
    shutil.copytree(tiny_benchmark, folder / "shared" / "benchmark")
    with Server(folder / "server") as server:
        yield Bench(server, folder, Shared(folder / "shared"))
    shutil.rmtree(folder)


def none_in(bench: Bench, name: str) -> None:
    faults = BY_NAME[name].attempt(bench, 0, Random(f"test {name}"))
    assert not faults.lost and not faults.wrong


@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost_or_wrong(bench, name):
    none_in(bench, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_nothing_is_lost_or_wrong_in_kinds_that_take_longer(bench, name):
    none_in(bench, name)


# --- the comparison with an undisturbed run -------------------------------------------------------

LOST = {
    "a file": lambda out: (out / "a" / "0.png").unlink(),
    "rows": lambda out: rewrite(out / "faces.csv", lambda lines: lines[:-1]),
    "a folder": lambda out: shutil.rmtree(out / "b"),
}

WRONG = {
    "a text": lambda out: rewrite(out / "faces.csv", changed("aligned", "no face")),
    "a number": lambda out: rewrite(out / "faces.csv", changed("112.0", "112.1")),
    "a row twice": lambda out: rewrite(out / "faces.csv", lambda lines: [*lines, lines[-1]]),
    "the order": lambda out: rewrite(out / "faces.csv", lambda lines: lines[:1] + lines[:0:-1]),
    "pixels": lambda out: shutil.copy(out / "a" / "0.png", out / "a" / "2.png"),
    "a file too much": lambda out: shutil.copy(out / "a" / "0.png", out / "a" / "9.png"),
    "half of a JSON": lambda out: (out / "crop.json").write_text("{"),
    "a temporary file": lambda out: (out / ".faces.csv.17.part").write_text("half"),
}


def rewrite(path, change):
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def changed(before, after):
    return lambda lines: [*lines[:-1], lines[-1].replace(before, after, 1)]


@pytest.fixture
def finished(bench, tmp_path):
    """An undisturbed run, and a copy of its folder."""
    clean = clean_run(bench, "align")
    shutil.copytree(clean.folder, tmp_path / "copy")
    return clean, tmp_path / "copy"


GOOD = Outcome(code=0, out="", err="", seconds=1.0)


def test_an_undisturbed_run_has_no_faults(finished):
    clean, folder = finished
    assert faults_of_end(clean, folder, GOOD) == Faults()


@pytest.mark.parametrize("loss", LOST)
def test_a_planted_loss_is_counted(finished, loss):
    clean, folder = finished
    LOST[loss](folder / OUT)
    assert faults_of_end(clean, folder, GOOD).lost


@pytest.mark.parametrize("fault", WRONG)
def test_a_planted_wrong_result_is_counted(finished, fault):
    clean, folder = finished
    WRONG[fault](folder / OUT)
    faults = faults_of_end(clean, folder, GOOD)
    assert faults.wrong and not faults.lost


def test_times_and_hidden_files_are_not_compared(tmp_path):
    (tmp_path / "result.json").write_text('{"value": 1, "seconds": 2}')
    before = snapshot(tmp_path)
    (tmp_path / "result.json").write_text('{"value": 1, "seconds": 3}')
    (tmp_path / ".lock").touch()
    assert differences(before, snapshot(tmp_path)) == leftovers(tmp_path) == Faults()


# --- how a command ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "err", "text"),
    [
        (None, "", "hung"),
        (-11, "", "signal 11"),
        (1, "Traceback (most recent call last):\nKeyError: 1", "traceback"),
        (0, "", "exit code 0"),
        (1, "KeyError: 1", "no sentence"),
        (1, "norface: <Image at 0x7f5d1c2b3a40> in OUT", "address"),
        (1, "norface: no space", "without OUT"),
        (1, "norface: OUT: no space", ""),
        (1, "read: 5%\rnorface: OUT: no dataset. It should hold\n    T1/1.jpg\nFound: b/", ""),
        (1, "norface: OUT: no dataset\nTraceback (most recent call last):", "traceback"),
    ],
)
def test_a_refusal_is_a_sentence_that_names_the_place(code, err, text):
    outcome = Outcome(code=code, out="", err=err, seconds=1.0)
    end = bad_end(outcome, ["OUT"])
    assert text in end[0] if text else not end


@pytest.mark.parametrize(("code", "good"), [(0, True), (1, False), (-9, False), (None, False)])
def test_a_run_that_must_succeed_ends_with_0(code, good):
    outcome = Outcome(code=code, out="", err="norface: full", seconds=1.0)
    assert (not bad_end(outcome, [], refused=False)) == good


# --- tables of damaged inputs ---------------------------------------------------------------------


def row(source, status="aligned", **more):
    return {"source": source, "frame": "", "face": "0", "status": status, "AU12": "0.5"} | more


CLEAN = [row("a.jpg"), row("b.jpg")]


@pytest.mark.parametrize(
    ("rows", "lost", "wrong"),
    [
        ([*CLEAN, row("x.jpg", "unreadable", error="no image")], 0, 0),
        ([row("a.jpg", AU12="0.5001"), *CLEAN[1:], row("x.jpg")], 0, 0),
        (CLEAN, 1, 0),
        ([*CLEAN[1:], row("x.jpg")], 1, 0),
        ([*CLEAN, row("x.jpg", "unreadable")], 0, 1),
        ([row("a.jpg", AU12="0.7"), *CLEAN[1:], row("x.jpg")], 0, 1),
        ([row("a.jpg", "no face"), *CLEAN[1:], row("x.jpg")], 0, 1),
        ([*CLEAN, *CLEAN[1:], row("x.jpg")], 0, 1),
        ([*CLEAN, row("c.jpg"), row("x.jpg")], 0, 1),
    ],
)
def test_each_file_has_its_row_and_whole_files_have_their_values(rows, lost, wrong):
    faults = faults_of_table(CLEAN, rows, ["x.jpg"])
    assert (len(faults.lost), len(faults.wrong)) == (lost, wrong)


def test_rows_of_other_files_and_words_about_a_damaged_one_are_looked_for(tmp_path):
    clean = [{"path": f"F00{n}.zip!{k}.jpg"} for n in (1, 2) for k in (1, 2)]
    damaged = tmp_path / "F001.zip"

    def faults(rows, words):
        outcome = Outcome(code=0, out=words, err="", seconds=1.0)
        return faults_of_rows(clean, rows, damaged.name, damaged, outcome)

    assert faults(clean[1:], "dropped: F001.zip") == Faults()
    assert faults(clean[1:], "").wrong
    assert faults(clean[:3], "dropped: F001.zip").lost


def test_failed_attacks_are_counted(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase>'
        '<testcase name="c"><skipped/></testcase></testsuite></testsuites>'
    )
    assert faults_of_report(report) == Faults(tries=2, wrong=["b fails"])
    assert faults_of_report(tmp_path / "missing.xml").lost


# --- the suite ------------------------------------------------------------------------------------


def planted(bench: Bench, number: int, random: Random) -> Faults:
    return Faults(lost=["a row"] * (number == 1), wrong=["a value"] * (number in (0, 1)))


class NoServer:
    def __init__(self, folder):
        self.folder = folder

    def close(self):
        pass


@pytest.fixture
def without_server(monkeypatch, tmp_path):
    monkeypatch.setattr("faults.suite.Server", NoServer)
    monkeypatch.setattr("faults.suite.JOURNALS", tmp_path / "journals")


def test_the_suite_counts_reports_and_fails(without_server, monkeypatch, tmp_path, capsys):
    kinds = [Kind(name="planted", attempt=planted, tries=4)]
    monkeypatch.setattr("faults.suite.KINDS", kinds)
    out = tmp_path / "report"
    monkeypatch.setattr("sys.argv", ["faults", "--out", str(out)])
    assert main() == 1
    assert "| planted | 4 | 1 | 2 |" in (out / "faults.md").read_text()
    assert "cores" in (out / "faults.md").read_text()
    result = json.loads((out / "faults.json").read_text())["result"]
    assert result[0]["faults"] == ["wrong: a value", "lost: a row", "wrong: a value"]
    assert "a value" in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", ["faults", "--out", str(out), "--tries", "1", "--seed", "7"])
    monkeypatch.setattr("faults.suite.KINDS", [Kind(name="fine", attempt=fine, tries=4)])
    assert main() == 0


def fine(bench: Bench, number: int, random: Random) -> Faults:
    return Faults()


def test_attempts_that_have_ended_are_not_made_again(without_server, tmp_path):
    made = []

    def attempt(bench, number, random):
        made.append((number, random.random()))
        if len(made) == 3:
            raise RuntimeError("stopped")
        return Faults()

    kinds = [Kind(name="stopped", attempt=attempt, tries=4)]
    settings = {"tries": None, "seed": 0, "workers": 1, "out": tmp_path}
    with pytest.raises(RuntimeError, match="stopped"):
        run_suite(kinds, **settings)
    rows = run_suite(kinds, **settings)
    assert [number for number, _ in made] == [0, 1, 2, 2, 3]
    assert made[2] == made[3]
    assert rows[0].tries == 4


def test_half_a_line_of_a_killed_suite_is_left_out(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path).add("kill", 0, Faults(), 1.0)
    with path.open("a") as file:
        file.write('\n{"kind": "ki')
    Journal(path).add("kill", 1, Faults(), 1.0)
    assert set(Journal(path).known) == {("kill", 0), ("kill", 1)}


def test_the_published_table_has_every_kind_and_no_fault():
    lines = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split(" | ")[0].strip("| "): line.strip("|").split("|")[1:] for line in lines}
    for kind in KINDS:
        (name,) = [name for name in rows if name == kind.name or name.startswith(f"{kind.name} (")]
        tries, lost, wrong = (int(cell) for cell in rows[name])
        assert tries >= kind.tries and lost == wrong == 0
    assert sum(kind.tries for kind in kinds_of(["damaged"])) == 1000


def test_kinds_are_chosen_by_words():
    assert {kind.name for kind in kinds_of(["zips", "two"])} < {kind.name for kind in KINDS}
    with pytest.raises(SystemExit, match="no kind contains"):
        kinds_of(["nothing"])
    assert table([]).endswith("| **all** | 0 | 0 | 0 |")
