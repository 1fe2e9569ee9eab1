"""A studio: people and frames to images, as a camera sees them or as true normalized images."""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.errors import needs
from norface_lib.faces.benchmark import target_face
from norface_lib.faces.head import head_model
from norface_lib.faces.sampling import DOMAINS, Frame, Person
from norface_lib.faces.scene import Camera, Shot
from norface_lib.faces.wrinkles import depths

REFERENCES: tuple[dict[int, float], ...] = (
    {},
    {4: 5.0, 6: 4.0, 9: 5.0, 43: 5.0, 25: 4.0, 26: 4.0},
    {1: 4.0, 2: 4.0, 5: 4.0, 12: 5.0, 25: 5.0, 10: 3.0},
)
"""AU intensities of the reference pictures of a target: neutral, and two that show what a neutral
face hides: lids, teeth, the inside of the mouth, and lines of forehead, nose and eyes."""


class Studio:
    """Renders frames and their true normalized images with one renderer."""

    def __init__(self, size: int = 112, target: str = "noor", device: str = "cpu"):
        # it imports Warp, which few callers need
        with needs("render"):
            from norface_lib.faces.render import Renderer

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
        """The frame as a camera sees it: (S, S, 3) sRGB. ``texture``: the uploaded one of ``face``,
        where it is at hand."""
        texture = self.renderer.textures(face.texture[None]) if texture is None else texture
        degraded = rng.random() < DOMAINS[frame.domain].degraded
        rendered = self.renderer.render([shot_of(face, frame)], texture)[0]
        background = _sample_background(rng, self.renderer.size)

        image = develop(rendered, background, rng, degraded)
        return _add_occluder(image, rng) if degraded and rng.random() < 0.2 else image

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
        right = left if right is None else right
        return self.plain(self.target, Frame(left, right), self._anchor, self._target_texture)

    def cutout(
        self,
        left: dict[int, float],
        right: dict[int, float] | None = None,
        *,
        room: float = 1.0,
    ) -> NDArray[np.uint8]:
        """The head of `normalized` without a wall: (S, S, 4) of 8 bits, sRGB and how much of each
        pixel it covers. ``room``: how many times as wide as the crop the picture is, to hold the
        whole head."""
        right = left if right is None else right
        frame = Frame(left, right, camera=Camera(zoom=1 / room))
        shot = replace(shot_of(self.target, frame), anchor=self._anchor)
        linear = self.renderer.render([shot], self._target_texture)[0]
        covered = linear[..., 3:]
        linear = np.concatenate([linear[..., :3] / covered.clip(1e-3), np.ones_like(covered)], 2)
        cover = (255 * covered + 0.5).clip(0, 255).astype(np.uint8)
        return np.concatenate([develop(linear, self._wall), cover], axis=2)

    def neutral(self) -> NDArray[np.uint8]:
        """The target face I_t, without expression."""
        return self.normalized({})

    def references(self, count: int = len(REFERENCES)) -> NDArray[np.uint8]:
        """The first of ``REFERENCES``, (count, S, S, 3). Raises ``ValueError`` for more than there
        are."""
        if count > len(REFERENCES):
            raise ValueError(f"a target has {len(REFERENCES)} references, not {count}")
        return np.stack([self.normalized(expression) for expression in REFERENCES[:count]])


def shot_of(face: Person, frame: Frame) -> Shot:
    """A face in a frame, ready for the renderer."""
    model = head_model()
    subject = face.subject
    vertices = model.expression(subject, labels.facial_actions(frame.left, frame.right))
    return Shot(
        vertices=vertices,
        attribute=subject.to_tip + depths(frame.left, frame.right, subject.phenotype["age"]),
        eyes=subject.eyes,
        look=face.look,
        anchor=model.five_points(vertices, subject.eyes),
        camera=frame.camera,
        light=frame.light,
        gaze=frame.gaze,
    )


# --- the picture that a camera takes --------------------------------------------------------------

_CURVE_STEPS = 4096


@lru_cache(maxsize=1)
def _curve() -> NDArray[np.float32]:
    """(4096,) sRGB value 0..255 of linear light 0..2 in even steps of its square root, with a soft
    shoulder, as film has."""
    light = (np.arange(_CURVE_STEPS) / (_CURVE_STEPS - 1)) ** 2 * 2
    light = np.where(light > 0.5, 0.5 + 0.5 * np.tanh((light - 0.5) / 0.5), light)
    srgb = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return (srgb * 255).astype(np.float32)


def develop(
    linear: NDArray[np.float32],
    background: NDArray[np.float32],
    rng: np.random.Generator | None = None,
    degraded: bool = False,
) -> NDArray[np.uint8]:
    """Linear premultiplied RGB and coverage (S, S, 4) over a background to an sRGB image (S, S, 3)
    of 8 bits.

    With ``rng``, as a real camera: exposure, white balance, a little noise. ``degraded``: also
    soft, gray, coarse or noisy.
    """
    image = linear[..., :3] + (1 - linear[..., 3:]) * background
    if rng is not None:
        image = image * _sample_exposure(linear, rng)
    image = _curve()[(np.sqrt(image.clip(0, 2) / 2) * (_CURVE_STEPS - 1)).astype(np.int32)]

    noise = 0.0 if rng is None else rng.uniform(0.0, 0.012)
    if degraded and rng is not None:
        image = _degraded(image, rng)
        noise += rng.exponential(0.012)
    if noise:
        image = image + rng.standard_normal(image.shape, np.float32) * np.float32(255 * noise)
    return (image + 0.5).clip(0, 255).astype(np.uint8)


def _sample_exposure(linear: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """(3,) factors of exposure and white balance; exposure goes half-way to a middle gray."""
    bright = float(linear[..., :3].sum() / max(1.0, 3 * linear[..., 3].sum()))
    metered = np.sqrt(0.27 / max(bright, 0.02))
    return (metered * np.exp(rng.normal(0, 0.15)) * rng.normal(1, 0.025, 3)).astype(np.float32)


def _degraded(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The image (S, S, 3), now and then soft, coarse or gray."""
    size = len(image)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2) * size / 112)
    if rng.random() < 0.3:
        coarse = int(size * rng.uniform(0.35, 0.8))
        small = cv2.resize(image, (coarse, coarse), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.35:
        image = np.repeat(image @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
    return image


def _sample_background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """(S, S, 3) linear RGB: a wall with a soft gradient, or blurred shapes as behind a portrait."""
    tint = rng.normal(1, 0.07, 3)
    if rng.random() < 0.5:
        colors = rng.uniform(0.02, 0.6) * np.exp(rng.normal(0, 0.25, (2, 2, 1))) * tint
    else:
        cells = rng.integers(2, 6)
        level = rng.uniform(0.01, 0.6) * np.exp(rng.normal(0, 0.7, (cells, cells, 1)))
        colors = level * tint * rng.normal(1, 0.06, (cells, cells, 3))
    wall = cv2.resize(colors.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return wall.clip(0, 1)


def _add_occluder(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image with something soft-edged in front of a part of the face: a hand, a cup, a
    microphone, somebody's shoulder."""
    size = len(image)
    turn = rng.uniform(0, 2 * np.pi)
    distance = rng.uniform(0.38, 0.62)
    middle = size * (0.5 + distance * np.array([np.cos(turn), 0.2 + np.sin(turn)]))
    axes = size * rng.uniform(0.08, 0.28, 2) + 1

    ellipse = (tuple(middle.astype(int).tolist()), tuple(axes.astype(int).tolist()))
    angle = float(rng.uniform(0, 180))
    mask = np.zeros((size, size), np.float32)
    cv2.ellipse(mask, *ellipse, angle, 0, 360, 1.0, thickness=-1, lineType=cv2.LINE_AA)
    mask = cv2.GaussianBlur(mask, (0, 0), size * 0.006)[..., None]

    ramp = np.linspace(-1, 1, size)
    shading = 1 + 0.35 * (ramp[:, None, None] * rng.normal() + ramp[:, None] * rng.normal())
    color = rng.uniform(20, 220) * rng.normal((1.1, 0.95, 0.85), 0.12)
    return (image * (1 - mask) + (color * shading) * mask).clip(0, 255).astype(np.uint8)
