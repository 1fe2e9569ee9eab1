"""`publish`: results and figures of a run go to the tracked folders, and outputs into notebooks."""

import base64
import json

import cv2
import nbformat
import numpy as np
import pytest
from nbformat import v4

from norface_lib.cli import publish as module
from norface_lib.cli.publish import publish
from norface_lib.common.errors import DataError
from norface_lib.common.paths import run_file


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small repository with one notebook, and a folder of runs."""
    monkeypatch.setenv("NORFACE_RUNS", str(tmp_path / "runs"))
    for name in ("ROOT", "NOTEBOOKS"):
        monkeypatch.setattr(module, name, tmp_path / ("notebooks" if name == "NOTEBOOKS" else ""))
    (tmp_path / "notebooks").mkdir()
    cell = v4.new_code_cell("1 + 1", metadata={"tags": []})
    meta = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    notebook = v4.new_notebook(cells=[cell], metadata=meta)
    nbformat.write(notebook, tmp_path / "notebooks/01_sum.ipynb")
    cell.outputs = [v4.new_output("execute_result", {"text/plain": "2"})]
    for profile in ("quick", "full"):
        nbformat.write(notebook, run_file(profile, "01_sum.ipynb"))
        run_file(profile, "results", "sum.json").write_text(json.dumps(profile))
        run_file(profile, "figures", "sum.png").write_bytes(profile.encode())
        run_file(profile, "summary.json").write_text("{}")
    return tmp_path


def shown(checkout):
    return nbformat.read(checkout / "notebooks/01_sum.ipynb", as_version=4).cells[0].outputs


def test_quick_is_what_readers_see(checkout):
    written = publish("quick")
    assert len(written) == 4 and shown(checkout)[0].data["text/plain"] == "2"
    (cell,) = nbformat.read(checkout / "notebooks/01_sum.ipynb", as_version=4).cells
    assert cell.execution_count == cell.outputs[0].execution_count == 1
    assert json.loads((checkout / "results/quick/sum.json").read_text()) == "quick"
    assert (checkout / "results/quick/summary.json").exists()
    assert (checkout / "figures/sum.png").read_bytes() == b"quick"


def test_widgets_that_need_a_kernel_are_left_out_and_plain_html_is_not(checkout):
    path = run_file("quick", "01_sum.ipynb")
    notebook = nbformat.read(path, as_version=4)
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "HBox()"}
    html = {"text/html": "<b>a wipe</b>", "text/plain": "<HTML>"}
    notebook.cells[0].outputs = [v4.new_output("display_data", data) for data in (view, html)]
    nbformat.write(notebook, path)
    publish("quick")
    assert [output.data["text/html"] for output in shown(checkout)] == ["<b>a wipe</b>"]


def test_of_full_the_result_files_alone(checkout):
    (written,) = publish("full")
    assert written == checkout / "results/full/sum.json" and not shown(checkout)
    assert json.loads(written.read_text()) == "full"
    assert not (checkout / "figures").exists()


def test_a_run_of_another_version_changes_nothing(checkout):
    path = checkout / "notebooks/01_sum.ipynb"
    path.write_text(path.read_text().replace("1 + 1", "1 + 2"))
    with pytest.raises(DataError, match="another version of the notebook"):
        publish("quick")
    assert not (checkout / "results").exists() and not (checkout / "figures").exists()


def test_a_run_that_is_not_there_is_named(checkout):
    with pytest.raises(DataError, match="no result file there; run the profile smoke first"):
        publish("smoke")
    (checkout / "runs/quick/01_sum.ipynb").unlink()
    with pytest.raises(DataError, match=r"01_sum\.ipynb: not there; run the profile quick"):
        publish("quick")


def test_a_picture_keeps_its_text_when_it_becomes_a_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    png = base64.b64encode(cv2.imencode(".png", noise)[1].tobytes()).decode()
    picture = v4.new_output(
        "display_data", {"image/png": png}, metadata={"image/png": {"alt": "two bars"}}
    )
    (smaller,) = module._smaller([picture], pixels=10_000, quality=70)
    assert smaller.metadata == {"image/jpeg": {"alt": "two bars"}}
    assert set(smaller.data) == {"image/jpeg"} and picture.metadata["image/png"]


def test_the_readme_gets_a_small_picture_of_each_notebook(checkout):
    def output(shade):
        picture = cv2.imencode(".png", np.full((300, 900, 3), shade, np.uint8))[1]
        return v4.new_output(
            "display_data", {"image/png": base64.b64encode(picture.tobytes()).decode()}
        )

    path = checkout / "notebooks/01_sum.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].metadata["tags"] = []
    notebook.cells.append(v4.new_code_cell("2 + 2", metadata={"tags": ["thumbnail"]}))
    nbformat.write(notebook, path)
    for cell, shade in zip(notebook.cells, (10, 200), strict=True):
        cell.outputs = [output(shade)]
    nbformat.write(notebook, run_file("quick", path.name))

    assert checkout / "figures/thumbnails/01.jpg" in publish("quick")
    image = cv2.imread(str(checkout / "figures/thumbnails/01.jpg"))
    assert image.shape == (108, 180, 3)
    assert abs(float(image.mean()) - 200) < 3, "of the cell that is tagged"


def test_lines_about_the_run_are_no_reading_matter(checkout):
    notebook = nbformat.read(checkout / "notebooks/01_sum.ipynb", as_version=4)
    text = (
        "classifier-seed0-fold1: trained already, used as it is\n"
        "lab: 900 faces of 30 people\n"
        "05.lab.both.mean_f1 = 0.645, expected 0.647 +- 0.03\n"
    )
    only_of_the_run = "lab-64: 30 subjects x 4 frames are there already, used as they are\n"
    notebook.cells[0].outputs = [
        v4.new_output("stream", name="stdout", text=text),
        v4.new_output("stream", name="stdout", text=only_of_the_run),
    ]
    nbformat.write(notebook, run_file("quick", "01_sum.ipynb"))
    publish("quick")
    (output,) = shown(checkout)
    assert output.text == "lab: 900 faces of 30 people\n"
