"""One training loop for all networks: schedule, averaged weights, several processes, checkpoint,
exact resume, log, progress.

On several GPUs, start the same command with ``accelerate launch``: each process takes its share.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from norface_lib.common.devices import mixed_precision
from norface_lib.common.errors import CheckpointError
from norface_lib.common.files import write_atomically
from norface_lib.common.locks import only_writer
from norface_lib.training.loader import Choose, StepSampler, make_loader
from norface_lib.training.log import log_step, rewind
from norface_lib.training.shares import check_shares, means, new_accelerator, take_from_first

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, float]]]
"""``loss(model, batch)``: the loss of a batch as the dataset gives it, and figures for the log."""

Watch = Callable[[nn.Module, int], dict[str, float]]
"""``watch(model, step)``: looks at the network as it is, in evaluation mode, and returns figures
for the log."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, batch size and learning rate of a training."""

    steps: int
    batch_size: int = 32  # of a pass, over all processes together
    accumulate: int = 1  # passes whose gradients make one step
    learning_rate: float = 1e-3  # the peak, reached after warm-up
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of the steps
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.99  # decay of the averaged weights; 0 turns averaging off
    seed: int = 0
    log_every: int = 20  # steps
    watch_every: int = 250  # steps
    checkpoint_seconds: float = 60.0
    # a layer learns this much slower than the one behind it; None: all alike
    layer_decay: float | None = None
    # bfloat16 in training; None: where the hardware multiplies it
    amp: bool | None = None

    def __post_init__(self):
        counts = (self.steps, self.batch_size, self.accumulate, self.log_every, self.watch_every)
        if min(counts) < 1:
            raise ValueError(
                "steps, batch_size, accumulate, log_every and watch_every must be at least 1"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be within [0, 1), got {self.warmup}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be within [0, 1), got {self.average}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be within (0, 1], or None, got {self.layer_decay}")

    @property
    def effective_batch(self) -> int:
        """Samples of one step of the optimizer, over all passes and processes."""
        return self.batch_size * self.accumulate


def rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine to 0 (Loshchilov and Hutter
    2017)."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return (
        config.learning_rate
        * 0.5
        * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))
    )


def base_rate(base: float, batch: int) -> float:
    """Learning rate for a batch: base * batch / 256, as masked autoencoders are fine-tuned (He et
    al. 2022; PAPER.md 1.5)."""
    return base * batch / 256


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float | None = None
) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels only: norms, biases and gains are not pulled to 0 (as
    timm does).

    With ``layer_decay`` there are two such groups for each layer, whose ``lr_scale`` is
    layer_decay^(layers - layer): 1 behind the backbone, least at its stem (BEiT, Bao et al. 2022;
    0.65 to 0.75 in PAPER.md 1.5). Raises ``ValueError`` if the model has no ``group_matcher``,
    which tells its layers apart.
    """
    if layer_decay is not None:
        if not hasattr(model, "group_matcher"):
            raise ValueError(
                f"layer_decay needs a network with a backbone, and {type(model).__name__} has "
                "none; set it to None"
            )
        return param_groups_layer_decay(model, weight_decay, layer_decay=layer_decay)
    return param_groups_weight_decay(model, weight_decay)


class _Run:
    """The state of a run that a checkpoint holds."""

    def __init__(self, model: nn.Module, config: TrainConfig):
        self.model = model
        self.config = config
        self.step = 0
        groups = parameter_groups(model, config.weight_decay, config.layer_decay)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.average))
            if config.average
            else None
        )

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps

    def finish(self) -> None:
        """Puts the averaged weights into the model and drops what only training needs."""
        if self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        self.average = self.optimizer = None

    def save(self, path: Path) -> None:
        state = {
            "config": json.dumps(asdict(self.config)),
            "step": self.step,
            "model": self.model.state_dict(),
        }
        state |= {name: part.state_dict() for name, part in self._training_parts().items()}

        def write(part: Path) -> None:
            with part.open("wb") as file:  # given a path, torch hides why it cannot write
                torch.save(state, file)

        write_atomically(path, write)

    def _training_parts(self) -> dict[str, Any]:
        return {
            name: part
            for name in ("optimizer", "average")
            if (part := getattr(self, name)) is not None
        }

    def load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            # older checkpoints lack newer settings
            same = TrainConfig(**json.loads(state["config"])) == self.config
            if same:
                self.step = state["step"]
                self.model.load_state_dict(state["model"])
                if self.finished:
                    self.average = self.optimizer = None
                for name, part in self._training_parts().items():
                    part.load_state_dict(state[name])
        except Exception as error:  # torch raises many kinds for a damaged file
            raise CheckpointError(
                f"{path}: this checkpoint cannot be read or does not fit the network; delete it to "
                "start anew"
            ) from error
        if not same:
            raise CheckpointError(
                f"{path}: was made with other settings; delete it to start anew, or choose another "
                "folder"
            )


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
    one would have, step for step. ``watch`` is called each ``watch_every`` steps and at the end.
    With ``NORFACE_TENSORBOARD=1`` in the environment the log also goes to ``<folder>/tensorboard``.
    Raises :class:`CheckpointError` for a checkpoint of other settings, ``FloatingPointError`` for a
    loss that is not finite, :class:`NorfaceError` if tensorboard is asked for and not there, and
    `norface_lib.common.errors.DataError` if another process trains ``name`` in this folder.
    """
    accelerator = new_accelerator()
    first = accelerator.is_main_process
    check_shares(name, min(config.batch_size, len(data)), config.accumulate, accelerator)
    run = _Run(model, config)
    checkpoint = Path(folder) / f"{name}.ckpt" if folder else None
    if checkpoint and checkpoint.exists():
        run.load(checkpoint)
        state = f"goes on from step {run.step}"
        if first:
            print(f"{name}: {'trained already, used as it is' if run.finished else state}")

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
            if first and watched:
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


def _set_rates(run: _Run) -> None:
    """The learning rate of this step, for each layer its share."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate_at(run.step, run.config) * group.get("lr_scale", 1.0)


def _passes(
    run: _Run,
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


def _step(run: _Run) -> None:
    """One step of the optimizer, and of the average of the weights."""
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.clip)
    run.optimizer.step()
    if run.average:
        run.average.update_parameters(run.model)
    run.step += 1


def logged_seconds(log: Path) -> float:
    """Seconds of training by a log, whose clock starts anew each time the training goes on."""
    clock = [0.0, *(json.loads(line)["seconds"] for line in log.read_text().splitlines())]
    return round(sum(now - before if now >= before else now for before, now in pairwise(clock)), 1)
