"""Labeled pairs of an original and a normalized face, for a classifier: as images, or as a frozen
backbone sees them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from norface_lib.common.files import write_atomically
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.normalizer import Normalizer
from norface_lib.training.augmentation import jitter, mirrored, photometric


@dataclass(frozen=True)
class Pairs:
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

    def labeled(self, labels: NDArray[np.float32]) -> "Pairs":
        """The same faces with other labels."""
        return replace(self, labels=labels)

    def learner(self, model: Classifier) -> nn.Module:
        """What of a classifier is trained on these, and reads their batches: all of it."""
        return model

    def batch(
        self, rows: NDArray[np.intp], where: torch.device, augmented: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Original and normalized images (B, 3, S, S). Augmented: geometry alike for both, light
        for the original alone."""
        original, normalized = (
            to_tensor(faces[rows]).to(where) for faces in (self.originals, self.normalized)
        )
        if not augmented:
            return original, normalized
        flip = (torch.rand(len(rows)) < 0.5).to(where)
        # as one image of six channels, so moved as one
        both = torch.cat([photometric(original), normalized], dim=1)
        return jitter(mirrored(both, flip)).split(3, dim=1)


@dataclass(frozen=True)
class EmbeddedPairs:
    """`Pairs` as a frozen backbone sees them: embeddings (2, N, D) of each face and of its mirror
    image. Made by `embed`."""

    backbone: Normalizer
    originals: Tensor
    normalized: Tensor
    labels: NDArray[np.float32]
    subjects: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def labeled(self, labels: NDArray[np.float32]) -> "EmbeddedPairs":
        """The same embeddings with other labels."""
        return replace(self, labels=labels)

    def learner(self, model: Classifier) -> nn.Module:
        """What of a classifier is trained on these, and reads their batches: the head. Its backbone
        must be theirs."""
        return model.head

    def batch(
        self, rows: NDArray[np.intp], where: torch.device, augmented: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) of originals and normalized faces. Augmented: half of the pairs are
        mirrored."""
        flip = (
            (torch.rand(len(rows)) < 0.5).long()
            if augmented
            else torch.zeros(len(rows), dtype=torch.long)
        )
        chosen = flip, torch.from_numpy(rows)
        return self.originals[chosen].to(where), self.normalized[chosen].to(where)


def embed(
    pairs: Pairs,
    backbone: Normalizer,
    batch_size: int = 64,
    progress: bool = False,
    keep: Path | None = None,
) -> EmbeddedPairs:
    """What the encoder and expression embedding of a normalizer see in each pair, computed once for
    all trainings.

    ``keep``: a file (.safetensors) for these embeddings. If it is there, they are taken from it, so
    its name must tell these pairs and this backbone from all others.
    """
    if keep is None or not keep.is_file():
        faces = {"originals": pairs.originals, "normalized": pairs.normalized}
        found = {
            name: _embeddings(images, backbone, batch_size, progress)
            for name, images in faces.items()
        }
        if keep is not None:
            write_atomically(keep, lambda part: save_file(found, part))
    else:
        found = load_file(keep)
    return EmbeddedPairs(
        backbone, found["originals"], found["normalized"], pairs.labels, pairs.subjects
    )


@torch.inference_mode()
def _embeddings(faces: Faces, backbone: Normalizer, batch_size: int, progress: bool) -> Tensor:
    """(2, N, D) of faces and of their mirror images."""
    device, parts = next(backbone.parameters()).device, []
    for start in tqdm(
        range(0, len(faces), batch_size),
        desc="embed",
        unit="batch",
        disable=not progress,
        leave=False,
    ):
        images = to_tensor(faces[start : start + batch_size]).to(device)
        parts.append(
            torch.stack(
                [
                    backbone.expression(backbone.encoder(view)).cpu()
                    for view in (images, images.flip(3))
                ]
            )
        )
    return torch.cat(parts, dim=1)
