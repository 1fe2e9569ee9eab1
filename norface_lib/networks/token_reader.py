"""The token reader: intensities of all AUs on each side of the face, their occurrence, and the
emotion, read from the encoder's tokens.

The expression embedding passes through a bottleneck of 32 channels, which is enough to draw by and
loses some of what the tokens hold. Here each side of an AU and each emotion has a query of its own
that attends to the tokens, so that each looks where it shows (after Perceiver, Jaegle et al. 2021;
our choice). An AU's occurrence is a rising function of its intensity, so the two never contradict
each other.

Shapes: N images, A AUs, E emotions, L tokens of width D.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib import labels
from norface_lib.networks.encoder import TINY_ENCODER, EncoderConfig, FaceEncoder, JsonConfig
from norface_lib.networks.layers import Dropout


@dataclass(frozen=True, kw_only=True)
class TokenReaderConfig(JsonConfig):
    """Outputs and size of a token reader."""

    encoder: EncoderConfig = TINY_ENCODER
    aus: tuple[int, ...] = tuple(sorted(labels.AUS))  # AU numbers in the order of the outputs
    emotions: tuple[str, ...] = labels.EMOTIONS  # in the order of the logits
    dropout: float = 0.1  # of what a query has read
    # whether a `SideHead` tells left from right; else sides are as the first head reads them
    tells_sides: bool = False

    @property
    def sided(self) -> tuple[bool, ...]:
        """Which AUs have sides that move on their own."""
        return tuple(labels.AUS[au].sided for au in self.aus)


_LEAST = 0.2
"""Least distance of a threshold from 0, and of full intensity from it."""


class Reading(NamedTuple):
    """AUs and emotion of N faces, in the order of `TokenReaderConfig`."""

    # (N, A, 2) of the subject's left and right; in evaluation graded within 0..5, 1 and more for an
    # AU that occurs; in training as they are
    sides: Tensor
    occurrence: Tensor  # (N, A) logits
    emotion: Tensor  # (N, E) logits

    @property
    def intensity(self) -> Tensor:
        """(N, A) intensity of the stronger side, as FACS codes an AU."""
        return self.sides.amax(dim=2)

    @property
    def predictions(self) -> Tensor:
        """(N, 3 A + E): probabilities of AUs, their left and right intensities in turn,
        probabilities of emotions."""
        parts = (self.occurrence.sigmoid(), self.sides.flatten(1), self.emotion.softmax(dim=1))
        return torch.cat(parts, dim=1)


class Parts(NamedTuple):
    """`Reading.predictions` taken apart again: (N, A), (N, A, 2) and (N, E)."""

    probabilities: NDArray[np.float32]
    sides: NDArray[np.float32]
    emotions: NDArray[np.float32]


def parts_of(predictions: NDArray[np.float32], config: TokenReaderConfig) -> Parts:
    """The parts of `Reading.predictions` (N, 3 A + E)."""
    count = len(config.aus)
    probabilities, sides, emotions = np.split(predictions, [count, 3 * count], axis=1)
    return Parts(probabilities, sides.reshape(-1, count, 2), emotions)


class TokenHead(nn.Module):
    """Tokens (N, L, D) to a `Reading`: a query for each side of each AU and for each emotion, cross
    attention, an MLP, and a linear layer of its own for each query."""

    def __init__(self, config: TokenReaderConfig):
        super().__init__()
        dim = config.encoder.dim
        aus = len(config.aus)
        count = 2 * aus + len(config.emotions)
        self.aus = aus
        self.register_buffer("sided", torch.tensor(config.sided), persistent=False)
        self.queries = nn.Parameter(torch.randn(count, dim) * dim**-0.5)
        self.norm_tokens = nn.LayerNorm(dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, config.encoder.heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = Dropout(config.dropout)
        self.weight = nn.Parameter(torch.randn(count, dim) * dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(count))
        # log odds of an occurrence: slope * (intensity - threshold)
        self.log_slope = nn.Parameter(torch.zeros(aus))
        self.threshold = nn.Parameter(torch.full((aus,), labels.OCCURRENCE_THRESHOLD))
        # what is graded as 5: a network that is not sure keeps to the middle
        self.register_buffer("full", torch.full((aus,), labels.INTENSITY_MAX))

    def forward(self, tokens: Tensor) -> Reading:
        sides, emotion = self.values(tokens)
        occurrence = self.log_slope.exp() * (sides.amax(dim=2) - self.threshold)
        return Reading(sides if self.training else self.graded(sides), occurrence, emotion)

    def values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Intensities (N, A, 2) as they were learned, neither graded nor clipped, and logits of
        emotions (N, E)."""
        memory = self.norm_tokens(tokens)
        query = self.queries.expand(tokens.shape[0], -1, -1)
        x = query + self.attention(query, memory, memory, need_weights=False)[0]
        x = x + self.mlp(self.norm_mlp(x))
        x = self.dropout(self.norm(x))
        values = (x * self.weight).sum(dim=2) + self.bias

        sides = values[:, : 2 * self.aus].unflatten(1, (self.aus, 2))
        mean = sides.mean(dim=2, keepdim=True).expand_as(sides)
        sides = torch.where(self.sided[None, :, None], sides, mean)
        return sides, values[:, 2 * self.aus :]

    def graded(self, sides: Tensor) -> Tensor:
        """Intensities (N, A, 2) within 0..5 that are 1 (A, a trace) where an AU's occurrence is a
        matter of even odds, and 5 where it is as strong as ``full``: in proportion below, and a
        straight line between."""
        most = labels.INTENSITY_MAX
        least = labels.OCCURRENCE_THRESHOLD
        threshold = self.threshold.clamp(min=_LEAST)[:, None]
        span = (self.full[:, None] - threshold).clamp(min=_LEAST)
        above = least + (most - least) * (sides - threshold) / span
        graded = torch.where(sides < threshold, least * sides / threshold, above)
        return graded.clamp(0, most)

    def learned(self, graded: Tensor) -> Tensor:
        """Intensities (N, A) as they were learned, of `graded` ones."""
        threshold = self.threshold.clamp(min=_LEAST)
        span = (self.full - threshold).clamp(min=_LEAST)
        least = labels.OCCURRENCE_THRESHOLD
        above = threshold + span * (graded - least) / (labels.INTENSITY_MAX - least)
        return torch.where(graded < least, threshold * graded / least, above)

    def with_difference(self, reading: Reading, difference: Tensor) -> Reading:
        """A graded reading with another ``difference`` of left and right (N, A).

        The stronger side is as the whole face shows it, but at least as strong as the difference,
        for the weaker one is not below 0; the occurrence follows. So an action that shows on one
        side only is not taken for a faint one of both.
        """
        before = reading.intensity
        stronger = before.maximum(difference.abs()).clamp(max=labels.INTENSITY_MAX)
        sides = stronger[..., None] - torch.stack([-difference, difference], dim=2).clamp(min=0)
        more = self.learned(stronger) - self.learned(before)
        return reading._replace(
            sides=sides.clamp(min=0), occurrence=reading.occurrence + self.log_slope.exp() * more
        )

    def places(self, tokens: Tensor) -> Tensor:
        """Attention of each query to the tokens (N, 2 A + E, L), mean over heads; rows sum to 1."""
        memory = self.norm_tokens(tokens)
        query = self.queries.expand(tokens.shape[0], -1, -1)
        return self.attention(query, memory, memory)[1]


class SideHead(nn.Module):
    """Left minus right of each AU, from the tokens of a face and of its mirror image.

    Faces that teach a reader seldom move one side alone, so its own head takes what it sees on one
    side for a faint action of both. This second head learns from faces that do, and only how the
    sides differ: of a face and its mirror image it says opposite things, and of a face whose sides
    are alike nothing.
    """

    def __init__(self, config: TokenReaderConfig):
        super().__init__()
        self.head = TokenHead(config)
        # (A,) a difference below it is none
        self.register_buffer("least", torch.zeros(len(config.aus)))

    def forward(self, tokens: Tensor, of_mirror_image: Tensor) -> Tensor:
        """(N, A) left minus right, as it was learned."""
        here, there = (
            sides[..., 0] - sides[..., 1]
            for sides, _ in (self.head.values(tokens), self.head.values(of_mirror_image))
        )
        return (here - there) / 2

    def without_small(self, difference: Tensor) -> Tensor:
        """Differences (N, A) of which those below ``least`` are 0, and large ones hardly change
        (the nonnegative garrote, Breiman 1995)."""
        small = difference.abs() <= self.least
        rest = difference - self.least.square() / torch.where(small, 1.0, difference)
        return torch.where(small, 0.0, rest)


class TokenReader(nn.Module):
    """Images (N, 3, S, S) in [0, 1], originals or normalized ones, to a `Reading`.

    Raises ``ValueError`` for images of another size.
    """

    def __init__(self, config: TokenReaderConfig = TokenReaderConfig()):
        super().__init__()
        self.config = config
        self.encoder = FaceEncoder(config.encoder)
        self.head = TokenHead(config)
        self.sides = SideHead(config) if config.tells_sides else None

    def forward(self, images: Tensor) -> Reading:
        tokens = self.encoder(images)
        reading = self.head(tokens)
        if self.training or self.sides is None:
            return reading
        difference = self.sides(tokens, self.encoder(images.flip(3)))
        return self.head.with_difference(reading, self.sides.without_small(difference))
