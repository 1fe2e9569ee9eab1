"""Tables of the result files of a sweep: a line for each row of each experiment, and one for each
difference."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from norface_lib.networks.classifier import ClassifierConfig
from norface_lib.studies.recipes import COMPARISONS
from norface_lib.studies.statistics import paired_t_interval, sign_flip_test
from norface_lib.studies.sweep import Configuration


@dataclass(frozen=True)
class SweepTables:
    """``scores``: a line for each row of each experiment; ``differences``: one for each comparison;
    ``missing``: names of experiments without a result file, ``unfinished`` of those with fewer
    seeds than their sweep asks for."""

    scores: pd.DataFrame
    differences: pd.DataFrame
    missing: list[str]
    unfinished: list[str]


def read_results(configurations: Sequence[Configuration], folder: Path) -> SweepTables:
    """The tables of those experiments of a sweep whose result files are in ``folder``.

    ``scores`` has the columns ``run``, ``row``, what tells experiments apart (``backbone``,
    ``people``, ``experts``, ...), ``score`` with the ends ``low`` and ``high`` of its 95 % interval
    over people, ``trainings`` (their number) and ``each``, the score of each training.
    ``differences`` has ``what``, ``first``, ``second``, ``adds``, its interval over people, that
    over trainings (``t_low``, ``t_high``) and ``p``. Raises what `Configuration.seeds_done` raises.
    """
    scores, differences, missing, unfinished = [], [], [], []
    for one in configurations:
        if not one.seeds_done(folder):
            missing.append(one.name)
            continue
        if not one.is_done(folder):
            unfinished.append(one.name)
        content = json.loads(one.path(folder).read_text(encoding="utf-8"))
        about = {"run": one.name} | _about(content)
        result = content["result"]
        scores += [about | {"row": name} | _score(row) for name, row in result["rows"].items()]
        differences += [
            about | {"what": what} | _difference(what, values)
            for what, values in result["differences"].items()
        ]
    return SweepTables(pd.DataFrame(scores), pd.DataFrame(differences), missing, unfinished)


def _about(content: dict[str, Any]) -> dict[str, Any]:
    """What tells an experiment from the others of its sweep."""
    settings = content["settings"]
    experiment, recipe = settings["experiment"], settings["recipe"]
    return {
        "backbone": experiment["backbone"],
        "people": experiment["people"],
        "leakage": content["leakage"],
        "steps": recipe["training"]["steps"],
        "experts": recipe["config"].get("experts", ClassifierConfig.experts),
        "top_k": recipe["config"].get("top_k", ClassifierConfig.top_k),
        "routing": recipe["config"].get("routing", ClassifierConfig.routing),
        "shared_expert": recipe["config"].get("shared_expert", ClassifierConfig.shared_expert),
        "importance": recipe["importance"],
        "load": recipe["load"],
        "minutes": content["seconds"] / 60,
    }


def _score(row: dict[str, Any]) -> dict[str, Any]:
    each = np.ravel(row["per_seed_and_fold"])
    low, high = row["interval"] or (np.nan, np.nan)
    return {
        "score": row["headline"],
        "low": low,
        "high": high,
        "trainings": len(each),
        "each": each,
        "usage": row.get("expert_usage", []),
    }


def _difference(what: str, values: dict[str, Any]) -> dict[str, Any]:
    low, high = values["subjects"] or (np.nan, np.nan)
    t_low, t_high = values.get("trainings", (np.nan, np.nan))
    first, second = COMPARISONS[what]
    return {
        "first": first,
        "second": second,
        "adds": values["value"],
        "low": low,
        "high": high,
        "t_low": t_low,
        "t_high": t_high,
        "p": values.get("p", np.nan),
    }


def across(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """Difference of two lines of ``scores`` that come from two experiments, over their trainings.

    The same folds and seeds are paired: Student's interval (``t_low``, ``t_high``) and ``p`` of the
    sign-flip test. Raises ``ValueError`` if they were not trained as often.
    """
    over = paired_t_interval(first["each"], second["each"])
    return {
        "adds": float(over.value),
        "t_low": float(over.low),
        "t_high": float(over.high),
        "p": sign_flip_test(first["each"], second["each"]),
    }
