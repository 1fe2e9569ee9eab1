"""Frozen networks that the normalizer's losses look through: encoders of identity and of
expression, our own evaluator.

Where no true I_n exists, others must say whether it is the target and does what the original does
(PAPER.md 1.5). Which networks the paper asks is not known, so any will do here: an ONNX file, a
model of timm, or the evaluator. All of them take images in this project's crop and bring the framing,
size and colors that they were trained on. Our choice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from norface_lib.common.errors import CheckpointError, DataError, needs
from norface_lib.images.crop import ARCFACE_CROP, NORFACE_CROP, Crop, similarity
from norface_lib.networks.evaluator import Evaluator
from norface_lib.networks.weights import load_evaluator

if TYPE_CHECKING:
    import onnx

Look = tuple[Tensor, tuple[Tensor, ...]]
"""What a network sees in N images: an embedding (N, D), and maps (N, C, H, W) from fine to coarse.
"""


@dataclass(frozen=True)
class Preparation:
    """What a network takes. ``size`` in pixels, None for the network's own; mean and deviation of
    RGB colors in [0, 1]."""

    size: int | None = None
    crop: Crop = NORFACE_CROP
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD
    bgr: bool = False  # order of the channels; mean and deviation stay those of red, green, blue


IMAGENET = Preparation()
"""What most networks take that were trained on photographs, with faces framed as ours."""

ARCFACE = Preparation(crop=ARCFACE_CROP, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""What insightface's identity encoders take: (x - 127.5) / 127.5 of RGB (insightface,
``model_zoo/arcface_onnx.py``)."""

ARCFACE_FILE = Path(".insightface", "models", "buffalo_l", "w600k_r50.onnx")
"""Where insightface puts its identity encoder, under the user's home. Its weights are for research
that is not commercial."""


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
    # affine_grid asks from where in the source each target pixel comes, both in -1..1 from border
    # to border
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
    """A network that looks and never learns: no parameter has a gradient, and it stays in
    evaluation mode.

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

    def train(self, mode: bool = True) -> "FrozenNetwork":
        """Stays in evaluation mode, whatever the module it is part of does."""
        return super().train(False)

    @abstractmethod
    def look(self, prepared: Tensor) -> Look:
        """Embedding and maps of images as the network takes them: what `prepare` returns."""

    def prepare(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) to the network's framing, size and colors. Raises ``ValueError`` for images
        that are not square RGB."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images must have shape (N, 3, S, S), got {tuple(images.shape)}")
        images = (
            reframe(images, self.preparation.crop, self.preparation.size) - self.mean
        ) / self.std
        return images.flip(1) if self.preparation.bgr else images

    def forward(self, images: Tensor) -> Look:
        """Embedding and maps in one pass, for losses that need both."""
        return self.look(self.prepare(images))

    def embed(self, images: Tensor) -> Tensor:
        """The embedding (N, D), of any length."""
        return self(images)[0]

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps (N, C, H, W) for a perceptual loss, from fine to coarse."""
        return self(images)[1]


def frozen_network(spec: str, preparation: Preparation | None = None) -> FrozenNetwork:
    """The one door: a frozen network by ``kind`` or ``kind:what``.

    - ``arcface:PATH.onnx``: an identity encoder of insightface; ``arcface`` alone takes the one
      that insightface has downloaded
    - ``onnx:PATH.onnx``: any image network; what its first output says is the embedding. To embed
      by an inner value cut the
      file there with ``onnx.utils.extract_model``
    - ``timm:NAME``: a model of timm with its published weights; ``timm:NAME@PATH`` with those of a
      file
    - ``evaluator`` or ``evaluator:PATH``: this project's evaluator

    ``preparation`` says what the network takes if that is not usual for its kind. Raises
    :class:`DataError` for an unknown kind or name, :class:`CheckpointError` if weights are missing
    or cannot be used.
    """
    kind, _, what = spec.partition(":")
    if kind == "arcface":
        return OnnxNetwork(Path(what) if what else _arcface_file(), preparation or ARCFACE)
    if kind == "onnx" and what:
        return OnnxNetwork(Path(what), preparation or IMAGENET)
    if kind == "timm" and what:
        name, _, path = what.partition("@")
        return TimmNetwork(name, Path(path) if path else None, preparation)
    if kind == "evaluator":
        return EvaluatorNetwork(load_evaluator(what or "evaluator")[0])
    raise DataError(
        f"no frozen network {spec!r}; there are arcface, arcface:PATH, onnx:PATH, timm:NAME, "
        "timm:NAME@PATH, evaluator"
    )


def _arcface_file() -> Path:
    path = Path.home() / ARCFACE_FILE
    if not path.is_file():
        raise CheckpointError(
            f'{path}: no such file. insightface downloads it once with: python -c "import '
            "insightface; "
            f"insightface.app.FaceAnalysis('{path.parent.name}')\". An identity encoder elsewhere "
            "is named arcface:PATH.onnx"
        )
    return path


# --- ONNX -----------------------------------------------------------------------------------------


class OnnxNetwork(FrozenNetwork):
    """An ONNX image network made differentiable by onnx2torch, and compared with onnxruntime before
    it is used.

    The first output, flattened, is the embedding (N, D). A network that starts with its own
    normalization gets 0..255 whatever the preparation says, by insightface's rule. Raises
    :class:`CheckpointError`, naming the file, if it is missing, damaged, takes anything but one
    batch of images, or cannot be converted.
    """

    def __init__(self, path: Path, preparation: Preparation = IMAGENET):
        model = _read_onnx(path)
        shape = _input_shape(model, path)
        if _normalizes_itself(model):
            preparation = replace(preparation, mean=(0.0,) * 3, std=(1 / 255,) * 3)
        # the width stands third in both layouts
        preparation = replace(preparation, size=preparation.size or shape[2])
        if not preparation.size:
            raise CheckpointError(
                f"{path}: takes images of any size; say which: Preparation(size=...)"
            )
        super().__init__(_convert(model, path), preparation)
        self.channels_last = shape[3] == 3
        noise = torch.rand(
            2, 3, *[preparation.size] * 2, generator=torch.Generator().manual_seed(0)
        )
        example = self._arrange(self.prepare(noise))
        _compare(self.network, path, example)
        self.network = _with_maps(self.network, example)

    def look(self, prepared: Tensor) -> Look:
        value, maps = self.network(self._arrange(prepared))
        return value.flatten(1), maps

    def _arrange(self, prepared: Tensor) -> Tensor:
        return prepared.permute(0, 2, 3, 1) if self.channels_last else prepared


def _read_onnx(path: Path) -> onnx.ModelProto:
    with needs("photos"):
        import onnx
        from google.protobuf.message import DecodeError
    try:
        return onnx.load(path)
    except OSError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except DecodeError as error:
        raise CheckpointError(f"{path}: damaged, or not an ONNX file") from error


def _input_shape(model: onnx.ModelProto, path: Path) -> list[int]:
    """Its four numbers, 0 where the file leaves one open. Old files list weights among the inputs."""
    weights = {value.name for value in model.graph.initializer}
    shapes = [
        [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name not in weights
    ]
    if len(shapes) != 1 or len(shapes[0]) != 4 or 3 not in (shapes[0][1], shapes[0][3]):
        raise CheckpointError(f"{path}: must take one batch of RGB images, takes {shapes}")
    return shapes[0]


def _normalizes_itself(model: onnx.ModelProto) -> bool:
    """Whether a subtraction and a multiplication stand among the first eight nodes (insightface,
    ``arcface_onnx.py``)."""
    return {"Sub", "Mul"} <= {node.op_type for node in model.graph.node[:8]}


_KNOWN_OPSET = 17
"""onnx2torch 1.5.15 knows no later version of most operations."""


def _convert(model: onnx.ModelProto, path: Path) -> fx.GraphModule:
    with needs("photos"):
        import onnx2torch
    _name_weights_directly(model)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > _KNOWN_OPSET:
            _reductions_by_attribute(model)
            # else, later versions mostly added types: `_compare` notices where they did not
            opset.version = _KNOWN_OPSET
    try:
        return onnx2torch.convert(model)
    except (NotImplementedError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be made differentiable: {error}") from error


def _name_weights_directly(model: onnx.ModelProto) -> None:
    """PyTorch's exporter stores equal weights once and passes the others by an identity, which
    onnx2torch cannot follow."""
    source = {value.name: value.name for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
        node.input[:] = [source.get(name, name) for name in node.input]


def _reductions_by_attribute(model: onnx.ModelProto) -> None:
    """Gives reductions their axes as an attribute, as before version 18 (13 for a sum), where they
    became an input."""
    from onnx import helper, numpy_helper

    constants = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        moved = node.op_type.startswith("Reduce") and node.op_type != "ReduceSum"
        if moved and len(node.input) == 2 and node.input[1] in constants:
            axes = constants[node.input.pop()].tolist()
            node.attribute.append(helper.make_attribute("axes", axes))


@torch.no_grad()
def _compare(network: nn.Module, path: Path, example: Tensor, tolerance: float = 1e-3) -> None:
    """Raises :class:`CheckpointError` if onnxruntime finds another output (relative to the
    largest). One image at a time, since a file may insist on it."""
    with needs("photos"):
        import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    try:
        found = _first(network(example))
        wanted = torch.cat(
            [
                torch.from_numpy(session.run(None, {name: one.numpy()})[0])
                for one in example.split(1)
            ]
        )
        off = ((found - wanted).abs().max() / wanted.abs().max()).item()
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be run on a batch of two images: {error}") from error
    if not off < tolerance:
        raise CheckpointError(
            f"{path}: made differentiable, it differs from onnxruntime by {off:.1e} of its largest "
            "output"
        )


def _first(outputs: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _with_maps(network: fx.GraphModule, example: Tensor) -> fx.GraphModule:
    """Makes the network return its first output, and the last map of each size that a convolution
    makes."""
    ShapeProp(network).propagate(example)
    nodes = list(network.graph.nodes)
    sizes = {_side(node) for node in nodes if _convolves(network, node)} - {0}
    last = {_side(node): node for node in nodes if _side(node) in sizes}
    output = nodes[-1]
    first = output.args[0] if isinstance(output.args[0], fx.Node) else output.args[0][0]
    output.args = ((first, tuple(last[side] for side in sorted(last, reverse=True))),)
    network.graph.eliminate_dead_code()
    network.recompile()
    return network


def _side(node: fx.Node) -> int:
    """Pixels along a side of a node's map (N, C, side, side); 0 if it is no map. One of three
    channels is an image."""
    shape = getattr(node.meta.get("tensor_meta"), "shape", ())
    return shape[3] if len(shape) == 4 and shape[1] > 3 and shape[2] == shape[3] > 1 else 0


def _convolves(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    return any(
        isinstance(module, nn.Conv2d) for module in network.get_submodule(node.target).modules()
    )


# --- timm -----------------------------------------------------------------------------------------


class TimmNetwork(FrozenNetwork):
    """A model of timm: the embedding is what its last layer would read, the maps are timm's
    intermediate ones.

    ``path``: weights of a file (safetensors or a PyTorch state dict, also under the key ``model``
    or ``state_dict``) and not timm's own. Errors as of `frozen_network`.
    """

    def __init__(self, name: str, path: Path | None = None, preparation: Preparation | None = None):
        if not timm.is_model(name):
            raise DataError(f"no timm model {name!r}; timm.list_models() names them")
        network = _published(name) if path is None else _from_file(name, path)
        own = timm.data.resolve_model_data_config(network)
        preparation = preparation or Preparation(mean=own["mean"], std=own["std"])
        super().__init__(
            network, replace(preparation, size=preparation.size or own["input_size"][1])
        )

    def look(self, prepared: Tensor) -> Look:
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
        raise CheckpointError(f"{path}: no such file")
    network = timm.create_model(name, num_classes=0)
    try:
        missing, beyond = network.load_state_dict(
            timm.models.load_state_dict(str(path)), strict=False
        )
    except Exception as error:  # a damaged file fails in its reader's own ways
        raise CheckpointError(f"{path}: holds no weights of timm's {name}: {error}") from error
    own = {key.partition(".")[0] for key in network.state_dict()}
    if wrong := missing + [key for key in beyond if key.partition(".")[0] in own]:
        raise CheckpointError(
            f"{path}: is not of timm's {name}: {len(wrong)} weights do not fit, such as {wrong[0]}"
        )
    return network


# --- the evaluator ------------------------------------------------------------------------------------


class EvaluatorNetwork(FrozenNetwork):
    """This project's evaluator: the embedding is what its heads read, AUs and emotion alike; the maps
    are its `Evaluator.features`.

    A normalizer that was trained through an evaluator must be measured by another one.
    """

    def __init__(self, evaluator: Evaluator):
        super().__init__(
            evaluator, Preparation(evaluator.config.image_size, mean=(0.0,) * 3, std=(1.0,) * 3)
        )

    def look(self, prepared: Tensor) -> Look:
        maps = self.network.features(prepared)
        return self.network.neck(maps[-1].flatten(1)), maps
