"""Reading folders, result files, and the figures' and widgets' plain functions."""

import json
import time

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from norface_lib import labels
from norface_lib.common import records
from norface_lib.common.errors import DataError
from norface_lib.common.records import check_expected, write_result
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces import gallery
from norface_lib.faces.studio import Studio
from norface_lib.images import sheets
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.studies import smiles
from norface_lib.tasks.tasks import Detection
from norface_lib.training.classifier import predict
from norface_lib.viz import plots, widgets

ENCODER = EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16))


# --- folders of faces -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return Classifier(
        ClassifierConfig(labels.columns(), inputs="both", encoder=ENCODER, hidden=16)
    ).eval()


def test_a_labeled_folder_gives_sheet_and_auc(tmp_path):
    root = smiles.write_smiles(tmp_path / "smiles", subjects=2)
    assert smiles.write_smiles(root, subjects=2) == root
    table = pd.read_csv(root / "labels.csv")
    assert table["expression"].tolist() == ["neutral", "smile"] * 2
    sheet = tmp_path / "sheet.png"
    out = tmp_path / "out"
    faces = smiles.read_smiles(root, out, sheet=sheet, readers=["tiny-au", "tiny-au"])
    labeled = "2 smiling, 2 neutral"
    assert faces == {"faces": 4, "crop": "norface", "smile_auc": 1.0, "smile_labels": labeled}
    assert cv2.imread(str(sheet)).shape[:2] == (2 * 114 + 6, 4 * 114)
    (root / "labels.csv").unlink()
    again = smiles.read_smiles(root, out, sheet=sheet, readers=["tiny-au"])
    assert again["smile_auc"] is None and again["smile_labels"] == "there is no labels.csv"


@pytest.mark.parametrize(
    ("text", "labeled"),
    [
        ("image,expression\na.jpg,smile\nb.jpg,neutral\n", "1 smiling, 1 neutral"),
        (
            '\ufeff"Image" ; Expression \n\n a.jpg ; Smile \n ; \nB.JPG;NEUTRAL\n',
            "1 smiling, 1 neutral",
        ),
        (
            "image\texpression\n.\\a.jpg\thappy\nb.jpg\tneutral\nc.jpg\tsmile\n",
            "1 names without a face",
        ),
        (
            "image,expression\na.jpg,smile\nb.jpg,smiling\n",
            "1 values of expression that are neither",
        ),
        ("image,expression\na.jpg,smile\n", "1 faces without a label: 'b.jpg'"),
        ("image,subject\na.jpg,p\n", "labels.csv has no column expression"),
    ],
)
def test_labels_of_smiles_are_matched_and_what_is_not_is_said(tmp_path, text, labeled):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    scores = pd.Series([0.9, 0.2], ["a.jpg", "b.jpg"])
    smile_auc, known = smiles._smile_auc(path, scores)
    assert labeled in known
    assert smile_auc == (1.0 if "1 smiling, 1 neutral" in known else None)


def test_labels_that_name_no_face_are_refused(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("image,expression\nx.jpg,smile\n")
    with pytest.raises(DataError, match=r"labels\.csv: names none of the 1 faces, but 'x\.jpg'"):
        smiles._smile_auc(path, pd.Series([0.9], ["a.jpg"]))
    path.write_text("file,expression\na.jpg,smile\n")
    with pytest.raises(DataError, match="lacks the column image; its columns are file, expression"):
        smiles._smile_auc(path, pd.Series([0.9], ["a.jpg"]))


def test_predictions_do_not_depend_on_the_batch(detector, tiny_benchmark):
    faces = Rendered(tiny_benchmark).originals
    whole, parts = (
        predict(detector, faces, faces, Detection(labels.columns()), size) for size in (64, 5)
    )
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    assert whole.shape == (len(faces), 12) and (whole >= 0).all() and (whole <= 1).all()


# --- results, figures, widgets --------------------------------------------------------------------


def test_a_result_says_how_it_was_made(tmp_path):
    given = {
        "seed": 3,
        "started": time.monotonic(),
        "counts": {"faces": 7, "dropped": 0},
        "settings": {"steps": 1},
    }
    path = write_result(tmp_path / "r.json", {"f1": 0.5}, leakage="pretrained", **given)
    found = json.loads(path.read_text())
    assert found["result"] == {"f1": 0.5} and found["seed"] == 3 and found["counts"]["faces"] == 7
    assert {
        "leakage",
        "seconds",
        "peak_memory_mb",
        "machine",
        "versions",
        "settings",
    } <= found.keys()
    assert "torch" in found["versions"] and found["machine"]["cores"] >= 1
    with pytest.raises(ValueError, match="leakage must be"):
        write_result(tmp_path / "r.json", {}, leakage="none", **given)


def test_expected_numbers_are_compared(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    content = {
        "parameters": {"quick": {"05": {"people": 30, "loss": "dice"}}},
        "values": {"quick": {"05.a": {"value": 0.5, "tolerance": 0.1}}},
    }
    (tmp_path / "results/expected.json").write_text(json.dumps(content))
    monkeypatch.setattr(records, "ROOT", tmp_path)
    notebook = {"profile": "quick", "people": 30, "loss": "dice", "results": {}}
    assert "expected 0.5" in check_expected(notebook, "05.a", 0.55)
    with pytest.raises(AssertionError, match=r"05\.a = 0\.700, expected 0\.5"):
        check_expected(notebook, "05.a", 0.7)
    assert "not compared: no number" in check_expected(notebook | {"profile": "smoke"}, "05.a", 0.9)
    assert "not compared: no number" in check_expected(notebook, "05.b", 0.9)
    other = check_expected(notebook | {"loss": "bce"}, "05.a", 0.9)
    assert other == "05.a = 0.900 (not compared: loss is 'bce', of profile quick 'dice')"


def test_figures_draw_what_they_are_given():
    faces = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    sheet = sheets.contact_sheet([faces, faces[::-1]], columns=2)
    np.testing.assert_array_equal(sheet[:16, :16], faces[0])
    np.testing.assert_array_equal(sheet[18:34, :16], faces[4])
    assert sheets.difference(faces, faces).min() == 255
    axis = plots.strip({"a": faces, "b": faces[::-1]}, titles=list("vwxyz")).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axis.get_xticklabels()] == list("vwxyz")
    drawn = axis.images[0].get_array()
    np.testing.assert_array_equal(drawn[:16, :16], faces[0])
    np.testing.assert_array_equal(drawn[17:33, 17:33], faces[3])
    mixed = plots.strip({"small": faces[:2, :8, :8], "large": faces[:2]}).axes[0]
    assert mixed.images[0].get_array().shape == (34, 34, 3)
    np.testing.assert_array_equal(mixed.images[0].get_array()[17:33, 17:33], faces[1])
    bars = (
        plots.f1_bars(["AU1", "AU2"], {"original": [0.1, 0.2], "both": [0.3, 0.4]}).axes[0].patches
    )
    assert [bar.get_height() for bar in bars] == [0.1, 0.2, 0.3, 0.4]


def test_a_wipe_shows_both_faces():
    left, right = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 100, np.uint8)
    mixed = widgets.wipe(left, right, 0.5)
    assert mixed[0, 0, 0] == 0 and mixed[0, -1, 0] == 100 and mixed[0, 4, 0] == 255
    np.testing.assert_array_equal(widgets.wipe(left, right, 1.0), left)
    np.testing.assert_array_equal(widgets.wipe(left, right, 0.0), right)
    larger = widgets.wipe(left, np.full((16, 16, 3), 100, np.uint8), 0.5)
    assert larger.shape == (16, 16, 3) and larger[0, 0, 0] == 0 and larger[0, -1, 0] == 100


@pytest.mark.slow
def test_sheets_show_the_people_and_aus_that_are_asked_for():
    sheet = gallery.people("wild", 3, size=48)
    assert sheet.shape == (3, 48, 48, 3) and len({face.tobytes() for face in sheet}) == 3
    studio = Studio(48)
    steps = gallery.au_steps(studio, gallery.plain_people(2), 12)
    assert steps.shape == (2 * len(gallery.STEPS), 48, 48, 3)
    moved = (
        np.abs(steps.astype(int) - np.repeat(steps[[0, 4]], 4, axis=0))
        .mean((1, 2, 3))
        .reshape(2, 4)
    )
    assert (np.diff(moved) > 0).all() and (moved[:, 0] == 0).all()


def test_pictures_of_gates_show_the_gates():
    maps = plots.painted(np.array([[[0, 1], [2, 0]]]), colors=("#ff0000", "#00ff00", "#0000ff"))
    assert maps[0, 0].tolist() == [[255, 0, 0], [0, 255, 0]] and maps[0, 1, 0].tolist() == [
        0,
        0,
        255,
    ]
    gates = np.array([[0.6, 0.4, 0.0], [0.0, 0.1, 0.9]], np.float32)
    figure = plots.gate_maps(["AU01", "AU02"], {"run 1": gates, "run 2": gates[::-1]})
    first, second = figure.axes[:2]
    assert [text.get_text() for text in first.texts] == [
        "0.60",
        "0.40",
        "0.00",
        "0.00",
        "0.10",
        "0.90",
    ]
    assert first.texts[0].get_text() == second.texts[3].get_text() and first.get_title() == "run 1"
    centered = (
        plots.gate_maps(["AU01", "AU02"], {"": gates - 0.5}, center=0.0).axes[0].collections[0].norm
    )
    assert (centered.vmin, centered.vmax) == pytest.approx((-0.5, 0.5))
    areas = (
        plots.expert_shares({"a": ([0, 10], np.array([[0.5, 0.5], [0.2, 0.8]]))})
        .axes[0]
        .collections
    )
    assert (
        areas[0].get_paths()[0].vertices[:, 1].max() == 0.5
        and areas[1].get_paths()[0].vertices[:, 1].max() == 1.0
    )


def test_a_slider_shows_ready_figures():
    face = np.zeros((8, 8, 3), np.uint8)
    gates = np.array([[1.0, 0.0], [0.3, 0.7]])
    figures = {
        n: plots.face_gates(face, face, gates[i], gates, ["a", "b"], np.array([0.25, i]))
        for i, n in enumerate("xy")
    }
    assert [bar.get_height() for bar in figures["y"].axes[1].patches] == [0.3, 0.7]
    assert [label.get_text() for label in figures["x"].axes[2].get_yticklabels()] == [
        "a  0.25",
        "b  0.00",
    ]
    stack, slider = widgets.browse(figures, "face").children
    assert [name for name, _ in slider.options] == ["x", "y"]
    pictures = [
        cv2.imdecode(np.frombuffer(frame.value, np.uint8), cv2.IMREAD_COLOR)
        for frame in stack.children
    ]
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()
