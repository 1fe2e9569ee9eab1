"""An install that is no checkout: what the wheel holds, and what it can do in another folder."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import cv2
import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.numpy import load_file

from norface_lib.common.errors import MissingExtraError, needs
from norface_lib.common.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pinned():
    """Version of each package in requirements.txt."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").open())
    return {
        canonicalize_name(name): version
        for name, version in (line.split("==") for line in lines if line)
    }


def declared():
    """Requirements of the package and of all extras."""
    lines = PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra]
    return [Requirement(line) for line in lines]


def test_requirements_pin_what_the_package_and_its_extras_name():
    assert {canonicalize_name(requirement.name) for requirement in declared()} == set(pinned())


def test_the_pinned_versions_are_allowed():
    pins = pinned()
    for requirement in declared():
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_torch_and_torchvision_stay_a_pair():
    pins = pinned()
    exact = {str(requirement) for requirement in declared() if "torch" in requirement.name}
    assert {f"torch=={pins['torch']}", f"torchvision=={pins['torchvision']}"} <= exact


def test_a_missing_extra_is_one_sentence_with_its_cure():
    message = r'^the package nowhere is not installed: pip install "norface\[photos\]"$'
    with pytest.raises(MissingExtraError, match=message), needs("photos"):
        import nowhere  # noqa: F401


@pytest.mark.parametrize(
    ("extra", "statement", "packages"),
    [
        (
            "photos",
            "from norface_lib.photos.detection import Insightface; Insightface()",
            ["insightface"],
        ),
        ("render", "from norface_lib.faces.studio import Studio; Studio(112)", ["warp"]),
        (
            "render",
            "from norface_lib.photos.read_and_render import open_rendering as run; run('render')",
            ["warp"],
        ),
        ("notebooks", "import norface_lib.viz.plots", ["ipywidgets", "matplotlib", "seaborn"]),
        ("notebooks", "import norface_lib.cli.publish", ["nbformat"]),
    ],
)
def test_each_room_names_the_extra_that_it_needs(extra, statement, packages):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({packages})); sys.argv[1:] = []\n"
        f"try: {statement}\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(rf'pip install "norface\[{extra}\]"$', done.stdout.strip())


def test_the_core_imports_without_any_extra():
    """Training, classifiers and datasets need none of the packages that extras bring."""
    missing = ["ai_edge_litert", "insightface", "onnx", "onnxruntime", "onnx2torch", "skimage"]
    missing += ["anny", "warp", "matplotlib", "seaborn", "ipywidgets", "papermill", "nbformat"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
        "import norface_lib\n"
        "for name in norface_lib.__all__: getattr(norface_lib, name)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_of_predictions_needs_no_notebooks():
    missing = ["matplotlib", "seaborn", "ipywidgets", "IPython"]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import norface_lib.viz.page"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the wheel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that no earlier build is part of it."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "norface_lib", folder / "source/norface_lib", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    call = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    call += ["--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(call, check=True)
    return next(folder.glob("norface-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the unpacked wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def norface(*arguments, installed, cwd):
    """Runs a command of the unpacked wheel."""
    environment = {name: value for name, value in os.environ.items() if name != "NORFACE_RUNS"}
    environment |= {"PYTHONPATH": str(installed), "COLUMNS": "200"}
    call = [sys.executable, "-m", "norface_lib", *map(str, arguments)]
    return subprocess.run(call, env=environment, cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def faces(tmp_path):
    """A folder of two aligned faces."""
    images = load_file(ROOT / "tests/data/golden.safetensors")["faces"]
    folder = tmp_path / "faces"
    folder.mkdir()
    for number, image in enumerate(images[:2]):
        cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
    return folder


@pytest.mark.slow
def test_the_wheel_holds_weights_profiles_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        command = archive.read("norface-0.1.0.dist-info/entry_points.txt").decode()
    here = {path.name for path in (ROOT / "norface_lib/weights").iterdir()}
    assert {f"norface_lib/weights/{name}" for name in here} <= names
    assert {"norface_lib/cli/profiles.yaml", "norface_lib/PAPER.md"} <= names
    assert not any(name.startswith(("tests/", "notebooks/", "results/")) for name in names)
    assert "norface = norface_lib.__main__:main" in command


@pytest.mark.slow
def test_the_wheel_holds_the_published_numbers(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert "norface_lib/studies/published.json" in archive.namelist()


@pytest.mark.slow
def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < 65e6


@pytest.mark.slow
def test_an_installed_package_predicts_in_another_folder(installed, faces, tmp_path):
    done = norface(
        *("predict", faces, "out", "--detector", "none"), installed=installed, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    assert table["source"].tolist() == ["0.png", "1.png"]
    assert table["AU12"].between(0, 1).all() and table["AU12_intensity"].between(0, 5).all()
    assert table["emotion"].isin(table.columns).all()
    assert (tmp_path / "out/normalized/1.png").is_file()
    # nothing is written beside the package
    assert {
        path.name for path in installed.iterdir() if path.name != "norface-0.1.0.dist-info"
    } == {"norface_lib"}


@pytest.mark.slow
def test_runs_of_an_installed_package_go_to_the_present_folder(installed, tmp_path):
    code = "from norface_lib.common.paths import ROOT, runs; print(ROOT, runs())"
    environment = {name: value for name, value in os.environ.items() if name != "NORFACE_RUNS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path), str(tmp_path / "runs")]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["reproduce", "publish"])
def test_an_installed_package_says_what_needs_the_repository(command, installed, tmp_path):
    done = norface(command, installed=installed, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"{command} needs the notebooks and results of the repository" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- the build of PyTorch that `make` takes -------------------------------------------------------


def fake_wheel(folder, name, version):
    """A wheel that holds nothing."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="for machines without a GPU")
def test_make_takes_the_cpu_build_of_both_packages_or_of_neither(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # no index at all, but a folder
    environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }

    def take():
        call = [str(python), str(ROOT / ".ci/torch_build.py")]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
        show = [str(python), "-m", "pip", "list", "--format=freeze"]
        packages = subprocess.run(show, env=environment, capture_output=True, text=True, check=True)
        return done.stdout, {line for line in packages.stdout.split() if "torch" in line}

    torch, vision = (f"{pinned()[name]}+cpu" for name in ("torch", "torchvision"))
    fake_wheel(wheels, "torch", torch)
    output, packages = take()
    assert "No index that can be reached has it" in output and packages == set()

    fake_wheel(wheels, "torchvision", vision)
    output, packages = take()
    assert output.endswith("Took PyTorch's CPU build (0.2 GB)\n")
    assert packages == {f"torch=={torch}", f"torchvision=={vision}"}
    assert take() == ("", packages)  # nothing is left to do
