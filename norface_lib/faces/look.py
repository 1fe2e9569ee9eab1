"""Looks: colors and styles of a subject's skin, hair, eyes, make-up, glasses and clothes.

Colors are given in sRGB, where people pick them, and kept as linear albedo, where light adds up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from norface_lib.faces.parts import Glasses

_TONES = np.array(
    [(238, 203, 183), (228, 184, 158), (206, 156, 122), (168, 116, 82), (118, 76, 52), (76, 49, 36)]
)
_HAIR = np.array(
    [(24, 20, 18), (52, 36, 26), (92, 62, 40), (150, 108, 64), (196, 160, 106), (120, 56, 30)]
)
_GRAY_HAIR = np.array((150, 148, 146))
_EYE_SHADOWS = np.array([(90, 60, 50), (110, 80, 110), (70, 90, 120), (60, 50, 60)])
_IRIS = np.array(
    [(70, 44, 26), (42, 27, 20), (92, 72, 40), (88, 112, 132), (86, 104, 76), (112, 128, 138)]
)
_STYLE_RATES = {
    "buzz": (0.02, 0.20),
    "short": (0.08, 0.36),
    "combed": (0.05, 0.20),
    "fringe": (0.08, 0.10),
    "afro": (0.05, 0.05),
    "curls": (0.12, 0.05),
    "bob": (0.14, 0.01),
    "bob with fringe": (0.10, 0.0),
    "long": (0.14, 0.02),
    "wavy": (0.12, 0.01),
    "tied": (0.10, 0.0),
}
"""Share of each hair style among women and men: our choice."""


def linear(srgb: NDArray) -> NDArray[np.float32]:
    """sRGB in 0..1 to linear light in 0..1 (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, np.float32)
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Look:
    """A subject's surface, hair and clothes. Colors are linear RGB albedo in 0..1; amounts are
    0..1; lengths are meters."""

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


def sample_look(rng: np.random.Generator, phenotype: dict[str, float]) -> Look:
    """A look that goes with a phenotype: skin and hair color by ethnicity, beard by gender, gray
    hair by age."""
    african, asian, caucasian = (phenotype[k] for k in ("african", "asian", "caucasian"))
    melanin = np.clip(0.66 * african + 0.26 * asian + 0.12 * caucasian + rng.normal(0, 0.09), 0, 1)
    tone = _between(_TONES / 255, melanin) * rng.normal(1, 0.015, 3)
    male = phenotype["gender"]
    old = phenotype["age"]

    dark_hair = rng.random() < african + asian
    color = _HAIR[rng.integers(0, 2 if dark_hair else 6)] / 255
    gray = np.clip((old - 0.80) * 6 + rng.normal(0, 0.15), 0, 1)
    made_up = (1 - male) * (rng.random() < 0.6) * rng.random()
    rosy = np.array([0.92, 0.72, 0.72]) * (1 - made_up) + np.array([0.82, 0.40, 0.45]) * made_up
    return Look(
        skin=linear(tone.clip(0, 1)),
        lips=linear((tone * rosy).clip(0, 1)),
        hair=linear((1 - gray) * color + gray * (_GRAY_HAIR / 255)) * rng.uniform(0.7, 1.2),
        iris=linear(_IRIS[rng.integers(0, 2 if dark_hair else 6)] / 255 * rng.uniform(0.85, 1.15)),
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
        eye_shadow_color=linear(_EYE_SHADOWS[rng.integers(len(_EYE_SHADOWS))] / 255),
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


def _between(palette: NDArray, position: float) -> NDArray:
    """Color at ``position`` in 0..1 along a palette (K, 3)."""
    at = np.linspace(0, 1, len(palette))
    return np.array([np.interp(position, at, palette[:, c]) for c in range(3)])
