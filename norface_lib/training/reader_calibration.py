"""Thresholds of a token reader: the intensity from which on an AU counts as present.

On rendered people whom the reader has not met, AUs are known: there F1 sets the threshold. On
photographs of faces that people call neutral most AUs should be absent: a threshold rises until few
of them are called. Nothing here looks at photographs that are kept for tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from norface_lib import labels
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.token_reader import TokenReader
from norface_lib.tasks.metrics import f1_per_label
from norface_lib.training.augmentation import degraded
from norface_lib.training.token_reader import ReaderSource

FALSE_ALARMS = 0.04
"""Share of neutral photographs in which an AU may be called."""


@dataclass(frozen=True)
class ReaderThresholds:
    """Thresholds (A,) by F1 on rendered faces and by neutral photographs, in learned intensities;
    the larger is taken. ``slope`` (A,) of the log odds; ``full`` (A,): what is graded as 5."""

    rendered: NDArray[np.float64]
    neutral: NDArray[np.float64]
    slope: NDArray[np.float64]
    full: NDArray[np.float64]
    counts: dict[str, int]

    @property
    def taken(self) -> NDArray[np.float64]:
        """(A,) the larger of both."""
        return np.maximum(self.rendered, self.neutral)

    def card(self, aus: Sequence[int]) -> dict[str, Any]:
        """What the card of weights says."""
        names = labels.columns(tuple(aus))
        of_faces = {
            name: dict(zip(names, np.round(values, 3).tolist(), strict=True))
            for name, values in (
                ("by_rendered_f1", self.rendered),
                ("by_neutral", self.neutral),
                ("full", self.full),
            )
        }
        return of_faces | {"false_alarms": FALSE_ALARMS, "counts": self.counts}


@torch.inference_mode()
def learned_intensities(
    model: TokenReader, faces: Faces, degraded_share: float = 0.0, batch_size: int = 128
) -> NDArray[np.float64]:
    """(N, A) intensity of the stronger side as learned, before grading, of faces (N, S, S, 3)."""
    device = next(model.parameters()).device
    torch.manual_seed(0)
    values = []
    for start in range(0, len(faces), batch_size):
        images = degraded(to_tensor(faces[start : start + batch_size]), degraded_share)
        sides, _ = model.head.values(model.encoder(images.to(device)))
        values.append(sides.amax(dim=2).cpu())
    return torch.cat(values).double().numpy()


def thresholds_of(
    model: TokenReader, rendered: Rendered, photographs: Sequence[ReaderSource]
) -> ReaderThresholds:
    """Thresholds of a reader from rendered people it has not met, half of them degraded, and from
    photographs with votes for emotions, neutral ones among them."""
    aus = model.config.aus
    seen = learned_intensities(model, rendered.originals, degraded_share=0.5)
    shown = rendered.occurrences(aus)
    by_f1 = _best_f1(seen, shown)

    calm = [_neutral(source) for source in photographs]
    calm = [faces for faces in calm if len(faces)]
    by_neutral = np.zeros(len(aus))
    if calm:
        called = np.concatenate([learned_intensities(model, faces) for faces in calm])
        by_neutral = np.quantile(called, 1 - FALSE_ALARMS, axis=0, method="higher")
    taken = np.maximum(by_f1, by_neutral)
    slope = [_slope(seen[:, k] - taken[k], shown[:, k]) for k in range(len(aus))]
    counts = {"rendered": len(rendered), "neutral_photographs": sum(map(len, calm))}
    full = _full(seen, rendered.intensities(aus))
    return ReaderThresholds(by_f1, by_neutral, np.array(slope), full, counts)


def _neutral(source: ReaderSource) -> Faces:
    neutral = source.votes[:, labels.EMOTIONS.index("neutral")] > 0.5
    return source.images[neutral]


def _best_f1(seen: NDArray[np.float64], shown: NDArray[np.floating]) -> NDArray[np.float64]:
    """(A,) the intensity from which on calling an AU has the best F1, in steps of 0.05."""
    steps = np.arange(0.2, 4.0, 0.05)
    shares = (seen / labels.INTENSITY_MAX).clip(0, 1)
    scores = [f1_per_label(shares, shown, step / labels.INTENSITY_MAX) for step in steps]
    return steps[np.argmax(scores, axis=0)]


def _full(seen: NDArray[np.float64], true: NDArray[np.floating]) -> NDArray[np.float64]:
    """(A,) what is taken for full intensity: half-way (geometric mean) between 5 and what faces at
    5 are read as, by a line through those that show the AU at all.

    A reader that is not sure keeps to the middle. Taken as it is, it would never call an AU strong;
    stretched all the way, its errors would be as large as its signal. Our choice.
    """
    full = np.full(seen.shape[1], labels.INTENSITY_MAX)
    for number in range(seen.shape[1]):
        shown = true[:, number] >= labels.OCCURRENCE_THRESHOLD
        if shown.sum() >= 2 and np.ptp(true[shown, number]) > 0:
            line = np.polyfit(true[shown, number], seen[shown, number], 1)
            read = max(np.polyval(line, labels.INTENSITY_MAX), 1e-3)
            full[number] = np.sqrt(labels.INTENSITY_MAX * read)
    return full


def _slope(above: NDArray[np.float64], shown: NDArray[np.floating]) -> float:
    """Slope of the log odds that suits what occurs at intensities ``above`` the threshold (least
    cross entropy)."""

    def cost(log_slope: float) -> float:
        odds = np.exp(log_slope) * above
        return float((np.logaddexp(0, odds) - shown * odds).mean())

    return float(np.exp(minimize_scalar(cost, bounds=(-2, 3), method="bounded").x))


def set_thresholds(model: TokenReader, thresholds: ReaderThresholds) -> None:
    """Puts thresholds and slopes into a reader."""
    with torch.no_grad():
        model.head.threshold.copy_(torch.from_numpy(thresholds.taken))
        model.head.full.copy_(torch.from_numpy(thresholds.full))
        model.head.log_slope.copy_(torch.from_numpy(np.log(thresholds.slope)))
