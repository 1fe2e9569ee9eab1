"""Parameters of notebooks: what is wrong is refused in the first cell after them, in a sentence."""

import json
import re

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from norface_lib.cli.publish import notebook_names
from norface_lib.cli.reproduce import parameters_of, profiles
from norface_lib.common.paths import NOTEBOOKS
from norface_lib.studies.parameters import ParameterError, check_parameters

NAMES = notebook_names()


def cells_of(name):
    content = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    code = [cell for cell in code if "install" not in cell["metadata"].get("tags", [])]
    assert "parameters" in code[0]["metadata"]["tags"]
    return ["".join(cell["source"]) for cell in code]


def defaults_of(name):
    """The variables after a notebook's cell of parameters."""
    namespace = {}
    exec(cells_of(name)[0], namespace)
    return namespace


def first_lines(name):
    """The lines of the second code cell that check the parameters: its first three."""
    start, _, rest = cells_of(name)[1].partition("\n\n")
    assert start == "from norface_lib.studies.parameters import check_parameters"
    call = rest.partition("\n")[0]
    assert re.fullmatch(r'check_parameters\(globals\(\)(, task="\w+")?\)', call)
    return f"{start}\n{call}"


PARAMETERS = [
    (name, parameter) for name in NAMES for parameter in defaults_of(name)["__annotations__"]
]

WRONG = {
    int: ["seven", "7", 7.0, True, None, -1, 10**10],
    float: ["half", None, -0.1, 1.5, float("nan"), float("inf"), [0.5]],
    bool: ["yes", 1, None],
    str: [3, None, ["a"]],
}
"""Values that no parameter of a type may have."""

WRONG_TEXTS = {
    "profile": ["", "../x", "a b"],
    "photograph": ["nowhere.jpg"],
    "detector": ["", "dlib"],
    "dataset": ["bp5d", "bp4d+disfa", "BP4D"],
    "root": ["nowhere"],
    "loss": ["", "sum", "bce+sum"],
    "trained": ["frozen", "resnet", "Mini"],
    "backbone": ["", "resnet18", "Frozen"],
    "weights": ["", "nobody", "nowhere.safetensors"],
}


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_every_wrong_value_is_refused_before_anything_is_computed(name, parameter):
    kind = defaults_of(name)["__annotations__"][parameter]
    wrong = WRONG[kind] + (WRONG_TEXTS[parameter] if kind is str else [])
    for value in wrong:
        namespace = defaults_of(name) | {parameter: value}
        with pytest.raises(ParameterError) as error:
            exec(first_lines(name), namespace)
        text = str(error.value)
        assert text.startswith(f"{parameter} = {value!r}: must be ") and "\n" not in text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("profile", ["default", *profiles()])
def test_defaults_and_profiles_are_accepted(name, profile):
    values = {} if profile == "default" else parameters_of(name, profile)
    exec(first_lines(name), defaults_of(name) | values)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"faces": "seven"}, "faces = 'seven': must be a whole number; correct it among the"),
        ({"folds": 1}, "folds = 1: must be a whole number within [2, 1000000]"),
        ({"folds": 9, "people": 4}, "folds = 9: must be at most the number of people, 4, so that"),
        ({"strength": 0.0}, "strength = 0.0: must be a number within (0, 1]"),
        ({"loss": "mse"}, "loss = 'mse': must be one of bce, asymmetric, dice, or a sum of them"),
        ({"dataset": "rafdb"}, "dataset = 'rafdb': must be one of bp4d, bp4d_plus, disfa;"),
        ({"root": "gone"}, "root = 'gone': must be empty, or a folder that exists"),
        ({"weights": "me"}, "weights = 'me': must be weights that exist (no weights 'me' (looked"),
    ],
)
def test_a_refusal_says_what_is_allowed(changes, sentence):
    namespace = defaults_of("05_au_detection") | {"faces": 3} | changes
    namespace["__annotations__"]["faces"] = int
    with pytest.raises(ParameterError, match=re.escape(sentence)):
        check_parameters(namespace, task="au_detection")


def test_whole_numbers_are_numbers_and_a_dataset_needs_its_folder(tmp_path):
    check_parameters(defaults_of("05_au_detection") | {"strength": 1}, task="au_detection")
    chosen = defaults_of("03_normalized_datasets") | {"dataset": "disfa"}
    with pytest.raises(ParameterError, match="root = '': must be the folder of disfa"):
        check_parameters(chosen)
    check_parameters(chosen | {"root": str(tmp_path)})


def test_annotations_of_newer_pythons_are_found():
    """From Python 3.14 on, a module has a function that returns them."""
    namespace = {"faces": "seven", "__annotate__": lambda form: {"faces": int}}
    with pytest.raises(ParameterError, match="faces = 'seven'"):
        check_parameters(namespace)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"faces": "seven"}, "faces = 'seven': must be a whole number"),
        ({"fases": 7}, "fases: this notebook has no such parameter; it has profile, photograph"),
    ],
)
def test_papermill_stops_at_the_first_cell(values, sentence, tmp_path):
    content = json.loads((NOTEBOOKS / "00_quickstart.ipynb").read_text(encoding="utf-8"))
    content["cells"] = content["cells"][:4]
    (tmp_path / "first.ipynb").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(PapermillExecutionError) as error:
        papermill.execute_notebook(
            tmp_path / "first.ipynb",
            tmp_path / "out.ipynb",
            parameters=values,
            kernel_name="python3",
            progress_bar=False,
        )
    assert error.value.ename == "ParameterError" and error.value.evalue.startswith(sentence)
    assert error.value.exec_count == 4  # install, parameters, papermill's values, the check
