"""Data of an experiment that trains on one dataset and tests on another."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from norface_lib.common.devices import device_of
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.pairs import EmbeddedPairs, Pairs
from norface_lib.datasets.protocols import SEMANTICS, Split, protocol, shared_labels
from norface_lib.images.arrays import LazyFaces
from norface_lib.labels import columns
from norface_lib.networks.weights import load_normalizer
from norface_lib.studies.preparation import Normalized, Prepared, views_of_folds
from norface_lib.training.normalizer import NormalizerTraining

ALL = "all"
"""The split that trains on all of one dataset and tests on all of the other: nobody is left for a
training within the other."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of two datasets: its name, its normalized frames, the rows (M,) of these whose labels the
    other has too, and these labels (M, L), counted as both count them."""

    name: str
    faces: Normalized
    rows: NDArray[np.intp]
    labels: NDArray[np.float32]

    @property
    def data(self) -> FaceDataset:
        """The frames that are used."""
        return self.faces.data.select(self.rows)

    @property
    def counts(self) -> dict[str, Any]:
        """Numbers of frames; nothing that was left out is silent."""
        left_out = len(self.faces.data) - len(self.rows)
        return self.faces.counts | {"frames": len(self.rows), "other_emotions": left_out}


def sides_of(
    source: Normalized,
    target: Normalized,
    names: tuple[str, str],
    task: str,
    aus: tuple[int, ...] = (),
) -> tuple[Side, Side, tuple[str, ...]]:
    """Both datasets with the labels that they share, and the names of these.

    ``names``: of the datasets, ``aus``: those of rendered faces, as `shared_labels` takes them.
    Frames with an emotion that the other dataset lacks are left out. Raises
    :class:`norface_lib.common.errors.DataError` for datasets without a label in common.
    """
    shared = shared_labels(*names, task, aus)
    sides = []
    for name, faces, places in zip(
        names, (source, target), (shared.source, shared.target), strict=True
    ):
        labels = faces.pairs.labels
        if not faces.data.classes:
            sides.append(
                Side(name=name, faces=faces, rows=np.arange(len(labels)), labels=labels[:, places])
            )
            continue
        codes = np.full(len(faces.data.classes), -1)
        codes[places] = np.arange(len(places))
        common = codes[labels[:, 0].astype(int)]
        rows = np.flatnonzero(common >= 0)
        kept = common[rows, None].astype(np.float32)
        sides.append(Side(name=name, faces=faces, rows=rows, labels=kept))
    outputs = shared.labels if task == "emotion" else columns(shared.labels)
    return *sides, tuple(outputs)


def prepare_across(
    source: Side,
    target: Side,
    outputs: tuple[str, ...],
    *,
    folder: Path,
    task: str,
    split: str,
    weights: str,
    leakage: str,
    tuning: NormalizerTraining,
    frozen: bool,
    size: int | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Prepared:
    """The frames of both datasets as one, the source's first, with splits that train on the source
    and test on the target.

    ``in_domain`` of what it returns trains on the target's own people in place of the source's, and
    tests the same rows; it is None for the split ``all``. ``size``: pixels of the faces that the
    backbone takes; default: those of the normalizer. ``folder``: of trainings. Errors are
    those of `norface_lib.datasets.protocols.protocol`.
    """
    normalizer, identity, card = load_normalizer(weights)
    normalizer = normalizer.to(device_of(device))
    pairs = _joined_pairs((source, target))
    name = f"{source.name}->{target.name}/{split}"
    across = _moved(protocol(name, source.data.index, target.data.index), 0, len(source.rows))
    within: list[Split] = []
    if split != ALL:
        own = protocol(f"{target.name}/{split}", target.data.index)
        within = _moved(own, len(source.rows), len(source.rows))

    rows = hashlib.sha256(_rows((source, target)).tobytes()).hexdigest()[:16]
    views = views_of_folds(
        pairs,
        [*across, *within],
        normalizer,
        identity,
        embedded=(lambda: _joined_embeddings((source, target), pairs, normalizer, progress))
        if frozen
        else None,
        size=size,
        leakage=leakage,
        tuning=tuning,
        folder=folder,
        key=f"{source.faces.key}-{target.faces.key}-{rows}",
        device=device,
        progress=progress,
    )
    semantics = SEMANTICS[task]
    prepared = Prepared(
        data=source.data,
        pairs=pairs,
        outputs=outputs,
        views=views[: len(across)],
        splits=across,
        normalizer=normalizer,
        target=identity,
        card=card,
        counts={
            side: {"dataset": part.name, "labels": semantics[part.name]} | part.counts
            for side, part in (("source", source), ("target", target))
        },
        faces=folder,
        folder=folder,
        key=f"{leakage}-{source.faces.key}-{target.faces.key}",
        device=device,
    )
    if not within:
        return prepared
    in_domain = replace(prepared, data=target.data, splits=within, views=views[len(across) :])
    return replace(prepared, in_domain=in_domain)


def _moved(splits: Sequence[Split], train: int, test: int) -> list[Split]:
    """Splits whose rows are counted from another beginning."""
    return [Split(split.name, split.train + train, split.test + test) for split in splits]


def _rows(sides: tuple[Side, Side]) -> NDArray[np.intp]:
    """Rows of both, in the faces of one after those of the other."""
    first, second = sides
    return np.concatenate([first.rows, len(first.faces.pairs) + second.rows])


def _joined_pairs(sides: tuple[Side, Side]) -> Pairs:
    rows = _rows(sides)
    parts = [side.faces.pairs for side in sides]
    return Pairs(
        LazyFaces([part.originals for part in parts], rows),
        LazyFaces([part.normalized for part in parts], rows),
        np.concatenate([side.labels for side in sides]),
        np.concatenate([side.faces.pairs.subjects[side.rows] for side in sides]),
    )


def _joined_embeddings(
    sides: tuple[Side, Side], pairs: Pairs, normalizer: Any, progress: bool
) -> EmbeddedPairs:
    rows = torch.from_numpy(_rows(sides))
    parts = [side.faces.embedded(normalizer, progress) for side in sides]
    return EmbeddedPairs(
        normalizer,
        torch.cat([part.originals for part in parts], dim=1)[:, rows],
        torch.cat([part.normalized for part in parts], dim=1)[:, rows],
        pairs.labels,
        pairs.subjects,
    )
