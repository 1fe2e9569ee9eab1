"""Numbers that the paper and others published, and measured ones beside them.

They lie in ``published.json``, beside this file, as they were printed (PAPER.md 1.6, 1.7),
each with its source and how sure it is. They are of real datasets; numbers of rendered faces stand
beside them as another kind of data, never among them.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from norface_lib.common.errors import DataError

PUBLISHED = Path(__file__).with_name("published.json")

PAPER = "Norface"
"""Name of the paper's method in the tables."""

AVERAGE = "average"
"""Column of the mean over labels, as printed; for emotions, the overall accuracy."""

DATA = ("rendered", "real")
"""Kinds of data that a number can be of."""

SCALES = {"percent": 100.0}
"""What turns a number as `norface_lib.tasks.metrics` gives it into a printed one; other units are
the same in both."""


@lru_cache
def _tables() -> list[dict[str, Any]]:
    try:
        return json.loads(PUBLISHED.read_text(encoding="utf-8"))["tables"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{PUBLISHED}: missing or damaged; install the package again") from error


def _table(task: str, dataset: str, metric: str | None) -> dict[str, Any]:
    """The table of a metric, or the first of a dataset."""
    for table in _tables():
        same = (table["task"], table["dataset"]) == (task, dataset)
        if same and metric in (None, table["metric"]):
            return table
    asked = "/".join(filter(None, (task, dataset, metric)))
    known = [f"{table['task']}/{table['dataset']}/{table['metric']}" for table in _tables()]
    raise DataError(f"no published numbers for {asked}; there are {', '.join(known)}")


def published(task: str, dataset: str, metric: str | None = None) -> pd.DataFrame:
    """Published numbers as printed: a row for each method, a column for each label (NaN where not
    known) and ``average``.

    ``task``: au_detection, au_intensity or emotion. ``dataset``: bp4d, bp4d_plus, disfa, affectnet,
    rafdb, and ``affectnet7``, which is AffectNet without contempt. ``metric``: ``f1`` (detection),
    ``icc``, ``mse``, ``mae`` (intensity), ``accuracy`` (emotion); by default the first of the
    dataset. ``attrs``: task,
    dataset, metric, unit (``percent``, or that of the metric), protocol, and ``source`` and
    ``status`` (``established`` or ``second hand``) by method; ``caution`` where there is one.
    Raises :class:`DataError` that lists what there is.
    """
    content = _table(task, dataset, metric)
    names = content["labels"]
    lines = {}
    for row in content["rows"]:
        values = row["values"] or [float("nan")] * len(names)
        lines[row["method"]] = [*values, row["average"]]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=[*names, AVERAGE], dtype=float)

    for key in ("task", "dataset", "metric", "unit", "protocol", "caution"):
        if key in content:
            table.attrs[key] = content[key]
    for key in ("source", "status"):
        table.attrs[key] = {row["method"]: row[key] for row in content["rows"]}
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
    NaN. ``data``: kind of faces of ours, ``rendered`` or ``real``; the paper's are real. No
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
    if unit in SCALES and not all(0 <= value <= 1 for value in ours.values() if value == value):
        raise ValueError(
            f"scores must be within 0..1, they are turned into {unit} here; got {ours}"
        )
    printed = pd.Series(ours, dtype=float).reindex(columns) * SCALES.get(unit, 1.0)
    labels = [name for name in columns if name != AVERAGE]
    if AVERAGE not in ours and labels:
        printed[AVERAGE] = printed[labels].mean(skipna=False)
    return printed.to_dict()
