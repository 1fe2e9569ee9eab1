"""People and frames from random numbers: faces, expressions, cameras and lights."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfinv

from norface_lib import labels
from norface_lib.faces.head import Subject, head_model
from norface_lib.faces.look import Look, sample_look
from norface_lib.faces.scene import Camera, Light
from norface_lib.faces.skin import dressed, painter

RENDERED_AUS = (*labels.BP4D_AUS, *sorted(set(labels.AUS) - set(labels.BP4D_AUS)))
"""AUs that rendered frames show: the 12 of BP4D, then all others."""

_OTHER_RATES = (0.06, 0.06, 0.05, 0.04, 0.05, 0.04, 0.30, 0.15, 0.03, 0.05)
"""Base rates of the AUs that BP4D does not code, in the order of ``RENDERED_AUS``: our choice."""

_RATES = np.array([*labels.BP4D_RATES, *_OTHER_RATES])

# correlations of the latent variables: our choice, after the co-occurrences that the field reports
_TOGETHER = {
    (1, 2): 0.7, (1, 4): 0.2, (4, 7): 0.3, (6, 7): 0.6, (6, 12): 0.75, (6, 10): 0.5,
    (7, 10): 0.4, (10, 12): 0.6, (7, 12): 0.4, (12, 14): 0.3, (15, 17): 0.5, (17, 24): 0.45,
    (23, 24): 0.4, (12, 15): -0.4, (12, 24): -0.3, (12, 25): 0.4, (25, 26): 0.6, (24, 25): -0.7,
    (23, 25): -0.5, (24, 26): -0.6, (23, 26): -0.4, (17, 25): -0.4, (1, 5): 0.4, (5, 26): 0.3,
    (5, 43): -0.8, (5, 7): -0.4, (4, 9): 0.4, (9, 10): 0.3, (7, 9): 0.4, (9, 12): -0.2,
    (16, 25): 0.6, (20, 25): 0.3, (22, 25): 0.3, (18, 12): -0.4, (18, 25): -0.3, (18, 20): -0.6,
    (18, 24): -0.3, (22, 12): -0.4, (22, 24): -0.5, (28, 25): -0.6, (28, 16): -0.6,
    (28, 18): -0.5, (28, 22): -0.6, (28, 24): -0.4, (28, 26): -0.2, (16, 24): -0.5, (18, 28): -0.5,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A kind of photographs: how people are posed and lit, and what their faces show. Angles are
    standard deviations in radians; the others are shares of frames."""

    yaw: float
    pitch: float
    emotional: float  # with an emotion's prototype rather than a random set of AUs
    hard_light: float  # in strong, one-sided light
    degraded: float  # soft, gray, noisy, coarse or partly hidden


DOMAINS = {
    "lab": Domain(yaw=0.13, pitch=0.08, emotional=0.0, hard_light=0.1, degraded=0.15),
    "wild": Domain(yaw=0.34, pitch=0.16, emotional=0.85, hard_light=0.4, degraded=0.6),
}


@dataclass(frozen=True)
class Person:
    """A subject ready to be rendered: shape with hair, look and texture."""

    subject: Subject
    look: Look
    texture: NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """AU intensities 0..5 of each side (AU number -> value), the emotion if any, and the nuisance.

    ``emotion``: one of ``labels.EMOTIONS``, or "" for a set of AUs that is none. ``gaze``: yaw and
    pitch in radians.
    """

    left: dict[int, float]
    right: dict[int, float]
    emotion: str = ""
    domain: str = "lab"
    gaze: tuple[float, float] = (0.0, 0.0)
    camera: Camera = field(default_factory=Camera)
    light: Light = field(default_factory=Light)


# --- people ---------------------------------------------------------------------------------------


def sample_face(rng: np.random.Generator, spread: float = 0.30, symmetric: bool = False) -> Person:
    """A person: phenotype, local shape changes of about ``spread`` (they run from -1 to 1), look,
    hair. ``symmetric``: both sides alike, and the corners of the mouth a little up."""
    african, asian, caucasian = rng.dirichlet([0.4] * 3).tolist()
    phenotype = {
        "gender": rng.random(),
        "age": float(0.5 + 0.45 * rng.beta(1.2, 1.8)),
        "muscle": rng.random(),
        "weight": rng.uniform(0.2, 0.9),
        "african": african,
        "asian": asian,
        "caucasian": caucasian,
    }
    changes = _sample_changes(rng, spread)
    changes = symmetric_changes(changes) if symmetric else changes
    return face_with(phenotype, changes, sample_look(rng, phenotype))


def _sample_changes(rng: np.random.Generator, spread: float) -> dict[str, float]:
    """Local shape changes (name -> -1..1), nearly the same on both sides of the head."""
    names = head_model().shape_names
    changes = {}
    for name in names:
        if not name.startswith("r-"):
            changes[name] = float(np.clip(rng.normal() * spread, -1, 1))
    for name in list(changes):
        if name.startswith("l-"):
            mirrored = changes[name] + rng.normal() * 0.04
            changes["r-" + name[2:]] = float(np.clip(mirrored, -1, 1))
    return {name: value for name, value in changes.items() if name in names}


_LATERAL = ("head-trans-out", "mouth-trans-out", "neck-trans-out", "nose-trans-out")
"""Shape changes that move a part to one side."""

_MOUTH_CORNERS = 0.25
"""How far a symmetric face's mouth corners are up at least: a level mouth looks unfriendly."""


def symmetric_changes(changes: dict[str, float]) -> dict[str, float]:
    """Local shape changes with the right side as the left one, nothing moved to one side, and the
    corners of the mouth a little up."""
    even = {name: value for name, value in changes.items() if name not in _LATERAL}
    left = {name: value for name, value in even.items() if name.startswith("l-")}
    even |= {"r-" + name[2:]: value for name, value in left.items()}
    corners = max(even["mouth-angles-up"], 0.0) + _MOUTH_CORNERS
    return even | {"mouth-angles-up": min(corners, 1.0)}


def face_with(phenotype: dict[str, float], changes: dict[str, float], look: Look) -> Person:
    """The person of a phenotype, local shape changes and a look."""
    subject = dressed(head_model().subject(phenotype, changes), look)
    return Person(subject, look, painter().paint(look))


# --- expressions ----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _latent_factor() -> NDArray[np.float64]:
    """Cholesky factor of the AUs' latent correlations: the nearest valid matrix, as the pairs above
    were set one by one."""
    correlation = np.eye(len(RENDERED_AUS))
    for (a, b), value in _TOGETHER.items():
        i = RENDERED_AUS.index(a)
        j = RENDERED_AUS.index(b)
        correlation[i, j] = correlation[j, i] = value

    values, vectors = np.linalg.eigh(correlation)
    valid = vectors @ np.diag(values.clip(1e-3)) @ vectors.T
    scale = 1 / np.sqrt(np.diag(valid))
    return np.linalg.cholesky(valid * scale[:, None] * scale)


Sides = tuple[dict[int, float], dict[int, float]]
"""AU intensities 0..5 (AU number -> value) of the left and of the right side."""


def sample_intensities(rng: np.random.Generator, strength: float = 1.0) -> Sides:
    """A random set of AUs: a Gaussian copula with BP4D's base rates (PAPER.md 2.1).

    An AU that occurs has an intensity of at least 1 (A), more often low than high; its sides differ
    a little, and a smile or a dimple is now and then one-sided. ``strength`` is that of
    `BenchmarkSpec`.
    """
    latent = _latent_factor() @ rng.normal(size=len(RENDERED_AUS))
    occurs = latent > np.sqrt(2) * erfinv(1 - 2 * _RATES)
    present = np.array(RENDERED_AUS)[occurs].tolist()
    shown = {au: 1 + 4 * strength * rng.beta(1.3, 1.6) for au in present}
    weak = {au: int(rng.integers(2)) for au in (12, 14) if rng.random() < 0.08}
    return _sides(rng, shown, weak)


def sample_emotion(rng: np.random.Generator, emotion: str, strength: float = 1.0) -> Sides:
    """The AUs of an emotion: one of its prototypes at a random strength, with what may go along,
    now and then a little more.

    ``strength`` is that of `BenchmarkSpec`.
    """
    prototypes = labels.EMOTION_AUS[emotion]
    must, may = prototypes[rng.integers(len(prototypes))]
    strength = strength * rng.beta(2.5, 1.8)

    shown = {}
    for au, usual in must.items():
        shown[au] = 1 + 4 * strength * usual * np.exp(rng.normal(0, 0.2))
    for au, share in may.items():
        if rng.random() < share:
            shown[au] = 1 + 4 * strength * rng.beta(1.5, 1.5)
    if rng.random() < 0.25:
        shown.setdefault(int(rng.choice(RENDERED_AUS)), 1 + rng.beta(1.2, 3.0))

    shown = {au: min(value, labels.INTENSITY_MAX) for au, value in shown.items()}
    weak = dict.fromkeys((12, 14), int(rng.integers(2))) if emotion == "contempt" else {}
    return _sides(rng, shown, weak)


def _sides(rng: np.random.Generator, shown: dict[int, float], weak: dict[int, int]) -> Sides:
    """Both sides of the AUs that show: nearly alike, but for those that are ``weak`` on one side
    (AU -> 0 left, 1 right)."""
    left = {}
    right = {}
    for au, intensity in shown.items():
        sides = np.exp(rng.normal(0, 0.1, 2)) if labels.AUS[au].sided else np.ones(2)
        if au in weak:
            sides[weak[au]] *= 0.15
        sides = (intensity * sides / sides.max()).clip(0, labels.INTENSITY_MAX)
        left[au], right[au] = sides.tolist()
    return left, right


# --- frames ---------------------------------------------------------------------------------------


def sample_frame(rng: np.random.Generator, domain: str = "lab", strength: float = 1.0) -> Frame:
    """An expression under random pose, gaze, light and framing. ``strength`` is that of
    `BenchmarkSpec`."""
    settings = DOMAINS[domain]
    if rng.random() < settings.emotional:
        emotion = str(rng.choice(labels.EMOTIONS))
        left, right = sample_emotion(rng, emotion, strength)
    else:
        emotion = ""
        left, right = sample_intensities(rng, strength)

    camera = Camera(
        yaw=float(np.clip(rng.normal(0, settings.yaw), -0.8, 0.8)),
        pitch=float(np.clip(rng.normal(0, settings.pitch), -0.4, 0.4)),
        distance=float(rng.uniform(0.6, 1.6)),
        shift=tuple(rng.normal(0, 0.015, 2).tolist()),
        zoom=float(np.exp(rng.normal(0, 0.05))),
        tilt=float(rng.normal(0, 0.05)),
    )
    gaze = tuple(rng.normal(0, (0.14, 0.07)).tolist())
    light = sample_light(rng, rng.random() < settings.hard_light)
    return Frame(left, right, emotion, domain, gaze, camera, light)


def one_sided(frame: Frame, rng: np.random.Generator) -> Frame:
    """The frame with most AUs that have sides on one side only: people wink, smirk and raise one
    brow, which `sample_frame` hardly ever shows. It shows no emotion then."""
    left = dict(frame.left)
    right = dict(frame.right)
    for au in left:
        if labels.AUS[au].sided and rng.random() < _ONE_SIDED_AUS:
            weak = (left, right)[rng.integers(2)]
            weak[au] *= rng.uniform(0, 0.3)
    return replace(frame, left=left, right=right, emotion="")


_ONE_SIDED_AUS = 0.7
"""Share of the AUs with sides that a one-sided frame shows on one side only: our choice."""


def sample_light(rng: np.random.Generator, hard: bool = False) -> Light:
    """A lamp in front, warm or cold, and ambient light, stronger from one side; ``hard``: a strong
    lamp from any side."""
    azimuth = rng.uniform(-0.9, 0.9) * (1.5 if hard else 1.0)
    elevation = rng.uniform(-0.05, 1.0)
    direction = (
        float(np.sin(azimuth) * np.cos(elevation)),
        float(np.sin(elevation)),
        float(np.cos(azimuth) * np.cos(elevation)),
    )

    warmth = rng.normal(0, 0.06)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    level = rng.uniform(0.14, 0.32) if hard else rng.uniform(0.30, 0.60)
    lamp = rng.uniform(0.6, 1.1) if hard else rng.uniform(0.25, 0.7)
    ambient = np.zeros((4, 3), np.float32)
    ambient[0] = level * (2 - tint) * rng.normal(1, 0.03, 3)
    ambient[1:] = level * rng.normal((0, 0.22, 0.2), 0.2)[:, None] * rng.normal(1, 0.04, 3)
    return Light(direction=direction, color=tuple((tint * lamp).tolist()), ambient=ambient)


def sequence_of(apex: Frame, length: int, rng: np.random.Generator) -> Iterator[Frame]:
    """``length`` frames that rise to the expression of ``apex`` and fall from it, while head and
    gaze drift."""
    rise, fall = sorted(rng.uniform(0.1, 0.9, 2))
    drift_yaw, drift_pitch = rng.normal(0, (0.08, 0.05))
    for time in np.linspace(0, 1, length):
        level = min(1.0, time / max(rise, 0.15), (1 - time) / max(1 - fall, 0.15))
        level = 0.5 - 0.5 * np.cos(np.pi * level)  # muscles start and stop softly
        camera = replace(
            apex.camera,
            yaw=apex.camera.yaw + drift_yaw * time,
            pitch=apex.camera.pitch + drift_pitch * time,
        )
        yield replace(
            apex,
            left={au: level * value for au, value in apex.left.items()},
            right={au: level * value for au, value in apex.right.items()},
            camera=camera,
        )
