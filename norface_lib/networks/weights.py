"""Weights on disk: safetensors with a JSON card beside them, loaded strictly or not at all."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from norface_lib.common.errors import CheckpointError
from norface_lib.common.files import sha256_of, write_atomically, write_json
from norface_lib.common.paths import target_picture
from norface_lib.images.arrays import to_tensor
from norface_lib.images.crop import NORFACE_CROP
from norface_lib.images.files import read_face
from norface_lib.networks.cards import (
    check_fingerprint,
    fingerprint,
    read_card,
    target_names,
)
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.encoder import JsonConfig
from norface_lib.networks.evaluator import Evaluator, EvaluatorConfig
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.places import find_normalizer, find_weights
from norface_lib.networks.token_reader import TokenReader, TokenReaderConfig

_BACKBONE = ("encoder.", "expression.")
"""Beginnings of the names of weights that a normalizer and a classifier share."""

_TYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int32, torch.int64),
)
"""Types of numbers in a file of weights."""


# --- saving ---------------------------------------------------------------------------------------


def save_normalizer(model: Normalizer, target: Path, path: Path, card: dict[str, Any]) -> Path:
    """Writes weights, card and target faces (.png) side by side. ``target``: picture of the first;
    the others lie beside it.

    ``card`` says what the weights are: data with the target's name, seed, measured scores, license.
    Config, crop, color order, hash and fingerprint are added.
    """
    path = Path(path)
    names = target_names(card)
    for name in names:
        source = target_picture(Path(target), names, name)
        copy = target_picture(path.with_suffix(".png"), names, name)
        write_atomically(copy, lambda part, source=source: part.write_bytes(source.read_bytes()))
    return _save(model.config, _halved(model), path, {"kind": "normalizer"} | card)


def save_classifier(
    model: Classifier,
    path: Path,
    card: dict[str, Any],
    *,
    normalizer: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes weights and card of a classifier; its label names and their order are part of its
    config.

    ``normalizer``: name or path of the weights that made its normalized faces. The file holds the
    head alone where the backbone is theirs, unchanged, and `load_classifier` will find them from
    ``path``; any other backbone is written with the head.
    """
    path = Path(path)
    card = {"kind": "classifier", "backbone": "trained"} | card
    weights = _halved(model)
    if normalizer is not None:
        source = find_weights(normalizer, "normalizer")
        card["normalizer"] = {"name": source.stem, "sha256": read_card(source)["sha256"]}
        if same_weights(_backbone(weights), _backbone(_read(source, "normalizer")[1])):
            card["backbone"] = "normalizer"
            if find_normalizer(path, card) is not None:
                weights = {name: weights[name] for name in weights.keys() - _backbone(weights)}
    return _save(model.config, weights, path, card)


def save_evaluator(model: Evaluator, path: Path, card: dict[str, Any]) -> Path:
    """Writes weights and card of an evaluator; its AUs, its emotions and their order are part of
    its config."""
    return _save(model.config, _halved(model), path, {"kind": "evaluator"} | card)


def save_token_reader(model: TokenReader, path: Path, card: dict[str, Any]) -> Path:
    """Writes weights and card of a token reader; its AUs, its emotions and their order are part of
    its config."""
    return _save(model.config, _halved(model), path, {"kind": "reader"} | card)


def _save(config: Any, weights: dict[str, Tensor], path: Path, card: dict[str, Any]) -> Path:
    """Writes ``path`` (.safetensors) and its card (.json)."""
    path = Path(path)
    write_atomically(path, lambda part: save_file(weights, part))
    made = {"name": path.stem, "config": asdict(config), "color": "RGB", "range": [0, 1]}
    made["crop"] = {"name": NORFACE_CROP.name, "points": NORFACE_CROP.points}
    card = made | card | {"sha256": sha256_of(path)}
    write_json(card | {"fingerprint": fingerprint(path, card)}, path.with_suffix(".json"))
    return path


def _halved(model: nn.Module) -> dict[str, Tensor]:
    """A network's weights in half precision, but integers as they are, and numbers that are too
    large for it: a count of batches may be."""
    weights = {}
    for name, value in model.state_dict().items():
        halved = value.half() if value.is_floating_point() else value
        fits = bool((halved.isfinite() == value.isfinite()).all())
        weights[name] = (halved if fits else value).contiguous().cpu()
    return weights


def _backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of encoder and expression embedding alone."""
    return {name: value for name, value in weights.items() if name.startswith(_BACKBONE)}


def same_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Tells whether two sets of weights agree bit for bit."""
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )


def normalizer_hash(card: dict[str, Any]) -> str | None:
    """SHA-256 of the normalizer's weights that a classifier belongs to; None if its card names
    none."""
    normalizer = card.get("normalizer")
    return normalizer["sha256"] if isinstance(normalizer, dict) else normalizer


# --- loading --------------------------------------------------------------------------------------


def load_normalizer(
    name: str | os.PathLike[str] = "tiny", target: str | None = None
) -> tuple[Normalizer, Tensor, dict[str, Any]]:
    """A normalizer in evaluation mode, the face (1, 3, T, T) in [0, 1] of one of its targets
    (default: the first), its card.

    ``name``: a shipped name, a path, a folder, or a repository ``hf://owner/name@revision``.

    Raises :class:`CheckpointError` if a file is missing or damaged, if weights and card do not
    fit, if a weight is no number, or if the weights do not know the target.
    """
    path = find_weights(name, "normalizer")
    card, weights = _checked(path, "normalizer")
    model = _network(path, card, weights, Normalizer, NormalizerConfig)
    names = target_names(card)
    if target is not None and target not in names:
        raise CheckpointError(
            f"{path}: cannot synthesize {target!r}; its targets are {', '.join(names)}"
        )
    picture = target_picture(path.with_suffix(".png"), names, target or names[0])
    return model, to_tensor(read_face(picture, model.config.size)), card


def load_classifier(name: str | os.PathLike[str]) -> tuple[Classifier, dict[str, Any]]:
    """A classifier in evaluation mode, and its card.

    A file of a head alone gets the backbone of the normalizer that its card names, which lies
    beside it, in ``NORFACE_WEIGHTS``, or among the shipped weights. Errors as of
    :func:`load_normalizer`, and :class:`CheckpointError` if that normalizer is not there.
    """
    path = find_weights(name, "classifier")
    card, weights = _checked(path, "classifier")
    if not _backbone(weights):
        weights |= _backbone_of_normalizer(path, card)
    return _network(path, card, weights, Classifier, ClassifierConfig), card


def load_evaluator(name: str | os.PathLike[str] = "evaluator") -> tuple[Evaluator, dict[str, Any]]:
    """An evaluator in evaluation mode, and its card. Errors as of :func:`load_normalizer`."""
    path = find_weights(name, "evaluator")
    card, weights = _checked(path, "evaluator")
    return _network(path, card, weights, Evaluator, EvaluatorConfig), card


def load_token_reader(name: str | os.PathLike[str]) -> tuple[TokenReader, dict[str, Any]]:
    """A token reader in evaluation mode, and its card. Errors as of :func:`load_normalizer`."""
    path = find_weights(name, "reader")
    card, weights = _checked(path, "reader")
    return _network(path, card, weights, TokenReader, TokenReaderConfig), card


def _checked(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and weights as `_read` gives them, if they belong together with their pictures."""
    card, weights = _read(path, kind)
    check_fingerprint(path, card)
    return card, weights


def _backbone_of_normalizer(path: Path, card: dict[str, Any]) -> dict[str, Tensor]:
    if not isinstance(card.get("normalizer"), dict):
        raise CheckpointError(
            f"{path}: holds the head of a classifier alone, and its card names no normalizer; "
            "fetch file and card again"
        )
    place = find_normalizer(path, card)
    if place is None:
        name = card["normalizer"]["name"]
        raise CheckpointError(
            f"{path}: holds the head of a classifier alone, and the normalizer {name} of SHA-256 "
            f"{card['normalizer']['sha256']} that it belongs to was not found; put "
            f"{name}.safetensors with its card beside it, or into the folder that NORFACE_WEIGHTS "
            "names"
        )
    return _backbone(_read(place, "normalizer")[1])


def _read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and weights of a file, undamaged, of one kind, of our crop, and all of them numbers."""
    card = read_card(path)
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
            f"{path}: was trained on another crop than this version makes; use the version that "
            "made it"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: no safetensors file: {error}") from error
    for name, value in weights.items():
        if value.dtype not in _TYPES:
            raise CheckpointError(f"{path}: the weight {name} is of an unknown type, {value.dtype}")
        if not value.isfinite().all():
            raise CheckpointError(
                f"{path}: the weight {name} holds values that are no finite numbers, as after a "
                "training that diverged; train again, or use other weights"
            )
    return card, weights


def _network(
    path: Path,
    card: dict[str, Any],
    weights: dict[str, Tensor],
    network: type[nn.Module],
    config: type[JsonConfig],
) -> Any:
    """The network of a card with its weights, in evaluation mode."""
    try:
        settings = config.from_dict(card["config"])
        with torch.device("meta"):  # a wrong size costs no memory
            _check_tensors(network(settings).state_dict(), weights)
        model = network(settings)
        model.load_state_dict(weights, strict=True)
        _check_colors(model)
    except _MISFITS as error:
        raise CheckpointError(f"{path}: the weights do not fit their card: {error}") from error
    return model.to(memory_format=torch.channels_last).eval()


_MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(RuntimeError, TypeError, ValueError),
)
"""Errors of a network that is built with settings of any type and size."""


def _check_tensors(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Raises ``ValueError`` unless the weights have the names, shapes and kinds of number that a
    network needs."""
    for words, names in (
        ("there is no", expected.keys() - weights.keys()),
        ("nothing takes the", weights.keys() - expected.keys()),
    ):
        if names:
            raise ValueError(f"{words} weight {', '.join(sorted(names)[:3])}")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{name} is of shape {tuple(value.shape)}, not {tuple(expected[name].shape)}"
            )
        # the other way round old files do it: counts of batches in half precision
        if expected[name].is_floating_point() and not value.is_floating_point():
            raise ValueError(f"{name} holds {value.dtype}, not {expected[name].dtype}")


def _check_colors(model: nn.Module) -> None:
    """Raises ``ValueError`` unless images are standardized by finite numbers, and divided by
    positive ones."""
    for name, values in model.named_buffers():
        end = name.rpartition(".")[2]
        if end in ("mean", "std") and not values.isfinite().all():
            raise ValueError(f"the {end} of colors is not finite")
        if end == "std" and not (values > 0).all():
            raise ValueError("the std of colors must be positive")
