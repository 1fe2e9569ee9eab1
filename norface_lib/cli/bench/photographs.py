"""Speed of rendering, of alignment, and of `predict` from photographs to a table."""

import itertools
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections import Counter
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
from norface_lib.images.crop import align_face
from norface_lib.photos.detection import Detector, open_detector
from norface_lib.photos.prediction import predict_tree


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


def bench_end_to_end(photos: int = 96) -> Iterator[Figure]:
    """Faces a second of `predict` on a folder of photographs: found, cropped, normalized, read by
    three networks, all written.

    JPEGs of 640 x 480 px with a face each. Loading the networks is part of it. ``first_call``: the
    same for the first call of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "photographs")
        source.mkdir()
        images = itertools.cycle(_photographs(12))
        for number, image in zip(range(photos), images, strict=False):
            cv2.imwrite(str(source / f"{number:04d}.jpg"), image[..., ::-1])

        detector = open_detector("mediapipe")
        first_seconds, _ = _predict_seconds(source, Path(folder, "first"), detector)
        seconds, counts = _predict_seconds(source, Path(folder, "second"), detector)

    faces = counts["aligned"]
    yield figure_of(
        "end_to_end",
        faces / seconds,
        "faces/s",
        width=640,
        height=480,
        faces=faces,
        first_call=round(faces / first_seconds, 1),
        threads=torch.get_num_threads(),
    )


def _predict_seconds(source: Path, out: Path, detector: Detector) -> tuple[float, Counter[str]]:
    started = time.perf_counter()
    counts = predict_tree(source, out, detector, progress=False)
    return time.perf_counter() - started, counts


def _photographs(count: int) -> NDArray[np.uint8]:
    """Rendered people at 224 px before gray: (N, 480, 640, 3)."""
    rng = np.random.default_rng(0)
    studio = Studio(224)
    images = np.full((count, 480, 640, 3), 128, np.uint8)
    for image in images:
        image[128:352, 208:432] = studio.original(sample_face(rng), sample_frame(rng), rng)
    return images
