"""Seconds, FLOPs and memory: the ways in which the stages are measured."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from norface_lib.common.processes import end_with_parent

Figure = dict[str, Any]
"""One measured number: ``name``, ``value``, ``unit``, and what it depends on."""


def figure_of(name: str, value: float, unit: str, **more: Any) -> Figure:
    """A number with its name and unit, rounded to three digits."""
    return {"name": name, "value": round(value, 3), "unit": unit, **more}


def in_own_process(function: Callable[..., Figure], **arguments: Any) -> Figure:
    """Calls a function in a new process, so that its peak of memory is its own."""
    context = multiprocessing.get_context("spawn")  # Warp and CUDA must not be forked
    with ProcessPoolExecutor(1, context, initializer=end_with_parent) as pool:
        return pool.submit(function, **arguments).result()


def best_rate(run: Callable[[], int], repeats: int = 3) -> float:
    """Items a second in the fastest of some runs of ``run``, which returns how many items it made;
    a run before them warms up."""
    run()
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        count = run()
        rates.append(count / (time.perf_counter() - started))
    return max(rates)


def median_seconds(run: Callable[[], Any], repeats: int = 15) -> float:
    """Median seconds of some runs; a run before them warms up."""
    run()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


class Seconds(NamedTuple):
    """Least seconds of one run, by the clock and of the processor."""

    clock: float
    processor: float


def seconds_in_turns(
    runs: Sequence[Callable[[], Any]], device: torch.device, *, turns: int = 7
) -> list[Seconds]:
    """Least seconds of each of some runs, which take turns, so that a machine that slows down slows
    all; a first turn warms up.

    The processor's seconds, summed over its cores, leave out what other programs took meanwhile. On
    a GPU they say little.
    """
    measured: list[list[Seconds]] = [[] for _ in runs]
    for _ in range(1 + turns):
        for run, seconds in zip(runs, measured, strict=True):
            started = time.perf_counter()
            worked = time.process_time()
            run()
            wait_for(device)
            seconds.append(Seconds(time.perf_counter() - started, time.process_time() - worked))

    return [
        Seconds(min(turn.clock for turn in seconds), min(turn.processor for turn in seconds))
        for seconds in (seconds[1:] for seconds in measured)
    ]


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
