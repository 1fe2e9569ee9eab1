"""Decoders of the normalizer: from merged tokens to the normalized face.

`ChangingDecoder` predicts how each pixel of the target image changes, by convolutions. It is what
all presets but one use. `MovingDecoder` moves and mixes a few reference pictures of the target, so
that what is drawn is as sharp as they are. Both are our choice: the paper's decoder is not known.

Shapes: N faces, L tokens of width D on a grid of G x G, images of T x T pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from norface_lib.networks.encoder import ResidualBlock, conv_unit
from norface_lib.networks.layers import PlacedLinear


class ChangingDecoder(nn.Module):
    """Merged tokens (N, L, D) and the target's details (1 or N, C, H, W) to the target image plus a
    change (N, 3, T, T).

    Each stage doubles the grid by sub-pixel convolution (Shi et al. 2016) of single tokens, which
    on a CPU costs a fraction of full-resolution convolutions, adds the target's features at that
    size and looks at the neighborhood in a residual block. ``widths`` of the stages; ``patch``:
    pixels that a token covers along a side; ``detail``: whether the target's features are added.
    """

    def __init__(
        self, dim: int, grid: int, patch: int, widths: tuple[int, ...], detail: bool = True
    ):
        super().__init__()
        self.grid = grid
        self.stages = nn.ModuleList()
        self.details = nn.ModuleList()
        for before, width in zip((dim, *widths), widths, strict=False):
            patch //= 2
            self.stages.append(nn.Sequential(nn.Conv2d(before, 4 * width, 1), nn.PixelShuffle(2)))
            if detail:
                self.details.append(nn.Conv2d(3, width, patch, stride=patch))
        self.blocks = nn.ModuleList(ResidualBlock(width) for width in widths)
        # the name is part of every file of weights
        self.draw = nn.Sequential(*conv_unit(widths[-1], 3 * patch * patch), nn.PixelShuffle(patch))
        nn.init.zeros_(self.draw[2].weight)  # the first I_n is the target itself
        nn.init.zeros_(self.draw[2].bias)

    def detail(self, target: Tensor) -> tuple[Tensor, ...]:
        """The target's fine features for each stage, coarsest first; none if they are left out."""
        return tuple(detail(target) for detail in self.details)

    def forward(
        self, tokens: Tensor, expression: Tensor, image: Tensor, details: tuple[Tensor, ...]
    ) -> Tensor:
        x = tokens.transpose(1, 2).reshape(-1, tokens.shape[2], self.grid, self.grid)
        for number, (stage, block) in enumerate(zip(self.stages, self.blocks, strict=True)):
            x = stage(x)
            x = block(x + details[number] if details else x)
        return image + self.draw(x)


BOTTLENECK = 40
"""Features from which `MovingDecoder` decides what happens at the place of a token."""

CELL = 4
"""Pixels of I_n along a side for which `MovingDecoder` decides; between them it interpolates."""


class MovingDecoder(nn.Module):
    """Merged tokens (N, L, D), the expression embedding (N, D) and P reference pictures of the
    target (1 or N, P, 3, T, T) to I_n (N, 3, T, T).

    The first reference is the target image; the others show what it hides, as teeth, lids and
    wrinkles. Each is moved by a flow (after Zhou et al. 2016, "View Synthesis by Appearance Flow"),
    the moved pictures are mixed by weights of each place that sum to 1, and a coarse change of
    color is added. Half-way between two positions is a position and no blur, so faces are sharper
    where the network is in doubt. Aligned faces have their parts at the same places, so each
    token has weights of its own: they learn far faster than convolutions do here.

    The references are part of the weights, so a network draws the targets that it was made for:
    ``references`` (K, 3 P, T, T) of K ``targets``, set by `remember`.
    """

    references: Tensor

    def __init__(self, dim: int, grid: int, patch: int, targets: int, references: int):
        super().__init__()
        if patch % CELL:
            raise ValueError(f"tokens must cover a multiple of {CELL} px, not {patch}")
        self.grid = grid
        self.cells = patch // CELL  # along a side of a token
        self.count = references
        size = grid * patch
        self.register_buffer("references", torch.zeros(targets, 3 * references, size, size))
        self.near = PlacedLinear(grid**2, dim, BOTTLENECK)
        self.whole = nn.Linear(dim, grid**2 * BOTTLENECK)
        # of each reference two numbers of its flow and its weight, and three of the change
        outputs = (3 * references + 3) * self.cells**2
        self.out = PlacedLinear(grid**2, BOTTLENECK, outputs, spread=0.002)
        first = torch.zeros(references)
        first[0] = 4.0  # the first I_n is nearly the target itself
        self.register_buffer("first", first.view(1, -1, 1, 1), persistent=False)

    def remember(self, pictures: Tensor) -> None:
        """Takes references (K, P, 3, T, T) in [0, 1] into the weights."""
        self.references.copy_(pictures.flatten(1, 2))

    def detail(self, target: Tensor) -> tuple[Tensor, ...]:
        """The references (K, P, 3, T, T) of target images (K, 3, T, T), as a tuple of one.

        Raises ``ValueError`` for an image that is not one of the targets.
        """
        references = self.references.unflatten(1, (self.count, 3))
        if target.is_meta:  # for counts of operations: there are no values to compare
            return (references[[0] * len(target)],)
        known = references[:, 0]
        distances = (target[:, None] - known[None]).abs().mean(dim=(2, 3, 4))  # (K, targets)
        distance, number = distances.min(dim=1)
        if (distance > 2 / 255).any():
            raise ValueError(
                "this network draws the targets that it learned, and the target image is another "
                "one; train it for that target, or take a network that draws any"
            )
        return (references.index_select(0, number),)

    def forward(
        self, tokens: Tensor, expression: Tensor, image: Tensor, details: tuple[Tensor, ...]
    ) -> Tensor:
        pictures, weights, change = self.parts(tokens, expression, details)
        return (pictures * weights[:, :, None]).sum(dim=1) + change

    def parts(
        self, tokens: Tensor, expression: Tensor, details: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What I_n is made of: the moved references (N, P, 3, T, T), how much each counts at each
        place (N, P, T, T), and the change of color (N, 3, T, T)."""
        (references,) = details
        of_face = self.whole(expression).unflatten(1, (self.grid**2, -1))
        placed = self.out(F.gelu(self.near(tokens) + of_face))
        # places of pixels need more digits than half precision has
        placed = placed.float() if placed.dtype.itemsize < 4 else placed
        flows, weights, change = self._maps(placed)
        pictures = [moved(references[:, n], flows[:, n]) for n in range(self.count)]
        return torch.stack(pictures, dim=1), weights, change

    def _maps(self, placed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flows (N, P, 2, T, T), weights (N, P, T, T) and the change (N, 3, T, T), of what was
        decided for each token (N, L, (3 P + 3) * cells^2)."""
        count = self.count
        channels = 3 * count + 3
        side = self.grid * self.cells
        maps = placed.view(-1, self.grid, self.grid, channels, self.cells, self.cells)
        maps = maps.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, side, side)
        # scaled so that all of them learn at about the same rate
        maps = F.interpolate(maps, scale_factor=CELL, mode="bilinear", align_corners=False)
        flows = 0.1 * maps[:, : 2 * count].unflatten(1, (count, 2))
        weights = (4 * maps[:, 2 * count : 3 * count] + self.first).softmax(dim=1)
        return flows, weights, 0.3 * maps[:, 3 * count :]


def moved(picture: Tensor, flow: Tensor) -> Tensor:
    """A picture (1 or N, 3, T, T) with each place taken from where its flow (N, 2, T, T) points: to
    the right and down, in halves of the picture's width. (N, 3, T, T)."""
    size = picture.shape[-1]
    centers = (2 * torch.arange(size, device=flow.device, dtype=flow.dtype) + 1) / size - 1
    places = torch.stack(torch.meshgrid(centers, centers, indexing="xy"))  # (2, T, T)
    taken = (places + flow).permute(0, 2, 3, 1)
    every = picture + 0 * flow[:, :1]  # for each of N, also where an exported file has more faces
    return F.grid_sample(every, taken, padding_mode="border", align_corners=False)
