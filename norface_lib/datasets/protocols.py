"""Who is trained on and who is tested: folds in which no subject is ever on both sides."""

import numpy as np
from numpy.typing import NDArray


def subject_folds(subjects: NDArray[np.str_], folds: int = 3, seed: int = 0) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows (train, test) of each fold for the subject (N,) of each row, subjects shuffled by seed.

    Every row is tested exactly once. Raises ``ValueError`` if there are fewer subjects than folds.
    """
    names = np.unique(subjects)
    if not 2 <= folds <= len(names):
        raise ValueError(f"{folds} folds need at least as many subjects (and 2 folds at least), got {len(names)} subjects")
    parts = np.array_split(np.random.default_rng(seed).permutation(names), folds)
    tests = [np.isin(subjects, part) for part in parts]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]
