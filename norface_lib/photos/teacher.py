"""A teacher of AUs for photographs, out of what the landmarker sees and what people call the face.

A score of one blendshape is a poor label for many AUs: the landmarker was not made to code them.
All 52 scores and 478 points together say more. What they say of AUs is learned where AUs are known
exactly, on rendered people (`Map`), and its zero is set by photographs that people call neutral.
Where people have named an emotion, what rendered faces of that emotion show is a second witness:
both are averaged, each weighted by how little it errs. An AU that neither sees gets a small weight
and is left to rendered faces. Our choice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.label_table import emotion_shares, read_spec, side_codes
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.sampling import RENDERED_AUS, Sides
from norface_lib.photos.face_points import FacePoints, read_points, upright
from norface_lib.photos.landmarker import Landmarker

COMPONENTS = 80
"""Principal components of the points that the map takes; the further ones are noise."""

HELD_OUT = 5
"""One rendered person of so many is kept to measure how much the map errs."""

LEAST_RENDERED = 100
"""Rendered faces that a teacher needs at least; some thousands make a good one."""

LEAST_NEUTRAL = 30
"""Photographs that must be called neutral before they set the map's zero."""

Codes = NDArray[np.float32]
"""AU intensities (N, A, 2) in 0..5 of the subject's left and right, in the order of
``RENDERED_AUS``."""


class Map:
    """Scores and upright points of faces to AU intensities of each side: principal components, then
    a small network (scikit-learn's ``MLPRegressor``)."""

    def __init__(self, seen: FacePoints, codes: Codes):
        from sklearn.decomposition import PCA
        from sklearn.neural_network import MLPRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        found = seen.points[seen.found]
        self.shape = upright(found[:2000], found[0]).mean(axis=0)
        points = upright(found, self.shape).reshape(len(found), -1)
        self.components = PCA(min(COMPONENTS, *points.shape), random_state=0).fit(points)
        network = MLPRegressor(
            hidden_layer_sizes=(256,),
            alpha=1e-2,
            early_stopping=True,
            max_iter=200,
            random_state=0,
        )
        self.network = make_pipeline(StandardScaler(), network)
        self.network.fit(self._features(seen), codes[seen.found].reshape(len(found), -1))

    def _features(self, seen: FacePoints) -> NDArray[np.float32]:
        points = upright(seen.points[seen.found], self.shape)
        parts = self.components.transform(points.reshape(len(points), -1))
        # many scores stay near 0, where their logarithm still tells faces apart
        scores = seen.scores[seen.found]
        return np.concatenate([parts, scores, np.log(scores + 1e-3)], axis=1)

    def __call__(self, seen: FacePoints) -> Codes:
        """Intensities, not clipped; NaN for faces that were not found."""
        codes = np.full((len(seen.scores), len(RENDERED_AUS), 2), np.nan, np.float32)
        if not seen.found.any():
            return codes
        read = self.network.predict(self._features(seen))
        codes[seen.found] = read.reshape(len(read), len(RENDERED_AUS), 2)
        return codes


@dataclass(frozen=True)
class Prior:
    """AUs of faces that show an emotion, and last of any face: mean and variance (E + 1, A, 2).
    ``explained`` (A,): share of an AU's variance that lies between emotions."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    explained: NDArray[np.float64]

    @classmethod
    def of(cls, codes: Codes, shares: NDArray[np.floating]) -> "Prior":
        """Those of rendered faces, whose emotions ``shares`` (N, E) names."""
        groups = [codes[shares[:, number] > 0.5] for number in range(shares.shape[1])]
        groups.append(codes)
        mean = np.stack([group.mean(axis=0) for group in groups])
        variance = np.stack([group.var(axis=0) for group in groups])
        named = codes[shares.sum(axis=1) > 0]
        counts = np.array([len(group) for group in groups[:-1]])[:, None, None]
        within = (counts * variance[:-1]).sum(axis=(0, 2)) / counts.sum()
        explained = 1 - within / named.var(axis=0).sum(axis=1).clip(1e-6)
        return cls(mean, variance, np.where(_EMOTIONAL, explained.clip(0, 1), 0.0))

    def __call__(self, shares: NDArray[np.floating], trust: float) -> tuple[NDArray, NDArray]:
        """Mean and variance (N, A, 2) for votes (N, E) of sum 1, which are believed as far as
        ``trust``; the rest may be any face. The variance is infinite for AUs that belong to no
        emotion."""
        anything = np.full((len(shares), 1), 1 - trust)
        mixed = np.concatenate([trust * shares, anything], axis=1)
        mean = np.einsum("ne,eas->nas", mixed, self.mean)
        square = np.einsum("ne,eas->nas", mixed, self.variance + self.mean**2)
        return mean, np.where(_EMOTIONAL[:, None], square - mean**2, np.inf)


_EMOTIONAL = np.array(
    [
        any(
            au in needed or au in may
            for kinds in labels.EMOTION_AUS.values()
            for needed, may in kinds
        )
        for au in RENDERED_AUS
    ]
)
"""(A,) which AUs are part of some emotion's prototype."""


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of N photographs: ``codes`` (N, A, 2), NaN where no face was found, and
    the ``reliability`` (A,) of each AU in 0..1."""

    codes: Codes
    reliability: NDArray[np.float64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """(N,) true for photographs in which the landmarker found a face."""
        return ~np.isnan(self.codes[:, 0, 0])

    def sides(self, row: int) -> Sides:
        """Intensities of one photograph by AU number."""
        left, right = self.codes[row].T.tolist()
        return dict(zip(RENDERED_AUS, left, strict=True)), dict(
            zip(RENDERED_AUS, right, strict=True)
        )

    @property
    def weights(self) -> dict[str, float]:
        """``reliability`` by column name."""
        return {
            labels.au_column(au): round(float(value), 3)
            for au, value in zip(RENDERED_AUS, self.reliability, strict=True)
        }


class Teacher:
    """Teaches AUs of photographs, after it learned from rendered faces.

    ``trust``: how far votes for an emotion are believed; a face may show little of what it is
    called, and more besides.
    """

    def __init__(self, rendered: Rendered, landmarker: Landmarker, *, trust: float = 0.6):
        self.landmarker = landmarker
        seen = read_points(landmarker, rendered.originals, rendered.root / "landmarks.npz")
        if seen.found.sum() < LEAST_RENDERED:
            raise DataError(
                f"{rendered.root}: the landmarker finds {seen.found.sum()} faces here, and a "
                f"teacher needs {LEAST_RENDERED} to learn from; render more"
            )
        codes = side_codes(rendered.table, RENDERED_AUS)
        people = np.unique(rendered.subjects, return_inverse=True)[1]
        kept = people % HELD_OUT == 0
        self.map = Map(seen.of(~kept), codes[~kept])
        off = self.map(seen.of(kept)) - codes[kept]
        self.error = np.nanmean(off**2, axis=0)  # (A, 2)
        self.spread = codes.var(axis=0)
        self.prior = Prior.of(codes, emotion_shares(rendered.table, labels.EMOTIONS))
        self.trust = trust
        self.spec = read_spec(rendered.root) | {"explained": self.explained(), "trust": trust}

    def explained(self) -> dict[str, float]:
        """How much of each AU the map explains on rendered people it has not learned from, R2 of
        both sides together."""
        explained = 1 - self.error.mean(axis=1) / self.spread.mean(axis=1)
        return {
            labels.au_column(au): round(float(value), 3)
            for au, value in zip(RENDERED_AUS, explained, strict=True)
        }

    def zero(self, seen: FacePoints, shares: NDArray[np.floating]) -> NDArray[np.float64]:
        """(A, 2) what the map says of neutral photographs (median), or of the fourth of all that
        shows least of an AU, where fewer than ``LEAST_NEUTRAL`` are called neutral."""
        told = self.map(seen)
        neutral = shares[:, labels.EMOTIONS.index("neutral")] > 0.5
        if neutral.sum() >= LEAST_NEUTRAL:
            return np.nanmedian(told[neutral], axis=0)
        return np.nanquantile(told, 0.25, axis=0)

    def teach(
        self,
        seen: FacePoints,
        zero: NDArray[np.floating],
        shares: NDArray[np.floating] | None = None,
    ) -> Lesson:
        """AUs of photographs: what the map says above its ``zero``, and where ``shares`` (N, E) of
        votes for ``labels.EMOTIONS`` are known (not all 0), what goes with these, averaged by their
        precision. An AU is as reliable as what both explain of it on rendered faces: a label that
        hardly varies, as neither sees the AU, says nothing."""
        told = self.map(seen) - zero
        variance = np.broadcast_to(self.error, told.shape)
        asked = np.zeros(len(told), bool) if shares is None else shares.sum(axis=1) > 0
        if asked.any():
            mean, spread = self.prior(shares[asked], self.trust)
            weight = variance[asked] / (variance[asked] + spread + 1e-3)
            told[asked] += weight * (mean - told[asked])
        by_map = (1 - self.error.mean(axis=1) / self.spread.mean(axis=1)).clip(0, 1)
        by_emotion = asked.mean() * self.trust * self.prior.explained
        codes = told.clip(0, labels.INTENSITY_MAX).astype(np.float32)
        return Lesson(codes, 1 - (1 - by_map) * (1 - by_emotion))
