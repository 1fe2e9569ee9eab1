"""Arrays of 8-bit faces and tensors. Color order is RGB everywhere."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Faces = NDArray[np.uint8]
"""(N, S, S, 3) RGB of 8 bits."""


def to_tensor(faces: NDArray[np.uint8]) -> Tensor:
    """(N, S, S, 3) of 8 bits, or one face (S, S, 3), to floats (N, 3, S, S) in [0, 1], channels
    last in memory."""
    faces = faces if faces.ndim == 4 else faces[None]
    # a part of a file that is mapped into memory cannot be written to
    faces = np.require(faces, requirements=("C", "W"))
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float().div_(255)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(N, 3, S, S) in [0, 1] to (N, S, S, 3) of 8 bits; values outside are clipped."""
    return (
        (images.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
