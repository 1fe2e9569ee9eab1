"""The normalization network F_nor(I_o, I_t) -> I_n: the target's identity, pose and light, the
original's expression.

Established (PAPER.md 1.1): one shared face encoder embeds original and target, an expression
merging module integrates the two, a decoder synthesizes the face. Our choice, after PAPER.md 1.5:
target tokens query original tokens by cross attention; the decoder predicts how the target image
changes or moves (`norface_lib.networks.decoders`), so that background, hair and skin come for free
and all capacity goes to the expression.

Shapes: N originals of S x S pixels, normalized images of T x T with T = S times the config's
``scale``, L tokens on a grid of G x G, D the width of the encoder.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from norface_lib import labels
from norface_lib.networks.decoders import ChangingDecoder, MovingDecoder
from norface_lib.networks.encoder import (
    TINY_ENCODER,
    EncoderConfig,
    FaceEncoder,
    JsonConfig,
)
from norface_lib.networks.layers import BatchNorm1d


@dataclass(frozen=True, kw_only=True)
class NormalizerConfig(JsonConfig):
    """Size and parts of a normalizer."""

    encoder: EncoderConfig = TINY_ENCODER
    merging_blocks: int = 2
    # of the decoder at twice, four times, ... the token grid; of no use to one that moves pictures
    widths: tuple[int, ...] = (128, 64)
    # pictures of each target that the decoder moves; 0: it changes the target image
    references: int = 0
    targets: int = 1  # identities whose references are among the weights
    scale: int = 1  # width of I_n over that of the original
    # columns of intensities that it can also draw from, see `Normalizer.draw`; () if it cannot
    codes: tuple[str, ...] = ()
    # parts that an ablation leaves out: self attention of the merging blocks, the expression
    # embedding that the merging module is told, the target's fine features in the decoder
    self_attention: bool = True
    embedding: bool = True
    detail: bool = True

    def __post_init__(self):
        if self.scale < 1:
            raise ValueError(f"scale must be at least 1, got {self.scale}")
        if self.codes and not self.embedding:
            raise ValueError("codes are drawn through the expression embedding: leave out codes")
        if self.references < 0 or self.targets < 1:
            raise ValueError(
                f"there must be a target and no less than 0 references of it, not {self.targets} "
                f"and {self.references}"
            )
        if not self.widths or self.patch_size % 2 ** len(self.widths):
            raise ValueError(
                f"patches of {self.patch_size} px cannot be synthesized by "
                f"{len(self.widths)} doublings"
            )

    @property
    def size(self) -> int:
        """Width T of I_n in pixels."""
        return self.encoder.image_size * self.scale

    @property
    def patch_size(self) -> int:
        """Pixels of I_n that a token covers along a side."""
        return self.encoder.patch_size * self.scale


_SMALL_ENCODER = EncoderConfig(image_size=224, dim=384, depth=6, heads=6, stem=(96, 192))

# plain and with ImageNet's colors, so that the weights of masked autoencoders fit
# (norface_lib.networks.pretrained)
_BASE_ENCODER = EncoderConfig(
    image_size=256,
    dim=768,
    depth=12,
    heads=12,
    stem=(),
    layer_scale=None,
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
)

PRESETS = {
    "tiny": NormalizerConfig(),
    "tiny-224": NormalizerConfig(scale=2, references=3, targets=3, codes=labels.EXPRESSION_COLUMNS),
    "small": NormalizerConfig(encoder=_SMALL_ENCODER, merging_blocks=3, widths=(192, 96, 48)),
    "base": NormalizerConfig(encoder=_BASE_ENCODER, merging_blocks=4, widths=(384, 192, 96)),
}
"""Normalizers by name: each doubling of the decoder halves the width, so that all of its stages
cost alike; ``tiny-224`` sees 112 px and draws 224, by moving three pictures of each target, also
from intensities alone (our choice)."""


class MergingBlock(nn.Module):
    """One block of the expression merging module: target tokens (N, L, D) attend to the original's
    (N, L, D).

    Pre-norm cross attention (queries: target, keys and values: original), self attention, which can
    be left out, and MLP, each with a residual connection (the sibling FlowFace's fusion block with
    the roles changed, PAPER.md 1.5). Aligned faces have their parts in about the same places, so a
    learned bias of the cross attention starts out by attending to neighboring positions.
    """

    def __init__(self, dim: int, heads: int, grid: int, self_attention: bool = True):
        super().__init__()
        self.norm_target = nn.LayerNorm(dim)
        self.norm_original = nn.LayerNorm(dim)
        self.norm_self = nn.LayerNorm(dim) if self_attention else None
        self.norm_mlp = nn.LayerNorm(dim)
        self.cross = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.self_attention = (
            nn.MultiheadAttention(dim, heads, batch_first=True) if self_attention else None
        )
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        place = torch.cartesian_prod(torch.arange(grid), torch.arange(grid)).float()
        # (L, L), added to the attention's logits
        self.nearness = nn.Parameter(-0.5 * torch.cdist(place, place) ** 2)

    def forward(self, target: Tensor, original: Tensor) -> Tensor:
        query = self.norm_target(target)
        memory = self.norm_original(original)
        crossed, _ = self.cross(query, memory, memory, need_weights=False, attn_mask=self.nearness)
        x = target + crossed

        if self.self_attention is not None:
            y = self.norm_self(x)
            x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm_mlp(x))

    def attention(self, target: Tensor, original: Tensor) -> Tensor:
        """Attention of each target token to the original's (N, L, L), mean over heads; rows sum to
        1."""
        memory = self.norm_original(original)
        return self.cross(self.norm_target(target), memory, memory, attn_mask=self.nearness)[1]


class ExpressionMerging(nn.Module):
    """The expression merging module: merged tokens (N, L, D) from target tokens, original tokens,
    expression embedding (N, D).

    The embedding holds the expression of the whole face and is added to every target token, unless
    the config leaves it out; the look of each part comes by attention.
    """

    def __init__(self, config: NormalizerConfig):
        super().__init__()
        size = config.encoder
        # the name is part of every file of weights
        self.tell = nn.Linear(size.dim, size.dim) if config.embedding else None
        self.blocks = nn.ModuleList(
            MergingBlock(size.dim, size.heads, size.grid, config.self_attention)
            for _ in range(config.merging_blocks)
        )
        self.norm = nn.LayerNorm(size.dim)

    def with_expression(self, target: Tensor, expression: Tensor) -> Tensor:
        """Target tokens (N, L, D) with the expression embedding (N, D) added to each."""
        return target if self.tell is None else target + self.tell(expression)[:, None]

    def forward(self, target: Tensor, original: Tensor, expression: Tensor) -> Tensor:
        target = self.with_expression(target, expression)
        for block in self.blocks:
            target = block(target, original)
        return self.norm(target)

    def attention(self, target: Tensor, original: Tensor, expression: Tensor) -> Tensor:
        """Attention of each target token (second last axis) to the original's (last axis) in each
        block, (B, N, L, L), for a figure."""
        target = self.with_expression(target, expression)
        maps = []
        for block in self.blocks:
            maps.append(block.attention(target, original))
            target = block(target, original)
        return torch.stack(maps)


class ExpressionEmbedding(nn.Module):
    """The expression of a face as a whole: encoder tokens (N, L, D) to an embedding (N, D).

    In training, AUs are read from it by a linear head; the merging module gets it beside the
    tokens. Tokens keep their positions, as an aligned mouth is always at the same one, and are
    standardized over the batch: what faces have in common would else outweigh their differences.
    """

    def __init__(self, tokens: int, dim: int, narrow: int = 32):
        super().__init__()
        self.narrow = nn.Linear(dim, narrow)
        self.body = nn.Sequential(
            BatchNorm1d(tokens * narrow), nn.Linear(tokens * narrow, dim), nn.GELU()
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.body(self.narrow(tokens).flatten(1))


class CodeEmbedding(nn.Module):
    """Intensities (N, E) within 0..1 to an expression embedding (N, D), as `ExpressionEmbedding`
    gives one of a face: what the decoder learns to draw from before it sees any original."""

    def __init__(self, codes: int, dim: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(codes, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU())

    def forward(self, codes: Tensor) -> Tensor:
        return self.body(codes)


def decoder_of(config: NormalizerConfig) -> ChangingDecoder | MovingDecoder:
    """The decoder of a config, with random weights."""
    size = config.encoder.dim, config.encoder.grid, config.patch_size
    if config.references:
        return MovingDecoder(*size, config.targets, config.references)
    return ChangingDecoder(*size, config.widths, config.detail)


class Target(NamedTuple):
    """Features of K target faces, computed once for any number of originals by
    `Normalizer.target`."""

    image: Tensor  # (K, 3, T, T) in [0, 1]
    tokens: Tensor  # (K, L, D)
    details: tuple[Tensor, ...]  # what the decoder keeps of each, (K, ...) each

    def of(self, which: Tensor) -> "Target":
        """The targets with these indices (N,), one for each original.

        By ``index_select``: the gradient of ``[which]`` adds up repeated rows in any order on
        several cores of a CPU, and no two trainings would end alike.
        """
        return Target(
            self.image.index_select(0, which),
            self.tokens.index_select(0, which),
            tuple(detail.index_select(0, which) for detail in self.details),
        )


class Normalizer(nn.Module):
    """F_nor: original images (N, 3, S, S) and target images (1 or N, 3, T, T), both in [0, 1], to
    I_n (N, 3, T, T).

    In training I_n is not clipped, so that gradients pass everywhere; in evaluation it is within
    [0, 1].
    """

    def __init__(self, config: NormalizerConfig = PRESETS["tiny"]):
        super().__init__()
        size = config.encoder
        self.config = config
        self.encoder = FaceEncoder(size)
        self.expression = ExpressionEmbedding(size.grid**2, size.dim)
        self.merging = ExpressionMerging(config)
        self.decoder = decoder_of(config)
        self.codes = CodeEmbedding(len(config.codes), size.dim) if config.codes else None

    def forward(self, original: Tensor, target: Tensor) -> Tensor:
        return self.synthesize(self.encoder(original), self.target(target))

    def target(self, images: Tensor) -> Target:
        """Features of target images (K, 3, T, T), for `synthesize`."""
        return Target(images, self.encoder(self.shrunk(images)), self.decoder.detail(images))

    def shrunk(self, images: Tensor) -> Tensor:
        """Images (N, 3, T, T) at the size (N, 3, S, S) of originals, by the mean over areas."""
        scale = self.config.scale
        return images if scale == 1 else F.avg_pool2d(images, scale)

    def synthesize(
        self, tokens: Tensor, target: Target, expression: Tensor | None = None
    ) -> Tensor:
        """I_n (N, 3, T, T) from the tokens (N, L, D) of originals and one target for all, or one
        for each.

        ``expression``: the embedding (N, D) of the tokens if it is at hand already.
        """
        expression = self.expression(tokens) if expression is None else expression
        merged = self.merged(tokens, target, expression)
        normalized = self.decoder(merged, expression, target.image, target.details)
        return normalized if self.training else normalized.clamp(0, 1)

    def merged(self, tokens: Tensor, target: Target, expression: Tensor) -> Tensor:
        """What the decoder draws from: merged tokens (N, L, D) of originals' tokens (N, L, D), one
        target for all or one for each, and expression embeddings (N, D)."""
        return self.merging(target.tokens.expand(tokens.shape[0], -1, -1), tokens, expression)

    def draw(self, codes: Tensor, target: Target) -> Tensor:
        """I_n (N, 3, T, T) of intensities (N, E) within 0..1, in the order of the config's
        ``codes``, without an original; one target for all, or one for each.

        The target's own tokens stand for those of an original. Raises ``ValueError`` for a network
        that has not learned to draw from intensities.
        """
        if self.codes is None:
            raise ValueError("this normalizer draws from faces only: its config names no codes")
        tokens = target.tokens.expand(len(codes), -1, -1)
        return self.synthesize(tokens, target, self.codes(codes))


def shrunk(images: Tensor, size: int) -> Tensor:
    """Images (N, 3, T, T) as (N, 3, size, size) by the mean over areas; T may be ``size`` itself.

    Raises ``ValueError`` if T is no multiple of ``size``.
    """
    factor, rest = divmod(images.shape[-1], size)
    if rest or factor < 1:
        raise ValueError(f"images of {images.shape[-1]} px cannot be shrunk evenly to {size} px")
    return images if factor == 1 else F.avg_pool2d(images, factor)
