"""Facial actions and AU intensities from the blendshape scores of MediaPipe's landmarker.

A score is no intensity: each is set to zero at its value in neutral photographs and to full at its
value in the strongest, faint ones of brows, wide eyes and frowning mouths count for more, actions
that the landmarker does not see follow from others, and a smile is decided by all scores together,
as people on the whole label it (:class:`Calibration`). Our choice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.errors import CheckpointError
from norface_lib.faces.sampling import RENDERED_AUS, Sides
from norface_lib.networks.cards import FOLDER

UNSEEN = ("cheekSquint", "noseSneer")
"""Actions without a signal in their scores: on photographs and on rendered faces alike they stay at
zero."""

FAINT = ("brow", "eyeWide", "mouthFrown")
"""Actions whose low scores count for more. The landmarker hardly sees lowered brows, wide eyes and
a frowning mouth unless they are strong (rendered heads with AU4 score 0.02 at intensity 2 to 3 and
0.2 at 4 to 5: medians of 4,000 faces; AU15 0.03, 0.14), and of raised brows it recovers more on our
target if faint ones are rendered more strongly."""

SHIPPED = FOLDER / "landmarker.json"
"""The calibration that comes with the weights."""

LEAST_LABELED = 100
"""Photographs that must be labeled happy, and neutral, before a smile is learned from them."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Meaning of the scores of blendshapes (name -> 0..1).

    ``zero`` and ``full``: scores at which an action begins, and at which it is at its strongest.
    ``smile``: a weight for each score and a ``bias``, whose sum is the log odds that people label
    the face happy and not neutral; empty if it is not known. ``lift``: how many times as strong as
    in proportion the faintest of ``FAINT`` are; 1 for none.
    """

    zero: Mapping[str, float]
    full: Mapping[str, float]
    smile: Mapping[str, float] = field(default_factory=dict)
    lift: float = 4.0

    @classmethod
    def of(
        cls, shapes: pd.DataFrame, emotions: NDArray[np.str_] | None = None, *, least: float = 0.3
    ) -> "Calibration":
        """Calibration by photographs (N rows): zero is the median of those labeled neutral, or of
        all; full the 99.5th percentile of all.

        Scores that never get as far as ``least`` above zero are not stretched any further: that
        would be noise. ``emotions`` (N,) are names or "". The smile needs ``LEAST_LABELED``
        photographs of either kind; with fewer it is that of the shipped one.
        """
        emotions = np.full(len(shapes), "") if emotions is None else np.asarray(emotions)
        neutral = emotions == "neutral"
        zero = (shapes[neutral] if neutral.any() else shapes).median()
        full = np.maximum(shapes.quantile(0.995), zero + least)
        return cls(
            zero={name: round(float(zero[name]), 4) for name in shapes},
            full={name: round(float(full[name]), 4) for name in shapes},
            smile=smile_of(shapes, emotions) or dict(calibration_of().smile),
        )

    def actions(self, scores: Mapping[str, float], gain: float = 1.25) -> dict[str, float]:
        """ARKit weights 0..``gain`` of a face's scores, each side on its own. ``gain``: how far a
        rendered head must go to get the same scores (our choice).

        ``cheekSquint`` goes along with a smile from a third of it on, and ``noseSneer`` with brows
        and upper lip together.
        """
        known = {*rendered_actions(), "browInnerUp"}
        actions = {
            name: gain * self._strength(name, scores[name])
            for name in self.zero
            if name in known and not name.startswith(UNSEEN)
        }
        inner = actions.pop("browInnerUp", 0.0)
        for side in ("Left", "Right"):
            smile = actions[f"mouthSmile{side}"]
            actions[f"browInnerUp{side}"] = inner
            actions[f"cheekSquint{side}"] = max(0.0, 1.2 * (smile - gain / 3))
            actions[f"noseSneer{side}"] = min(
                actions[f"browDown{side}"], actions[f"mouthUpperUp{side}"]
            )
        return actions

    def _strength(self, name: str, score: float) -> float:
        """Strength of an action: 0 where it begins, 1 at its strongest; between, a share s, or
        lifted: l s / (1 + (l - 1) s). Our choice."""
        share = (score - self.zero[name]) / (self.full[name] - self.zero[name])
        share = float(np.clip(share, 0, 1))
        lift = self.lift if name.startswith(FAINT) else 1.0
        return lift * share / (1 + (lift - 1) * share)

    def smiles(self, scores: Mapping[str, float]) -> float:
        """Log odds that people label a face with these scores happy and not neutral."""
        weighted = (weight * scores[name] for name, weight in self.smile.items() if name != "bias")
        return self.smile["bias"] + sum(weighted)

    def sides(self, scores: Mapping[str, float]) -> Sides:
        """AU intensities 0..5 of each side of a face with these scores, as `intensities_of`; AU12
        is present if it smiles.

        The single score of a smile is wrong about faint ones, and about faces whose mouth turns up
        at rest, more often than all scores together: they decide whether AU12 stays below a trace
        (A) or is 1.5 at least. Our choice.
        """
        sides = intensities_of(self.actions(scores))
        if not self.smile:
            return sides
        smiles = self.smiles(scores) > 0
        low = 1.5 if smiles else 0.0
        high = labels.INTENSITY_MAX if smiles else 0.9 * labels.OCCURRENCE_THRESHOLD
        for side in sides:
            side[12] = float(np.clip(side.get(12, 0.0), low, high))
        return sides


def smile_of(shapes: pd.DataFrame, emotions: NDArray[np.str_]) -> dict[str, float]:
    """``Calibration.smile`` of photographs (N rows) with emotions (N,): logistic regression (L2, C
    = 1).

    It takes the place of the label of each photograph: single labels, too, are sometimes wrong.
    Empty if there are fewer than ``LEAST_LABELED`` happy or neutral ones.
    """
    from sklearn.linear_model import LogisticRegression

    happy = emotions == "happy"
    neutral = emotions == "neutral"
    if min(happy.sum(), neutral.sum()) < LEAST_LABELED:
        return {}
    rows = happy | neutral
    model = LogisticRegression(max_iter=1000).fit(shapes.to_numpy()[rows], happy[rows])
    weights = dict(zip(shapes, model.coef_[0].tolist(), strict=True))
    weights["bias"] = float(model.intercept_[0])
    return {name: round(value, 4) for name, value in weights.items()}


def calibration_of(path: Path = SHIPPED) -> Calibration:
    """A calibration from a JSON file; default: the one that comes with the weights for photographs.

    Raises :class:`CheckpointError` if the file is missing or damaged.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return Calibration(**{entry.name: values[entry.name] for entry in fields(Calibration)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no calibration of the landmarker ({error})") from error


@lru_cache(maxsize=1)
def rendered_actions() -> tuple[str, ...]:
    """Actions by which AUs are rendered."""
    return tuple(sorted({action for au in RENDERED_AUS for action in labels.AUS[au].actions}))


@lru_cache(maxsize=1)
def _rendering() -> tuple[NDArray[np.float64], list[tuple[int, str]]]:
    """Matrix (A, V) from intensities to action weights, and the meaning of its columns: (AU, side),
    side "" for both."""
    variables = []
    for au in RENDERED_AUS:
        sides = ("Left", "Right") if labels.AUS[au].sided else ("",)
        variables.extend((au, side) for side in sides)
    rows = rendered_actions()
    matrix = np.zeros((len(rows), len(variables)))
    for column, (au, side) in enumerate(variables):
        for action, weight in labels.AUS[au].actions.items():
            if not side or action.endswith(side):
                matrix[rows.index(action), column] = weight / labels.INTENSITY_MAX
    return matrix, variables


def intensities_of(actions: Mapping[str, float], damping: float = 0.02) -> Sides:
    """AU intensities 0..5 of each side whose rendering comes nearest to ARKit weights (non-negative
    least squares).

    ``damping`` makes the smallest of equally good answers the best one.
    """
    from scipy.optimize import nnls

    matrix, variables = _rendering()
    weights = np.array([actions.get(name, 0.0) for name in rendered_actions()])
    system = np.concatenate([matrix, damping * np.eye(len(variables))])
    solution, _ = nnls(system, np.concatenate([weights, np.zeros(len(variables))]))
    values = solution.clip(0, labels.INTENSITY_MAX).tolist()

    left = {}
    right = {}
    for (au, side), value in zip(variables, values, strict=True):
        if side != "Right":
            left[au] = value
        if side != "Left":
            right[au] = value
    return left, right
