"""Speed of each stage on this machine: one JSON line for each figure."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from norface_lib import labels
from norface_lib.classifier import Classifier, ClassifierConfig
from norface_lib.errors import DataError
from norface_lib.evaluation import machine, normalize_faces, predict, versions
from norface_lib.faces.benchmark import BenchmarkSpec, render_subject, write_benchmark
from norface_lib.images import to_tensor
from norface_lib.normalizer import PRESETS, Normalizer

Figure = dict[str, Any]


def _figure(name: str, value: float, unit: str, **more: Any) -> Figure:
    return {"name": name, "value": round(value, 3), "unit": unit, **more}


def _best_of(run: Callable[[], int], repeats: int = 3) -> float:
    """Items a second in the fastest of some runs of ``run``, which returns how many items it made; the first run warms up."""
    run()
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        count = run()
        rates.append(count / (time.perf_counter() - started))
    return max(rates)


def bench_render(size: int = 112, frames: int = 20) -> Iterator[Figure]:
    """Images a second, originals and true images alike, written to disk: one process, then one for each core."""
    with tempfile.TemporaryDirectory() as folder:
        spec = BenchmarkSpec("judge", subjects=1, frames=frames, size=size)
        (Path(folder) / "parts").mkdir()

        def one() -> int:
            render_subject(spec, 0, folder)
            return 2 * frames

        single = _best_of(one)
        yield _figure("render", single, "images/s", size=size, processes=1)
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        # as a user runs it: the start of the processes counts, so there must be enough to do
        spec = BenchmarkSpec("judge", subjects=12 * cores, frames=30, size=size)
        started = time.perf_counter()
        write_benchmark(spec, Path(folder), workers=cores, progress=False)
        rate = 2 * spec.subjects * spec.frames / (time.perf_counter() - started)
        yield _figure(
            "render", rate, "images/s", size=size, processes=cores, ratio_to="one process", ratio=round(rate / single, 2)
        )


def bench_normalize(preset: str = "tiny", batch: int = 64) -> Iterator[Figure]:
    """Faces a second through the normalizer, in memory, without reading or writing."""
    model = Normalizer(PRESETS[preset]).to(memory_format=torch.channels_last).eval()
    size = model.config.encoder.image_size
    faces = np.random.default_rng(0).integers(0, 256, (2 * batch, size, size, 3), np.uint8)

    def run() -> int:
        return len(normalize_faces(model, to_tensor(faces[0]), faces, batch))

    yield _figure("normalize", _best_of(run), "images/s", size=size, preset=preset, batch=batch)


def bench_classify(batch: int = 64) -> Iterator[Figure]:
    """Faces a second through the classifier for each input, and how much slower two images are than one."""
    rates: dict[str, float] = {}
    for inputs in ("original", "both"):
        model = Classifier(ClassifierConfig(labels.columns(), inputs)).to(memory_format=torch.channels_last).eval()
        size = model.config.encoder.image_size
        faces = np.random.default_rng(0).integers(0, 256, (2 * batch, size, size, 3), np.uint8)
        rates[inputs] = _best_of(lambda model=model, faces=faces: len(predict(model, faces, faces, batch)))
        ratio = {} if inputs == "original" else {"ratio_to": "original", "ratio": round(rates[inputs] / rates["original"], 2)}
        yield _figure("classify", rates[inputs], "images/s", size=size, inputs=inputs, batch=batch, **ratio)


BENCHES = {"render": bench_render, "normalize": bench_normalize, "classify": bench_classify}


def run(names: list[str]) -> None:
    """Prints the figures of the named benches, or of all. Raises :class:`DataError` for an unknown name."""
    if unknown := set(names) - BENCHES.keys():
        raise DataError(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    where = {"machine": machine(), "versions": versions()}
    for name in names or BENCHES:
        for figure in BENCHES[name]():
            print(json.dumps(figure | where), flush=True)
