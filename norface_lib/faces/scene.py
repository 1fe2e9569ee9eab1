"""Scenes to render: a head, its camera and its light."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from norface_lib.faces.look import Look
from norface_lib.images.crop import NORFACE_CROP, similarity


@dataclass(frozen=True, kw_only=True)
class Camera:
    """The camera's place and its crop. Angles in radians, from the head's point of view; distance
    in meters."""

    yaw: float = 0.0  # positive: the subject turns to the image's left
    pitch: float = 0.0  # positive: the subject looks up
    roll: float = 0.0
    distance: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)  # of the crop, in widths of the image
    zoom: float = 1.0  # above 1 the face is larger than the crop asks for
    tilt: float = 0.0  # rotation of the crop, radians: what an imperfect alignment leaves


@dataclass(frozen=True, kw_only=True)
class Light:
    """One directional light and an ambient one, in camera coordinates (x right, y up, z towards the
    camera)."""

    direction: tuple[float, float, float] = (0.35, 0.5, 0.8)
    color: tuple[float, float, float] = (0.75, 0.73, 0.70)
    # (4, 3): constant and x, y, z terms of a first-order spherical harmonic, RGB
    ambient: NDArray[np.float32] = field(
        default_factory=lambda: np.array(
            [(0.42,) * 3, (0.0,) * 3, (0.10,) * 3, (0.08,) * 3], np.float32
        )
    )


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One head to render, with its surface, camera and light.

    ``vertices``: (V, 3) in meters. ``attribute``: (V,) depth of wrinkles on skin, distance from the
    tips in meters on hair. ``eyes``: (2, 4) centers and radii of the eyeballs. ``anchor``: five
    points (5, 3) that meet the crop. ``gaze``: yaw and pitch in radians.
    """

    vertices: NDArray[np.float32]
    attribute: NDArray[np.float32]
    eyes: NDArray[np.float32]
    look: Look
    anchor: NDArray[np.float32]
    camera: Camera = Camera()
    light: Light = field(default_factory=Light)
    gaze: tuple[float, float] = (0.0, 0.0)


def camera_frame(camera: Camera) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Position and the unit vectors right, up, forward of a camera that looks at the middle of the
    face."""
    center = np.array([0.0, 0.03, -0.03])
    sideways = np.sin(camera.yaw) * np.cos(camera.pitch)
    forwards = -np.cos(camera.yaw) * np.cos(camera.pitch)
    away = np.array([sideways, forwards, -np.sin(camera.pitch)])

    forward = -away
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    cos = np.cos(camera.roll)
    sin = np.sin(camera.roll)
    rolled_right = cos * right + sin * up
    rolled_up = cos * up - sin * right
    return center + away * camera.distance, rolled_right, rolled_up, forward


def pixel_to_plane(points: NDArray, camera: Camera, size: int) -> NDArray[np.float64]:
    """(3, 3) map from pixel (x, y, 1) to the image plane, such that the five points (5, 3) of the
    face meet the crop."""
    origin, right, up, forward = camera_frame(camera)
    offset = points - origin
    depth = offset @ forward
    on_plane = np.stack([offset @ right / depth, offset @ up / depth], axis=1)

    crop = NORFACE_CROP.pixels(size) - size / 2
    cos = np.cos(camera.tilt)
    sin = np.sin(camera.tilt)
    turn = np.array([(cos, -sin), (sin, cos)])
    crop = crop @ turn.T * camera.zoom + size / 2 + np.array(camera.shift) * size
    fit = similarity(crop * (1, -1), on_plane)  # rows run down, the image plane runs up
    return np.concatenate([fit * np.array([1, -1, 1]), [[0, 0, 1]]])
