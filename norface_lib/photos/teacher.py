"""A teacher of AUs for photographs: what the landmarker's scores and points say of AUs whose truth
is known on rendered faces.

A score of one blendshape is a poor label for many AUs: the landmarker was not made to code them.
All 52 scores and 478 points together say more. What they say is learned where AUs are known
exactly, on rendered people, and for each AU the better of the two on other rendered people is kept:
the map, or the calibrated score (`norface_lib.photos.calibration`). How well it does there is the
weight of its labels; what neither sees has weight 0 and is left to rendered faces. Our choice.
"""

import numpy as np
from numpy.typing import NDArray

from norface_lib.faces.sampling import RENDERED_AUS
from norface_lib.photos.face_points import FacePoints, upright

COMPONENTS = 80
"""Principal components of the points that the map takes; more explain noise."""

Codes = NDArray[np.float32]
"""AU intensities (N, A, 2) in 0..5 of the subject's left and right, in the order of
``RENDERED_AUS``."""


class Map:
    """Scores and upright points of faces to AU intensities of each side: principal components, then
    a small network (scikit-learn's ``MLPRegressor``)."""

    def __init__(self, seen: FacePoints, codes: Codes, seed: int = 0):
        from sklearn.decomposition import PCA
        from sklearn.neural_network import MLPRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        rows = seen.found
        self.shape = seen.points[rows][:2000].mean(axis=0)
        self.shape = upright(seen.points[rows][:2000], self.shape).mean(axis=0)
        points = upright(seen.points[rows], self.shape).reshape(rows.sum(), -1)
        self.components = PCA(COMPONENTS, random_state=seed).fit(points)
        self.network = make_pipeline(
            StandardScaler(),
            MLPRegressor((256,), alpha=1e-2, early_stopping=True, max_iter=200, random_state=seed),
        ).fit(self._features(seen), codes[rows].reshape(rows.sum(), -1))

    def _features(self, seen: FacePoints) -> NDArray[np.float32]:
        points = upright(seen.points[seen.found], self.shape)
        parts = self.components.transform(points.reshape(len(points), -1))
        # many scores stay near 0, where their logarithm still tells faces apart
        scores = seen.scores[seen.found]
        return np.concatenate([parts, scores, np.log(scores + 1e-3)], axis=1)

    def __call__(self, seen: FacePoints) -> Codes:
        """Intensities, not clipped; NaN for faces that were not found."""
        codes = np.full((len(seen.scores), len(RENDERED_AUS), 2), np.nan, np.float32)
        codes[seen.found] = self.network.predict(self._features(seen)).reshape(
            -1, len(RENDERED_AUS), 2
        )
        return codes
