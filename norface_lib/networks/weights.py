"""Weights on disk: safetensors with a JSON card beside them, loaded strictly or not at all."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from norface_lib.common.errors import CheckpointError
from norface_lib.common.files import sha256_of, write_atomically, write_json
from norface_lib.common.paths import inside, plain_name, target_picture
from norface_lib.images.arrays import to_tensor
from norface_lib.images.crop import NORFACE_CROP
from norface_lib.images.files import read_face
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.evaluator import Evaluator, EvaluatorConfig
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig

FOLDER = Path(__file__).parents[1] / "weights"
"""Folder of the shipped weights. ``NORFACE_WEIGHTS`` names another one that is searched first."""

_BACKBONE = ("encoder.", "expression.")
"""Beginnings of the names of weights that a normalizer and a classifier share."""

_FINGERPRINTED = (
    *("kind", "config", "color", "range", "crop", "task", "backbone", "normalizer", "sha256"),
)
"""Entries of a card that decide what comes out of the network and what it means."""


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
        source = find_weights(normalizer)
        card["normalizer"] = {"name": source.stem, "sha256": _read_card(source)["sha256"]}
        if _same(_backbone(weights), _backbone(_read(source, "normalizer")[1])):
            card["backbone"] = "normalizer"
            if _find_normalizer(path, card) is not None:
                weights = {name: weights[name] for name in weights.keys() - _backbone(weights)}
    return _save(model.config, weights, path, card)


def save_evaluator(model: Evaluator, path: Path, card: dict[str, Any]) -> Path:
    """Writes weights and card of an evaluator; its AUs, its emotions and their order are part of
    its config."""
    return _save(model.config, _halved(model), path, {"kind": "evaluator"} | card)


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
    """A network's weights in half precision, but integers as they are: a count of batches may be
    larger than half precision can say."""
    weights = {}
    for name, value in model.state_dict().items():
        value = value.half() if value.is_floating_point() else value
        weights[name] = value.contiguous().cpu()
    return weights


def _backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of encoder and expression embedding alone."""
    return {name: value for name, value in weights.items() if name.startswith(_BACKBONE)}


def _same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Tells whether two sets of weights agree bit for bit."""
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )


def fingerprint(path: Path, card: dict[str, Any]) -> str:
    """SHA-256, in hex, of what decides the outputs of weights: config with the label order, crop,
    colors, task, normalizer, tensors (by ``card["sha256"]``), and the target pictures.

    Raises :class:`CheckpointError` if a target picture is missing.
    """
    entries = {name: card[name] for name in _FINGERPRINTED if name in card}
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    names = target_names(card) if card["kind"] == "normalizer" else ()
    for name in names:
        picture = target_picture(path.with_suffix(".png"), names, name)
        if not picture.is_file():
            raise CheckpointError(
                f"{picture}: the target picture of {path.name} is missing; fetch it again"
            )
        digest.update(name.encode() + picture.read_bytes())
    return digest.hexdigest()


# --- finding --------------------------------------------------------------------------------------


def find_weights(name: str | os.PathLike[str]) -> Path:
    """The weights file of a name (``tiny``) or path. Raises :class:`CheckpointError` that lists
    what is there."""
    if Path(name).suffix == ".safetensors":
        places = [Path(name)]
    else:
        places = [folder / f"{name}.safetensors" for folder in _folders()]
    for place in places:
        if place.is_file():
            return place
    shipped = ", ".join(sorted(path.stem for path in FOLDER.glob("*.safetensors"))) or "none"
    raise CheckpointError(
        f"no weights {str(name)!r} (looked for {', '.join(map(str, places))}; shipped: {shipped})"
    )


def _folders() -> list[Path]:
    named = [Path(os.environ["NORFACE_WEIGHTS"])] if "NORFACE_WEIGHTS" in os.environ else []
    return [*named, FOLDER]


def _find_normalizer(path: Path, card: dict[str, Any]) -> Path | None:
    """The file of the normalizer that a classifier's card names: beside the classifier, in
    ``NORFACE_WEIGHTS``, or shipped. None if no file of this name has the card's SHA-256."""
    reference = card["normalizer"]
    for folder in (path.parent, *_folders()):
        place = inside(folder, f"{reference['name']}.safetensors")
        if place.is_file() and _read_card(place)["sha256"] == reference["sha256"]:
            return place
    return None


def target_names(card: dict[str, Any]) -> tuple[str, ...]:
    """Names of the target identities that a normalizer was trained to synthesize.

    Raises :class:`norface_lib.common.errors.DataError` for one that is no name of a file: pictures
    and folders are called by it.
    """
    names = str(card["data"]["target"]).split("+")
    return tuple(plain_name(name, "target of the card of these weights") for name in names)


def normalizer_hash(card: dict[str, Any]) -> str | None:
    """SHA-256 of the normalizer's weights that a classifier belongs to; None if its card names
    none."""
    normalizer = card.get("normalizer")
    return normalizer["sha256"] if isinstance(normalizer, dict) else normalizer


# --- loading --------------------------------------------------------------------------------------


def load_normalizer(
    name: str | os.PathLike[str] = "tiny", target: str | None = None
) -> tuple[Normalizer, Tensor, dict[str, Any]]:
    """A normalizer in evaluation mode, the face (1, 3, S, S) in [0, 1] of one of its targets
    (default: the first), its card.

    Raises :class:`CheckpointError` if a file is missing or damaged, if weights and card do not
    fit, if a weight is no number, or if the weights do not know the target.
    """
    path = find_weights(name)
    card, weights = _read(path, "normalizer")
    model = _network(path, card, weights, lambda c: Normalizer(NormalizerConfig.from_dict(c)))
    names = target_names(card)
    if target is not None and target not in names:
        raise CheckpointError(
            f"{path}: cannot synthesize {target!r}; its targets are {', '.join(names)}"
        )
    picture = target_picture(path.with_suffix(".png"), names, target or names[0])
    return model, to_tensor(read_face(picture, model.config.encoder.image_size)), card


def load_classifier(name: str | os.PathLike[str]) -> tuple[Classifier, dict[str, Any]]:
    """A classifier in evaluation mode, and its card.

    A file of a head alone gets the backbone of the normalizer that its card names, which lies
    beside it, in ``NORFACE_WEIGHTS``, or among the shipped weights. Errors as of
    :func:`load_normalizer`, and :class:`CheckpointError` if that normalizer is not there.
    """
    path = find_weights(name)
    card, weights = _read(path, "classifier")
    if not _backbone(weights):
        weights |= _backbone_of_normalizer(path, card)
    return _network(path, card, weights, lambda c: Classifier(ClassifierConfig.from_dict(c))), card


def load_evaluator(name: str | os.PathLike[str] = "evaluator") -> tuple[Evaluator, dict[str, Any]]:
    """An evaluator in evaluation mode, and its card. Errors as of :func:`load_normalizer`."""
    path = find_weights(name)
    card, weights = _read(path, "evaluator")
    return _network(path, card, weights, lambda c: Evaluator(EvaluatorConfig.from_dict(c))), card


def _backbone_of_normalizer(path: Path, card: dict[str, Any]) -> dict[str, Tensor]:
    if not isinstance(card.get("normalizer"), dict):
        raise CheckpointError(
            f"{path}: holds the head of a classifier alone, and its card names no normalizer; "
            "fetch file and card again"
        )
    place = _find_normalizer(path, card)
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
            f"{path}: was trained on another crop than this version makes; use the version that "
            "made it"
        )
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: no safetensors file: {error}") from error
    for name, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(
                f"{path}: the weight {name} holds values that are no finite numbers, as after a "
                "training that diverged; train again, or use other weights"
            )
    return card, weights


def _read_card(path: Path) -> dict[str, Any]:
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{card_path}: the card of these weights is missing or damaged"
        ) from error
    missing = {"kind", "config", "crop", "sha256"} - card.keys()
    if missing:
        raise CheckpointError(f"{card_path}: the card lacks {', '.join(sorted(missing))}")
    return card


def _network(
    path: Path,
    card: dict[str, Any],
    weights: dict[str, Tensor],
    build: Callable[[dict[str, Any]], nn.Module],
) -> Any:
    """The network of a card with its weights, in evaluation mode."""
    try:
        model = build(card["config"])
        model.load_state_dict(weights, strict=True)
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the weights do not fit their card: {error}") from error
    # cards from before there were fingerprints have none
    if "fingerprint" in card and card["fingerprint"] != fingerprint(path, card):
        raise CheckpointError(
            f"{path.with_suffix('.json')}: does not belong to these weights (its config, label "
            "order, target picture and tensors do not have its fingerprint); fetch all files of "
            f"{path.stem} again"
        )
    return model.to(memory_format=torch.channels_last).eval()
