"""Which face helps, and which mixture: the same folds and seeds for each row of an ablation, and
the differences of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.files import write_atomically
from norface_lib.common.paths import cache
from norface_lib.datasets.disfa import INTENSITY_AUS
from norface_lib.datasets.pairs import EmbeddedPairs, Pairs, embed
from norface_lib.datasets.rendered import Rendered, coded, emotions_of, load_rendered
from norface_lib.faces.benchmark import BenchmarkSpec, write_benchmark
from norface_lib.networks.classifier import INPUTS
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_normalizer
from norface_lib.studies.cross_validation import CrossValidation, Fold, cross_validate, difference
from norface_lib.tasks.tasks import Task, task_of
from norface_lib.training.classifier import Recipe


@dataclass(frozen=True)
class Seen:
    """A rendered benchmark with coders' labels, its normalized faces (N, S, S, 3), and what a
    frozen backbone sees in both."""

    data: Rendered
    normalized: NDArray[np.uint8]
    embedded: EmbeddedPairs

    @property
    def counts(self) -> dict[str, int]:
        """For a result file."""
        return {"people": len(set(self.data.subjects)), "faces": len(self.data), "dropped": 0}

    def labeled(self, name: str, loss: str = "") -> tuple[Task, Pairs, EmbeddedPairs]:
        """A task of `norface_lib.tasks.tasks.TASKS`, and the pairs with its labels, as images and
        as embeddings.

        AU detection has BP4D's 12 AUs, AU intensity DISFA's 12, emotion AffectNet's 8 classes;
        faces without one are left out there. Raises :class:`norface_lib.common.errors.DataError`
        for emotions of a benchmark that has none.
        """
        outputs, values = self._labels(name)
        rows, seen = ~np.isnan(values).any(axis=1), self.embedded
        wanted, subjects = values[rows], self.data.subjects[rows]
        images = Pairs(self.data.originals[rows], self.normalized[rows], wanted, subjects)
        embedded = EmbeddedPairs(
            seen.backbone, seen.originals[:, rows], seen.normalized[:, rows], wanted, subjects
        )
        return task_of(name, outputs, loss), images, embedded

    def _labels(self, name: str) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Names of a task's outputs, and the labels (N, L)."""
        if name == "emotion":
            number = {emotion: number for number, emotion in enumerate(labels.EMOTIONS)}
            shown = emotions_of(self.data.table, self.data.root).map(number)
            return labels.EMOTIONS, shown.to_numpy(np.float32)[:, None]
        if name == "au_intensity":
            return labels.columns(INTENSITY_AUS), self.data.intensities(INTENSITY_AUS)
        return labels.columns(), self.data.occurrences()


def prepare(
    spec: BenchmarkSpec, weights: str = "tiny", errors: float = 0.03, root: Path | None = None
) -> Seen:
    """Renders a benchmark, normalizes and embeds it, and takes all that from the cache if it was
    done before.

    ``errors``: share of labels that coders get wrong (`norface_lib.datasets.rendered.coded`).
    ``root``: of the benchmark; default: in the cache.
    """
    root = write_benchmark(spec, root or cache(spec.pool, spec=spec), progress=False)
    data = coded(load_rendered(root, truth=False, progress=False), errors, spec.seed)
    normalizer, target, card = load_normalizer(weights)
    place = cache("seen", spec=spec, weights=card["sha256"]) / "seen.safetensors"
    if not place.exists():
        normalized = normalize_faces(normalizer, target, data.originals)
        seen = embed(
            Pairs(data.originals, normalized, np.empty((len(data), 0), np.float32), data.subjects),
            normalizer,
        )
        parts = {
            "faces": torch.from_numpy(normalized),
            "originals": seen.originals,
            "normalized": seen.normalized,
        }
        write_atomically(
            place,
            lambda part: save_file(
                {name: value.contiguous() for name, value in parts.items()}, part
            ),
        )
    parts = load_file(place)
    unlabeled = np.empty((len(data), 0), np.float32)
    embedded = EmbeddedPairs(
        normalizer, parts["originals"], parts["normalized"], unlabeled, data.subjects
    )
    return Seen(data, parts["faces"].numpy(), embedded)


def rows_of(recipe: Recipe, ablations: bool = True) -> dict[str, Recipe]:
    """The rows of the comparison: three inputs, and both faces without mixtures, by dense networks
    of as many parameters.

    ``ablations``: also each mixture off alone, and the original without any.
    """
    both = recipe.with_config(inputs="both", input_mixture=True, output_mixture=True)
    none = {"input_mixture": False, "output_mixture": False}
    rows = {name: both.with_config(inputs=name) for name in INPUTS} | {
        "both, no mixture": both.with_config(**none)
    }
    if not ablations:
        return rows
    return rows | {
        "both, no input mixture": both.with_config(input_mixture=False),
        "both, no output mixture": both.with_config(output_mixture=False),
        "original, no mixture": both.with_config(inputs="original", **none),
    }


QUESTIONS = {
    "the normalized face, beside the original": ("both", "original"),
    "the normalized face instead of the original": ("normalized", "original"),
    "the input mixture": ("both", "both, no input mixture"),
    "the output mixture": ("both", "both, no output mixture"),
    "both mixtures": ("both", "both, no mixture"),
    "the normalized face, without mixtures": ("both, no mixture", "original, no mixture"),
    "all of it": ("both", "original, no mixture"),
}
"""What a difference of two rows answers: what does it add?"""


def run_rows(
    rows: Mapping[str, Recipe],
    pairs: Pairs | EmbeddedPairs | Sequence[Pairs | EmbeddedPairs],
    folds: Sequence[Fold],
    task: Task,
    seeds: Sequence[int] = (0,),
    start: Normalizer | None = None,
    made_of: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, CrossValidation]:
    """Cross-validates each row. With ``made_of``, all that the pairs depend on, trainings are kept
    in the cache by it."""
    found = {}
    bar = tqdm(rows.items(), desc=task.name, unit="row", disable=not progress, leave=False)
    for name, recipe in bar:
        bar.set_postfix_str(name)
        folder: Path | None = None
        if made_of is not None:
            folder = cache(task.name.replace("_", "-"), **made_of, task=task, recipe=recipe)
        found[name] = cross_validate(
            pairs, folds, task, recipe, seeds, start, folder, progress=False
        )
    return found


def answers(results: Mapping[str, CrossValidation]) -> dict[str, dict[str, Any]]:
    """`norface_lib.studies.cross_validation.difference` for each of ``QUESTIONS`` whose rows are
    there."""
    asked = {question: pair for question, pair in QUESTIONS.items() if set(pair) <= set(results)}
    return {
        question: difference(*(results[name] for name in pair)) for question, pair in asked.items()
    }


def table(results: Mapping[str, CrossValidation]) -> pd.DataFrame:
    """A row for each: headline, its 95 % interval over subjects, all rows pooled, the spread over
    folds and seeds, seconds."""
    rows = {}
    for name, result in results.items():
        low, high = result.interval or (np.nan, np.nan)
        values = {"score": result.score, "low": low, "high": high, "pooled": result.pooled}
        rows[name] = values | {"spread": float(result.scores.std()), "seconds": result.seconds}
    found = pd.DataFrame(rows).T
    found.index.name = next(iter(results.values())).task.headline
    return found


def answer_table(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The answers as a table: difference, its interval over subjects, its interval over trainings
    and the p of these."""
    rows = {}
    for question, row in found.items():
        low, high = row["subjects"]
        rows[question] = {"adds": row["value"], "low": low, "high": high}
        if "p" in row:
            rows[question] |= {
                "low (trainings)": row["trainings"][0],
                "high (trainings)": row["trainings"][1],
                "p": row["p"],
            }
    return pd.DataFrame(rows).T


def as_result(results: Mapping[str, CrossValidation]) -> dict[str, Any]:
    """For a result file."""
    return {
        "rows": {name: row.as_dict() for name, row in results.items()},
        "answers": answers(results),
    }
