"""Cross-validation of a classifier over folds and seeds, and the difference of two of them."""

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
from norface_lib.studies.expert_usage import usage_of
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


def of_some_people(
    rows: NDArray[np.intp], subjects: NDArray[np.str_], people: int, seed: int, fold: int
) -> NDArray[np.intp]:
    """The rows of ``people`` subjects chosen at random, all if ``people`` is 0. Another seed or
    fold chooses others; more people are these and further ones.

    ``subjects`` (N,) of all rows. Raises ``ValueError`` if there are fewer.
    """
    if not people:
        return rows
    known = np.unique(subjects[rows])
    if people > len(known):
        raise ValueError(
            f"fold {fold + 1} trains on {len(known)} people, so people must be at most that, got "
            f"{people}"
        )
    chosen = np.random.default_rng([seed, fold]).permutation(known)[:people]
    return rows[np.isin(subjects[rows], chosen)]


@dataclass(kw_only=True)
class CrossValidation:
    """Predictions (R, N, O) of trainings with R seeds on F folds; NaN for rows that no fold tests.

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
    # how long each training was, as `Recipe.extent` says it, seed by seed and fold by fold
    extents: list[dict[str, float]] = field(default_factory=list)
    # of these, `norface_lib.studies.expert_usage.usage_of` the test rows
    expert_usage: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def _sums(self, rows: NDArray[np.intp], subjects: NDArray | None = None) -> NDArray:
        """Sums of some rows for each seed: (R, K, ...), or (S, R, K, ...) by subject."""
        sums = [
            self.task.sums(of_seed[rows], self.labels[rows], subjects)
            for of_seed in self.predictions
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
        bootstrap resamples."""
        parts = [self._sums(test, self.subjects[test]) for _, test in self.folds]
        folds = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return np.concatenate(parts), folds

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
        """The score of a constant prediction, the mean over folds."""
        scores = [
            self.task.constant_baseline(self.labels[train], self.labels[test])
            for train, test in self.folds
        ]
        return float(np.mean(scores))

    @property
    def oracle(self) -> dict[str, float]:
        """Scores that could have been reported by choosing on the test rows, comparable with
        nothing."""
        best = [
            self.task.oracle(of_seed[test], self.labels[test])
            for of_seed in self.predictions
            for _, test in self.folds
        ]
        scores = {"best_threshold": float(np.mean(best))}
        if not np.isnan(self.best_epochs).any():
            scores["best_epoch"] = float(self.best_epochs.mean())
        return scores

    @property
    def further(self) -> dict[str, float]:
        """More metrics that the field quotes, the means over folds and seeds."""
        values = [self.task.further(sums) for _, test in self.folds for sums in self._sums(test)]
        return {name: float(np.mean([row[name] for row in values])) for name in values[0]}

    @property
    def further_per_label(self) -> dict[str, NDArray[np.float64]]:
        """(O,) of more metrics of each output by name, the means over folds and seeds."""
        values = [self.task.further_per_label(self._sums(test)) for _, test in self.folds]
        # over folds, then over seeds
        return {name: np.mean([of[name] for of in values], axis=(0, 1)) for name in values[0]}

    @property
    def spread(self) -> dict[str, float | None]:
        """Standard deviation of the headline over ``folds`` (seeds averaged) and over ``seeds``
        (folds averaged); None where there is a single one."""
        means = {"folds": self.scores.mean(axis=0), "seeds": self.scores.mean(axis=1)}
        return {name: float(of.std(ddof=1)) if len(of) > 1 else None for name, of in means.items()}

    @property
    def confusion(self) -> NDArray[np.float64] | None:
        """(O, O) images of a true class (line) that were called each class, over all folds, the
        mean over seeds; None but for emotions."""
        if self.task.name != "emotion":
            return None
        return sum(self._sums(test).mean(axis=0) for _, test in self.folds)

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        config = self.recipe.config
        return {
            "task": self.task.name,
            "inputs": config.inputs,
            "mixtures": {"input": config.input_mixture, "output": config.output_mixture},
            "trained": self.extents,
            "metric": self.task.headline,
            "headline": self.score,
            "interval": self.interval,
            "pooled": self.pooled,
            "constant_baseline": self.constant_baseline,
            "further": self.further,
            "further_per_label": {
                name: {
                    output: None if np.isnan(value) else float(value)
                    for output, value in zip(self.task.outputs, values, strict=True)
                }
                for name, values in self.further_per_label.items()
            },
            "spread": self.spread,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "per_label": dict(zip(self.task.outputs, self.per_label.tolist(), strict=True)),
            "per_label_per_seed_and_fold": self.per_fold.tolist(),
            "per_seed_and_fold": self.scores.tolist(),
            "expert_usage": self.expert_usage,
            "oracle": self.oracle | {"note": "chosen on the test rows: not comparable"},
            "seconds": round(self.seconds, 1),
            "images_per_second": self.images_per_second,
        }


def cross_validate(
    pairs: Pairs | EmbeddedPairs | Sequence[Pairs | EmbeddedPairs],
    folds: Sequence[Fold],
    task: Task,
    recipe: Recipe,
    *,
    seeds: Sequence[int] = (0,),
    people: int = 0,
    start: Normalizer | None = None,
    folder: Path | None = None,
    name: str = "classifier",
    device: str = "auto",
    progress: bool = True,
    workers: int | None = None,
) -> CrossValidation:
    """Trains on each fold's training rows and tests on the rest, for each seed: last step, nothing
    chosen on test rows.

    ``pairs``: the same for all folds, or one for each where each fold has its own normalizer.
    ``people``: train on some people of each fold only, see `of_some_people`. ``start`` and
    ``workers`` are those of `train_classifier`. With a ``folder`` an interrupted call goes on where
    it was.
    """
    started = time.monotonic()
    of_fold = list(pairs) if isinstance(pairs, Sequence) else [pairs] * len(folds)
    first = of_fold[0]
    predictions = np.full((len(seeds), len(first), len(task.outputs)), np.nan, np.float32)
    best = np.full((len(seeds), len(folds)), np.nan)
    models: list[Classifier] = []
    extents: list[dict[str, float]] = []
    usage: list[dict[str, Any]] = []
    training_seconds = 0.0

    for run, seed in enumerate(seeds):
        for number, ((train, test), faces) in enumerate(zip(folds, of_fold, strict=True)):
            label = f"{name}-seed{seed}-fold{number + 1}"
            begun = time.monotonic()
            rows = of_some_people(train, first.subjects, people, seed, number)
            extents.append(recipe.extent(len(rows)))
            model = train_classifier(
                faces,
                rows,
                task,
                recipe.seeded(seed),
                start=start,
                folder=folder,
                name=label,
                device=device,
                progress=progress,
                tested=test,
                workers=workers,
            )
            training_seconds += (
                time.monotonic() - begun
                if folder is None
                else logged_seconds(Path(folder) / f"{label}.jsonl")
            )
            predictions[run, test] = predict_rows(model, faces, test, task, workers=workers)
            best[run, number] = _best_of_log(folder, label)
            if run == 0:
                models.append(model)
                usage.append(usage_of(model, faces, test))

    images = sum(extent["samples_seen"] for extent in extents)
    return CrossValidation(
        task=task,
        recipe=recipe,
        folds=list(folds),
        labels=first.labels,
        subjects=first.subjects,
        predictions=predictions,
        best_epochs=best,
        seconds=time.monotonic() - started,
        images_per_second=round(images / training_seconds, 1) if training_seconds >= 1 else None,
        models=models,
        extents=extents,
        expert_usage=usage,
    )


def _best_of_log(folder: Path | None, name: str) -> float:
    """The best score on the test rows that the log of a training holds; NaN without a log."""
    if folder is None:
        return float("nan")
    lines = (Path(folder) / f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return max((row["test"] for row in rows if "test" in row), default=float("nan"))


def difference(first: CrossValidation, second: CrossValidation) -> dict[str, Any]:
    """First minus second headline on the same folds and seeds, and how sure it is.

    ``subjects``: interval over other test subjects (bootstrap within folds, seeds averaged), None
    if a fold tests fewer than two. ``trainings``: Student's interval over pairs of the same fold
    and seed, and ``p`` of the sign-flip test over these. ``ValueError`` if the two do not match.
    """
    sums, folds = first.by_subject()
    other_sums, _ = second.by_subject()
    result: dict[str, Any] = {"value": first.score - second.score, "subjects": None}
    if np.bincount(folds).min() >= 2:
        over_subjects = paired_bootstrap(sums, other_sums, first.mean_score, folds=folds)
        result["subjects"] = [float(over_subjects.low), float(over_subjects.high)]

    scores = first.scores.ravel()
    other_scores = second.scores.ravel()
    if len(scores) > 1:
        over_trainings = paired_t_interval(scores, other_scores)
        result["trainings"] = [float(over_trainings.low), float(over_trainings.high)]
        result["p"] = sign_flip_test(scores, other_scores)
    return result
