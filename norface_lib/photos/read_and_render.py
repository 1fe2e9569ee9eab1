"""Read and render, the second way of drawing a normalized face: a token reader reads the AUs of
each side, and the target's head is rendered with them.

The picture is sharp at any size, its target needs no training, and nothing of the original gets
into it but the AU intensities. Our choice; the paper draws with its network.
"""

import hashlib
import json

import numpy as np
import torch
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.devices import device_of
from norface_lib.common.errors import DataError
from norface_lib.faces.benchmark import TARGETS, VERSION
from norface_lib.faces.sampling import Sides
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.images.files import SMALLEST, aligned
from norface_lib.networks.drawing import DRAWINGS
from norface_lib.networks.weights import load_token_reader

TOKEN_READER = "tiny-photo-reader"
"""The token reader that is taken unless another one is named."""

SIZE = 224
"""Pixels of a rendered face unless another size is asked for."""

LARGEST = 1024
"""Pixels of a rendered face at most."""

DEAD_ZONE = 0.5
"""Intensity below which an AU counts as 0. FACS codes nothing below a trace (A, 1), so half of it
is far from what a coder would see."""


class ReadAndRender:
    """Draws by reading and rendering.

    ``reader``: weights of a token reader, by shipped name or path; ``target``: one of
    `norface_lib.faces.benchmark.TARGETS`; ``size``: pixels of I_n; ``dead_zone``: see `calibrated`;
    ``device``: where the reader computes; the CPU renders. Raises :class:`DataError` for an unknown
    target, a size or a dead zone out of range, :class:`CheckpointError` for weights that cannot be
    used, and `norface_lib.common.errors.MissingExtraError` without the extra ``render``.
    """

    def __init__(
        self,
        reader: str = TOKEN_READER,
        *,
        target: str | None = None,
        size: int = SIZE,
        dead_zone: float = DEAD_ZONE,
        device: str = "auto",
    ):
        self.target = target or next(iter(TARGETS))
        if self.target not in TARGETS:
            raise DataError(f"no target {target!r} to render; there are {', '.join(TARGETS)}")
        if not SMALLEST <= size <= LARGEST:
            raise DataError(f"size must be {SMALLEST} to {LARGEST} pixels, not {size}")
        if not 0 <= dead_zone < 1:
            raise DataError(f"dead_zone must be at least 0 and below 1, not {dead_zone}")

        self._studios: dict[int, Studio] = {}
        self._studio(size)  # says at once if the extra is missing
        model, card = load_token_reader(reader)
        self.model = model.to(device_of(device))
        self.aus = model.config.aus
        self.input_size = model.config.encoder.image_size
        self.reader = card["sha256"]
        self.size = size
        self.dead_zone = dead_zone
        made_by = [card, self.target, size, dead_zone, VERSION]
        digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
        self.fingerprint = f"render {digest.hexdigest()}"

    def draw(self, originals: Faces) -> Faces:
        """I_n (N, size, size, 3) of aligned faces (N, S, S, 3), both of 8 bits, RGB."""
        return np.stack([self.render(sides) for sides in self.read(originals)])

    @torch.inference_mode()
    def read(self, originals: Faces) -> NDArray[np.float32]:
        """AU intensities 0..5 (N, A, 2) of the subject's left and right side of aligned faces (N,
        S, S, 3), as they were read; A in the order of ``aus``."""
        faces = np.stack([aligned(face, "a face", self.input_size) for face in originals])
        device = next(self.model.parameters()).device
        return self.model(to_tensor(faces).to(device)).sides.cpu().numpy()

    def render(self, sides: NDArray[np.floating], size: int | None = None) -> NDArray[np.uint8]:
        """I_n (T, T, 3) of the intensities (A, 2) that were read of one face. ``size``: T in
        pixels; default: that of this drawing."""
        left, right = self.expression(sides)
        return self._studio(size or self.size).normalized(left, right)

    def cutout(self, sides: NDArray[np.floating], size: int, room: float) -> NDArray[np.uint8]:
        """As `render`, without a wall: (size, size, 4), see `Studio.cutout`."""
        return self._studio(size).cutout(*self.expression(sides), room=room)

    def expression(self, sides: NDArray[np.floating]) -> Sides:
        """AU intensities of each side that are rendered for those (A, 2) that were read."""
        values = quieted(sides, self.dead_zone)
        left, right = values.T.tolist()
        return dict(zip(self.aus, left, strict=True)), dict(zip(self.aus, right, strict=True))

    def _studio(self, size: int) -> Studio:
        if size not in self._studios:
            self._studios[size] = Studio(size, self.target)
        return self._studios[size]


def quieted(intensities: NDArray[np.floating], dead_zone: float) -> NDArray[np.floating]:
    """Intensities 0..5 to draw for those that were read: without the traces that a reader sees in
    any neutral face.

    From a trace (A, 1) on, where an AU counts as present, they stay as they were read; up to
    ``dead_zone``, in [0, 1), they become 0; a straight line between, so that nothing jumps in a
    video. Our choice.
    """
    present = labels.OCCURRENCE_THRESHOLD
    faint = present * (intensities - dead_zone).clip(0) / (present - dead_zone)
    return np.where(intensities < present, faint, intensities).clip(0, labels.INTENSITY_MAX)


def open_rendering(
    draw: str,
    *,
    token_reader: str = TOKEN_READER,
    target: str | None = None,
    size: int | None = None,
    device: str = "auto",
) -> ReadAndRender | None:
    """The drawing ``render`` of `norface_lib.networks.drawing.DRAWINGS`; None for ``network``, for
    the normalizer draws by itself.

    ``size``: default `SIZE`. Raises :class:`DataError` for an unknown drawing and for a size that a
    network cannot draw; other errors as of `ReadAndRender`.
    """
    if draw not in DRAWINGS:
        raise DataError(f"no way of drawing {draw!r}; there are {', '.join(DRAWINGS)}")
    if draw == "render":
        return ReadAndRender(token_reader, target=target, size=size or SIZE, device=device)
    if size is not None:
        raise DataError("a network draws at its own size only; leave out size, or draw by render")
    return None
