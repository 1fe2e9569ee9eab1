"""Training and testing classifiers: one training, a cross-validation over folds and seeds, and what
two of them differ by."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norface_lib.datasets.pairs import EmbeddedPairs, Pairs
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.normalizer import Normalizer
from norface_lib.studies.statistics import (
    bootstrap_interval,
    paired_bootstrap,
    paired_t_interval,
    sign_flip_test,
)
from norface_lib.tasks.tasks import Task
from norface_lib.training.classifier import Recipe, predict_rows, train_classifier
from norface_lib.training.loop import logged_seconds

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows to train on and rows to test on."""


@dataclass
class CrossValidation:
    """What trainings with R seeds on F folds gave: the predictions (R, N, O) for every tested row,
    NaN elsewhere.

    ``best_epochs`` (R, F) holds the best score that a training had on its test rows at any time:
    chosen on these, no result.
    """

    task: Task
    recipe: Recipe
    folds: list[Fold]
    labels: NDArray[np.float32]
    subjects: NDArray[np.str_]
    predictions: NDArray[np.float32]
    best_epochs: NDArray[np.float64]
    seconds: float  # of the whole call; less where trainings were there already
    # in training, original and normalized as one; None if it was too short to tell
    images_per_second: float | None
    # of the first seed, one a fold
    models: list[Classifier] = field(default_factory=list, repr=False)

    def _sums(self, rows: NDArray[np.intp], subjects: NDArray | None = None) -> NDArray:
        """Sums of some rows for each seed: (R, K, ...), or (S, R, K, ...) by subject."""
        sums = [
            self.task.sums(seen[rows], self.labels[rows], subjects) for seen in self.predictions
        ]
        return np.stack(sums, axis=0 if subjects is None else 1)

    @property
    def per_fold(self) -> NDArray[np.float64]:
        """(R, F, O) metric of each output at each seed and fold."""
        return np.stack([self.task.per_label(self._sums(test)) for _, test in self.folds], axis=1)

    @property
    def per_label(self) -> NDArray[np.float64]:
        """(O,) metric of each output, the mean over folds and seeds."""
        return self.per_fold.mean(axis=(0, 1))

    @property
    def scores(self) -> NDArray[np.float64]:
        """(R, F) headline of each seed and fold."""
        return np.stack([self.task.score(self._sums(test)) for _, test in self.folds], axis=1)

    @property
    def score(self) -> float:
        """The field's headline: the mean over folds, and over seeds."""
        return float(self.scores.mean())

    @property
    def pooled(self) -> float:
        """The score of all tested rows at once, the mean over seeds."""
        return float(self.task.score(self._sums(self._tested)).mean())

    @property
    def _tested(self) -> NDArray[np.intp]:
        return np.concatenate([test for _, test in self.folds])

    def by_subject(self) -> tuple[NDArray, NDArray]:
        """Sums (S, R, K, ...) of each tested subject, and the fold (S,) that tests it: what a
        bootstrap draws from."""
        parts = [self._sums(test, self.subjects[test]) for _, test in self.folds]
        return np.concatenate(parts), np.repeat(
            np.arange(len(parts)), [len(part) for part in parts]
        )

    def mean_score(self, sums: NDArray) -> NDArray[np.float64]:
        """Score of sums (..., R, K, ...), the mean over seeds: the metric that goes with
        `by_subject`."""
        return self.task.score(sums).mean(axis=-1)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of the headline over other subjects (bootstrap within folds); None if a fold tests
        fewer than two."""
        sums, folds = self.by_subject()
        if np.bincount(folds).min() < 2:
            return None
        low, high = bootstrap_interval(sums, self.mean_score, folds=folds)
        return float(low), float(high)

    @property
    def constant_baseline(self) -> float:
        """The score of one who looks at no face, the mean over folds."""
        return float(
            np.mean(
                [
                    self.task.constant_baseline(self.labels[train], self.labels[test])
                    for train, test in self.folds
                ]
            )
        )

    @property
    def oracle(self) -> dict[str, float]:
        """What could have been reported by choosing on the test rows. Not comparable with anything."""
        best = [
            [self.task.oracle(seen[test], self.labels[test]) for _, test in self.folds]
            for seen in self.predictions
        ]
        looked = (
            {}
            if np.isnan(self.best_epochs).any()
            else {"best_epoch": float(self.best_epochs.mean())}
        )
        return {"best_threshold": float(np.mean(best))} | looked

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        further = [self.task.further(sums) for _, test in self.folds for sums in self._sums(test)]
        config = self.recipe.config
        return {
            "task": self.task.name,
            "inputs": config.inputs,
            "mixtures": {"input": config.input_mixture, "output": config.output_mixture},
            "metric": self.task.headline,
            "headline": self.score,
            "interval": self.interval,
            "pooled": self.pooled,
            "constant_baseline": self.constant_baseline,
            "further": {
                name: float(np.mean([row[name] for row in further])) for name in further[0]
            },
            "per_label": dict(zip(self.task.outputs, self.per_label.tolist(), strict=True)),
            "per_label_per_seed_and_fold": self.per_fold.tolist(),
            "per_seed_and_fold": self.scores.tolist(),
            "oracle": self.oracle | {"note": "chosen on the test rows: not comparable"},
            "seconds": round(self.seconds, 1),
            "images_per_second": self.images_per_second,
        }


def cross_validate(
    pairs: Pairs | EmbeddedPairs | Sequence[Pairs | EmbeddedPairs],
    folds: Sequence[Fold],
    task: Task,
    recipe: Recipe,
    seeds: Sequence[int] = (0,),
    start: Normalizer | None = None,
    folder: Path | None = None,
    name: str = "classifier",
    device: str = "auto",
    progress: bool = True,
) -> CrossValidation:
    """Trains on each fold's training rows and tests on the rest, for each seed: last step, nothing
    chosen on test rows.

    ``pairs``: the same for all folds, or one for each where each fold has its own normalizer.
    ``start`` is that of `train_classifier`. With a ``folder`` an interrupted call goes on where it
    was.
    """
    started = time.monotonic()
    given = list(pairs) if isinstance(pairs, Sequence) else [pairs] * len(folds)
    first = given[0]
    predictions = np.full((len(seeds), len(first), len(task.outputs)), np.nan, np.float32)
    best, models, took = np.full((len(seeds), len(folds)), np.nan), [], 0.0
    for run, seed in enumerate(seeds):
        for number, ((train, test), own) in enumerate(zip(folds, given, strict=True)):
            place = f"{name}-seed{seed}-fold{number + 1}"
            seeded, begun = recipe.seeded(seed), time.monotonic()
            model = train_classifier(
                own, train, task, seeded, start, folder, place, device, progress, tested=test
            )
            took += (
                time.monotonic() - begun
                if folder is None
                else logged_seconds(Path(folder) / f"{place}.jsonl")
            )
            predictions[run, test] = predict_rows(model, own, test, task)
            best[run, number] = _best_of_log(folder, place)
            models += [model] if run == 0 else []
    seconds = time.monotonic() - started
    images = len(seeds) * len(folds) * recipe.training.steps * recipe.training.batch_size
    rate = round(images / took, 1) if took >= 1 else None
    return CrossValidation(
        task,
        recipe,
        list(folds),
        first.labels,
        first.subjects,
        predictions,
        best,
        seconds,
        rate,
        models,
    )


def _best_of_log(folder: Path | None, name: str) -> float:
    """The best score on the test rows that the log of a training holds; NaN without a log."""
    if folder is None:
        return float("nan")
    rows = map(json.loads, (Path(folder) / f"{name}.jsonl").read_text().splitlines())
    return max((row["test"] for row in rows if "test" in row), default=float("nan"))


def difference(first: CrossValidation, second: CrossValidation) -> dict[str, Any]:
    """First minus second headline on the same folds and seeds, by three answers to "is it more than
    chance?".

    ``subjects``: interval over other test subjects (bootstrap within folds, seeds averaged).
    ``trainings``: Student's interval over pairs of the same fold and seed, and ``p`` of the
    sign-flip test over these. ``ValueError`` if the two do not match.
    """
    (ours, folds), (theirs, _) = first.by_subject(), second.by_subject()
    over_subjects = paired_bootstrap(ours, theirs, first.mean_score, folds=folds)
    pairs = first.scores.ravel(), second.scores.ravel()
    found: dict[str, Any] = {
        "value": float(over_subjects.value),
        "subjects": [float(over_subjects.low), float(over_subjects.high)],
    }
    if len(pairs[0]) > 1:
        over_trainings = paired_t_interval(*pairs)
        found |= {
            "trainings": [float(over_trainings.low), float(over_trainings.high)],
            "p": sign_flip_test(*pairs),
        }
    return found
