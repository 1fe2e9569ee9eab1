"""The evaluator: AUs and emotion of a face, read by a network that only measures.

It is trained apart from every normalizer and classifier, on subjects of its own pool, and its
architecture differs on purpose: a small residual network (He et al. 2016, timm's ``ResNet``) where
they have a transformer. So what it reads in I_n is in the image, and is no artifact that two
networks share. Its feature maps serve as a frozen measure of likeness.

Shapes: N images of S x S pixels, A action units, E emotions.
"""

from dataclasses import dataclass
from typing import NamedTuple

from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from norface_lib import labels
from norface_lib.networks.encoder import JsonConfig
from norface_lib.networks.layers import BatchNorm1d, Dropout

_STRIDE = 32  # of a ResNet's last stage


@dataclass(frozen=True, kw_only=True)
class EvaluatorConfig(JsonConfig):
    """Outputs and size of an evaluator."""

    aus: tuple[int, ...] = tuple(sorted(labels.AUS))  # AU numbers in the order of the outputs
    emotions: tuple[str, ...] = labels.EMOTIONS  # in the order of the logits
    image_size: int = 112  # pixels, square
    # of the maps at 1/4, 1/8, 1/16 and 1/32 of the image
    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 1, 1, 1)  # residual blocks at each of these sizes
    hidden: int = 256  # width of the layer before the outputs
    dropout: float = 0.1

    def __post_init__(self):
        if len(self.widths) != 4 or len(self.blocks) != 4:
            raise ValueError(
                f"an evaluator has four stages, got widths {self.widths} and blocks {self.blocks}"
            )


class EvaluatorOutput(NamedTuple):
    """AUs and emotion of N images, in the order of ``EvaluatorConfig.aus`` and
    ``EvaluatorConfig.emotions``."""

    occurrence: Tensor  # (N, A) logits
    # (N, A), within 0..5 in evaluation; not clipped in training, so that gradients pass everywhere
    intensity: Tensor
    emotion: Tensor  # (N, E) logits


class Evaluator(nn.Module):
    """Images (N, 3, S, S) in [0, 1], originals or normalized ones, to `EvaluatorOutput`.

    The first convolution goes to a quarter of the size at once, which on a CPU halves the cost of a
    ResNet. The last map keeps its places, as an aligned mouth is where mouths are. Raises
    ``ValueError`` for images of another size.
    """

    def __init__(self, config: EvaluatorConfig = EvaluatorConfig()):
        super().__init__()
        self.config = config
        body = ResNet(BasicBlock, config.blocks, num_classes=0, channels=config.widths)
        body.conv1 = nn.Conv2d(3, body.conv1.out_channels, 7, stride=4, padding=3, bias=False)
        body.maxpool = nn.Identity()
        self.body = body
        side = -(-config.image_size // _STRIDE)
        self.neck = nn.Sequential(
            nn.Linear(config.widths[-1] * side**2, config.hidden, bias=False),
            BatchNorm1d(config.hidden),
            nn.GELU(),
            Dropout(config.dropout),
        )
        self.heads = nn.ModuleDict(
            {
                "occurrence": nn.Linear(config.hidden, len(config.aus)),
                "intensity": nn.Linear(config.hidden, len(config.aus)),
                "emotion": nn.Linear(config.hidden, len(config.emotions)),
            }
        )

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps (N, W, S / k, S / k) of images (N, 3, S, S) for k = 4, 8, 16, 32, with the widths W
        of the config."""
        size = self.config.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(
                f"the evaluator takes images of shape (N, 3, {size}, {size}), got "
                f"{tuple(images.shape)}"
            )
        body = self.body
        # about zero mean and unit variance
        x = body.act1(body.bn1(body.conv1((images - 0.5) * 4.0)))
        maps = []
        for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def forward(self, images: Tensor) -> EvaluatorOutput:
        embedding = self.neck(self.features(images)[-1].flatten(1))
        output = EvaluatorOutput(**{name: head(embedding) for name, head in self.heads.items()})
        if self.training:
            return output
        return output._replace(intensity=output.intensity.clamp(0, labels.INTENSITY_MAX))
