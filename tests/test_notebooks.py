"""Every notebook runs headlessly at the smoke profile, and is committed as readers see it."""

import itertools
import json
import os
import re
import subprocess
import sys

import nbformat
import papermill
import pytest
import yaml

from norface_lib.cli.publish import notebook_names
from norface_lib.cli.reproduce import parameters_of, profiles
from norface_lib.common.paths import NOTEBOOKS, ROOT

NAMES = notebook_names()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder for runs of the smoke profile, shared so that each notebook finds what an earlier
    one made."""
    return tmp_path_factory.mktemp("runs")


def command(*arguments, runs):
    # wide, so that no message is wrapped
    settings = {"NORFACE_RUNS": str(runs), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    call = [sys.executable, "-m", "norface_lib", *map(str, arguments)]
    return subprocess.run(
        call, env=os.environ | settings, capture_output=True, text=True, timeout=1500
    )


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_main_job_runs_and_its_second_run_reuses(runs, tmp_path):
    photos = tmp_path / "photos"
    first = command("reproduce", "--profile", "smoke", runs=runs)
    assert first.returncode == 0, first.stdout + first.stderr
    for row in ("original", "normalized", "both"):
        assert re.search(rf"^  {row} +0\.\d{{3}}$", first.stdout, re.M), first.stdout
    summary = json.loads((runs / "smoke/summary.json").read_text())
    assert summary["au_detection"].keys() == {"original", "normalized", "both"}
    assert 0 <= summary["faces"]["rendered"]["smile_auc"] <= 1
    assert (runs / "smoke/faces-rendered.png").stat().st_size > 1000
    second = command(
        "reproduce",
        "--profile",
        "smoke",
        "--photos",
        next((runs / "cache").glob("smiles-*")),
        runs=runs,
    )
    assert second.returncode == 0, second.stdout + second.stderr
    assert "used as they are" in second.stderr and "used as it is" in second.stderr
    assert len(json.loads((runs / "smoke/summary.json").read_text())["faces"]) == 2
    assert not photos.exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nbval_accepts_the_notebooks(runs):
    """nbval runs the executed smoke notebooks once more in one process and checks that no cell
    fails."""
    executed = sorted((runs / "smoke").glob("*.ipynb"))
    assert [path.stem for path in executed] == NAMES, "the main job must have run before"
    call = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "-q",
        "-p",
        "no:cacheprovider",
        *map(str, executed),
    ]
    environment = os.environ | {"NORFACE_RUNS": str(runs), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        call, env=environment, capture_output=True, text=True, timeout=1500, cwd=NOTEBOOKS
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("name", NAMES)
def test_profiles_name_only_parameters_that_the_notebook_has(name):
    known = papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
    assert all(
        entry["inferred_type_name"] != "None" and entry["help"] for entry in known.values()
    ), "typed, with a comment"
    for profile in profiles():
        assert parameters_of(name, profile).keys() <= known.keys()


def test_profiles_name_only_notebooks_that_exist():
    for profile in profiles().values():
        assert profile.keys() - {"photos"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_default_parameters_are_those_of_the_quick_profile(name):
    known = papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
    for parameter, value in parameters_of(name, "quick").items():
        assert yaml.safe_load(known[parameter]["default"]) == value, parameter


def test_numbers_are_expected_of_the_parameters_of_their_profile():
    """`check_expected` compares only where these hold, so they must be the notebooks' own."""
    expected = json.loads((ROOT / "results" / "expected.json").read_text())
    for profile, values in expected["values"].items():
        stated = expected["parameters"][profile]
        assert {name.split(".")[0] for name in values} == stated.keys()
        for number, parameters in stated.items():
            (name,) = (name for name in NAMES if name.startswith(number))
            known = papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
            defaults = {key: yaml.safe_load(entry["default"]) for key, entry in known.items()}
            wanted = defaults | parameters_of(name, profile)
            assert parameters == {key: wanted[key] for key in wanted if key != "profile"}, name


def test_notebooks_write_below_runs_alone():
    """Tracked folders are read by notebooks, and written by `publish` alone."""
    writes = (
        r"(savefig|imwrite|write_\w+|to_csv|copy\w*)\(\s*(str\()?ROOT|path = ROOT|ROOT / .figures"
    )
    for name in NAMES:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        assert not re.search(writes, code), name
        assert "write_result(" not in code or "run_file(profile," in code, name


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebooks_show_outputs_and_no_machine(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert path.stat().st_size < 2_000_000
    assert any(
        output.get("data", {}).get("image/jpeg") for cell in code for output in cell.outputs
    ), "no figure to see"
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        for kind in {"image/png", "image/jpeg"} & output.get("data", {}).keys():
            alt = output.metadata[kind]["alt"]
            assert alt, "a picture without a text for who cannot see it"
            assert output.data["text/plain"] == alt, "which VS Code takes from the plain text"
    headings = [
        line
        for cell in notebook.cells
        for line in cell.source.splitlines()
        if cell.cell_type == "markdown" and line.startswith("# ")
    ]
    assert len(headings) == 1
    assert "papermill" not in notebook.metadata and "widgets" not in notebook.metadata
    assert not any(
        "injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells
    )
    text = "\n".join(
        str(output.get("text", output.get("data", {}).get("text/plain", "")))
        for cell in code
        for output in cell.outputs
    )
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", text), "a machine's path"


@pytest.mark.parametrize("name", NAMES)
def test_solutions_are_folded_below_the_exercises_and_are_python(name):
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    for before, cell in itertools.pairwise(cells):
        if "<details>" not in cell.source:
            continue
        assert "## Exercises" in before.source and cell.source.endswith("</details>")
        codes = re.findall(r"```python\n(.*?)```", cell.source, flags=re.DOTALL)
        assert codes and all(compile(code, name, "exec") for code in codes)


# --- the command line refuses what it cannot use --------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reproduce", "--profile", "huge"], "'huge' is not one of 'smoke', 'quick', 'full'"),
        (["reproduce", "--profile", "smoke", "--photos", "nowhere"], "nowhere: no such folder"),
        (["reproduce", "--profile", "smoke", "--only", "99"], "no notebook starts with '99'"),
        (["bench", "nothing"], "'nothing' is not one of 'render', 'normalize', 'classify'"),
        (["train", "in", "out", "--task", "sex"], "'sex' is not one of 'au_detection'"),
        (["train-normalizer", "nowhere", "out"], "nowhere: no such folder"),
        (["render", "out", "--pool", "zoo"], "'zoo' is not one of 'pretrain', 'lab', 'evaluator'"),
        (["render", "out", "--subjects", "many"], "--subjects"),
        (["fly"], "fly"),
    ],
)
def test_wrong_use_is_one_sentence_and_a_failure(arguments, words, tmp_path):
    done = command(*arguments, runs=tmp_path)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_the_commands(tmp_path):
    done = command("--help", runs=tmp_path)
    assert done.returncode == 0
    assert all(
        name in done.stdout
        for name in (
            "reproduce",
            "render",
            "train-normalizer",
            "train-evaluator",
            "evaluate",
            "bench",
        )
    )
