"""From the folder of a dataset to the tables of a paper by the commands of docs/real_data.md, one
after another, in the layout of each dataset with its quirks."""

import json

import pandas as pd
import pytest
from test_experiments import benchmark  # noqa: F401
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.datasets import dataset_class

ROADS = {
    "bp4d": "label row f is image f: the lowest number of an image is",
    "bp4d_plus": "label row f is image f - 1, the f'th picture",
    "disfa": "camera: left, by the names of the videos",
    "affectnet": "code 8 (none)",
    "rafdb": "line that cannot be parsed",
}
"""What `inspect` says of each layout."""


def norface(*arguments):
    """Runs a command and returns what it prints."""
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*official subject")
@pytest.mark.parametrize("layout", ROADS)
def test_a_layout_goes_from_its_folder_to_the_tables(layout, benchmark, landmarker, tmp_path):  # noqa: F811
    root, points = tmp_path / "data", tmp_path / "points"
    norface("write-as", layout, benchmark, root)
    assert ROADS[layout] in norface("inspect", layout, root)
    norface("align", root, points, "--layout", layout)
    status = pd.read_csv(points / "points.csv")["status"].value_counts()
    assert status["aligned"] >= 20

    out = tmp_path / "out"
    options = ["--layout", layout, "--points", points / "points.csv"]
    assert "normalized" in norface("normalize", root, out / "normalized", *options)

    for task in dataset_class(layout).tasks:
        call = ["train", root, out, "--dataset", layout, "--task", task, "--steps", 2]
        call += ["--points", points / "points.csv", "--inputs", "both"]
        said = norface(*call, "--export", "csv,latex,markdown")
        result = json.loads((out / task / "result.json").read_text())
        counts = result["counts"]
        assert f"both: {result['result']['rows']['both']['headline']:.3f}" in said
        # nobody published intensities of BP4D+
        assert ("\npublished: " in said) == ((layout, task) != ("bp4d_plus", "au_intensity"))
        assert counts["frames"] == status["aligned"]
        dropped = {name: n for name, n in status.items() if name != "aligned"}
        assert {
            name.removeprefix("frame: "): count
            for name, count in counts["dropped_by_the_loader"].items()
            if name.startswith("frame: ")
        } == dropped
        for suffix in ("csv", "tex", "md"):
            table = out / task / f"tables/labels.{suffix}"
            assert "both" in table.read_text()
