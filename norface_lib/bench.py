"""Speed of each stage on this machine: one JSON line for each figure."""

import itertools
import json
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from norface_lib import labels
from norface_lib.classifier import Classifier, ClassifierConfig
from norface_lib.errors import DataError
from norface_lib.evaluation import machine, normalize_faces, predict, versions
from norface_lib.faces.benchmark import BenchmarkSpec, render_subject
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


def bench_render(seconds: float = 20.0) -> Iterator[Figure]:
    """Images a second at 112 and 224 px, originals and true images alike, written to disk: one process, then one for each core.

    Processes are running when the clock starts, as in any long run; memory is that of one process after its first and after its
    last subject.
    """
    cores = os.cpu_count() or 1
    for size in (112, 224):
        single: float | None = None
        for processes in sorted({1, cores}):
            context = multiprocessing.get_context("spawn")  # Warp must not be forked
            with tempfile.TemporaryDirectory() as folder, context.Manager() as manager:
                spec = BenchmarkSpec("judge", subjects=10_000, frames=10, size=size)
                (Path(folder) / "parts").mkdir()
                job = partial(_render_for, spec, folder, seconds, processes, manager.Barrier(processes))
                with ProcessPoolExecutor(processes, context) as pool:
                    rates = list(pool.map(job, range(processes)))
            rate = sum(images / took for images, took, *_ in rates)
            single = single or rate
            memory = [round(max(row[k] for row in rates)) for k in (2, 3)]
            ratio = {"ratio_to": "one process", "ratio": round(rate / single, 2)}
            yield _figure("render", rate, "images/s", size=size, processes=processes, **ratio, memory_mb_first_and_last=memory)


def _render_for(
    spec: BenchmarkSpec, folder: str, seconds: float, processes: int, ready: threading.Barrier, first: int
) -> tuple[int, float, float, float]:
    """Renders every ``processes``-th subject for some seconds: images, seconds, memory in MB after the first and the last."""
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
