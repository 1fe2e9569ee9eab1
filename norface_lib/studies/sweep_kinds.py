"""What a sweep can be a list of: experiments on classifiers, and experiments on normalizers."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import singledispatch
from pathlib import Path
from typing import Any

from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.networks.encoder import EncoderConfig, with_tuples
from norface_lib.networks.normalizer import NormalizerConfig
from norface_lib.studies.experiment import Experiment
from norface_lib.studies.normalizer_experiment import NormalizerData, NormalizerExperiment
from norface_lib.studies.preparation import Prepared
from norface_lib.studies.recipes import ROWS, SECOND_FACES
from norface_lib.studies.second_faces import views_with
from norface_lib.studies.settings import TrainingSettings
from norface_lib.training.normalizer_terms import LossWeights, SynthesisTerms

Study = Experiment | NormalizerExperiment

KINDS: Mapping[str, type[Study]] = {"experiment": Experiment, "normalizer": NormalizerExperiment}
"""Kinds of a sweep by the name that its file gives."""


def _network(encoder: dict[str, Any], **values: Any) -> NormalizerConfig:
    return NormalizerConfig(encoder=EncoderConfig(**with_tuples(encoder)), **with_tuples(values))


def _terms(weights: Mapping[str, float], **values: Any) -> SynthesisTerms:
    return SynthesisTerms(weights=LossWeights(**weights), **values)


_TABLES: Mapping[type[Study], Mapping[str, Callable[..., Any]]] = {
    Experiment: {
        "data": BenchmarkSpec,
        "test_data": BenchmarkSpec,
        "training": TrainingSettings,
    },
    NormalizerExperiment: {"data": BenchmarkSpec, "network": _network, "terms": _terms},
}
"""Fields that a file writes as tables, and what becomes of them."""

_PATHS = ("root", "points", "test_root", "test_points")


def study_of(kind: type[Study], values: Mapping[str, Any]) -> Study:
    """A study of some fields, as a YAML file holds them. Raises ``ValueError`` for an unknown field
    and ``ValueError`` or ``TypeError`` for values that do not fit."""
    known = tuple(field.name for field in fields(kind))
    if unknown := sorted(values.keys() - set(known)):
        raise ValueError(f"no field {', '.join(unknown)}; there are {', '.join(known)}")
    tables = _TABLES[kind]
    made = {
        name: tables[name](**value) if name in tables and isinstance(value, dict) else value
        for name, value in values.items()
    }
    made = with_tuples(made)
    made |= {name: Path(made[name]) for name in _PATHS if made.get(name) is not None}
    return kind(**made)


_AFTER_PREPARATION = (
    *("rows", "loss", "steps", "training", "seeds", "people", "balanced", "final", "encoder"),
)
"""Fields of an experiment that its preparation does not depend on."""


@singledispatch
def data_key(study: Experiment) -> str:
    """A text that is the same for studies that are prepared alike."""
    names = [field.name for field in fields(study) if field.name not in _AFTER_PREPARATION]
    return repr([getattr(study, name) for name in names])


@data_key.register
def _(study: NormalizerExperiment) -> str:
    return study.data_key


@singledispatch
def complete(study: Experiment, prepared: Prepared) -> None:
    """Adds what this study alone needs to faces that were prepared for several, so that no two
    workers do: what rows need beside the normalized face."""
    for kind in {SECOND_FACES.get(name, "normalized") for name in study.rows}:
        views_with(kind, prepared)


@complete.register
def _(study: NormalizerExperiment, prepared: NormalizerData) -> None:
    """A normalizer needs no more than what was prepared."""


@singledispatch
def work(study: Experiment) -> float:
    """How long a study trains, in no unit: only its share of the whole matters."""
    steps = study.training.steps or study.steps or 500
    faces = sum(2 if ROWS[name]["inputs"] == "both" else 1 for name in study.rows)
    datasets = 1 if study.test_data is None else 2  # in-domain and across
    return _COSTS.get(study.backbone, 1.0) * steps * faces * datasets * len(study.seeds)


_COSTS = {"frozen": 0.02, "mini": 0.04}
"""Time of a training step on one face, over that of training the normalizer's backbone: measured on
two CPU cores."""


@work.register
def _(study: NormalizerExperiment) -> float:
    return study.work
