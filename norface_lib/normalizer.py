"""The normalization network F_nor(I_o, I_t) -> I_n: the target's identity, pose and light, the original's expression.

Established (PAPER.md 1.1): one shared face encoder embeds original and target, an expression merging module integrates the two,
a decoder draws the face. Our choice, after PAPER.md 1.5: target tokens query original tokens by cross attention; the decoder is
convolutional and predicts what to *change* in the target image, helped by the target's fine features, so that background, hair
and skin come for free and all capacity goes to the expression.

Shapes: N images of S x S pixels, L tokens on a grid of G x G, D the width of the encoder.
"""

from dataclasses import dataclass
from typing import Any

import torch
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
    connection (the sibling FlowFace's fusion block with the roles changed, PAPER.md 1.5). Aligned faces have their parts in
    about the same places, so a learned bias of the cross attention starts out by asking next door.
    """

    def __init__(self, dim: int, heads: int, grid: int):
        super().__init__()
        self.norm_target, self.norm_original, self.norm_self, self.norm_mlp = (nn.LayerNorm(dim) for _ in range(4))
        self.cross = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.self_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        place = torch.cartesian_prod(torch.arange(grid), torch.arange(grid)).float()
        self.nearness = nn.Parameter(-0.5 * torch.cdist(place, place) ** 2)  # (L, L), added to the attention's logits

    def forward(self, target: Tensor, original: Tensor) -> Tensor:
        memory = self.norm_original(original)
        x = target + self.cross(self.norm_target(target), memory, memory, need_weights=False, attn_mask=self.nearness)[0]
        y = self.norm_self(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm_mlp(x))


class ExpressionMerging(nn.Module):
    """The expression merging module: merged tokens (N, L, D) from target tokens, original tokens, expression embedding (N, D).

    The embedding tells what the face does as a whole and is added to every target token; what each part looks like comes by
    attention.
    """

    def __init__(self, dim: int, heads: int, blocks: int, grid: int):
        super().__init__()
        self.tell = nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(MergingBlock(dim, heads, grid) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, target: Tensor, original: Tensor, expression: Tensor) -> Tensor:
        target = target + self.tell(expression)[:, None]
        for block in self.blocks:
            target = block(target, original)
        return self.norm(target)


class ExpressionEmbedding(nn.Module):
    """The expression of a face as a whole: encoder tokens (N, L, D) to an embedding (N, D).

    In training, AUs are read from it by a linear head; the merging module gets it beside the tokens. Tokens keep their places,
    as an aligned mouth is where mouths are, and are standardized over the batch: what faces have in common would else drown
    what tells them apart.
    """

    def __init__(self, tokens: int, dim: int, narrow: int = 32):
        super().__init__()
        self.narrow = nn.Linear(dim, narrow)
        self.body = nn.Sequential(nn.BatchNorm1d(tokens * narrow), nn.Linear(tokens * narrow, dim), nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        return self.body(self.narrow(tokens).flatten(1))


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
        size = config.encoder
        self.config = config
        self.encoder = FaceEncoder(size)
        self.expression = ExpressionEmbedding(size.grid**2, size.dim)
        self.merging = ExpressionMerging(size.dim, size.heads, config.merging_blocks, size.grid)
        self.decoder = FaceDecoder(config)

    def forward(self, original: Tensor, target: Tensor) -> Tensor:
        return self.draw(self.encoder(original), self.encoder(target), target)

    def draw(self, original_tokens: Tensor, target_tokens: Tensor, target: Tensor, expression: Tensor | None = None) -> Tensor:
        """I_n from tokens: with one target for many images, its tokens (1, L, D) are computed once and passed again.

        ``expression``: the embedding of ``original_tokens`` (N, D) if it is at hand already.
        """
        expression = self.expression(original_tokens) if expression is None else expression
        target_tokens = target_tokens.expand(len(original_tokens), -1, -1)
        drawn = target + self.decoder(self.merging(target_tokens, original_tokens, expression), target)
        return drawn if self.training else drawn.clamp(0, 1)
