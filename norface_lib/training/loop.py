"""One training loop for all networks: schedule, averaged weights, several processes, checkpoint,
exact resume, log, progress.

On several GPUs, start the same command with ``accelerate launch``: each process takes its share.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from norface_lib.common.devices import mixed_precision
from norface_lib.common.locks import only_writer
from norface_lib.training.checkpoints import Run
from norface_lib.training.loader import Choose, StepSampler, make_loader
from norface_lib.training.log import log_step, rewind
from norface_lib.training.optimizer import TrainConfig, rate_at
from norface_lib.training.shares import check_shares, means, new_accelerator, take_from_first

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, float]]]
"""``loss(model, batch)``: the loss of a batch as the dataset gives it, and figures for the log."""

Watch = Callable[[nn.Module, int], dict[str, float]]
"""``watch(model, step)``: looks at the network as it is, in evaluation mode, and returns figures
for the log. Of several processes each calls it, so that they can share the work; what the first
returns is logged."""


class _Task(nn.Module):
    """Network and loss as one module, so that a wrapper for several processes sees every pass
    through any of its parts."""

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        return self.loss(self.model, batch)


def fit(
    model: nn.Module,
    loss: Loss,
    data: Dataset,
    config: TrainConfig,
    *,
    folder: Path | None = None,
    name: str = "train",
    progress: bool = True,
    watch: Watch | None = None,
    choose: Choose | None = None,
    workers: int | None = None,
) -> nn.Module:
    """Trains ``model`` in place on a dataset and returns it, with averaged weights, in evaluation
    mode.

    ``data`` is read by `norface_lib.training.loader.make_loader`, with ``workers``, and gives a
    batch for an array of rows, as ``TensorDataset`` does. ``choose`` puts other rows in the places
    of a step's rows.

    With a ``folder``, writes ``<name>.jsonl`` (one line each ``log_every`` steps) and
    ``<name>.ckpt``; a call after an interruption goes on from there and ends where an uninterrupted
    one would have, step for step. Until the end, ``<name>.before.ckpt`` holds the checkpoint before
    that one, and takes its place if it is damaged. ``watch`` is called each ``watch_every`` steps
    and at the end.

    With ``NORFACE_TENSORBOARD=1`` in the environment the log also goes to ``<folder>/tensorboard``.
    Raises :class:`norface_lib.common.errors.CheckpointError` for a checkpoint of other settings,
    ``FloatingPointError`` for a loss that is not finite, :class:`NorfaceError` if tensorboard is
    asked for and not there, and `norface_lib.common.errors.DataError` if another process trains
    ``name`` in this folder.
    """
    accelerator = new_accelerator()
    first = accelerator.is_main_process
    check_shares(name, min(config.batch_size, len(data)), config.accumulate, accelerator)
    run = Run(model, config)
    checkpoint = Path(folder) / f"{name}.ckpt" if folder else None
    if checkpoint and (sentence := run.resume(checkpoint)) and first:
        print(f"{name}: {sentence}")

    sampler = StepSampler(
        len(data),
        config.batch_size,
        steps=config.steps * config.accumulate,
        first=run.step * config.accumulate,
        seed=config.seed,
        choose=choose,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    batches = iter(make_loader(data, sampler, next(model.parameters()).device, workers))
    task = accelerator.prepare_model(_Task(model, loss)).train()

    saved = started = time.monotonic()
    quiet = not (progress and first) or run.finished
    writes = folder is not None and first and not run.finished
    with (
        only_writer(Path(folder) / name) if writes else nullcontext(),
        tqdm(
            total=config.steps,
            initial=run.step,
            desc=name,
            unit="step",
            disable=quiet,
            mininterval=1.0,
        ) as bar,
    ):
        if writes:
            rewind(Path(folder) / f"{name}.jsonl", run.step)
        while not run.finished:
            _set_rates(run)
            figures = _passes(run, task, batches, sampler, accelerator)
            _step(run)
            bar.update()

            watched = watch is not None and (run.step % config.watch_every == 0 or run.finished)
            logged = watched or run.step % config.log_every == 0 or run.finished
            if logged and accelerator.num_processes > 1:
                figures = means(figures, accelerator)
            if watched:
                take_from_first(model, accelerator)
                figures |= watch(model.eval(), run.step)
                model.train()
            if first and logged:
                bar.set_postfix({key: f"{value:.4g}" for key, value in figures.items()})
                if folder:
                    seconds = time.monotonic() - started
                    log_step(Path(folder) / f"{name}.jsonl", run.step, figures, seconds)

            if run.finished:
                run.finish()
            due = run.finished or time.monotonic() - saved > config.checkpoint_seconds
            if first and checkpoint and due:
                run.save(checkpoint)
                saved = time.monotonic()
    accelerator.wait_for_everyone()  # nobody reads what the first process is still writing
    take_from_first(model, accelerator)
    return model.eval()


def _set_rates(run: Run) -> None:
    """The learning rate of this step, for each layer its share."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate_at(run.step, run.config) * group.get("lr_scale", 1.0)


def _passes(
    run: Run,
    task: nn.Module,
    batches: Iterator[Any],
    sampler: StepSampler,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Gradients of one step, the mean over its passes; figures likewise."""
    config = run.config
    device = next(run.model.parameters()).device
    run.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    for number in range(config.accumulate):
        batch = next(batches)
        sampler.seed_step(run.step * config.accumulate + number)
        last = number == config.accumulate - 1
        # processes exchange gradients once a step
        with nullcontext() if last else accelerator.no_sync(task):
            with mixed_precision(device, config.amp):
                value, figures = task(batch)
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"the loss became {value.item()} at step {run.step}: lower the learning rate"
                )
            (value / config.accumulate).backward()
        for name, figure in {"loss": value.item(), **figures}.items():
            sums[name] = sums.get(name, 0.0) + figure / config.accumulate
    return sums


def _step(run: Run) -> None:
    """One step of the optimizer, and of the average of the weights."""
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.clip)
    run.optimizer.step()
    if run.average:
        run.average.update_parameters(run.model)
    run.step += 1


def logged_seconds(log: Path) -> float:
    """Seconds of training by a log, whose clock starts anew each time the training goes on."""
    clock = [json.loads(line)["seconds"] for line in log.read_text().splitlines()]
    total = 0.0
    for before, now in pairwise([0.0, *clock]):
        total += now - before if now >= before else now
    return round(total, 1)
