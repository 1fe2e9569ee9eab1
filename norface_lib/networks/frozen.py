"""Frozen networks that the normalizer's losses compare images by: encoders of identity and of
expression, our own evaluator.

Where no true I_n exists, they measure whether it has the target's identity and the original's
expression (PAPER.md 1.5). Which networks the paper takes is not known, so any will do here: an ONNX
file, a model of timm, or the evaluator. All of them take images in this project's crop and bring
the framing, size and colors that they were trained on. Our choice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from norface_lib.common.errors import CheckpointError, DataError, needs
from norface_lib.common.paths import no_file
from norface_lib.images.crop import ARCFACE_CROP, NORFACE_CROP, Crop, similarity
from norface_lib.networks.evaluator import Evaluator
from norface_lib.networks.token_reader import TokenReader
from norface_lib.networks.weights import load_evaluator, load_token_reader

Encoding = tuple[Tensor, tuple[Tensor, ...]]
"""Embedding (N, D) of N images, and feature maps (N, C, H, W) from fine to coarse."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Input format of a network. ``size`` in pixels, None for the network's own; mean and deviation
    of RGB colors in [0, 1]."""

    size: int | None = None
    crop: Crop = NORFACE_CROP
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD


IMAGENET = Preparation()
"""Input of most networks that were trained on photographs, with faces framed as ours."""

ARCFACE = Preparation(crop=ARCFACE_CROP, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Input of insightface's identity encoders: (x - 127.5) / 127.5 of RGB (insightface,
``model_zoo/arcface_onnx.py``)."""

ARCFACE_FILE = Path(".insightface", "models", "buffalo_l", "w600k_r50.onnx")
"""Insightface's identity encoder, under the user's home. Its weights are for research that is not
commercial."""


def reframe(images: Tensor, crop: Crop, size: int) -> Tensor:
    """Images (N, C, S, S) in this project's crop to (N, C, size, size) in another; has a gradient.

    Pixels are counted as ``cv2.warpAffine`` counts them. An image that shrinks is filtered first;
    where the other crop sees beyond the picture, as ArcFace's does by 4 % above the forehead, the
    border is repeated.
    """
    here = images.shape[-1]
    if crop == NORFACE_CROP:
        return _resize(images, size)
    matrix = similarity(NORFACE_CROP.pixels(here), crop.pixels(size))
    images = _resize(images, min(here, round(here * np.hypot(*matrix[0, :2]))))
    # affine_grid takes the place in the source of each target pixel, both in -1..1 from border to
    # border
    back = _unit(here) @ np.linalg.inv(np.vstack([matrix, (0, 0, 1)])) @ np.linalg.inv(_unit(size))
    theta = torch.from_numpy(back[:2]).to(images).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _unit(size: int) -> NDArray[np.float64]:
    """The matrix (3, 3) from pixels, whose centers are whole numbers, to -1..1."""
    return np.array([(2 / size, 0, 1 / size - 1), (0, 2 / size, 1 / size - 1), (0, 0, 1)])


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(
        images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )


class FrozenNetwork(nn.Module, ABC):
    """A network that is never trained: no parameter has a gradient, and it stays in evaluation
    mode.

    Images (N, 3, S, S) in [0, 1], RGB, in this project's crop; what comes out is differentiable
    with respect to them.
    """

    def __init__(self, network: nn.Module, preparation: Preparation):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.preparation = preparation
        for name in ("mean", "std"):
            self.register_buffer(
                name, torch.tensor(getattr(preparation, name)).view(3, 1, 1), persistent=False
            )
        self.eval()

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Stays in evaluation mode, whatever the module it is part of does."""
        return super().train(False)

    @abstractmethod
    def encode(self, prepared: Tensor) -> Encoding:
        """Embedding and maps of images in the network's own format, as `prepare` returns them."""

    def prepare(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) to the network's framing, size and colors. Raises ``ValueError`` for images
        that are not square RGB."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images must have shape (N, 3, S, S), got {tuple(images.shape)}")
        images = reframe(images, self.preparation.crop, self.preparation.size)
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Encoding:
        """Embedding and maps in one pass, for losses that need both."""
        return self.encode(self.prepare(images))

    def embed(self, images: Tensor) -> Tensor:
        """The embedding (N, D), of any length."""
        return self(images)[0]

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps (N, C, H, W) for a perceptual loss, from fine to coarse."""
        return self(images)[1]


def frozen_network(spec: str) -> FrozenNetwork:
    """A frozen network by ``kind`` or ``kind:what``.

    - ``arcface:PATH.onnx``: an identity encoder of insightface; ``arcface`` alone takes the one
      that insightface has downloaded
    - ``onnx:PATH.onnx``: any image network; its first output is the embedding. To embed by an inner
      value cut the file there with ``onnx.utils.extract_model``
    - ``timm:NAME``: a model of timm with its published weights; ``timm:NAME@PATH`` with those of a
      file
    - ``evaluator`` or ``evaluator:PATH``: this project's evaluator
    - ``reader`` or ``reader:PATH``: a token reader of this project

    Raises :class:`DataError` for an unknown kind or name, :class:`CheckpointError` if weights are
    missing or cannot be used.
    """
    kind, _, what = spec.partition(":")
    if kind == "arcface" or (kind == "onnx" and what):
        # onnx, onnx2torch and onnxruntime are loaded by those who need them
        with needs("photos"):
            from norface_lib.networks.onnx_network import OnnxNetwork

        path = Path(what) if what else _arcface_file()
        return OnnxNetwork(path, ARCFACE if kind == "arcface" else IMAGENET)
    if kind == "timm" and what:
        name, _, path = what.partition("@")
        return TimmNetwork(name, Path(path) if path else None)
    if kind == "evaluator":
        return EvaluatorNetwork(load_evaluator(what or "evaluator")[0])
    if kind == "reader":
        return ReaderNetwork(load_token_reader(what or "tiny-photo-reader")[0])
    raise DataError(
        f"no frozen network {spec!r}; there are arcface, arcface:PATH, onnx:PATH, timm:NAME, "
        "timm:NAME@PATH, evaluator, reader"
    )


def _arcface_file() -> Path:
    path = Path.home() / ARCFACE_FILE
    if not path.is_file():
        raise CheckpointError(
            f'{path}: {no_file(path)}. insightface downloads it once with: python -c "import '
            "insightface; "
            f"insightface.app.FaceAnalysis('{path.parent.name}')\". An identity encoder elsewhere "
            "is named arcface:PATH.onnx"
        )
    return path


# --- timm -----------------------------------------------------------------------------------------


class TimmNetwork(FrozenNetwork):
    """A model of timm: the embedding is the input of its last layer, the maps are timm's
    intermediate ones.

    ``path``: weights of a file (safetensors or a PyTorch state dict, also under the key ``model``
    or ``state_dict``) and not timm's own. Errors as of `frozen_network`.
    """

    def __init__(self, name: str, path: Path | None = None):
        if not timm.is_model(name):
            raise DataError(f"no timm model {name!r}; timm.list_models() names them")
        network = _published(name) if path is None else _from_file(name, path)
        usual = timm.data.resolve_model_data_config(network)
        size = usual["input_size"][1]
        super().__init__(network, Preparation(size=size, mean=usual["mean"], std=usual["std"]))

    def encode(self, prepared: Tensor) -> Encoding:
        last, maps = self.network.forward_intermediates(prepared)
        return self.network.forward_head(last, pre_logits=True), tuple(maps)


def _published(name: str) -> nn.Module:
    cure = f"fetch a file of them by other means and name it: timm:{name}@PATH"
    if not timm.models.is_model_pretrained(name):
        raise CheckpointError(f"timm:{name}: timm has no weights for it; {cure}")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"timm:{name}: its weights cannot be downloaded ({error}); {cure}"
        ) from error


def _from_file(name: str, path: Path) -> nn.Module:
    """Every weight of the network must come from the file; what the file holds beyond (a head, a
    decoder) is left there."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {no_file(path)}; check the path")
    network = timm.create_model(name, num_classes=0)
    try:
        missing, beyond = network.load_state_dict(
            timm.models.load_state_dict(str(path)), strict=False
        )
    except Exception as error:  # a damaged file fails in its reader's own ways
        raise CheckpointError(f"{path}: holds no weights of timm's {name}: {error}") from error
    parts = {key.partition(".")[0] for key in network.state_dict()}
    wrong = missing + [key for key in beyond if key.partition(".")[0] in parts]
    if wrong:
        raise CheckpointError(
            f"{path}: is not of timm's {name}: {len(wrong)} weights do not fit, such as {wrong[0]}"
        )
    return network


# --- networks of this project ---------------------------------------------------------------------


class EvaluatorNetwork(FrozenNetwork):
    """This project's evaluator: the embedding is the input of its heads, for AUs and emotion alike;
    the maps are its `Evaluator.features`.

    A normalizer that was trained through an evaluator must be measured by another one.
    """

    def __init__(self, evaluator: Evaluator):
        size = evaluator.config.image_size
        super().__init__(evaluator, Preparation(size=size, mean=(0.0,) * 3, std=(1.0,) * 3))

    def encode(self, prepared: Tensor) -> Encoding:
        maps = self.network.features(prepared)
        return self.network.neck(maps[-1].flatten(1)), maps


class ReaderNetwork(FrozenNetwork):
    """A token reader: the embedding are its intensities and logits of emotions, (N, 2 A + E); the
    one map are the tokens of its encoder, (N, D, G, G)."""

    def __init__(self, reader: TokenReader):
        size = reader.config.encoder.image_size
        super().__init__(reader, Preparation(size=size, mean=(0.0,) * 3, std=(1.0,) * 3))

    def encode(self, prepared: Tensor) -> Encoding:
        tokens = self.network.encoder(prepared)
        sides, emotion = self.network.head.values(tokens)
        grid = self.network.config.encoder.grid
        maps = tokens.transpose(1, 2).unflatten(2, (grid, grid))
        return torch.cat([sides.flatten(1), emotion], dim=1), (maps,)
