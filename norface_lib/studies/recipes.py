"""How classifiers are trained: a recipe for each backbone, and the rows that a table compares."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from norface_lib.networks.classifier import MINI_BACKBONE, OWN_BACKBONE, ClassifierConfig
from norface_lib.networks.normalizer import Normalizer
from norface_lib.tasks.tasks import Task
from norface_lib.training.classifier import Recipe
from norface_lib.training.optimizer import TrainConfig, base_rate

BACKBONES: Mapping[str, str] = {
    "frozen": "the normalizer's, unchanged; each face is embedded once for all trainings",
    "tuned": "the normalizer's, trained on, the layers next to the image least",
    "scratch": "the normalizer's architecture, from random initialization",
    "mini": "a small residual network, from random initialization: minutes of training on a CPU",
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
    "original twice": {"inputs": "both"},
    "true normalized": {"inputs": "normalized"},
    "both, true normalized": {"inputs": "both"},
    "neutral target": {"inputs": "both"},
    "read and render": {"inputs": "normalized"},
    "both, read and render": {"inputs": "both"},
    "both, own backbones": {"inputs": "both", "shared": False},
    "both, face dropout": {"inputs": "both", "face_dropout": 0.5},
    "both, sum": {"inputs": "both", "fusion": "sum"},
    "both, gated": {"inputs": "both", "fusion": "gated"},
}
"""Rows of a table by name: how each changes the network. In place of a mixture that is off stands a
dense network of as many parameters."""

SECOND_FACES: Mapping[str, str] = {
    "original twice": "original",
    "true normalized": "truth",
    "both, true normalized": "truth",
    "neutral target": "neutral",
    "read and render": "render",
    "both, read and render": "render",
}
"""Face of each row that stands in the place of the normalizer's image, one of
`norface_lib.studies.second_faces.KINDS`. Rows that are not here have the normalizer's."""

COMPARISONS: Mapping[str, tuple[str, str]] = {
    "the normalized face, beside the original": ("both", "original"),
    "the normalized face instead of the original": ("normalized", "original"),
    "the input mixture": ("both", "both, no input mixture"),
    "the output mixture": ("both", "both, no output mixture"),
    "both mixtures": ("both", "both, no mixture"),
    "the normalized face, without mixtures": ("both, no mixture", "original, no mixture"),
    "the normalized face and both mixtures": ("both", "original, no mixture"),
    "a second view of the original": ("original twice", "original"),
    "the normalized face, beside a second view": ("both", "original twice"),
    "the neutral target, beside the original": ("neutral target", "original"),
    "the true normalized face instead of the original": ("true normalized", "original"),
    "what the normalizer misses": ("true normalized", "normalized"),
    "the original, beside the normalized face": ("both", "normalized"),
    "read and render instead of the original": ("read and render", "original"),
    "read and render, beside the original": ("both, read and render", "original"),
    "read and render instead of the normalizer": ("read and render", "normalized"),
    "a backbone for each face": ("both, own backbones", "both"),
    "face dropout": ("both, face dropout", "both"),
    "a sum of both faces": ("both, sum", "both"),
    "a gate between both faces": ("both, gated", "both"),
}
"""What the first of two rows has and the second has not. Their difference says what it adds."""


def input_size(backbone: str) -> int | None:
    """Pixels of the faces that a backbone takes; None for those of the normalizer's size."""
    network = _network(backbone)
    return (
        None if network == OWN_BACKBONE else ClassifierConfig(("any",), backbone=network).input_size
    )


def _network(backbone: str) -> str:
    """The network of one of ``BACKBONES``, as a classifier's config names it."""
    return backbone if backbone.startswith(("timm:", MINI_BACKBONE)) else OWN_BACKBONE


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
            steps=steps or 120,
            batch_size=128,
            learning_rate=2e-3,
            average=0.95,
            watch_every=20,
            amp=False,  # a head is too small to gain, and differs less between processors
        )
        return Recipe(config=config, training=training)

    config = replace(config, backbone=_network(backbone))
    if backbone == "mini":
        training = TrainConfig(
            steps=steps or 2000,
            batch_size=64,
            learning_rate=base_rate(8e-3, 64),
            average=0.98,
            watch_every=500,
        )
        return Recipe(config=replace(config, dropout=0.1), training=training)

    scratch = backbone == "scratch"
    training = TrainConfig(
        steps=steps or 400,
        batch_size=64,
        learning_rate=base_rate(4e-3 if scratch else 1e-3, 64),
        average=0.98,
        watch_every=100,
        layer_decay=None if scratch else 0.75,
    )
    return Recipe(config=replace(config, dropout=0.5, drop_path_rate=0.1), training=training)
