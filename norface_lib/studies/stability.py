"""Stability of normalized faces while only person, pose, light or background change."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norface_lib.faces.benchmark import BenchmarkSpec, face_of
from norface_lib.faces.sampling import Frame, Person, sample_frame, sample_intensities
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import Faces
from norface_lib.networks.drawing import Draw

_SPREAD_SEED = 1_000_003  # of subjects that no benchmark of a small seed shows


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All of a rendering but the expression: the person, pose and light, and the seed of background
    and camera."""

    person: Person
    frame: Frame
    seed: int


def sample_scenes(domain: str, count: int, seed: int = 0) -> list[Scene]:
    """Random scenes of a domain, each with another person of its pool."""
    spec = BenchmarkSpec(pool=domain, subjects=count, seed=_SPREAD_SEED + seed)
    rng = np.random.default_rng([_SPREAD_SEED, seed])
    return [
        Scene(person=face_of(spec, number), frame=sample_frame(rng, domain), seed=number)
        for number in range(count)
    ]


CHANGES: dict[str, Callable[[Scene, Scene], Scene]] = {
    "people": lambda first, other: replace(first, person=other.person),
    "pose": lambda first, other: replace(
        first, frame=replace(first.frame, camera=other.frame.camera, gaze=other.frame.gaze)
    ),
    "light": lambda first, other: replace(
        first, frame=replace(first.frame, light=other.frame.light)
    ),
    "background": lambda first, other: replace(first, seed=other.seed),
    "all": lambda first, other: other,
}
"""Changes between the scenes of one expression, by name; ``background`` includes the camera's
exposure and faults."""


def render_scenes(studio: Studio, scenes: list[Scene], expressions: int, seed: int = 0) -> Faces:
    """(E, M, S, S, 3) the same E random expressions in each of M scenes, as a camera sees them."""
    rng = np.random.default_rng([_SPREAD_SEED, seed, expressions])
    intensities = [sample_intensities(rng) for _ in range(expressions)]
    columns = []
    for scene in scenes:
        texture = studio.renderer.textures(scene.person.texture[None])
        column = []
        for left, right in intensities:
            frame = replace(scene.frame, left=left, right=right)
            # the same background and camera for every expression
            scene_rng = np.random.default_rng([_SPREAD_SEED, scene.seed])
            column.append(studio.original(scene.person, frame, scene_rng, texture))
        columns.append(np.stack(column))
    return np.stack(columns, axis=1)


def spread_ratio(faces: Faces) -> float | None:
    """Spread of images (E, M, S, S, 3) over M scenes, relative to that over E expressions; None if
    expressions move nothing.

    The spread is the standard deviation of a pixel over the one, as root mean square over pixels
    and over the other: 0 if only the expression shows.
    """
    values = faces.astype(np.float32)
    over_scenes = float(np.sqrt(values.var(axis=1).mean()))
    over_expressions = float(np.sqrt(values.var(axis=0).mean()))
    return over_scenes / over_expressions if over_expressions > 0 else None


def spread_measures(
    draw: Draw,
    target: NDArray[np.uint8],
    domain: str,
    expressions: int = 6,
    scenes: int = 6,
    seed: int = 0,
) -> dict[str, Any]:
    """`spread_ratio` of originals and of I_n that ``draw`` makes while people change, or pose,
    light, background, all; ``target`` (S, S, 3)."""
    studio = Studio(len(target))
    random_scenes = sample_scenes(domain, scenes, seed)
    spreads = {}
    for kind, change in CHANGES.items():
        changed = [change(random_scenes[0], scene) for scene in random_scenes]
        originals = render_scenes(studio, changed, expressions, seed)
        faces = originals.reshape(-1, *originals.shape[2:])
        normalized = draw(faces)
        spreads[kind] = {
            "original": spread_ratio(originals),
            "normalized": spread_ratio(normalized.reshape(originals.shape)),
        }
    return spreads
