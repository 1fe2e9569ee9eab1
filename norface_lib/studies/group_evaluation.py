"""Evaluation of a reader by groups of people: does it err more on some than on others?"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.datasets.rendered import Rendered
from norface_lib.studies.face_readings import (
    FaceReadings,
    FacesToRead,
    hashes_of,
    load_together,
    read_by,
)
from norface_lib.studies.groups import groups_of
from norface_lib.studies.known_faces import KnownFaces
from norface_lib.studies.reader_evaluation import data_settings, headlines, write_evaluation
from norface_lib.studies.reader_measures import measure_readings
from norface_lib.studies.resampling import Samples, person_weights, with_intervals

LEAST_PEOPLE = 5
"""People of a group below which it is counted, and not measured."""

SHOWN = (
    "truth auc_mean_bp4d",
    "truth f1_mean_bp4d",
    "neutral mean_bp4d",
    "smile all",
    "emotion class_mean",
)
"""Measures of `norface_lib.studies.reader_measures` that are compared between groups."""


def evaluate_groups(
    root: Path,
    reader: str,
    *,
    groups: Path | None = None,
    weights: str = "tiny-photo",
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """What a reader does on each group of people, with 95 % intervals over people, and the
    difference of each group from all others.

    ``root``: a rendered benchmark, or photographs in its layout. ``reader``: as
    `norface_lib.studies.reader_evaluation.evaluate_readers` takes it. ``groups``: a table, as
    `norface_lib.studies.groups.groups_of` reads it; it also says how people are grouped without
    one. ``weights``: the normalizer that draws I_n for classifiers. ``out``: the result file to
    write. A group of fewer than ``LEAST_PEOPLE`` is counted only. Raises :class:`DataError` if no
    group is large enough, and the errors of these functions.
    """
    started = time.monotonic()
    networks = load_together(reader)
    data = Rendered(root, progress=progress)
    table = groups_of(data, groups)
    readings = read_by(networks, FacesToRead(data.originals, weights, progress))
    result = by_group(readings, KnownFaces.of(data), table)
    if not any(found["measured"] for found in result.values()):
        raise DataError(f"{root}: no group of {LEAST_PEOPLE} people or more; give a table --groups")
    if out is not None:
        settings = {"readers": {reader: hashes_of(networks)}, **data_settings(data, weights)}
        write_evaluation(out, {"groups": result}, data, started, settings)
    return result


def by_group(
    readings: FaceReadings, known: KnownFaces, table: pd.DataFrame
) -> dict[str, dict[str, Any]]:
    """For each column of a table of subjects: the ``measured`` groups by name, and the number of
    people in each that is ``too_small``."""
    return {name: _of_column(readings, known, table[name]) for name in table.columns}


def _of_column(readings: FaceReadings, known: KnownFaces, column: pd.Series) -> dict[str, Any]:
    sizes = column[column != ""].value_counts().sort_index()
    large = [str(name) for name in sizes.index[sizes >= LEAST_PEOPLE]]
    names = column.reindex(known.subjects, fill_value="").to_numpy(str)
    measured = {}
    for name in large:
        own = names == name
        others = (names != name) & (names != "")
        values = _measures(readings, known, own)
        rest = _measures(readings, known, others) if len(large) > 1 else {}
        measured[name] = {
            "people": int(sizes[name]),
            "faces": int(own.sum()),
            "measures": with_intervals(values),
            # people of both are different ones, so they are resampled each for themselves
            "difference_from_others": with_intervals(
                {key: values[key] - rest[key] for key in values if key in rest}
            ),
        }
    too_small = {str(name): int(size) for name, size in sizes.items() if name not in large}
    return {"measured": measured, "too_small": too_small}


def _measures(
    readings: FaceReadings, known: KnownFaces, chosen: NDArray[np.bool_]
) -> dict[str, Samples]:
    """The measures of ``SHOWN`` on some faces, those that can be taken."""
    faces = known.of_rows(chosen)
    # a seed of its own for each set of people, so that no two are resampled alike, and the
    # difference of two groups is the same from either side
    seed = crc32(" ".join(np.unique(faces.subjects)).encode())
    weights = person_weights(faces.subjects, seed=seed)
    measures, _ = measure_readings(readings.of(chosen), faces, weights)
    samples = dict(headlines(measures))
    return {name: samples[name] for name in SHOWN if name in samples}


def as_text(result: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for each way to group people."""
    return "\n\n".join(_table(name, found) for name, found in result.items())


def _table(name: str, found: Mapping[str, Any]) -> str:
    rows = {
        f"{group} ({each['people']} people)": dict(_cells(each))
        for group, each in found["measured"].items()
    }
    lines = [f"by {name}"]
    if rows:
        lines.append(pd.DataFrame(rows).T.fillna("").to_string())
    lines += [
        f"{group}: {size} {'person' if size == 1 else 'people'}, too few"
        for group, size in found["too_small"].items()
    ]
    return "\n".join(lines)


def _cells(group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The measures of a group; a star where it differs from all others beyond chance."""
    for name, cell in group["measures"].items():
        if cell["value"] is None:
            continue
        low, high = cell["interval"]
        ends = group["difference_from_others"].get(name, {}).get("interval")
        star = " *" if ends and not ends[0] <= 0 <= ends[1] else ""
        yield name, f"{cell['value']:.3f} [{low:.3f}, {high:.3f}]{star}"
