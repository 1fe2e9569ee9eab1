"""Normalizing many faces with a trained network."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from norface_lib.images.arrays import Faces, to_tensor, to_uint8
from norface_lib.networks.normalizer import Normalizer


@torch.inference_mode()
def normalize_faces(
    model: Normalizer,
    target: Tensor,
    faces: Faces,
    *,
    batch_size: int = 64,
    progress: bool = False,
    which: NDArray[np.intp] | None = None,
) -> Faces:
    """I_n of many faces, same shape as ``faces``, for one target (1, 3, S, S), whose features are
    computed once.

    With several targets (K, 3, S, S), ``which`` (N,) holds the index of each face's target.
    """
    device = next(model.parameters()).device
    prepared = model.target(target.to(device))
    normalized = np.empty(faces.shape, np.uint8)
    starts = range(0, len(faces), batch_size)
    for start in tqdm(starts, desc="normalize", unit="batch", disable=not progress, leave=False):
        rows = slice(start, start + batch_size)
        images = to_tensor(faces[rows]).to(device)
        targets = prepared
        if which is not None:
            targets = prepared.of(torch.from_numpy(which[rows]).to(device))
        normalized[rows] = to_uint8(model.synthesize(model.encoder(images), targets))
    return normalized
