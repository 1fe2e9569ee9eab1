"""Tables from result files: what stands in them, three formats, markers, and stale documents."""

import csv
import json
import shutil

import pytest
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.common.paths import ROOT
from norface_lib.studies import paper_tables
from norface_lib.studies.ablation_files import people_curves
from norface_lib.studies.generated import (
    DOCUMENTS,
    TABLES,
    renewed,
    stale_documents,
    write_documents,
)
from norface_lib.studies.published import published
from norface_lib.studies.rendered_tables import additions_of
from norface_lib.studies.result_files import ResultFiles
from norface_lib.studies.text_table import FORMATS, TextTable, signed, with_interval

FILES = ResultFiles(ROOT / "results")


def cells(table):
    """Cells by line and column."""
    return {row[0]: dict(zip(table.header[1:], row[1:], strict=True)) for row in table.rows}


@pytest.fixture
def copied(tmp_path):
    """The result files, to change."""
    shutil.copytree(ROOT / "results", tmp_path / "results")
    return tmp_path


def real_result(root, name, task, data, rows, test_data=None, **options):
    """A result file as `train` writes it."""
    experiment = {"task": task, "data": data, "test_data": test_data, "options": options}
    content = {"result": {"rows": rows}, "seed": [0, 1, 2], "settings": {"experiment": experiment}}
    path = root / "results/real" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


# --- documents ------------------------------------------------------------------------------------


def test_the_tables_of_the_documents_are_what_the_result_files_say():
    assert stale_documents(ROOT) == [], "run `python -m norface_lib results --write`"


def test_every_table_stands_in_a_document():
    text = "".join((ROOT / name).read_text() for name in DOCUMENTS)
    assert all(f"<!-- results:{name} -->" in text for name in TABLES)


def test_a_changed_result_makes_documents_stale(copied):
    (copied / "docs").mkdir()
    for name in DOCUMENTS:
        shutil.copy(ROOT / name, copied / name)
    assert stale_documents(copied) == []
    path = copied / "results/full/emotion.json"
    content = json.loads(path.read_text())
    content["result"]["rows"]["both"]["headline"] = 0.123
    path.write_text(json.dumps(content))
    changed = ["docs/measurements.md", "docs/results.md"]
    assert stale_documents(copied) == changed
    assert write_documents(copied) == changed and stale_documents(copied) == []
    assert all("0.123" in (copied / name).read_text() for name in changed)
    before, after = ((root / changed[0]).read_text().splitlines() for root in (ROOT, copied))
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- results:rows -->\n| a |\n", "a.md: a marker .* is not closed"),
        ("<!-- results:rows -->\n<!-- results:emotion -->\n<!-- /results -->", "is not closed"),
        ("<!-- results:figures -->\n<!-- /results -->", "a.md: no table 'figures'; there are au_"),
    ],
)
def test_a_wrong_marker_is_named(text, message):
    with pytest.raises(DataError, match=message):
        renewed(text, FILES, "a.md")


def test_text_around_a_marker_stays():
    new = renewed(
        "before\n<!-- results:emotion -->\nstale\n<!-- /results -->\nafter", FILES, "a.md"
    )
    assert new.startswith("before\n<!-- results:emotion -->\n\n|  | Norface (paper) |")
    assert new.endswith("<!-- /results -->\nafter") and "stale" not in new
    assert renewed(new, FILES, "a.md") == new


# --- the paper's tables ---------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["bp4d", "bp4d_plus", "disfa"])
def test_published_numbers_stand_as_they_were_printed(dataset):
    table = cells(TABLES[f"au_detection-{dataset}"](FILES))
    numbers = published("au_detection", dataset)
    for method, row in numbers.iterrows():
        column = "Norface (paper)" if method == "Norface" else method
        shown = [table[name][column] for name in (*numbers.columns[:-1], "**mean F1**")]
        assert shown == ["" if value != value else f"{value:.1f}" for value in row]


def test_real_data_is_empty_with_the_command_that_fills_it():
    for name in paper_tables.TABLES:
        table = TABLES[name](FILES)
        assert "norface train /your/" in " ".join(table.notes), name
        if paper_tables.OURS_REAL in table.header:
            assert not any(row[paper_tables.OURS_REAL] for row in cells(table).values())


def test_rendered_numbers_stand_apart():
    content = FILES.file("full/au_detection.json").result["lab"]["rows"]["both"]
    table = cells(TABLES["au_detection-bp4d"](FILES))
    rendered = {line: row[paper_tables.OURS_RENDERED] for line, row in table.items()}
    for name, value in content["per_label"].items():
        assert rendered[name] == f"{100 * value:.1f}"
    low, high = content["interval"]
    assert rendered["**mean F1**"].endswith(f"[{100 * low:.1f}, {100 * high:.1f}]")
    disfa = cells(TABLES["au_detection-disfa"](FILES))
    assert not any(row[paper_tables.OURS_RENDERED] for row in disfa.values())


def test_a_mean_over_some_of_the_labels_is_not_shown():
    table = cells(TABLES["au_intensity-bp4d"](FILES))
    rendered = {line: row[paper_tables.OURS_RENDERED] for line, row in table.items()}
    assert rendered["AU12"] and not rendered["AU10"] and rendered["**mean ICC**"] == ""


def test_a_result_on_real_data_fills_its_column(copied):
    aus = [name for name in published("au_detection", "disfa").columns if name != "average"]
    row = {"per_label": dict.fromkeys(aus, 0.5), "interval": [0.4, 0.6], "headline": 0.5}
    real_result(copied, "a.json", "au_detection", "disfa", {"both": row})
    table = TABLES["au_detection-disfa"](ResultFiles(copied / "results"))
    filled = {line: found[paper_tables.OURS_REAL] for line, found in cells(table).items()}
    assert filled == dict.fromkeys(aus, "50.0") | {"**mean F1**": "50.0 [40.0, 60.0]"}
    assert "results/real/a.json`, 3 seeds" in table.notes[1]

    real_result(copied, "c.json", "emotion", "affectnet", {"both": row}, classes=7)
    emotions = cells(TABLES["emotion"](ResultFiles(copied / "results")))
    filled = {line: found[paper_tables.OURS_REAL] for line, found in emotions.items()}
    assert filled.pop("AffectNet, 7 classes") == "50.00 [40.00, 60.00]" and not any(filled.values())

    real_result(copied, "b.json", "au_detection", "bp4d", {"both": row}, test_data="disfa")
    crossing = cells(TABLES["cross-dataset"](ResultFiles(copied / "results")))
    assert crossing["BP4D -> DISFA, AU detection"]["both"] == "0.500 [0.400, 0.600]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no readable result file"),
        ('{"result": {}, "settings": {}}', "was not written by `train`"),
        (
            '{"result": {}, "settings": {"experiment": {"task": "emotion", "data": "rendered"}}}',
            "is of rendered faces",
        ),
    ],
)
def test_a_file_that_does_not_belong_to_the_real_ones_is_named(copied, content, message):
    (copied / "results/real").mkdir(exist_ok=True)
    (copied / "results/real/c.json").write_text(content)
    with pytest.raises(DataError, match=rf"real/c\.json: .*{message}"):
        TABLES["emotion"](ResultFiles(copied / "results"))


def test_without_any_result_file_tables_say_how_to_make_them(tmp_path):
    for name, made in TABLES.items():
        table = made(ResultFiles(tmp_path))
        assert isinstance(table, TextTable), name
    notes = TABLES["cross-dataset-rendered"](ResultFiles(tmp_path)).notes
    assert "--profile full --only 09" in notes[0]
    assert "sweep across" in TABLES["across"](ResultFiles(tmp_path)).notes[0]


# --- ablations and gaps ---------------------------------------------------------------------------


def ablation(
    root, name, people, score, backbone="mini", steps=1000, seeds=(0, 1), training=None, adds=None
):
    """A result file as a sweep of notebook 8 writes it."""
    row = {"headline": score, "interval": [score - 0.1, score + 0.1]}
    experiment = {"people": people, "backbone": backbone, "seeds": list(seeds)}
    experiment["training"] = training
    settings = {"experiment": experiment, "recipe": {"training": {"steps": steps}}}
    rows = {"both": row, "original twice": row}
    result = {"rows": rows}
    if adds is not None:
        gain = {"value": adds, "subjects": [adds - 0.1, adds + 0.1]}
        result["differences"] = {"the normalized face, beside the original": gain}
    content = {"result": result, "settings": settings, "leakage": "pretrained"}
    path = root / "full/ablations" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_curves_over_people_are_read_from_the_files_of_a_sweep(tmp_path):
    assert people_curves(ResultFiles(tmp_path)) == {}
    ablation(tmp_path, "five", 5, 0.3)
    ablation(tmp_path, "fusion", 5, 0.9, seeds=(0,))  # the same with fewer seeds
    ablation(tmp_path, "twenty", 20, 0.5)
    ablation(tmp_path, "settled", 20, 0.8, steps=2000)  # another length, and one number alone
    ablation(tmp_path, "all", 0, 0.6)
    ablation(tmp_path, "alone", 5, 0.2, backbone="frozen")
    curves = people_curves(ResultFiles(tmp_path))
    assert curves.keys() == {"mini"} and curves["mini"].keys() == {"both"}
    points = curves["mini"]["both"]
    assert {count: score for count, (score, _) in points.items()} == {5: 0.3, 20: 0.5}
    table = TABLES["ablations"](ResultFiles(tmp_path))
    assert ("all", "mini", "all", "2", "both", "0.600 [0.500, 0.700]") in table.rows
    assert ("", "", "", "", "original twice", "0.600 [0.500, 0.700]") in table.rows
    assert len(table.rows) == 12


def test_few_people_tell_all_rows_and_longer_trainings_with_their_steps(tmp_path):
    ablation(tmp_path, "rows", 41, 0.6)
    ablation(tmp_path, "settled", 41, 0.7, steps=4000, seeds=(0,))
    ablation(tmp_path, "frozen", 41, 0.5, backbone="frozen", steps=120)
    ablation(tmp_path, "tuned", 41, 0.4, backbone="tuned", steps=200)
    ablation(tmp_path, "mini-people-5", 5, 0.3)
    table = TABLES["few-people"](ResultFiles(tmp_path))
    assert table.rows[2:] == (
        ("small network", "4,000", "1", "both", "0.700 [0.600, 0.800]"),
        ("small network", "4,000", "1", "original twice", "0.700 [0.600, 0.800]"),
        ("frozen backbone", "120", "2", "both", "0.500 [0.400, 0.600]"),
        ("frozen backbone", "120", "2", "original twice", "0.500 [0.400, 0.600]"),
        ("the normalizer's backbone, trained on", "200", "2", "both", "0.400 [0.300, 0.500]"),
        (
            "the normalizer's backbone, trained on",
            "200",
            "2",
            "original twice",
            "0.400 [0.300, 0.500]",
        ),
    )


def test_a_line_for_each_number_of_people_tells_what_the_normalized_face_adds(tmp_path):
    ablation(tmp_path, "frozen-people-5", 5, 0.3, backbone="frozen")
    ablation(tmp_path, "balance", 20, 0.9, backbone="frozen", training={"load": 0.0})
    ablation(tmp_path, "frozen-people-20", 20, 0.4, backbone="frozen", adds=0.15)
    ablation(tmp_path, "rows", 41, 0.6)  # one number alone is no curve
    table = TABLES["people"](ResultFiles(tmp_path))
    assert table.rows == (
        ("frozen", "5", "2", "", "", "0.300", "", ""),
        ("frozen", "20", "2", "", "", "0.400", "", "**+0.150 [+0.050, +0.250]**"),
    )


def test_what_the_normalized_face_adds_stands_above_what_is_left_over_the_original_twice(tmp_path):
    def write(name, result):
        path = tmp_path / "full" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"result": result}))

    beside, mixtures = "the normalized face, beside the original", "both mixtures"
    gain, left = (
        {"value": value, "subjects": [value - 0.02, value + 0.02]} for value in (0.05, 0.01)
    )
    write("emotion.json", {"rows": {}, "differences": {beside: gain, mixtures: left}})
    files = ResultFiles(tmp_path)
    assert list(additions_of(files, "emotion", "wild")) == [beside, mixtures]
    twice = {"the normalized face, beside a second view": left}
    write("original_twice/emotion-wild.json", {"rows": {}, "differences": twice})
    added = additions_of(files, "emotion", "wild")
    assert list(added.items())[:2] == [(beside, gain), ("the same, over the original twice", left)]
    assert additions_of(files, "au_detection", "lab") == {}
    table = TABLES["additions"](files)
    assert [row[0] for row in table.rows] == [*added]
    assert table.rows[1][1:] == ("-", "-", "-", "-", "+0.010 [-0.010, +0.030]")


def test_gaps_stand_in_their_table(tmp_path):
    def row(score):
        return {"headline": score, "interval": [score - 0.1, score + 0.1], "metric": "mean F1"}

    gap = {"value": 0.2, "subjects": [0.1, 0.3]}
    shrinks = {"value": 0.1, "subjects": [0.05, 0.2], "trainings": [-0.1, 0.3]}
    found = {
        "rows": {"original": row(0.4), "both": row(0.5)},
        "in_domain": {"original": row(0.6), "both": row(0.6)},
        "gaps": {"original": gap, "both": gap},
        "shrinkages": {"the normalized face, beside the original": shrinks},
    }
    (tmp_path / "quick").mkdir()
    content = {"result": {"directions": {"a -> b": found}}, "seed": [0]}
    (tmp_path / "quick/cross_dataset.json").write_text(json.dumps(content))
    table = TABLES["cross-dataset-rendered"](ResultFiles(tmp_path))
    assert [line[:2] for line in table.rows] == [("a -> b (mean F1)", "original"), ("", "both")]
    first, second = table.rows
    assert first[2:] == ("0.600 [0.500, 0.700]", "0.400 [0.300, 0.500]", bold_gap(), "")
    assert second[5] == "+0.100 [+0.050, +0.200] [-0.100, +0.300]"
    assert "quick/cross_dataset.json`, 1 seed." in table.notes[0]

    experiment = {"backbone": "mini", "data": {"pool": "wild"}, "test_data": {"pool": "lab"}}
    content = {"result": found, "settings": {"experiment": experiment | {"seeds": [0, 1]}}}
    (tmp_path / "full/across").mkdir(parents=True)
    (tmp_path / "full/across/back.json").write_text(json.dumps(content))
    trained = TABLES["across"](ResultFiles(tmp_path))
    assert trained.rows[0][0] == "wild -> lab, small network, 2 seeds (mean F1)"
    assert [line[1:] for line in trained.rows] == [line[1:] for line in table.rows]


def bold_gap():
    return "**+0.200 [+0.100, +0.300]**"


# --- formats --------------------------------------------------------------------------------------

SMALL = TextTable(
    name="small",
    title="50 % of A_B",
    header=("", "x -> y"),
    rows=(("**mean**", "`a|b` & 1"), ("z", "**+0.1**")),
    notes=("See [there](a.md).",),
)


def test_markdown_csv_and_latex():
    assert SMALL.markdown() == (
        "|  | x -> y |\n|---|---|\n| **mean** | `a\\|b` & 1 |\n| z | **+0.1** |\n\n"
        "See [there](a.md).\n"
    )
    assert list(csv.reader(SMALL.csv().splitlines())) == [
        ["", "x -> y"],
        ["mean", "a|b & 1"],
        ["z", "+0.1"],
    ]
    latex = SMALL.latex()
    assert r"\textbf{mean} & a|b \& 1 \\" in latex and r" & x $\to$ y \\" in latex
    assert r"\caption{50 \% of A\_B. See there.}" in latex and latex.count(r"\begin") == 2


def test_a_row_with_too_few_cells_is_refused():
    with pytest.raises(ValueError, match="each row needs 2 cells"):
        TextTable(name="bad", title="", header=("a", "b"), rows=(("a",),))


def test_numbers_and_what_is_bold():
    assert with_interval(0.5, (0.25, 0.75), digits=2) == "0.50 [0.25, 0.75]"
    assert with_interval(0.5, None) == "0.500"
    assert signed(0.1, (0.05, 0.2), (0.01, 0.3), digits=1) == "**+0.1 [+0.1, +0.2] [+0.0, +0.3]**"
    assert signed(0.1, (0.05, 0.2), (-0.01, 0.3), digits=1).startswith("+0.1")
    assert signed(-0.1, (-0.2, -0.05), None, digits=1) == "**-0.1 [-0.2, -0.1]**"
    assert signed(0.1, None) == "+0.100"


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_writes_every_table(form, tmp_path):
    call = ["results", "--format", form, "--out", str(tmp_path)]
    done = CliRunner().invoke(app, call, catch_exceptions=False)
    assert done.exit_code == 0 and len(list(tmp_path.iterdir())) == len(TABLES)
    assert all(path.read_text() for path in tmp_path.iterdir())


def test_the_command_prints_one_table_and_checks(monkeypatch):
    done = CliRunner().invoke(app, ["results", "--table", "emotion"], catch_exceptions=False)
    assert done.exit_code == 0 and "RAF-DB | 92.97" in done.output and "AU01" not in done.output
    done = CliRunner().invoke(app, ["results", "--check"], catch_exceptions=False)
    assert done.exit_code == 0 and "up to date" in done.output
    from norface_lib.studies import generated

    monkeypatch.setattr(generated, "stale_documents", lambda root: ["README.md"])
    done = CliRunner().invoke(app, ["results", "--check"], catch_exceptions=False)
    assert done.exit_code == 1 and "README.md: the tables are not" in done.output
