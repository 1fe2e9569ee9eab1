"""The open benchmark: subjects and frames by seed, written to disk with labels and, for each frame,
its true normalized image.

A pool is a stream of subjects that no other pool shares: ``pretrain`` for the normalizer, ``lab``
(few subjects, many frames, near frontal, as BP4D and DISFA) and ``wild`` (a subject per image,
strong pose and light, as AffectNet and RAF-DB) for the benchmark, ``evaluator`` for networks that only
measure. The same version, pool, seed and number give the same face on the same platform.
"""

import itertools
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import erfinv
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_json, write_table
from norface_lib.common.paths import target_picture
from norface_lib.faces.head import Subject, head_model
from norface_lib.faces.parts import Glasses
from norface_lib.faces.scene import Camera, Light, Shot
from norface_lib.faces.skin import Look, draw_look, dressed, painter
from norface_lib.faces.wrinkles import depths

VERSION = 2
"""Changes whenever the same seed would give another face or another label."""

DRAWN_AUS = (*labels.BP4D_AUS, *sorted(set(labels.AUS) - set(labels.BP4D_AUS)))
"""AUs that frames are drawn with: the 12 of BP4D, then all others."""

_OTHER_RATES = {
    5: 0.06,
    9: 0.06,
    16: 0.05,
    18: 0.04,
    20: 0.05,
    22: 0.04,
    25: 0.30,
    26: 0.15,
    28: 0.03,
    43: 0.05,
}
_RATES = np.array(
    [*labels.BP4D_RATES, *(_OTHER_RATES[au] for au in DRAWN_AUS[len(labels.BP4D_AUS) :])]
)

# correlations of the latent variables: our choice, after the co-occurrences that the field reports
_TOGETHER = {
    (1, 2): 0.7, (1, 4): 0.2, (4, 7): 0.3, (6, 7): 0.6, (6, 12): 0.75, (6, 10): 0.5, (7, 10): 0.4, (10, 12): 0.6, (7, 12): 0.4,
    (12, 14): 0.3, (15, 17): 0.5, (17, 24): 0.45, (23, 24): 0.4, (12, 15): -0.4, (12, 24): -0.3, (12, 25): 0.4, (25, 26): 0.6,
    (24, 25): -0.7, (23, 25): -0.5, (24, 26): -0.6, (23, 26): -0.4, (17, 25): -0.4, (1, 5): 0.4, (5, 26): 0.3, (5, 43): -0.8,
    (5, 7): -0.4, (4, 9): 0.4, (9, 10): 0.3, (7, 9): 0.4, (9, 12): -0.2, (16, 25): 0.6, (20, 25): 0.3, (22, 25): 0.3,
    (18, 12): -0.4, (18, 25): -0.3, (18, 20): -0.6, (18, 24): -0.3, (22, 12): -0.4, (22, 24): -0.5, (28, 25): -0.6,
    (28, 16): -0.6, (28, 18): -0.5, (28, 22): -0.6, (28, 24): -0.4, (28, 26): -0.2, (16, 24): -0.5, (18, 28): -0.5,
}  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """How faces of a pool are photographed and what they do. Angles are standard deviations in
    radians."""

    yaw: float
    pitch: float
    # share of frames that show an emotion's prototype rather than a random set of AUs
    emotional: float
    hard_light: float  # share of frames in strong, one-sided light
    degraded: float  # share of frames that are soft, gray, noisy, coarse or partly hidden


DOMAINS = {
    "lab": Domain(yaw=0.13, pitch=0.08, emotional=0.0, hard_light=0.1, degraded=0.15),
    "wild": Domain(yaw=0.34, pitch=0.16, emotional=0.85, hard_light=0.4, degraded=0.6),
}

_DOMAINS_OF = {
    "pretrain": ("lab", "wild"),
    "lab": ("lab",),
    "evaluator": ("lab", "wild"),
    "wild": ("wild",),
}
POOLS = tuple(_DOMAINS_OF)
"""Pools; those of two domains draw each frame from either."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """What to render. Everything that a face depends on is here or in ``VERSION``."""

    pool: str = "lab"
    subjects: int = 30
    frames: int = 40  # per subject
    size: int = 112  # pixels
    seed: int = 0
    # the identity of the true images, one of TARGETS; frames take turns at several, as in
    # "noor+ada"
    target: str = "noor"
    # frames of a sequence, from onset over apex to offset; 1: every frame on its own
    sequence: int = 1
    # of what shows: at 1 up to intensity E (5), at 0.5 up to C (3); all of it is above A (1)
    strength: float = 1.0
    version: int = VERSION  # so that what another version made is never taken for this one's

    def __post_init__(self):
        if self.pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {self.pool!r}")
        if not set(self.targets) <= TARGETS.keys() or len(set(self.targets)) < len(self.targets):
            raise ValueError(
                f"target must be of {', '.join(TARGETS)}, several joined by +, got {self.target!r}"
            )
        if min(self.subjects, self.frames, self.size, self.sequence) < 1:
            raise ValueError("subjects, frames, size and sequence must be at least 1")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be within (0, 1], got {self.strength}")
        if self.version != VERSION:
            raise ValueError(
                f"this code makes version {VERSION} of the benchmark, not {self.version}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the target identities; frame i shows number i modulo their count."""
        return tuple(self.target.split("+"))


@dataclass(frozen=True)
class Person:
    """A subject ready to be drawn: shape with hair, look and texture."""

    subject: Subject
    look: Look
    texture: NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """What a frame shows: AU intensities 0..5 for each side (AU number -> value), its emotion if
    any, and the nuisance."""

    left: dict[int, float]
    right: dict[int, float]
    emotion: str  # one of labels.EMOTIONS, or "" for a set of AUs that is none
    domain: str
    gaze: tuple[float, float]
    camera: Camera
    light: Light


# --- subjects and frames by seed ------------------------------------------------------------------


def draw_face(rng: np.random.Generator, spread: float = 0.30) -> Person:
    """A person: phenotype, local shape changes of about ``spread`` (they run from -1 to 1), look,
    hair."""
    model = head_model()
    ethnicity = rng.dirichlet([0.4] * 3)
    phenotype = {
        "gender": rng.random(),
        "age": 0.5 + 0.45 * rng.beta(1.2, 1.8),
        "muscle": rng.random(),
        "weight": rng.uniform(0.2, 0.9),
    }
    phenotype |= dict(zip(("african", "asian", "caucasian"), ethnicity, strict=True))
    phenotype = {name: float(value) for name, value in phenotype.items()}
    changes = {
        n: float(np.clip(rng.normal() * spread, -1, 1))
        for n in model.shape_names
        if not n.startswith("r-")
    }
    # nearly symmetric
    changes |= {
        "r-" + n[2:]: v + rng.normal() * 0.04 for n, v in changes.items() if n.startswith("l-")
    }
    changes = {n: float(np.clip(v, -1, 1)) for n, v in changes.items() if n in model.shape_names}
    return face_with(phenotype, changes, draw_look(rng, phenotype))


def face_with(phenotype: dict[str, float], changes: dict[str, float], look: Look) -> Person:
    """The person of a phenotype, local shape changes and a look."""
    return Person(
        dressed(head_model().subject(phenotype, changes), look), look, painter().paint(look)
    )


TARGETS = {"noor": 36, "emil": 123, "ada": 122}
"""Target identities by name, with the seed that draws them. Nobody's likeness: rendered faces, CC0.
"""


@lru_cache(maxsize=4)
def target_face(name: str = "noor") -> Person:
    """The face of a target identity. Milder in shape than a benchmark subject, so that expressions
    read easily."""
    return draw_face(np.random.default_rng([VERSION, 1000, TARGETS[name]]), spread=0.15)


@lru_cache(maxsize=1)
def _latent_factor() -> NDArray[np.float64]:
    """Cholesky factor of the AUs' latent correlations: the nearest valid matrix, as the pairs above
    were set one by one."""
    correlation = np.eye(len(DRAWN_AUS))
    for (a, b), value in _TOGETHER.items():
        i, j = DRAWN_AUS.index(a), DRAWN_AUS.index(b)
        correlation[i, j] = correlation[j, i] = value
    values, vectors = np.linalg.eigh(correlation)
    valid = vectors @ np.diag(values.clip(1e-3)) @ vectors.T
    scale = 1 / np.sqrt(np.diag(valid))
    return np.linalg.cholesky(valid * scale[:, None] * scale)


Sides = tuple[dict[int, float], dict[int, float]]
"""AU intensities 0..5 (AU number -> value) of the left and of the right side."""


def draw_intensities(rng: np.random.Generator, strength: float = 1.0) -> Sides:
    """A random set of AUs: a Gaussian copula with BP4D's base rates (PAPER.md 2.1).

    An AU that occurs has an intensity of at least 1 (A), more often low than high; its sides differ
    a little, and a smile or a dimple is now and then one-sided. ``strength`` is that of
    `BenchmarkSpec`.
    """
    latent = _latent_factor() @ rng.normal(size=len(DRAWN_AUS))
    occurs = latent > np.sqrt(2) * erfinv(1 - 2 * _RATES)
    shown = {
        au: 1 + 4 * strength * rng.beta(1.3, 1.6)
        for au, present in zip(DRAWN_AUS, occurs, strict=True)
        if present
    }
    weak = {au: int(rng.integers(2)) for au in (12, 14) if rng.random() < 0.08}
    return _sides(rng, shown, weak)


def draw_emotion(rng: np.random.Generator, emotion: str, strength: float = 1.0) -> Sides:
    """The AUs of an emotion: one of its prototypes at a random strength, with what may go along,
    now and then a little more.

    ``strength`` is that of `BenchmarkSpec`.
    """
    prototypes = labels.EMOTION_AUS[emotion]
    must, may = prototypes[rng.integers(len(prototypes))]
    strength = strength * rng.beta(2.5, 1.8)
    shown = {
        au: 1 + 4 * strength * usual * np.exp(rng.normal(0, 0.2)) for au, usual in must.items()
    }
    shown |= {
        au: 1 + 4 * strength * rng.beta(1.5, 1.5)
        for au, share in may.items()
        if rng.random() < share
    }
    if rng.random() < 0.25:
        shown.setdefault(int(rng.choice(DRAWN_AUS)), 1 + rng.beta(1.2, 3.0))
    weak = dict.fromkeys((12, 14), int(rng.integers(2))) if emotion == "contempt" else {}
    return _sides(rng, {au: min(value, labels.INTENSITY_MAX) for au, value in shown.items()}, weak)


def _sides(rng: np.random.Generator, shown: dict[int, float], weak: dict[int, int]) -> Sides:
    """Both sides of the AUs that show: nearly alike, but for those that are ``weak`` on one side
    (AU -> 0 left, 1 right)."""
    left, right = {}, {}
    for au, intensity in shown.items():
        sides = np.exp(rng.normal(0, 0.1, 2)) if labels.AUS[au].sided else np.ones(2)
        if au in weak:
            sides[weak[au]] *= 0.15
        left[au], right[au] = (
            (intensity * sides / sides.max()).clip(0, labels.INTENSITY_MAX).tolist()
        )
    return left, right


def draw_frame(rng: np.random.Generator, domain: str = "lab", strength: float = 1.0) -> Frame:
    """An expression under random pose, gaze, light and framing. ``strength`` is that of
    `BenchmarkSpec`."""
    where = DOMAINS[domain]
    emotion = str(rng.choice(labels.EMOTIONS)) if rng.random() < where.emotional else ""
    left, right = (
        draw_emotion(rng, emotion, strength) if emotion else draw_intensities(rng, strength)
    )
    camera = Camera(
        yaw=float(np.clip(rng.normal(0, where.yaw), -0.8, 0.8)),
        pitch=float(np.clip(rng.normal(0, where.pitch), -0.4, 0.4)),
        distance=float(rng.uniform(0.6, 1.6)),
        shift=tuple(rng.normal(0, 0.015, 2).tolist()),
        zoom=float(np.exp(rng.normal(0, 0.05))),
        tilt=float(rng.normal(0, 0.05)),
    )
    gaze = tuple(rng.normal(0, (0.14, 0.07)).tolist())
    return Frame(
        left, right, emotion, domain, gaze, camera, draw_light(rng, rng.random() < where.hard_light)
    )


def draw_light(rng: np.random.Generator, hard: bool = False) -> Light:
    """A lamp in front, warm or cold, and ambient light, stronger from one side; ``hard``: a strong
    lamp from any side."""
    azimuth, elevation = rng.uniform(-0.9, 0.9) * (1.5 if hard else 1.0), rng.uniform(-0.05, 1.0)
    direction = (
        np.sin(azimuth) * np.cos(elevation),
        np.sin(elevation),
        np.cos(azimuth) * np.cos(elevation),
    )
    warmth = rng.normal(0, 0.06)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    level, lamp = (
        (rng.uniform(0.14, 0.32), rng.uniform(0.6, 1.1))
        if hard
        else (rng.uniform(0.30, 0.60), rng.uniform(0.25, 0.7))
    )
    ambient = np.zeros((4, 3))
    ambient[0] = level * (2 - tint) * rng.normal(1, 0.03, 3)
    ambient[1:] = level * rng.normal((0, 0.22, 0.2), 0.2)[:, None] * rng.normal(1, 0.04, 3)
    return Light(
        tuple(map(float, direction)), tuple((tint * lamp).tolist()), ambient.astype(np.float32)
    )


def sequence_of(apex: Frame, length: int, rng: np.random.Generator) -> Iterator[Frame]:
    """``length`` frames that rise to the expression of ``apex`` and fall from it, while head and
    gaze drift."""
    rise, fall = sorted(rng.uniform(0.1, 0.9, 2))
    drift = rng.normal(0, (0.08, 0.05))
    for at in np.linspace(0, 1, length):
        level = min(1.0, at / max(rise, 0.15), (1 - at) / max(1 - fall, 0.15))
        level = 0.5 - 0.5 * np.cos(np.pi * level)  # muscles start and stop softly
        left, right = (
            {au: level * value for au, value in side.items()} for side in (apex.left, apex.right)
        )
        camera = replace(
            apex.camera,
            yaw=apex.camera.yaw + drift[0] * at,
            pitch=apex.camera.pitch + drift[1] * at,
        )
        yield replace(apex, left=left, right=right, camera=camera)


def draw_background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """(S, S, 3) linear RGB: a wall with a soft gradient, or blurred shapes as behind a portrait."""
    tint = rng.normal(1, 0.07, 3)
    if rng.random() < 0.5:
        ends = rng.uniform(0.02, 0.6) * np.exp(rng.normal(0, 0.25, (2, 2, 1))) * tint
    else:
        cells = rng.integers(2, 6)
        ends = (
            rng.uniform(0.01, 0.6)
            * np.exp(rng.normal(0, 0.7, (cells, cells, 1)))
            * tint
            * rng.normal(1, 0.06, (cells, cells, 3))
        )
    return cv2.resize(ends.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC).clip(
        0, 1
    )


_CURVE_STEPS = 4096


@lru_cache(maxsize=1)
def _curve() -> NDArray[np.float32]:
    """(4096,) sRGB value 0..255 of linear light 0..2 in even steps of its square root, with a soft
    shoulder, as film has."""
    light = (np.arange(_CURVE_STEPS) / (_CURVE_STEPS - 1)) ** 2 * 2
    light = np.where(light > 0.5, 0.5 + 0.5 * np.tanh((light - 0.5) / 0.5), light)
    return (
        np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    ).astype(np.float32)


def develop(
    linear: NDArray[np.float32],
    background: NDArray[np.float32],
    rng: np.random.Generator | None = None,
    degraded: bool = False,
) -> NDArray[np.uint8]:
    """Linear premultiplied RGB and coverage (S, S, 4) over a background to an sRGB image (S, S, 3)
    of 8 bits.

    With ``rng``, as a real camera: exposure, white balance, a little noise. ``degraded``: also soft,
    gray, coarse or noisy.
    """
    image = linear[..., :3] + (1 - linear[..., 3:]) * background
    if rng is not None:
        bright = float(linear[..., :3].sum() / max(1.0, 3 * linear[..., 3].sum()))
        # a camera's exposure goes half-way to a middle gray
        metered = np.sqrt(0.27 / max(bright, 0.02))
        image = image * (metered * np.exp(rng.normal(0, 0.15)) * rng.normal(1, 0.025, 3)).astype(
            np.float32
        )
    image = _curve()[(np.sqrt(image.clip(0, 2) / 2) * (_CURVE_STEPS - 1)).astype(np.int32)]
    noise = 0.0 if rng is None else rng.uniform(0.0, 0.012)
    if degraded and rng is not None:
        size = len(image)
        if rng.random() < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2) * size / 112)
        if rng.random() < 0.3:
            coarse = int(size * rng.uniform(0.35, 0.8))
            small = cv2.resize(image, (coarse, coarse), interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
        if rng.random() < 0.35:
            image = np.repeat(image @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
        noise += rng.exponential(0.012)
    if noise:
        image = image + rng.standard_normal(image.shape, np.float32) * np.float32(255 * noise)
    return (image + 0.5).clip(0, 255).astype(np.uint8)


def draw_occluder(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image with something soft-edged in front of a part of the face: a hand, a cup, a
    microphone, somebody's shoulder."""
    size = len(image)
    mask = np.zeros((size, size), np.float32)
    turn, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.38, 0.62)
    middle = size * (0.5 + far * np.array([np.cos(turn), 0.2 + np.sin(turn)]))
    axes = size * rng.uniform(0.08, 0.28, 2)
    cv2.ellipse(
        mask,
        tuple(map(int, middle)),
        tuple(map(int, axes + 1)),
        float(rng.uniform(0, 180)),
        0,
        360,
        1.0,
        -1,
        cv2.LINE_AA,
    )
    mask = cv2.GaussianBlur(mask, (0, 0), size * 0.006)[..., None]
    shading = 1 + 0.35 * (
        np.linspace(-1, 1, size)[:, None, None] * rng.normal()
        + np.linspace(-1, 1, size)[:, None] * rng.normal()
    )
    color = rng.uniform(20, 220) * rng.normal((1.1, 0.95, 0.85), 0.12)
    return (image * (1 - mask) + (color * shading) * mask).clip(0, 255).astype(np.uint8)


class Studio:
    """Draws frames and their true normalized images with one renderer."""

    def __init__(self, size: int = 112, target: str = "noor", device: str = "cpu"):
        from norface_lib.faces.render import Renderer  # starts Warp, which few callers need

        self.renderer = Renderer(size, device=device)
        self.target = target_face(target)
        subject = self.target.subject
        self._anchor = head_model().five_points(subject.vertices, subject.eyes)
        self._target_texture = self.renderer.textures(self.target.texture[None])
        wall = np.linspace(0.42, 0.34, size, dtype=np.float32)[:, None, None]
        self._wall = np.broadcast_to(wall, (size, size, 3)).astype(np.float32)

    def original(
        self, face: Person, frame: Frame, rng: np.random.Generator, texture=None
    ) -> NDArray[np.uint8]:
        """The frame as a camera saw it: (S, S, 3) sRGB."""
        texture = self.renderer.textures(face.texture[None]) if texture is None else texture
        degraded = rng.random() < DOMAINS[frame.domain].degraded
        drawn = self.renderer.render([shot_of(face, frame)], texture)[0]
        image = develop(drawn, draw_background(rng, self.renderer.size), rng, degraded)
        return draw_occluder(image, rng) if degraded and rng.random() < 0.2 else image

    def plain(
        self, face: Person, frame: Frame, anchor: NDArray[np.float32] | None = None, texture=None
    ) -> NDArray[np.uint8]:
        """The frame without a camera's faults, before a gray wall: (S, S, 3). ``anchor``: points
        (5, 3) to frame it by."""
        texture = self.renderer.textures(face.texture[None]) if texture is None else texture
        shot = shot_of(face, frame)
        shot = shot if anchor is None else replace(shot, anchor=anchor)
        return develop(self.renderer.render([shot], texture)[0], self._wall)

    def normalized(
        self, left: dict[int, float], right: dict[int, float] | None = None
    ) -> NDArray[np.uint8]:
        """The true I_n of an expression: the target face, frontal, in its own light, framed as when
        neutral. (S, S, 3)."""
        frame = Frame(
            left, left if right is None else right, "", "lab", (0.0, 0.0), Camera(), Light()
        )
        return self.plain(self.target, frame, self._anchor, self._target_texture)

    def neutral(self) -> NDArray[np.uint8]:
        """The target face I_t, without expression."""
        return self.normalized({})


def shot_of(face: Person, frame: Frame) -> Shot:
    """What the renderer needs to draw a face in a frame."""
    subject, model = face.subject, head_model()
    vertices = model.expression(subject, labels.facial_actions(frame.left, frame.right))
    attribute = subject.to_tip + depths(frame.left, frame.right, subject.phenotype["age"])
    anchor = model.five_points(vertices, subject.eyes)
    return Shot(
        vertices, attribute, subject.eyes, face.look, anchor, frame.camera, frame.light, frame.gaze
    )


# --- writing --------------------------------------------------------------------------------------


def subject_name(pool: str, number: int) -> str:
    """``("lab", 3) -> "lab0003"``: names tell the pool, so two pools can never be mixed up."""
    return f"{pool}{number:04d}"


def intensity_columns(shown: Sides) -> dict[str, float]:
    """Columns of a label table for intensities of both sides: the stronger, as FACS codes, and each
    where sides may differ."""
    row = {}
    for au in DRAWN_AUS:
        sides = tuple(side.get(au, 0.0) for side in shown)
        row[labels.au_column(au)] = max(sides)
        if labels.AUS[au].sided:
            row[labels.au_column(au) + "L"], row[labels.au_column(au) + "R"] = sides
    return row


def label_row(subject: str, number: int, frame: Frame, length: int = 1) -> dict[str, object]:
    """One row of the label table: paths, AU intensities (the stronger side, as coded by FACS; then
    each side), nuisance.

    ``length``: frames of a sequence.
    """
    row: dict[str, object] = {
        "subject": subject,
        "sequence": f"T{number // length + 1}",
        "frame": number,
        "domain": frame.domain,
        "emotion": frame.emotion,
        "image": f"images/{subject}/{number:04d}.jpg",
        "truth": f"truth/{subject}/{number:04d}.png",
    }
    row |= intensity_columns((frame.left, frame.right))
    row |= {
        "yaw": frame.camera.yaw,
        "pitch": frame.camera.pitch,
        "gaze_yaw": frame.gaze[0],
        "gaze_pitch": frame.gaze[1],
    }
    row |= {
        f"light_{axis}": value for axis, value in zip("xyz", frame.light.direction, strict=True)
    }
    return row


def face_of(spec: BenchmarkSpec, number: int) -> Person:
    """The person of subject ``number``. Some people of the ``wild`` pool wear sunglasses."""
    rng = np.random.default_rng([VERSION, POOLS.index(spec.pool), spec.seed, number])
    face = draw_face(rng)
    if spec.pool == "wild" and rng.random() < 0.04:
        look = replace(face.look, glasses=Glasses(0.026, 0.021, 2.6, 0.001, dark=True))
        face = Person(dressed(face.subject, look), look, face.texture)
    return face


def frames_of(spec: BenchmarkSpec, number: int) -> Iterator[tuple[Frame, np.random.Generator]]:
    """The frames of subject ``number``, each with the generator that goes on to draw its background
    and camera."""
    domains = _DOMAINS_OF[spec.pool]
    for first in range(0, spec.frames, spec.sequence):
        rng = np.random.default_rng([VERSION, POOLS.index(spec.pool), spec.seed, number, first])
        apex = draw_frame(rng, domains[rng.integers(len(domains))], spec.strength)
        if spec.sequence == 1:
            yield apex, rng
            continue
        for frame in itertools.islice(sequence_of(apex, spec.sequence, rng), spec.frames - first):
            yield frame, rng


@lru_cache(maxsize=len(TARGETS))
def _studio(size: int, target: str) -> Studio:
    """One studio for each target in a worker process."""
    return Studio(size, target)


def render_subject(spec: BenchmarkSpec, number: int, root: str) -> str:
    """Writes one subject's images and label rows, all or nothing, and returns the subject's name."""
    name, root_path = subject_name(spec.pool, number), Path(root)
    part = root_path / "parts" / f"{name}.{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    face = face_of(spec, number)
    studios = [_studio(spec.size, target) for target in spec.targets]
    studio = studios[0]
    texture = studio.renderer.textures(face.texture[None])
    rows, parent = [], os.getppid()
    for frame_number, (frame, rng) in enumerate(frames_of(spec, number)):
        if os.getppid() != parent:
            raise SystemExit("the process that asked for this subject is gone")
        row = label_row(name, frame_number, frame, spec.sequence)
        _write_image(part / str(row["image"]), studio.original(face, frame, rng, texture))
        turn = frame_number % len(studios)
        _write_image(part / str(row["truth"]), studios[turn].normalized(frame.left, frame.right))
        row |= {"target": spec.targets[turn]} if len(studios) > 1 else {}
        rows.append(row)
    for folder in ("images", "truth"):
        shutil.rmtree(root_path / folder / name, ignore_errors=True)
        (root_path / folder).mkdir(exist_ok=True)
        os.replace(part / folder / name, root_path / folder / name)
    # last: its presence says that the subject is done
    write_table(pd.DataFrame(rows), root_path / "parts" / f"{name}.csv")
    shutil.rmtree(part, ignore_errors=True)
    return name


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Originals are JPEG, as photographs are; true images are PNG: what an expression moves is
    little beside JPEG's noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = (
        [cv2.IMWRITE_JPEG_QUALITY, 95]
        if path.suffix == ".jpg"
        else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    )
    done, data = cv2.imencode(path.suffix, image[..., ::-1], options)
    if not done:
        raise DataError(f"{path}: OpenCV could not encode the image")
    path.write_bytes(data.tobytes())


def write_benchmark(
    spec: BenchmarkSpec, root: Path, workers: int | None = None, progress: bool = True
) -> Path:
    """Renders a benchmark into ``root`` and returns that: images/, truth/, labels.csv, target.png,
    benchmark.json.

    Subjects are rendered in parallel, each written as a whole; a call after an interruption goes on
    with those that are missing. A finished folder of the same specification is used as it is, but
    for subjects with a missing or truncated image, which are rendered anew. Raises
    :class:`DataError` if ``root`` holds another specification.
    """
    root = Path(root)
    wanted = asdict(spec)
    _check_same(root, wanted)
    if (root / "labels.csv").exists():
        damaged = _damaged_subjects(spec, root)
        if not damaged:
            print(
                f"{root.name}: {spec.subjects} subjects x {spec.frames} frames are there already, "
                "used as they are"
            )
            return root
        print(
            f"{root.name}: {len(damaged)} of {spec.subjects} subjects have missing or truncated "
            "images, rendered anew"
        )
        _render_all(spec, damaged, root, workers or os.cpu_count() or 1, progress)
        shutil.rmtree(root / "parts")
        return root
    (root / "parts").mkdir(parents=True, exist_ok=True)
    write_json(wanted, root / "benchmark.json")
    missing = [
        n
        for n in range(spec.subjects)
        if not (root / "parts" / f"{subject_name(spec.pool, n)}.csv").exists()
    ]
    for name in spec.targets:
        _write_image(
            target_picture(root / "target.png", spec.targets, name),
            Studio(spec.size, name).neutral(),
        )
    _render_all(spec, missing, root, workers or os.cpu_count() or 1, progress)
    tables = [
        pd.read_csv(root / "parts" / f"{subject_name(spec.pool, n)}.csv")
        for n in range(spec.subjects)
    ]
    write_table(pd.concat(tables, ignore_index=True), root / "labels.csv")
    shutil.rmtree(root / "parts")
    return root


_ENDS = {".jpg": b"\xff\xd9", ".png": b"IEND\xaeB`\x82"}
"""How a whole file of each kind ends."""


def _damaged_subjects(spec: BenchmarkSpec, root: Path) -> list[int]:
    """Numbers of the subjects of a finished benchmark that lack an image, or have one that does not
    end as it should."""
    damaged = []
    for number in range(spec.subjects):
        name = subject_name(spec.pool, number)
        files = [root / kind / name / f"{frame:04d}{end}" for frame in range(spec.frames)
                 for kind, end in (("images", ".jpg"), ("truth", ".png"))]  # fmt: skip
        if not all(_is_whole(path) for path in files):
            damaged.append(number)
    return damaged


def _is_whole(path: Path) -> bool:
    end = _ENDS[path.suffix]
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # missing, or too short to have an end
        return False


def _check_same(root: Path, wanted: dict[str, object]) -> None:
    """Raises unless the folder is free, or holds just this benchmark, whole or begun."""
    path = root / "benchmark.json"
    if not path.exists():
        if (root / "labels.csv").exists():
            raise DataError(
                f"{root}: holds a label table but no benchmark.json; choose another folder"
            )
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found = {"strength": 1.0} | found  # which older folders do not name
        differing = {
            key: (found.get(key), value) for key, value in wanted.items() if found.get(key) != value
        }
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged; delete this folder and render again") from error
    if differing:
        raise DataError(
            f"{path}: holds another benchmark (found, wanted: {differing}); choose another folder "
            "or delete it"
        )


def _render_all(
    spec: BenchmarkSpec, missing: list[int], root: Path, workers: int, progress: bool
) -> None:
    if not missing:
        return
    bar = tqdm(
        total=spec.subjects,
        initial=spec.subjects - len(missing),
        unit="subject",
        disable=not progress,
        file=sys.stdout,
    )
    bar.set_description(f"render {spec.pool}")
    context = multiprocessing.get_context("spawn")  # Warp must not be forked
    with bar, ProcessPoolExecutor(min(workers, len(missing)), context) as pool:
        jobs = [pool.submit(render_subject, spec, number, str(root)) for number in missing]
        try:
            for job in as_completed(jobs):
                job.result()
                bar.update()
        except BrokenProcessPool as error:
            raise DataError(
                f"{root}: a rendering process was killed (out of memory?); the same call goes on "
                "from here"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
