"""Training the token reader on rendered faces, whose AUs are known exactly, and on photographs,
whose AUs a teacher names and whose emotions people do.

Each AU of a source has a weight: how far its labels there can be relied on. Emotions are learned
from shares of votes, with each source's own base rates added to the logits (Menon et al. 2021), so
that what the reader says does not follow how often somebody smiles in the press.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib import labels
from norface_lib.common import chance
from norface_lib.common.devices import device_of
from norface_lib.datasets.label_table import emotion_shares, read_spec, side_codes
from norface_lib.datasets.pairs import ArrayDataset
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import Faces, LazyFaces, to_tensor
from norface_lib.networks.token_reader import Reading, TokenReader, TokenReaderConfig
from norface_lib.training.augmentation import camera, jitter, mirrored
from norface_lib.training.loader import balanced, to_device
from norface_lib.training.loop import Loss, TrainConfig, Watch, fit

_FIT = TrainConfig(steps=5000, batch_size=48, learning_rate=8e-4, average=0.995)


@dataclass(frozen=True, kw_only=True)
class ReaderTraining:
    """Length and rates of a token reader's training, and the weights of its terms (our choice)."""

    fit: TrainConfig = _FIT
    truth_share: float = 0.15  # of rendered faces that are true I_n: it must read those as well
    degraded_share: float = 0.5  # of all faces that are degraded as poor photographs are
    # of photographs, by the square root of how rare their emotion is among them
    rare_emotions: float = 0.5
    intensity_weight: float = 1.0  # of the error of intensities, relative to their spread
    # of the error of left minus right, relative to its own spread, which is far smaller
    difference_weight: float = 0.3
    occurrence_weight: float = 0.5  # of the cross entropy of occurrences
    emotion_weight: float = 0.5  # of the cross entropy of emotions of photographs
    rendered_emotion_weight: float = 0.1  # the same of rendered faces, which show prototypes

    @classmethod
    def of_steps(cls, steps: int, seed: int = 0) -> "ReaderTraining":
        """The default recipe of another length."""
        return cls(fit=_FIT.of_length(steps, seed))


@dataclass(frozen=True)
class ReaderSource:
    """N faces of one source with their labels.

    ``sides`` (N, A, 2) in 0..5 and their ``reliability`` (A,) in 0..1; ``votes`` (N, E) are shares
    of people who see an emotion, of sum 1, or 0 where nobody was asked. ``truths``: the true I_n of
    rendered faces. ``share``: of a batch.
    """

    name: str
    images: Faces
    sides: NDArray[np.float32]
    reliability: NDArray[np.float32]
    votes: NDArray[np.float32]
    truths: Faces | None = None
    share: float = 1.0
    spec: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, root: Path, config: TokenReaderConfig, share: float) -> "ReaderSource":
        """The faces of a benchmark: rendered, or pseudo-pairs of photographs, whose
        ``benchmark.json`` names the ``reliability`` of each AU."""
        data = Rendered(root, aus=config.aus, progress=True)
        spec = read_spec(root)
        known = spec.get("reliability")
        reliability = [1.0 if known is None else known[labels.au_column(au)] for au in config.aus]
        return cls(
            name=Path(root).name,
            images=data.originals,
            sides=side_codes(data.table, config.aus),
            reliability=np.array(reliability, np.float32),
            votes=emotion_shares(data.table, config.emotions),
            truths=data.truths if known is None else None,
            share=share,
            spec=spec | {"faces": len(data), "people": len(set(data.subjects))},
        )


def sampling_weights(source: ReaderSource, rare: float) -> Tensor:
    """(N,) chance of each face of a source to be drawn, sum ``share``: by its emotion's rarity to
    the power ``rare``; rendered faces alike."""
    weights = torch.ones(len(source))
    if source.truths is None and source.votes.any():
        counts = source.votes.sum(axis=0).clip(1)
        rarity = (source.votes / counts**rare).sum(axis=1)
        asked = source.votes.sum(axis=1) > 0
        weights = torch.from_numpy(np.where(asked, rarity, np.median(rarity[asked])))
    return source.share * weights / weights.sum()


def train_token_reader(
    sources: Sequence[ReaderSource],
    config: TokenReaderConfig,
    training: ReaderTraining,
    *,
    start: nn.Module | None = None,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
    watch: Watch | None = None,
) -> TokenReader:
    """Trains a token reader. Resumable with a ``folder``.

    ``start``: an encoder of the same config, or a token reader, whose weights it begins with.
    Raises what `norface_lib.training.loop.fit` raises.
    """
    place = device_of(device)
    torch.manual_seed(training.fit.seed)
    model = TokenReader(config).to(place, memory_format=torch.channels_last)
    if start is not None:
        learned = isinstance(start, TokenReader)
        model.encoder.load_state_dict((start.encoder if learned else start).state_dict())
        if learned:
            model.head.load_state_dict(start.head.state_dict())
    weights = [sampling_weights(source, training.rare_emotions) for source in sources]
    numbers = [np.full(len(source), number) for number, source in enumerate(sources)]
    data = ArrayDataset(
        LazyFaces([source.images for source in sources]),
        LazyFaces([_truths_or_images(source) for source in sources]),
        np.concatenate([source.sides for source in sources]),
        np.concatenate([source.votes for source in sources]),
        np.concatenate(numbers),
    )
    return fit(
        model,
        _reader_loss(sources, weights, training, place),
        data,
        training.fit,
        folder=folder,
        name="reader",
        progress=progress,
        watch=watch,
        choose=balanced(torch.cat(weights)),
    )


def _truths_or_images(source: ReaderSource) -> Faces:
    return source.images if source.truths is None else source.truths


def _reader_loss(
    sources: Sequence[ReaderSource],
    weights: Sequence[Tensor],
    training: ReaderTraining,
    device: torch.device,
) -> Loss:
    """The weighted sum of the three terms on a batch of which half are mirrored."""
    rendered = torch.tensor([source.truths is not None for source in sources], device=device)
    reliability = torch.tensor(np.stack([source.reliability for source in sources]), device=device)
    exact = [source for source in sources if source.truths is not None] or sources
    codes = np.concatenate([source.sides for source in exact])
    least = 0.05 * labels.INTENSITY_MAX  # a rare AU should not dominate
    intensity_spread = torch.tensor(codes.max(2).std(0) + least, device=device)
    differences = codes[..., 0] - codes[..., 1]
    difference_spread = torch.tensor(differences.std(0) + least, device=device)
    rates = torch.stack(
        [_emotion_rates(source, weight) for source, weight in zip(sources, weights, strict=True)]
    )
    rates = rates.float().to(device)

    def loss(reader: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        originals, truths, sides, votes, source = to_device(batch, device)
        exact = rendered[source]
        true = (chance.rand(len(sides)) < training.truth_share).to(device) & exact
        faces = torch.where(true[:, None, None, None], truths, originals)
        images = jitter(camera(to_tensor(faces), training.degraded_share))
        flip = (chance.rand(len(sides)) < 0.5).to(device)
        sides = torch.where(flip[:, None, None], sides.flip(2), sides)

        read: Reading = reader(mirrored(images, flip))
        trust = reliability[source]
        error = read.sides - sides
        # squared, for the absolute error of a rare AU is least if it is never seen
        intensity = (error / intensity_spread[:, None]).square().mean(2)
        difference = (error.diff(dim=2)[..., 0] / difference_spread).square()
        occurs = (sides.amax(2) >= labels.OCCURRENCE_THRESHOLD - 1e-4).float()
        occurrence = F.binary_cross_entropy_with_logits(read.occurrence, occurs, reduction="none")
        logits = read.emotion + rates[source].log()
        entropy = -(votes * logits.log_softmax(1)).sum(1)

        terms = {
            "intensity": _weighted_mean(intensity, trust),
            "difference": _weighted_mean(difference, trust),
            "occurrence": _weighted_mean(occurrence, trust),
            "emotion": _weighted_mean(entropy, ~exact),
            "rendered_emotion": _weighted_mean(entropy, exact & (votes.sum(1) > 0)),
        }
        total = sum(getattr(training, f"{name}_weight") * term for name, term in terms.items())
        return total, {name: term.item() for name, term in terms.items()}

    return loss


def _emotion_rates(source: ReaderSource, weights: Tensor) -> Tensor:
    """(E,) how often each emotion is voted for among the faces of a source as they are sampled, by
    ``weights`` (N,): sum 1, and nowhere 0."""
    rates = (weights[:, None] * torch.from_numpy(source.votes)).sum(0) + 1e-6
    return rates / rates.sum()


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of values by weights of the same shape, which may be bool; weights of a sum below 1 do
    not count as more."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
