"""Faces of a dataset that are read when a training asks for them, so that no number of them needs
memory."""

import numpy as np
from numpy.typing import NDArray

from norface_lib.datasets.base import FaceDataset
from norface_lib.images.arrays import Faces
from norface_lib.images.files import aligned


class StreamedFaces:
    """Aligned faces (N, S, S, 3) of a dataset, S being ``size``, which are read from where they lie
    each time: in the processes that make batches, if there are any."""

    def __init__(self, data: FaceDataset, size: int):
        self.data = data.sized(size)
        self.size = size

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return len(self), self.size, self.size, 3

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> Faces:
        """(B, S, S, 3) for an array of B rows or a slice. Raises
        :class:`norface_lib.common.errors.DataError` for a frame that cannot be read or is no
        aligned face, naming it."""
        frames = self.data.index.iloc[rows]
        faces = np.empty((len(frames), *self.shape[1:]), np.uint8)
        for number, (_, frame) in enumerate(frames.iterrows()):
            name = str(self.data.root / frame["path"])
            faces[number] = aligned(self.data.image(frame), name, self.size, self.data.framing)
        return faces
