"""The normalization network F_nor(I_o, I_t) -> I_n: the target's identity, pose and light, the original's expression.

Established (PAPER.md 1.1): one shared face encoder embeds original and target, an expression merging module integrates the two,
a decoder draws the face. Our choice, after PAPER.md 1.5: target tokens query original tokens by cross attention; the decoder is
convolutional and predicts what to *change* in the target image, helped by the target's fine features, so that background, hair
and skin come for free and all capacity goes to the expression.

Shapes: N images of S x S pixels, L tokens on a grid of G x G, D the width of the encoder.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from norface_lib.encoder import TINY_ENCODER, EncoderConfig, FaceEncoder, ResidualBlock, conv_unit


@dataclass(frozen=True)
class NormalizerConfig:
    """All that makes a normalizer; ``dataclasses.asdict`` makes it JSON and `from_dict` brings it back."""

    encoder: EncoderConfig = TINY_ENCODER
    merging_blocks: int = 2
    widths: tuple[int, ...] = (128, 64)  # of the decoder at twice, four times, ... the token grid

    def __post_init__(self):
        if not self.widths or self.encoder.patch_size % 2 ** len(self.widths):
            raise ValueError(f"patches of {self.encoder.patch_size} px cannot be drawn by {len(self.widths)} doublings")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NormalizerConfig":
        """The config of ``dataclasses.asdict``, also after JSON made lists of its tuples. ``TypeError`` for an unknown key."""
        encoder = EncoderConfig(**values["encoder"] | {"stem": tuple(values["encoder"]["stem"])})
        return cls(**values | {"encoder": encoder, "widths": tuple(values["widths"])})


PRESETS = {"tiny": NormalizerConfig()}
"""Normalizers by name."""


class MergingBlock(nn.Module):
    """One block of the expression merging module: target tokens (N, L, D) ask the original's (N, L, D) what the face does.

    Pre-norm cross attention (queries: target, keys and values: original), self attention and MLP, each with a residual
    connection (the sibling FlowFace's fusion block with the roles changed, PAPER.md 1.5).
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm_target, self.norm_original, self.norm_self, self.norm_mlp = (nn.LayerNorm(dim) for _ in range(4))
        self.cross = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.self_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, target: Tensor, original: Tensor) -> Tensor:
        memory = self.norm_original(original)
        x = target + self.cross(self.norm_target(target), memory, memory, need_weights=False)[0]
        y = self.norm_self(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm_mlp(x))


class ExpressionMerging(nn.Module):
    """The expression merging module: merged tokens (N, L, D) from target and original tokens."""

    def __init__(self, dim: int, heads: int, blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(MergingBlock(dim, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, target: Tensor, original: Tensor) -> Tensor:
        for block in self.blocks:
            target = block(target, original)
        return self.norm(target)


class FaceDecoder(nn.Module):
    """Merged tokens to the change of the target image: (N, L, D) and the target (1 or N, 3, S, S) -> (N, 3, S, S).

    Each stage doubles the grid by sub-pixel convolution (Shi et al. 2016), which on a CPU costs a fraction of full-resolution
    convolutions, and adds the target's features at that size.
    """

    def __init__(self, config: NormalizerConfig):
        super().__init__()
        dim, patch = config.encoder.dim, config.encoder.patch_size
        self.grid = config.encoder.grid
        self.stages, self.details = nn.ModuleList(), nn.ModuleList()
        for before, width in zip((dim, *config.widths), config.widths, strict=False):
            patch //= 2
            self.stages.append(nn.Sequential(nn.Conv2d(before, 4 * width, 3, padding=1), nn.PixelShuffle(2)))
            self.details.append(nn.Conv2d(3, width, patch, stride=patch))
        self.blocks = nn.ModuleList(ResidualBlock(width) for width in config.widths)
        self.draw = nn.Sequential(*conv_unit(config.widths[-1], 3 * patch * patch), nn.PixelShuffle(patch))
        nn.init.zeros_(self.draw[2].weight)  # the first I_n is the target itself
        nn.init.zeros_(self.draw[2].bias)

    def forward(self, tokens: Tensor, target: Tensor) -> Tensor:
        x = tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        for stage, detail, block in zip(self.stages, self.details, self.blocks, strict=True):
            x = block(stage(x) + detail(target))
        return self.draw(x)


class Normalizer(nn.Module):
    """F_nor: original images (N, 3, S, S) and target images (1 or N, 3, S, S), both in [0, 1], to I_n (N, 3, S, S).

    In training I_n is not clipped, so that gradients pass everywhere; in evaluation it is within [0, 1].
    """

    def __init__(self, config: NormalizerConfig = PRESETS["tiny"]):
        super().__init__()
        self.config = config
        self.encoder = FaceEncoder(config.encoder)
        self.merging = ExpressionMerging(config.encoder.dim, config.encoder.heads, config.merging_blocks)
        self.decoder = FaceDecoder(config)

    def forward(self, original: Tensor, target: Tensor) -> Tensor:
        return self.draw(self.encoder(original), self.encoder(target), target)

    def draw(self, original_tokens: Tensor, target_tokens: Tensor, target: Tensor) -> Tensor:
        """I_n from tokens: with one target for many images, its tokens (1, L, D) are computed once and passed again."""
        target_tokens = target_tokens.expand(len(original_tokens), -1, -1)
        drawn = target + self.decoder(self.merging(target_tokens, original_tokens), target)
        return drawn if self.training else drawn.clamp(0, 1)


class ExpressionHead(nn.Module):
    """Reads AU intensities (N, A) from encoder tokens (N, L, D).

    The first stage of training teaches the encoder to see expressions with this head: by reconstruction alone, from scratch,
    the network falls into drawing the constant target. Tokens keep their places, as an aligned mouth is where mouths are, and
    are standardized over the batch: what faces have in common would else drown what tells them apart.
    """

    def __init__(self, tokens: int, dim: int, aus: int, narrow: int = 32):
        super().__init__()
        self.narrow = nn.Linear(dim, narrow)
        size = tokens * narrow
        self.body = nn.Sequential(nn.BatchNorm1d(size), nn.Linear(size, dim), nn.GELU(), nn.Linear(dim, aus))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.body(self.narrow(tokens).flatten(1))
