"""The three tasks, which one classifier serves: meaning of its logits, losses, and metrics.

A task turns logits (N, O) into predictions (N, O) and predictions into sums over frames, from which
every metric is made (`norface_lib.tasks.metrics`). Labels are (N, L), NaN where unknown; for
emotions L is 1, the number of the class.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from norface_lib.labels import INTENSITY_MAX
from norface_lib.tasks import losses
from norface_lib.tasks.metrics import (
    accuracy,
    class_mean_accuracy,
    confusion,
    constant_predictor_f1,
    f1_counts,
    f1_from_counts,
    intensity_metrics,
    intensity_sums,
    known,
    oracle_f1,
    recall,
)

Criterion = Callable[[Tensor, Tensor], Tensor]
"""``criterion(logits (N, O), labels (N, L))``: a scalar."""


@dataclass(frozen=True)
class Task(ABC):
    """A task. ``outputs`` names the O logits in their order; ``loss`` is a name, or several joined
    by +."""

    outputs: tuple[str, ...]
    loss: str = ""

    name: ClassVar[str]
    metric: ClassVar[str]  # that of `per_label`
    headline: ClassVar[str]  # that of `score`
    known_losses: ClassVar[dict[str, Any]]
    default_loss: ClassVar[str]

    def __post_init__(self):
        if not self.loss:
            object.__setattr__(self, "loss", self.default_loss)
        losses.parts_of(self.loss, self.known_losses)

    @abstractmethod
    def criterion(self, labels: NDArray[np.float32]) -> Criterion:
        """The loss, which may depend on the training rows' labels (N, L) and on no others."""

    @abstractmethod
    def predictions(self, logits: Tensor) -> NDArray[np.float32]:
        """(N, O) probabilities 0..1, or intensities 0..5."""

    @abstractmethod
    def sums(
        self, predictions: ArrayLike, labels: ArrayLike, subjects: ArrayLike | None = None
    ) -> NDArray:
        """Sums (K, ...) that metrics are made of, or (S, K, ...) by subject."""

    @abstractmethod
    def per_label(self, sums: NDArray) -> NDArray[np.float64]:
        """The metric of each output, (..., O)."""

    def score(self, sums: NDArray) -> NDArray[np.float64]:
        """The one number that is quoted, (...): the mean over labels."""
        return self.per_label(sums).mean(axis=-1)

    def further(self, sums: NDArray) -> dict[str, float]:
        """More metrics that the field quotes, by name."""
        return {}

    def further_per_label(self, sums: NDArray) -> dict[str, NDArray[np.float64]]:
        """More metrics of each output that the field quotes, (..., O) by name."""
        return {}

    @abstractmethod
    def constant_baseline(self, train: NDArray, test: NDArray) -> float:
        """Score of a constant prediction, from training and test labels (N, L)."""

    def oracle(self, predictions: NDArray, labels: NDArray) -> float:
        """Score with whatever may be chosen on the test rows: an upper bound, never a result."""
        return float(self.score(self.sums(predictions, labels)))

    def classes(self, labels: NDArray) -> NDArray[np.float64]:
        """(N, C) of 0 and 1: what balanced sampling balances; a row may be of several classes, or
        of none."""
        return (np.nan_to_num(labels) >= 1).astype(float)


@dataclass(frozen=True)
class Detection(Task):
    """AU detection: a probability for each AU; F1 at threshold 0.5. Labels are 0 or 1."""

    name: ClassVar[str] = "au_detection"
    metric: ClassVar[str] = "f1"
    headline: ClassVar[str] = "mean F1"
    known_losses: ClassVar[dict[str, Any]] = losses.DETECTION_LOSSES
    default_loss: ClassVar[str] = "dice"

    def criterion(self, labels: NDArray[np.float32]) -> Criterion:
        rates = np.nanmean(np.where(known(labels), labels, np.nan), axis=0)
        weights = losses.au_weights(np.nan_to_num(rates, nan=0.5).clip(1 / len(labels)).tolist())
        loss = losses.summed(self.loss, self.known_losses)
        return lambda logits, labels: loss(logits, labels, weights.to(logits.device))

    def predictions(self, logits: Tensor) -> NDArray[np.float32]:
        return logits.float().sigmoid().cpu().numpy()

    def sums(
        self, predictions: ArrayLike, labels: ArrayLike, subjects: ArrayLike | None = None
    ) -> NDArray:
        return f1_counts(predictions, labels, subjects=subjects)

    def per_label(self, sums: NDArray) -> NDArray[np.float64]:
        return f1_from_counts(sums)

    def constant_baseline(self, train: NDArray, test: NDArray) -> float:
        """Every AU is predicted in every frame."""
        rates = np.nanmean(np.where(known(test), test, np.nan), axis=0)
        return float(constant_predictor_f1(rates).mean())

    def oracle(self, predictions: NDArray, labels: NDArray) -> float:
        """At the threshold that suits the test rows best."""
        _, f1 = oracle_f1(predictions, labels)
        return float(f1.mean())


@dataclass(frozen=True)
class Intensity(Task):
    """AU intensity: a number 0..5 for each AU; ICC(3,1). Labels are 0..5."""

    name: ClassVar[str] = "au_intensity"
    metric: ClassVar[str] = "icc"
    headline: ClassVar[str] = "mean ICC"
    known_losses: ClassVar[dict[str, Any]] = losses.INTENSITY_LOSSES
    default_loss: ClassVar[str] = "mse+ccc"

    def criterion(self, labels: NDArray[np.float32]) -> Criterion:
        return losses.summed(self.loss, self.known_losses)

    def predictions(self, logits: Tensor) -> NDArray[np.float32]:
        return logits.float().clamp(0, INTENSITY_MAX).cpu().numpy()

    def sums(
        self, predictions: ArrayLike, labels: ArrayLike, subjects: ArrayLike | None = None
    ) -> NDArray:
        return intensity_sums(predictions, labels, subjects)

    def per_label(self, sums: NDArray) -> NDArray[np.float64]:
        return intensity_metrics(sums)["icc"]

    def further(self, sums: NDArray) -> dict[str, float]:
        metrics = intensity_metrics(sums)
        return {name: float(np.nanmean(metrics[name])) for name in ("mse", "mae", "pcc", "ccc")}

    def further_per_label(self, sums: NDArray) -> dict[str, NDArray[np.float64]]:
        metrics = intensity_metrics(sums)
        return {name: metrics[name] for name in ("mse", "mae")}

    def constant_baseline(self, train: NDArray, test: NDArray) -> float:
        """A constant does not correlate."""
        return 0.0


@dataclass(frozen=True)
class Emotion(Task):
    """Emotion recognition: a probability for each class; accuracy. Labels (N, 1) are numbers of
    classes."""

    smoothing: float = 0.1  # of the labels (Szegedy et al. 2016)

    name: ClassVar[str] = "emotion"
    metric: ClassVar[str] = "recall"
    headline: ClassVar[str] = "accuracy"
    known_losses: ClassVar[dict[str, Any]] = losses.EMOTION_LOSSES
    default_loss: ClassVar[str] = "ce"

    def criterion(self, labels: NDArray[np.float32]) -> Criterion:
        loss = losses.summed(self.loss, self.known_losses)
        return lambda logits, labels: loss(logits, labels[:, 0], self.smoothing)

    def predictions(self, logits: Tensor) -> NDArray[np.float32]:
        return logits.float().softmax(dim=-1).cpu().numpy()

    def sums(
        self, predictions: ArrayLike, labels: ArrayLike, subjects: ArrayLike | None = None
    ) -> NDArray:
        classes = np.argmax(predictions, axis=-1)
        return confusion(classes, np.asarray(labels)[:, 0], len(self.outputs), subjects)

    def per_label(self, sums: NDArray) -> NDArray[np.float64]:
        return recall(sums, undefined=0.0)

    def score(self, sums: NDArray) -> NDArray[np.float64]:
        """The share of images whose class is right."""
        return accuracy(sums)

    def further(self, sums: NDArray) -> dict[str, float]:
        return {"class_mean_accuracy": float(class_mean_accuracy(sums))}

    def constant_baseline(self, train: NDArray, test: NDArray) -> float:
        """The class that is most frequent in training is predicted for every image."""
        common = np.bincount(train[known(train)].astype(int)).argmax()
        return float((test[known(test)] == common).mean())

    def classes(self, labels: NDArray) -> NDArray[np.float64]:
        return (np.asarray(labels) == np.arange(len(self.outputs))).astype(float)


TASKS: dict[str, type[Task]] = {task.name: task for task in (Detection, Intensity, Emotion)}
"""The tasks by name."""


def task_of(name: str, outputs: tuple[str, ...], loss: str = "") -> Task:
    """The task ``name`` of ``TASKS`` for these outputs; ``loss``: default the task's own.
    ``ValueError`` for unknown names."""
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name](tuple(outputs), loss)


def balancing_weights(task: Task, labels: NDArray) -> Tensor:
    """(N,) probability of each training row to be sampled, sum 1, so that each class is sampled as
    often as any other.

    A row's weight is that of its rarest class: 1 over the number of rows that have it. Rows of no
    class are one class together.
    """
    belongs = task.classes(labels)
    nothing = belongs.sum(axis=1, keepdims=True) == 0
    belongs = np.concatenate([belongs, nothing], axis=1)
    weights = (belongs / belongs.sum(axis=0).clip(1)).max(axis=1)
    return torch.from_numpy(weights / weights.sum())
