"""Loss of the synthesis stage of the normalizer's training: each term has its own weight.

The paper's losses are not known (PAPER.md 1.4); these are the ones of its family (PAPER.md 1.5) and
our own. With a true I_n (*paired* faces) the normalized one must look like it. Without (*unpaired*
faces, as the paper has) frozen networks must find the target's identity and the original's
expression in it. A batch may hold both.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from norface_lib.common.sharing import own, total
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import Faces, LazyFaces, to_tensor
from norface_lib.networks.discriminator import Discriminator
from norface_lib.networks.frozen import FrozenNetwork, frozen_network
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig, shrunk
from norface_lib.training.augmentation import camera
from norface_lib.training.image_losses import (
    embedding_distance,
    gradient_l1,
    hinge_discriminator,
    hinge_generator,
    perceptual_loss,
    r1_penalty,
    weighted_l1,
)
from norface_lib.training.loader import to_device
from norface_lib.training.normalizer_terms import SynthesisTerms


@dataclass(frozen=True)
class Sources(Dataset):
    """Faces to learn from, (N, S, S, 3) of 8 bits: rendered pairs, faces without a true I_n, or
    both. An epoch is one of the pairs if there are any. All are of one size; originals are shrunk
    where the network takes smaller ones.

    ``targets`` (K, S, S, 3): the identities to draw. Raises ``ValueError`` if there are no faces,
    or pairs without truths.
    """

    targets: Faces
    pairs: Rendered | None = None
    faces: Faces | None = None

    def __post_init__(self):
        if self.pairs is None and self.faces is None:
            raise ValueError("there must be pairs or faces to learn from")
        if self.pairs is not None and self.pairs.truths is None:
            raise ValueError(
                "training on pairs needs true normalized images, which this label table lacks"
            )

    def __len__(self) -> int:
        return len(self.faces if self.pairs is None else self.pairs)

    @property
    def paired(self) -> int:
        """Number of rows that have a true I_n; those of ``faces`` follow them."""
        return 0 if self.pairs is None else len(self.pairs)

    def __getitem__(self, rows: NDArray[np.intp]) -> "SourceBatch":
        """A batch of rows, those with a true I_n first."""
        pairs = rows[rows < self.paired]
        free = rows[rows >= self.paired] - self.paired

        originals = [] if self.pairs is None else [self.pairs.originals[pairs]]
        if len(free):
            originals.append(self.faces[free])
        if self.pairs is None:
            truths = self.targets[:0]
            which = pairs
        else:
            truths = self.pairs.truths[pairs]
            which = self.pairs.target_of[pairs]
        arrays = (np.concatenate(originals), truths, which, pairs)
        return SourceBatch(*map(torch.as_tensor, arrays))


class SourceBatch(NamedTuple):
    """N faces of `Sources`, of which the first P have a true I_n."""

    originals: Tensor  # (N, S, S, 3) of 8 bits
    truths: Tensor  # (P, S, S, 3) of 8 bits
    which: Tensor  # (P,) number of the target of each
    rows: Tensor  # (P,) of the pairs


class Batch(NamedTuple):
    """N faces as the loss sees them, of which the first P have a true I_n."""

    originals: Tensor  # (N, 3, S, S)
    which: Tensor  # (N,) number of the target of each
    truths: Tensor  # (P, 3, S, S)
    codes: Tensor  # (P, E) standardized AU intensities
    coded: Tensor  # (C, E) plain ones in 0..1 of the first C faces, drawn from these alone


class SynthesisNetwork(nn.Module):
    """The networks that the synthesis stage trains: the normalizer, the head that reads its
    expression embedding, a discriminator if any."""

    def __init__(
        self,
        normalizer: Normalizer,
        head: nn.Linear | None,
        discriminator: Discriminator | None = None,
    ):
        super().__init__()
        self.normalizer = normalizer
        self.head = head
        self.discriminator = discriminator


def plain_codes(pairs: Rendered | None, names: tuple[str, ...]) -> Tensor:
    """AU intensities (N, E) within 0..1 of pairs, in the order of these columns.

    Raises ``ValueError`` if there are no pairs, no names, or a column that the pairs lack.
    """
    if pairs is None or not names:
        raise ValueError("drawing from intensities needs pairs, and a normalizer with codes")
    codes, columns, _ = pairs.expression_codes()
    if missing := sorted(set(names) - set(columns)):
        raise ValueError(f"the pairs have no column {', '.join(missing)}")
    return torch.from_numpy(codes[:, [columns.index(name) for name in names]])


def moving_pixels(truths: Faces, target: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(S, S) in 0..1: how far expressions move each pixel of the true images (N, S, S, 3) from the
    target: root mean square."""
    some = truths[:: max(1, len(truths) // 1000)].astype(np.float32)
    distance = some - target.astype(np.float32)
    distance = np.sqrt(np.square(distance).mean(axis=(0, 3)))
    return distance / max(float(distance.max()), 1e-6)


class SynthesisLoss:
    """The weighted sum of the terms for the faces with some indices, and each of them for the log.

    The log also has ``to_neutral``, the distance to the true I_n relative to the neutral target's,
    and ``unexplained``, the error of AUs relative to knowing the mean: both are 1 for a network
    that has collapsed. ``codes`` (N, E): of the pairs.
    """

    def __init__(
        self,
        sources: Sources,
        codes: Tensor | None,
        terms: SynthesisTerms,
        config: NormalizerConfig,
        device: torch.device,
    ):
        self.sources = sources
        self.codes = codes
        self.terms = terms
        self.size = config.encoder.image_size
        self.device = device
        self.intensities = plain_codes(sources.pairs, config.codes) if terms.code_share else None
        self.targets = to_tensor(sources.targets).to(device)  # (K, 3, S, S)
        self.pixel_weights = self._pixel_weights()  # (K, 1, S, S)
        weights = terms.weights
        self.perceptual = self._frozen(weights.perceptual, terms.perceptual_network)
        self.expression = self._frozen(weights.expression, terms.expression_network)
        self.identity = self._frozen(weights.identity, terms.identity_network)

    def __call__(
        self, model: SynthesisNetwork, source: SourceBatch
    ) -> tuple[Tensor, dict[str, float]]:
        batch = self.batch(source)
        count = len(batch.originals)
        itself = bool(self.terms.weights.self_reconstruction)
        if itself:
            batch = self._with_targets(batch)
        normalized, expression = self._draw(model.normalizer, batch)

        terms = dict(self._paired(model, batch, normalized, expression))
        if itself:
            terms["self_reconstruction"] = weighted_l1(
                normalized[count:], self.targets, self.pixel_weights, self.terms.softness
            )
            if self.perceptual and not len(batch.truths):  # else the truths have that term
                features = self.perceptual.features
                terms["perceptual"] = perceptual_loss(
                    features(normalized[count:]), features(self.targets)
                )
            batch = batch._replace(originals=batch.originals[:count], which=batch.which[:count])
        terms |= dict(self._unpaired(batch, normalized[:count]))
        terms |= dict(self._adversarial(model.discriminator, batch, normalized[:count]))
        weights = asdict(self.terms.weights)
        weights["discriminator"] = weights["adversarial"]
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        figures = {name: value.item() for name, value in terms.items()}
        return total, figures | self._progress(batch, normalized, figures)

    def _with_targets(self, batch: Batch) -> Batch:
        """The batch with the targets as further originals."""
        themselves = shrunk(self.targets, self.size)
        numbers = torch.arange(len(self.targets), device=self.device)
        return batch._replace(
            originals=torch.cat([batch.originals, themselves]),
            which=torch.cat([batch.which, numbers]),
        )

    def _draw(self, normalizer: Normalizer, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """I_n of a batch, the first faces by their intensities alone; and the expression embeddings
        of the others, None if there are none."""
        count = len(batch.coded)
        targets = normalizer.target(self.targets)
        drawn = []
        expression = None
        if count:
            drawn.append(normalizer.draw(batch.coded, targets.of(batch.which[:count])))
        if count < len(batch.originals):
            tokens = normalizer.encoder(batch.originals[count:])
            expression = normalizer.expression(tokens)
            others = targets.of(batch.which[count:])
            drawn.append(normalizer.synthesize(tokens, others, expression))
        return torch.cat(drawn), expression

    def choose(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The rows of a step; where both kinds of faces are mixed, the last of them make room for
        unpaired ones by chance."""
        sources = self.sources
        if sources.pairs is None or sources.faces is None:
            return rows
        unpaired = round(len(rows) * self.terms.unpaired_share)
        if not unpaired:
            return rows
        free = torch.randint(len(sources.faces), (unpaired,), generator=generator)
        return torch.cat([rows[: len(rows) - unpaired], sources.paired + free])

    def batch(self, source: SourceBatch) -> Batch:
        """The faces as cameras might have taken them, with targets by chance for unpaired ones."""
        originals, truths, which, _ = to_device(source, self.device)
        which = torch.cat([which, self._by_chance(len(originals), len(which))])
        codes = torch.empty(0) if self.codes is None else self.codes[source.rows]
        coded = torch.empty(0)
        if self.intensities is not None:
            rows = source.rows[: round(len(source.rows) * self.terms.code_share)]
            coded = self.intensities[rows]
        faces = camera(shrunk(to_tensor(originals), self.size), self.terms.degraded_share)
        truths = to_tensor(truths)
        return Batch(faces, which, truths, codes.to(self.device), coded.to(self.device))

    def _by_chance(self, count: int, paired: int) -> Tensor:
        """Targets of this process's unpaired faces, which follow the ``paired`` ones of its
        ``count``; in the whole batch, too, they come last."""
        unpaired = total(count - paired)
        drawn = torch.randint(len(self.targets), (unpaired,))
        whole = torch.cat([torch.zeros(total(paired), dtype=torch.long), drawn])
        return own(whole)[paired:].to(self.device)

    def _paired(
        self, model: SynthesisNetwork, batch: Batch, normalized: Tensor, expression: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        weights = self.terms.weights
        count = len(batch.truths)
        coded = len(batch.coded)
        if not count:
            return
        normalized = normalized[:count]
        if weights.reconstruction:
            pixels = self.pixel_weights[batch.which[:count]]
            distance = weighted_l1(normalized, batch.truths, pixels, self.terms.softness)
            yield "reconstruction", distance
        if weights.edge:
            yield "edge", gradient_l1(normalized, batch.truths)
        if weights.reading and model.head is not None and coded < count:
            intensities = model.head(expression[: count - coded])
            yield "reading", F.mse_loss(intensities, batch.codes[coded:])
        if self.perceptual:
            features = self.perceptual.features
            yield "perceptual", perceptual_loss(features(normalized), features(batch.truths))

    def _unpaired(self, batch: Batch, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        if self.expression:
            with torch.no_grad():
                expression = self.expression.embed(batch.originals)
            yield "expression", embedding_distance(self.expression.embed(normalized), expression)
        if self.identity:
            with torch.no_grad():
                identity = self.identity.embed(self.targets)[batch.which]
            yield "identity", embedding_distance(self.identity.embed(normalized), identity)

    def _adversarial(
        self, discriminator: nn.Module | None, batch: Batch, normalized: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Both sides of the game in one sum: the normalized face does not move the discriminator's
        weights, nor those the face."""
        if discriminator is None:
            return
        discriminator.requires_grad_(False)
        yield "adversarial", hinge_generator(discriminator(normalized))
        discriminator.requires_grad_(True)
        real = batch.truths if len(batch.truths) else self.targets[batch.which]
        real = real.detach().requires_grad_(bool(self.terms.weights.r1))
        logits = discriminator(real)
        yield "discriminator", hinge_discriminator(logits, discriminator(normalized.detach()))
        if self.terms.weights.r1:
            yield "r1", r1_penalty(logits, real)

    @torch.no_grad()
    def _progress(
        self, batch: Batch, normalized: Tensor, figures: dict[str, float]
    ) -> dict[str, float]:
        ratios = {}
        if count := len(batch.truths):
            neutral = (self.targets[batch.which[:count]] - batch.truths).abs().mean()
            off = (normalized[:count] - batch.truths).abs().mean()
            ratios["to_neutral"] = (off / neutral).item()
        if "reading" in figures:
            ratios["unexplained"] = figures["reading"] / self.codes.square().mean().item()
        return ratios

    def _pixel_weights(self) -> Tensor:
        pairs = self.sources.pairs
        targets = self.sources.targets
        if pairs is None:
            return torch.ones(len(targets), 1, *targets.shape[1:3], device=self.device)
        moving = []
        for number, target in enumerate(targets):
            rows = np.flatnonzero(pairs.target_of == number)
            moving.append(moving_pixels(LazyFaces([pairs.truths], rows), target))
        moving = torch.from_numpy(np.stack(moving)).to(self.device)[:, None]
        return 1 + self.terms.moving_weight * moving

    def _frozen(self, weight: float, spec: str) -> FrozenNetwork | None:
        return frozen_network(spec).to(self.device) if weight else None
