"""Numbers that the paper and others published, and measured ones beside them.

They lie in ``results/published.json`` as they were printed (PAPER.md 1.6, 1.7), each with its
source and how sure it is. They are of real datasets; what is measured on rendered faces stands
beside them as another kind of data, never among them.
"""

import json
from functools import lru_cache
from typing import Any

import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.paths import ROOT

PAPER = "Norface"
"""Name of the paper's method in the tables."""

AVERAGE = "average"
"""Column of the mean over labels, as printed; for emotions, the overall accuracy."""

DATA = ("rendered", "real")
"""Kinds of data that a number can be of."""

_SCALES = {"percent": 100.0}
"""What turns a number as `norface_lib.tasks.metrics` gives it into a printed one; other units are
the same in both."""


@lru_cache
def _tables() -> list[dict[str, Any]]:
    path = ROOT / "results" / "published.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["tables"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: missing or damaged; restore it from the repository") from error


def _table(task: str, dataset: str, metric: str | None) -> dict[str, Any]:
    """The table of a metric, or the first of a dataset."""
    for table in _tables():
        if (table["task"], table["dataset"]) == (task, dataset) and metric in (
            None,
            table["metric"],
        ):
            return table
    wanted = "/".join(filter(None, (task, dataset, metric)))
    there = ", ".join(
        "/".join((table["task"], table["dataset"], table["metric"])) for table in _tables()
    )
    raise DataError(f"no published numbers for {wanted}; there are {there}")


def published(task: str, dataset: str, metric: str | None = None) -> pd.DataFrame:
    """Published numbers as printed: a row for each method, a column for each label (NaN where not
    known) and ``average``.

    Task and dataset are those of `norface_lib.datasets.protocols.LABELS`, and ``affectnet7``, which
    is AffectNet without contempt. ``metric``: ``f1`` (detection), ``icc``, ``mse``, ``mae``
    (intensity), ``accuracy`` (emotion); by default the first of the dataset. ``attrs``: task,
    dataset, metric, unit (``percent``, or that of the metric), protocol, and ``source`` and
    ``status`` (``established`` or ``second hand``) by method; ``caution`` where there is one.
    Raises :class:`DataError` that lists what there is.
    """
    found = _table(task, dataset, metric)
    names, rows = found["labels"], {}
    for row in found["rows"]:
        values = [float("nan")] * len(names) if row["values"] is None else row["values"]
        rows[row["method"]] = dict(zip([*names, AVERAGE], [*values, row["average"]], strict=True))
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
    table.attrs = {
        key: found[key]
        for key in ("task", "dataset", "metric", "unit", "protocol", "caution")
        if key in found
    }
    table.attrs |= {
        key: {row["method"]: row[key] for row in found["rows"]} for key in ("source", "status")
    }
    return table


def beside_paper(
    ours: dict[str, float],
    task: str,
    dataset: str,
    metric: str | None = None,
    data: str = "rendered",
) -> pd.DataFrame:
    """A measured row and the paper's, in the paper's unit: ``number`` (``measured`` or ``paper``),
    ``data``, labels, average.

    ``ours``: label -> score as `norface_lib.tasks.metrics` gives it (F1 and accuracy in 0..1), or
    ``average`` -> score; without the latter, the average is over the labels if all are there, else
    NaN. ``data``: what ours was measured on, ``rendered`` or ``real``; the paper's is real. No
    difference is taken: rows of different data are no comparison of methods. ``attrs`` are those of
    `published`. Raises ``ValueError`` for an unknown label or kind of data, and for a share outside
    0..1; :class:`DataError` if there is no number of the paper's, listing what there is.
    """
    if data not in DATA:
        raise ValueError(f"data must be one of {', '.join(DATA)}, got {data!r}")
    table = published(task, dataset, metric)
    if PAPER not in table.index:
        raise DataError(
            f"the paper's number for {task}/{dataset} is not known; known are those of "
            f"{', '.join(table.index)}"
        )
    measured = _in_unit(ours, list(table.columns), table.attrs["unit"])
    rows = {"ours": {"number": "measured", "data": data} | measured}
    rows[PAPER] = {"number": "paper", "data": "real"} | table.loc[PAPER].to_dict()
    beside = pd.DataFrame.from_dict(
        rows, orient="index", columns=["number", "data", *table.columns]
    )
    beside.attrs = table.attrs
    return beside


def _in_unit(ours: dict[str, float], columns: list[str], unit: str) -> dict[str, float]:
    """Scores as they would be printed, for each column; NaN where there is none."""
    if unknown := [name for name in ours if name not in columns]:
        raise ValueError(f"no column {', '.join(unknown)}; there are {', '.join(columns)}")
    # NaN is no wrong score
    if unit in _SCALES and not all(0 <= value <= 1 for value in ours.values() if value == value):
        raise ValueError(
            f"scores must be within 0..1, they are turned into {unit} here; got {ours}"
        )
    printed = pd.Series(ours, dtype=float).reindex(columns) * _SCALES.get(unit, 1.0)
    labels = [name for name in columns if name != AVERAGE]
    if AVERAGE not in ours and labels:
        printed[AVERAGE] = printed[labels].mean(skipna=False)
    return printed.to_dict()
