"""Probes of leakage: how well person, pose, light and background can be read from normalized faces.

Shapes: N faces (N, S, S, 3) of 8 bits in RGB, V nuisance variables.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import Faces
from norface_lib.studies.neighbors import shrunk


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Settings of probes, which read pixels at a reduced size by their first principal components,
    each standardized. Our choice."""

    side: int = 56  # pixels
    components: int = 128
    hidden: int = 32  # width of the non-linear probe
    folds: int = 4  # of subjects, for nuisance
    seed: int = 0

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of the non-linear probe."""
        return {"hidden_layer_sizes": (self.hidden,), "max_iter": 200, "random_state": self.seed}

    def on_components(self, probe: BaseEstimator, rows: int) -> BaseEstimator:
        """A probe behind components and scales that are fitted on its training rows alone, of which
        there are ``rows``."""
        components = PCA(
            min(self.components, rows - 1), svd_solver="randomized", random_state=self.seed
        )
        return make_pipeline(components, StandardScaler(), probe)


DEFAULT = Probes()


def identity_leakage(
    images: dict[str, Faces], subjects: NDArray, probes: Probes = DEFAULT
) -> dict[str, Any]:
    """Share of faces whose subject (N,) a probe names, for each kind of images.

    The probe is trained on half of each subject's faces, the even ones, and tested on the others.
    ``linear``: logistic regression; ``nonlinear``: a network of one hidden layer. Each kind also
    with ``times_chance``. Raises ``ValueError`` if a subject has a single face.
    """
    names, counts = np.unique(subjects, return_counts=True)
    if (counts < 2).any():
        raise ValueError("a probe for identity needs two faces of every subject or more")
    train = _rank_within(subjects) % 2 == 0
    chance = 1 / len(names)

    leakage: dict[str, Any] = {"chance": chance}
    for name, faces in images.items():
        features = shrunk(faces, probes.side)
        scores = {}
        for kind, probe in _classifiers(probes, train.sum()).items():
            if _alike(features):
                scores[kind] = chance
                continue
            fitted = probes.on_components(probe, train.sum()).fit(features[train], subjects[train])
            scores[kind] = float(fitted.score(features[~train], subjects[~train]))
        leakage[name] = scores | {
            f"{kind}_times_chance": score / chance for kind, score in scores.items()
        }
    return leakage


def _alike(features: NDArray[np.float32]) -> bool:
    """True if all faces (N, D) are one, as those of a collapsed network are: a probe would read
    rounding, or find NaN."""
    return bool((features == features[0]).all())


def _classifiers(probes: Probes, rows: int) -> dict[str, BaseEstimator]:
    # the decay is divided by the rows again
    network = MLPClassifier(solver="lbfgs", alpha=0.03 * rows, **probes.network)
    return {"linear": LogisticRegression(max_iter=200), "nonlinear": network}


def _rank_within(groups: NDArray) -> NDArray[np.intp]:
    """(N,) 0, 1, 2, ... for the rows of each group in turn."""
    rank = np.empty(len(groups), np.intp)
    for group in np.unique(groups):
        rank[groups == group] = np.arange((groups == group).sum())
    return rank


_BORDER = 0.04  # share of the width at either side, in the upper half, that shows background


def nuisance_of(data: Rendered) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """(N, V) yaw, pitch, direction of the lamp and mean color of the background, and their names.

    The label table does not hold the background: it is taken from the sides of the original's upper
    half, where hair may be.
    """
    names = ("yaw", "pitch", "light_x", "light_y", "light_z")
    size = len(data.target)
    width = max(1, round(_BORDER * size))
    upper = data.originals[:, : size // 2]
    sides = np.concatenate([upper[:, :, :width], upper[:, :, -width:]], axis=2)
    values = np.hstack([data.table[list(names)].to_numpy(float), sides.mean(axis=(1, 2))])
    return values, (*names, "background_r", "background_g", "background_b")


def nuisance_leakage(
    images: dict[str, Faces],
    nuisance: NDArray[np.float64],
    names: tuple[str, ...],
    subjects: NDArray,
    probes: Probes = DEFAULT,
) -> dict[str, Any]:
    """R^2 of nuisance (N, V) that probes predict from images of people outside their training: 1 is
    exact, 0 or less is nothing.

    Predictions for all folds of subjects are pooled, then R^2 is taken by variable, and its mean.
    ``linear``: ridge regression; ``nonlinear``: a network of one hidden layer.
    """
    scaled = (nuisance - nuisance.mean(0)) / nuisance.std(0).clip(1e-9)
    folds = list(GroupKFold(probes.folds).split(subjects, groups=subjects))
    rows = min(len(train) for train, _ in folds)

    leakage: dict[str, Any] = {}
    for name, faces in images.items():
        features = shrunk(faces, probes.side)
        leakage[name] = {}
        for kind, probe in _regressors(probes, rows).items():
            predicted = np.zeros_like(scaled)
            if not _alike(features):
                pipeline = probes.on_components(probe, rows)
                predicted = cross_val_predict(pipeline, features, scaled, cv=folds)
            r2 = r2_score(scaled, predicted, multioutput="raw_values")
            by_name = dict(zip(names, r2.tolist(), strict=True))
            leakage[name][kind] = {"mean": float(r2.mean())} | by_name
    return leakage


def _regressors(probes: Probes, rows: int) -> dict[str, BaseEstimator]:
    network = MLPRegressor(solver="lbfgs", alpha=0.1 * rows, **probes.network)
    return {"linear": RidgeCV(np.logspace(0, 4, 9), alpha_per_target=True), "nonlinear": network}
