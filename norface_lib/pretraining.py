"""Training the normalizer on pairs of originals and true normalized images: expression first, then drawing.

Trained by reconstruction alone from scratch, the network falls into the constant target, whatever the encoder could see. So the
encoder first learns to read AU intensities from originals; then merging module and decoder learn to draw, while it goes
on reading as an expression term. Our choice: the paper starts from a masked autoencoder of millions of faces (PAPER.md 1.2).
"""

import json
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib.augment import mirrored, photometric
from norface_lib.checkpoints import load_normalizer, save_normalizer
from norface_lib.datasets.rendered import Rendered, load_rendered
from norface_lib.errors import DataError
from norface_lib.evaluation import neutral_ratio, normalize_faces, region_ratios, versions
from norface_lib.faces.benchmark import BenchmarkSpec, write_benchmark
from norface_lib.images import to_tensor
from norface_lib.losses import gradient_l1, weighted_l1
from norface_lib.normalizer import PRESETS, Normalizer, NormalizerConfig
from norface_lib.training import TrainConfig, device_of, fit

_EXPRESSION = TrainConfig(steps=900, batch_size=64, learning_rate=1.5e-3)
_DRAWING = TrainConfig(steps=1200, batch_size=32, learning_rate=8e-4)


@dataclass(frozen=True)
class NormalizerTraining:
    """The two stages and the weights of their terms."""

    expression: TrainConfig = _EXPRESSION
    drawing: TrainConfig = _DRAWING
    moving_weight: float = 6.0  # how much more the pixels count that expressions move most
    softness: float = 0.05  # differences below this count squared
    edge_weight: float = 1.0  # of the gradient term
    truth_share: float = 0.2  # of the faces in the first stage that are true normalized ones: the classifier reads those too
    expression_weight: float = 0.2  # of the expression term while drawing

    @classmethod
    def of_steps(cls, expression: int, drawing: int, seed: int = 0) -> "NormalizerTraining":
        """The default recipe with other lengths; a short run is logged more often."""

        def stage(config: TrainConfig, steps: int) -> TrainConfig:
            return replace(config, steps=steps, seed=seed, log_every=max(1, min(20, steps // 12)))

        return cls(stage(_EXPRESSION, expression), stage(_DRAWING, drawing))


class ExpressionReader(nn.Module):
    """Encoder and expression embedding of a normalizer with a linear head: images (N, 3, S, S) to standardized AUs (N, E)."""

    def __init__(self, normalizer: Normalizer, codes: int):
        super().__init__()
        self.encoder, self.expression = normalizer.encoder, normalizer.expression
        self.head = nn.Linear(normalizer.config.encoder.dim, codes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.expression(self.encoder(images)))


class _Drawing(nn.Module):
    """What the second stage trains: the normalizer, and the head that goes on reading its expression embedding."""

    def __init__(self, normalizer: Normalizer, head: nn.Linear):
        super().__init__()
        self.normalizer, self.head = normalizer, head


def moving_pixels(truths: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(S, S) in 0..1: how far expressions move each pixel of the true images (N, S, S, 3) from the target: root mean square."""
    some = truths[:: max(1, len(truths) // 1000)].astype(np.float32)
    distance = np.sqrt(np.square(some - target.astype(np.float32)).mean(axis=(0, 3)))
    return distance / max(float(distance.max()), 1e-6)


def train_normalizer(
    data: Rendered,
    config: NormalizerConfig,
    training: NormalizerTraining,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
    start: Normalizer | None = None,
) -> Normalizer:
    """Trains a normalizer for the target of ``data``, which must hold the true images. Resumable with a ``folder``.

    ``start``: begin with a copy of its weights, to fine-tune it on other data or another target.
    """
    if data.truths is None:
        raise ValueError("training on pairs needs the true normalized images: load_rendered(..., truth=True)")
    where = device_of(device)
    torch.manual_seed(training.expression.seed)
    codes, _, mirror = data.expression_codes()
    spread = codes.std(0) + 0.05  # a rare AU should not shout
    codes = torch.from_numpy((codes - codes.mean(0)) / spread)
    normalizer = Normalizer(config).to(where, memory_format=torch.channels_last)
    if start is not None:
        normalizer.load_state_dict(start.state_dict())
    reader = ExpressionReader(normalizer, codes.shape[1]).to(where)
    fit(
        reader,
        _expression_loss(data, codes, mirror, training, where),
        len(data),
        training.expression,
        folder,
        "expression",
        progress,
    )
    both = _Drawing(normalizer, reader.head)
    fit(both, _drawing_loss(data, codes, training, where), len(data), training.drawing, folder, "drawing", progress)
    return normalizer.eval()


def _expression_loss(
    data: Rendered, codes: Tensor, mirror: NDArray[np.intp], training: NormalizerTraining, where: torch.device
):
    """Mean squared error of the standardized intensities; half of the faces are mirrored, and their sides with them."""
    nothing = codes.square().mean().item()  # the error of one who knows the mean intensities alone

    def loss(reader: nn.Module, indices: Tensor) -> tuple[Tensor, dict[str, float]]:
        true = torch.rand(len(indices)).numpy() < training.truth_share
        rows = indices.numpy()
        faces = np.where(true[:, None, None, None], data.truths[rows], data.originals[rows])
        images = photometric(to_tensor(faces).to(where))
        flip = torch.rand(len(indices)) < 0.5
        wanted = torch.where(flip[:, None], codes[indices][:, mirror], codes[indices]).to(where)
        error = F.mse_loss(reader(mirrored(images, flip.to(where))), wanted)
        return error, {"unexplained": error.item() / nothing}

    return loss


def _drawing_loss(data: Rendered, codes: Tensor, training: NormalizerTraining, where: torch.device):
    """Weighted L1 and gradient L1 to the true I_n, and the expression term. Logs the distance relative to the bare target's."""
    target = to_tensor(data.target).to(where)
    nothing = codes.square().mean().item()
    weight = 1 + training.moving_weight * torch.from_numpy(moving_pixels(data.truths, data.target)).to(where)[None, None]

    def loss(model: nn.Module, indices: Tensor) -> tuple[Tensor, dict[str, float]]:
        rows = indices.numpy()
        original = photometric(to_tensor(data.originals[rows]).to(where))
        truth = to_tensor(data.truths[rows]).to(where)
        tokens = model.normalizer.encoder(original)
        expression = model.normalizer.expression(tokens)
        drawn = model.normalizer.draw(tokens, model.normalizer.encoder(target), target, expression)
        near, edges = weighted_l1(drawn, truth, weight, training.softness), gradient_l1(drawn, truth)
        read = F.mse_loss(model.head(expression), codes[indices].to(where))
        total = near + training.edge_weight * edges + training.expression_weight * read
        ratio = (drawn.detach() - truth).abs().mean() / (target - truth).abs().mean()
        return total, {"l1": near.item(), "to_neutral": ratio.item(), "unexplained": read.item() / nothing}

    return loss


def train_and_save(
    data: Path,
    out: Path,
    preset: str,
    expression_steps: int,
    drawing_steps: int,
    seed: int = 0,
    device: str = "auto",
    start: str | None = None,
) -> Path:
    """The whole recipe: trains a preset on a rendered pool, measures it on other pools, writes weights and card.

    ``start``: name or path of weights of the same preset to begin with.
    """
    if preset not in PRESETS:
        raise DataError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    training = NormalizerTraining.of_steps(expression_steps, drawing_steps, seed)
    first, _, first_card = load_normalizer(start) if start else (None, None, {})
    model = train_normalizer(load_rendered(data), PRESETS[preset], training, out, device, start=first)
    seconds = {stage: _logged_seconds(Path(out) / f"{stage}.jsonl") for stage in ("expression", "drawing")}
    card = {
        "data": json.loads((Path(data) / "benchmark.json").read_text()),
        "start": {"weights": start, "sha256": first_card.get("sha256"), "data": first_card.get("data")} if start else None,
        "training": asdict(training) | {"seconds": seconds, "device": str(device_of(device))},
        "measured": measure(model.cpu(), Path(out) / "held-out"),
        "license": "MIT; the target face is rendered from CC0 assets and is nobody",
        "versions": versions(),
    }
    return save_normalizer(model, Path(data) / "target.png", Path(out) / f"{preset}.safetensors", card)


def _logged_seconds(log: Path) -> int:
    """Seconds of training by a log, whose clock starts anew each time the training goes on."""
    clock = [0.0, *(json.loads(line)["seconds"] for line in log.read_text().splitlines())]
    return round(sum(now - before if now >= before else now for before, now in pairwise(clock)))


def measure(model: Normalizer, folder: Path, subjects: int = 60, frames: int = 4) -> dict[str, Any]:
    """Distance to the true I_n on rendered subjects of both domains, relative to the bare target's, and by region."""
    size, found = model.config.encoder.image_size, {}
    for pool in ("lab", "wild"):
        spec = BenchmarkSpec(pool, subjects, frames, size)
        held_out = load_rendered(write_benchmark(spec, Path(folder) / pool), progress=False)
        drawn = normalize_faces(model, to_tensor(held_out.target), held_out.originals)
        found[pool] = {"subjects": subjects, "faces": len(held_out)}
        found[pool]["distance_ratio"] = neutral_ratio(held_out.truths, drawn, held_out.target)
        found[pool] |= {f"{k}_ratio": v for k, v in region_ratios(held_out.truths, drawn, held_out.target).items()}
    return found
