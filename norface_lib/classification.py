"""Training and testing classifiers: one training, a cross-validation over folds and seeds, and what two of them differ by."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib.classifier import Classifier, ClassifierConfig, auxiliary_loss
from norface_lib.evaluation import Faces
from norface_lib.metrics import bootstrap_interval, paired_bootstrap, paired_t_interval, sign_flip_test
from norface_lib.normalizer import Normalizer
from norface_lib.pairs import EmbeddedPairs, Pairs
from norface_lib.pretrained import load_encoder_weights
from norface_lib.tasks import Task, balancing_weights
from norface_lib.training import TrainConfig, device_of, fit, logged_seconds

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows to train on and rows to test on."""


@dataclass(frozen=True)
class Recipe:
    """How a classifier is made: a row of an ablation. Weights are the paper's (PAPER.md 1.2)."""

    config: ClassifierConfig
    training: TrainConfig
    balanced: bool = False  # rare classes are drawn as often as common ones
    importance: float = 1e-3  # weight of the importance loss of the mixtures' gates
    load: float = 1e-3  # weight of their load loss
    encoder: str = ""  # weights that the encoder begins with, as `norface_lib.pretrained.load_encoder_weights` takes them

    def with_config(self, **changes: Any) -> "Recipe":
        """The same with another network: ``with_config(inputs="original")``."""
        return replace(self, config=replace(self.config, **changes))

    def seeded(self, seed: int) -> "Recipe":
        """The same with another seed."""
        return replace(self, training=replace(self.training, seed=seed))


def train_classifier(
    pairs: Pairs | EmbeddedPairs,
    rows: NDArray[np.intp],
    task: Task,
    recipe: Recipe,
    start: Normalizer | None = None,
    folder: Path | None = None,
    name: str = "classifier",
    device: str = "auto",
    progress: bool = True,
    tested: NDArray[np.intp] | None = None,
) -> Classifier:
    """Trains a classifier on some rows: all of it on `Pairs`, its head over their frozen backbone on `EmbeddedPairs`.

    ``start``: the normalizer whose backbone a training on `Pairs` begins with a copy of (None: from chance). ``tested``: rows
    whose score goes to the log as ``test``, each ``watch_every`` steps, and nowhere else. Returns it in evaluation mode. Raises
    ``ValueError`` if network and task name different outputs, and what `norface_lib.training.fit` raises.
    """
    if recipe.config.labels != task.outputs:
        raise ValueError(f"the network's labels {recipe.config.labels} are not the task's outputs {task.outputs}")
    where = device_of(device)
    torch.manual_seed(recipe.training.seed)
    model = Classifier(recipe.config)
    start = pairs.backbone if isinstance(pairs, EmbeddedPairs) else start
    if start is not None:
        model.start_from(start)
    if recipe.encoder:
        load_encoder_weights(model.encoder, recipe.encoder)
    learner = pairs.learner(model.to(where, memory_format=torch.channels_last))
    watch = None if tested is None else lambda learner, _: {"test": _score(learner, pairs, tested, task, where)}
    fit(learner, _loss(pairs, rows, task, recipe, where), len(rows), recipe.training, folder, name, progress, watch)
    return model.eval()


def _loss(pairs: Pairs | EmbeddedPairs, rows: NDArray[np.intp], task: Task, recipe: Recipe, where: torch.device):
    """The task's loss, with what it knows from the training rows alone, and the auxiliary losses of the mixtures."""
    criterion = task.criterion(pairs.labels[rows])
    chances = balancing_weights(task, pairs.labels[rows]) if recipe.balanced else None

    def loss(learner: nn.Module, indices: Tensor) -> tuple[Tensor, dict[str, float]]:
        if chances is not None:  # drawn anew, by the step's seed
            indices = torch.multinomial(chances, len(indices), replacement=True)
        chosen = rows[indices.numpy()]
        output = learner(*pairs.batch(chosen, where, augmented=True))
        error = criterion(output.logits, torch.from_numpy(pairs.labels[chosen]).to(where))
        return error + auxiliary_loss(output, recipe.importance, recipe.load), {task.name: error.item()}

    return loss


def _score(learner: nn.Module, pairs: Pairs | EmbeddedPairs, rows: NDArray[np.intp], task: Task, where: torch.device) -> float:
    """The task's score of some rows."""
    return float(task.score(task.sums(_read(learner, pairs, rows, task, where), pairs.labels[rows])))


@torch.inference_mode()
def _read(
    learner: nn.Module, pairs: Pairs | EmbeddedPairs, rows: NDArray[np.intp], task: Task, where: torch.device, size: int = 128
) -> NDArray[np.float32]:
    batches = (pairs.batch(rows[start : start + size], where) for start in range(0, len(rows), size))
    return np.concatenate([task.predictions(learner(*batch).logits) for batch in batches])


def predict_rows(
    model: Classifier, pairs: Pairs | EmbeddedPairs, rows: NDArray[np.intp], task: Task, batch_size: int = 128
) -> NDArray[np.float32]:
    """(B, O) predictions for some rows of pairs, which must be embedded by the model's own backbone if at all."""
    return _read(pairs.learner(model), pairs, rows, task, next(model.parameters()).device, batch_size)


def predict(model: Classifier, originals: Faces, normalized: Faces, task: Task, batch_size: int = 128) -> NDArray[np.float32]:
    """(N, O) predictions for faces (N, S, S, 3) and their normalized faces."""
    unlabeled = np.empty((len(originals), 0), np.float32), np.empty(len(originals), str)
    return predict_rows(model, Pairs(originals, normalized, *unlabeled), np.arange(len(originals)), task, batch_size)


@dataclass
class CrossValidation:
    """What trainings with R seeds on F folds gave: the predictions (R, N, O) for every tested row, NaN elsewhere.

    ``best_epochs`` (R, F) holds the best score that a training had on its test rows at any time: chosen on these, no result.
    """

    task: Task
    recipe: Recipe
    folds: list[Fold]
    labels: NDArray[np.float32]
    subjects: NDArray[np.str_]
    predictions: NDArray[np.float32]
    best_epochs: NDArray[np.float64]
    seconds: float  # of the whole call; less where trainings were there already
    images_per_second: float | None  # in training, original and normalized as one; None if it was too short to tell
    models: list[Classifier] = field(default_factory=list, repr=False)  # of the first seed, one a fold

    def _sums(self, rows: NDArray[np.intp], subjects: NDArray | None = None) -> NDArray:
        """Sums of some rows for each seed: (R, K, ...), or (S, R, K, ...) by subject."""
        sums = [self.task.sums(seen[rows], self.labels[rows], subjects) for seen in self.predictions]
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
        """Sums (S, R, K, ...) of each tested subject, and the fold (S,) that tests it: what a bootstrap draws from."""
        parts = [self._sums(test, self.subjects[test]) for _, test in self.folds]
        return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])

    def mean_score(self, sums: NDArray) -> NDArray[np.float64]:
        """Score of sums (..., R, K, ...), the mean over seeds: the metric that goes with `by_subject`."""
        return self.task.score(sums).mean(axis=-1)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of the headline over other subjects (bootstrap within folds); None if a fold tests fewer than two."""
        sums, folds = self.by_subject()
        if np.bincount(folds).min() < 2:
            return None
        low, high = bootstrap_interval(sums, self.mean_score, folds=folds)
        return float(low), float(high)

    @property
    def floor(self) -> float:
        """The score of one who looks at no face, the mean over folds."""
        return float(np.mean([self.task.floor(self.labels[train], self.labels[test]) for train, test in self.folds]))

    @property
    def oracle(self) -> dict[str, float]:
        """What could have been reported by choosing on the test rows. Not comparable with anything."""
        best = [[self.task.oracle(seen[test], self.labels[test]) for _, test in self.folds] for seen in self.predictions]
        looked = {} if np.isnan(self.best_epochs).any() else {"best_epoch": float(self.best_epochs.mean())}
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
            "floor": self.floor,
            "further": {name: float(np.mean([row[name] for row in further])) for name in further[0]},
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
    """Trains on each fold's training rows and tests on the rest, for each seed: last step, nothing chosen on test rows.

    ``pairs``: the same for all folds, or one for each where each fold has its own normalizer. ``start`` is that of
    `train_classifier`. With a ``folder`` an interrupted call goes on where it was.
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
            model = train_classifier(own, train, task, seeded, start, folder, place, device, progress, tested=test)
            took += time.monotonic() - begun if folder is None else logged_seconds(Path(folder) / f"{place}.jsonl")
            predictions[run, test] = predict_rows(model, own, test, task)
            best[run, number] = _best_of_log(folder, place)
            models += [model] if run == 0 else []
    seconds = time.monotonic() - started
    images = len(seeds) * len(folds) * recipe.training.steps * recipe.training.batch_size
    rate = round(images / took, 1) if took >= 1 else None
    return CrossValidation(task, recipe, list(folds), first.labels, first.subjects, predictions, best, seconds, rate, models)


def _best_of_log(folder: Path | None, name: str) -> float:
    """The best score on the test rows that the log of a training holds; NaN without a log."""
    if folder is None:
        return float("nan")
    rows = map(json.loads, (Path(folder) / f"{name}.jsonl").read_text().splitlines())
    return max((row["test"] for row in rows if "test" in row), default=float("nan"))


def difference(first: CrossValidation, second: CrossValidation) -> dict[str, Any]:
    """First minus second headline on the same folds and seeds, by three answers to "is it more than chance?".

    ``subjects``: interval over other test subjects (bootstrap within folds, seeds averaged). ``trainings``: Student's interval
    over pairs of the same fold and seed, and ``p`` of the sign-flip test over these. ``ValueError`` if the two do not match.
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
        found |= {"trainings": [float(over_trainings.low), float(over_trainings.high)], "p": sign_flip_test(*pairs)}
    return found
