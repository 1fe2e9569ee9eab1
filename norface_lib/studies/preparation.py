"""Data of an experiment: normalized pairs, the folds of a protocol, and embeddings."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.normalized import key_of, load_pairs, normalize_dataset
from norface_lib.datasets.pairs import EmbeddedPairs, Pairs, embed
from norface_lib.datasets.protocols import Split, protocol
from norface_lib.images.arrays import LazyFaces, to_uint8
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_normalizer, target_names
from norface_lib.studies.cross_validation import Fold
from norface_lib.training.leakage import normalizers_of_folds
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_losses import Sources


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Data that classifiers are trained and tested on."""

    data: FaceDataset  # the frames that could be normalized
    pairs: Pairs
    # for each fold, the input of its classifier: pairs, or their embeddings
    views: list[Pairs | EmbeddedPairs]
    splits: list[Split]
    normalizer: Normalizer
    card: dict[str, Any]  # of the normalizer
    counts: dict[str, Any]
    folder: Path  # of the trainings, and of all that comes of them
    key: str  # of frames, normalized faces and normalizers

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of a classifier: AUs, or emotions."""
        return tuple(self.data.classes or self.data.labels)

    @property
    def folds(self) -> list[Fold]:
        """Rows to train on and rows to test on."""
        return [(split.train, split.test) for split in self.splits]

    def training_folder(self, row: str, *settings: Any) -> Path:
        """Folder of a row's trainings: another one if faces, labels, folds or settings differ."""
        digest = hashlib.sha256(repr((self.key, settings)).encode())
        for array in (self.pairs.labels, *(rows for fold in self.folds for rows in fold)):
            digest.update(np.ascontiguousarray(array).tobytes())
        name = row.replace(", ", "-").replace(" ", "-")
        return self.folder / "training" / f"{name}-{digest.hexdigest()[:10]}"


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
    device: str = "auto",
    progress: bool = True,
) -> Prepared:
    """Normalizes the frames of a dataset, splits them, and embeds them if the backbone is frozen.

    ``out/normalized`` holds normalized faces and embeddings, ``out/<task>`` all else. Errors are
    those of `Experiment.prepare`.
    """
    normalizer, target, card = load_normalizer(weights)
    faces = Path(out) / "normalized"
    counts = normalize_dataset(data, faces, weights, device=device, progress=progress)
    tree = faces / target_names(card)[0]
    size = normalizer.config.encoder.image_size
    part, originals, normalized = load_pairs(data, tree, size, faces, progress=progress)
    subjects = part.index["subject"].to_numpy(str)
    pairs = Pairs(originals, normalized, part.values(), subjects)

    splits = protocol(protocol_name, part.index)
    folds = [(split.train, split.test) for split in splits]
    folder = Path(out) / task
    normalizers = normalizers_of_folds(
        leakage,
        normalizer,
        folds,
        lambda rows: Sources(to_uint8(target), faces=LazyFaces([pairs.originals], rows)),
        tuning,
        folder=folder / "normalizers",
        device=device,
        progress=progress,
    )
    key = key_of(part, tree, card["sha256"])
    views: dict[int, Pairs | EmbeddedPairs] = {}
    for model in normalizers:
        if id(model) in views:
            continue
        view: Pairs | EmbeddedPairs = pairs
        # the normalizer's own embeddings serve other tasks, too
        keep = faces / f"embedded-{key}.safetensors"
        if model is not normalizer:
            again = normalize_faces(model, target, pairs.originals, size=size, progress=progress)
            view = replace(pairs, normalized=again)
            keep = None
        if frozen:
            view = embed(view, model, progress=progress, keep=keep)
        views[id(model)] = view

    return Prepared(
        data=part,
        pairs=pairs,
        views=[views[id(model)] for model in normalizers],
        splits=splits,
        normalizer=normalizer,
        card=card,
        counts=_counts(data, part, counts),
        folder=folder,
        key=f"{leakage}-{key}",
    )


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
