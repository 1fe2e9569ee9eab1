"""The public address: named in pyproject.toml, and written from there to where readers meet it."""

import json
import shutil
import subprocess
import sys
import tomllib

import pytest
from nbformat import read
from typer.testing import CliRunner

from norface_lib.cli import project
from norface_lib.cli.address import NOTEBOOK, write_address
from norface_lib.cli.app import app
from norface_lib.common.paths import ROOT

FILES = ("pyproject.toml", "README.md", NOTEBOOK)


@pytest.fixture
def checkout(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def address_of(root):
    """``[project.urls] Repository`` of a checkout's pyproject.toml, or an empty text."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def install_cell(root):
    cells = json.loads((root / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    (cell,) = (cell for cell in cells if "install" in cell["metadata"].get("tags", []))
    return "".join(cell["source"])


def badges(root):
    """Addresses of Colab and Binder in the README."""
    text = (root / "README.md").read_text(encoding="utf-8")
    return [text.count(site) for site in ("colab.research.google.com/github/", "mybinder.org/v2/")]


def test_what_is_committed_agrees_with_pyproject():
    address = address_of(ROOT)
    source = f'os.environ.get("NORFACE_SOURCE") or "{f"git+{address}" if address else ""}"'
    assert source in install_cell(ROOT)
    assert badges(ROOT) == ([1, 1] if address else [0, 0])


def test_an_address_is_written_once_and_replaced_by_another(checkout):
    lines = len((checkout / "README.md").read_text().splitlines())
    for name in ("one/norface", "two.b/nor-face"):
        assert len(write_address(checkout, f"https://github.com/{name}")) == 3
        assert address_of(checkout) == f"https://github.com/{name}"
        assert f'or "git+https://github.com/{name}"  # an address' in install_cell(checkout)
        assert badges(checkout) == [1, 1]
        readme = (checkout / "README.md").read_text()
        assert f"/gh/{name}/HEAD?labpath={NOTEBOOK}" in readme
        assert len(readme.splitlines()) == lines
    assert not any("one/norface" in (checkout / path).read_text() for path in FILES)
    read(checkout / NOTEBOOK, as_version=4)


@pytest.mark.parametrize("address", ["here", "https://github.com/x", "git@github.com:a/b", ""])
def test_another_kind_of_address_is_refused(address):
    done = CliRunner().invoke(app, ["publish", "--address", address], env={"COLUMNS": "250"})
    assert done.exit_code == 2 and "must be https://github.com/OWNER/NAME" in done.output


def test_the_command_writes_it(checkout, monkeypatch):
    monkeypatch.setattr(project, "ROOT", checkout)
    done = CliRunner().invoke(app, ["publish", "--address", "https://github.com/a/b"])
    assert done.exit_code == 0 and address_of(checkout) == "https://github.com/a/b"


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("git+https://github.com/a/b", "norface[notebooks,photos,render] @ git+https://"),
        ("here.whl", "here.whl[notebooks,photos,render]"),
        ("", None),
    ],
)
def test_the_install_cell_takes_what_is_named(source, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.whl").touch()
    monkeypatch.setenv("NORFACE_SOURCE", source)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    calls = []
    monkeypatch.setattr(subprocess, "check_call", calls.append)
    code = compile(install_cell(ROOT), "cell", "exec")
    if wanted is None:
        with pytest.raises(AssertionError, match="norface is not installed here: set NORFACE_S"):
            exec(code, {})
    else:
        exec(code, {})
        ((python, *_, what),) = calls
        assert python == sys.executable and what.startswith(wanted)


def test_the_install_cell_does_nothing_where_it_is_installed(monkeypatch):
    monkeypatch.setenv("NORFACE_SOURCE", "nowhere")
    monkeypatch.setattr(subprocess, "check_call", lambda *_: pytest.fail("it installs"))
    exec(compile(install_cell(ROOT), "cell", "exec"), {})
