"""Evaluation of readers side by side, on faces of people that none of them met."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.records import write_result
from norface_lib.datasets.label_table import read_spec
from norface_lib.datasets.rendered import Rendered
from norface_lib.networks.cards import read_card
from norface_lib.networks.places import find_weights
from norface_lib.studies.face_readings import (
    FaceReadings,
    FacesToRead,
    hashes_of,
    load_together,
    read_by,
)
from norface_lib.studies.known_faces import KnownFaces
from norface_lib.studies.reader_measures import measure_readings
from norface_lib.studies.resampling import Samples, person_weights, with_intervals

NOTES = {
    "emotion": "what the reader calls a face, against what people, or the renderer, call it",
    "signs": "no FACS truth: whether the AUs that must show in an emotion (EMFACS) go along with "
    "what people see; AUC of each against neutral faces",
    "neutral": "share of neutral faces on which an AU counts as shown, p of 0.5 or more",
    "smile": "AUC of AU12 for smiling against neutral faces",
    "truth": "against the exact AUs of rendered faces",
}
"""What each measure is, for those who read a result."""


def evaluate_readers(
    root: Path,
    readers: Sequence[str],
    *,
    weights: str = "tiny-photo",
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """All measures of `norface_lib.studies.reader_measures` of some readers, side by side, on a
    benchmark: a rendered one, or photographs in its layout.

    ``readers``: token readers and classifiers by name or path; classifiers that belong together are
    joined by ``+``. ``weights``: the normalizer that draws I_n for classifiers. ``out``: the result
    file to write. Each value has a 95 % interval over people (bootstrap); ``differences`` are those
    from the first reader, on the same resamples.

    Raises :class:`DataError` for a reader given twice and for fewer than two people, and the errors
    of `Rendered` and of `norface_lib.studies.face_readings.load_together` and ``read_by``.
    """
    started = time.monotonic()
    if len(set(readers)) < len(readers):
        raise DataError("a reader is given twice; name each once")
    loaded = {name: load_together(name) for name in readers}
    data = Rendered(root, progress=progress)
    faces = FacesToRead(data.originals, weights, progress)
    read = {name: read_by(networks, faces) for name, networks in loaded.items()}
    found, differences = side_by_side(read, KnownFaces.of(data))
    result = {"readers": found, "differences": differences, "notes": NOTES}
    if out is not None:
        hashes = {name: hashes_of(networks) for name, networks in loaded.items()}
        settings = {"readers": hashes, **data_settings(data, weights)}
        write_evaluation(out, result, data, started, settings)
    return result


def side_by_side(
    read: Mapping[str, FaceReadings], known: KnownFaces
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures of several readings of the same faces, by name, each with its intervals and with
    what is ``left_out``; and the differences of what `headlines` gives from the first."""
    weights = person_weights(known.subjects)
    pairs = {name: measure_readings(readings, known, weights) for name, readings in read.items()}
    samples = {name: dict(headlines(measures)) for name, (measures, _) in pairs.items()}
    first, *others = read
    differences = {
        f"{other} - {first}": {
            key: value - samples[first][key]
            for key, value in samples[other].items()
            if key in samples[first]
        }
        for other in others
    }
    found = {
        name: with_intervals(measures) | {"left_out": left_out}
        for name, (measures, left_out) in pairs.items()
    }
    return found, with_intervals(differences)


def headlines(measures: Mapping[str, Any]) -> Iterator[tuple[str, Samples]]:
    """The samples that are quoted, by the words of their path: all that are not of a single class
    or AU."""
    for name, values in measures.items():
        for key, value in values.items():
            if isinstance(value, np.ndarray):
                yield f"{name} {key}", value
            elif isinstance(value, Mapping) and "auc" in value:
                yield f"{name} {key}", value["auc"]


def data_settings(data: Rendered, weights: str) -> dict[str, Any]:
    """What a result says of its faces and of the normalizer."""
    spec = read_spec(data.root)
    named = ("pool", "subjects", "frames", "seed", "size")
    return {
        "data": {key: spec[key] for key in named if key in spec},
        "normalizer": read_card(find_weights(weights, "normalizer"))["sha256"],
    }


def write_evaluation(
    out: Path, result: dict[str, Any], data: Rendered, started: float, settings: dict[str, Any]
) -> Path:
    """Writes a result file."""
    return write_result(
        out,
        result,
        seed=0,
        started=started,
        counts={"faces": len(data), "people": len(set(data.subjects))},
        leakage="pretrained",
        settings=settings,
    )


# --- as text --------------------------------------------------------------------------------------


def measures_as_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Measures of readers as a short table for each, readers side by side; single AUs are in the
    result file alone."""
    parts = []
    for name, note in NOTES.items():
        columns = {
            reader: dict(_cells(measures[name]))
            for reader, measures in found.items()
            if name in measures
        }
        if columns:
            table = pd.DataFrame(columns).fillna("")
            parts.append(f"{name}: {note}\n{table.to_string()}")
        parts += [
            f"{name} of {reader} is left out: {measures['left_out'][name]}"
            for reader, measures in found.items()
            if name in measures["left_out"]
        ]
    return "\n\n".join(parts)


def _cells(measure: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of a reader's column: its counts, and its values with their intervals."""
    for key, value in measure.items():
        row = key.replace("_", " ")
        if isinstance(value, int | float):
            yield row, f"{value:.3f}" if isinstance(value, float) else str(value)
        elif isinstance(value, list | str):
            yield row, value if isinstance(value, str) else ", ".join(value)
        elif "value" in value:
            yield row, _cell(value)
        elif "auc" in value:
            yield row, _cell(value["auc"])
        elif key == "recall":
            yield from ((f"recall, {name}", _cell(each)) for name, each in value.items())


def _cell(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return ""
    return "{:.3f} [{:.3f}, {:.3f}]".format(value["value"], *value["interval"])
