"""How a classifier makes one feature vector of the embeddings of the original and the normalized
face.

Shapes: N images, D the width of an embedding.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SumFusion(nn.Module):
    """Original and normalized embedding side by side (N, 2 D) to a linear layer of their sum (N,
    D)."""

    def __init__(self, dim: int):
        super().__init__()
        self.project = nn.Linear(dim, dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        original, normalized = embeddings.chunk(2, dim=1)
        return self.project(original + normalized)


class GatedFusion(nn.Module):
    """Original and normalized embedding (N, 2 D) to a linear layer of g original + (1 - g)
    normalized (N, D).

    g (N, D) in (0, 1), a share for each feature, is the sigmoid of a linear layer of both: a gated
    multimodal unit (Arevalo et al. 2017). It starts at 1/2.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gate = nn.Linear(2 * dim, dim)
        self.project = nn.Linear(dim, dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        original, normalized = embeddings.chunk(2, dim=1)
        share = self.gate(embeddings).sigmoid().to(original.dtype)  # under autocast it may be half
        return self.project(torch.lerp(normalized, original, share))


FUSIONS: dict[str, Callable[[int], nn.Module]] = {
    "concat": lambda dim: nn.Linear(2 * dim, dim),
    "sum": SumFusion,
    "gated": GatedFusion,
}
"""Ways to make one feature vector (N, D) of the standardized embeddings (N, 2 D) of both faces, by
name: D -> module."""


def without_a_face(embeddings: Tensor, share: float) -> Tensor:
    """Standardized embeddings of both faces (N, 2 D) in which a ``share`` of the samples lacks one
    face: zeros, its mean, stand in its place. Either is as likely to be missing. Same shape.

    Who learns from both may lean on one of them alone; so each must do without the other at times
    (modality dropout, Neverova et al. 2016).
    """
    chance = torch.rand(len(embeddings), 1, device=embeddings.device)
    original, normalized = embeddings.chunk(2, dim=1)
    parts = (original * (chance >= share / 2), normalized * (chance < 1 - share / 2))
    return torch.cat(parts, dim=1)
