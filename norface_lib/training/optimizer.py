"""Settings of a training, the rate of each step, and the weights that learn alike."""

import math
from dataclasses import dataclass, replace

from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn


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

    def of_length(self, steps: int, seed: int) -> "TrainConfig":
        """The same settings for another number of steps; a short run is logged more often."""
        return replace(self, steps=steps, seed=seed, log_every=max(1, min(20, steps // 12)))

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
    angle = math.pi * (step - warmup) / max(1, config.steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(angle))


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
