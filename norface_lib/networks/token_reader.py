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
    # three numbers for each AU that tell left from right, see `TokenReader.difference`; none: sides
    # are read as the whole face shows them
    side_weights: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self):
        lengths = [len(numbers) for numbers in self.side_weights]
        if lengths and lengths != [3] * len(self.aus):
            raise ValueError(
                f"side_weights must be none or three numbers for each of {len(self.aus)} AUs, got "
                f"{self.side_weights}"
            )

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

    def with_difference(self, difference: Tensor) -> "Reading":
        """The same with another difference of left and right (N, A): the stronger side of each AU
        stays, and with it its intensity and occurrence; the weaker one is as much below it."""
        stronger = self.intensity
        sides = stronger[..., None] - torch.stack([-difference, difference], dim=2).clamp(min=0)
        return self._replace(sides=sides.clamp(min=0))


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

    def places(self, tokens: Tensor) -> Tensor:
        """Attention of each query to the tokens (N, 2 A + E, L), mean over heads; rows sum to 1."""
        memory = self.norm_tokens(tokens)
        query = self.queries.expand(tokens.shape[0], -1, -1)
        return self.attention(query, memory, memory)[1]


def half_faces(images: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric faces of aligned images (N, 3, S, S): the half of the subject's left side, which is
    the right one of the image, beside its mirror image, and the same of the right side."""
    half = images.shape[3] // 2
    right, left = images[..., :half], images[..., -half:]
    return (
        torch.cat([left.flip(3), left], dim=3),
        torch.cat([right, right.flip(3)], dim=3),
    )


class TokenReader(nn.Module):
    """Images (N, 3, S, S) in [0, 1], originals or normalized ones, to a `Reading`.

    Raises ``ValueError`` for images of another size.
    """

    def __init__(self, config: TokenReaderConfig = TokenReaderConfig()):
        super().__init__()
        self.config = config
        self.encoder = FaceEncoder(config.encoder)
        self.head = TokenHead(config)
        weights = torch.tensor(config.side_weights).reshape(-1, 3)
        self.register_buffer("side_weights", weights, persistent=False)

    def forward(self, images: Tensor) -> Reading:
        reading = self.head(self.encoder(images))
        if self.training or not self.config.side_weights:
            return reading
        return reading.with_difference(self.difference(self.signs_of_sides(images, reading)))

    def signs_of_sides(self, images: Tensor, reading: Reading) -> Tensor:
        """What tells left from right, (N, A, 2): the intensity of the left one of `half_faces`
        minus that of the right one, and left minus right of the whole face by its `Reading`.

        Faces that teach a reader seldom move one side alone, so it takes an action that it sees on
        one side for one of both. A half beside its mirror image shows an action of both sides.
        """
        left, right = (self.head(self.encoder(half)).intensity for half in half_faces(images))
        return torch.stack([left - right, reading.sides[..., 0] - reading.sides[..., 1]], dim=2)

    def difference(self, signs: Tensor) -> Tensor:
        """Left minus right (N, A) out of `signs_of_sides`: their weighted sum, made smaller by the
        third number of ``side_weights``, so that small ones are none."""
        of_halves, of_whole, least = self.side_weights.unbind(1)
        total = signs[..., 0] * of_halves + signs[..., 1] * of_whole
        return total - total.minimum(least).maximum(-least)
