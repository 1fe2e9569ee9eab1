"""What a normalizer is worth, measured on rendered people whom it never met.

Five questions, each a function: how near is I_n to the true I_n (`image_measures`), does an evaluator
read the original's expression in it (`evaluator_measures`), can a probe still tell the person
(`identity_leakage`) or pose, light and background (`nuisance_leakage`), and does I_n stay the same
while only these change (`spread_measures`)? Each is also asked of what I_n is to be compared with:
originals, the true I_n (the best that can be), the neutral target face (what moves nothing). No number
here is a goal or a verdict.

Shapes: N faces (N, S, S, 3) of 8 bits in RGB, A action units, V nuisance variables.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from norface_lib.common.errors import DataError
from norface_lib.common.paths import cache
from norface_lib.common.records import machine, versions
from norface_lib.datasets.rendered import Rendered, load_rendered
from norface_lib.faces.benchmark import BenchmarkSpec, face_of
from norface_lib.faces.sampling import DOMAINS, Frame, Person, sample_frame, sample_intensities
from norface_lib.faces.studio import Studio
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.images.distances import distance_to, neutral_ratio, region_ratios
from norface_lib.networks.evaluator import Evaluator, EvaluatorOutput
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_evaluator, load_normalizer, target_names
from norface_lib.studies.neighbors import shrunk
from norface_lib.training.evaluator import EvaluatorLabels, evaluator_outputs, reading_scores
from norface_lib.training.normalizer_losses import moving_pixels

# --- distance to the true image -------------------------------------------------------------------

_ROUNDING = 1 / 12  # mean squared error, in levels, that rounding to 8 bits alone leaves


def psnr(images: Faces, truths: Faces) -> NDArray[np.float64]:
    """(N,) peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE). Equal images get 58.9, what
    rounding to 8 bits leaves."""
    errors = [
        np.square(image.astype(np.float32) - truth).mean()
        for image, truth in zip(images, truths, strict=True)
    ]
    return 10 * np.log10(255**2 / np.maximum(errors, _ROUNDING))


def ssim(images: Faces, truths: Faces) -> NDArray[np.float64]:
    """(N,) mean structural similarity, at most 1 (Wang et al. 2004): windows of 11 x 11 px,
    Gaussian of 1.5 px, by channel."""
    return np.array([_ssim(*pair) for pair in zip(images, truths, strict=True)])


def _ssim(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], k1: float = 0.01, k2: float = 0.03
) -> float:
    x, y = image.astype(np.float64), truth.astype(np.float64)
    c1, c2 = (k1 * 255) ** 2, (k2 * 255) ** 2
    mean_x, mean_y = _windows(x), _windows(y)
    var_x, var_y, cov = (
        _windows(a * b) - c
        for a, b, c in ((x, x, mean_x**2), (y, y, mean_y**2), (x, y, mean_x * mean_y))
    )
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * cov + c2) / (var_x + var_y + c2)).mean())


def _windows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean of every window that lies within the image."""
    return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]


MOVING_SHARE = 0.1
"""Share of the pixels that count as moving: those that expressions move most (our choice)."""


def moving_ratio(truths: Faces, drawn: Faces, target: NDArray[np.uint8]) -> float:
    """`neutral_ratio` over the tenth of the pixels that move most in the true images, by root mean
    square."""
    motion = moving_pixels(truths, target)
    most = motion >= np.quantile(motion, 1 - MOVING_SHARE)
    return neutral_ratio(truths[:, most], drawn[:, most], target[most])


def image_measures(truths: Faces, drawn: Faces, target: NDArray[np.uint8]) -> dict[str, Any]:
    """Distance of I_n and of the neutral target (S, S, 3) to the true images, and ratios of the two: 0
    perfect, 1 moves nothing.

    ``l1`` in 0..1 of the full range, ``psnr`` in dB, ``ssim`` at most 1.
    """
    neutral = np.broadcast_to(target, truths.shape)
    found = {
        name: {
            "l1": distance_to(truths, faces),
            "psnr": psnr(faces, truths),
            "ssim": ssim(faces, truths),
        }
        for name, faces in (("normalized", drawn), ("target", neutral))
    }
    means = {
        name: {key: float(values.mean()) for key, values in each.items()}
        for name, each in found.items()
    }
    ratios = {
        "distance_ratio": neutral_ratio(truths, drawn, target),
        "moving_ratio": moving_ratio(truths, drawn, target),
    }
    ratios["ssim_ratio"] = (1 - means["normalized"]["ssim"]) / (1 - means["target"]["ssim"])
    return (
        means
        | ratios
        | {f"{name}_ratio": value for name, value in region_ratios(truths, drawn, target).items()}
    )


# --- expression, as the evaluator reads it ------------------------------------------------------------


def evaluator_measures(evaluator: Evaluator, data: Rendered, drawn: Faces) -> dict[str, Any]:
    """What an evaluator reads of expressions in I_n, in the true I_n (ceiling), in the neutral target
    (lower bound) and in the originals.

    Each as of `reading_scores`; ``f1_ratio`` is that of I_n over that of the true I_n.
    """
    neutral = EvaluatorOutput(
        *(part.expand(len(data), -1) for part in evaluator_outputs(evaluator, data.target[None]))
    )
    read = {
        "normalized": evaluator_outputs(evaluator, drawn),
        "truth": evaluator_outputs(evaluator, data.truths),
        "target": neutral,
    }
    read["original"] = evaluator_outputs(evaluator, data.originals)
    known = EvaluatorLabels.of(data, evaluator.config)
    found: dict[str, Any] = {
        name: reading_scores(output, known, evaluator.config) for name, output in read.items()
    }
    best = found["truth"]["f1"]
    return found | {"f1_ratio": found["normalized"]["f1"] / best if best else None}


# --- what should be gone: person, pose, light, background -----------------------------------------


@dataclass(frozen=True)
class Probes:
    """How probes see faces: pixels at a reduced size, their first principal components, each
    standardized. Our choice."""

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


def identity_leakage(
    images: dict[str, Faces], subjects: NDArray, probes: Probes = Probes()
) -> dict[str, Any]:
    """How often a probe names the subject (N,) of a face it has not seen, for each kind of images.

    The probe has seen half of each subject's faces, its even ones. ``linear``: logistic regression;
    ``nonlinear``: a network of one hidden layer. Each kind also with ``times_chance``. Raises
    ``ValueError`` if a subject has a single face.
    """
    rank = _rank_within(subjects)
    if (np.unique(subjects, return_counts=True)[1] < 2).any():
        raise ValueError("a probe for identity needs two faces of every subject or more")
    train, test = rank % 2 == 0, rank % 2 == 1
    chance = 1 / len(np.unique(subjects))
    found: dict[str, Any] = {"chance": chance}
    for name, faces in images.items():
        features = shrunk(faces, probes.side)
        found[name] = {}
        for kind, probe in _classifiers(probes, train.sum()).items():
            if _alike(features):
                found[name][kind] = chance
                continue
            fitted = probes.on_components(probe, train.sum()).fit(features[train], subjects[train])
            found[name][kind] = float(fitted.score(features[test], subjects[test]))
        found[name] |= {
            f"{kind}_times_chance": value / chance for kind, value in found[name].items()
        }
    return found


def _alike(features: NDArray[np.float32]) -> bool:
    """Whether all faces (N, D) are one, as those of a collapsed network are: a probe would read
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


@contextmanager
def _rounds_may_end() -> Iterator[None]:
    """Silence where a probe stops after its fixed number of rounds, as it is meant to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


_BORDER = 0.04  # share of the width at either side, in the upper half, that shows background


def nuisance_of(data: Rendered) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """(N, V) yaw, pitch, direction of the lamp and mean color of the background, and their names.

    The label table does not hold the background: it is taken from the sides of the original's upper
    half, where hair may be.
    """
    names = ("yaw", "pitch", "light_x", "light_y", "light_z")
    height, width = len(data.target) // 2, max(1, round(_BORDER * len(data.target)))
    upper = data.originals[:, :height]
    sides = np.concatenate([upper[:, :, :width], upper[:, :, -width:]], axis=2).mean(axis=(1, 2))
    return np.hstack([data.table[list(names)].to_numpy(float), sides]), (
        *names,
        "background_r",
        "background_g",
        "background_b",
    )


def nuisance_leakage(
    images: dict[str, Faces],
    nuisance: NDArray[np.float64],
    names: tuple[str, ...],
    subjects: NDArray,
    probes: Probes = Probes(),
) -> dict[str, Any]:
    """R^2 of nuisance (N, V) as probes read it from images of people they have not seen: 1 is
    exact, 0 or less is nothing.

    Predictions for all folds of subjects are pooled, then R^2 is taken by variable, and its mean.
    ``linear``: ridge regression; ``nonlinear``: a network of one hidden layer.
    """
    scaled = (nuisance - nuisance.mean(0)) / nuisance.std(0).clip(1e-9)
    folds = list(GroupKFold(probes.folds).split(subjects, groups=subjects))
    rows = min(len(train) for train, _ in folds)
    found: dict[str, Any] = {}
    for name, faces in images.items():
        features, found[name] = shrunk(faces, probes.side), {}
        for kind, probe in _regressors(probes, rows).items():
            if _alike(features):
                read = np.zeros_like(scaled)
            else:
                read = cross_val_predict(
                    probes.on_components(probe, rows), features, scaled, cv=folds
                )
            r2 = r2_score(scaled, read, multioutput="raw_values")
            found[name][kind] = {"mean": float(r2.mean())} | dict(
                zip(names, r2.tolist(), strict=True)
            )
    return found


def _regressors(probes: Probes, rows: int) -> dict[str, BaseEstimator]:
    network = MLPRegressor(solver="lbfgs", alpha=0.1 * rows, **probes.network)
    return {"linear": RidgeCV(np.logspace(0, 4, 9), alpha_per_target=True), "nonlinear": network}


# --- what should stay the same --------------------------------------------------------------------

_SPREAD_SEED = 1_000_003  # of subjects that no benchmark of a small seed shows


@dataclass(frozen=True)
class Scene:
    """All of a rendering but the expression: who is seen, in which pose and light, and the seed of
    background and camera."""

    person: Person
    frame: Frame
    seed: int


def draw_scenes(domain: str, count: int, seed: int = 0) -> list[Scene]:
    """Random scenes of a domain, each with another person of its pool."""
    spec = BenchmarkSpec(pool=domain, subjects=count, seed=_SPREAD_SEED + seed)
    rng = np.random.default_rng([_SPREAD_SEED, seed])
    return [
        Scene(face_of(spec, number), sample_frame(rng, domain), number) for number in range(count)
    ]


_CHANGES: dict[str, Callable[[Scene, Scene], Scene]] = {
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
"""What changes between the scenes of one expression; ``background`` includes the camera's exposure
and faults."""


def render_scenes(studio: Studio, scenes: list[Scene], expressions: int, seed: int = 0) -> Faces:
    """(E, M, S, S, 3) the same E random expressions in each of M scenes, as a camera sees them."""
    rng = np.random.default_rng([_SPREAD_SEED, seed, expressions])
    shown = [sample_intensities(rng) for _ in range(expressions)]
    columns = []
    for scene in scenes:
        texture = studio.renderer.textures(scene.person.texture[None])
        frames = [replace(scene.frame, left=left, right=right) for left, right in shown]
        chance = [np.random.default_rng([_SPREAD_SEED, scene.seed]) for _ in frames]
        columns.append(
            [
                studio.original(scene.person, f, r, texture)
                for f, r in zip(frames, chance, strict=True)
            ]
        )
    return np.stack([np.stack(column) for column in columns], axis=1)


def spread_ratio(faces: Faces) -> float | None:
    """Spread of images (E, M, S, S, 3) over M scenes, relative to that over E expressions; None if
    expressions move nothing.

    The spread is the standard deviation of a pixel over the one, as root mean square over pixels
    and over the other: 0 if only the expression shows.
    """
    values = faces.astype(np.float32)
    by_scene, by_expression = (float(np.sqrt(values.var(axis=axis).mean())) for axis in (1, 0))
    return by_scene / by_expression if by_expression > 0 else None


def spread_measures(
    model: Normalizer,
    target: NDArray[np.uint8],
    domain: str,
    expressions: int = 6,
    scenes: int = 6,
    seed: int = 0,
) -> dict[str, Any]:
    """`spread_ratio` of originals and of I_n while people change, or pose, light, background, all;
    ``target`` (S, S, 3)."""
    studio, drawn_scenes, found = Studio(len(target)), draw_scenes(domain, scenes, seed), {}
    for kind, change in _CHANGES.items():
        changed = [change(drawn_scenes[0], scene) for scene in drawn_scenes]
        originals = render_scenes(studio, changed, expressions, seed)
        drawn = normalize_faces(
            model, to_tensor(target), originals.reshape(-1, *originals.shape[2:])
        )
        found[kind] = {
            "original": spread_ratio(originals),
            "normalized": spread_ratio(drawn.reshape(originals.shape)),
        }
    return found


# --- all of it ------------------------------------------------------------------------------------


def measure_normalizer(
    model: Normalizer,
    evaluator: Evaluator,
    data: Rendered,
    domain: str,
    seed: int = 0,
    probes: Probes = Probes(),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and result of each measure in turn, of a normalizer for the target of ``data``, which
    must hold the true images."""
    drawn = normalize_faces(model, to_tensor(data.target), data.originals)
    images = {"original": data.originals, "normalized": drawn, "truth": data.truths}
    yield "images", image_measures(data.truths, drawn, data.target)
    yield "evaluator", evaluator_measures(evaluator, data, drawn)
    yield "identity", identity_leakage(images, data.subjects, probes)
    yield "nuisance", nuisance_leakage(images, *nuisance_of(data), data.subjects, probes)
    yield "spread", spread_measures(model, data.target, domain, seed=seed)


def evaluate_normalizer(
    weights: str | PathLike[str] = "tiny",
    domain: str = "lab",
    subjects: int = 60,
    frames: int = 20,
    seed: int = 0,
    evaluator: str | PathLike[str] = "evaluator",
    target: str | None = None,
    probes: Probes = Probes(),
) -> dict[str, Any]:
    """All measures of a shipped normalizer (name or path) on rendered subjects of one domain, and
    how they were taken.

    The benchmark is rendered once, into the cache. What goes on is told on stderr. Raises
    :class:`DataError` for an unknown domain and for too few subjects or frames,
    :class:`norface_lib.common.errors.CheckpointError` for weights that cannot be loaded.
    """
    started = time.monotonic()
    if domain not in DOMAINS:
        raise DataError(f"no domain {domain!r}; there are {', '.join(DOMAINS)}")
    if subjects < probes.folds or frames < 2:
        raise DataError(
            f"{subjects} subjects with {frames} frames are too few; needed are {probes.folds} and 2"
        )
    (model, _, card), (reader, evaluator_card) = (
        load_normalizer(weights, target),
        load_evaluator(evaluator),
    )
    spec = BenchmarkSpec(
        pool=domain,
        subjects=subjects,
        frames=frames,
        size=model.config.encoder.image_size,
        seed=seed,
        target=target or target_names(card)[0],
    )
    with redirect_stdout(sys.stderr):  # stdout is for the result
        folder = write_benchmark(spec, cache("evaluate", **asdict(spec)))
        data = load_rendered(folder, aus=reader.config.aus)
    _tell(f"{len(data)} faces", started)
    found: dict[str, Any] = {}
    for name, measures in measure_normalizer(model, reader, data, domain, seed, probes):
        found[name] = measures
        _tell(name, started)
    settings = {
        "weights": card["name"],
        "sha256": card["sha256"],
        "evaluator": evaluator_card["sha256"],
    }
    settings |= {"benchmark": asdict(spec), "probes": asdict(probes)}
    head = {
        "seed": seed,
        "counts": {"subjects": subjects, "faces": len(data)},
        "settings": settings,
    }
    head |= {
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine(),
        "versions": versions(),
    }
    return {"result": found} | head


def _tell(what: str, started: float) -> None:
    print(f"{time.monotonic() - started:6.1f} s  {what}", file=sys.stderr, flush=True)


_COLUMNS = ("original", "normalized", "truth", "target", "")
"""What a number is of, in the order of a table's columns; the last is for ratios and what else is
of no single one."""


def as_text(evaluation: dict[str, Any]) -> str:
    """The result of `evaluate_normalizer` as tables to read, one for each measure. Of single AUs
    they hold F1 alone."""
    settings, counts = evaluation["settings"], evaluation["counts"]
    head = f"{settings['weights']}, {settings['benchmark']['pool']}: {counts['faces']} faces of {counts['subjects']} people"
    tables = [f"{name}\n{_table(found)}" for name, found in evaluation["result"].items()]
    return "\n\n".join([f"{head}, {evaluation['seconds']:.0f} s", *tables])


def _table(found: dict[str, Any]) -> str:
    rows: dict[str, dict[str, float | None]] = {}
    for path, value in _flat(found):
        column = next((part for part in path if part in _COLUMNS), "")
        if not any(part.endswith("_per_au") and part != "f1_per_au" for part in path):
            rows.setdefault(" ".join(part for part in path if part != column), {})[column] = value
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
    return table[[column for column in _COLUMNS if column in table]].to_string(
        na_rep="", float_format="%.3f"
    )


def _flat(
    found: dict[str, Any], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float | None]]:
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, (*place, name))
        else:
            yield (*place, name), value
