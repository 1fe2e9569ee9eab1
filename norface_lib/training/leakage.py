"""The leakage switch: which faces of a dataset a normalizer may have learned from before a
classifier is tested on it.

Whether the paper's normalizer had seen the frames of the test fold is not known (PAPER.md 1.2), so
every result says which it was, and the switch makes the difference measurable.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from norface_lib.common.records import check_leakage
from norface_lib.networks.normalizer import Normalizer
from norface_lib.training.normalizer import NormalizerTraining, fine_tune
from norface_lib.training.normalizer_losses import Sources

Rows = NDArray[np.intp]


def normalizers_of_folds(
    leakage: str,
    start: Normalizer,
    folds: Sequence[tuple[Rows, Rows]],
    sources_of: Callable[[Rows], Sources],
    training: NormalizerTraining,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> list[Normalizer]:
    """One normalizer for each fold (training rows, test rows): ``start`` itself, or what it becomes
    by fine-tuning.

    ``sources_of`` gives the faces of some rows, and is asked only for rows that the switch allows.
    Resumable with a ``folder``.
    """
    if check_leakage(leakage) == "pretrained":
        return [start] * len(folds)

    def tuned(rows: Rows, name: str) -> Normalizer:
        place = None if folder is None else Path(folder) / name
        return fine_tune(
            start, sources_of(rows), training, folder=place, device=device, progress=progress
        )

    if leakage == "all":
        rows = np.unique(np.concatenate([np.concatenate(fold) for fold in folds]))
        return [tuned(rows, "all")] * len(folds)
    return [tuned(train, f"fold{number}") for number, (train, _) in enumerate(folds, start=1)]
