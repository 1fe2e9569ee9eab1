"""Ways of drawing a normalized face behind one interface, and the network's own."""

from collections.abc import Callable
from typing import Protocol

from norface_lib.common.devices import device_of
from norface_lib.common.paths import plain_name
from norface_lib.images.arrays import Faces
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.weights import load_normalizer, target_names

DRAWINGS = ("network", "render")
"""Ways of drawing: the normalizer's decoder, or the target's head rendered with the AUs that were
read."""


Draw = Callable[[Faces], Faces]
"""I_n (N, T, T, 3) of aligned faces (N, S, S, 3), both of 8 bits, RGB."""


class Drawing(Protocol):
    """Draws I_n of a batch of aligned faces.

    ``target``: name of the identity; ``input_size``: pixels of the faces that it takes;
    ``fingerprint``: a text that is another one if it would draw another image.
    """

    target: str
    input_size: int
    fingerprint: str

    def draw(self, originals: Faces) -> Faces:
        """I_n (N, T, T, 3) of faces (N, S, S, 3), both of 8 bits, RGB."""
        ...


class NetworkDrawing:
    """Draws with a normalizer. ``size``: pixels that I_n is shrunk to; default: as it was drawn.
    Errors as of `norface_lib.networks.weights.load_normalizer`, and
    :class:`norface_lib.common.errors.DataError` for a device that is not there."""

    def __init__(
        self,
        weights: str = "tiny",
        target: str | None = None,
        device: str = "auto",
        size: int | None = None,
    ):
        model, self._face, card = load_normalizer(weights, target)
        self.model = model.to(device_of(device))
        self.target = plain_name(target or target_names(card)[0], weights)
        self.input_size = model.config.encoder.image_size
        self.size = size or model.config.size
        self.fingerprint = card["sha256"]

    def draw(self, originals: Faces) -> Faces:
        """I_n (N, T, T, 3) of faces (N, S, S, 3), both of 8 bits, RGB."""
        return normalize_faces(self.model, self._face, originals, size=self.size)
