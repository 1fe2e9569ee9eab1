"""Options of the datasets' loaders that a user chooses: DISFA's camera, AffectNet's classes..."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, get_args

from norface_lib.datasets import dataset_class

_NOT_CHOSEN = {"root", "task", "transform", "index", "aus", "coder_errors", "progress"}
"""Parameters of a loader that have a place of their own, or are no matter of the data."""

_TRUTHS = {"true": True, "false": False}


def loader_options(dataset: str) -> dict[str, type]:
    """Names and types of the options that the loader of a dataset has, such as ``camera`` of
    ``disfa``; see its class. ``ValueError`` for an unknown dataset."""
    parameters = signature(dataset_class(dataset)).parameters.values()
    return {
        parameter.name: (get_args(parameter.annotation) or (parameter.annotation,))[0]
        for parameter in parameters
        if parameter.name not in _NOT_CHOSEN
    }


def check_options(dataset: str, names: Sequence[str]) -> None:
    """Raises ``ValueError`` for an option that the loader of a dataset does not have."""
    known = loader_options(dataset)
    if unknown := [name for name in names if name not in known]:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(
            f"{dataset_class(dataset).title} has no option {', '.join(unknown)}; {there}"
        )


def read_options(dataset: str, texts: Sequence[str]) -> dict[str, Any]:
    """Options from texts such as ``camera=right``, ``classes=7`` or ``crop=false``.

    Raises ``ValueError`` for an option that the dataset does not have or that is given twice, and
    for a value of another type.
    """
    pairs = [text.partition("=")[::2] for text in texts]
    names = [name for name, _ in pairs]
    check_options(dataset, names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the option {', '.join(twice)} is given twice")
    kinds = loader_options(dataset)
    return {name: _value(name, value, kinds[name]) for name, value in pairs}


def _value(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in _TRUTHS:
            raise ValueError(f"{name} must be true or false, got {text!r}")
        return _TRUTHS[text.lower()]
    if kind is int and not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, got {text!r}")
    return kind(text)
