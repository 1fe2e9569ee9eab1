"""Cards of weights: the JSON beside a file of weights, read strictly, and the fingerprint that
holds card, target pictures and tensors together."""

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from norface_lib.common.errors import CheckpointError
from norface_lib.common.paths import plain_name, target_picture

FOLDER = Path(__file__).parents[1] / "weights"
"""Folder of the shipped weights. ``NORFACE_WEIGHTS`` names another one that is searched first."""

SHIPPED = FOLDER / "fingerprints.json"
"""Hashes of the shipped weights by name: ``sha256`` of the file of tensors, and the card's
``fingerprint``."""

KINDS = ("normalizer", "classifier", "evaluator", "reader")

TASK_NAMES = ("au_detection", "au_intensity", "emotion")
"""Tasks that the card of a classifier may name."""

_FINGERPRINTED = (
    *("kind", "config", "color", "range", "crop", "task", "backbone", "normalizer", "sha256"),
    "calibration",
)
"""Entries of a card that decide what comes out of the network and what it means."""

_LARGEST_SETTING = 8192
"""Largest whole number in a config: a damaged one must not take all memory."""

_PLAIN_NAME = re.compile(r"\w[\w .-]*")
"""A name that may become part of a file's name."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_crop(value: Any) -> bool:
    points = value.get("points") if isinstance(value, dict) else None
    return isinstance(points, list)


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and _settings_are_small(value)


def _settings_are_small(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_settings_are_small, value.values()))
    if isinstance(value, list):
        return all(map(_settings_are_small, value))
    return not isinstance(value, int | float) or -1 <= value <= _LARGEST_SETTING


def _is_data(value: Any) -> bool:
    """Tells whether a card describes its training data well: by a dataset's name, or by a
    dictionary, with plain names of targets if it names any."""
    target = value.get("target", "none") if isinstance(value, dict) else value
    return _is_text(target) and all(map(_PLAIN_NAME.fullmatch, target.split("+")))


def _is_reference(value: Any) -> bool:
    """Tells whether a classifier's card names its normalizer well: not at all, by its hash, or by
    name and hash."""
    if not isinstance(value, dict):
        return value is None or _is_text(value)
    name = value.get("name")
    return _is_text(name) and bool(_PLAIN_NAME.fullmatch(name)) and _is_text(value.get("sha256"))


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (KINDS.__contains__, f"one of {', '.join(KINDS)}"),
    "config": (_is_config, f"settings, with numbers of {_LARGEST_SETTING} at most"),
    "crop": (_is_crop, "a crop with its points"),
    "sha256": (_is_text, "a hash"),
    "fingerprint": (_is_text, "a hash"),
    "color": (lambda value: value == "RGB", "RGB"),
    "range": (lambda value: value == [0, 1], "[0, 1]"),
    "task": (TASK_NAMES.__contains__, f"one of {', '.join(TASK_NAMES)}"),
    "backbone": (("normalizer", "trained").__contains__, "normalizer or trained"),
    "normalizer": (_is_reference, "a hash, or a plain name and a hash"),
    "data": (_is_data, "a dataset's name, or a description with plain names of targets"),
}
"""Test of each entry that decides anything, and the words for what it should be."""

_NEEDED = {"kind", "config", "crop", "sha256"}


def read_card(weights: Path) -> dict[str, Any]:
    """The card of a file of weights. Raises :class:`CheckpointError` if it is missing, damaged, or
    if an entry is not of its kind."""
    path = weights.with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the card of these weights is missing or damaged") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{path}: is no card of weights; fetch it again")

    needed = _NEEDED | ({"data"} if card.get("kind") == "normalizer" else set())
    missing = needed - card.keys()
    if missing:
        raise CheckpointError(f"{path}: the card lacks {', '.join(sorted(missing))}")
    for name, (holds, words) in _RULES.items():
        if name in card and not holds(card[name]):
            value = repr(card[name])
            raise CheckpointError(
                f"{path}: the entry {name} must be {words}, not {value[:60]}; fetch the card again"
            )
    named = isinstance(card.get("data"), dict) and "target" in card["data"]
    if card["kind"] == "normalizer" and not named:
        raise CheckpointError(f"{path}: the card lacks data.target; fetch it again")
    return card


def target_names(card: dict[str, Any]) -> tuple[str, ...]:
    """Names of the target identities that a normalizer was trained to synthesize.

    Raises :class:`norface_lib.common.errors.DataError` for one that is no name of a file: pictures
    and folders are called by it.
    """
    names = str(card["data"]["target"]).split("+")
    return tuple(plain_name(name, "target of the card of these weights") for name in names)


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


def check_fingerprint(path: Path, card: dict[str, Any]) -> None:
    """Raises :class:`CheckpointError` unless card, target pictures and tensors are those that were
    saved together.

    Shipped weights, also copies of them, must have the fingerprint that they were shipped with.
    Others from before there were fingerprints pass with a warning.
    """
    card_path = path.with_suffix(".json")
    shipped = _shipped_fingerprint(path, card)
    expected = shipped or card.get("fingerprint")
    if expected is None:
        warnings.warn(
            f"{card_path}: has no fingerprint, so its label order, settings and target picture "
            "cannot be checked; load the weights and save them again to get one",
            stacklevel=4,
        )
        return
    if expected != card.get("fingerprint") or expected != fingerprint(path, card):
        raise CheckpointError(
            f"{card_path}: does not belong to these weights (its config, label order, target "
            f"picture and tensors do not have {'the shipped' if shipped else 'its'} fingerprint); "
            f"fetch all files of {path.stem} again"
        )


def _shipped_fingerprint(path: Path, card: dict[str, Any]) -> str | None:
    """The fingerprint that weights were shipped with, by their place or their tensors; None for
    those of users."""
    known = shipped_hashes()
    if path.stem in known and path.resolve().parent == FOLDER.resolve():
        return known[path.stem]["fingerprint"]
    by_tensors = {hashes["sha256"]: hashes["fingerprint"] for hashes in known.values()}
    return by_tensors.get(card["sha256"])


@cache
def shipped_hashes() -> dict[str, dict[str, str]]:
    """Content of ``SHIPPED``."""
    return json.loads(SHIPPED.read_text(encoding="utf-8"))
