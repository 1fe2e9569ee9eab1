"""Speed of what feeds the networks: pairs of faces for a training, and frames that are read,
cropped, hashed and written by `normalize`, by the number of worker processes."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from norface_lib.cli.bench.measuring import Figure, figure_of
from norface_lib.datasets.face_files import mapped
from norface_lib.datasets.image_folder import FolderFaces
from norface_lib.datasets.normalized import normalize_dataset
from norface_lib.datasets.pairs import Pairs
from norface_lib.images.arrays import Faces, resized, to_uint8
from norface_lib.networks.weights import load_normalizer
from norface_lib.training.loader import StepSampler, make_loader

SIZE = 256
"""Pixels of a face, those of the preset base."""


class Copies:
    """A drawing that costs nothing: I_n is the original. Notes when it was first asked for one, in
    seconds of the clock and of this process."""

    target = "copies"
    input_size = SIZE
    fingerprint = "copies"
    begun: tuple[float, float] | None = None

    def draw(self, originals: Faces) -> Faces:
        """The originals."""
        self.begun = self.begun or (time.perf_counter(), time.process_time())
        return originals


def bench_loader(
    pairs: int = 2048, frames: int = 1200, batch: int = 64, workers: Sequence[int] = (0, 1, 2)
) -> Iterator[Figure]:
    """Pairs a second that a training is fed from files in the page cache, and frames a second
    without the network that draws, for each number of workers."""
    with tempfile.TemporaryDirectory() as folder:
        data = _pairs(Path(folder), pairs)
        for number in workers:
            yield loader_figure(data, batch=batch, workers=number)
        _write_frames(Path(folder) / "frames", frames)
        for number in workers:
            yield frames_figure(Path(folder), frames=frames, batch=batch, workers=number)


def loader_figure(data: Pairs, *, batch: int, workers: int) -> Figure:
    """Pairs a second out of the loader of a training, from the second batch on; and milliseconds of
    the processor that a batch costs the process that trains."""
    steps = len(data) // batch
    sampler = StepSampler(len(data), batch, steps=steps)
    batches = iter(make_loader(data, sampler, torch.device("cpu"), workers))
    next(batches)
    started, worked = time.perf_counter(), time.process_time()
    count = sum(len(each.labels) for each in batches)
    seconds, own = time.perf_counter() - started, time.process_time() - worked
    return figure_of(
        "loader",
        count / seconds,
        "pairs/s",
        size=SIZE,
        batch=batch,
        workers=workers,
        own_ms_per_batch=round(1000 * own / (steps - 1), 2),
    )


def frames_figure(folder: Path, *, frames: int, batch: int, workers: int) -> Figure:
    """Frames a second of `normalize` but for its network, from the first batch that was read on;
    and milliseconds of the processor that a frame costs the process that draws."""
    drawing = Copies()
    normalize_dataset(
        FolderFaces(folder / "frames"),
        folder / f"out{workers}",
        drawing=drawing,
        batch_size=batch,
        workers=workers,
        progress=False,
    )
    started, worked = drawing.begun
    return figure_of(
        "frames",
        frames / (time.perf_counter() - started),
        "frames/s",
        size=SIZE,
        batch=batch,
        workers=workers,
        frames=frames,
        own_ms_per_frame=round(1000 * (time.process_time() - worked) / frames, 2),
    )


def _faces(count: int) -> Iterator[Faces]:
    """The shipped target face (1, 512, 512, 3) with a little noise, as many as wanted."""
    face = resized(to_uint8(load_normalizer("tiny")[1]), 2 * SIZE).astype(np.int16)
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield (face + rng.integers(-3, 4, face.shape)).clip(0, 255).astype(np.uint8)


def _pairs(folder: Path, count: int) -> Pairs:
    some = [resized(face, SIZE) for face in _faces(16)]
    files = [
        mapped((some[n % 16] for n in range(count)), count, SIZE, folder / f"{kind}.npy")
        for kind in ("originals", "normalized")
    ]
    labels = np.zeros((count, 12), np.float32)
    return Pairs(*files, labels, np.full(count, "one"))


def _write_frames(folder: Path, count: int) -> None:
    folder.mkdir()
    for number, face in enumerate(_faces(count)):
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), face[0])
