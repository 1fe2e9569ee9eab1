"""Where weights lie: shipped, in the user's folder, at a path, or in a repository of the Hugging
Face Hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from norface_lib.common.errors import CheckpointError
from norface_lib.networks.cards import FOLDER, read_card

HUB = "hf://"
"""Start of the address of a repository: ``hf://owner/name``, ``hf://owner/name@revision``, with
``/weights`` where it holds several."""

_ADDRESS = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w .-]+?)(?:\.safetensors)?)?")

_PATTERNS = ("*.safetensors", "*.json", "*.png")
"""Files of a repository that are fetched."""


def find_weights(name: str | os.PathLike[str], *kinds: str) -> Path:
    """The weights file of a shipped name (``tiny``), a path, a folder, or an address
    (``hf://owner/name``), which is fetched at its first use.

    ``kinds``: which weights to take of a folder or repository that holds several kinds. Raises
    :class:`CheckpointError` that lists what is there.
    """
    if str(name).startswith(HUB):
        return _from_hub(str(name), kinds)
    if Path(name).suffix == ".safetensors":
        places = [Path(name)]
    else:
        places = [folder / f"{name}.safetensors" for folder in folders()]
    for place in places:
        if place.is_file():
            return place
    if Path(name).is_dir():
        return _only_weights(Path(name), str(name), kinds)
    shipped = ", ".join(sorted(path.stem for path in FOLDER.glob("*.safetensors"))) or "none"
    raise CheckpointError(
        f"no weights {str(name)!r} (looked for {', '.join(map(str, places))}; shipped: {shipped})"
    )


def folders() -> list[Path]:
    """Folders in which names are looked up, in their order."""
    named = [Path(os.environ["NORFACE_WEIGHTS"])] if "NORFACE_WEIGHTS" in os.environ else []
    return [*named, FOLDER]


def find_normalizer(path: Path, card: dict[str, Any]) -> Path | None:
    """The file of the normalizer that a classifier's card names: beside the classifier, in
    ``NORFACE_WEIGHTS``, or shipped. None if no file of this name has the card's SHA-256."""
    reference = card["normalizer"]
    for folder in (path.parent, *folders()):
        place = folder / f"{reference['name']}.safetensors"
        if place.is_file() and read_card(place)["sha256"] == reference["sha256"]:
            return place
    return None


def _only_weights(folder: Path, name: str, kinds: Sequence[str]) -> Path:
    """The one file of weights of a folder, or the one of some kinds."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1 and kinds:
        files = [path for path in files if read_card(path)["kind"] in kinds]
    if len(files) == 1:
        return files[0]

    words = f"{' or '.join(kinds)} weights" if kinds else "weights"
    if not files:
        raise CheckpointError(f"{name}: holds no {words}")
    choices = ", ".join(f"{name.rstrip('/')}/{path.stem}" for path in files)
    suffix = "" if name.startswith(HUB) else ".safetensors"
    raise CheckpointError(f"{name}: holds several {words}; choose one of {choices}{suffix}")


# --- Hugging Face Hub -----------------------------------------------------------------------------


class Address(NamedTuple):
    """Parts of ``hf://owner/name@revision/weights``."""

    repository: str
    revision: str | None
    weights: str | None


def parse_address(name: str) -> Address:
    """The parts of an address. Raises :class:`CheckpointError` if it is none."""
    match = _ADDRESS.fullmatch(name.removeprefix(HUB).rstrip("/"))
    if match is None or ".." in name:
        raise CheckpointError(
            f"{name}: is no address of weights; write {HUB}owner/name, with @revision for one of "
            "its versions and /weights for one of its files"
        )
    return Address(*match.groups())


def _from_hub(name: str, kinds: Sequence[str]) -> Path:
    address = parse_address(name)
    folder = _fetch(name, address)
    if address.weights is None:
        return _only_weights(folder, name, kinds)
    place = folder / f"{address.weights}.safetensors"
    if not place.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.safetensors"))) or "none"
        raise CheckpointError(f"{name}: the repository holds no such weights, but {there}")
    return place


def _fetch(name: str, address: Address) -> Path:
    """Folder of a repository's files in the user's cache; fetches those that are not there yet."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(
            address.repository, revision=address.revision, allow_patterns=list(_PATTERNS)
        )
    except (errors.RevisionNotFoundError, errors.RevisionResolutionError) as error:
        raise CheckpointError(
            f"{name}: the repository has no revision {address.revision or 'main'}"
        ) from error
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name}: its owner gives access on request; ask on its page, then run `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: there is no such repository, or it is private; check its name, or run "
            "`hf auth login`"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{name}: not in the cache, and the Hugging Face Hub cannot be reached; call again "
            "with a network, or give a folder with the files"
        ) from error
    except (errors.HTTPError, OSError, ValueError) as error:
        raise CheckpointError(f"{name}: cannot be fetched: {error}") from error
    return Path(folder)
