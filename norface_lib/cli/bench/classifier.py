"""Speed of the classifier: beside its backbone, by inputs, with sparse and with dense experts."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from norface_lib import labels
from norface_lib.cli.bench.measuring import (
    Figure,
    best_rate,
    figure_of,
    in_own_process,
    seconds_in_turns,
)
from norface_lib.common.devices import device_of, mixed_precision
from norface_lib.common.records import peak_memory
from norface_lib.networks.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierOutput,
    auxiliary_loss,
    parameter_count,
)
from norface_lib.networks.mixtures import MixtureOfExperts, OutputMixture, dense_sum, sparse_sum
from norface_lib.networks.normalizer import PRESETS
from norface_lib.tasks.tasks import Detection
from norface_lib.training.classifier import predict


def bench_classify(batch: int = 32) -> Iterator[Figure]:
    """Speed and cost of the classifier over those of its backbone alone, the cost of a second
    input, and the savings of sparse experts."""
    device = device_of()
    for name in ("tiny", "base") if device.type == "cuda" else ("tiny",):
        config = ClassifierConfig(labels.columns(), encoder=PRESETS[name].encoder)
        for training in (True, False):
            yield in_own_process(
                figure_against_backbone,
                name=name,
                config=config,
                batch=batch,
                training=training,
                device=device,
            )
    yield from input_figures(2 * batch)
    for at in ("input", "output"):
        yield sparse_figure(at, device)


def figure_against_backbone(
    name: str,
    config: ClassifierConfig,
    *,
    batch: int,
    training: bool,
    device: torch.device,
    turns: int = 7,
) -> Figure:
    """Milliseconds of a batch of faces through the whole classifier, over those of its backbone on
    as many images.

    ``training``: forward and backward in the precision of a training, else forward alone. The
    images lie on the device.
    """
    model = Classifier(config).to(device, memory_format=torch.channels_last).train(training)
    names = ("original", "normalized") if config.inputs == "both" else (config.inputs,)
    images = torch.rand(len(names) * batch, 3, model.image_size, model.image_size, device=device)
    faces = dict(zip(names, images.chunk(len(names)), strict=True))

    work = training_step if training else inference
    whole, backbone = seconds_in_turns(
        [
            partial(work, model, lambda: loss_of(model(**faces))),
            partial(work, model, lambda: model.embed(images).square().mean()),
        ],
        device,
        turns=turns,
    )
    return figure_of(
        "classify_step" if training else "classify_inference",
        whole.clock / backbone.clock,
        "ratio to backbone",
        ratio_of_processor_time=round(whole.processor / backbone.processor, 3),
        preset=name,
        size=model.image_size,
        inputs=config.inputs,
        batch=batch,
        threads=torch.get_num_threads(),
        ms=round(1000 * whole.clock, 2),
        backbone_ms=round(1000 * backbone.clock, 2),
        images_per_s=round(len(images) / whole.clock, 3),
        parameters=parameter_count(model),
        backbone_parameters=parameter_count(model.encoder) + parameter_count(model.expression),
        peak_memory_mb=round(peak_memory()),
    )


def loss_of(output: ClassifierOutput) -> Tensor:
    """A loss that costs nothing, and the classifier's own auxiliary losses."""
    return output.logits.square().mean() + auxiliary_loss(output)


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Forward and backward, as in a training."""
    model.zero_grad(set_to_none=True)
    with mixed_precision(next(model.parameters()).device):
        value = loss()
    value.backward()


@torch.inference_mode()
def inference(_: nn.Module, run: Callable[[], Tensor]) -> None:
    """Forward alone, without gradients."""
    run()


def input_figures(batch: int) -> Iterator[Figure]:
    """Faces a second from 8 bits to probabilities for one input and for both, and the ratio."""
    rate_of_one: float | None = None
    for inputs in ("original", "both"):
        model = Classifier(ClassifierConfig(labels.columns(), inputs=inputs))
        model = model.to(memory_format=torch.channels_last).eval()
        size = model.image_size
        faces = np.random.default_rng(0).integers(0, 256, (2 * batch, size, size, 3), np.uint8)
        rate = best_rate(partial(_classified, model, faces, batch))
        figure = figure_of("classify", rate, "images/s", size=size, inputs=inputs, batch=batch)
        if rate_of_one:
            figure["ratio_to"] = "original"
            figure["ratio"] = round(rate / rate_of_one, 2)
        rate_of_one = rate
        yield figure


def _classified(model: Classifier, faces: np.ndarray, batch: int) -> int:
    return len(predict(model, faces, faces, Detection(labels.columns()), batch_size=batch))


def sparse_figure(
    at: str,
    device: torch.device,
    *,
    count: int = 4096,
    dim: int = 512,
    hidden: int = 2048,
    experts: int = 16,
    turns: int = 2,
) -> Figure:
    """Speed of forward and backward of a mixture that keeps 2 experts, over that of computing all
    of them, at one end of the classifier.

    ``ideal`` is all pairs of sample and expert over those that are chosen. The output mixture has a
    gate for each of 12 labels, which choose independently here: the worst case, as labels that
    agree choose the same experts.
    """
    if at == "input":
        mixture = MixtureOfExperts(dim, hidden, experts).to(device)
        read = None
    else:
        mixture = OutputMixture(dim, hidden, len(labels.columns()), experts).to(device)
        read = partial(F.linear, weight=mixture.head_weight)
    nn.init.normal_(mixture.gate.clean.weight)
    x = torch.randn(count, dim, device=device)
    with torch.no_grad():
        gates = mixture.eval().gate(x).gates
    gates = gates[:, None] if at == "input" else gates

    def loss(sum_of_experts: Callable[..., Tensor]) -> Tensor:
        return sum_of_experts(mixture.experts, x, gates, read).square().mean()

    losses = [partial(loss, dense_sum), partial(loss, sparse_sum)]
    dense, sparse = seconds_in_turns(
        [partial(training_step, mixture, value) for value in losses], device, turns=turns
    )
    dense_forward, sparse_forward = seconds_in_turns(
        [partial(inference, mixture, value) for value in losses], device, turns=turns
    )
    return figure_of(
        "sparse_experts",
        dense.clock / sparse.clock,
        "times faster than dense",
        ratio_of_processor_time=round(dense.processor / sparse.processor, 3),
        at=at,
        ideal=round(1 / (gates != 0).any(dim=1).float().mean().item(), 2),
        forward=round(dense_forward.clock / sparse_forward.clock, 2),
        ms=round(1000 * sparse.clock, 2),
        dense_ms=round(1000 * dense.clock, 2),
        samples=count,
        experts=experts,
        top_k=mixture.gate.top_k,
        width=dim,
        hidden=hidden,
        threads=torch.get_num_threads(),
    )
