"""How a token reader tells the left side of a face from the right one: a second head over its
encoder, which learns from rendered faces that move one side alone, whose AUs are known exactly."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.devices import device_of
from norface_lib.datasets.label_table import side_codes
from norface_lib.datasets.pairs import ArrayDataset
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.token_reader import TokenReader
from norface_lib.training.augmentation import degraded
from norface_lib.training.loader import to_device
from norface_lib.training.loop import Loss, TrainConfig, fit

SIDES_FIT = TrainConfig(steps=1500, batch_size=64, learning_rate=1e-3, average=0.99, amp=False)
"""Length and rates of the training of a `norface_lib.networks.token_reader.SideHead`."""

_DEGRADED = 0.5
"""Share of faces that are degraded as poor photographs are: our choice."""


def train_sides(
    reader: TokenReader,
    faces: Rendered,
    training: TrainConfig = SIDES_FIT,
    *,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> TokenReader:
    """The same reader with a head that tells left from right, in evaluation mode.

    ``faces``: rendered ones, many of which move one side alone (`render --one-sided`). The encoder
    and the head for intensities stay as they are; the new one begins as a copy of the latter.
    Resumable with a ``folder``. Raises what `norface_lib.training.loop.fit` raises.
    """
    place = device_of(device)
    torch.manual_seed(training.seed)
    model = TokenReader(replace(reader.config, tells_sides=True))
    model.encoder.load_state_dict(reader.encoder.state_dict())
    for head in (model.head, model.sides.head):
        head.load_state_dict(reader.head.state_dict())
    model = model.to(place).eval()

    tokens, of_mirror_images = _tokens(model, faces.originals, _DEGRADED, progress)
    data = ArrayDataset(tokens, of_mirror_images, _true_differences(faces, model))
    head = fit(
        copy.deepcopy(model.sides),
        _difference_loss(data.arrays[2], place),
        data,
        training,
        folder=folder,
        name="sides",
        progress=progress,
    )
    model.sides.load_state_dict(head.state_dict())
    return model.eval()


def _difference_loss(true: NDArray[np.float32], device: torch.device) -> Loss:
    """The squared error of left minus right, for each AU relative to its spread."""
    least = 0.05 * labels.INTENSITY_MAX  # a rare AU should not dominate
    spread = torch.tensor(true.std(0) + least, device=device)

    def loss(head: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        tokens, of_mirror_images, wanted = to_device(batch, device)
        error = head(tokens.float(), of_mirror_images.float()) - wanted
        return (error / spread).square().mean(), {}

    return loss


@torch.inference_mode()
def _tokens(
    model: TokenReader, faces: Faces, degraded_share: float, progress: bool, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Tokens (N, L, D), in half precision, of faces (N, S, S, 3) and of their mirror images."""
    device = next(model.parameters()).device
    torch.manual_seed(0)
    parts = []
    bar = tqdm(total=len(faces), desc="encode", unit="face", disable=not progress)
    with bar:
        for start in range(0, len(faces), batch_size):
            images = degraded(to_tensor(faces[start : start + batch_size]), degraded_share)
            images = images.to(device)
            parts.append([model.encoder(each).half().cpu() for each in (images, images.flip(3))])
            bar.update(len(images))
    tokens, of_mirror_images = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(of_mirror_images)


def _true_differences(faces: Rendered, model: TokenReader) -> NDArray[np.float32]:
    """(N, A) left minus right; 0 of an AU without sides."""
    sides = side_codes(faces.table, model.config.aus)
    return sides[..., 0] - sides[..., 1]


# --- calibration ----------------------------------------------------------------------------------

EVEN = 0.9
"""Share of the faces whose sides move alike that are read so."""

_ALIKE = 0.3
"""Difference of intensities below which sides move alike: people are never quite symmetric."""


@torch.inference_mode()
def calibrate_sides(model: TokenReader, others: Rendered) -> None:
    """Sets which differences count as none, for each AU, by rendered people whom the reader has not
    met: `EVEN` of the faces whose sides move alike are read as even."""
    parts = _tokens(model, others.originals, 0.0, progress=False)
    device = next(model.parameters()).device
    seen = torch.cat(
        [
            model.sides(here.float().to(device), there.float().to(device)).abs().cpu()
            for here, there in zip(*(part.split(64) for part in parts), strict=True)
        ]
    ).double()
    alike = np.abs(_true_differences(others, model)) < _ALIKE
    for number, sided in enumerate(model.config.sided):
        rows = alike[:, number]
        if sided and rows.any():
            model.sides.least[number] = seen[rows, number].quantile(EVEN)
