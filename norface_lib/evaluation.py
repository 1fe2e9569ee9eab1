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
from norface_lib.losses import au_weights, detection_loss
from norface_lib.metrics import f1_per_label, mean_over_folds
from norface_lib.normalizer import Normalizer
from norface_lib.paths import ROOT
from norface_lib.training import TrainConfig, device_of, fit

Faces = NDArray[np.uint8]
"""(N, S, S, 3) RGB of 8 bits."""

# --- normalized faces ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def normalize_faces(
    model: Normalizer,
    target: Tensor,
    faces: Faces,
    batch_size: int = 64,
    progress: bool = False,
    which: NDArray[np.intp] | None = None,
) -> Faces:
    """I_n of many faces, same shape as ``faces``, for one target (1, 3, S, S), whose features are computed once.

    With several targets (K, 3, S, S), ``which`` (N,) says which of them each face gets.
    """
    device = next(model.parameters()).device
    prepared = model.target(target.to(device))
    drawn = np.empty_like(faces)
    starts = range(0, len(faces), batch_size)
    for start in tqdm(starts, desc="normalize", unit="batch", disable=not progress, leave=False):
        rows = slice(start, start + batch_size)
        images = to_tensor(faces[rows]).to(device)
        wanted = prepared if which is None else prepared.of(torch.from_numpy(which[rows]).to(device))
        drawn[rows] = to_uint8(model.draw(model.encoder(images), wanted))
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

    def learner(self, model: Classifier) -> nn.Module:
        """What of a classifier is trained on these, and reads their batches: all of it."""
        return model

    def batch(self, rows: NDArray[np.intp], where: torch.device, augmented: bool = False) -> tuple[Tensor, Tensor]:
        """Original and normalized images (B, 3, S, S). Augmented: geometry alike for both, light for the original alone."""
        original, normalized = (to_tensor(faces[rows]).to(where) for faces in (self.originals, self.normalized))
        if not augmented:
            return original, normalized
        flip = (torch.rand(len(rows)) < 0.5).to(where)
        return jitter(mirrored(photometric(original), flip)), mirrored(normalized, flip)


@dataclass(frozen=True)
class EmbeddedPairs:
    """`Pairs` as a frozen backbone sees them: embeddings (2, N, D) of each face and of its mirror image. Made by `embed`."""

    backbone: Normalizer
    originals: Tensor
    normalized: Tensor
    labels: NDArray[np.float32]
    subjects: NDArray[np.str_]

    def learner(self, model: Classifier) -> nn.Module:
        """What of a classifier is trained on these, and reads their batches: the head. Its backbone must be theirs."""
        return model.head

    def batch(self, rows: NDArray[np.intp], where: torch.device, augmented: bool = False) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) of originals and normalized faces. Augmented: half of the pairs are mirrored."""
        flip = (torch.rand(len(rows)) < 0.5).long() if augmented else torch.zeros(len(rows), dtype=torch.long)
        chosen = flip, torch.from_numpy(rows)
        return self.originals[chosen].to(where), self.normalized[chosen].to(where)


def embed(pairs: Pairs, backbone: Normalizer, batch_size: int = 64, progress: bool = False) -> EmbeddedPairs:
    """What the encoder and expression embedding of a normalizer see in each pair, computed once for all trainings."""
    embeddings = (_embeddings(faces, backbone, batch_size, progress) for faces in (pairs.originals, pairs.normalized))
    return EmbeddedPairs(backbone, *embeddings, pairs.labels, pairs.subjects)


@torch.inference_mode()
def _embeddings(faces: Faces, backbone: Normalizer, batch_size: int, progress: bool) -> Tensor:
    """(2, N, D) of faces and of their mirror images."""
    device, parts = next(backbone.parameters()).device, []
    for start in tqdm(range(0, len(faces), batch_size), desc="embed", unit="batch", disable=not progress, leave=False):
        images = to_tensor(faces[start : start + batch_size]).to(device)
        parts.append(torch.stack([backbone.expression(backbone.encoder(view)).cpu() for view in (images, images.flip(3))]))
    return torch.cat(parts, dim=1)


def train_classifier(
    pairs: Pairs | EmbeddedPairs,
    rows: NDArray[np.intp],
    config: ClassifierConfig,
    training: TrainConfig,
    start: Normalizer | None = None,
    loss: str = "dice",
    folder: Path | None = None,
    name: str = "classifier",
    device: str = "auto",
    progress: bool = True,
) -> Classifier:
    """Trains an AU detector on some rows: all of it on `Pairs`, its head over their frozen backbone on `EmbeddedPairs`.

    ``loss``: a name for `norface_lib.losses.detection_loss`. ``start``: the normalizer whose backbone a training on `Pairs`
    begins with a copy of (None: from chance). Returns it in evaluation mode. Raises what `norface_lib.training.fit` raises.
    """
    where = device_of(device)
    torch.manual_seed(training.seed)
    model = Classifier(config)
    start = pairs.backbone if isinstance(pairs, EmbeddedPairs) else start
    if start is not None:
        model.start_from(start)
    learner = pairs.learner(model.to(where, memory_format=torch.channels_last))
    fit(learner, _detection_loss(pairs, rows, where, loss), len(rows), training, folder, name, progress)
    return model.eval()


def _detection_loss(pairs: Pairs | EmbeddedPairs, rows: NDArray[np.intp], where: torch.device, name: str):
    """The named loss with weights from the training rows alone, and the auxiliary losses of the mixtures."""
    weights = au_weights(np.nanmean(pairs.labels[rows], axis=0).clip(1 / len(rows)).tolist()).to(where)
    detect = detection_loss(name)

    def loss(learner: nn.Module, indices: Tensor) -> tuple[Tensor, dict[str, float]]:
        chosen = rows[indices.numpy()]
        output = learner(*pairs.batch(chosen, where, augmented=True))
        detection = detect(output.logits, torch.from_numpy(pairs.labels[chosen]).to(where), weights)
        return detection + auxiliary_loss(output), {"detection": detection.item()}

    return loss


def predict(model: Classifier, originals: Faces, normalized: Faces, batch_size: int = 128) -> NDArray[np.float32]:
    """(N, L) probability of each label."""
    unlabeled = np.empty((len(originals), 0), np.float32), np.empty(len(originals), str)
    return predict_rows(model, Pairs(originals, normalized, *unlabeled), np.arange(len(originals)), batch_size)


@torch.inference_mode()
def predict_rows(
    model: Classifier, pairs: Pairs | EmbeddedPairs, rows: NDArray[np.intp], batch_size: int = 128
) -> NDArray[np.float32]:
    """(B, L) probability of each label for some rows of pairs, which must be embedded by the model's own backbone if at all."""
    device, learner = next(model.parameters()).device, pairs.learner(model)
    batches = (pairs.batch(rows[start : start + batch_size], device) for start in range(0, len(rows), batch_size))
    return np.concatenate([learner(*batch).logits.float().sigmoid().cpu().numpy() for batch in batches])


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
    pairs: Pairs | EmbeddedPairs,
    folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    config: ClassifierConfig,
    training: TrainConfig,
    start: Normalizer | None = None,
    loss: str = "dice",
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> CrossValidation:
    """Trains on each fold's training rows and tests on the rest: threshold 0.5, last step, nothing chosen on test rows.

    ``start`` and ``loss`` are those of `train_classifier`.
    """
    started = time.monotonic()
    probabilities = np.full(pairs.labels.shape, np.nan, np.float32)
    f1, models = [], []
    for number, (train, test) in enumerate(folds, 1):
        name = f"{config.inputs}-fold{number}"
        model = train_classifier(pairs, train, config, training, start, loss, folder, name, device, progress)
        probabilities[test] = predict_rows(model, pairs, test)
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


LEAKAGE = {
    "pretrained": "the normalizer never saw a subject of the dataset",
    "per-fold": "it was fine-tuned on the training subjects of each fold",
    "all": "it was fine-tuned on all faces without their labels, the test fold's among them, as the paper may have done",
}
"""Which faces of a dataset a normalizer may have learned from before a classifier is tested on it."""


def check_leakage(leakage: str) -> str:
    """The setting itself. Raises ``ValueError`` for one that is not in ``LEAKAGE``."""
    if leakage not in LEAKAGE:
        raise ValueError(f"leakage must be one of {', '.join(LEAKAGE)}, got {leakage!r}")
    return leakage


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

    ``started``: ``time.monotonic()`` at the start of the run. ``leakage``: one of ``LEAKAGE``.
    """
    head = {
        "seed": seed,
        "leakage": check_leakage(leakage),
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
