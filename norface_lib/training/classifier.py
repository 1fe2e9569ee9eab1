"""Training one classifier, and its predictions for rows of a dataset."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib.common.devices import device_of
from norface_lib.images.arrays import Faces
from norface_lib.networks.classifier import Classifier, ClassifierConfig, auxiliary_loss
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.pretrained import load_encoder_weights
from norface_lib.tasks.tasks import Task, balancing_weights
from norface_lib.training.loop import TrainConfig, fit
from norface_lib.training.pairs import EmbeddedPairs, Pairs


@dataclass(frozen=True)
class Recipe:
    """How a classifier is made: a row of an ablation. Weights are the paper's (PAPER.md 1.2)."""

    config: ClassifierConfig
    training: TrainConfig
    balanced: bool = False  # rare classes are drawn as often as common ones
    importance: float = 1e-3  # weight of the importance loss of the mixtures' gates
    load: float = 1e-3  # weight of their load loss
    encoder: str = (
        # weights that the encoder begins with, as
        # `norface_lib.networks.pretrained.load_encoder_weights` takes them
        ""
    )

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
    """Trains a classifier on some rows: all of it on `Pairs`, its head over their frozen backbone
    on `EmbeddedPairs`.

    ``start``: the normalizer whose backbone a training on `Pairs` begins with a copy of (None: from
    chance). ``tested``: rows whose score goes to the log as ``test``, each ``watch_every`` steps,
    and nowhere else. Returns it in evaluation mode. Raises ``ValueError`` if network and task name
    different outputs, and what `norface_lib.training.loop.fit` raises.
    """
    if recipe.config.labels != task.outputs:
        raise ValueError(
            f"the network's labels {recipe.config.labels} are not the task's outputs {task.outputs}"
        )
    where = device_of(device)
    torch.manual_seed(recipe.training.seed)
    model = Classifier(recipe.config)
    start = pairs.backbone if isinstance(pairs, EmbeddedPairs) else start
    if start is not None:
        model.start_from(start)
    if recipe.encoder:
        load_encoder_weights(model.encoder, recipe.encoder)
    learner = pairs.learner(model.to(where, memory_format=torch.channels_last))
    watch = (
        None
        if tested is None
        else lambda learner, _: {"test": _score(learner, pairs, tested, task, where)}
    )
    fit(
        learner,
        _loss(pairs, rows, task, recipe, where),
        len(rows),
        recipe.training,
        folder,
        name,
        progress,
        watch,
    )
    return model.eval()


def _loss(
    pairs: Pairs | EmbeddedPairs,
    rows: NDArray[np.intp],
    task: Task,
    recipe: Recipe,
    where: torch.device,
):
    """The task's loss, with what it knows from the training rows alone, and the auxiliary losses of
    the mixtures."""
    criterion = task.criterion(pairs.labels[rows])
    chances = balancing_weights(task, pairs.labels[rows]) if recipe.balanced else None

    def loss(learner: nn.Module, indices: Tensor) -> tuple[Tensor, dict[str, float]]:
        if chances is not None:  # drawn anew, by the step's seed
            indices = torch.multinomial(chances, len(indices), replacement=True)
        chosen = rows[indices.numpy()]
        output = learner(*pairs.batch(chosen, where, augmented=True))
        error = criterion(output.logits, torch.from_numpy(pairs.labels[chosen]).to(where))
        return error + auxiliary_loss(output, recipe.importance, recipe.load), {
            task.name: error.item()
        }

    return loss


def _score(
    learner: nn.Module,
    pairs: Pairs | EmbeddedPairs,
    rows: NDArray[np.intp],
    task: Task,
    where: torch.device,
) -> float:
    """The task's score of some rows."""
    return float(
        task.score(task.sums(_read(learner, pairs, rows, task, where), pairs.labels[rows]))
    )


@torch.inference_mode()
def _read(
    learner: nn.Module,
    pairs: Pairs | EmbeddedPairs,
    rows: NDArray[np.intp],
    task: Task,
    where: torch.device,
    size: int = 128,
) -> NDArray[np.float32]:
    batches = (
        pairs.batch(rows[start : start + size], where) for start in range(0, len(rows), size)
    )
    return np.concatenate([task.predictions(learner(*batch).logits) for batch in batches])


def predict_rows(
    model: Classifier,
    pairs: Pairs | EmbeddedPairs,
    rows: NDArray[np.intp],
    task: Task,
    batch_size: int = 128,
) -> NDArray[np.float32]:
    """(B, O) predictions for some rows of pairs, which must be embedded by the model's own backbone
    if at all."""
    return _read(
        pairs.learner(model), pairs, rows, task, next(model.parameters()).device, batch_size
    )


def predict(
    model: Classifier, originals: Faces, normalized: Faces, task: Task, batch_size: int = 128
) -> NDArray[np.float32]:
    """(N, O) predictions for faces (N, S, S, 3) and their normalized faces."""
    unlabeled = np.empty((len(originals), 0), np.float32), np.empty(len(originals), str)
    return predict_rows(
        model, Pairs(originals, normalized, *unlabeled), np.arange(len(originals)), task, batch_size
    )
