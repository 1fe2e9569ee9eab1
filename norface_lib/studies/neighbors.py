"""Nearest neighbors of faces, and whether they show the same person or the same expression."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin_min

from norface_lib import labels


class Agreement(NamedTuple):
    """Similarity of the two faces of a pair, as means over pairs."""

    same_subject: float  # share of pairs, 0..1
    distance: float  # Euclidean, between the two vectors of AU intensities
    # AUs that both show among those that either shows, 0..1; 1 if neither shows any
    shared_aus: float


def shrunk(faces: NDArray[np.uint8], side: int = 56) -> NDArray[np.float32]:
    """Faces (N, S, S, 3) as vectors (N, side * side * 3) of pixels in 0..1. Noise and compression
    average out; our choice."""
    small = [cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) for face in faces]
    return np.stack(small).reshape(len(faces), -1).astype(np.float32) / 255


def closest(
    queries: NDArray[np.float32], among: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Row of ``among`` (M, D) that is closest to each query (N, D), and its Euclidean distance."""
    return pairwise_distances_argmin_min(queries, among)


def nearest_pairs(features: NDArray[np.float32], groups: NDArray) -> NDArray[np.intp]:
    """(N, 2) each row with the closest row of another group; features (N, D), Euclidean.

    ``groups`` (N,) keeps apart what is alike for no interesting reason, such as frames of one
    video. Raises ``ValueError`` if there is a single group.
    """
    if len(set(groups)) < 2:
        raise ValueError("nearest neighbors are looked for in other groups, and there is only one")
    distances = pairwise_distances(features)
    distances[groups[:, None] == groups] = np.inf
    return np.column_stack([np.arange(len(features)), distances.argmin(1)])


def all_pairs(groups: NDArray) -> NDArray[np.intp]:
    """(P, 2) every ordered pair of rows of two groups: the chance level of `nearest_pairs`."""
    return np.argwhere(groups[:, None] != groups)


def agreement(
    pairs: NDArray[np.intp], subjects: NDArray, intensities: NDArray[np.float32]
) -> Agreement:
    """Similarity of pairs (P, 2) of rows; subjects (N,), intensities (N, A) of 0..5. An AU
    shows from 1 (A) on."""
    first, second = pairs.T
    shown = intensities >= labels.OCCURRENCE_THRESHOLD - 1e-4  # tables hold six digits
    both = (shown[first] & shown[second]).sum(1)
    either = (shown[first] | shown[second]).sum(1)
    shared = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    distance = np.linalg.norm(intensities[first] - intensities[second], axis=1)
    return Agreement(
        float((subjects[first] == subjects[second]).mean()),
        float(distance.mean()),
        float(shared.mean()),
    )
