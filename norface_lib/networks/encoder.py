"""The face encoder that both networks share, image to tokens; and any other network of timm as a
classifier's backbone, and a small one to be trained from nothing.

The paper's encoder is a masked autoencoder's ViT (PAPER.md 1.2); its size is not known. Ours is
timm's ``VisionTransformer`` with, for the smaller presets, a convolutional stem in place of the
patch embedding ("Early Convolutions Help Transformers See Better", Xiao et al. 2021): a ViT that is
trained from scratch on some ten thousand faces learns far slower without one. Our choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, Self

import timm
import torch
from timm.models import group_parameters
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from norface_lib.networks.layers import share_drop_path


class JsonConfig:
    """Base of the configs of networks: frozen dataclasses, of which ``dataclasses.asdict`` makes
    JSON."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The config of ``dataclasses.asdict``, also after JSON made lists of its tuples.
        ``KeyError`` without the config of an encoder that it has, ``TypeError`` for an unknown
        key."""
        settings = with_tuples(values)
        if "encoder" in cls.__dataclass_fields__:
            settings["encoder"] = EncoderConfig.from_dict(values["encoder"])
        return cls(**settings)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(JsonConfig):
    """Size of the encoder. ``stem`` holds the widths at 1/4, 1/8, ... of the image; () means a
    plain ViT patch embedding.

    ``mean`` and ``std`` of red, green and blue standardize images. Weights that were trained
    elsewhere need their own.
    """

    image_size: int = 112  # pixels, square
    patch_size: int = 16  # pixels a token covers along a side
    dim: int = 256  # token width
    depth: int = 3  # transformer blocks
    heads: int = 4
    stem: tuple[int, ...] = (64, 128)
    # where it starts: a shallow ViT trained from scratch settles faster; None: there is none
    layer_scale: float | None = 0.1
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)

    @property
    def grid(self) -> int:
        """Tokens along one side."""
        return self.image_size // self.patch_size


def with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that JSON has turned from tuples into lists, as they were."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


TINY_ENCODER = EncoderConfig()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group normalization before each (pre-activation, He et al. 2016).
    (N, C, H, W) -> same."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(*conv_unit(channels, channels), *conv_unit(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def conv_unit(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """GroupNorm, SiLU and a 3x3 convolution. Groups of 16 channels, so that one image is normalized
    like a batch of many."""
    return (
        nn.GroupNorm(max(1, inputs // 16), inputs),
        nn.SiLU(),
        nn.Conv2d(inputs, outputs, 3, padding=1),
    )


class ConvStem(nn.Module):
    """Patch embedding by convolutions: (N, 3, S, S) -> (N, grid * grid, dim). Takes the arguments
    timm's ViT passes to it."""

    def __init__(
        self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, widths=(64, 128), **_
    ):
        super().__init__()
        side = 4 * 2 ** len(widths)
        if side != patch_size:
            raise ValueError(
                f"a stem of {len(widths)} widths makes patches of {side} px, not {patch_size}"
            )
        layers: list[nn.Module] = [
            nn.Conv2d(in_chans, widths[0], 7, stride=4, padding=3),
            ResidualBlock(widths[0]),
        ]
        for before, after in pairwise((*widths, embed_dim)):
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            if after != embed_dim:
                layers.append(ResidualBlock(after))
        self.body = nn.Sequential(*layers)
        self.num_patches = (img_size // patch_size) ** 2

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(2).transpose(1, 2)


class ImageEncoder(nn.Module):
    """Base of all encoders: standardizes images (N, 3, S, S) in [0, 1] for a network, its only
    child."""

    def __init__(self, image_size: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.image_size = image_size
        for name, values in {"mean": mean, "std": std}.items():
            # its place is the config
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def standardized(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] minus ``mean``, divided by ``std``. Same shape.

        Raises ``ValueError`` for images of another size: a wrong crop must never be read silently.
        """
        size = self.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(
                f"the encoder takes images of shape (N, 3, {size}, {size}), got "
                f"{tuple(images.shape)}"
            )
        return (images - self.mean) / self.std

    def layers(self) -> dict[str, int]:
        """Depth of each parameter by its name, as timm counts: 0 is the stem, of a ViT block b is b
        + 1."""
        ((child, network),) = self.named_children()
        depths = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
        return {f"{child}.{name}": depth for name, depth in depths.items()}


class FaceEncoder(ImageEncoder):
    """Images (N, 3, S, S) in [0, 1] to tokens (N, L, D) with L = (S / patch)^2, in row-major order.

    ``drop_path_rate``: in training, the chance that the last block is skipped for an image
    (stochastic depth, Huang et al. 2016); it grows linearly from 0 at the first. Raises
    ``ValueError`` for images of another size.
    """

    def __init__(self, config: EncoderConfig = TINY_ENCODER, drop_path_rate: float = 0.0):
        super().__init__(config.image_size, config.mean, config.std)
        self.config = config
        embed = {"embed_layer": partial(ConvStem, widths=config.stem)} if config.stem else {}
        self.vit = VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.dim,
            depth=config.depth,
            num_heads=config.heads,
            num_classes=0,
            class_token=False,
            global_pool="avg",
            fc_norm=False,
            init_values=config.layer_scale,
            drop_path_rate=drop_path_rate,
            **embed,
        )
        share_drop_path(self.vit)

    def forward(self, images: Tensor) -> Tensor:
        return self.vit.forward_features(self.standardized(images))


class TimmEncoder(ImageEncoder):
    """Images (N, 3, S, S) in [0, 1] to embeddings (N, D): any network of timm without its
    classification head.

    ``name`` as in ``timm.list_models(pretrained=True)``: with the tag of its weights, which decides
    mean, std and, unless ``image_size`` does, S. Weights are initialized at random:
    `norface_lib.networks.pretrained.load_encoder_weights` brings others. For ``drop_path_rate`` see
    `FaceEncoder`. Raises ``ValueError`` for settings that this network does not take, and for
    images of another size.
    """

    def __init__(self, name: str, image_size: int | None = None, drop_path_rate: float = 0.0):
        settings = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        network = create_timm(name, image_size, **settings)
        known = network.pretrained_cfg
        super().__init__(image_size or known["input_size"][-1], known["mean"], known["std"])
        self.name = name
        self.network = network
        share_drop_path(network)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.standardized(images))


MINI_SIZE = 48
"""Pixels of the images of a `MiniEncoder`, unless another size is asked for."""

MINI_WIDTHS = (32, 64, 128)
"""Channels of its stages, at 1/4, 1/8 and 1/16 of the image; the last is D."""


class MiniEncoder(ImageEncoder):
    """Images (N, 3, S, S) in [0, 1] to embeddings (N, 128): a residual network of 0.5 M parameters,
    small enough to be trained from random initialization on a CPU, many times over.

    A strided convolution and a `ResidualBlock` for each of ``MINI_WIDTHS``, then the mean over the
    image. Our choice. Raises ``ValueError`` for images of another size.
    """

    def __init__(self, image_size: int | None = None):
        colors = EncoderConfig()
        super().__init__(image_size or MINI_SIZE, colors.mean, colors.std)
        layers: list[nn.Module] = [nn.Conv2d(3, MINI_WIDTHS[0], 7, stride=4, padding=3)]
        for before, after in pairwise((MINI_WIDTHS[0], *MINI_WIDTHS)):
            if before != after:
                layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            layers.append(ResidualBlock(after))
        self.network = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.standardized(images)).mean(dim=(2, 3))

    def layers(self) -> dict[str, int]:
        """See `ImageEncoder.layers`: each convolution and each block is a layer."""
        return {name: int(name.split(".")[1]) for name, _ in self.named_parameters()}


def create_timm(name: str, image_size: int | None = None, **settings: Any) -> nn.Module:
    """A network of timm without its classification head, and with settings of
    ``timm.create_model``.

    ``image_size`` is passed to networks that are built for one size. Raises ``ValueError`` with
    timm's reason for settings that this network does not take.
    """
    sized = image_size is not None and timm.get_pretrained_cfg(name).fixed_input_size
    settings = {"num_classes": 0} | settings | ({"img_size": image_size} if sized else {})
    try:
        return timm.create_model(name, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"timm's {name} cannot be built with {settings}: {error}; leave out what it does not "
            "take"
        ) from error


def check_timm(name: str) -> None:
    """Raises ``ValueError`` unless timm has a network of this name, and weights of its tag if it
    has one."""
    try:
        known = timm.is_model(name) and timm.get_pretrained_cfg(name) is not None
    except RuntimeError:  # a tag that is not there
        known = False
    if not known:
        raise ValueError(
            f"timm has no network {name!r}; timm.list_models('*vit*', pretrained=True) lists names "
            "like it"
        )


@lru_cache
def timm_width(name: str) -> int:
    """D, the width of the embeddings (N, D) of a network of timm."""
    with torch.device("meta"):  # costs neither memory nor random numbers
        # num_features is what some widen once more before their head
        return create_timm(name).head_hidden_size


def timm_image_size(name: str) -> int:
    """Pixels of the images that a network of timm was trained with."""
    return timm.get_pretrained_cfg(name).input_size[-1]
