"""Data of an experiment: normalized pairs, the folds of a protocol, and embeddings."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from norface_lib.common.devices import default_workers, device_of
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.face_files import mapped
from norface_lib.datasets.given import load_given
from norface_lib.datasets.normalized import key_of, load_pairs, normalize_dataset
from norface_lib.datasets.pairs import EmbeddedPairs, Pairs, embed
from norface_lib.datasets.protocols import Split, protocol
from norface_lib.images.arrays import Faces, LazyFaces, resized, resized_batches, to_uint8
from norface_lib.networks.inference import normalized_batches
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_normalizer, target_names
from norface_lib.studies.cross_validation import Fold, of_some_people
from norface_lib.training.leakage import normalizers_of_folds
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_losses import Sources

View = Pairs | EmbeddedPairs
"""What a classifier is trained on: faces, or what a frozen backbone makes of them."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Data that classifiers are trained and tested on."""

    data: FaceDataset  # the frames that could be normalized; across datasets those of the source
    pairs: Pairs
    # names of the outputs of a classifier: AUs, or emotions
    outputs: tuple[str, ...]
    # for each fold, the input of its classifier: pairs, of its size, or their embeddings
    views: list[View]
    splits: list[Split]
    normalizer: Normalizer
    target: Tensor  # (1, 3, S, S), its target face
    card: dict[str, Any]  # of the normalizer
    counts: dict[str, Any]
    faces: Path  # folder of the normalized faces, and of all that is made of them
    folder: Path  # of the trainings, and of all that comes of them
    key: str  # of frames, normalized faces and normalizers
    device: str = "auto"  # of all networks
    workers: int = 0  # processes that read and write faces
    # across datasets: the same test rows, but trained on the tested dataset's other people
    in_domain: "Prepared | None" = None

    @property
    def folds(self) -> list[Fold]:
        """Rows to train on and rows to test on."""
        return [(split.train, split.test) for split in self.splits]

    def fold_sizes(self, people: int = 0) -> list[list[int]]:
        """Numbers of rows to train on and to test on of each fold; of the first seed, if they are
        those of some people only."""
        subjects = self.pairs.subjects
        return [
            [len(of_some_people(train, subjects, people, 0, number)), len(test)]
            for number, (train, test) in enumerate(self.folds)
        ]

    def training_folder(self, row: str, *settings: Any) -> Path:
        """Folder of a row's trainings: another one if faces, labels, folds or settings differ."""
        digest = hashlib.sha256(repr((self.key, settings)).encode())
        for array in (self.pairs.labels, *(rows for fold in self.folds for rows in fold)):
            digest.update(np.ascontiguousarray(array).tobytes())
        name = row.replace(", ", "-").replace(" ", "-")
        return self.folder / "training" / f"{name}-{digest.hexdigest()[:10]}"


@dataclass(frozen=True, kw_only=True)
class Normalized:
    """A dataset's frames that could be normalized, beside their normalized images."""

    data: FaceDataset
    pairs: Pairs
    folder: Path  # that holds the normalized faces, and their embeddings
    key: str  # of frames, normalized faces and normalizer
    counts: dict[str, Any]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the labels are about: AUs, or emotions."""
        return tuple(self.data.classes or self.data.labels)

    def embedded(self, normalizer: Normalizer, progress: bool = True) -> EmbeddedPairs:
        """The pairs as the backbone of their own normalizer sees them, which serves all tasks; made
        on its device."""
        keep = self.folder / f"embedded-{self.key}.safetensors"
        return embed(self.pairs, normalizer, progress=progress, keep=keep)


def given_pairs(
    data: FaceDataset,
    folder: Path,
    weights: str,
    given: Path,
    missing: str,
    *,
    workers: int = 0,
    progress: bool = True,
) -> Normalized:
    """The frames of a dataset beside normalized images that somebody else made.

    ``weights``: of a normalizer, whose backbone embeds faces. Errors are those of
    `norface_lib.datasets.given.load_given`.
    """
    normalizer, _, card = load_normalizer(weights)
    size = normalizer.config.encoder.image_size
    found = load_given(data, given, size, folder, missing, workers=workers, progress=progress)
    part = found.data
    subjects = part.index["subject"].to_numpy(str)
    return Normalized(
        data=part,
        pairs=Pairs(found.originals, found.normalized, part.values(), subjects),
        folder=folder,
        key=f"given-{found.key}-{card['sha256'][:16]}",
        counts=_counts(data, part, found.counts),
    )


def normalized_pairs(
    data: FaceDataset,
    folder: Path,
    weights: str,
    device: str = "auto",
    progress: bool = True,
    workers: int | None = None,
) -> Normalized:
    """Normalizes the frames of a dataset into a folder, and reads both as pairs.

    Errors are those of `Experiment.prepare`.
    """
    normalizer, _, card = load_normalizer(weights)
    workers = default_workers(device_of(device)) if workers is None else workers
    counts = normalize_dataset(
        data, folder, weights, device=device, progress=progress, workers=workers
    )
    tree = folder / target_names(card)[0]
    size = normalizer.config.encoder.image_size
    part, originals, normalized = load_pairs(
        data, tree, size, folder, progress=progress, workers=workers
    )
    subjects = part.index["subject"].to_numpy(str)
    return Normalized(
        data=part,
        pairs=Pairs(originals, normalized, part.values(), subjects),
        folder=folder,
        key=key_of(part, tree, card["sha256"]),
        counts=_counts(data, part, counts),
    )


def prepare(
    data: FaceDataset,
    *,
    out: Path,
    task: str,
    protocol_name: str,
    weights: str,
    leakage: str,
    tuning: NormalizerTraining,
    frozen: bool,
    size: int | None = None,
    given: Path | None = None,
    missing: str = "drop",
    device: str = "auto",
    progress: bool = True,
    workers: int | None = None,
) -> Prepared:
    """Normalizes the frames of a dataset, splits them, and embeds them if the backbone is frozen.

    ``given``: a folder of normalized images that are taken in place of our own, and ``missing``
    what becomes of frames without one (`norface_lib.datasets.given.load_given`).
    ``size``: pixels of the faces that the backbone takes; default: those of the normalizer.
    ``device``: of all networks; ``workers``: processes that read and write, default those of
    `norface_lib.common.devices.default_workers`.
    ``out/normalized`` holds normalized faces and embeddings, ``out/<task>`` all else. Errors are
    those of `Experiment.prepare`.
    """
    normalizer, target, card = load_normalizer(weights)
    normalizer = normalizer.to(device_of(device))
    place = Path(out) / "normalized"
    workers = default_workers(device_of(device)) if workers is None else workers
    faces = (
        normalized_pairs(data, place, weights, device, progress, workers)
        if given is None
        else given_pairs(data, place, weights, given, missing, workers=workers, progress=progress)
    )
    splits = protocol(protocol_name, faces.data.index)
    folder = Path(out) / task
    views = views_of_folds(
        faces.pairs,
        splits,
        normalizer,
        target,
        embedded=(lambda: faces.embedded(normalizer, progress)) if frozen else None,
        size=size,
        leakage=leakage,
        tuning=tuning,
        folder=folder,
        key=faces.key,
        device=device,
        progress=progress,
    )
    return Prepared(
        data=faces.data,
        pairs=faces.pairs,
        outputs=faces.outputs,
        views=views,
        splits=splits,
        normalizer=normalizer,
        target=target,
        card=card,
        counts=faces.counts,
        faces=faces.folder,
        folder=folder,
        key=f"{leakage}-{faces.key}",
        device=device,
        workers=workers,
    )


def views_of_folds(
    pairs: Pairs,
    splits: Sequence[Split],
    normalizer: Normalizer,
    target: Tensor,
    *,
    embedded: Callable[[], EmbeddedPairs] | None,
    size: int | None,
    leakage: str,
    tuning: NormalizerTraining,
    folder: Path,
    key: str,
    device: str = "auto",
    progress: bool = True,
) -> list[View]:
    """The input of each split's classifier: pairs by the normalizer that the split's leakage
    setting allows.

    ``embedded``: gives the pairs as the backbone of ``normalizer`` itself sees them; None if the
    backbone is not frozen. ``size``: pixels of the faces that it takes then; None for those of the
    normalizer. ``folder``: of fine-tuned normalizers, and of what they make of the faces, which is
    mapped into memory. ``key``: a text that is another one for other pairs.
    """
    normalizers = normalizers_of_folds(
        leakage,
        normalizer,
        [(split.train, split.test) for split in splits],
        lambda rows: Sources(to_uint8(target), faces=LazyFaces([pairs.originals], rows)),
        tuning,
        folder=folder / "normalizers",
        device=device,
        progress=progress,
    )
    of_size = partial(_of_size, size=size, folder=folder / "faces")
    views: dict[int, View] = {}
    for model in normalizers:
        if id(model) in views:
            continue
        if model is normalizer:
            views[id(model)] = of_size(pairs, key=key) if embedded is None else embedded()
            continue
        own = f"{key}-{fingerprint_of(model)}"
        drawn = _drawn(model, target, pairs.originals, size, folder / "faces", own, progress)
        view = replace(pairs, normalized=drawn)
        if embedded is None:
            views[id(model)] = of_size(view, key=key)
        else:
            keep = folder / "faces" / f"embedded-{own}.safetensors"
            views[id(model)] = embed(view, model, progress=progress, keep=keep)
    return [views[id(model)] for model in normalizers]


def _drawn(
    model: Normalizer,
    target: Tensor,
    originals: Faces,
    size: int | None,
    folder: Path,
    key: str,
    progress: bool,
) -> Faces:
    """I_n of all originals by a fine-tuned normalizer, in a file: of ``size`` px, or of the size
    that the normalizer itself reads."""
    size = size or model.config.encoder.image_size
    even = model.config.size % size == 0
    drawn = size if even else model.config.encoder.image_size
    batches = normalized_batches(model, target, originals, size=drawn, progress=progress)
    if not even:
        batches = (resized(batch, size) for batch in batches)
    return mapped(batches, len(originals), size, folder / f"normalized-{size}-{key}.npy")


def _of_size(pairs: Pairs, *, size: int | None, folder: Path, key: str) -> Pairs:
    """The pairs with smaller or larger faces, in files, or as they are."""
    if size is None:
        return pairs

    def sized(kind: str, faces: Faces) -> Faces:
        if faces.shape[1] == size:
            return faces
        path = folder / f"{kind}-{size}-{key}.npy"
        return mapped(resized_batches(faces, size), len(faces), size, path)

    return replace(
        pairs,
        originals=sized("originals", pairs.originals),
        normalized=sized("normalized", pairs.normalized),
    )


def fingerprint_of(model: Normalizer) -> str:
    """A text that is another one for other weights."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _counts(data: FaceDataset, part: FaceDataset, normalized: Mapping[str, int]) -> dict[str, Any]:
    """Numbers of frames and subjects; nothing that was dropped is silent. They are the same after
    an interruption: what an earlier call normalized counts as normalized."""
    normalized = Counter(normalized)
    normalized["normalized"] += normalized.pop("there already", 0)
    return {
        "found": data.report.found,
        "dropped_by_the_loader": data.report.dropped,
        "normalized": dict(+normalized),
        "frames": len(part),
        "not_normalized": len(data) - len(part),
        "subjects": int(part.index["subject"].nunique()),
    }
