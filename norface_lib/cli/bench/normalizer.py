"""Speed and cost of the normalizer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from norface_lib.cli.bench.measuring import (
    Figure,
    best_rate,
    figure_of,
    in_own_process,
    median_seconds,
    wait_for,
)
from norface_lib.common.devices import device_of
from norface_lib.common.records import peak_memory
from norface_lib.images.arrays import to_uint8
from norface_lib.networks.classifier import parameter_count
from norface_lib.networks.encoder import FaceEncoder
from norface_lib.networks.flops import flops_of
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import PRESETS, Normalizer, NormalizerConfig, Target

BATCHES = {"tiny": 32, "tiny-224": 32, "small": 8, "base": 2}
"""Images at once on a CPU; a GPU takes 32 times as many."""


def bench_normalize(batches: Mapping[str, int] = BATCHES) -> Iterator[Figure]:
    """Faces a second, size and cost of each preset; the tiny one beside a plain ViT; on a GPU the
    compiled base beside plain matrix products."""
    device = device_of()
    factor = 32 if device.type == "cuda" else 1
    for name, batch in batches.items():
        yield in_own_process(
            preset_figure,
            name=name,
            config=PRESETS[name],
            batch=factor * batch,
            device=device,
        )
    yield figure_against_vit(PRESETS["tiny"], batch=factor * BATCHES["tiny"], device=device)
    if device.type == "cuda":
        yield compiled_figure(PRESETS["base"], batch=factor * BATCHES["base"], device=device)


def preset_figure(
    name: str, config: NormalizerConfig, *, batch: int, device: torch.device
) -> Figure:
    """Faces a second from 8 bits to 8 bits in memory, and the cost of a face; milliseconds are the
    median of one at a time."""
    model = _normalizer(config, device)
    rate = _normalizing_rate(model, batch)
    image = _images(config, count=1, device=device)
    target = _target(model)

    @torch.no_grad()
    def normalize_one() -> None:
        to_uint8(_synthesize(model, image, target))

    return figure_of(
        "normalize",
        rate,
        "images/s",
        preset=name,
        size=config.encoder.image_size,
        batch=batch,
        parameters=parameter_count(model),
        gflops_per_image=round(flops_of_normalizer(model) / 1e9, 3),
        latency_ms=round(1000 * median_seconds(normalize_one), 2),
        peak_memory_mb=round(peak_memory()),
    )


def figure_against_vit(
    config: NormalizerConfig, *, batch: int, device: torch.device, depth: int = 12
) -> Figure:
    """Faces a second through the normalizer, over those that a plain ViT of the same width and
    tokens leads to expect.

    Expected are the FLOP/s that the ViT reaches at the same batch over the FLOPs of an image: those
    of the encoder alone (``value``: merging, synthesis and 8-bit images count as loss), and those
    of the whole normalizer (``ratio_by_all_flops``).
    """
    size = config.encoder
    vit = FaceEncoder(replace(size, depth=depth, stem=(), layer_scale=None)).vit.to(device).eval()
    model = _normalizer(config, device)
    images = _images(config, count=batch, device=device)

    vit_rate = best_rate(lambda: _forward(vit.forward_features, images))
    vit_speed = vit_rate * flops_of(vit.forward_features, images[:1])
    rate = _normalizing_rate(model, batch)
    encoder_flops = flops_of(model.encoder, images[:1])
    all_flops = flops_of_normalizer(model)
    return figure_of(
        "normalize_against_vit",
        rate * encoder_flops / vit_speed,
        "ratio",
        batch=batch,
        images_per_s=round(rate, 3),
        vit={
            "width": size.dim,
            "depth": depth,
            "tokens": size.grid**2,
            "gflops_per_s": round(vit_speed / 1e9, 3),
        },
        encoder_gflops_per_image=round(encoder_flops / 1e9, 3),
        normalizer_gflops_per_image=round(all_flops / 1e9, 3),
        ratio_by_all_flops=round(rate * all_flops / vit_speed, 3),
    )


def compiled_figure(
    config: NormalizerConfig, *, batch: int, device: torch.device, matrix: int = 8192
) -> Figure:
    """Faces a second in bfloat16 through the compiled network alone, and its share of the FLOP/s
    that products of square matrices reach."""
    model = _normalizer(config, device)
    images = _images(config, count=batch, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        network = partial(torch.compile(partial(_synthesize, model)), target=_target(model))
        rate = best_rate(lambda: _forward(network, images))

    a, b = torch.randn(2, matrix, matrix, device=device, dtype=torch.bfloat16)
    # a row of the product takes 2 * matrix**2 operations
    ceiling = 2 * matrix**2 * best_rate(lambda: _forward(a.matmul, b))
    return figure_of(
        "normalize_compiled",
        rate,
        "images/s",
        batch=batch,
        ceiling_tflops_per_s=round(ceiling / 1e12, 3),
        share_of_ceiling=round(rate * flops_of_normalizer(model) / ceiling, 3),
    )


def flops_of_normalizer(model: Normalizer) -> int:
    """FLOPs of one image for a target whose tokens are computed already."""
    image = _images(model.config, count=1, device=next(model.parameters()).device)
    return flops_of(partial(_synthesize, model, target=_target(model)), image)


def _normalizer(config: NormalizerConfig, device: torch.device) -> Normalizer:
    return Normalizer(config).to(device, memory_format=torch.channels_last).eval()


def _images(config: NormalizerConfig, *, count: int, device: torch.device) -> Tensor:
    size = config.encoder.image_size
    return torch.rand(count, 3, size, size, device=device)


def _target(model: Normalizer) -> Target:
    """Features of one target picture: black, as are the references of an untrained network."""
    size = model.config.size
    return model.target(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))


def _synthesize(model: Normalizer, images: Tensor, target: Target) -> Tensor:
    return model.synthesize(model.encoder(images), target)


def _normalizing_rate(model: Normalizer, batch: int) -> float:
    """Faces a second from 8 bits to 8 bits in memory, for one target."""
    size = model.config.encoder.image_size
    faces = np.random.default_rng(0).integers(0, 256, (2 * batch, size, size, 3), np.uint8)
    target = torch.rand(1, 3, model.config.size, model.config.size)
    return best_rate(lambda: len(normalize_faces(model, target, faces, batch_size=batch)))


@torch.no_grad()
def _forward(network: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Runs a network on images that lie on its device, waits for it, and returns their number."""
    network(images)
    wait_for(images.device)
    return len(images)
