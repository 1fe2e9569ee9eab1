"""Speed of each stage on this machine: one JSON line for each figure."""

import itertools
import json
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from norface_lib import labels
from norface_lib.common.devices import device_of, mixed_precision
from norface_lib.common.errors import DataError
from norface_lib.common.records import machine, peak_memory, versions
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.sampling import sample_face, sample_frame
from norface_lib.faces.studio import Studio
from norface_lib.faces.writing import render_subject
from norface_lib.images.arrays import to_tensor, to_uint8
from norface_lib.images.crop import align_face
from norface_lib.networks.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierOutput,
    auxiliary_loss,
    parameter_count,
)
from norface_lib.networks.encoder import FaceEncoder
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.mixtures import (
    MixtureOfExperts,
    OutputMixture,
    sparse_sum,
)
from norface_lib.networks.normalizer import PRESETS, Normalizer, NormalizerConfig, Target
from norface_lib.photos.detection import Detector, open_detector
from norface_lib.photos.prediction import predict_tree
from norface_lib.tasks.tasks import Detection
from norface_lib.training.classifier import predict

Figure = dict[str, Any]


class Times(NamedTuple):
    """Seconds of each of some runs."""

    clock: list[float]
    processor: list[float]

    def ratio(self) -> float:
        """The first run over the second by the clock."""
        return self.clock[0] / self.clock[1]

    def ratio_of_processor(self) -> float:
        """The same by the processor's seconds."""
        return self.processor[0] / self.processor[1]


def _figure(name: str, value: float, unit: str, **more: Any) -> Figure:
    return {"name": name, "value": round(value, 3), "unit": unit, **more}


def _best_of(run: Callable[[], int], repeats: int = 3) -> float:
    """Items a second in the fastest of some runs of ``run``, which returns how many items it made;
    the first run warms up."""
    run()
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        count = run()
        rates.append(count / (time.perf_counter() - started))
    return max(rates)


def bench_render(seconds: float = 20.0) -> Iterator[Figure]:
    """Images a second at 112 and 224 px, originals and true images alike, written to disk: one
    process, then one for each core.

    Processes are running when the clock starts, as in any long run; memory is that of one process
    after its first and after its last subject.
    """
    cores = os.cpu_count() or 1
    for size in (112, 224):
        single: float | None = None
        for processes in sorted({1, cores}):
            context = multiprocessing.get_context("spawn")  # Warp must not be forked
            with tempfile.TemporaryDirectory() as folder, context.Manager() as manager:
                spec = BenchmarkSpec(pool="evaluator", subjects=10_000, frames=10, size=size)
                (Path(folder) / "parts").mkdir()
                job = partial(
                    _render_for, spec, folder, seconds, processes, manager.Barrier(processes)
                )
                with ProcessPoolExecutor(processes, context) as pool:
                    rates = list(pool.map(job, range(processes)))
            rate = sum(images / took for images, took, *_ in rates)
            single = single or rate
            memory = [round(max(row[k] for row in rates)) for k in (2, 3)]
            ratio = {"ratio_to": "one process", "ratio": round(rate / single, 2)}
            yield _figure(
                "render",
                rate,
                "images/s",
                size=size,
                processes=processes,
                **ratio,
                memory_mb_first_and_last=memory,
            )


def _render_for(
    spec: BenchmarkSpec,
    folder: str,
    seconds: float,
    processes: int,
    ready: threading.Barrier,
    first: int,
) -> tuple[int, float, float, float]:
    """Renders every ``processes``-th subject for some seconds: images, seconds, memory in MB after
    the first and the last."""
    render_subject(spec, first, folder)  # loads the head, makes the buffers
    ready.wait()
    started, images, memory = time.perf_counter(), 0, []
    for number in itertools.count(first + processes, processes):
        render_subject(spec, number, folder)
        images += 2 * spec.frames
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        if (took := time.perf_counter() - started) > seconds:
            return images, took, memory[0], memory[-1]
    raise AssertionError("the count never ends")


_BATCHES = {"tiny": 32, "small": 8, "base": 2}
"""Images at once on a CPU. A GPU takes ``_GPU_BATCHES`` times as many."""

_GPU_BATCHES = 32


def bench_normalize(presets: Sequence[str] = tuple(PRESETS)) -> Iterator[Figure]:
    """Faces a second, size and cost of each preset; what the tiny one loses to its parts; on a GPU
    what it leaves unused."""
    device = device_of()
    factor = _GPU_BATCHES if device.type == "cuda" else 1
    for name in presets:
        # its peak of memory is its own
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            yield pool.submit(
                _preset_figure, name, PRESETS[name], factor * _BATCHES[name], device
            ).result()
    yield _figure_against_vit(PRESETS["tiny"], factor * _BATCHES["tiny"], device)
    if device.type == "cuda":
        yield _compiled_figure(PRESETS["base"], factor * _BATCHES["base"], device)


def _preset_figure(name: str, config: NormalizerConfig, batch: int, device: torch.device) -> Figure:
    """Faces a second from 8 bits to 8 bits in memory, and what a face costs. Milliseconds are the
    median of one at a time."""
    model = _normalizer(config, device)
    rate = _normalizing_rate(model, batch)
    image = _images(config, 1, device)
    target = model.target(image)
    more = {
        "preset": name,
        "size": config.encoder.image_size,
        "batch": batch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops_per_image": round(_whole_flops(model) / 1e9, 3),
        "latency_ms": round(
            1000 * _median_seconds(lambda: to_uint8(_draw(model, image, target))), 2
        ),
    }
    return _figure("normalize", rate, "images/s", **more, peak_memory_mb=round(peak_memory()))


def _figure_against_vit(
    config: NormalizerConfig, batch: int, device: torch.device, depth: int = 12
) -> Figure:
    """Faces a second through the normalizer, over what a plain ViT of the same width and tokens
    leads to expect.

    Expected are the FLOP/s that the ViT reaches at the same batch over the FLOPs of an image: those
    of the encoder alone (``value``: merging, drawing and 8-bit images count as loss), and those of
    the whole normalizer (``ratio_by_all_flops``).
    """
    size = config.encoder
    vit = FaceEncoder(replace(size, depth=depth, stem=(), layer_scale=None)).vit.to(device).eval()
    model, images = _normalizer(config, device), _images(config, batch, device)
    vit_speed = _best_of(lambda: _forward(vit.forward_features, images)) * _flops(
        vit.forward_features, images[:1]
    )
    rate = _normalizing_rate(model, batch)
    neutral, whole = _flops(model.encoder, images[:1]), _whole_flops(model)
    return _figure(
        "normalize_against_vit",
        rate * neutral / vit_speed,
        "ratio",
        batch=batch,
        images_per_s=round(rate, 3),
        vit={
            "width": size.dim,
            "depth": depth,
            "tokens": size.grid**2,
            "gflops_per_s": round(vit_speed / 1e9, 3),
        },
        encoder_gflops_per_image=round(neutral / 1e9, 3),
        normalizer_gflops_per_image=round(whole / 1e9, 3),
        ratio_by_all_flops=round(rate * whole / vit_speed, 3),
    )


def _compiled_figure(
    config: NormalizerConfig, batch: int, device: torch.device, matrix: int = 8192
) -> Figure:
    """Faces a second in bfloat16 through the compiled network alone, and the share of what matrix
    products reach there."""
    model = _normalizer(config, device)
    images = _images(config, batch, device)
    with torch.autocast(device.type, torch.bfloat16):
        network = partial(torch.compile(partial(_draw, model)), target=model.target(images[:1]))
        rate = _best_of(lambda: _forward(network, images))
    ceiling = _matrix_speed(matrix, device)
    more = {"batch": batch, "ceiling_tflops_per_s": round(ceiling / 1e12, 3)}
    return _figure(
        "normalize_compiled",
        rate,
        "images/s",
        **more,
        share_of_ceiling=round(rate * _whole_flops(model) / ceiling, 3),
    )


def _normalizer(config: NormalizerConfig, device: torch.device) -> Normalizer:
    return Normalizer(config).to(device, memory_format=torch.channels_last).eval()


def _images(config: NormalizerConfig, count: int, device: torch.device) -> Tensor:
    return torch.rand(count, 3, config.encoder.image_size, config.encoder.image_size, device=device)


def _draw(model: Normalizer, images: Tensor, target: Target) -> Tensor:
    return model.synthesize(model.encoder(images), target)


def _normalizing_rate(model: Normalizer, batch: int) -> float:
    """Faces a second from 8 bits to 8 bits in memory, for one target."""
    size = model.config.encoder.image_size
    faces = np.random.default_rng(0).integers(0, 256, (2 * batch, size, size, 3), np.uint8)
    return _best_of(
        lambda: len(normalize_faces(model, to_tensor(faces[0]), faces, batch_size=batch))
    )


@torch.no_grad()
def _forward(network: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Runs a network on images that lie on its device, waits for it, and says how many they were."""
    network(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return len(images)


@torch.no_grad()
def _median_seconds(run: Callable[[], Any], repeats: int = 15) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _whole_flops(model: Normalizer) -> int:
    """FLOPs of drawing one image for a target that is prepared already."""
    image = _images(model.config, 1, next(model.parameters()).device)
    return _flops(partial(_draw, model, target=model.target(image)), image)


def _flops(network: Callable[[Tensor], Tensor], image: Tensor) -> int:
    """Floating-point operations of one image (1, 3, S, S), a multiplication and an addition counted
    as two.

    By ``torch.utils.flop_counter``, which overlooks the fused attention of a CPU, so attention runs
    as plain matrix products.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops()


def _matrix_speed(size: int, device: torch.device) -> float:
    """FLOP/s of a product of two square bfloat16 matrices."""
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    # it counts rows, which cost as much each
    return 2 * size**2 * _best_of(lambda: _forward(a.matmul, b))


def bench_classify(batch: int = 32) -> Iterator[Figure]:
    """Speed and cost of the classifier over those of its backbone alone, what its inputs cost, and
    what sparse experts save."""
    device = device_of()
    for name in ("tiny", "base") if device.type == "cuda" else ("tiny",):
        config = ClassifierConfig(labels.columns(), encoder=PRESETS[name].encoder)
        for training in (True, False):
            # its peak of memory is its own
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                yield pool.submit(
                    _against_backbone_figure, name, config, batch, training, device
                ).result()
    yield from _input_figures(2 * batch)
    for at in ("input", "output"):
        yield _sparse_figure(at, device)


def _against_backbone_figure(
    name: str, config: ClassifierConfig, batch: int, training: bool, device: torch.device
) -> Figure:
    """Milliseconds of a batch of faces through the whole classifier, over those of its backbone on
    as many images.

    ``training``: forward and backward in the precision of a training, else forward alone. Both ways
    images lie on the device. The networks take turns, so that a machine that slows down slows both.
    """
    model = Classifier(config).to(device, memory_format=torch.channels_last).train(training)
    count = 2 if config.inputs == "both" else 1
    images = torch.rand(count * batch, 3, model.image_size, model.image_size, device=device)
    faces = dict(
        zip(
            ("original", "normalized") if count == 2 else (config.inputs,),
            images.chunk(count),
            strict=True,
        )
    )
    work = _step if training else _without_gradient
    times = _seconds_in_turns(
        [
            partial(work, model, lambda: _loss(model(**faces))),
            partial(work, model, lambda: model.embed(images).square().mean()),
        ],
        device,
    )
    backbone = parameter_count(model.encoder) + parameter_count(model.expression)
    return _figure(
        "classify_step" if training else "classify_inference",
        times.ratio(),
        "ratio to backbone",
        ratio_of_processor_time=round(times.ratio_of_processor(), 3),
        preset=name,
        size=model.image_size,
        inputs=config.inputs,
        batch=batch,
        threads=torch.get_num_threads(),
        ms=round(1000 * times.clock[0], 2),
        backbone_ms=round(1000 * times.clock[1], 2),
        images_per_s=round(len(images) / times.clock[0], 3),
        parameters=parameter_count(model),
        backbone_parameters=backbone,
        peak_memory_mb=round(peak_memory()),
    )


def _loss(output: ClassifierOutput) -> Tensor:
    """A loss that costs nothing, and the auxiliary losses, which are the classifier's own."""
    return output.logits.square().mean() + auxiliary_loss(output)


def _step(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Forward and backward, as a training takes them."""
    model.zero_grad(set_to_none=True)
    with mixed_precision(next(model.parameters()).device):
        value = loss()
    value.backward()


@torch.inference_mode()
def _without_gradient(_: nn.Module, run: Callable[[], Tensor]) -> None:
    run()


def _seconds_in_turns(
    runs: Sequence[Callable[[], Any]], device: torch.device, turns: int = 7
) -> Times:
    """Least seconds of each of some runs by the clock, and of the processor. They take turns; a
    first turn warms up.

    The processor's seconds, summed over its cores, leave out what other programs took meanwhile. On
    a GPU they say little.
    """
    seconds: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(1 + turns):
        for run, took in zip(runs, seconds, strict=True):
            started, worked = time.perf_counter(), time.process_time()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            took.append((time.perf_counter() - started, time.process_time() - worked))
    clock, processor = (
        [min(turn[which] for turn in took[1:]) for took in seconds] for which in (0, 1)
    )
    return Times(clock, processor)


def _input_figures(batch: int) -> Iterator[Figure]:
    """Faces a second from 8 bits to probabilities for one input and for both, and how much slower
    two images are than one."""
    rates: dict[str, float] = {}
    task = Detection(labels.columns())
    for inputs in ("original", "both"):
        model = (
            Classifier(ClassifierConfig(labels.columns(), inputs=inputs))
            .to(memory_format=torch.channels_last)
            .eval()
        )
        size = model.image_size
        faces = np.random.default_rng(0).integers(0, 256, (2 * batch, size, size, 3), np.uint8)
        rates[inputs] = _best_of(
            lambda model=model, faces=faces: len(predict(model, faces, faces, task, batch))
        )
        ratio = (
            {}
            if inputs == "original"
            else {"ratio_to": "original", "ratio": round(rates[inputs] / rates["original"], 2)}
        )
        yield _figure(
            "classify", rates[inputs], "images/s", size=size, inputs=inputs, batch=batch, **ratio
        )


def bench_align(photos: int = 12) -> Iterator[Figure]:
    """Photographs of 640 x 480 px with one face a second, through MediaPipe's landmarker and the
    crop, on one core.

    ``levels``: how far it searches for small faces; with 0 it looks at the image once. Its networks
    are downloaded if needed.
    """
    images = _photographs(photos)
    for levels in (0, 1, 2):
        detector = open_detector("mediapipe", levels=levels)
        rate = _best_of(lambda detector=detector: sum(map(partial(_align_all, detector), images)))
        yield _figure(
            "align", rate, "faces/s", width=640, height=480, size=112, levels=levels, threads=1
        )


def bench_end_to_end(photos: int = 96) -> Iterator[Figure]:
    """Faces a second of `predict` on a folder of photographs: found, cropped, normalized, read by
    three networks, all written.

    JPEGs of 640 x 480 px with a face each. Loading the networks is part of it. ``first_call``: the
    same for the first call of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "photographs")
        source.mkdir()
        for number, image in enumerate(_photographs(12)):
            for copy in range(number, photos, 12):
                cv2.imwrite(str(source / f"{copy:04d}.jpg"), image[..., ::-1])
        detector = open_detector("mediapipe")
        first, second = (
            _predict_seconds(source, Path(folder, name), detector) for name in ("once", "again")
        )
        took, counts = second
        yield _figure("end_to_end", counts["aligned"] / took, "faces/s", width=640, height=480, faces=counts["aligned"],
                      first_call=round(counts["aligned"] / first[0], 1), threads=torch.get_num_threads())  # fmt: skip


def _predict_seconds(source: Path, out: Path, detector: Detector) -> tuple[float, Counter[str]]:
    started = time.perf_counter()
    counts = predict_tree(source, out, detector, progress=False)
    return time.perf_counter() - started, counts


def _photographs(count: int) -> NDArray[np.uint8]:
    """(N, 480, 640, 3): rendered people at 224 px before gray."""
    rng, studio = np.random.default_rng(0), Studio(224)
    images = np.full((count, 480, 640, 3), 128, np.uint8)
    for image in images:
        image[128:352, 208:432] = studio.original(sample_face(rng), sample_frame(rng), rng)
    return images


def _align_all(detector: Detector, image: NDArray[np.uint8]) -> int:
    return len([align_face(image, face.points) for face in detector.detect(image)])


def dense_sum(
    experts: Sequence[nn.Module],
    x: Tensor,
    gates: Tensor,
    read: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """What `norface_lib.networks.mixtures.sparse_sum` computes, by all experts for all samples: the
    same arguments and result."""
    values = (expert(x) if read is None else read(expert(x)) for expert in experts)
    return sum(gate * value for gate, value in zip(gates.unbind(-1), values, strict=True))


def _sparse_figure(
    at: str,
    device: torch.device,
    count: int = 4096,
    dim: int = 512,
    hidden: int = 2048,
    experts: int = 16,
    turns: int = 2,
) -> Figure:
    """How much faster forward and backward of a mixture with 2 experts kept are than computing all
    of them, at one end.

    ``ideal`` is all pairs of sample and expert over those that are chosen. The output mixture has a
    gate for each of 12 labels, which choose independently here: the worst case, as labels that
    agree choose the same experts.
    """
    label_count = len(labels.columns())
    mixture = (
        MixtureOfExperts(dim, hidden, experts)
        if at == "input"
        else OutputMixture(dim, hidden, label_count, experts)
    ).to(device)
    nn.init.normal_(mixture.gate.clean.weight)
    x = torch.randn(count, dim, device=device)
    with torch.no_grad():
        gates = mixture.eval().gate(x).gates
    gates = gates[:, None] if at == "input" else gates
    read = None if at == "input" else partial(F.linear, weight=mixture.head_weight)
    ways = [
        lambda way=way: way(mixture.experts, x, gates, read).square().mean()
        for way in (dense_sum, sparse_sum)
    ]
    step, forward = (
        _seconds_in_turns([partial(work, mixture, way) for way in ways], device, turns)
        for work in (_step, _without_gradient)
    )
    return _figure(
        "sparse_experts",
        step.ratio(),
        "times faster than dense",
        ratio_of_processor_time=round(step.ratio_of_processor(), 3),
        at=at,
        ideal=round((gates != 0).any(dim=1).float().mean().item() ** -1, 2),
        forward=round(forward.ratio(), 2),
        ms=round(1000 * step.clock[1], 2),
        dense_ms=round(1000 * step.clock[0], 2),
        samples=count,
        experts=experts,
        top_k=mixture.gate.top_k,
        width=dim,
        hidden=hidden,
        threads=torch.get_num_threads(),
    )


BENCHES = {
    "render": bench_render,
    "normalize": bench_normalize,
    "classify": bench_classify,
    "align": bench_align,
    "end-to-end": bench_end_to_end,
}


def run(names: list[str]) -> None:
    """Prints the figures of the named benches, or of all. Raises :class:`DataError` for an unknown
    name."""
    if unknown := set(names) - BENCHES.keys():
        raise DataError(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    where = {"machine": machine(), "versions": versions()}
    for name in names or BENCHES:
        for figure in BENCHES[name]():
            print(json.dumps(figure | where), flush=True)
