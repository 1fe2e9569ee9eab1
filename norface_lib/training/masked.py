"""Masked autoencoding as a stage of training: the encoder learns from pictures without labels."""

from pathlib import Path

import torch
from torch import Tensor

from norface_lib.common import chance
from norface_lib.common.devices import device_of
from norface_lib.datasets.pairs import ArrayDataset
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.encoder import FaceEncoder
from norface_lib.networks.masked import MaskedAutoencoder, MaskedConfig
from norface_lib.training.augmentation import mirrored, photometric
from norface_lib.training.loader import to_device
from norface_lib.training.loop import TrainConfig, fit


def masked_pretraining(
    encoder: FaceEncoder,
    faces: Faces,
    training: TrainConfig,
    *,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
    config: MaskedConfig | None = None,
) -> MaskedAutoencoder:
    """Trains an encoder in place on faces (N, S, S, 3) without labels, and returns it with the
    decoder, for `reconstruct`.

    Light and mirroring vary as in the stage that reads expressions. Writes ``masked.jsonl`` and
    ``masked.ckpt`` into a ``folder`` and is resumed from there. Raises what
    `norface_lib.training.loop.fit` raises.
    """
    device = device_of(device)
    torch.manual_seed(training.seed)
    model = MaskedAutoencoder(encoder, config or MaskedConfig()).to(
        device, memory_format=torch.channels_last
    )

    def loss(model: MaskedAutoencoder, batch: tuple[Tensor]) -> tuple[Tensor, dict[str, float]]:
        (faces,) = to_device(batch, device)
        images = photometric(to_tensor(faces))
        error, _, _ = model(mirrored(images, chance.rand(len(images), device=device) < 0.5))
        return error, {"unexplained": error.item()}

    return fit(
        model, loss, ArrayDataset(faces), training, folder=folder, name="masked", progress=progress
    )
