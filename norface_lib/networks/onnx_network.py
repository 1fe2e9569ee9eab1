"""ONNX image networks as frozen networks, made differentiable by onnx2torch.

Whoever imports this module loads onnx, onnx2torch and onnxruntime:
`norface_lib.networks.frozen.frozen_network` does so when one is asked for.
"""

from dataclasses import replace
from pathlib import Path

import onnx
import onnx2torch
import onnxruntime
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from norface_lib.common.errors import CheckpointError
from norface_lib.common.paths import no_file
from norface_lib.networks.frozen import IMAGENET, Encoding, FrozenNetwork, Preparation


class OnnxNetwork(FrozenNetwork):
    """An ONNX image network in PyTorch, compared with onnxruntime before it is used.

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
        size = preparation.size or shape[2]  # the width stands third in both layouts
        if not size:
            raise CheckpointError(
                f"{path}: takes images of any size; choose one: Preparation(size=...)"
            )
        super().__init__(_convert(model, path), replace(preparation, size=size))

        self.channels_last = shape[3] == 3
        noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        example = self._arrange(self.prepare(noise))
        _compare(self.network, path, example)
        self.network = _with_maps(self.network, example)

    def encode(self, prepared: Tensor) -> Encoding:
        value, maps = self.network(self._arrange(prepared))
        return value.flatten(1), maps

    def _arrange(self, prepared: Tensor) -> Tensor:
        return prepared.permute(0, 2, 3, 1) if self.channels_last else prepared


def _read_onnx(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise CheckpointError(f"{path}: {no_file(path)}; check the path")
    try:
        return onnx.load(path)
    except DecodeError as error:
        raise CheckpointError(f"{path}: damaged, or not an ONNX file") from error


def _input_shape(model: onnx.ModelProto, path: Path) -> list[int]:
    """Four sides of the input, 0 where the file leaves one open. Old files list weights among the
    inputs."""
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
    """Tells whether a subtraction and a multiplication stand among the first eight nodes
    (insightface, ``arcface_onnx.py``)."""
    return {"Sub", "Mul"} <= {node.op_type for node in model.graph.node[:8]}


_KNOWN_OPSET = 17
"""onnx2torch 1.5.15 knows no later version of most operations."""


def _convert(model: onnx.ModelProto, path: Path) -> fx.GraphModule:
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
    constants = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        moved = node.op_type.startswith("Reduce") and node.op_type != "ReduceSum"
        if moved and len(node.input) == 2 and node.input[1] in constants:
            axes = constants[node.input.pop()].tolist()
            node.attribute.append(onnx.helper.make_attribute("axes", axes))


@torch.no_grad()
def _compare(network: nn.Module, path: Path, example: Tensor, tolerance: float = 1e-3) -> None:
    """Raises :class:`CheckpointError` if onnxruntime gives another output (relative to the
    largest). One image at a time, since a file may insist on it."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    try:
        output = _first(network(example))
        parts = [session.run(None, {name: one.numpy()})[0] for one in example.split(1)]
        expected = torch.cat([torch.from_numpy(part) for part in parts])
        off = ((output - expected).abs().max() / expected.abs().max()).item()
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
