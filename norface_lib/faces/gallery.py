"""Sheets of rendered faces to check the benchmark by eye: arrays of images, which
`norface_lib.viz.plots` lays out."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from norface_lib.faces.benchmark import BenchmarkSpec, face_of, frames_of
from norface_lib.faces.sampling import Frame, Person, sample_face
from norface_lib.faces.studio import Studio

Faces = NDArray[np.uint8]
STEPS = (0.0, 1.0, 3.0, 5.0)
"""Intensities that a person checks a label at: absent, trace (A), pronounced (C), maximum (E)."""


def people(pool: str, count: int, size: int = 112, seed: int = 0) -> Faces:
    """One frame each of ``count`` people of a pool: (N, S, S, 3)."""
    studio = Studio(size)
    spec = BenchmarkSpec(pool=pool, subjects=count, frames=1, size=size, seed=seed)
    return np.stack(
        [studio.original(face_of(spec, n), *next(frames_of(spec, n))) for n in range(count)]
    )


def plain_people(count: int = 3, seed: int = 12) -> list[Person]:
    """People on whom to look at AUs: milder in shape than others, without glasses or beard."""
    people = (sample_face(np.random.default_rng([seed, n]), spread=0.2) for n in itertools.count())
    plain = (face for face in people if face.look.glasses is None and face.look.beard < 0.05)
    return list(itertools.islice(plain, count))


def au_steps(
    studio: Studio, faces: Sequence[Person], au: int, steps: Sequence[float] = STEPS
) -> Faces:
    """One AU alone on each person at each intensity, frontal, in one light: (people x steps, S, S,
    3)."""
    images = []
    for face in faces:
        texture = studio.renderer.textures(face.texture[None])
        for value in steps:
            shown = {au: value} if value else {}
            images.append(studio.plain(face, Frame(shown, shown), texture=texture))
    return np.stack(images)
