"""Floating-point operations of networks."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def flops_of(network: Callable[[Tensor], Any], image: Tensor) -> int:
    """Floating-point operations of one image (1, 3, S, S), a multiplication and an addition counted
    as two. On the device ``meta`` they are counted without being done.

    By ``torch.utils.flop_counter``, which overlooks the fused attention of a CPU, so attention runs
    as plain matrix products.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops()
