"""Mixtures of experts: the noisy top-k gate, sparse experts at either end of a classifier, and the
losses that balance them.

After Shazeer et al. 2017 and, at the output, MMoE (Ma et al. 2018). Every expert computes only the
samples that a gate chose it for, and no sample is ever dropped: experts have no capacity that could
be full.

Shapes: N images, L labels, m experts, D the width of the features.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def importance(gates: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' summed gates (Shazeer et al. 2017, eq. 6-7):
    gates (N, m) -> scalar.

    0 if all experts weigh the same over the batch, m - 1 if one takes all. Gates per label (N, L,
    m) give the mean over labels.
    """
    return _squared_variation(gates.sum(dim=0))


def load(probabilities: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' load (Shazeer et al. 2017, eq. 10-11), else
    as `importance`.

    probabilities (N, m) or (N, L, m) of each expert to be chosen: `selection_probability`, which
    has a gradient as a count of samples has not.
    """
    return _squared_variation(probabilities.sum(dim=0))


def _squared_variation(sums: Tensor) -> Tensor:
    """Variance over squared mean along the last axis (..., m), then the mean of all."""
    return (sums.var(dim=-1, correction=0) / (sums.mean(dim=-1).square() + 1e-10)).mean()


def selection_probability(clean: Tensor, noisy: Tensor, noise: Tensor, top_k: int) -> Tensor:
    """Chance of each expert to be among the k best if its own noise were sampled anew (Shazeer et
    al. 2017, eq. 8-9).

    P_i = Phi((clean_i - k-th largest of the other noisy logits) / noise_i), with logits ``clean``
    and ``noisy`` and the standard deviation ``noise`` > 0, all (..., m) -> (..., m) in [0, 1]. All
    1 for k = m.
    """
    if top_k == clean.shape[-1]:
        return torch.ones_like(clean)
    best = noisy.topk(top_k + 1, dim=-1).values
    last_in, first_out = best[..., -2:].split(1, dim=-1)
    # the k-th largest of the others: an expert that is in must stay above the first that is out,
    # one that is out must pass the last that is in
    bound = torch.where(noisy > first_out, first_out, last_in)
    return torch.special.ndtr((clean - bound) / noise)


MIN_NOISE = 1e-2
"""Least standard deviation of a gate's noise, so that the load loss never divides by 0."""


class Gating(NamedTuple):
    """Decisions of a gate, all (N, m), or (N, L, m) where each label has its own gate."""

    # weight of each expert in [0, 1]: k are kept and sum to 1, the others are 0
    gates: Tensor
    clean_logits: Tensor  # before the noise
    # in training the probability to be kept if the noise were sampled anew, else 1 if kept and 0
    # if not
    load: Tensor


class Gate(nn.Module):
    """What gates of every kind have: a logit for each expert, x (N, D) -> ``logits`` (N, m), or (N,
    L, m) if ``labels`` = L is given.

    Raises ``ValueError`` unless 1 <= top_k <= experts.
    """

    def __init__(self, dim: int, experts: int, top_k: int, labels: int | None = None):
        super().__init__()
        check_top_k(experts, top_k)
        self.top_k = top_k
        self.shape = (experts,) if labels is None else (labels, experts)
        self.clean = nn.Linear(dim, experts * (labels or 1), bias=False)

    def logits(self, x: Tensor, layer: nn.Linear | None = None) -> Tensor:
        """Logits in float32 at least: half precision is too coarse to rank experts. ``layer``: in
        place of that of the logits."""
        values = (layer or self.clean)(x)
        wide = torch.promote_types(values.dtype, torch.float32)
        return values.to(wide).reshape(-1, *self.shape)


class NoisyTopKGate(Gate):
    """Noisy top-k gate (Shazeer et al. 2017, eq. 3-5): x (N, D) -> `Gating` (N, m), or (N, L, m) if
    ``labels`` = L is given.

    There is noise in training only. With k = 1 the kept gate is always 1, so only the load loss
    trains the gate. Raises ``ValueError`` unless 1 <= top_k <= experts.
    """

    def __init__(self, dim: int, experts: int, top_k: int, labels: int | None = None):
        super().__init__(dim, experts, top_k, labels)
        self.noise = nn.Linear(dim, experts * (labels or 1), bias=False)
        # all experts start alike and chance chooses between them (Shazeer et al. 2017, appendix A)
        nn.init.zeros_(self.clean.weight)
        nn.init.zeros_(self.noise.weight)

    def forward(self, x: Tensor) -> Gating:
        clean = self.logits(x)
        if not self.training:
            gates, kept = keep_top_k(clean, self.top_k)
            return Gating(gates, clean, kept)
        noise = F.softplus(self.logits(x, self.noise)) + MIN_NOISE
        noisy = clean + noise * torch.randn_like(clean)
        gates, _ = keep_top_k(noisy, self.top_k)
        return Gating(gates, clean, selection_probability(clean, noisy, noise, self.top_k))


def keep_top_k(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Softmax over the k largest logits (..., m) with 0 elsewhere, and a mask of these k, which is
    1 or 0: both (..., m)."""
    values, indices = logits.topk(top_k, dim=-1)
    zeros = torch.zeros_like(logits)
    gates = zeros.scatter(-1, indices, values.softmax(dim=-1))
    kept = zeros.scatter(-1, indices, 1.0)
    return gates, kept


def sparse_sum(
    experts: Sequence[nn.Module],
    x: Tensor,
    gates: Tensor,
    read: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """sum_i gate_i read(expert_i(x)), where an expert computes only the samples that have a gate
    other than 0 for it.

    x (N, D), gates (N, C, m) in [0, 1] -> (N, C), or (N, width of ``read``) if C = 1; in the type
    of the gates. ``read`` maps (R, D) to (R, width) row by row; without it features are summed as
    experts make them. Rows are sorted by expert once, so each expert gets one contiguous slice, and
    a device is waited for only once.
    """
    if torch.onnx.is_in_onnx_export():  # a file holds one graph for all samples
        return dense_sum(experts, x, gates, read)

    chosen = (gates != 0).any(dim=1).t()  # (m, N); NaN counts, as a broken sample must stay broken
    counts = chosen.sum(dim=1).tolist()
    # (R,) each, in the order of the experts
    expert, row = chosen.nonzero_static(size=sum(counts)).unbind(1)
    parts = x.index_select(0, row).split(counts)
    # an expert without samples runs on none, at no cost: on several GPUs each needs a gradient
    # everywhere, if only 0
    features = torch.cat([run(part) for run, part in zip(experts, parts, strict=True)])
    values = features if read is None else read(features)
    weights = gates.permute(2, 0, 1).flatten(0, 1).index_select(0, expert * len(x) + row)  # (R, C)
    return gates.new_zeros(len(x), values.shape[1]).index_add(0, row, weights * values)


def dense_sum(
    experts: Sequence[nn.Module],
    x: Tensor,
    gates: Tensor,
    read: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Sum over experts as `sparse_sum`, but every expert computes all samples; the same arguments
    and result."""
    features = (expert(x) for expert in experts)
    values = features if read is None else map(read, features)
    return sum(gate * value for gate, value in zip(gates.unbind(-1), values, strict=True))


class MixtureOfExperts(nn.Module):
    """Sparse mixture of two-layer experts: x (N, D) -> output (N, out) = sum_i gate_i expert_i(x),
    and its `Gating` (N, m).

    An expert computes only the samples that chose it. ``out`` is D by default; a residual
    connection is the caller's. ``gate``: class of the gate. ``shared`` adds one more expert, which
    computes all samples with weight 1 (DeepSeekMoE, Dai et al. 2024). Raises ``ValueError`` unless
    1 <= top_k <= experts.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        experts: int = 4,
        top_k: int = 2,
        out: int | None = None,
        *,
        gate: type[nn.Module] = NoisyTopKGate,
        shared: bool = False,
    ):
        super().__init__()
        out = dim if out is None else out
        self.gate = gate(dim, experts, top_k)
        self.experts = nn.ModuleList(mlp(dim, hidden, out) for _ in range(experts))
        self.shared = mlp(dim, hidden, out) if shared else None

    def forward(self, x: Tensor) -> tuple[Tensor, Gating]:
        gating = self.gate(x)
        total = sparse_sum(self.experts, x, gating.gates[:, None]).to(x.dtype)
        return total if self.shared is None else total + self.shared(x), gating


class OutputMixture(nn.Module):
    """Experts shared by all labels, a gate and a linear head for each (MMoE, Ma et al. 2018).

    x (N, D) -> logits (N, L), and a `Gating` (N, L, m). An expert computes, once, the samples that
    at least one label chose it for. Heads read the experts before the gates sum them up, which is
    the same, as both are linear, and needs no tensor (N, L, D). ``gate`` and ``shared`` as in
    `MixtureOfExperts`. Raises ``ValueError`` unless 1 <= top_k <= experts.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        labels: int,
        experts: int = 4,
        top_k: int = 2,
        *,
        gate: type[nn.Module] = NoisyTopKGate,
        shared: bool = False,
    ):
        super().__init__()
        self.gate = gate(dim, experts, top_k, labels)
        self.experts = nn.ModuleList(mlp(dim, hidden, dim) for _ in range(experts))
        self.shared = mlp(dim, hidden, dim) if shared else None
        heads = nn.Linear(dim, labels)  # row l is the head of label l
        self.head_weight = heads.weight
        self.head_bias = heads.bias

    def forward(self, x: Tensor) -> tuple[Tensor, Gating]:
        gating = self.gate(x)
        read = partial(F.linear, weight=self.head_weight)
        logits = sparse_sum(self.experts, x, gating.gates, read) + self.head_bias
        return logits if self.shared is None else logits + read(self.shared(x)), gating


def mlp(dim: int, hidden: int, out: int) -> nn.Sequential:
    """Two linear layers with GELU between them: (..., dim) -> (..., out)."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out))


def parameter_count(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def size_of(build: Callable[[], nn.Module]) -> int:
    """Parameters of the module that ``build`` makes, without spending memory or random numbers on
    it."""
    with torch.device("meta"):
        return parameter_count(build())


def mlp_of_size(dim: int, parameters: int) -> nn.Sequential:
    """The MLP (..., dim) -> (..., dim) whose number of parameters comes nearest."""
    return mlp(dim, max(1, round((parameters - dim) / (2 * dim + 1))), dim)


class Dense(nn.Module):
    """Substitute of a mixture that is off: body(x), and no gating."""

    def __init__(self, *body: nn.Module):
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.body(x), None


def check_top_k(experts: int, top_k: int) -> None:
    """Raises ``ValueError`` unless 1 <= top_k <= experts."""
    if not 1 <= top_k <= experts:
        raise ValueError(f"top_k must be within 1..{experts}, the number of experts, got {top_k}")
