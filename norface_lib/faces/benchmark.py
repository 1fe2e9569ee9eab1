"""The open benchmark: its specification, and its people and frames by seed.

A pool is a stream of subjects that no other pool shares: ``pretrain`` for the normalizer, ``lab``
(few subjects, many frames, near frontal, as BP4D and DISFA) and ``wild`` (a subject per image,
strong pose and light, as AffectNet and RAF-DB) for the benchmark, ``evaluator`` for networks that
only measure. The same version, pool, seed and number give the same face on the same platform.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from norface_lib.faces.parts import Glasses
from norface_lib.faces.sampling import (
    Frame,
    Person,
    one_sided,
    sample_face,
    sample_frame,
    sequence_of,
)
from norface_lib.faces.skin import dressed

VERSION = 2
"""Changes whenever the same seed would give another face or another label."""

_DOMAINS_OF = {
    "pretrain": ("lab", "wild"),
    "lab": ("lab",),
    "evaluator": ("lab", "wild"),
    "wild": ("wild",),
}
POOLS = tuple(_DOMAINS_OF)
"""Pools; those of two domains sample each frame from either."""

TARGETS = {"noor": 36, "emil": 123, "ada": 122, "mira": 210}
"""Target identities by name, with their seeds. Nobody's likeness: rendered faces, CC0."""

SYMMETRIC = ("mira",)
"""Targets whose sides are alike."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec:
    """Specification of a benchmark: with ``VERSION``, everything that a face depends on."""

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
    # share of the frames in which single sides of the face move, see `one_sided`
    one_sided: float = 0.0
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
        if not 0 <= self.one_sided <= 1:
            raise ValueError(f"one_sided must be within [0, 1], got {self.one_sided}")
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


@lru_cache(maxsize=4)
def target_face(name: str = "noor") -> Person:
    """The face of a target identity. Milder in shape than a benchmark subject, so that expressions
    read easily."""
    rng = np.random.default_rng([VERSION, 1000, TARGETS[name]])
    return sample_face(rng, spread=0.15, symmetric=name in SYMMETRIC)


def subject_name(pool: str, number: int) -> str:
    """``("lab", 3) -> "lab0003"``: names tell the pool, so two pools can never be mixed up."""
    return f"{pool}{number:04d}"


def face_of(spec: BenchmarkSpec, number: int) -> Person:
    """The person of subject ``number``. Some people of the ``wild`` pool wear sunglasses."""
    rng = np.random.default_rng([VERSION, POOLS.index(spec.pool), spec.seed, number])
    face = sample_face(rng)
    if spec.pool == "wild" and rng.random() < 0.04:
        sunglasses = Glasses(width=0.026, height=0.021, square=2.6, rim=0.001, dark=True)
        look = replace(face.look, glasses=sunglasses)
        face = Person(dressed(face.subject, look), look, face.texture)
    return face


def frames_of(spec: BenchmarkSpec, number: int) -> Iterator[tuple[Frame, np.random.Generator]]:
    """The frames of subject ``number``, each with the generator that goes on to sample its
    background and camera."""
    domains = _DOMAINS_OF[spec.pool]
    for first in range(0, spec.frames, spec.sequence):
        rng = np.random.default_rng([VERSION, POOLS.index(spec.pool), spec.seed, number, first])
        apex = sample_frame(rng, domains[rng.integers(len(domains))], spec.strength)
        # without the option nothing is drawn, and a seed gives the faces that it always gave
        if spec.one_sided and rng.random() < spec.one_sided:
            apex = one_sided(apex, rng)
        if spec.sequence == 1:
            yield apex, rng
            continue
        for frame in itertools.islice(sequence_of(apex, spec.sequence, rng), spec.frames - first):
            yield frame, rng
