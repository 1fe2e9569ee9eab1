"""Words of errors: no addresses in memory, and the right reason for a path that cannot be used."""

import ast
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, UnidentifiedImageError

import norface_lib
from norface_lib.cli import checks
from norface_lib.cli.reproduce import reproduce
from norface_lib.common.errors import DataError, NorfaceError
from norface_lib.common.failures import reason_of
from norface_lib.common.paths import ROOT
from norface_lib.datasets import open_dataset
from norface_lib.datasets.joined import join_benchmarks
from norface_lib.datasets.label_table import read_labels, read_spec
from norface_lib.datasets.report import Report
from norface_lib.images.files import list_images, read_face
from norface_lib.networks.frozen import frozen_network
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.pretrained import load_encoder_weights

LIBRARY = Path(norface_lib.__file__).parent

FOLDERS = {
    "images": list_images,
    "dataset": lambda path: open_dataset("disfa", path),
    "benchmark": lambda path: open_dataset("rendered", path),
    "labels": read_labels,
    "specification": read_spec,
    "join": lambda path: join_benchmarks([path], path.parent / "out"),
    "reproduce": lambda path: reproduce("smoke", photos=path, only=["00"]),
}
"""Functions that need a folder."""

FILES = {
    "image": lambda path: read_face(path, 112),
    "onnx": lambda path: frozen_network(f"onnx:{path}"),
    "timm": lambda path: frozen_network(f"timm:resnet18@{path}"),
    "encoder": lambda path: load_encoder_weights(Normalizer().encoder, path),
    "option encoder": lambda path: checks.encoder(str(path)),
    "option network": lambda path: checks.network(f"onnx:{path}"),
}
"""Functions that need a file."""


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_folder_is_told_from_a_file(name, tmp_path):
    gone = tmp_path / "gone"
    with pytest.raises(DataError, match=f"{gone}: no such folder"):
        FOLDERS[name](gone)
    file = tmp_path / "file.csv"
    file.write_text("a")
    with pytest.raises(DataError, match=f"{file}: is a file, where a folder is needed"):
        FOLDERS[name](file)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_told_from_a_folder(name, tmp_path):
    kinds = (NorfaceError, checks.BadParameter)
    gone = tmp_path / "gone.onnx"
    with pytest.raises(kinds, match=f"{gone}: no such file"):
        FILES[name](gone)
    with pytest.raises(kinds, match=f"{tmp_path}: is a folder, where a file is needed"):
        FILES[name](tmp_path)


def texts_of(path):
    """Texts of a module but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.value


def test_only_one_place_decides_between_a_missing_path_and_one_of_another_kind():
    places = [
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*.py")
        for text in texts_of(path)
        if re.search("no such (file|folder)(?! or folder)", text)
    ]
    assert set(places) == {"common/paths.py"}


# --- addresses ------------------------------------------------------------------------------------


def objects():
    """Texts of Python that hold an address."""
    yield object()
    yield object().__str__
    yield objects
    yield torch.nn.Linear(1, 1).forward
    yield open


@pytest.mark.parametrize("thing", [*objects(), lambda: None])
def test_no_error_reason_or_report_holds_an_address(thing, tmp_path):
    report = Report("a title")
    report.drop("reason", thing)
    texts = [
        str(DataError(f"a.png: {thing} failed")),
        reason_of(ValueError(f"{thing} failed"), tmp_path),
        report.reasons(),
        str(report),
    ]
    assert not any(re.search("0x[0-9a-f]{4}", text) for text in texts)


def test_what_pillow_says_of_a_damaged_file_holds_no_address(tmp_path):
    with pytest.raises(UnidentifiedImageError, match="0x") as error:
        Image.open(io.BytesIO(b"damaged"))
    assert reason_of(error.value, tmp_path) == "cannot identify image file BytesIO"


# --- names and scripts ----------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["", "  ", "99", "05 "])
def test_a_name_that_no_notebook_has_is_shown_in_quotes(word):
    with pytest.raises(DataError, match=f"no notebook starts with '{word}'; there are 00_"):
        reproduce("smoke", only=["05", word])


@pytest.mark.slow
def test_a_script_that_renders_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    imports = (
        "from norface_lib.faces.benchmark import BenchmarkSpec\n"
        "from norface_lib.faces.writing import write_benchmark\n"
    )
    call = "write_benchmark(BenchmarkSpec(subjects=2, frames=1), 'lab', workers=2, progress=False)"
    script.write_text(imports + call)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script.name],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert 'below `if __name__ == "__main__":`' in last and "out of memory" not in last

    script.write_text(f"{imports}if __name__ == '__main__':\n    {call}")
    subprocess.run([sys.executable, script.name], env=environment, cwd=tmp_path, check=True)
