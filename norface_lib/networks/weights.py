"""Weights on disk: safetensors with a JSON card beside them, loaded strictly or not at all."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from norface_lib.common.errors import CheckpointError
from norface_lib.common.files import sha256_of, write_atomically, write_json
from norface_lib.common.paths import target_picture
from norface_lib.images.arrays import to_tensor
from norface_lib.images.crop import NORFACE_CROP
from norface_lib.images.files import read_face
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.evaluator import Evaluator, EvaluatorConfig
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig

FOLDER = Path(__file__).parents[1] / "weights"
"""Where the shipped weights lie. ``NORFACE_WEIGHTS`` names another folder to look into first."""


def save_normalizer(model: Normalizer, target: Path, path: Path, card: dict[str, Any]) -> Path:
    """Writes weights, card and target faces (.png) side by side. ``target``: picture of the first;
    the others lie beside it.

    ``card`` says what the weights are: data with the target's name, seed, measured scores, license.
    Config, crop, color order and hash are added.
    """
    for name in (names := target_names(card)):
        source, copy = (
            target_picture(first, names, name) for first in (Path(target), path.with_suffix(".png"))
        )
        write_atomically(copy, lambda part, source=source: part.write_bytes(source.read_bytes()))
    return _save(model, path, {"kind": "normalizer"} | card)


def save_classifier(model: Classifier, path: Path, card: dict[str, Any]) -> Path:
    """Writes weights and card of a classifier; its label names and their order are part of its
    config."""
    return _save(model, path, {"kind": "classifier"} | card)


def save_evaluator(model: Evaluator, path: Path, card: dict[str, Any]) -> Path:
    """Writes weights and card of an evaluator; its AUs, its emotions and their order are part of its
    config."""
    return _save(model, path, {"kind": "evaluator"} | card)


def _save(model: nn.Module, path: Path, card: dict[str, Any]) -> Path:
    """``path`` (.safetensors) in half precision, and its card (.json)."""
    path = Path(path)
    weights = {name: _half(value).contiguous().cpu() for name, value in model.state_dict().items()}
    write_atomically(path, lambda part: save_file(weights, part))
    made = {"name": path.stem, "config": asdict(model.config), "color": "RGB", "range": [0, 1]}
    made["crop"] = {"name": NORFACE_CROP.name, "points": NORFACE_CROP.points}
    write_json(made | card | {"sha256": sha256_of(path)}, path.with_suffix(".json"))
    return path


def _half(value: torch.Tensor) -> torch.Tensor:
    """Half precision, but integers as they are: a count of batches may be larger than half
    precision can say."""
    return value.detach().half() if value.is_floating_point() else value


def find_weights(name: str | os.PathLike[str]) -> Path:
    """The weights file of a name (``tiny``) or path. Raises :class:`CheckpointError` that lists
    what is there."""
    if Path(name).suffix == ".safetensors":
        places = [Path(name)]
    else:
        folders = [Path(os.environ["NORFACE_WEIGHTS"])] if "NORFACE_WEIGHTS" in os.environ else []
        places = [folder / f"{name}.safetensors" for folder in (*folders, FOLDER)]
    for place in places:
        if place.is_file():
            return place
    shipped = ", ".join(sorted(path.stem for path in FOLDER.glob("*.safetensors"))) or "none"
    raise CheckpointError(
        f"no weights {str(name)!r} (looked for {', '.join(map(str, places))}; shipped: {shipped})"
    )


def target_names(card: dict[str, Any]) -> tuple[str, ...]:
    """Names of the target identities that a normalizer was trained to draw."""
    return tuple(str(card["data"]["target"]).split("+"))


def load_normalizer(
    name: str | os.PathLike[str] = "tiny", target: str | None = None
) -> tuple[Normalizer, torch.Tensor, dict[str, Any]]:
    """A normalizer in evaluation mode, the face (1, 3, S, S) in [0, 1] of one of its targets
    (default: the first), its card.

    Raises :class:`CheckpointError` if a file is missing or damaged, if weights and config do not
    fit key for key, or if the weights do not know the target.
    """
    path = find_weights(name)
    model, card = _load(
        path, "normalizer", lambda config: Normalizer(NormalizerConfig.from_dict(config))
    )
    names = target_names(card)
    if target is not None and target not in names:
        raise CheckpointError(f"{path}: cannot draw {target!r}; its targets are {', '.join(names)}")
    picture = target_picture(path.with_suffix(".png"), names, target or names[0])
    return model, to_tensor(read_face(picture, model.config.encoder.image_size)), card


def load_classifier(name: str | os.PathLike[str]) -> tuple[Classifier, dict[str, Any]]:
    """A classifier in evaluation mode, and its card. Errors as of :func:`load_normalizer`."""
    return _load(
        find_weights(name),
        "classifier",
        lambda config: Classifier(ClassifierConfig.from_dict(config)),
    )


def load_evaluator(name: str | os.PathLike[str] = "evaluator") -> tuple[Evaluator, dict[str, Any]]:
    """An evaluator in evaluation mode, and its card. Errors as of :func:`load_normalizer`."""
    return _load(
        find_weights(name), "evaluator", lambda config: Evaluator(EvaluatorConfig.from_dict(config))
    )


def _load(
    path: Path, kind: str, build: Callable[[dict[str, Any]], nn.Module]
) -> tuple[Any, dict[str, Any]]:
    card = _read_card(path)
    if card["kind"] != kind:
        raise CheckpointError(
            f"{path}: these are weights of kind {card['kind']}, not of kind {kind}"
        )
    if card["sha256"] != sha256_of(path):
        raise CheckpointError(
            f"{path}: damaged (its SHA-256 is not the one of its card); fetch the file again"
        )
    if card["crop"]["points"] != [list(point) for point in NORFACE_CROP.points]:
        raise CheckpointError(
            f"{path}: was trained on another crop than this version draws; use the version that "
            "made it"
        )
    try:
        model = build(card["config"])
        model.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the weights do not fit their card: {error}") from error
    return model.to(memory_format=torch.channels_last).eval(), card


def _read_card(path: Path) -> dict[str, Any]:
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{card_path}: the card of these weights is missing or damaged"
        ) from error
    if missing := {"kind", "config", "crop", "sha256"} - card.keys():
        raise CheckpointError(f"{card_path}: the card lacks {', '.join(sorted(missing))}")
    return card
