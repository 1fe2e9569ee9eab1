"""The public names: they resolve, are documented, and cost nothing before they are used."""

import inspect
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

import norface_lib
from norface_lib.cli import options
from norface_lib.cli.app import app
from norface_lib.common.paths import ROOT

HEAVY = ("onnx", "onnxruntime", "warp", "matplotlib", "IPython")

IMPORTS_OF_TRAIN = """
import norface_lib.cli.app
from norface_lib.networks.classifier import INPUTS
from norface_lib.studies.experiment import UNPAIRED_WEIGHTS, Experiment
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_terms import terms_of
"""


def modules_after(code):
    """Top names of all modules that are loaded once some code has run in a new process."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    call = [sys.executable, "-c", code]
    return set(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("name", norface_lib.__all__)
def test_every_name_resolves_and_is_documented(name):
    value = getattr(norface_lib, name)
    assert value.__module__.startswith("norface_lib.")
    assert len(inspect.getdoc(value).split()) > 5
    assert f"``{name}``" in norface_lib.__doc__


def test_names_are_listed_and_others_are_refused():
    assert dir(norface_lib) == sorted(norface_lib.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Normaliser'"):
        norface_lib.Normaliser  # noqa: B018


def test_the_package_alone_loads_nothing_heavy():
    assert not {*HEAVY, "torch", "numpy", "pandas"} & modules_after("import norface_lib")


def test_help_loads_no_torch():
    assert not {*HEAVY, "torch", "numpy"} & modules_after("import norface_lib.cli.app")


def test_train_loads_only_what_it_needs():
    modules = modules_after(IMPORTS_OF_TRAIN)
    assert "torch" in modules and not set(HEAVY) & modules


def test_the_imports_of_train_are_those_above():
    """What `train` imports is repeated above, so that the test fails if the command changes."""
    source = (ROOT / "norface_lib/cli/training.py").read_text()
    for line in IMPORTS_OF_TRAIN.strip().splitlines()[1:]:
        assert f"    {line}\n" in source


# --- normalize and predict ------------------------------------------------------------------------


@pytest.fixture
def crops(tiny_benchmark, tmp_path):
    """A folder of two aligned faces."""
    folder = tmp_path / "faces"
    folder.mkdir()
    images = [path for path in (tiny_benchmark / "images").rglob("*") if path.is_file()]
    for number, path in enumerate(sorted(images)[:2]):
        shutil.copy(path, folder / f"{number}{path.suffix}")
    return folder


def test_predict_returns_the_table_that_it_writes(crops, tmp_path):
    table = norface_lib.predict(
        crops, tmp_path / "out", detector="none", readers=["tiny-photo-au"], progress=False
    )
    assert len(table) == 2 and table["AU12"].between(0, 1).all()
    assert (table["status"] == "aligned").all()
    assert (table.dtypes[["frame", "face", "track", "turn"]] == "Int64").all()
    written = pd.read_csv(tmp_path / "out/predictions.csv").astype(table.dtypes)
    pd.testing.assert_frame_equal(table, written)


def test_normalize_writes_the_mirror_tree_once(crops, tmp_path):
    names = sorted(f"{path.stem}.png" for path in crops.iterdir())
    assert norface_lib.normalize(crops, tmp_path / "out", progress=False) == {"normalized": 2}
    assert sorted(path.name for path in (tmp_path / "out/noor").glob("*.png")) == names
    again = norface_lib.normalize(str(crops), str(tmp_path / "out"), progress=False)
    assert again == {"there already": 2}


def test_normalize_counts_what_the_detector_found_too(crops, tmp_path):
    from norface_lib.photos.detection import open_detector

    counts = norface_lib.normalize(
        crops, tmp_path / "out", detector=open_detector("none"), progress=False
    )
    assert counts == {"aligned": 2, "normalized": 2}


# --- choices of the command line ------------------------------------------------------------------


def values_of(choices):
    return set(map(str, getattr(choices, "__args__", choices)))


def test_the_choices_of_the_command_line_are_those_of_the_library():
    from norface_lib.cli.bench import _STAGES
    from norface_lib.cli.reproduce import profiles
    from norface_lib.common.records import LEAKAGE
    from norface_lib.datasets import DATASETS
    from norface_lib.datasets.write_as import VARIANTS
    from norface_lib.faces.benchmark import POOLS
    from norface_lib.networks.classifier import INPUTS
    from norface_lib.networks.drawing import DRAWINGS
    from norface_lib.networks.normalizer import PRESETS
    from norface_lib.photos.anonymizing import LAYOUTS
    from norface_lib.photos.detection import DETECTORS
    from norface_lib.photos.engines import ENGINES
    from norface_lib.studies.data_sources import DEFAULT_PROTOCOLS

    assert values_of(options.Layout) == set(DATASETS)
    assert values_of(options.Dataset) == set(DEFAULT_PROTOCOLS)
    assert values_of(options.GatedDataset) == set(VARIANTS)
    assert values_of(options.Detector) == set(DETECTORS)
    assert values_of(options.Engine) == set(ENGINES)
    assert values_of(options.Draw) == set(DRAWINGS)
    assert values_of(options.FaceLayout) == set(LAYOUTS)
    assert values_of(options.Pool) == set(POOLS)
    assert values_of(options.Preset) == set(PRESETS)
    assert values_of(options.Leakage) == set(LEAKAGE)
    assert values_of(options.Profile) == set(profiles())
    assert values_of(options.Input) == set(INPUTS)
    assert values_of(options.Stage) == set(_STAGES)


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        (["train"], [options.Task, options.Dataset, options.Leakage, options.Input]),
        (["predict"], [options.Detector]),
        (["normalize"], [options.Detector, options.Layout]),
        (["align"], [options.Detector, options.Layout, options.Task]),
        (["render"], [options.Pool]),
        (["inspect"], [options.Layout, options.Task]),
        (["evaluate", "normalizer"], [options.Domain]),
        (["reproduce"], [options.Profile]),
    ],
)
def test_help_lists_the_choices(command, choices):
    text = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"}).output
    for values in choices:
        assert all(value in text for value in values_of(values))
