"""Batches of a dataset, step by step, known from the seed and the step alone: a resumed training
repeats an uninterrupted one."""

import multiprocessing
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from norface_lib.common.devices import default_workers, seed_generators
from norface_lib.common.processes import end_with_parent

Choose = Callable[[Tensor, torch.Generator], Tensor]
"""``choose(rows, generator)``: the rows that are read in place of a step's rows (B,), by chance."""


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def batches_of_epoch(count: int, batch_size: int) -> int:
    """Batches of an epoch of ``count`` samples; what does not fill one is left out."""
    return count // min(batch_size, count)


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices (B,) of a step's samples, from epochs of shuffled samples.

    A batch never straddles two epochs; what does not fill a batch is left out of that epoch.
    """
    batch_size = min(batch_size, count)
    epoch, position = divmod(step, batches_of_epoch(count, batch_size))
    return _shuffled(count, seed, epoch)[position * batch_size : (position + 1) * batch_size]


class StepSampler(Sampler):
    """Batches of rows, one for each step from ``first`` to ``steps``: of each, every row of this
    process out of ``processes``.

    ``choose`` may put other rows in the places of a whole batch, such as balanced ones.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        steps: int,
        first: int = 0,
        seed: int = 0,
        choose: Choose | None = None,
        process: int = 0,
        processes: int = 1,
    ):
        self.count = count
        self.batch_size = batch_size
        self.steps = steps
        self.first = first
        self.seed = seed
        self.choose = choose
        self.process = process
        self.processes = processes

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[NDArray[np.intp]]:
        for step in range(self.first, self.steps):
            generator = torch.Generator().manual_seed(self._seed_of(step))
            yield self._rows(step, generator).numpy()

    def seed_step(self, step: int) -> None:
        """Seeds torch for a step, all processes alike. What the loss then draws follows what
        ``choose`` drew."""
        seed_generators(self._seed_of(step))
        if self.choose is not None:
            self._rows(step, torch.default_generator)

    def _seed_of(self, step: int) -> int:
        return self.seed * 1_000_003 + step

    def _rows(self, step: int, generator: torch.Generator) -> Tensor:
        """This process's share of the whole batch, which is chosen first."""
        indices = batch_indices(self.count, self.batch_size, self.seed, step)
        whole = indices if self.choose is None else self.choose(indices, generator)
        return whole[self.process :: self.processes]


def balanced(weights: Tensor) -> Choose:
    """Chooses rows by their ``weights`` (N,), with replacement, in place of each once an epoch."""

    def choose(rows: Tensor, generator: torch.Generator) -> Tensor:
        return torch.multinomial(weights, len(rows), replacement=True, generator=generator)

    return choose


def of_versions(choose: Choose | None, count: int, versions: int) -> Choose | None:
    """Chooses one of some versions of each of ``count`` rows by chance, after ``choose``: row r of
    version k is row r + count * k."""
    if versions == 1:
        return choose

    def drawn(rows: Tensor, generator: torch.Generator) -> Tensor:
        rows = rows if choose is None else choose(rows, generator)
        return rows + count * torch.randint(versions, rows.shape, generator=generator)

    return drawn


def in_order(count: int, batch_size: int) -> list[NDArray[np.intp]]:
    """Batches of rows from the first to the last, as a sampler for evaluation."""
    return [
        np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)
    ]


def make_loader(
    data: Dataset,
    batches: StepSampler | list[NDArray[np.intp]],
    device: torch.device,
    workers: int | None = None,
) -> DataLoader:
    """Reads whole batches of a dataset, which takes arrays of rows, in the order of ``batches``.

    ``workers``: processes that read ahead; default: those of
    `norface_lib.common.devices.default_workers`. A CUDA device gets its batches from pinned memory.
    """
    gpu = device.type == "cuda"
    if workers is None:
        workers = default_workers(device)
    # a spawned worker would be sent a copy of each memory map
    forked = workers and "fork" in multiprocessing.get_all_start_methods()
    return DataLoader(
        data,
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        pin_memory=gpu,
        multiprocessing_context="fork" if forked else None,
        worker_init_fn=end_with_parent if workers else None,
        # the loader holds its iterator, which outlives a loop that is stopped: dropped at once, it
        # would wait five seconds for each worker that is reading
        persistent_workers=workers > 0,
    )


def to_device(batch: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    """The tensors of a batch on a device."""
    return tuple(part.to(device, non_blocking=True) for part in batch)
