"""Speed of rendering, of alignment, and of `predict` from photographs to a table."""

import itertools
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from norface_lib.cli.bench.measuring import Figure, best_rate, figure_of
from norface_lib.common.processes import end_with_parent
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.sampling import sample_face, sample_frame
from norface_lib.faces.studio import Studio
from norface_lib.faces.writing import render_subject
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import align_face
from norface_lib.images.files import read_faces
from norface_lib.photos.detection import Detector, open_detector
from norface_lib.photos.engines import ENGINES, open_engine
from norface_lib.photos.prediction import predict_tree
from norface_lib.photos.readers import READERS


def bench_render(seconds: float = 20.0) -> Iterator[Figure]:
    """Images a second at 112 and 224 px, originals and true images alike, written to disk: one
    process, then one for each core.

    Processes are running when the clock starts, as in any long run; memory is that of one process
    after its first and after its last subject.
    """
    for size in (112, 224):
        rate_of_one: float | None = None
        for processes in sorted({1, os.cpu_count() or 1}):
            rendered = _render_in_processes(size, processes, seconds)
            rate = sum(part.images / part.seconds for part in rendered)
            rate_of_one = rate_of_one or rate
            yield figure_of(
                "render",
                rate,
                "images/s",
                size=size,
                processes=processes,
                ratio_to="one process",
                ratio=round(rate / rate_of_one, 2),
                memory_mb_first_and_last=[
                    round(max(part.first_memory for part in rendered)),
                    round(max(part.last_memory for part in rendered)),
                ],
            )


class _Rendered(NamedTuple):
    """Work of one process; memory in MB after its first and its last subject."""

    images: int
    seconds: float
    first_memory: float
    last_memory: float


def _render_in_processes(size: int, processes: int, seconds: float) -> list[_Rendered]:
    context = multiprocessing.get_context("spawn")  # Warp must not be forked
    spec = BenchmarkSpec(pool="evaluator", subjects=10_000, frames=10, size=size)
    with tempfile.TemporaryDirectory() as folder, context.Manager() as manager:
        Path(folder, "parts").mkdir()
        job = partial(
            _render_for,
            spec=spec,
            folder=folder,
            seconds=seconds,
            processes=processes,
            ready=manager.Barrier(processes),
        )
        with ProcessPoolExecutor(processes, context, initializer=end_with_parent) as pool:
            return list(pool.map(job, range(processes)))


def _render_for(
    first: int,
    *,
    spec: BenchmarkSpec,
    folder: str,
    seconds: float,
    processes: int,
    ready: threading.Barrier,
) -> _Rendered:
    """Renders every ``processes``-th subject for some seconds."""
    render_subject(spec, first, folder)  # loads the head, makes the buffers
    ready.wait()

    started = time.perf_counter()
    images = 0
    memory = []
    for number in itertools.count(first + processes, processes):
        render_subject(spec, number, folder)
        images += 2 * spec.frames
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        passed = time.perf_counter() - started
        if passed > seconds:
            return _Rendered(images, passed, memory[0], memory[-1])
    raise AssertionError("the count never ends")


def bench_align(photos: int = 12) -> Iterator[Figure]:
    """Photographs of 640 x 480 px with one face a second, through MediaPipe's landmarker and the
    crop, on one core.

    ``levels``: how far it searches for small faces; with 0 it looks at the image once. Its networks
    are downloaded if needed.
    """
    images = _photographs(photos)
    for levels in (0, 1, 2):
        detector = open_detector("mediapipe", levels=levels)
        rate = best_rate(partial(_align_all, detector, images))
        yield figure_of(
            "align", rate, "faces/s", width=640, height=480, size=112, levels=levels, threads=1
        )


def _align_all(detector: Detector, images: NDArray[np.uint8]) -> int:
    crops = [align_face(image, face.points) for image in images for face in detector.detect(image)]
    return len(crops)


def bench_end_to_end(photos: int = 96, turns: int = 5) -> Iterator[Figure]:
    """Faces a second of `predict` on a folder of photographs by each engine: found, cropped,
    normalized, read by the shipped token reader, all written.

    JPEGs of 640 x 480 px with a face each; medians of calls in turns. Loading the networks is part
    of it; exporting them, once for each machine, is not. ``first_call``: the same for the first
    call of this process by this engine, with the export. ``networks``: faces a second of normalizer
    and readers alone, in batches of 64 and of one.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "photographs")
        source.mkdir()
        images = itertools.cycle(_photographs(12))
        for number, image in zip(range(photos), images, strict=False):
            cv2.imwrite(str(source / f"{number:04d}.jpg"), image[..., ::-1])

        detector = open_detector("mediapipe")
        seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        for turn in range(1 + turns):
            for engine in ENGINES:
                out = Path(folder, f"{engine}-{turn}")
                started = time.perf_counter()
                counts = predict_tree(source, out, detector, engine=engine, progress=False)
                seconds[engine].append(time.perf_counter() - started)
        crops = sorted(Path(folder, "torch-0", "aligned").rglob("*.png"))
        rates = {batch: _rates_of_networks(read_faces(crops[:64], 112), batch) for batch in (64, 1)}

    faces = counts["aligned"]
    for engine, (first, *later) in seconds.items():
        yield figure_of(
            "end_to_end",
            faces / float(np.median(later)),
            "faces/s",
            engine=engine,
            width=640,
            height=480,
            faces=faces,
            first_call=round(faces / first, 1),
            networks=round(rates[64][engine], 1),
            networks_one_by_one=round(rates[1][engine], 1),
            threads=torch.get_num_threads(),
        )


def _rates_of_networks(faces: Faces, batch: int, turns: int = 5) -> dict[str, float]:
    """Faces a second of normalizer and readers alone by each engine: medians of runs in turns."""
    engines = {name: open_engine(name, readers=READERS, device="cpu") for name in ENGINES}
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(1 + turns):
        for name, engine in engines.items():
            started = time.perf_counter()
            for start in range(0, len(faces), batch):
                engine.run(faces[start : start + batch])
            seconds[name].append(time.perf_counter() - started)
    return {name: len(faces) / float(np.median(values[1:])) for name, values in seconds.items()}


def _photographs(count: int) -> NDArray[np.uint8]:
    """Rendered people at 224 px before gray: (N, 480, 640, 3)."""
    rng = np.random.default_rng(0)
    studio = Studio(224)
    images = np.full((count, 480, 640, 3), 128, np.uint8)
    for image in images:
        image[128:352, 208:432] = studio.original(sample_face(rng), sample_frame(rng), rng)
    return images
