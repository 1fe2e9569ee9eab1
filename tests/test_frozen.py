"""Frozen networks against the networks that they hold, onnxruntime, OpenCV's warp and insightface's
own preparation."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import huggingface_hub
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.images.crop import ARCFACE_CROP, NORFACE_CROP, similarity
from norface_lib.networks import onnx_network
from norface_lib.networks.evaluator import Evaluator, EvaluatorConfig
from norface_lib.networks.frozen import (
    ARCFACE,
    ARCFACE_FILE,
    IMAGENET,
    Preparation,
    TimmNetwork,
    frozen_network,
    reframe,
)
from norface_lib.networks.onnx_network import OnnxNetwork
from norface_lib.networks.weights import save_evaluator

# --- the framing ----------------------------------------------------------------------------------


def dots(size):
    """An image of each of the five points (5, 1, size, size): a soft dot, as wide at any size."""
    y, x = np.mgrid[:size, :size]
    spread = 1.5 * size / 112
    images = [
        np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * spread**2))
        for px, py in NORFACE_CROP.pixels(size)
    ]
    return torch.from_numpy(np.array(images, np.float32))[:, None]


@pytest.mark.parametrize(("size", "to"), [(112, 112), (256, 112), (64, 112), (112, 224)])
def test_five_points_land_where_the_template_has_them(size, to):
    found = reframe(dots(size), ARCFACE_CROP, to)[:, 0].double()
    weight = found / found.sum((1, 2), keepdim=True)
    place = torch.arange(to, dtype=torch.float64)
    centers = np.stack([(weight.sum(1) * place).sum(1), (weight.sum(2) * place).sum(1)], axis=1)
    np.testing.assert_allclose(centers, ARCFACE_CROP.pixels(to), atol=0.1)


def smooth_faces(count=2, size=112):
    """(N, size, size, 3) of 8 bits without fine detail, where two ways to interpolate agree."""
    rng = np.random.default_rng(0)
    # reddish: colors have an order
    coarse = (rng.integers(0, 256, (count, 8, 8, 3)) * (1.0, 0.5, 0.2)).astype(np.uint8)
    return np.stack(
        [
            cv2.GaussianBlur(
                cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), (0, 0), 3
            )
            for image in coarse
        ]
    )


def as_images(faces):
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255


def test_reframe_is_the_warp_of_opencv():
    faces = smooth_faces()
    matrix = similarity(NORFACE_CROP.pixels(112), ARCFACE_CROP.pixels(112))
    expected = [
        cv2.warpAffine(face.astype(np.float32), matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE)
        for face in faces
    ]
    found = reframe(as_images(faces), ARCFACE_CROP, 112)
    torch.testing.assert_close(found, as_images(np.stack(expected)), atol=0.01, rtol=0)


def test_reframe_to_our_own_crop_resizes_and_no_more():
    images = as_images(smooth_faces())
    assert reframe(images, NORFACE_CROP, 112) is images
    assert reframe(torch.full((1, 3, 256, 256), 0.3), NORFACE_CROP, 112).sub(0.3).abs().max() < 1e-6


def test_an_image_that_shrinks_is_filtered_first():
    """Stripes of single pixels become gray, and no pattern of their own."""
    stripes = (torch.arange(336) % 2).float().expand(1, 3, 336, 336)
    assert reframe(stripes, ARCFACE_CROP, 112).sub(0.5).abs().max() < 0.1


def test_the_gradient_of_the_warp_is_that_of_differences():
    images = torch.rand(
        1, 1, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reframe(x, ARCFACE_CROP, 6), images)


# --- ONNX -----------------------------------------------------------------------------------------


class Small(nn.Module):
    """The network of the files below: images (N, 3, S, S) to (N, 5)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(3, 8, 3, stride=2),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
        )
        self.norm, self.act, self.head = nn.BatchNorm2d(8), nn.PReLU(8), nn.Linear(12, 5)
        nn.init.uniform_(self.norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(self.norm.running_var, 0.5, 1.5)

    def maps(self, x):
        fine = self.act(self.norm(self.first(F.pad(x, (0, 1, 0, 1)))))
        return fine, F.relu(self.second(fine))

    def forward(self, x):
        return self.head(self.maps(x)[-1].mean((2, 3)))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Small().eval()


def write_onnx(
    small, path, opset=11, size=112, own_normalization=False, channels_last=False, batch="n"
):
    """The network written down node by node. From opset 18 on a mean takes its axes as an input.

    One weight comes through an identity, as PyTorch's exporter writes a weight that equals another.
    """
    weights = {
        name: value.detach().numpy() for name, value in small.state_dict().items() if value.ndim
    }
    weights["act.weight"] = weights["act.weight"].reshape(-1, 1, 1)
    weights |= {"pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "axes": np.array([2, 3])}
    weights |= {"minus": np.float32(127.5), "scale": np.float32(1 / 127.5)}
    norm = [f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    nodes, x = [], "image"
    if own_normalization:
        nodes += [
            helper.make_node("Sub", [x, "minus"], ["shifted"]),
            helper.make_node("Mul", ["shifted", "scale"], ["scaled"]),
        ]
        x = "scaled"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [x], ["planes"], perm=[0, 3, 1, 2]))
        x = "planes"
    mean = {"inputs": ["seen", "axes"]} if opset >= 18 else {"inputs": ["seen"], "axes": [2, 3]}
    nodes += [
        helper.make_node("Identity", ["second.bias"], ["bias"]),
        helper.make_node("Pad", [x, "pads"], ["padded"]),
        helper.make_node(
            "Conv", ["padded", "first.weight", "first.bias"], ["conv"], strides=[2, 2]
        ),
        helper.make_node("BatchNormalization", ["conv", *norm], ["normed"]),
        helper.make_node("PRelu", ["normed", "act.weight"], ["fine"]),
        helper.make_node(
            "Conv", ["fine", "second.weight", "bias"], ["coarse"], strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("Relu", ["coarse"], ["seen"]),
        helper.make_node("ReduceMean", outputs=["pooled"], keepdims=0, **mean),
        helper.make_node("Gemm", ["pooled", "head.weight", "head.bias"], ["embedding"], transB=1),
    ]
    shape = [batch, size, size, 3] if channels_last else [batch, 3, size, size]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path
    )
    return path


def images_of(size=112, seed=1):
    return torch.rand(
        2, 3, size, size, generator=torch.Generator().manual_seed(seed)
    ).requires_grad_()


PLAIN = Preparation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20])
def test_an_onnx_network_and_its_gradient_are_those_of_the_network(small, tmp_path, opset):
    network = OnnxNetwork(write_onnx(small, tmp_path / "small.onnx", opset), PLAIN)
    images = images_of()
    found, expected = network.embed(images), small(images * 2 - 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    gradients = [
        torch.autograd.grad((value * direction).sum(), images)[0] for value in (found, expected)
    ]
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-4)
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_network_that_normalizes_itself_gets_0_to_255(small, tmp_path, channels_last):
    path = write_onnx(
        small, tmp_path / "small.onnx", own_normalization=True, channels_last=channels_last
    )
    images = images_of()
    torch.testing.assert_close(
        OnnxNetwork(path).embed(images), small(images * 2 - 1), atol=1e-5, rtol=1e-5
    )


def test_the_maps_are_the_last_of_each_size(small, tmp_path):
    path = write_onnx(small, tmp_path / "small.onnx")
    images = images_of()
    found, expected = OnnxNetwork(path, PLAIN).features(images), small.maps(images * 2 - 1)
    assert [tuple(maps.shape) for maps in found] == [(2, 8, 56, 56), (2, 12, 28, 28)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_file_that_leaves_the_size_open_needs_one(small, tmp_path):
    path = write_onnx(small, tmp_path / "small.onnx", size="side")
    with pytest.raises(
        CheckpointError,
        match=r"small.onnx: takes images of any size; choose one: Preparation\(size",
    ):
        OnnxNetwork(path)
    network = OnnxNetwork(path, Preparation(size=64))
    assert network.features(images_of(112))[0].shape[-1] == 32


def test_files_that_are_no_such_network_are_refused(small, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"gone.onnx: no such file"):
        OnnxNetwork(tmp_path / "gone.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(write_onnx(small, tmp_path / "small.onnx").read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"damaged.onnx: damaged"):
        OnnxNetwork(damaged)
    alone = write_onnx(small, tmp_path / "alone.onnx", batch=1)
    # a fixed batch is no matter to these operations
    assert OnnxNetwork(alone, PLAIN).embed(images_of()).shape == (2, 5)
    with pytest.raises(
        CheckpointError,
        match=r"gray.onnx: must take one batch of RGB images, takes \[\[0, 3, 112\]\]",
    ):
        OnnxNetwork(write_value(tmp_path / "gray.onnx", "Relu", ["n", 3, 112]))
    with pytest.raises(CheckpointError, match=r"odd.onnx: cannot be made differentiable.*Hardmax"):
        OnnxNetwork(write_value(tmp_path / "odd.onnx", "Hardmax", ["n", 3, 112, 112]))
    convert = onnx_network.onnx2torch.convert
    monkeypatch.setattr(onnx_network.onnx2torch, "convert", lambda model: doubled(convert(model)))
    with pytest.raises(
        CheckpointError, match=r"small.onnx: made differentiable, it differs from onnxruntime by"
    ):
        OnnxNetwork(tmp_path / "small.onnx")


def write_value(path, operation, shape):
    """A file of a single operation."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "out")
    ]
    graph = helper.make_graph(
        [helper.make_node(operation, ["image"], ["out"])], "one", values[:1], values[1:]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path
    )
    return path


def doubled(network):
    """A conversion that went wrong: the second convolution is twice as strong."""
    with torch.no_grad():
        [module for module in network.modules() if isinstance(module, nn.Conv2d)][1].weight.mul_(2)
    return network


# --- ArcFace --------------------------------------------------------------------------------------


# insightface calls an old name of scikit-image
@pytest.mark.filterwarnings("ignore:`estimate` is deprecated")
@pytest.mark.parametrize("own_normalization", [False, True])
def test_arcface_sees_what_insightface_shows_it(small, tmp_path, own_normalization):
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX
    from insightface.utils.face_align import norm_crop

    path = write_onnx(small, tmp_path / "arcface.onnx", own_normalization=own_normalization)
    if own_normalization:  # insightface goes by the names of the nodes
        model = onnx.load(path)
        for node in model.graph.node:
            node.name = f"{node.op_type}_{node.output[0]}"
        onnx.save(model, path)
    faces = smooth_faces()
    # as our border repeats
    padded = [
        cv2.copyMakeBorder(face[..., ::-1], *[16] * 4, cv2.BORDER_REPLICATE) for face in faces
    ]
    crops = [norm_crop(face, NORFACE_CROP.pixels(112) + 16) for face in padded]
    expected = torch.from_numpy(ArcFaceONNX(str(path)).get_feat(crops))
    found = frozen_network(f"arcface:{path}").embed(as_images(faces))
    torch.testing.assert_close(found, expected, atol=2e-3 * expected.abs().max().item(), rtol=0)
    blue = frozen_network(f"arcface:{path}").embed(as_images(faces).flip(1))
    assert (blue - expected).abs().max() > 0.05 * expected.abs().max()


def test_arcface_alone_finds_what_insightface_downloaded(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"w600k_r50.onnx: no such file.*FaceAnalysis\('buffalo_l'\).*arcface:PATH",
    ):
        frozen_network("arcface")
    (tmp_path / ARCFACE_FILE).parent.mkdir(parents=True)
    write_onnx(small, tmp_path / ARCFACE_FILE)
    assert frozen_network("arcface").preparation == replace(ARCFACE, size=112)


@pytest.mark.skipif(
    "NORFACE_MODELS" not in os.environ, reason="NORFACE_MODELS names no folder with mobileface.onnx"
)
def test_a_published_identity_encoder_is_what_onnxruntime_runs():
    path = Path(os.environ["NORFACE_MODELS"], "mobileface.onnx")
    network, images = frozen_network(f"arcface:{path}"), images_of(256)
    embedding = network.embed(images)
    prepared = network.prepare(images).detach().permute(0, 2, 3, 1).numpy()
    assert prepared.min() >= 0 and 200 < prepared.max() <= 255.001
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: prepared})[0])
    torch.testing.assert_close(embedding, expected, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(embedding.square().sum(), images)
    assert gradient.isfinite().all() and gradient.abs().mean() > 0
    assert [maps.shape[-1] for maps in network.features(images)] == [56, 28, 14, 7, 4]


# --- timm -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    """A tiny model of timm with a head of seven labels, and its weights in a file."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7).eval()
    path = tmp_path_factory.mktemp("timm") / "seven.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return model, path


def test_a_timm_network_of_a_file_is_timms(timm_file):
    model, path = timm_file
    network, images = frozen_network(f"timm:test_resnet@{path}"), images_of(160)
    # this model's mean and deviation are 0.5, its size is 160
    last = model.forward_features(images * 2 - 1)
    torch.testing.assert_close(network.embed(images), model.forward_head(last, pre_logits=True))
    torch.testing.assert_close(network.features(images)[-1], last)
    assert network.embed(images_of(112)).shape == network.embed(images).shape
    assert torch.autograd.grad(network.embed(images).sum(), images)[0].abs().max() > 0


def test_a_preparation_says_what_a_network_takes(small, tmp_path):
    path = write_onnx(small, tmp_path / "small.onnx", size="side")
    preparation = Preparation(size=64, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    network = OnnxNetwork(path, preparation)
    image = torch.tensor([0.6, 0.7, 0.9]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    expected = torch.tensor([1.0, 0.5, 0.3]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    torch.testing.assert_close(network.prepare(image), expected)
    with pytest.raises(ValueError, match=r"\(N, 3, S, S\), got \(1, 3, 64, 32\)"):
        network.prepare(image[..., :32])


def test_weights_of_another_network_are_refused(timm_file, tmp_path):
    model, path = timm_file
    weights = model.state_dict()
    weights.pop("conv1.0.weight" if "conv1.0.weight" in weights else "conv1.weight")
    torch.save({"state_dict": weights}, tmp_path / "less.pth")
    torch.save(
        model.state_dict()
        | {"layer9.0.conv1.weight": torch.zeros(1), "decoder.weight": torch.zeros(1)},
        tmp_path / "more.pth",
    )
    torch.save(
        model.state_dict() | {"layer1.9.conv1.weight": torch.zeros(1)}, tmp_path / "deeper.pth"
    )
    with pytest.raises(
        CheckpointError,
        match=r"less.pth: is not of timm's test_resnet: 1 weights do not fit, such as conv1",
    ):
        TimmNetwork("test_resnet", tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"deeper.pth: is not of.*layer1.9.conv1.weight"):
        TimmNetwork("test_resnet", tmp_path / "deeper.pth")
    with pytest.raises(
        CheckpointError,
        match=r"seven.safetensors: holds no weights of timm's test_vit|is not of timm's test_vit",
    ):
        TimmNetwork("test_vit", path)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match=r"text.pth: holds no weights"):
        TimmNetwork("test_resnet", tmp_path / "text.pth")
    with pytest.raises(CheckpointError, match=r"gone.pth: no such file"):
        frozen_network(f"timm:test_resnet@{tmp_path / 'gone.pth'}")
    torch.testing.assert_close(
        TimmNetwork("test_resnet", tmp_path / "more.pth").embed(images_of()),
        TimmNetwork("test_resnet", path).embed(images_of()),
    )


def test_without_weights_at_hand_a_file_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        CheckpointError,
        match=r"timm:test_vit: its weights cannot be downloaded.*timm:test_vit@PATH",
    ):
        frozen_network("timm:test_vit")
    with pytest.raises(
        CheckpointError, match=r"timm:vit_base_patch16_18x2_224: timm has no weights for it.*@PATH"
    ):
        frozen_network("timm:vit_base_patch16_18x2_224")


# --- the evaluator, names of networks, and what is frozen -----------------------------------------


@pytest.fixture(scope="module")
def evaluator():
    torch.manual_seed(0)
    return Evaluator(EvaluatorConfig(widths=(8, 8, 16, 16), hidden=24)).eval()


def test_the_evaluator_is_looked_through(evaluator, tmp_path):
    path = save_evaluator(evaluator.half().float(), tmp_path / "evaluator.safetensors", {})
    network, images = frozen_network(f"evaluator:{path}"), images_of()
    embedding, maps = network(images)
    torch.testing.assert_close(evaluator.heads["emotion"](embedding), evaluator(images).emotion)
    for one, other in zip(maps, evaluator.features(images), strict=True):
        torch.testing.assert_close(one, other)
    assert network.embed(images_of(256)).shape == (2, 24)


@pytest.mark.parametrize("spec", ["", "vgg", "onnx", "timm:", "face:net.onnx"])
def test_an_unknown_kind_is_refused(spec):
    with pytest.raises(DataError, match="there are arcface, arcface:PATH, onnx:PATH, timm:NAME"):
        frozen_network(spec)


def test_an_unknown_model_is_refused():
    with pytest.raises(DataError, match="no timm model 'resnet_of_mine'"):
        frozen_network("timm:resnet_of_mine")


@pytest.mark.parametrize("kind", ["onnx", "timm", "evaluator"])
def test_frozen_is_frozen(kind, small, evaluator, timm_file, tmp_path):
    """Inside a module in training, after a step of its optimizer: same outputs, no gradient, no
    running statistics moved."""
    spec = {
        "onnx": lambda: f"onnx:{write_onnx(small, tmp_path / 'small.onnx')}",
        "timm": lambda: f"timm:test_resnet@{timm_file[1]}",
        "evaluator": lambda: (
            f"evaluator:{save_evaluator(evaluator, tmp_path / 'evaluator.safetensors', {})}"
        ),
    }[kind]()
    network, images = frozen_network(spec), images_of()
    before, state = (
        network.embed(images),
        {name: value.clone() for name, value in network.state_dict().items()},
    )
    whole = nn.ModuleList([network, nn.Linear(2, 2)]).train()
    assert not any(module.training for module in network.modules()) and whole[1].training
    network.embed(images).square().sum().backward()
    torch.optim.SGD(whole.parameters(), lr=1.0, weight_decay=0.1).step()
    assert images.grad.isfinite().all() and images.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.testing.assert_close(network.embed(images), before, rtol=0, atol=0)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert IMAGENET.crop == NORFACE_CROP
