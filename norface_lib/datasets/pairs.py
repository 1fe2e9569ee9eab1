"""Labeled pairs of an original and a normalized face, for a classifier: as images, or as a frozen
backbone sees them.

All are map-style datasets. A row gives an item, which any ``DataLoader`` collates; an array of rows
gives a whole batch at once, which is how `norface_lib.training.loader` reads them.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from norface_lib.common.devices import evaluation_precision, processes
from norface_lib.common.files import reserve, write_atomically
from norface_lib.common.locks import only_writer
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.normalizer import Normalizer


class Pair(NamedTuple):
    """An item of pairs, or a batch of B items in which each tensor has a first dimension more."""

    originals: Tensor  # (S, S, 3) of 8 bits; of embeddings (2, D): face and mirror image
    normalized: Tensor  # likewise
    labels: Tensor  # (L,), NaN where unknown


class ArrayDataset(Dataset):
    """Arrays of N rows each, memory maps and tensors among them, as one dataset: item or batch is a
    tuple of their rows.

    Raises ``ValueError`` if their numbers of rows differ.
    """

    def __init__(self, *arrays: Any):
        if len({len(array) for array in arrays}) != 1:
            counts = ", ".join(str(len(array)) for array in arrays)
            raise ValueError(f"arrays of a dataset must be of one length, got {counts}")
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: ArrayLike) -> tuple[Tensor, ...]:
        return tuple(torch.as_tensor(array[rows]) for array in self.arrays)


@dataclass(frozen=True)
class Pairs(Dataset):
    """Originals and normalized faces (N, S, S, 3), labels (N, L) with NaN where unknown, and the
    subject (N,) of each.

    Faces may also be anything that gives (B, S, S, 3) for an array of B rows, such as a memory map.
    Raises ``ValueError`` if their numbers differ.
    """

    originals: Faces
    normalized: Faces
    labels: NDArray[np.float32]
    subjects: NDArray[np.str_]

    def __post_init__(self):
        counts = {len(self.originals), len(self.normalized), len(self.labels), len(self.subjects)}
        if len(counts) != 1:
            raise ValueError(
                "originals, normalized, labels and subjects must be of one length, got "
                f"{sorted(counts)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: ArrayLike) -> Pair:
        """One pair for a number, a batch for an array of rows."""
        batch = np.atleast_1d(rows)
        arrays = (self.originals[batch], self.normalized[batch], self.labels[batch])
        pair = Pair(*map(torch.as_tensor, arrays))
        return pair if np.ndim(rows) else Pair(*(values[0] for values in pair))

    def labeled(self, labels: NDArray[np.float32]) -> "Pairs":
        """The same faces with other labels."""
        return replace(self, labels=labels)

    def learner(self, model: Classifier) -> nn.Module:
        """The part of a classifier that is trained on these, and reads their batches: all of it."""
        return model


@dataclass(frozen=True)
class EmbeddedPairs(Dataset):
    """`Pairs` as a frozen backbone sees them: embeddings (2, N, D) of each face and of its mirror
    image. Made by `embed`."""

    backbone: Normalizer
    originals: Tensor
    normalized: Tensor
    labels: NDArray[np.float32]
    subjects: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: ArrayLike) -> Pair:
        """One pair for a number, a batch for an array of rows."""
        index = torch.as_tensor(rows)
        originals = self.originals[:, index]
        normalized = self.normalized[:, index]
        labels = torch.as_tensor(self.labels[rows])
        if index.ndim:
            return Pair(originals.transpose(0, 1), normalized.transpose(0, 1), labels)
        return Pair(originals, normalized, labels)

    def labeled(self, labels: NDArray[np.float32]) -> "EmbeddedPairs":
        """The same embeddings with other labels."""
        return replace(self, labels=labels)

    def learner(self, model: Classifier) -> nn.Module:
        """The part of a classifier that is trained on these, and reads their batches: the head. Its
        backbone must be theirs."""
        return model.head


@dataclass(frozen=True)
class SeveralPairs:
    """The same originals beside the normalized faces of several target identities: K pairs of equal
    frames, labels and kind."""

    versions: tuple[Pairs, ...] | tuple[EmbeddedPairs, ...]

    def __len__(self) -> int:
        return len(self.versions[0])

    @property
    def labels(self) -> NDArray[np.float32]:
        """(N, L), NaN where unknown."""
        return self.versions[0].labels

    @property
    def subjects(self) -> NDArray[np.str_]:
        """(N,), of each frame."""
        return self.versions[0].subjects

    @property
    def originals(self) -> Faces | Tensor:
        """The originals, which all have."""
        return self.versions[0].originals


AnyPairs = Pairs | EmbeddedPairs | SeveralPairs
"""What a classifier is trained on and tested with."""


def versions_of(pairs: AnyPairs) -> tuple[Pairs, ...] | tuple[EmbeddedPairs, ...]:
    """The pairs of each target identity: of plain pairs, themselves alone."""
    return pairs.versions if isinstance(pairs, SeveralPairs) else (pairs,)


class VersionRows(Dataset):
    """Some rows (n,) of pairs of K identities: row r + n * k is row r beside the face of identity
    k. Its length is n, so that an epoch shows each frame once."""

    def __init__(self, pairs: AnyPairs, rows: NDArray[np.intp]):
        self.versions = versions_of(pairs)
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: NDArray[np.intp]) -> Pair:
        """A batch for an array of rows."""
        rows = np.asarray(rows)
        if len(self.versions) == 1:
            return self.versions[0][self.rows[rows]]
        number, row = np.divmod(rows, len(self))
        items = [self.versions[k][int(r)] for k, r in zip(number, self.rows[row], strict=True)]
        return Pair(*map(torch.stack, zip(*items, strict=True)))


def embed(
    pairs: Pairs,
    backbone: Normalizer,
    batch_size: int = 64,
    progress: bool = False,
    keep: Path | None = None,
) -> EmbeddedPairs:
    """Embeds each pair by encoder and expression embedding of a normalizer, on the device where
    that is, once for all trainings.

    ``keep``: a file (.safetensors) for these embeddings, which are then mapped into memory. If it
    is there, they are taken from it, so its name must tell these pairs and this backbone from all
    others. Of several processes the first makes it.
    """
    faces = {"originals": pairs.originals, "normalized": pairs.normalized}
    if keep is None:
        embeddings = {
            kind: embed_faces(images, backbone, batch_size, progress)
            for kind, images in faces.items()
        }
    else:
        embeddings = _mapped(faces, backbone, keep, batch_size, progress)
    return EmbeddedPairs(backbone, **embeddings, labels=pairs.labels, subjects=pairs.subjects)


def _mapped(
    faces: Mapping[str, Faces],
    backbone: Normalizer,
    path: Path,
    batch_size: int = 64,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Embeddings (2, N, D) of faces by name, in a file that is mapped into memory; of an earlier
    call, if it is there."""
    count = len(next(iter(faces.values())))
    with processes().main_process_first():
        embeddings = _kept(path, faces.keys(), count)
        if embeddings is None:
            batches = {
                kind: _embedded_batches(images, backbone, batch_size, progress)
                for kind, images in faces.items()
            }
            shape = (2, count, backbone.config.encoder.dim)
            with only_writer(path.with_suffix("")):
                write_atomically(path, lambda part: _write(part, shape, batches))
            embeddings = load_file(path)
    return embeddings


def _kept(path: Path, names: Set[str], count: int) -> dict[str, Tensor] | None:
    """Embeddings of an earlier call; None if their file is missing or damaged, so that they are
    computed again."""
    try:
        embeddings = load_file(path)
    except (OSError, SafetensorError):
        return None
    whole = embeddings.keys() == names and all(
        value.ndim == 3 and value.shape[1] == count for value in embeddings.values()
    )
    return embeddings if whole else None


def _write(
    path: Path, shape: tuple[int, int, int], batches: Mapping[str, Iterable[Tensor]]
) -> None:
    """Writes embeddings (2, N, D) by name, batch by batch, so that they need no memory: in the
    format of safetensors, whose ``save_file`` takes whole tensors."""
    size = 4 * math.prod(shape)
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": (size * at, size * (at + 1))}
        for at, name in enumerate(batches)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers are aligned in memory
    start = len(text) + 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
    reserve(path, start + size * len(batches))
    for at, parts in enumerate(batches.values()):
        values = np.memmap(path, np.float32, "r+", start + size * at, shape)
        row = 0
        for part in parts:
            values[:, row : row + part.shape[1]] = part.numpy()
            row += part.shape[1]
        values.flush()


def embed_faces(
    faces: Faces,
    backbone: Normalizer,
    batch_size: int = 64,
    progress: bool = False,
    keep: Path | None = None,
) -> Tensor:
    """(2, N, D) embeddings of faces (N, S, S, 3) and of their mirror images. ``keep``: as of
    `embed`."""
    if keep is not None:
        return _mapped({"faces": faces}, backbone, keep, batch_size, progress)["faces"]
    return torch.cat(list(_embedded_batches(faces, backbone, batch_size, progress)), dim=1)


def _embedded_batches(
    faces: Faces, backbone: Normalizer, batch_size: int, progress: bool
) -> Iterator[Tensor]:
    """What `embed_faces` gives, batch by batch (2, B, D)."""
    device = next(backbone.parameters()).device
    starts = range(0, len(faces), batch_size)
    for start in tqdm(starts, desc="embed", unit="batch", disable=not progress, leave=False):
        with torch.inference_mode(), evaluation_precision(device):
            images = to_tensor(faces[start : start + batch_size]).to(device)
            views = [
                backbone.expression(backbone.encoder(view)).float().cpu()
                for view in (images, images.flip(3))
            ]
            batch = torch.stack(views)
        yield batch
