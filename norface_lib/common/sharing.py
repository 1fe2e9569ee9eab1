"""Batches and tasks that several processes share, which one command started together: each takes
every P-th of P processes. A single process takes all."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, distributed

from norface_lib.common.devices import processes


@torch.compiler.assume_constant_result
def place() -> tuple[int, int]:
    """Number of this process among those that run together, and how many there are."""
    state = processes()
    return state.process_index, state.num_processes


def own(whole: Tensor, batch: int = 0) -> Tensor:
    """Of values for a whole batch those of this process's samples. ``batch``: the dimension that
    counts samples."""
    process, count = place()
    return whole if count == 1 else whole[(slice(None),) * batch + (slice(process, None, count),)]


def whole_batch(share: Tensor) -> Tensor:
    """Values of a whole batch (N, ...) out of each process's `own` (N / P, ...); gradients flow
    back to those of all processes.

    What all processes compute of it alike has P times its gradient in all shares together: they
    exchange the mean of what they find.
    """
    return share if place()[1] == 1 else _WholeBatch.apply(share)


class _WholeBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        share = share.contiguous()
        shares = [torch.empty_like(share) for _ in range(place()[1])]
        distributed.all_gather(shares, share)
        return torch.stack(shares, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return own(gradient)


def total(count: int) -> int:
    """The sum of a number over all processes."""
    if place()[1] == 1:
        return count
    value = torch.tensor(count, device=processes().device)
    distributed.all_reduce(value)
    return int(value)


def share_of(tasks: Sequence[Any]) -> Sequence[Any]:
    """Those of some tasks that this process takes."""
    process, count = place()
    return tasks[process::count]


def of_all(results: list[Any]) -> list[Any]:
    """The results of tasks by all processes, each of which gives those of its `share_of` them, in
    the order of the tasks; in every process."""
    if place()[1] == 1:
        return results
    shares = gather_object([results])
    return [result for turn in zip_longest(*shares) for result in turn if result is not None]
