"""Masked autoencoding of faces: pre-training of the shared encoder without any label.

After "Masked Autoencoders Are Scalable Vision Learners" (He et al. 2022): three quarters of the
patches are masked, the encoder sees the others, and a small decoder reconstructs the masked ones.
The receptive field of the convolutional stem, in the smaller presets, is larger than a patch, so
masked patches are blanked in the pixels first: nothing of them reaches a token (our choice).

Shapes: N images of S x S pixels, L patches of P x P pixels on a grid of G x G, in row-major order.
"""

from dataclasses import dataclass

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from norface_lib.common import chance
from norface_lib.networks.encoder import FaceEncoder

_SMALLEST_VARIANCE = 1e-6  # He et al. 2022: an even patch is not divided by 0


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """Share of masked patches, and the size of the decoder that only pre-training needs."""

    ratio: float = 0.75  # share of the patches that are masked (He et al. 2022)
    dim: int = 128  # width of the decoder, a multiple of 4
    depth: int = 2  # its blocks
    heads: int = 4

    def __post_init__(self):
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio must be within (0, 1), got {self.ratio}")


class MaskedAutoencoder(nn.Module):
    """Encoder of the visible patches and decoder of all: images (N, 3, S, S) in [0, 1] and a mask
    to loss, patches and mask.

    ``mask`` (N, L) of bool is true where a patch is masked, as many in each image; without one it
    is sampled from torch's global generator. Predicted patches (N, L, 3 P P) are standardized each
    on its own, and so are the true ones ("norm-pix", He et al. 2022); the loss is the mean squared
    error of masked patches, about 1 for a prediction of each patch's mean. Raises
    ``ValueError`` for images of another size and for a mask of another shape.
    """

    def __init__(self, encoder: FaceEncoder, config: MaskedConfig = MaskedConfig()):
        super().__init__()
        grid = encoder.config.grid
        patch = encoder.config.patch_size
        self.encoder = encoder
        self.config = config
        self.narrow = nn.Linear(encoder.config.dim, config.dim)
        self.mask_token = nn.Parameter(torch.randn(config.dim) * 0.02)
        # (L, dim)
        self.register_buffer(
            "places", build_sincos2d_pos_embed([grid, grid], config.dim), persistent=False
        )
        self.blocks = nn.Sequential(
            *(Block(config.dim, config.heads, qkv_bias=True) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(config.dim)
        self.predict = nn.Linear(config.dim, 3 * patch * patch)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        mask = self.random_mask(len(images), images.device) if mask is None else mask
        predicted = self.decode(self.encode(images, mask), mask)
        images = self.encoder.standardized(images)
        true, _, _ = standardized_patches(images, self.encoder.config.patch_size)
        error = (predicted - true).square().mean(dim=2)  # (N, L)
        return error[mask].mean(), predicted, mask

    def random_mask(self, count: int, device: torch.device | None = None) -> Tensor:
        """(N, L) of bool: of the L patches of each image, L (1 - ratio) are visible (rounded down,
        but at least one)."""
        patches = self.encoder.config.grid**2
        visible = max(1, int(patches * (1 - self.config.ratio)))
        return chance.rand(count, patches, device=device).argsort(dim=1).argsort(dim=1) >= visible

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """The V visible patches of each image as tokens (N, V, D), in row-major order."""
        config = self.encoder.config
        vit = self.encoder.vit
        _check_mask(mask, len(images), config.grid**2)
        pixels = mask.view(-1, 1, config.grid, config.grid)
        pixels = pixels.repeat_interleave(config.patch_size, dim=2)
        pixels = pixels.repeat_interleave(config.patch_size, dim=3)
        blanked = self.encoder.standardized(images).masked_fill(pixels, 0.0)  # 0 is the mean color
        tokens = vit.patch_embed(blanked) + vit.pos_embed
        visible = tokens[~mask].view(len(images), -1, config.dim)
        return vit.norm(vit.blocks(visible))

    def decode(self, visible: Tensor, mask: Tensor) -> Tensor:
        """Predicted patches (N, L, 3 P P) from the visible tokens (N, V, D): the masked ones start
        as one learned token."""
        narrow = self.narrow(visible)
        tokens = self.mask_token.to(narrow.dtype).expand(*mask.shape, -1).clone()
        tokens[~mask] = narrow.flatten(0, 1)
        return self.predict(self.norm(self.blocks(tokens + self.places)))


def _check_mask(mask: Tensor, count: int, patches: int) -> None:
    if mask.shape != (count, patches) or mask.dtype != torch.bool:
        raise ValueError(
            f"the mask must be ({count}, {patches}) of bool, got {tuple(mask.shape)} of "
            f"{mask.dtype}"
        )
    counts = mask.sum(dim=1)
    if not 0 < counts[0] < patches or (counts != counts[0]).any():
        raise ValueError(
            "as many patches must be masked in each image, some but not all, got "
            f"{counts.tolist()} of {patches}"
        )


def to_patches(images: Tensor, patch: int) -> Tensor:
    """(N, 3, S, S) -> (N, L, 3 P P): each patch by row, column and color, as He et al. 2022 order
    them."""
    count, colors, size, _ = images.shape
    tiles = images.reshape(count, colors, size // patch, patch, size // patch, patch)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(count, (size // patch) ** 2, -1)


def from_patches(patches: Tensor, patch: int) -> Tensor:
    """(N, L, 3 P P) -> (N, 3, S, S): undoes `to_patches`."""
    grid = round(patches.shape[1] ** 0.5)
    tiles = patches.reshape(len(patches), grid, grid, patch, patch, -1)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, grid * patch, grid * patch)


def standardized_patches(images: Tensor, patch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (N, L, 3 P P) of mean 0 and variance 1, and the mean and standard deviation (N, L, 1)
    of each before."""
    patches = to_patches(images, patch)
    mean = patches.mean(dim=2, keepdim=True)
    spread = (patches.var(dim=2, keepdim=True) + _SMALLEST_VARIANCE).sqrt()
    return (patches - mean) / spread, mean, spread


@torch.inference_mode()
def reconstruct(
    model: MaskedAutoencoder, images: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Images for a figure: originals, originals with gray over masked patches, and with these
    reconstructed; each (N, 3, S, S) in [0, 1].

    As the network predicts standardized patches, each takes its mean and contrast from the
    original.
    """
    _, predicted, mask = model(images, mask)
    encoder = model.encoder
    patch = encoder.config.patch_size
    _, mean, spread = standardized_patches(encoder.standardized(images), patch)
    predicted = from_patches(predicted * spread + mean, patch) * encoder.std + encoder.mean

    originals = to_patches(images, patch)
    mask = mask[:, :, None]
    masked = originals.masked_fill(mask, 0.5)
    whole = torch.where(mask, to_patches(predicted.clamp(0, 1), patch), originals)
    return images, from_patches(masked, patch), from_patches(whole, patch)
