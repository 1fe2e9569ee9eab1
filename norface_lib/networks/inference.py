"""Normalizing many faces with a trained network."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from norface_lib.common.devices import evaluation_precision
from norface_lib.images.arrays import Faces, to_tensor, to_uint8
from norface_lib.networks.normalizer import Normalizer, shrunk


def normalize_faces(
    model: Normalizer,
    target: Tensor,
    faces: Faces,
    *,
    batch_size: int = 64,
    progress: bool = False,
    which: NDArray[np.intp] | None = None,
    size: int | None = None,
) -> Faces:
    """I_n (N, T, T, 3) of many faces (N, S, S, 3), for one target (1, 3, T, T), whose features are
    computed once.

    With several targets (K, 3, T, T), ``which`` (N,) holds the index of each face's target.
    ``size``: to give I_n shrunk to (N, size, size, 3), as a network needs it that reads faces of
    that size. Raises ``ValueError`` for faces of another size than the network takes.
    """
    size = size or model.config.size
    normalized = np.empty((len(faces), size, size, 3), np.uint8)
    settings = {"batch_size": batch_size, "progress": progress, "which": which, "size": size}
    start = 0
    for batch in normalized_batches(model, target, faces, **settings):
        normalized[start : start + len(batch)] = batch
        start += len(batch)
    return normalized


def normalized_batches(
    model: Normalizer,
    target: Tensor,
    faces: Faces,
    *,
    batch_size: int = 64,
    progress: bool = False,
    which: NDArray[np.intp] | None = None,
    size: int | None = None,
) -> Iterator[Faces]:
    """What `normalize_faces` gives, batch by batch (B, T, T, 3), as they are drawn: for more faces
    than memory holds."""
    device = next(model.parameters()).device
    size = size or model.config.size
    with torch.inference_mode(), evaluation_precision(device):
        prepared = model.target(target.to(device))
    starts = range(0, len(faces), batch_size)
    for start in tqdm(starts, desc="normalize", unit="batch", disable=not progress, leave=False):
        rows = slice(start, start + batch_size)
        # opened anew for each batch: what is between two of them is the caller's
        with torch.inference_mode(), evaluation_precision(device):
            images = to_tensor(faces[rows]).to(device)
            targets = prepared
            if which is not None:
                targets = prepared.of(torch.tensor(which[rows], device=device))
            drawn = model.synthesize(model.encoder(images), targets)
            batch = to_uint8(shrunk(drawn, size).float())
        yield batch
