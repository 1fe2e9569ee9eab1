"""Random numbers for the samples of a batch that do not depend on how many processes share it.

Processes that train together are seeded alike. Each draws the numbers of the whole batch from
torch's global generator and keeps those of its own samples.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from norface_lib.common.sharing import own, place


def rand(*shape: int, batch: int = 0, device: torch.device | None = None) -> Tensor:
    """Numbers within [0, 1) for the samples of this process; ``batch``: the dimension of ``shape``
    that counts them."""
    return _drawn(lambda whole: torch.rand(whole, device=device), shape, batch)


def randn(*shape: int, device: torch.device | None = None) -> Tensor:
    """Standard normal numbers for the samples of this process, which the first dimension of
    ``shape`` counts."""
    return _drawn(lambda whole: torch.randn(whole, device=device), shape, 0)


def kept(shape: tuple[int, ...], share: float, like: Tensor) -> Tensor:
    """1 with the chance ``share``, else 0, for the samples of this process, which the first
    dimension of ``shape`` counts; of the type and device of ``like``."""
    return _drawn(lambda whole: like.new_empty(whole).bernoulli_(share), shape, 0)


def _drawn(draw: Callable[[list[int]], Tensor], shape: tuple[int, ...], batch: int) -> Tensor:
    _, count = place()
    whole = list(shape)
    whole[batch] *= count
    return own(draw(whole), batch)
