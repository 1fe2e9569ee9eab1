"""Training the normalizer: expression first, then synthesis, then, if wanted, fine-tuning on other
faces.

Trained by reconstruction alone from scratch, the network falls into the constant target, whatever
the encoder could see. So the encoder first learns to read AU intensities from originals; then
merging module and decoder learn to draw, while it goes on reading as an expression term. Our
choice: the paper starts from a masked autoencoder of millions of faces (PAPER.md 1.2), which
`norface_lib.networks.masked` and `norface_lib.networks.pretrained` give.
"""

import copy
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib.common.devices import device_of
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.common.records import versions
from norface_lib.datasets.pairs import ArrayDataset
from norface_lib.datasets.rendered import Rendered, load_rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import Faces, LazyFaces, to_tensor
from norface_lib.images.crop import crop_of
from norface_lib.images.distances import neutral_ratio, region_ratios
from norface_lib.images.files import list_images, read_faces, write_png
from norface_lib.images.sheets import contact_sheet
from norface_lib.networks.discriminator import Discriminator
from norface_lib.networks.evaluator import Evaluator
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import PRESETS, Normalizer, NormalizerConfig
from norface_lib.networks.pretrained import load_encoder_weights
from norface_lib.networks.weights import (
    find_weights,
    load_evaluator,
    load_normalizer,
    save_normalizer,
)
from norface_lib.training.augmentation import camera, mirrored
from norface_lib.training.loader import to_device
from norface_lib.training.loop import Loss, TrainConfig, fit, logged_seconds
from norface_lib.training.masked import masked_pretraining
from norface_lib.training.normalizer_losses import (
    Sources,
    SynthesisLoss,
    SynthesisNetwork,
    SynthesisTerms,
)

_MASKED = TrainConfig(steps=1000, batch_size=64, learning_rate=1.5e-3)
_EXPRESSION = TrainConfig(steps=2000, batch_size=48, learning_rate=1.5e-3)
_SYNTHESIS = TrainConfig(steps=3500, batch_size=24, learning_rate=8e-4)


@dataclass(frozen=True)
class NormalizerTraining:
    """The stages, and the terms of the last one."""

    masked: TrainConfig | None = None  # masked autoencoding of the encoder before all else
    expression: TrainConfig | None = _EXPRESSION  # None: the network can read expressions already
    synthesis: TrainConfig = _SYNTHESIS
    terms: SynthesisTerms = field(default_factory=SynthesisTerms)
    # of the faces in the expression stage that are true I_n: the classifier reads those too
    truth_share: float = 0.2

    @classmethod
    def of_steps(
        cls, expression: int, synthesis: int, seed: int = 0, masked: int = 0, **others: Any
    ) -> "NormalizerTraining":
        """The default recipe with other lengths, a stage of 0 steps left out; a short run is logged
        more often."""

        if synthesis < 1:
            raise ValueError("the synthesis stage needs at least one step")

        def stage(config: TrainConfig, steps: int) -> TrainConfig | None:
            often = {
                "log_every": max(1, min(20, steps // 12)),
                "watch_every": max(1, min(250, steps // 4)),
            }
            return replace(config, steps=steps, seed=seed, **often) if steps else None

        return cls(
            stage(_MASKED, masked),
            stage(_EXPRESSION, expression),
            stage(_SYNTHESIS, synthesis),
            **others,
        )

    @property
    def stages(self) -> dict[str, TrainConfig]:
        """The stages by name, in their order."""
        found = {"masked": self.masked, "expression": self.expression, "synthesis": self.synthesis}
        return {name: config for name, config in found.items() if config}


class ExpressionReader(nn.Module):
    """Encoder and expression embedding of a normalizer with a linear head: images (N, 3, S, S) to
    standardized AUs (N, E)."""

    def __init__(self, normalizer: Normalizer, codes: int):
        super().__init__()
        self.encoder, self.expression = normalizer.encoder, normalizer.expression
        self.head = nn.Linear(normalizer.config.encoder.dim, codes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.expression(self.encoder(images)))


class Watch:
    """Checks a normalizer in training on faces of people it does not learn from, (N, S, S, 3) with
    their true I_n.

    Writes a sheet of originals, normalized and true faces for each check into ``folder``, and
    returns the distance relative to the neutral target's and, with an evaluator, its mean absolute
    AU error on I_n, on the true I_n (the ceiling) and on the neutral target (where a network stays
    that has collapsed).
    """

    def __init__(self, faces: Rendered, folder: Path, evaluator: Evaluator | None):
        self.faces, self.folder, self.evaluator = faces, folder, evaluator
        self.targets = to_tensor(faces.targets)
        neutral = faces.targets[faces.target_of]
        self.bounds = (
            {
                "au_error_truth": self._au_error(faces.truths),
                "au_error_target": self._au_error(neutral),
            }
            if evaluator
            else {}
        )

    def __call__(self, model: SynthesisNetwork, step: int) -> dict[str, float]:
        faces = self.faces
        drawn = normalize_faces(
            model.normalizer, self.targets, faces.originals, which=faces.target_of
        )
        shown = [rows[:12] for rows in (faces.originals, drawn, faces.truths)]
        write_png(self.folder / f"{step:06d}.png", contact_sheet(shown))
        off = np.abs(drawn.astype(np.int16) - faces.truths).mean()
        neutral = np.abs(faces.targets[faces.target_of].astype(np.int16) - faces.truths).mean()
        found = {"held_out_to_neutral": float(off / neutral)}
        return found | ({"au_error": self._au_error(drawn)} | self.bounds if self.evaluator else {})

    @torch.inference_mode()
    def _au_error(self, faces: Faces) -> float:
        read = torch.cat(
            [
                self.evaluator(to_tensor(part)).intensity
                for part in np.array_split(faces, max(1, len(faces) // 64))
            ]
        )
        return float(
            np.abs(read.numpy() - self.faces.intensities(self.evaluator.config.aus)).mean()
        )


def standardized_codes(data: Rendered) -> tuple[Tensor, NDArray[np.intp]]:
    """AU intensities (N, E) less their mean, over their spread, and the column order (E,) of a
    mirrored face."""
    codes, _, mirror = data.expression_codes()
    spread = codes.std(0) + 0.05  # a rare AU should not dominate
    return torch.from_numpy((codes - codes.mean(0)) / spread), mirror


def train_normalizer(
    data: Rendered,
    config: NormalizerConfig,
    training: NormalizerTraining,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
    start: Normalizer | None = None,
    faces: Faces | None = None,
    watch: Watch | None = None,
) -> Normalizer:
    """Trains a normalizer for the targets of ``data``, which must hold the true images. Resumable
    with a ``folder``.

    ``start``: begin with a copy of its weights, to fine-tune it on other data or other targets.
    ``faces`` (M, S, S, 3): more faces, without a true I_n, for masked autoencoding and for the
    terms that need none.
    """
    sources = Sources(data.targets, data, faces)
    torch_device = device_of(device)
    torch.manual_seed(training.synthesis.seed)
    normalizer = Normalizer(config).to(torch_device, memory_format=torch.channels_last)
    if start is not None:
        normalizer.load_state_dict(start.state_dict())

    if training.masked:
        every = [data.originals] if faces is None else [data.originals, faces]
        masked_pretraining(
            normalizer.encoder, LazyFaces(every), training.masked, folder, device, progress
        )

    codes, mirror = standardized_codes(data)
    reader = ExpressionReader(normalizer, codes.shape[1]).to(torch_device)
    if training.expression:
        loss = _expression_loss(codes, mirror, training, torch_device)
        pairs = ArrayDataset(data.originals, data.truths, codes)
        fit(reader, loss, pairs, training.expression, folder, "expression", progress)

    return _train_synthesis(
        normalizer, sources, training, reader.head, codes, folder, progress, watch
    )


def fine_tune(
    start: Normalizer,
    sources: Sources,
    training: NormalizerTraining,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
    watch: Watch | None = None,
) -> Normalizer:
    """A copy of a normalizer, trained on by the synthesis stage alone: on pairs, on faces without a
    true I_n, or on both."""
    device = device_of(device)
    torch.manual_seed(training.synthesis.seed)
    normalizer = copy.deepcopy(start).to(device, memory_format=torch.channels_last)
    head = None
    codes = None
    if sources.pairs is not None:
        codes, _ = standardized_codes(sources.pairs)
        head = nn.Linear(normalizer.config.encoder.dim, codes.shape[1]).to(device)
    return _train_synthesis(normalizer, sources, training, head, codes, folder, progress, watch)


def _train_synthesis(
    normalizer: Normalizer,
    sources: Sources,
    training: NormalizerTraining,
    head: nn.Linear | None,
    codes: Tensor | None,
    folder: Path | None,
    progress: bool,
    watch: Watch | None,
) -> Normalizer:
    device = next(normalizer.parameters()).device
    discriminator = Discriminator().to(device) if training.terms.weights.adversarial else None
    network = SynthesisNetwork(normalizer, head, discriminator)
    loss = SynthesisLoss(sources, codes, training.terms, device)
    fit(
        network,
        loss,
        sources,
        training.synthesis,
        folder,
        "synthesis",
        progress,
        watch,
        choose=loss.choose,
    )
    return normalizer.eval()


def _expression_loss(
    codes: Tensor, mirror: NDArray[np.intp], training: NormalizerTraining, device: torch.device
) -> Loss:
    """Mean squared error of the standardized intensities; half of the faces are mirrored, and their
    sides with them."""
    constant = codes.square().mean().item()  # the error of the mean intensities

    def loss(reader: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        originals, truths, codes = to_device(batch, device)
        true = (torch.rand(len(codes)) < training.truth_share).to(device)
        faces = torch.where(true[:, None, None, None], truths, originals)
        images = camera(to_tensor(faces), training.terms.degraded_share)

        flip = (torch.rand(len(codes)) < 0.5).to(device)
        target = torch.where(flip[:, None], codes[:, mirror], codes)
        error = F.mse_loss(reader(mirrored(images, flip)), target)
        return error, {"unexplained": error.item() / constant}

    return loss


def train_and_save(
    data: Path,
    out: Path,
    preset: str,
    training: NormalizerTraining,
    device: str = "auto",
    start: str | None = None,
    encoder: str | None = None,
    faces: Path | None = None,
    name: str | None = None,
) -> Path:
    """The whole recipe: trains a preset on a rendered pool, measures it on other pools, writes
    weights and card.

    ``start``: name or path of weights of the same preset to begin with; ``encoder``: weights of a
    ViT for the encoder, as `norface_lib.networks.pretrained.load_encoder_weights` takes them;
    ``faces``: a folder of aligned faces without a true I_n; ``name`` of the weights: default, that
    of the preset.
    """
    if preset not in PRESETS:
        raise DataError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    config, out, pairs = PRESETS[preset], Path(out), load_rendered(data)
    first, card = _beginning(config, start, encoder)
    size = config.encoder.image_size
    more = None if faces is None else read_faces(list_images(faces), size, crop_of(faces))
    watch = _watch(json.loads((Path(data) / "benchmark.json").read_text()), out)
    model = train_normalizer(
        pairs, config, training, out, device, start=first, faces=more, watch=watch
    )
    seconds = {stage: logged_seconds(out / f"{stage}.jsonl") for stage in training.stages}
    card |= {
        "data": json.loads((Path(data) / "benchmark.json").read_text())
        | {"pairs": len(pairs), "faces": 0 if more is None else len(more)},
        "training": asdict(training) | {"seconds": seconds, "device": str(device_of(device))},
        "measured": measure(model.cpu(), out / "held-out", target=pairs.names[0]),
        "license": "MIT; the target face is rendered from CC0 assets and is nobody",
        "versions": versions(),
    }
    return save_normalizer(
        model, Path(data) / "target.png", out / f"{name or preset}.safetensors", card
    )


def _beginning(
    config: NormalizerConfig, start: str | None, encoder: str | None
) -> tuple[Normalizer | None, dict[str, Any]]:
    """The network to begin with, if not random, and what the card says of it."""
    card: dict[str, Any] = {"start": None}
    if start and encoder:
        raise DataError("weights to begin with and weights of the encoder exclude each other")
    if start:
        model, _, first = load_normalizer(start)
        if model.config != config:
            raise DataError(f"{start}: weights of another preset cannot be begun with")
        # all that it ever learned of
        lineage = {name: first.get(name) for name in ("sha256", "start", "data", "training")}
        return model, {"start": {"weights": Path(start).stem} | lineage}
    if encoder:
        model = Normalizer(config)
        report = load_encoder_weights(model.encoder, encoder)
        source = encoder if encoder.startswith("timm:") else Path(encoder).name
        return model, {"start": {"encoder": asdict(report) | {"source": source}}}
    return None, card


def _watch(spec: dict[str, Any], out: Path) -> Watch:
    """Faces of people like those of the training pool, but of another seed, and the evaluator if
    its weights are at hand."""
    watched = BenchmarkSpec(
        pool=spec["pool"],
        subjects=16,
        frames=4,
        size=spec["size"],
        seed=spec["seed"] + 1_000_000,
        target=spec["target"],
    )
    try:
        evaluator = load_evaluator()[0] if find_weights("evaluator") else None
    except CheckpointError as error:
        print(f"the log will hold no AU errors: {error}")
        evaluator = None
    return Watch(
        load_rendered(write_benchmark(watched, out / "watched"), progress=False),
        out / "samples",
        evaluator,
    )


def measure(
    model: Normalizer, folder: Path, subjects: int = 60, frames: int = 4, target: str = "noor"
) -> dict[str, Any]:
    """Distance to the true I_n on rendered subjects of both domains, relative to the neutral
    target's, and by region."""
    size, found = model.config.encoder.image_size, {}
    for pool in ("lab", "wild"):
        spec = BenchmarkSpec(pool=pool, subjects=subjects, frames=frames, size=size, target=target)
        held_out = load_rendered(write_benchmark(spec, Path(folder) / pool), progress=False)
        drawn = normalize_faces(model, to_tensor(held_out.target), held_out.originals)
        found[pool] = {"subjects": subjects, "faces": len(held_out)}
        found[pool]["distance_ratio"] = neutral_ratio(held_out.truths, drawn, held_out.target)
        found[pool] |= {
            f"{k}_ratio": v
            for k, v in region_ratios(held_out.truths, drawn, held_out.target).items()
        }
    return found
