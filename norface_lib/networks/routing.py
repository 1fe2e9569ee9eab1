"""Other ways to balance the experts of a mixture than noisy gates with auxiliary losses.

Shapes: N samples, L labels, m experts; a gate gives (N, m), or (N, L, m) if each label has one.
"""

import torch
from torch import Tensor

from norface_lib.networks.mixtures import Gate, Gating, NoisyTopKGate


class BiasBalancedGate(Gate):
    """Top-k gate that is balanced without a loss (Wang et al. 2024, "Auxiliary-loss-free load
    balancing strategy for mixture-of-experts"): x (N, D) -> `Gating`.

    Experts are chosen by their score plus a bias, and weighed by the scores alone. After each batch
    of a training the bias of an expert rises by ``RATE`` if it got fewer samples than the mean, and
    falls by it if it got more. Arguments and errors are those of `NoisyTopKGate`.
    """

    RATE = 1e-3
    """Step of the biases, as in the paper."""

    def __init__(self, dim: int, experts: int, top_k: int, labels: int | None = None):
        super().__init__(dim, experts, top_k, labels)
        self.register_buffer("bias", torch.zeros(self.shape))

    def forward(self, x: Tensor) -> Gating:
        logits = self.logits(x)
        scores = logits.sigmoid()
        chosen = (scores.detach() + self.bias).topk(self.top_k, dim=-1).indices
        kept = torch.zeros_like(scores).scatter(-1, chosen, 1.0)
        gates = kept * scores
        if self.training:
            self._balance(kept)
        return Gating(gates / gates.sum(dim=-1, keepdim=True), logits, kept)

    @torch.no_grad()
    def _balance(self, kept: Tensor) -> None:
        """Moves the biases towards experts with fewer samples than the mean."""
        samples = kept.sum(dim=0)
        self.bias += self.RATE * (samples.mean(dim=-1, keepdim=True) - samples).sign()


class ExpertChoiceGate(Gate):
    """Gate whose experts choose their samples (Zhou et al. 2022, "Mixture-of-experts with expert
    choice routing"): x (N, D) -> `Gating`.

    In training each expert takes the N k / m samples of a batch that score highest for it, so all
    do alike, and a sample may have any number of experts, or none. What one face gets must not
    depend on the others that are read with it: so when the network is used, an expert takes the
    faces that score above its cutoff, a running mean over the batches of the training. Gates are
    scores and do not sum to 1. Arguments and errors are those of `NoisyTopKGate`.
    """

    MOMENTUM = 0.05
    """Share of a batch in the running mean of the cutoffs."""

    def __init__(self, dim: int, experts: int, top_k: int, labels: int | None = None):
        super().__init__(dim, experts, top_k, labels)
        self.register_buffer("cutoff", torch.full(self.shape, 1 / experts))

    def forward(self, x: Tensor) -> Gating:
        logits = self.logits(x)
        scores = logits.softmax(dim=-1)
        cutoff = self._cutoff(scores.detach()) if self.training else self.cutoff
        kept = (scores >= cutoff).to(scores.dtype)
        return Gating(scores * kept, logits, kept)

    @torch.no_grad()
    def _cutoff(self, scores: Tensor) -> Tensor:
        """The lowest score that each expert takes of a batch; it goes into the running mean."""
        samples = max(1, round(len(scores) * self.top_k / self.shape[-1]))
        cutoff = scores.topk(samples, dim=0).values[-1]
        self.cutoff.lerp_(cutoff, self.MOMENTUM)
        return cutoff


ROUTINGS = {"noisy": NoisyTopKGate, "bias": BiasBalancedGate, "expert-choice": ExpertChoiceGate}
"""Kinds of gates by name; the first is the default. Only its balance needs auxiliary losses."""
