"""How classifiers are trained: a recipe for each backbone, and the rows that a table compares."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from norface_lib.networks.classifier import OWN_BACKBONE, ClassifierConfig
from norface_lib.networks.normalizer import Normalizer
from norface_lib.tasks.tasks import Task
from norface_lib.training.classifier import Recipe
from norface_lib.training.loop import TrainConfig, base_rate

BACKBONES: Mapping[str, str] = {
    "frozen": "the normalizer's, unchanged; each face is embedded once for all trainings",
    "tuned": "the normalizer's, trained on, the layers next to the image least",
    "scratch": "the normalizer's architecture, from random initialization",
    "timm:NAME": "any network of timm, with its published weights if they can be had, trained on",
}
"""Where a classifier's backbone comes from."""

_NO_MIXTURE = {"input_mixture": False, "output_mixture": False}

ROWS: Mapping[str, Mapping[str, Any]] = {
    "original": {"inputs": "original"},
    "normalized": {"inputs": "normalized"},
    "both": {"inputs": "both"},
    "both, no mixture": {"inputs": "both"} | _NO_MIXTURE,
    "both, no input mixture": {"inputs": "both", "input_mixture": False},
    "both, no output mixture": {"inputs": "both", "output_mixture": False},
    "original, no mixture": {"inputs": "original"} | _NO_MIXTURE,
}
"""Rows of a table by name: how each changes the network. In place of a mixture that is off stands a
dense network of as many parameters."""

COMPARISONS: Mapping[str, tuple[str, str]] = {
    "the normalized face, beside the original": ("both", "original"),
    "the normalized face instead of the original": ("normalized", "original"),
    "the input mixture": ("both", "both, no input mixture"),
    "the output mixture": ("both", "both, no output mixture"),
    "both mixtures": ("both", "both, no mixture"),
    "the normalized face, without mixtures": ("both, no mixture", "original, no mixture"),
    "the normalized face and both mixtures": ("both", "original, no mixture"),
}
"""What the first of two rows has and the second has not. Their difference says what it adds."""


def recipe_for(
    task: Task, normalizer: Normalizer, backbone: str = "frozen", steps: int = 0
) -> Recipe:
    """The recipe of a backbone: a small head behind a strong dropout where only the head is
    trained, slower and gentler where all is.

    ``steps``: 0 for the number that suits a few thousand faces. Rates are base x batch / 256, as
    MAE's recipe has it.
    """
    config = ClassifierConfig(
        labels=task.outputs, encoder=normalizer.config.encoder, hidden=64, dropout=0.7
    )
    if backbone == "frozen":
        training = TrainConfig(
            steps=steps or 120, batch_size=128, learning_rate=2e-3, average=0.95, watch_every=20
        )
        return Recipe(config=config, training=training)

    scratch = backbone == "scratch"
    training = TrainConfig(
        steps=steps or 400,
        batch_size=64,
        learning_rate=base_rate(4e-3 if scratch else 1e-3, 64),
        average=0.98,
        watch_every=100,
        layer_decay=None if scratch else 0.75,
    )
    network = backbone if backbone.startswith("timm:") else OWN_BACKBONE
    config = replace(config, dropout=0.5, drop_path_rate=0.1, backbone=network)
    return Recipe(config=config, training=training)
