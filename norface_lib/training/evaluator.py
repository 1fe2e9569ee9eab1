"""Training the evaluator on rendered faces of its own pool, originals and true normalized images
alike, and what it then reads."""

from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from norface_lib import labels
from norface_lib.common import chance
from norface_lib.common.devices import device_of
from norface_lib.common.errors import DataError
from norface_lib.common.records import versions
from norface_lib.datasets.index import EMOTION
from norface_lib.datasets.label_table import read_spec
from norface_lib.datasets.pairs import ArrayDataset
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.evaluator import Evaluator, EvaluatorConfig, EvaluatorOutput
from norface_lib.networks.weights import load_evaluator, save_evaluator
from norface_lib.tasks.losses import DETECTION_LOSSES, au_weights, summed
from norface_lib.tasks.metrics import accuracy, confusion, f1_per_label, icc3_1, mae
from norface_lib.training.augmentation import jitter, mirrored, photometric
from norface_lib.training.learned_faces import check_learned
from norface_lib.training.loader import to_device
from norface_lib.training.loop import Loss, TrainConfig, fit, logged_seconds

UNNAMED = -1
"""Class of a face that shows no named emotion; it takes no part in the emotion's loss and measure.
"""


_FIT = TrainConfig(steps=1500, batch_size=64, learning_rate=2e-3)


@dataclass(frozen=True, kw_only=True)
class EvaluatorTraining:
    """Length and rates of the evaluator's training, and the weights of its terms (our choice)."""

    fit: TrainConfig = _FIT
    # of the faces that are true normalized images: it must read these as well
    truth_share: float = 0.4
    # names of `norface_lib.tasks.losses.DETECTION_LOSSES`; dice lets 0.5 suit F1 for rare AUs too
    detection: str = "bce+dice"
    # of the mean squared error of intensities, each relative to its spread
    intensity_weight: float = 1.0
    emotion_weight: float = 0.25  # of the cross entropy of the faces that show one

    @classmethod
    def of_steps(cls, steps: int, seed: int = 0) -> "EvaluatorTraining":
        """The default recipe of another length."""
        return cls(fit=_FIT.of_length(steps, seed))


@dataclass(frozen=True)
class EvaluatorLabels:
    """Labels of N faces for an evaluator: AU intensities (N, A) of 0..5, occurrences (N, A) of 0 or
    1, emotions (N,)."""

    intensities: Tensor
    occurrences: Tensor
    emotions: Tensor  # class, or UNNAMED

    @classmethod
    def of(cls, data: Rendered, config: EvaluatorConfig) -> "EvaluatorLabels":
        """Those of a rendered benchmark, in the order of the config."""
        names = data.table[EMOTION].astype(object).fillna("")  # a column without any is of numbers
        classes = [config.emotions.index(name) if name else UNNAMED for name in names]
        return cls(
            intensities=torch.tensor(data.intensities(config.aus)),
            occurrences=torch.tensor(data.occurrences(config.aus)),
            emotions=torch.tensor(classes),
        )


def train_evaluator(
    data: Rendered,
    config: EvaluatorConfig,
    training: EvaluatorTraining,
    *,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
    start: Evaluator | None = None,
) -> Evaluator:
    """Trains an evaluator on a rendered benchmark, which must hold the true images.

    Resumable with a ``folder``.

    ``start``: begin with a copy of its weights. Raises ``ValueError`` without true images, and what
    `norface_lib.training.loop.fit` raises.
    """
    if data.truths is None:
        raise ValueError(
            "an evaluator reads true normalized images too, which this label table lacks"
        )
    device = device_of(device)
    torch.manual_seed(training.fit.seed)
    evaluator = Evaluator(config).to(device, memory_format=torch.channels_last)
    if start is not None:
        evaluator.load_state_dict(start.state_dict())
    known = EvaluatorLabels.of(data, config)
    return fit(
        evaluator,
        _evaluator_loss(known, training, device),
        ArrayDataset(
            data.originals, data.truths, known.intensities, known.occurrences, known.emotions
        ),
        training.fit,
        folder=folder,
        name="evaluator",
        progress=progress,
    )


def _evaluator_loss(
    known: EvaluatorLabels, training: EvaluatorTraining, device: torch.device
) -> Loss:
    """The weighted sum of the three terms on a batch of originals and true images, of which half
    are mirrored."""
    detect = summed(training.detection, DETECTION_LOSSES)
    rates = known.occurrences.mean(0).clamp(min=1 / len(known.occurrences))
    weights = au_weights(rates).to(device)
    # a rare AU should not dominate
    spread = (known.intensities.std(0) + 0.05 * labels.INTENSITY_MAX).to(device)

    def loss(evaluator: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        originals, truths, intensities, occurrences, emotions = to_device(batch, device)
        true = chance.rand(len(originals)) < training.truth_share
        flip = chance.rand(len(originals)) < 0.5

        images = training_images(originals, truths, true.to(device))
        output = evaluator(mirrored(images, flip.to(device)))
        detection = detect(output.occurrence, occurrences, weights)
        intensity = ((output.intensity - intensities) / spread).square().mean()
        emotion = _emotion_loss(output, emotions)

        total = detection + training.intensity_weight * intensity
        total = total + training.emotion_weight * emotion
        terms = {"detection": detection, "intensity": intensity, "emotion": emotion}
        return total, {name: value.item() for name, value in terms.items()}

    return loss


def training_images(originals: Tensor, truths: Tensor, true: Tensor) -> Tensor:
    """Images (B, 3, S, S): true ones where ``true`` (B,) is, elsewhere originals in other light,
    framed a little differently.

    True images are left as they are: they have one light and one framing by definition.
    """
    changed = jitter(photometric(to_tensor(originals)))
    return torch.where(true[:, None, None, None], to_tensor(truths), changed)


def _emotion_loss(output: EvaluatorOutput, emotions: Tensor) -> Tensor:
    """Mean cross entropy of the faces whose emotion has a name; 0 if there is none."""
    entropy = F.cross_entropy(output.emotion, emotions, ignore_index=UNNAMED, reduction="sum")
    return entropy / (emotions != UNNAMED).sum().clamp(min=1)


@torch.inference_mode()
def evaluator_outputs(evaluator: Evaluator, faces: Faces, batch_size: int = 128) -> EvaluatorOutput:
    """Outputs of an evaluator in evaluation mode for faces (N, S, S, 3) of 8 bits, resized to what
    it takes. On the CPU."""
    device = next(evaluator.parameters()).device
    size = evaluator.config.image_size
    outputs = []
    for start in range(0, len(faces), batch_size):
        images = to_tensor(faces[start : start + batch_size]).to(device)
        if images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        outputs.append(evaluator(images))
    return EvaluatorOutput(
        *(torch.cat(parts).float().cpu() for parts in zip(*outputs, strict=True))
    )


def reading_scores(
    read: EvaluatorOutput, known: EvaluatorLabels, config: EvaluatorConfig
) -> dict[str, Any]:
    """Scores of expressions as they were read: F1 at threshold 0.5, ICC(3,1) and mean absolute
    error of the intensity, and by AU.

    The first two are means over the AUs that occur, the error over all, as one that is seen where
    there is none counts too; accuracy of the emotion is among the faces that show one, None if
    there is none.
    """
    names = labels.columns(config.aus)
    per_au = {
        "f1": f1_per_label(read.occurrence.sigmoid(), known.occurrences),
        "icc": icc3_1(read.intensity, known.intensities),
        "intensity_error": mae(read.intensity, known.intensities),
    }
    shown = known.occurrences.any(0).numpy()
    named = (known.emotions != UNNAMED).numpy()
    if not shown.any():
        raise DataError("no AU occurs in these faces: there is nothing to read")
    right = confusion(read.emotion.argmax(1)[named], known.emotions[named], len(config.emotions))
    scores: dict[str, Any] = {
        "f1": float(per_au["f1"][shown].mean()),
        "icc": float(per_au["icc"][shown].mean()),
        "intensity_error": float(per_au["intensity_error"].mean()),
        "emotion_accuracy": float(accuracy(right)) if named.any() else None,
    }
    shown_names = list(compress(names, shown))
    for what, values in per_au.items():
        scores[f"{what}_per_au"] = dict(zip(shown_names, values[shown].tolist(), strict=True))
    return scores


def measure(
    evaluator: Evaluator, folder: Path, subjects: int = 60, frames: int = 4
) -> dict[str, Any]:
    """`reading_scores` of originals and of true images, on rendered subjects of both domains that
    no evaluator was trained on."""
    measured: dict[str, Any] = {}
    for pool in ("lab", "wild"):
        spec = BenchmarkSpec(
            pool=pool, subjects=subjects, frames=frames, size=evaluator.config.image_size
        )
        root = write_benchmark(spec, Path(folder) / pool)
        data = Rendered(root, aus=evaluator.config.aus)
        known = EvaluatorLabels.of(data, evaluator.config)
        measured[pool] = {"subjects": subjects, "faces": len(data)}
        for name, faces in (("originals", data.originals), ("truths", data.truths)):
            measured[pool][name] = reading_scores(
                evaluator_outputs(evaluator, faces), known, evaluator.config
            )
    return measured


def train_and_save(
    data: Path, out: Path, steps: int, seed: int = 0, device: str = "auto", start: str | None = None
) -> Path:
    """The whole recipe: trains an evaluator on a rendered pool, measures it on other pools, writes
    weights and card.

    ``start``: name or path of weights to begin with.
    """
    config = EvaluatorConfig()
    training = EvaluatorTraining.of_steps(steps, seed)
    first, first_card = load_evaluator(start) if start else (None, {})
    faces = Rendered(data, aus=config.aus, progress=True)
    begun = {name: first_card[name] for name in ("sha256", "training")} if start else None
    check_learned(out, faces.originals, start=begun)
    evaluator = train_evaluator(faces, config, training, folder=out, device=device, start=first)
    seconds = logged_seconds(Path(out) / "evaluator.jsonl")
    card = {
        "data": read_spec(data),
        "start": begun,
        "training": asdict(training) | {"seconds": seconds, "device": str(device_of(device))},
        "measured": measure(evaluator.cpu(), Path(out) / "held-out"),
        "license": "MIT; the target face is rendered from CC0 assets and is nobody",
        "versions": versions(),
    }
    return save_evaluator(evaluator, Path(out) / "evaluator.safetensors", card)
