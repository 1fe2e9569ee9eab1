"""Evaluation of a normalizer on rendered people outside its training.

Five measures: distance of I_n to the true I_n (`image_measures`), expressions that an evaluator
reads in it (`evaluator_measures`), leakage of the person (`identity_leakage`) and of pose, light
and background (`nuisance_leakage`), and stability while only these change (`spread_measures`). Each
is also taken of what I_n is to be compared with: the originals, the true I_n (the best possible),
the neutral target face (which moves nothing). No number here is a goal or a verdict.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from os import PathLike
from typing import Any

import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.paths import cache
from norface_lib.common.records import machine, versions
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.sampling import DOMAINS
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import Faces, resized
from norface_lib.networks.cards import read_card
from norface_lib.networks.drawing import Draw, NetworkDrawing
from norface_lib.networks.evaluator import Evaluator, EvaluatorOutput
from norface_lib.networks.places import find_weights
from norface_lib.networks.weights import load_evaluator
from norface_lib.photos.read_and_render import ReadAndRender
from norface_lib.studies.image_measures import image_measures
from norface_lib.studies.leakage_probes import (
    DEFAULT,
    Probes,
    identity_leakage,
    nuisance_leakage,
    nuisance_of,
)
from norface_lib.studies.stability import spread_measures
from norface_lib.training.evaluator import EvaluatorLabels, evaluator_outputs, reading_scores


def evaluator_measures(evaluator: Evaluator, data: Rendered, normalized: Faces) -> dict[str, Any]:
    """Scores of expressions that an evaluator reads in I_n, in the true I_n (upper bound), in the
    neutral target (lower bound) and in the originals.

    Each as of `reading_scores`; ``f1_ratio`` is that of I_n over that of the true I_n.
    """
    neutral = evaluator_outputs(evaluator, data.target[None])
    outputs = {
        "normalized": evaluator_outputs(evaluator, normalized),
        "truth": evaluator_outputs(evaluator, data.truths),
        "target": EvaluatorOutput(*(part.expand(len(data), -1) for part in neutral)),
        "original": evaluator_outputs(evaluator, data.originals),
    }
    labels = EvaluatorLabels.of(data, evaluator.config)
    scores: dict[str, Any] = {
        name: reading_scores(output, labels, evaluator.config) for name, output in outputs.items()
    }
    best = scores["truth"]["f1"]
    return scores | {"f1_ratio": scores["normalized"]["f1"] / best if best else None}


def measure_normalizer(
    draw: Draw,
    evaluator: Evaluator,
    data: Rendered,
    domain: str,
    seed: int = 0,
    probes: Probes = DEFAULT,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and result of each measure in turn, of what draws I_n with the target of ``data``, which
    must hold the true images."""
    normalized = draw(data.originals)
    images = {"original": data.originals, "normalized": normalized, "truth": data.truths}
    yield "images", image_measures(data.truths, normalized, data.target)
    yield "evaluator", evaluator_measures(evaluator, data, normalized)
    yield "identity", identity_leakage(images, data.subjects, probes)
    yield "nuisance", nuisance_leakage(images, *nuisance_of(data), data.subjects, probes)
    yield "spread", spread_measures(draw, data.target, domain, seed=seed)


def evaluate_normalizer(
    weights: str | PathLike[str] = "tiny",
    *,
    domain: str = "lab",
    subjects: int = 60,
    frames: int = 20,
    seed: int = 0,
    evaluator: str | PathLike[str] = "evaluator",
    target: str | None = None,
    token_reader: str | None = None,
    probes: Probes = DEFAULT,
) -> dict[str, Any]:
    """All measures of a shipped normalizer (name or path) on rendered subjects of one domain, and
    how they were taken.

    ``token_reader``: measures *read and render* by these weights in place of the normalizer's
    drawing (`norface_lib.photos.read_and_render`).

    Faces are rendered at the size that is drawn, and shrunk for a network that takes smaller ones:
    a face rendered at 112 px is another one, at its edges, than one that was shrunk to them.

    The benchmark is rendered once, into the cache. Progress goes to stderr. Raises
    :class:`DataError` for an unknown domain and for too few subjects or frames,
    :class:`norface_lib.common.errors.CheckpointError` for weights that cannot be loaded.
    """
    started = time.monotonic()
    if domain not in DOMAINS:
        raise DataError(f"no domain {domain!r}; there are {', '.join(DOMAINS)}")
    if subjects < probes.folds or frames < 2:
        raise DataError(
            f"{subjects} subjects with {frames} frames are too few; needed are {probes.folds} and 2"
        )
    network, evaluator_card = load_evaluator(evaluator)
    drawing = (
        NetworkDrawing(weights, target)
        if token_reader is None
        else ReadAndRender(token_reader, target=target, size=network.config.image_size)
    )
    kind = "reader" if token_reader else "normalizer"
    card = read_card(find_weights(token_reader or weights, kind))
    spec = BenchmarkSpec(
        pool=domain,
        subjects=subjects,
        frames=frames,
        size=drawing.size,
        seed=seed,
        target=drawing.target,
    )
    with redirect_stdout(sys.stderr):  # stdout is for the result
        folder = write_benchmark(spec, cache("evaluate", **asdict(spec)))
        data = Rendered(folder, aus=network.config.aus, progress=True)
    _log(f"{len(data)} faces", started)

    def draw(faces: Faces) -> Faces:
        return drawing.draw(resized(faces, drawing.input_size))

    result: dict[str, Any] = {}
    for name, measures in measure_normalizer(draw, network, data, domain, seed, probes):
        result[name] = measures
        _log(name, started)
    return {
        "result": result,
        "seed": seed,
        "counts": {"subjects": subjects, "faces": len(data)},
        "settings": {
            "weights": card["name"],
            "sha256": card["sha256"],
            "evaluator": evaluator_card["sha256"],
            "benchmark": asdict(spec),
            "probes": asdict(probes),
        },
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine(),
        "versions": versions(),
    }


def _log(step: str, started: float) -> None:
    print(f"{time.monotonic() - started:6.1f} s  {step}", file=sys.stderr, flush=True)


_COLUMNS = ("original", "normalized", "truth", "target", "")
"""Columns of a table, in their order: the images that a number is of, or none for a ratio."""


def as_text(evaluation: dict[str, Any]) -> str:
    """The result of `evaluate_normalizer` as tables to read, one for each measure. Of single AUs
    they hold F1 alone."""
    settings = evaluation["settings"]
    counts = evaluation["counts"]
    head = (
        f"{settings['weights']}, {settings['benchmark']['pool']}: {counts['faces']} faces of "
        f"{counts['subjects']} people, {evaluation['seconds']:.0f} s"
    )
    tables = [f"{name}\n{_table(measures)}" for name, measures in evaluation["result"].items()]
    return "\n\n".join([head, *tables])


def _table(measures: dict[str, Any]) -> str:
    rows: dict[str, dict[str, float | None]] = {}
    for path, value in _flat(measures):
        if any(part.endswith("_per_au") and part != "f1_per_au" for part in path):
            continue
        column = next((part for part in path if part in _COLUMNS), "")
        row = " ".join(part for part in path if part != column)
        rows.setdefault(row, {})[column] = value
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
    columns = [column for column in _COLUMNS if column in table]
    return table[columns].to_string(na_rep="", float_format="%.3f")


def _flat(
    measures: dict[str, Any], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float | None]]:
    """Paths of keys and values of a nested dictionary."""
    for name, value in measures.items():
        if isinstance(value, dict):
            yield from _flat(value, (*place, name))
        else:
            yield (*place, name), value
