"""Training one classifier, and its predictions for rows of a dataset."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib.common.devices import device_of, evaluation_precision
from norface_lib.common.sharing import of_all, share_of, whole_batch
from norface_lib.datasets.pairs import (
    AnyPairs,
    EmbeddedPairs,
    Pair,
    Pairs,
    VersionRows,
    versions_of,
)
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.classifier import Classifier, ClassifierConfig, auxiliary_loss
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.pretrained import load_encoder_weights
from norface_lib.tasks.tasks import Criterion, Task, balancing_weights
from norface_lib.training.augmentation import augmented_pairs, mirrored_embeddings, two_views
from norface_lib.training.loader import (
    balanced,
    batches_of_epoch,
    in_order,
    make_loader,
    of_versions,
    to_device,
)
from norface_lib.training.loop import Loss, TrainConfig, fit


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a classifier and its training: a row of an ablation. Weights are the paper's
    (PAPER.md 1.2)."""

    config: ClassifierConfig
    training: TrainConfig
    # the second face is the original once more, and is augmented by itself
    two_views: bool = False
    balanced: bool = False  # rare classes are sampled as often as common ones
    importance: float = 1e-3  # weight of the importance loss of the mixtures' gates
    load: float = 1e-3  # weight of their load loss
    # weights that the encoder begins with, as
    # `norface_lib.networks.pretrained.load_encoder_weights` takes them
    encoder: str = ""
    epochs: float | None = None  # of the training rows, in place of the steps of ``training``
    watch: bool = False  # the score of the tested rows goes to the log; it feeds the oracle alone
    compile: bool = False  # the backbone, by torch.compile

    def training_on(self, samples: int) -> TrainConfig:
        """The training on so many samples: epochs as steps, watched at most once an epoch."""
        training = self.training
        passes = batches_of_epoch(samples, training.batch_size)
        epoch = max(1, round(passes / training.accumulate))
        if self.epochs is None:
            steps = training.steps
        else:
            steps = max(1, round(self.epochs * passes / training.accumulate))
        return replace(training, steps=steps, watch_every=max(epoch, training.watch_every))

    def extent(self, samples: int) -> dict[str, float]:
        """How long the training on so many samples is: ``steps``, ``samples_seen`` (as often as
        they are read), ``epochs`` and the ``effective_batch`` of a step."""
        training = self.training_on(samples)
        batch = min(training.batch_size, samples) * training.accumulate
        seen = training.steps * batch
        return {
            "steps": training.steps,
            "samples_seen": seen,
            "epochs": round(seen / samples, 4),
            "effective_batch": batch,
        }

    def with_config(self, **changes: Any) -> "Recipe":
        """The same with another network: ``with_config(inputs="original")``."""
        return replace(self, config=replace(self.config, **changes))

    def seeded(self, seed: int) -> "Recipe":
        """The same with another seed."""
        return replace(self, training=replace(self.training, seed=seed))


def train_classifier(
    pairs: AnyPairs,
    rows: NDArray[np.intp],
    task: Task,
    recipe: Recipe,
    *,
    start: Normalizer | None = None,
    folder: Path | None = None,
    name: str = "classifier",
    device: str = "auto",
    progress: bool = True,
    tested: NDArray[np.intp] | None = None,
    workers: int | None = None,
) -> Classifier:
    """Trains a classifier on some rows: all of it on `Pairs`, its head over their frozen backbone
    on `EmbeddedPairs`. Of several identities, each sample shows one that is drawn by chance.

    ``start``: the normalizer whose backbone a training on `Pairs` begins with a copy of (None: from
    random initialization). ``tested``: rows whose score goes to the log as ``test``, each
    ``watch_every`` steps, and nowhere else. ``workers``: processes that read ahead, default those
    of `norface_lib.training.loader.make_loader`. Returns it in evaluation mode. Raises
    ``ValueError`` if network and task name different outputs, and what
    `norface_lib.training.loop.fit` raises.
    """
    if recipe.config.labels != task.outputs:
        raise ValueError(
            f"the network's labels {recipe.config.labels} are not the task's outputs {task.outputs}"
        )
    device = device_of(device)
    torch.manual_seed(recipe.training.seed)
    model = Classifier(recipe.config)
    versions = versions_of(pairs)
    embedded = isinstance(versions[0], EmbeddedPairs)
    start = versions[0].backbone if embedded else start
    if start is not None:
        model.start_from(start)
    if recipe.encoder:
        load_encoder_weights(model.encoder, recipe.encoder)
    if recipe.compile:
        model.encoder.compile()  # experts get another number of samples at each step
    learner = versions[0].learner(model.to(device, memory_format=torch.channels_last))

    def watch(learner: nn.Module, step: int) -> dict[str, float]:
        predictions = _read(learner, pairs, tested, task, device, workers)
        return {"test": float(task.score(task.sums(predictions, pairs.labels[tested])))}

    choose = balanced(balancing_weights(task, pairs.labels[rows])) if recipe.balanced else None
    fit(
        learner,
        _loss(task.criterion(pairs.labels[rows]), task.name, recipe, device),
        VersionRows(pairs, rows),
        recipe.training_on(len(rows)),
        folder=folder,
        name=name,
        progress=progress,
        watch=watch if recipe.watch and tested is not None else None,
        choose=of_versions(choose, len(rows), len(versions)),
        workers=0 if embedded else workers,  # they are small: to pass them on would take longer
    )
    return model.eval()


def inputs_of(
    batch: Pair, device: torch.device, augmented: bool = False, alike: bool = True
) -> tuple[Tensor, Tensor]:
    """Inputs of a classifier, or of its head, out of a batch of pairs: images (B, 3, S, S) or
    embeddings (B, D) of originals and normalized faces.

    ``augmented``: changed at random by `augmented_pairs` or `mirrored_embeddings`; where they are
    not ``alike``, both are views of the original by `two_views`. Embeddings know the mirror image
    alone.
    """
    originals, normalized, _ = to_device(batch, device)
    if originals.dtype == torch.uint8:
        originals = to_tensor(originals)
        normalized = to_tensor(normalized)
        if not augmented:
            return originals, normalized
        return augmented_pairs(originals, normalized) if alike else two_views(originals)
    if augmented:
        return mirrored_embeddings(originals, normalized)
    return originals[:, 0], normalized[:, 0]


def _loss(criterion: Criterion, name: str, recipe: Recipe, device: torch.device) -> Loss:
    """The task's loss of an augmented batch, and the auxiliary losses of the mixtures. Of processes
    that share a batch, each has all of it behind the backbone."""

    def loss(learner: nn.Module, batch: Pair) -> tuple[Tensor, dict[str, float]]:
        output = learner(*inputs_of(batch, device, augmented=True, alike=not recipe.two_views))
        error = criterion(output.logits, whole_batch(batch.labels.to(device)))
        auxiliary = auxiliary_loss(output, recipe.importance, recipe.load)
        return error + auxiliary, {name: error.item()}

    return loss


@torch.inference_mode()
def _read(
    learner: nn.Module,
    pairs: AnyPairs,
    rows: NDArray[np.intp],
    task: Task,
    device: torch.device,
    workers: int | None,
    batch_size: int = 128,
) -> NDArray[np.float32]:
    """Predictions for some rows: of several identities, their mean. Processes share the batches,
    and each gets all predictions."""
    by_version = []
    for version in versions_of(pairs):
        readers = 0 if isinstance(version, EmbeddedPairs) else workers
        batches = share_of(in_order(len(rows), batch_size))
        loader = make_loader(VersionRows(version, rows), batches, device, readers)
        predictions = []
        with evaluation_precision(device):
            for batch in loader:
                logits = learner(*inputs_of(batch, device)).logits
                predictions.append(task.predictions(logits))
        by_version.append(np.concatenate(of_all(predictions)))
    return np.mean(by_version, axis=0) if len(by_version) > 1 else by_version[0]


def predict_rows(
    model: Classifier,
    pairs: AnyPairs,
    rows: NDArray[np.intp],
    task: Task,
    batch_size: int = 128,
    workers: int | None = None,
) -> NDArray[np.float32]:
    """(B, O) predictions for some rows of pairs, which must be embedded by the model's own backbone
    if at all; of several identities, the mean over them. ``workers``: as of `train_classifier`."""
    device = next(model.parameters()).device
    learner = versions_of(pairs)[0].learner(model)
    return _read(learner, pairs, rows, task, device, workers, batch_size)


def predict(
    model: Classifier, originals: Faces, normalized: Faces, task: Task, batch_size: int = 128
) -> NDArray[np.float32]:
    """(N, O) predictions for faces (N, S, S, 3) and their normalized faces."""
    count = len(originals)
    no_labels = np.empty((count, 0), np.float32)
    pairs = Pairs(originals, normalized, no_labels, np.empty(count, str))
    return predict_rows(model, pairs, np.arange(count), task, batch_size)
