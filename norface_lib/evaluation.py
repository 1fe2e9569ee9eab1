"""Normalizing arrays of faces, training and testing classifiers over folds, and result files that say how they were made."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from norface_lib.augment import jitter, mirrored, photometric
from norface_lib.classifier import Classifier, ClassifierConfig, auxiliary_loss
from norface_lib.files import write_json
from norface_lib.images import to_tensor, to_uint8
from norface_lib.losses import au_weights, weighted_bce
from norface_lib.metrics import f1_per_label, mean_over_folds
from norface_lib.normalizer import Normalizer
from norface_lib.paths import ROOT
from norface_lib.training import TrainConfig, device_of, fit

Faces = NDArray[np.uint8]
"""(N, S, S, 3) RGB of 8 bits."""

# --- normalized faces ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def normalize_faces(model: Normalizer, target: Tensor, faces: Faces, batch_size: int = 64, progress: bool = False) -> Faces:
    """I_n of many faces for one target (1, 3, S, S), whose tokens are computed once. Same shape as ``faces``."""
    device = next(model.parameters()).device
    target = target.to(device)
    target_tokens = model.encoder(target)
    drawn = np.empty_like(faces)
    starts = range(0, len(faces), batch_size)
    for start in tqdm(starts, desc="normalize", unit="batch", disable=not progress, leave=False):
        images = to_tensor(faces[start : start + batch_size]).to(device)
        drawn[start : start + batch_size] = to_uint8(model.draw(model.encoder(images), target_tokens, target))
    return drawn


def distance_to(truths: Faces, drawn: Faces) -> NDArray[np.float64]:
    """(N,) mean absolute difference of each face to its true normalized image, in units of the full range, 0..1."""
    return np.array([np.abs(d.astype(np.int16) - t).mean() / 255 for d, t in zip(drawn, truths, strict=True)])


def neutral_ratio(truths: Faces, drawn: Faces, target: NDArray[np.uint8]) -> float:
    """Distance of I_n to the true I_n, relative to that of the bare target face (S, S, 3): 0 is perfect, 1 moves nothing."""
    bare = np.broadcast_to(target, truths.shape)
    return float(distance_to(truths, drawn).mean() / distance_to(truths, bare).mean())


REGIONS = {"brows": (0.22, 0.36), "eyes": (0.36, 0.47), "mouth": (0.60, 0.86)}
"""Bands of rows of the crop, as shares of its height, in which brows, lids and mouth move."""


def region_ratios(truths: Faces, drawn: Faces, target: NDArray[np.uint8]) -> dict[str, float]:
    """:func:`neutral_ratio` within each of ``REGIONS`` (the middle 70 % of the width)."""
    size = truths.shape[1]
    side = slice(round(0.15 * size), round(0.85 * size))
    bands = {name: slice(round(top * size), round(bottom * size)) for name, (top, bottom) in REGIONS.items()}
    return {
        name: neutral_ratio(truths[:, rows, side], drawn[:, rows, side], target[rows, side]) for name, rows in bands.items()
    }


# --- classifiers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Labeled pairs: originals and normalized faces (N, S, S, 3), labels (N, L) of 0, 1 or NaN, subject (N,) of each."""

    originals: Faces
    normalized: Faces
    labels: NDArray[np.float32]
    subjects: NDArray[np.str_]

    def __post_init__(self):
        counts = {len(self.originals), len(self.normalized), len(self.labels), len(self.subjects)}
        if len(counts) != 1:
            raise ValueError(f"originals, normalized, labels and subjects must be of one length, got {sorted(counts)}")


def train_classifier(
    pairs: Pairs,
    rows: NDArray[np.intp],
    config: ClassifierConfig,
    training: TrainConfig,
    start: Normalizer | None = None,
    folder: Path | None = None,
    name: str = "classifier",
    device: str = "auto",
    progress: bool = True,
) -> Classifier:
    """Trains an AU detector on some rows of ``pairs``. ``start``: begin with a copy of its encoder."""
    where = device_of(device)
    torch.manual_seed(training.seed)
    model = Classifier(config)
    if start is not None:
        model.encoder.load_state_dict(start.encoder.state_dict())
        model.expression.load_state_dict(start.expression.state_dict())
    model = model.to(where, memory_format=torch.channels_last)
    loss = _detection_loss(pairs, rows, where)
    return fit(model, loss, len(rows), training, folder, name, progress)


def _detection_loss(pairs: Pairs, rows: NDArray[np.intp], where: torch.device):
    """Weighted BCE with weights from the training rows alone, and the auxiliary losses of the mixtures."""
    labels = pairs.labels[rows]
    weights = au_weights(np.nanmean(labels, axis=0).clip(1 / len(rows)).tolist()).to(where)

    def loss(model: nn.Module, indices: Tensor) -> tuple[Tensor, dict[str, float]]:
        chosen = rows[indices.numpy()]
        flip = (torch.rand(len(chosen)) < 0.5).to(where)  # geometry alike for both, light for the original alone
        original = jitter(mirrored(photometric(to_tensor(pairs.originals[chosen]).to(where)), flip))
        normalized = mirrored(to_tensor(pairs.normalized[chosen]).to(where), flip)
        output = model(original, normalized)
        detection = weighted_bce(output.logits, torch.from_numpy(pairs.labels[chosen]).to(where), weights)
        return detection + auxiliary_loss(output), {"bce": detection.item()}

    return loss


@torch.inference_mode()
def predict(model: Classifier, originals: Faces, normalized: Faces, batch_size: int = 128) -> NDArray[np.float32]:
    """(N, L) probability of each label."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(originals), batch_size):
        batch = (to_tensor(faces[start : start + batch_size]).to(device) for faces in (originals, normalized))
        parts.append(model(*batch).logits.float().sigmoid().cpu().numpy())
    return np.concatenate(parts)


@dataclass
class CrossValidation:
    """What a cross-validation gave, for one input: F1 per fold and label (F, L), and every test row's probabilities (N, L)."""

    inputs: str
    labels: tuple[str, ...]
    f1: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    seconds: float
    models: list[Classifier] = field(default_factory=list, repr=False)

    @property
    def mean_f1(self) -> float:
        """Mean over labels, then over folds: the field's headline."""
        return mean_over_folds(list(self.f1))[1]

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {
            "inputs": self.inputs,
            "mean_f1": self.mean_f1,
            "f1_per_label": dict(zip(self.labels, self.f1.mean(0).tolist(), strict=True)),
            "mean_f1_per_fold": self.f1.mean(1).tolist(),
            "seconds": round(self.seconds, 1),
        }


def cross_validate(
    pairs: Pairs,
    folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    config: ClassifierConfig,
    training: TrainConfig,
    start: Normalizer | None = None,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> CrossValidation:
    """Trains on each fold's training rows and tests on the rest: threshold 0.5, last step, nothing chosen on test rows."""
    started = time.monotonic()
    probabilities = np.full(pairs.labels.shape, np.nan, np.float32)
    f1, models = [], []
    for number, (train, test) in enumerate(folds, 1):
        name = f"{config.inputs}-fold{number}"
        model = train_classifier(pairs, train, config, training, start, folder, name, device, progress)
        probabilities[test] = predict(model, pairs.originals[test], pairs.normalized[test])
        f1.append(f1_per_label(probabilities[test], pairs.labels[test]))
        models.append(model)
    return CrossValidation(config.inputs, config.labels, np.stack(f1), probabilities, time.monotonic() - started, models)


# --- result files -------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What this ran on, without names or paths of the machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count(), "gpu": gpu}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def versions() -> dict[str, str]:
    """Python and the packages that decide numbers."""
    packages = ("torch", "timm", "numpy", "anny", "warp-lang", "norface")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def write_result(
    path: Path,
    result: dict[str, Any],
    *,
    seed: int,
    started: float,
    counts: dict[str, int],
    leakage: str,
    settings: dict[str, Any],
) -> Path:
    """Writes a result with all that is needed to judge it.

    ``started``: ``time.monotonic()`` at the start of the run. ``leakage``: ``pretrained`` if the normalizer never saw a subject
    of the data, ``per-fold`` if it saw training subjects only, ``all`` otherwise.
    """
    if leakage not in ("pretrained", "per-fold", "all"):
        raise ValueError(f"leakage must be pretrained, per-fold or all, got {leakage!r}")
    head = {
        "seed": seed,
        "leakage": leakage,
        "counts": counts,
        "settings": settings,
        "seconds": round(time.monotonic() - started, 1),
    }
    return write_json({"result": result} | head | {"machine": machine(), "versions": versions()}, path)


def settings_of(**configs: Any) -> dict[str, Any]:
    """Dataclass configs as one JSON-ready dictionary."""
    return {name: asdict(config) for name, config in configs.items()}


def check_expected(profile: str, name: str, value: float) -> str:
    """Compares a number with ``results/expected.json`` and says how it stands.

    Raises ``AssertionError`` if it is farther off than the tolerance there. A profile or name without an entry is not compared.
    """
    entry = json.loads((ROOT / "results" / "expected.json").read_text()).get(profile, {}).get(name)
    if entry is None:
        return f"{name} = {value:.3f} (nothing to compare with for profile {profile})"
    off = value - entry["value"]
    assert abs(off) <= entry["tolerance"], f"{name} = {value:.3f}, expected {entry['value']} +- {entry['tolerance']}"
    return f"{name} = {value:.3f}, expected {entry['value']} +- {entry['tolerance']}"
