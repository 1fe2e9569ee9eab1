"""Speed of each stage on this machine, recall of small faces, and what smoothing over time costs:
one JSON line for each figure."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from norface_lib.cli.options import Stage
from norface_lib.common.records import machine, versions

_STAGES = {
    Stage.RENDER: "photographs.bench_render",
    Stage.NORMALIZE: "normalizer.bench_normalize",
    Stage.CLASSIFY: "classifier.bench_classify",
    Stage.ALIGN: "photographs.bench_align",
    Stage.END_TO_END: "photographs.bench_end_to_end",
    Stage.LOADER: "loader.bench_loader",
    Stage.SMALL_FACES: "small_faces.bench_small_faces",
    Stage.SMOOTHING: "smoothing.bench_smoothing",
}
"""Module and function that measure each stage."""


def run(stages: Iterable[Stage]) -> Iterator[dict[str, Any]]:
    """The figures of some stages as they are measured, each with the machine and the versions."""
    about = {"machine": machine(), "versions": versions()}
    for stage in stages:
        module, function = _STAGES[stage].split(".")
        measure = getattr(import_module(f"{__name__}.{module}"), function)
        for figure in measure():
            yield figure | about
