"""Layers that several networks use: dropout, stochastic depth and batch norm that make of a sample
what they would if one process had its whole batch, however many processes share it; and a linear
layer with weights for each place."""

import torch
from timm import layers
from torch import Tensor, nn

from norface_lib.common import chance
from norface_lib.common.sharing import own, place, whole_batch


class Dropout(nn.Dropout):
    """Dropout of numbers (N, ...) for N samples, as torch has it."""

    def forward(self, x: Tensor) -> Tensor:
        return _without(x, self.p, tuple(x.shape)) if self.training else x


class DropPath(layers.DropPath):
    """Stochastic depth (Huang et al. 2016) as timm has it: skips a block for whole samples."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return _without(x, self.drop_prob, (len(x),) + (1,) * (x.ndim - 1), self.scale_by_keep)


def _without(x: Tensor, share: float, shape: tuple[int, ...], scaled: bool = True) -> Tensor:
    """Zeros in place of a ``share`` of x; where ``scaled``, the rest grows, so that the mean
    stays."""
    if share == 0:
        return x
    mask = chance.kept(shape, 1 - share, x)
    return x * (mask.div_(1 - share) if scaled and share < 1 else mask)


class BatchNorm1d(nn.BatchNorm1d):
    """Batch norm of features (N, F), as torch has it, by mean and spread of the whole batch:
    ``nn.SyncBatchNorm`` needs a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or place()[1] == 1:
            return super().forward(x)
        return own(super().forward(whole_batch(x)))


class PlacedLinear(nn.Module):
    """A linear layer of its own for each of L places: (N, L, I) to (N, L, O).

    ``spread``: standard deviation of the first weights; default: that of equal variance of inputs
    and outputs, I^-0.5.
    """

    def __init__(self, places: int, inputs: int, outputs: int, spread: float | None = None):
        super().__init__()
        spread = inputs**-0.5 if spread is None else spread
        self.weight = nn.Parameter(torch.randn(places, inputs, outputs) * spread)
        self.bias = nn.Parameter(torch.zeros(places, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


def share_drop_path(network: nn.Module) -> None:
    """Replaces timm's stochastic depth in a network by `DropPath`."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is layers.DropPath:
                setattr(module, name, DropPath(child.drop_prob, child.scale_by_keep))
