"""Weights on the Hugging Face Hub: a repository with files, cards, target pictures and a README.
They load by ``hf://owner/name`` wherever weights are named."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from norface_lib.common.errors import CheckpointError
from norface_lib.common.paths import target_picture
from norface_lib.networks.cards import read_card, target_names
from norface_lib.networks.places import HUB, find_normalizer, find_weights, parse_address
from norface_lib.networks.weights import (
    load_classifier,
    load_evaluator,
    load_normalizer,
    load_token_reader,
)


class _Kind(NamedTuple):
    """What a README says of a kind of weights: a sentence, how they load, and what that gives."""

    about: str
    load: Callable[..., tuple[Any, ...]]
    gives: str


_KINDS = {
    "normalizer": _Kind(
        "A normalization network: it turns a face into the face of its target, with the same "
        "expression.",
        load_normalizer,
        "normalizer, target, card",
    ),
    "classifier": _Kind(
        "A classification network: it reads a face and its normalized image.",
        load_classifier,
        "classifier, card",
    ),
    "evaluator": _Kind(
        "A network that measures AUs and emotions, to evaluate normalized images.",
        load_evaluator,
        "evaluator, card",
    ),
    "reader": _Kind(
        "A token reader: it reads AUs of either side and the emotion of a face.",
        load_token_reader,
        "reader, card",
    ),
}


def push_to_hub(
    names: Sequence[str | PathLike[str]],
    repository: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    api: Any = None,
) -> tuple[dict[str, Path | bytes], str | None]:
    """Sends weights to a repository ``owner/name``, in one commit: with their cards, target
    pictures, the normalizers that classifiers belong to, and a README made of the cards.

    Returns path or content of each file by its name in the repository, and the commit's hash, which
    pins them: ``hf://owner/name@hash``. ``dry_run``: sends nothing, needs no network. ``api``: a
    ``huggingface_hub.HfApi``; default: that of the account of this machine. Raises
    :class:`CheckpointError` for weights that would not load, that have no fingerprint, and if the
    account or the network is missing.
    """
    address = parse_address(repository)
    if address.revision or address.weights or repository.startswith(HUB):
        raise CheckpointError(f"{repository}: is no name of a repository; write owner/name")

    paths = _with_normalizers([find_weights(name) for name in names])
    files: dict[str, Path | bytes] = {}
    for path in paths:
        for file in files_of(path):
            files[file.name] = file
    files["README.md"] = model_card(paths, repository).encode()
    if dry_run:
        return files, None
    return files, _send(files, repository, private=private, api=api)


def _with_normalizers(paths: Sequence[Path]) -> list[Path]:
    """Weights, and the normalizers that they name and that are at hand; each once."""
    whole = {path.name: path for path in paths}
    if len(whole) < len(paths):
        raise CheckpointError("weights of one repository must have different names; rename one")
    for path in paths:
        card = read_card(path)
        if not isinstance(card.get("normalizer"), dict):
            continue
        normalizer = find_normalizer(path, card)
        if normalizer is None:
            continue
        hash_there = read_card(whole.get(normalizer.name, normalizer))["sha256"]
        if hash_there != card["normalizer"]["sha256"]:
            raise CheckpointError(
                f"{path}: belongs to another {normalizer.stem} than the one that is sent with it; "
                "give them repositories of their own"
            )
        whole.setdefault(normalizer.name, normalizer)
    return list(whole.values())


def files_of(path: Path) -> list[Path]:
    """Files that belong to weights: tensors, card, target pictures. Raises
    :class:`CheckpointError` unless they load, and have a fingerprint."""
    card = read_card(path)
    _KINDS[card["kind"]].load(path)
    if "fingerprint" not in card:
        raise CheckpointError(f"{path}: has no fingerprint; load and save it again before a push")
    files = [path, path.with_suffix(".json")]
    if card["kind"] == "normalizer":
        names = target_names(card)
        files += [target_picture(path.with_suffix(".png"), names, name) for name in names]
    return files


def _send(files: dict[str, Path | bytes], repository: str, *, private: bool, api: Any) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    api = api or HfApi(library_name="norface")
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message="Weights of norface")
    except errors.HfHubHTTPError as error:
        raise CheckpointError(
            f"{repository}: the Hugging Face Hub refuses it; run `hf auth login` with a token that "
            f"may write there ({error})"
        ) from error
    except (errors.HTTPError, errors.LocalTokenNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{repository}: cannot be sent; it needs a network, and the account of `hf auth login` "
            f"({error})"
        ) from error
    return commit.oid


# --- README ---------------------------------------------------------------------------------------


def model_card(paths: Sequence[Path], repository: str) -> str:
    """The README of a repository, made of the cards of its weights."""
    cards = [read_card(path) for path in paths]
    licenses = {str(card.get("license", "")) for card in cards}
    mit = all(text.startswith("MIT") for text in licenses)
    normalizes = any(card["kind"] == "normalizer" for card in cards)
    header = [
        "---",
        "library_name: norface",
        f"license: {'mit' if mit else 'other'}",
        f"pipeline_tag: {'image-to-image' if normalizes else 'image-classification'}",
        "tags: [facial-expression-recognition, action-units, identity-normalization]",
        "---",
        "",
        f"# {repository.split('/')[1]}",
        "",
        "Weights of [norface](https://arxiv.org/abs/2407.15617) (ECCV 2024): facial expression "
        "analysis by identity normalization. Faces are aligned crops, RGB in 0..1.",
    ]
    sections = [_section(path, card, repository) for path, card in zip(paths, cards, strict=True)]
    return "\n".join([*header, *sections, ""])


def _section(path: Path, card: dict[str, Any], repository: str) -> str:
    kind = _KINDS[card["kind"]]
    lines = ["", f"## {path.stem}", "", kind.about, ""]
    if card["kind"] == "normalizer":
        lines.append(f"- targets: {', '.join(target_names(card))}")
    for name in ("task", "license", "fingerprint"):
        if name in card:
            lines.append(f"- {name}: {card[name]}")
    if "labels" in card["config"]:
        lines.append(
            f"- labels, in the order of the outputs: {', '.join(card['config']['labels'])}"
        )
    if isinstance(card.get("normalizer"), dict):
        lines.append(f"- belongs to the normalizer {card['normalizer']['name']}")
    measured = card.get("measured")  # its text and numbers; tables stay in the card
    if isinstance(measured, dict):
        lines += [
            f"- measured, {name}: {value}"
            for name, value in measured.items()
            if isinstance(value, str | int | float)
        ]
    load = kind.load.__name__
    lines += [
        "",
        "```python",
        f"from norface_lib.networks.weights import {load}",
        f'{kind.gives} = {load}("{HUB}{repository}/{path.stem}")',
        "```",
    ]
    return "\n".join(lines)
