"""Who is trained on and who is tested: splits in which no subject is ever on both sides.

`protocol` is the one door: a name and the pandas index of a dataset give the splits.
`shared_labels` says which labels two datasets have in common when one is trained on and the other
tested.
"""

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.datasets import DATASETS, affectnet, bp4d, disfa, rafdb
from norface_lib.datasets import official_splits as official
from norface_lib.labels import BP4D_AUS, EMOTIONS

# --- splits ---------------------------------------------------------------------------------------

Sides = tuple[tuple[str, ...], tuple[str, ...]]
"""Subjects that are trained on, and subjects that are tested."""


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows to test on, by position; across datasets, ``test`` are rows of the
    tested dataset's index."""

    name: str
    train: NDArray[np.intp]
    test: NDArray[np.intp]


def _k_fold(parts: tuple[tuple[str, ...], ...]) -> tuple[Sides, ...]:
    """Each part is tested once while the others are trained on."""
    return tuple(
        (sum(parts[:number] + parts[number + 1 :], ()), part) for number, part in enumerate(parts)
    )


SUBJECT_SPLITS: MappingProxyType[str, tuple[Sides, ...]] = MappingProxyType(
    {
        # fold 1 tests P1, as in JAA-Net, FG-Net and FMAE
        "bp4d/3fold": _k_fold(official.BP4D_FOLDS),
        "bp4d/3fold-jaa": _k_fold(official.BP4D_FOLDS),
        # fold 1 tests P3, as in ME-GraphAU, MDHR and AU-Net
        "bp4d/3fold-megraph": _k_fold(official.BP4D_FOLDS[::-1]),
        "bp4d/fera2015": (official.BP4D_FERA,),  # AU intensity; the other convention is bp4d/3fold
        "bp4d_plus/4fold-fmae": _k_fold(official.BP4D_PLUS_FMAE_FOLDS),
        "bp4d_plus/3fold-bigsmall": _k_fold(official.BP4D_PLUS_BIGSMALL_FOLDS),
        # fold 1 tests P1, as in JAA-Net, AU-Net, FG-Net and FMAE
        "disfa/3fold": _k_fold(official.DISFA_FOLDS),
        "disfa/3fold-jaa": _k_fold(official.DISFA_FOLDS),
        # fold 1 tests P3, as in ME-GraphAU and MDHR
        "disfa/3fold-megraph": _k_fold(official.DISFA_FOLDS[::-1]),
    }
)
"""The field's subject-exclusive protocols by name, as subjects (PAPER.md 2.1-2.3)."""

SUBJECTS = MappingProxyType(
    {
        "bp4d": frozenset(sum(official.BP4D_FOLDS, ())),
        "bp4d_plus": frozenset(sum(official.BP4D_PLUS_FMAE_FOLDS, ())),
        "disfa": frozenset(sum(official.DISFA_FOLDS, ())),
    }
)
"""All subjects of the datasets that name theirs: 41, 140 and 27 (PAPER.md 2.1-2.3)."""

TESTED_PART = MappingProxyType({"affectnet": "val", "rafdb": "test"})
"""Value of the column ``part`` that is tested. AffectNet's test set is not public: its validation
set is it (PAPER.md 2.4)."""


def protocol(name: str, index: pd.DataFrame, test_index: pd.DataFrame | None = None) -> list[Split]:
    """The splits of a protocol as rows of ``index``. That no subject is on both sides, and no side
    empty, has been checked.

    - ``bp4d/3fold``, ``disfa/3fold-megraph`` and all others of ``SUBJECT_SPLITS``: by column
      ``subject``;
    - ``affectnet/official``, ``rafdb/official``: by column ``part``, ``train`` against
      ``TESTED_PART``;
    - ``rendered/5fold-seed0``, of any dataset, number of folds and seed: by column ``subject`` with
      `subject_folds`;
    - ``bp4d->disfa/3fold``: split i trains on rows of ``index``, as the source's split i does, and
      tests on rows of
      ``test_index``, as the target's split i does: FG-Net's way (PAPER.md 2.6);
    - ``bp4d->bp4d_plus/all``: trains on all of one dataset and tests on all of the other, as above.

    Official subjects without a row are warned of by count and name (`missing_subjects`). Raises
    `DataError` for an unknown protocol, a column that is missing or has gaps, subjects or parts
    outside the official lists, by count and name, a side without rows, and a subject on both sides.
    """
    datasets, _, split = name.partition("/")
    source, across, target = datasets.partition("->")
    if bool(across) != (test_index is not None):
        raise DataError(
            f"{name}: a second index is needed for source->target/split, and for nothing else"
        )
    splits = _splits_of(source, split, index)
    if across:
        targets = _splits_of(target, split, test_index)
        splits = [
            Split(ours.name, ours.train, theirs.test)
            for ours, theirs in zip(splits, targets, strict=True)
        ]
    for part in splits:
        _check(
            f"{name} ({part.name})",
            part,
            (source, index),
            (target, test_index) if across else (source, index),
        )
    return splits


def subject_folds(
    subjects: NDArray[np.str_], folds: int = 3, seed: int = 0
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows (train, test) of each fold for the subject (N,) of each row, subjects shuffled by seed.

    Every row is tested exactly once. Raises ``ValueError`` if there are fewer subjects than folds.
    """
    names = np.unique(subjects)
    if not 2 <= folds <= len(names):
        raise ValueError(
            f"{folds} folds need at least as many subjects (and 2 folds at least), got "
            f"{len(names)} subjects"
        )
    parts = np.array_split(np.random.default_rng(seed).permutation(names), folds)
    tests = [np.isin(subjects, part) for part in parts]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]


def missing_subjects(dataset: str, index: pd.DataFrame) -> tuple[str, ...]:
    """Official subjects of a dataset without a row in its index, sorted; none where subjects have
    no official names.

    Raises `DataError` for the opposite: subjects in the index that the official list does not know.
    """
    if dataset not in SUBJECTS:
        return ()
    subjects = set(_column(index, "subject"))
    known = SUBJECTS[dataset]
    if unknown := subjects - known:
        raise DataError(f"{_listed(unknown, 'subject')} not among the {len(known)} of {dataset}")
    return tuple(sorted(known - subjects))


def _splits_of(dataset: str, split: str, index: pd.DataFrame) -> list[Split]:
    """The splits of one dataset, not yet checked."""
    if dataset not in DATASETS:
        raise DataError(f"no dataset {dataset!r}; known are {', '.join(DATASETS)}")
    if missing := missing_subjects(dataset, index):
        warnings.warn(f"{dataset}: no row of {_listed(missing, 'official subject')}", stacklevel=3)
    rows = _rows(dataset, split, index)
    names = [f"fold{number}" for number in range(1, len(rows) + 1)] if len(rows) > 1 else [split]
    return [Split(name, *sides) for name, sides in zip(names, rows, strict=True)]


def _rows(
    dataset: str, split: str, index: pd.DataFrame
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows (train, test) of each split."""
    if lists := SUBJECT_SPLITS.get(f"{dataset}/{split}"):
        subjects = _column(index, "subject")
        return [
            (np.flatnonzero(np.isin(subjects, train)), np.flatnonzero(np.isin(subjects, test)))
            for train, test in lists
        ]
    if seeded := re.fullmatch(r"(\d+)fold-seed(\d+)", split):
        return _seeded(_column(index, "subject"), *map(int, seeded.groups()))
    if split == "official" and dataset in TESTED_PART:
        return [_by_part(_column(index, "part"), TESTED_PART[dataset])]
    if split == "all":
        return [(np.arange(len(index)), np.arange(len(index)))]
    names = (*SUBJECT_SPLITS, *(f"{name}/official" for name in TESTED_PART))
    known = [name for name in names if name.startswith(f"{dataset}/")] + [f"{dataset}/3fold-seed0"]
    raise DataError(f"no protocol {dataset}/{split}; known are {', '.join(known)}")


def _seeded(
    subjects: NDArray[np.str_], folds: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    try:
        return subject_folds(subjects, folds, seed)
    except ValueError as error:
        raise DataError(str(error)) from error


def _by_part(parts: NDArray[np.str_], tested: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if unknown := set(parts) - {"train", tested}:
        raise DataError(
            f"{_listed(unknown, 'value')} in the column part, which may hold train and {tested}"
        )
    return np.flatnonzero(parts == "train"), np.flatnonzero(parts == tested)


def _column(index: pd.DataFrame, name: str) -> NDArray[np.str_]:
    """A text column without gaps."""
    if name not in index:
        raise DataError(
            f"the index lacks the column {name}; it has {', '.join(map(str, index.columns))}"
        )
    if gaps := int((index[name].isna() | (index[name] == "")).sum()):
        raise DataError(f"{gaps} of {len(index)} rows have no {name}")
    return index[name].to_numpy(str)


def _check(
    name: str, split: Split, trained: tuple[str, pd.DataFrame], tested: tuple[str, pd.DataFrame]
) -> None:
    """Raises `DataError` if a side of a split is empty, or a subject is on both. Names of two
    datasets are never one person."""
    for side, rows in (("train on", split.train), ("test", split.test)):
        if not len(rows):
            raise DataError(
                f"{name}: no row to {side}; {trained[0]}/3fold-seed0 makes folds of the subjects "
                "at hand"
            )
    if trained[0] != tested[0]:
        return
    if both := _people(trained[1], split.train) & _people(tested[1], split.test):
        raise DataError(f"{name}: trained on and tested {_listed(both, 'subject')}")
    if trained[1] is tested[1] and (shared := len(np.intersect1d(split.train, split.test))):
        raise DataError(f"{name}: trained on and tested {shared} rows")


def _people(index: pd.DataFrame, rows: NDArray[np.intp]) -> set[str]:
    """Subjects of some rows, as far as they are known: web photographs come without a name."""
    return (
        set(index["subject"].iloc[rows].dropna().astype(str)) - {""}
        if "subject" in index
        else set()
    )


def _listed(names: Iterable[str], what: str) -> str:
    """``2 subjects (F001, F002)``"""
    names = sorted(names)
    return f"{len(names)} {what}{'s' * (len(names) > 1)} ({', '.join(names)})"


# --- labels of two datasets -----------------------------------------------------------------------

LABELS: MappingProxyType[str, MappingProxyType[str, tuple]] = MappingProxyType(
    {
        "au_detection": MappingProxyType(
            {
                "bp4d": BP4D_AUS,
                "bp4d_plus": BP4D_AUS,
                "disfa": disfa.DETECTION_AUS,
                "rendered": BP4D_AUS,
            }
        ),
        "au_intensity": MappingProxyType(
            {
                "bp4d": bp4d.INTENSITY_AUS,
                "bp4d_plus": bp4d.INTENSITY_AUS,
                "disfa": disfa.INTENSITY_AUS,
                "rendered": BP4D_AUS,
            }
        ),
        "emotion": MappingProxyType(
            {
                "affectnet": affectnet.EMOTIONS,
                "rafdb": rafdb.EMOTIONS,
                "rendered": EMOTIONS,
            }
        ),
    }
)
"""The labels of each dataset by task, in its own order (PAPER.md 2.1-2.5); of a rendered benchmark
those that it has unless others are asked for."""

_ANY = "an AU is present from intensity 1 (A) on"
_LEVELS = "an intensity of 0, or 1 (A) to 5 (E)"
_EMOTION = "one emotion for each image, as its coders name it"

SEMANTICS: MappingProxyType[str, MappingProxyType[str, str]] = MappingProxyType(
    {
        "au_detection": MappingProxyType(
            {
                "bp4d": _ANY,
                "bp4d_plus": _ANY,
                "disfa": f"an AU is present from intensity {disfa.DETECTION_THRESHOLD} (B) on",
                "rendered": _ANY,
            }
        ),
        "au_intensity": MappingProxyType(
            dict.fromkeys(LABELS["au_intensity"], "0, or 1 (A) to 5 (E)")
        ),
        "emotion": MappingProxyType(dict.fromkeys(LABELS["emotion"], _EMOTION)),
    }
)
"""What a label of each task means in each dataset (PAPER.md 2.1-2.6)."""


class SharedLabels(NamedTuple):
    """Labels that two datasets share, and where they stand: ``labels[i]`` is column ``source[i]``
    here, ``target[i]`` there."""

    labels: tuple
    source: NDArray[np.intp]
    target: NDArray[np.intp]


def shared_labels(source: str, target: str, task: str, aus: tuple[int, ...] = ()) -> SharedLabels:
    """The labels of ``target`` that a network trained on ``source`` can be tested on; task
    ``au_detection``, ``au_intensity`` or ``emotion``. ``aus``: those of a rendered benchmark, if
    they are not the default.

    BP4D and DISFA share AUs 1 2 4 6 12 in detection, where BP4D counts any intensity as present and
    DISFA 2 or more, and AUs 6 12 17 in intensity. AffectNet and RAF-DB share 7 emotions (PAPER.md
    2.6). Raises `DataError` for an unknown task, or a dataset that has no labels of it.
    """
    known = dict(LABELS.get(task, {}))
    if aus and task != "emotion":
        known["rendered"] = tuple(aus)
    if not {source, target} <= set(known):
        raise DataError(
            f"no labels of the task {task!r} for {source} and {target}; known are {_tasks()}"
        )
    ours = known[source]
    theirs = known[target]
    shared = tuple(label for label in ours if label in theirs)
    return SharedLabels(
        shared,
        np.array([ours.index(s) for s in shared]),
        np.array([theirs.index(s) for s in shared]),
    )


def _tasks() -> str:
    return "; ".join(f"{task}: {', '.join(datasets)}" for task, datasets in LABELS.items())
