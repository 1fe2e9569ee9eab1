"""A notebook takes the package of the checkout that it lies in, wherever it is run from."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from norface_lib.common import checkout as module
from norface_lib.common.checkout import use_own_checkout
from norface_lib.common.paths import NOTEBOOKS, ROOT

CELL = """
from norface_lib.studies.parameters import check_parameters

try:
    check_parameters(globals(), task="au_detection")
finally:
    import subprocess, sys
    from norface_lib.common.paths import ROOT

    print("ROOT", ROOT)
    code = "from norface_lib.common.paths import ROOT; print(ROOT)"
    print("CHILD", subprocess.check_output([sys.executable, "-c", code], text=True))
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another checkout, with code and a notebook that says which package it imports."""
    root = tmp_path_factory.mktemp("folder") / "other"
    for path in (ROOT / "norface_lib").rglob("*"):
        if path.suffix in (".py", ".json", ".yaml") and "weights" not in path.parts:
            target = root / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "notebooks").mkdir()

    content = json.loads((NOTEBOOKS / "10_results_vs_paper.ipynb").read_text(encoding="utf-8"))
    content["cells"] = content["cells"][:3]
    content["cells"][2]["source"] = [CELL]
    (root / "notebooks/one.ipynb").write_text(json.dumps(content), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def run(other):
    """Of papermill with an unknown parameter, from the folder above, where the present checkout is
    the installed package: the process, and what the notebook printed."""
    words = [sys.executable, *["-m", "papermill", "-k", "python3", "--no-progress-bar"]]
    words += ["other/notebooks/one.ipynb", "out.ipynb", "-p", "unknown", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=other.parent, env=environment, capture_output=True, text=True, timeout=300
    )
    cells = json.loads((other.parent / "out.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return done, "".join("".join(output.get("text", "")) for output in outputs)


def test_papermill_from_any_folder_takes_the_checkout_of_the_notebook(run, other):
    _, printed = run
    assert "taken from the checkout of this notebook" in printed
    assert f"ROOT {other}\n" in printed and f"CHILD {other}\n" in printed


def test_an_unknown_parameter_ends_the_command_in_a_sentence(run):
    done, _ = run
    assert done.returncode == 1
    sentence = "unknown: this notebook has no such parameter; it has profile, dataset"
    assert done.stderr.rstrip().endswith(sentence)


def marked(folder):
    """A folder with what makes a checkout."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "norface_lib").mkdir()
    (folder / "norface_lib/__init__.py").touch()
    (folder / "pyproject.toml").touch()
    return folder


@pytest.fixture
def imports(monkeypatch):
    """What `use_own_checkout` changes, which the end of the test undoes."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


@pytest.mark.usefixtures("imports")
@pytest.mark.parametrize("name", ["PAPERMILL_INPUT_PATH", "__vsc_ipynb_file__"])
def test_a_notebook_is_found_by_what_its_program_says(tmp_path, name):
    root = marked(tmp_path / "one")
    assert use_own_checkout({name: str(root / "notebooks/00.ipynb")})
    assert sys.path[0] == str(root) and os.environ["PYTHONPATH"] == str(root)
    assert not any(name.startswith("norface_lib") for name in sys.modules)


@pytest.mark.usefixtures("imports")
def test_a_notebook_of_jupyter_is_found_by_its_session_or_the_present_folder(tmp_path, monkeypatch):
    root = marked(tmp_path / "one")
    monkeypatch.chdir(root / "notebooks")
    assert use_own_checkout({}) and sys.path[0] == str(root)
    other = marked(tmp_path / "two")
    monkeypatch.setenv("JPY_SESSION_NAME", str(other / "notebooks/00.ipynb"))
    assert use_own_checkout({}) and sys.path[0] == str(other)


@pytest.mark.usefixtures("imports")
def test_nothing_changes_in_the_present_checkout_and_outside_of_all(tmp_path, monkeypatch):
    path = sys.path[:]
    assert not use_own_checkout({"PAPERMILL_INPUT_PATH": str(NOTEBOOKS / "00_quickstart.ipynb")})
    monkeypatch.chdir(tmp_path)
    assert not use_own_checkout({})
    assert not use_own_checkout({"PAPERMILL_INPUT_PATH": str(tmp_path / "00.ipynb")})
    assert sys.path == path and module.__name__ in sys.modules
