"""Training the normalizer: expression first, then drawing from intensities alone if it can, then
synthesis, then, if wanted, fine-tuning on other faces.

Trained by reconstruction alone from scratch, networks of 112 px fell into the constant target,
whatever the encoder could see (small ones of 48 px did not: docs/measurements.md). So the encoder
first learns to read AU intensities from originals; then merging module and decoder learn to
synthesize, while it goes on reading as an expression term. Our choice: the paper starts from a
masked autoencoder of millions of faces (PAPER.md 1.2), which `norface_lib.networks.masked` and
`norface_lib.networks.pretrained` give.
"""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib.common import chance
from norface_lib.common.devices import device_of
from norface_lib.common.errors import DataError
from norface_lib.datasets.pairs import ArrayDataset
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import Faces, LazyFaces, to_tensor
from norface_lib.networks.discriminator import Discriminator
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig, shrunk
from norface_lib.training.augmentation import camera, mirrored
from norface_lib.training.loader import to_device
from norface_lib.training.loop import Loss, TrainConfig, Watch, fit
from norface_lib.training.masked import masked_pretraining
from norface_lib.training.normalizer_losses import Sources, SynthesisLoss, SynthesisNetwork
from norface_lib.training.normalizer_terms import SynthesisTerms

MASKED = TrainConfig(steps=1000, batch_size=64, learning_rate=1.5e-3)
_EXPRESSION = TrainConfig(steps=2000, batch_size=48, learning_rate=1.5e-3)
_DRAWING = TrainConfig(steps=400, batch_size=24, learning_rate=2e-3)
_SYNTHESIS = TrainConfig(steps=3500, batch_size=24, learning_rate=8e-4)


@dataclass(frozen=True, kw_only=True)
class NormalizerTraining:
    """The stages, and the terms of the last one."""

    masked: TrainConfig | None = None  # masked autoencoding of the encoder before all else
    expression: TrainConfig | None = _EXPRESSION  # None: the network can read expressions already
    # merging module and decoder alone, from intensities, by a network that has codes
    drawing: TrainConfig | None = None
    synthesis: TrainConfig = _SYNTHESIS
    terms: SynthesisTerms = field(default_factory=SynthesisTerms)
    # of the faces in the expression stage that are true I_n: the classifier reads those too
    truth_share: float = 0.2
    # the encoder stays as it was begun with, as one that a token reader has trained
    frozen_encoder: bool = False

    @classmethod
    def of_steps(
        cls,
        expression: int,
        synthesis: int,
        seed: int = 0,
        masked: int = 0,
        drawing: int = 0,
        batch_size: int | None = None,
        **others: Any,
    ) -> "NormalizerTraining":
        """The default recipe with other lengths, a stage of 0 steps left out, and another
        ``batch_size`` of all stages if one is given; a short run is logged more often."""

        if synthesis < 1:
            raise ValueError("the synthesis stage needs at least one step")

        def stage(config: TrainConfig, steps: int) -> TrainConfig | None:
            if not steps:
                return None
            return replace(
                config.of_length(steps, seed),
                batch_size=batch_size or config.batch_size,
                watch_every=max(1, min(250, steps // 4)),
            )

        return cls(
            masked=stage(MASKED, masked),
            expression=stage(_EXPRESSION, expression),
            drawing=stage(_DRAWING, drawing),
            synthesis=stage(_SYNTHESIS, synthesis),
            **others,
        )

    @property
    def stages(self) -> dict[str, TrainConfig]:
        """The stages by name, in their order."""
        stages = {
            "masked": self.masked,
            "expression": self.expression,
            "drawing": self.drawing,
            "synthesis": self.synthesis,
        }
        return {name: config for name, config in stages.items() if config}


class ExpressionReader(nn.Module):
    """Encoder and expression embedding of a normalizer with a linear head: images (N, 3, S, S) to
    standardized AUs (N, E)."""

    def __init__(self, normalizer: Normalizer, codes: int):
        super().__init__()
        self.encoder = normalizer.encoder
        self.expression = normalizer.expression
        self.head = nn.Linear(normalizer.config.encoder.dim, codes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.expression(self.encoder(images)))


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
    *,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
    start: Normalizer | None = None,
    faces: Faces | None = None,
    watch: Watch | None = None,
) -> Normalizer:
    """Trains a normalizer for the targets of ``data``, which must hold the true images. Resumable
    with a ``folder``.

    ``start``: begin with a copy of its weights, to fine-tune it on other data or other targets. The
    faces of ``data`` are as large as I_n, (N, T, T, 3). ``faces`` (M, T, T, 3): more faces, without
    a true I_n, for masked autoencoding and for the terms that need none.
    """
    sources = Sources(data.targets, data, faces)
    torch_device = device_of(device)
    torch.manual_seed(training.synthesis.seed)
    normalizer = Normalizer(config).to(torch_device, memory_format=torch.channels_last)
    if start is not None:
        normalizer.load_state_dict(start.state_dict())
    if config.references:
        pictures = references_of(data, config.references)
        normalizer.decoder.remember(torch.stack([to_tensor(of_one) for of_one in pictures]))

    if training.masked:
        every = [data.originals] if faces is None else [data.originals, faces]
        masked_pretraining(
            normalizer.encoder,
            LazyFaces(every),
            training.masked,
            folder=folder,
            device=device,
            progress=progress,
        )

    normalizer.encoder.requires_grad_(not training.frozen_encoder)
    codes, mirror = standardized_codes(data)
    reader = ExpressionReader(normalizer, codes.shape[1]).to(torch_device)
    if training.expression:
        loss = _expression_loss(codes, mirror, training, config.encoder.image_size, torch_device)
        pairs = ArrayDataset(data.originals, data.truths, codes)
        fit(
            reader,
            loss,
            pairs,
            training.expression,
            folder=folder,
            name="expression",
            progress=progress,
        )

    if training.drawing:
        _train_drawing(
            normalizer,
            sources,
            training,
            codes=codes,
            folder=folder,
            progress=progress,
            watch=watch,
        )
    return _train_synthesis(
        normalizer,
        sources,
        training,
        head=reader.head,
        codes=codes,
        folder=folder,
        progress=progress,
        watch=watch,
    )


def references_of(data: Rendered, count: int) -> Faces:
    """Reference pictures (K, count, T, T, 3) of the targets of ``data``, of which the first is the
    target's picture there; see `norface_lib.faces.studio.REFERENCES`.

    Raises :class:`DataError` if the data holds other pictures of them than are rendered here, and
    `norface_lib.common.errors.MissingExtraError` without the extra ``render``.
    """
    size = data.targets.shape[1]
    pictures = np.stack([Studio(size, name).references(count) for name in data.names])
    off = np.abs(pictures[:, 0].astype(np.int16) - data.targets).mean(axis=(1, 2, 3))
    if (off > 3).any():  # of 255: faces that were shrunk differ by one from rendered ones
        name = data.names[int(off.argmax())]
        raise DataError(
            f"{data.root}: its picture of the target {name} is not what this version renders, so "
            "its references would not fit; render the data anew"
        )
    pictures[:, 0] = data.targets
    return pictures


def fine_tune(
    start: Normalizer,
    sources: Sources,
    training: NormalizerTraining,
    *,
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
    return _train_synthesis(
        normalizer,
        sources,
        training,
        head=head,
        codes=codes,
        folder=folder,
        progress=progress,
        watch=watch,
    )


def _train_synthesis(
    normalizer: Normalizer,
    sources: Sources,
    training: NormalizerTraining,
    *,
    head: nn.Linear | None,
    codes: Tensor | None,
    folder: Path | None,
    progress: bool,
    watch: Watch | None,
) -> Normalizer:
    device = next(normalizer.parameters()).device
    discriminator = Discriminator().to(device) if training.terms.weights.adversarial else None
    network = SynthesisNetwork(normalizer, head, discriminator)
    loss = SynthesisLoss(sources, codes, training.terms, normalizer.config, device)
    fit(
        network,
        loss,
        sources,
        training.synthesis,
        folder=folder,
        name="synthesis",
        progress=progress,
        watch=watch,
        choose=loss.choose,
    )
    return normalizer.requires_grad_(True).eval()


def _train_drawing(
    normalizer: Normalizer,
    sources: Sources,
    training: NormalizerTraining,
    *,
    codes: Tensor,
    folder: Path | None,
    progress: bool,
    watch: Watch | None,
) -> None:
    """Merging module and decoder learn to draw intensities; the encoder, which sees nothing but the
    targets here, stays as it is."""
    device = next(normalizer.parameters()).device
    learns = next(normalizer.encoder.parameters()).requires_grad
    normalizer.encoder.requires_grad_(False)
    terms = replace(training.terms, code_share=1.0)
    loss = SynthesisLoss(sources, codes, terms, normalizer.config, device)
    fit(
        SynthesisNetwork(normalizer, None),
        loss,
        Sources(sources.targets, sources.pairs),
        training.drawing,
        folder=folder,
        name="drawing",
        progress=progress,
        watch=watch,
    )
    normalizer.encoder.requires_grad_(learns)


def _expression_loss(
    codes: Tensor,
    mirror: NDArray[np.intp],
    training: NormalizerTraining,
    size: int,
    device: torch.device,
) -> Loss:
    """Mean squared error of the standardized intensities; half of the faces are mirrored, and their
    sides with them."""
    constant = codes.square().mean().item()  # the error of the mean intensities

    def loss(reader: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        originals, truths, codes = to_device(batch, device)
        true = (chance.rand(len(codes)) < training.truth_share).to(device)
        faces = torch.where(true[:, None, None, None], truths, originals)
        images = camera(shrunk(to_tensor(faces), size), training.terms.degraded_share)

        flip = (chance.rand(len(codes)) < 0.5).to(device)
        target = torch.where(flip[:, None], codes[:, mirror], codes)
        error = F.mse_loss(reader(mirrored(images, flip)), target)
        return error, {"unexplained": error.item() / constant}

    return loss
