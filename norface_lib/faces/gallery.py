"""Sheets of rendered faces to check the benchmark by eye: arrays of images, which
`norface_lib.viz.plots` lays out."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from norface_lib.faces.benchmark import (
    BenchmarkSpec,
    Frame,
    Person,
    Studio,
    draw_face,
    face_of,
    frames_of,
)
from norface_lib.faces.scene import Camera, Light

Faces = NDArray[np.uint8]
STEPS = (0.0, 1.0, 3.0, 5.0)
"""Intensities that a person checks a label at: absent, trace (A), pronounced (C), maximum (E)."""


def people(pool: str, count: int, size: int = 112, seed: int = 0) -> Faces:
    """One frame each of ``count`` people of a pool: (N, S, S, 3)."""
    studio, spec = Studio(size), BenchmarkSpec(pool, count, 1, size, seed)
    return np.stack(
        [studio.original(face_of(spec, n), *next(frames_of(spec, n))) for n in range(count)]
    )


def bare_people(count: int = 3, seed: int = 12) -> list[Person]:
    """People on whom to look at AUs: milder in shape than any, without glasses or beard."""
    found: list[Person] = []
    for number in itertools.count():
        person = draw_face(np.random.default_rng([seed, number]), spread=0.2)
        if person.look.glasses is None and person.look.beard < 0.05:
            found.append(person)
        if len(found) == count:
            return found
    raise AssertionError("the count never ends")


def au_steps(
    studio: Studio, faces: Sequence[Person], au: int, steps: Sequence[float] = STEPS
) -> Faces:
    """One AU alone on each person at each intensity, frontal, in one light: (people x steps, S, S,
    3)."""
    drawn = []
    for face in faces:
        texture = studio.renderer.textures(face.texture[None])
        for value in steps:
            shown = {au: value} if value else {}
            frame = Frame(shown, shown, "", "lab", (0.0, 0.0), Camera(), Light())
            drawn.append(studio.plain(face, frame, texture=texture))
    return np.stack(drawn)
