"""The discriminator of the adversarial term: a logit for each patch of a face, real (photographed
or rendered) or synthesized.

Whether the paper has one is not known; its sibling works do (PAPER.md 1.5). Ours is the patch
discriminator of pix2pix (Isola et al. 2017) with spectral normalization in place of batch
normalization (Miyato et al. 2018). Optional, and our choice.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

_SLOPE = 0.2
"""Of the leaky ReLU, below zero."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Size of the discriminator. Each doubling of the patch adds a stage; images of any size of 112
    px or so and more do."""

    width: int = 32  # channels of the first stage; each later one has twice as many
    stages: int = 3  # halvings of the image: a patch is 70 px wide with 3, 34 px with 2

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels from the image to the last hidden layer."""
        return 3, *(self.width * 2**stage for stage in range(self.stages + 1))

    @property
    def patch(self) -> int:
        """Side of the receptive field of a logit, in pixels."""
        side = 1 + 2 * 3  # two convolutions of 4x4 without a stride
        for _ in range(self.stages):
            side = 2 * side + 2
        return side


class Discriminator(nn.Module):
    """Images (N, 3, S, S) in [0, 1] to one logit a patch (N, 1, h, w), above 0 for patches taken
    for real.

    h = w = S / 2^stages - 2: 12 for 112 px, 30 for 256 px. Raises ``ValueError`` for images smaller
    than a patch.
    """

    def __init__(self, config: DiscriminatorConfig = DiscriminatorConfig()):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for stage, (before, after) in enumerate(pairwise(config.widths)):
            layers += [
                _conv(before, after, stride=2 if stage < config.stages else 1),
                nn.LeakyReLU(_SLOPE),
            ]
        self.body = nn.Sequential(*layers, _conv(config.widths[-1], 1, stride=1))

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < self.config.patch:
            raise ValueError(
                f"images must have shape (N, 3, S, S), S >= {self.config.patch}, got "
                f"{tuple(images.shape)}"
            )
        return self.body(images * 2 - 1)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A 4x4 convolution whose weight, as a matrix of ``outputs`` rows, has a largest singular value
    of 1."""
    return spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1))
