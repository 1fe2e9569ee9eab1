"""Arrays of 8-bit faces and tensors. Color order is RGB everywhere."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Faces = NDArray[np.uint8]
"""(N, S, S, 3) RGB of 8 bits: an array, a memory map, or anything else that gives (B, S, S, 3) for
an array of B rows."""


class LazyFaces:
    """Faces of one or several sources, one after the other, (N, S, S, 3), or some rows of these.

    They are read from where they lie when they are asked for, so that no memory map is copied.
    """

    def __init__(self, sources: Sequence[Faces], rows: NDArray[np.intp] | None = None):
        self.sources = list(sources)
        self.ends = np.cumsum([len(source) for source in self.sources])
        self.rows = np.arange(self.ends[-1]) if rows is None else np.asarray(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return (len(self), *self.sources[0].shape[1:])

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> NDArray[np.uint8]:
        """(B, S, S, 3) for an array of B rows or a slice."""
        rows = self.rows[rows]
        source_of = np.searchsorted(self.ends, rows, side="right")
        faces = np.empty((len(rows), *self.shape[1:]), np.uint8)

        for number, source in enumerate(self.sources):
            chosen = source_of == number
            if chosen.any():
                first = self.ends[number] - len(source)
                faces[chosen] = source[rows[chosen] - first]
        return faces


def to_tensor(faces: NDArray[np.uint8] | Tensor) -> Tensor:
    """(N, S, S, 3) of 8 bits, or one face (S, S, 3), to floats (N, 3, S, S) in [0, 1], channels
    last in memory, on the device where they are."""
    if not isinstance(faces, Tensor):
        # a part of a file that is mapped into memory cannot be written to
        faces = torch.from_numpy(np.require(faces, requirements=("C", "W")))
    faces = faces if faces.ndim == 4 else faces[None]
    return faces.permute(0, 3, 1, 2).float().div_(255)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(N, 3, S, S) in [0, 1] to (N, S, S, 3) of 8 bits; values outside are clipped."""
    return (
        (images.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )


def resized(faces: Faces, size: int) -> Faces:
    """Faces (N, T, T, 3) as (N, size, size, 3), in memory; the faces themselves if T is ``size``.

    Where they shrink, a pixel is the mean of those that it covers.
    """
    if faces.shape[1] == size:
        return faces
    return np.concatenate(list(resized_batches(faces, size)))


def resized_batches(faces: Faces, size: int, batch_size: int = 64) -> Iterator[Faces]:
    """What `resized` gives, in batches (B, size, size, 3), for more faces than memory holds."""
    before = faces.shape[1]
    way = cv2.INTER_AREA if size < before else cv2.INTER_CUBIC
    for start in range(0, len(faces), batch_size):
        images = faces[start : start + batch_size]
        if before != size:
            images = [cv2.resize(image, (size, size), interpolation=way) for image in images]
        yield np.stack(list(images))
