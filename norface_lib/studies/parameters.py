"""A check of a notebook's parameters before it computes anything: types, ranges, files, names."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from norface_lib.common.checkout import use_own_checkout
from norface_lib.common.errors import NorfaceError
from norface_lib.networks.places import find_weights
from norface_lib.studies.recipes import BACKBONES
from norface_lib.tasks.losses import parts_of
from norface_lib.tasks.tasks import TASKS


class ParameterError(NorfaceError):
    """A parameter of a notebook is unknown, or has a wrong type or value."""


LEAST = {"seed": 0, "folds": 2, "size": 32}
"""Smallest values of whole numbers; 1 for others."""

MOST = {"seed": 2**31 - 1, "size": 1024}
"""Largest values of whole numbers; a million for others."""

INTERVALS = {
    "strength": pd.Interval(0, 1, closed="right"),
    "errors": pd.Interval(0, 1, closed="both"),
    "dropout": pd.Interval(0, 1, closed="left"),
}
"""Values of other numbers."""

DETECTORS = ("mediapipe", "insightface", "none")

_PEOPLE = ("people", "wild_people", "other_people", "other_wild_people")
"""Numbers of people, each of which must be enough for the folds."""

TRAINED = ("", "mini", "scratch", "tuned")
"""Backbones that a notebook can train; none for the frozen one alone."""

DATASETS = {
    "": ("", "bp4d", "bp4d_plus", "disfa", "affectnet", "rafdb"),
    "au_detection": ("bp4d", "bp4d_plus", "disfa"),
    "au_intensity": ("bp4d", "bp4d_plus", "disfa"),
    "emotion": ("affectnet", "rafdb"),
}
"""Datasets with labels for a task; without one also none, for rendered faces."""

_TYPES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def check_parameters(namespace: Mapping[str, Any], task: str = "") -> None:
    """Checks the parameters of a notebook, which are the annotated variables of ``globals()``.

    ``task``: what the notebook is about, if its dataset and loss depend on that. Raises
    :class:`ParameterError`, naming the parameter, its value and what is allowed, for the first that
    is wrong, and for a name that papermill set and the notebook does not have.

    In a notebook of another checkout than the one that is installed, it first makes all imports
    that follow take that checkout.
    """
    if "In" in namespace and use_own_checkout(namespace):
        _check_in_own_checkout(namespace, task)
        return

    types = _types_of(namespace)
    for name in _names_set_by_papermill(namespace):
        if name not in types and name not in _PATHS:
            raise ParameterError(
                f"{name}: this notebook has no such parameter; it has {', '.join(types)}"
            )
    for name, kind in types.items():
        allowed = _refusal(name, kind, namespace, task)
        if allowed:
            raise ParameterError(
                f"{name} = {namespace[name]!r}: must be {allowed}; correct it among the parameters "
                "at the top"
            )


def _check_in_own_checkout(namespace: Mapping[str, Any], task: str) -> None:
    """Checks with the code of the checkout that was made the one to import from."""
    from norface_lib.studies import parameters

    print("norface_lib is taken from the checkout of this notebook, not from the installed one")
    parameters.check_parameters(namespace, task)


_PATHS = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH")
"""What papermill sets with ``--inject-paths``."""


def _types_of(namespace: Mapping[str, Any]) -> dict[str, type]:
    """The annotated variables of a notebook and their types."""
    annotate = namespace.get("__annotate__")  # from Python 3.14 on
    return dict(annotate(1) if annotate else namespace.get("__annotations__", {}))


def _names_set_by_papermill(namespace: Mapping[str, Any]) -> Iterator[str]:
    """Variables of the cell that papermill inserts after that of the parameters."""
    for source in namespace.get("In", ()):
        if not source.startswith("# Parameters\n"):
            continue
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Assign):
                yield ast.unparse(statement.targets[0])


def _refusal(name: str, kind: type, namespace: Mapping[str, Any], task: str) -> str:
    """What a parameter must be, or an empty text if it is just that."""
    value = namespace[name]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        return _TYPES[kind]
    if kind is int:
        return _refused_count(name, value, namespace)
    if kind is float:
        interval = INTERVALS[name]
        return "" if value in interval else f"a number within {interval}"
    if kind is str:
        return _refused_text(name, value, namespace, task)
    return ""


def _refused_count(name: str, value: int, namespace: Mapping[str, Any]) -> str:
    """What a whole number must be, or an empty text."""
    least = LEAST.get(name, 1)
    most = MOST.get(name, 1_000_000)
    if not least <= value <= most:
        return f"a whole number within [{least}, {most}]"

    people = [namespace[group] for group in _PEOPLE if group in namespace]
    if name == "folds" and any(isinstance(count, int) and count < value for count in people):
        return f"at most the number of people, {min(people)}, so that each fold has some"
    return ""


def _refused_text(name: str, value: str, namespace: Mapping[str, Any], task: str) -> str:
    """What a text must be, or an empty text."""
    if name == "profile":
        return "" if re.fullmatch(r"\w[\w.-]*", value) else "a name of letters, digits, - and _"
    if name == "detector":
        return _refused_choice(value, DETECTORS)
    if name == "dataset":
        return _refused_choice(value, DATASETS[task])
    if name == "loss":
        return _refused_loss(value, task)
    if name == "photograph":
        return "" if not value or Path(value).exists() else "empty, or a file or folder that exists"
    if name == "root":
        return _refused_root(value, namespace, task)
    if name == "weights":
        return _refused_weights(value)
    if name == "backbone":
        return "" if value.startswith("timm:") else _refused_choice(value, tuple(BACKBONES))
    if name == "trained":
        return _refused_choice(value, TRAINED)
    return ""


def _refused_choice(value: str, choices: Sequence[str]) -> str:
    named = ", ".join(choice or "empty" for choice in choices)
    return "" if value in choices else f"one of {named}"


def _refused_loss(value: str, task: str) -> str:
    known = TASKS[task].known_losses
    try:
        parts_of(value, known)
    except ValueError:
        return f"one of {', '.join(known)}, or a sum of them with +"
    return ""


def _refused_root(value: str, namespace: Mapping[str, Any], task: str) -> str:
    """A folder, which an optional dataset needs, and which chooses the dataset elsewhere."""
    if not value and not task and namespace["dataset"]:
        return f"the folder of {namespace['dataset']}"
    return "" if not value or Path(value).is_dir() else "empty, or a folder that exists"


def _refused_weights(value: str) -> str:
    try:
        find_weights(value, "normalizer")
    except NorfaceError as error:
        return f"weights that exist ({error})"
    return ""
