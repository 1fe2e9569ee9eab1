"""The published numbers: complete, consistent with themselves, never mixed with measured ones."""

import json

import numpy as np
import pytest

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.protocols import LABELS
from norface_lib.studies import published
from norface_lib.studies.published import PAPER, PUBLISHED, beside_paper

CONTENT = json.loads(PUBLISHED.read_text(encoding="utf-8"))
NAMES = [(table["task"], table["dataset"], table["metric"]) for table in CONTENT["tables"]]


def rows():
    return [(table, row) for table in CONTENT["tables"] for row in table["rows"]]


@pytest.mark.parametrize(
    ("table", "row"), [pair for pair in rows() if pair[1]["values"] is not None]
)
def test_printed_averages_are_the_means_of_the_printed_labels(table, row):
    """Within rounding of the average itself, so a digit that was copied wrong shows."""
    assert len(row["values"]) == len(table["labels"])
    assert row["average"] == pytest.approx(np.mean(row["values"]), abs=0.05 + 1e-9)


def test_averages_of_folds_agree():
    (row,) = (row for _, row in rows() if "folds" in row)
    assert row["average"] == pytest.approx(np.mean(row["folds"]), abs=0.05)


def test_every_number_has_a_source_and_a_status():
    assert all(row["source"] and row["status"] in CONTENT["statuses"] for _, row in rows())
    assert all(row["status"] == "second hand" for _, row in rows() if row["method"] == PAPER), (
        "the paper was not at hand"
    )
    assert all(table["protocol"] for table in CONTENT["tables"])
    assert len(set(NAMES)) == len(NAMES)


def test_labels_are_those_of_the_datasets():
    for table in CONTENT["tables"]:
        task = table["task"] if table["task"] in LABELS else table["task"].removeprefix("au_")
        known = LABELS[task].get(table["dataset"], ())
        assert tuple(table["labels"]) == (
            () if table["task"] == "emotion" else labels.columns(known)
        )


def test_the_papers_headlines():
    """PAPER.md 1.6."""
    found = {name: published.published(*name) for name in NAMES}
    headlines = {
        "/".join(name): table.loc[PAPER, "average"]
        for name, table in found.items()
        if PAPER in table.index
    }
    assert headlines == {
        "au_detection/bp4d/f1": 69.3,
        "au_detection/bp4d_plus/f1": 66.7,
        "au_detection/disfa/f1": 72.7,
        "au_intensity/bp4d/icc": 0.74,
        "au_intensity/disfa/icc": 0.67,
        "au_intensity/disfa/mse": 0.22,
        "au_intensity/disfa/mae": 0.17,
        "emotion/affectnet/accuracy": 68.69,
        "emotion/rafdb/accuracy": 92.97,
    }


def test_a_table_says_where_it_is_from():
    table = published.published("au_detection", "disfa")
    assert table.loc[PAPER, "AU12"] == 81.7 and table.loc["FMAE-IAT", "average"] == 70.1
    assert np.isnan(table.loc["JAA-Net v2", "AU01"]), "no AU of it is known"
    assert (
        table.attrs["status"]["FMAE-IAT"] == "established"
        and "DISFA SOTA Benchmark" in table.attrs["source"][PAPER]
    )
    assert "+-0.065" in published.published("au_detection", "bp4d_plus").attrs["caution"]


def test_measured_and_printed_stand_apart():
    ours = dict.fromkeys(labels.columns((1, 2, 4, 6, 9, 12, 25, 26)), 0.5) | {"AU01": 0.3}
    table = beside_paper(ours, "au_detection", "disfa")
    assert table["number"].to_dict() == {"ours": "measured", PAPER: "paper"}
    assert table["data"].to_dict() == {"ours": "rendered", PAPER: "real"}
    assert table.loc["ours", "AU01"] == pytest.approx(30) and table.loc[
        "ours", "average"
    ] == pytest.approx(47.5)
    assert table.loc[PAPER, "average"] == 72.7 and table.attrs["unit"] == "percent"
    assert list(beside_paper({"average": 0.4}, "emotion", "rafdb", data="real")["data"]) == [
        "real",
        "real",
    ]


def test_an_average_needs_all_labels_and_keeps_its_unit():
    assert np.isnan(beside_paper({"AU01": 0.3}, "au_detection", "bp4d").loc["ours", "average"])
    errors = dict.fromkeys(labels.columns((1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)), 1.5)
    assert beside_paper(errors, "au_intensity", "disfa", "mse").loc["ours", "average"] == 1.5


def test_wrong_use_says_what_there_is(tmp_path, monkeypatch):
    with pytest.raises(
        DataError,
        match=r"no published numbers for au_detection/gft; there are au_detection/bp4d/f1, .*rafdb",
    ):
        published.published("au_detection", "gft")
    with pytest.raises(DataError, match="au_detection/bp4d/icc"):
        published.published("au_detection", "bp4d", "icc")
    with pytest.raises(
        DataError,
        match="paper's number for emotion/affectnet7 is not known; known are those of DAN",
    ):
        beside_paper({}, "emotion", "affectnet7")
    with pytest.raises(ValueError, match=r"no column AU99; there are AU01, .*average"):
        beside_paper({"AU99": 0.3}, "au_detection", "bp4d")
    with pytest.raises(ValueError, match=r"within 0\.\.1.*percent"):
        beside_paper({"AU01": 47.2}, "au_detection", "bp4d")
    with pytest.raises(ValueError, match="data must be one of rendered, real"):
        beside_paper({}, "au_detection", "bp4d", data="synthetic")
    monkeypatch.setattr(published, "PUBLISHED", tmp_path / "published.json")
    published._tables.cache_clear()
    with pytest.raises(DataError, match=r"published\.json: missing or damaged; install"):
        published.published("au_detection", "bp4d")
    published._tables.cache_clear()
