"""Faces of a folder through the whole road: normalized, laid out on a sheet to look at, and read by
the AU detector."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from norface_lib import labels
from norface_lib.common.files import write_table
from norface_lib.datasets.image_folder import ImageFolder, load_folder
from norface_lib.faces.benchmark import POOLS, VERSION, BenchmarkSpec, face_of, subject_name
from norface_lib.faces.sampling import sample_frame
from norface_lib.faces.studio import Studio
from norface_lib.images.files import write_png
from norface_lib.images.sheets import contact_sheet
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.studies.photo_measures import smiling_of
from norface_lib.tasks.metrics import auc
from norface_lib.tasks.tasks import Detection
from norface_lib.training.classifier import predict

SMILING, NEUTRAL = "smile", "neutral"
"""Values of the column ``expression`` of a folder's ``labels.csv``."""


@dataclass(frozen=True)
class Reading:
    """What the networks made of a folder: normalized faces, AU probabilities, and the AUC of AU12
    for smiles if labeled."""

    folder: ImageFolder
    normalized: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    smile_auc: float | None

    def as_dict(self) -> dict[str, object]:
        """For a result file."""
        return {
            "faces": len(self.folder),
            "crop": self.folder.crop.name,
            "smile_auc": self.smile_auc,
        }


def read_folder(
    root: Path,
    normalizer: Normalizer,
    target: Tensor,
    detectors: list[Classifier],
    progress: bool = False,
) -> Reading:
    """Normalizes and reads all faces of a folder; the detectors' probabilities are averaged. Errors
    as of ``load_folder``."""
    folder = load_folder(root, normalizer.config.encoder.image_size, progress)
    normalized = normalize_faces(normalizer, target, folder.faces, progress=progress)
    task = Detection(detectors[0].config.labels)
    probabilities = np.mean(
        [predict(detector, folder.faces, normalized, task) for detector in detectors], axis=0
    )
    return Reading(
        folder,
        normalized,
        probabilities,
        _smile_auc(folder, probabilities, detectors[0].config.labels),
    )


def _smile_auc(
    folder: ImageFolder, probabilities: NDArray[np.float32], names: tuple[str, ...]
) -> float | None:
    """How well the AU12 output separates smiling from neutral faces; None if the folder does not
    say who smiles."""
    if folder.table is None or "expression" not in folder.table.columns:
        return None
    rows, smiling = smiling_of(folder.table)
    if len(set(smiling)) < 2:
        return None
    return auc(probabilities[rows, names.index(labels.au_column(12))], smiling)


def write_sheet(reading: Reading, path: Path, columns: int = 12) -> Path:
    """A contact sheet (PNG): each row of originals over its row of normalized faces."""
    write_png(path, contact_sheet([reading.folder.faces, reading.normalized], columns))
    return Path(path)


def write_smiles(root: Path, subjects: int = 24, size: int = 112, seed: int = 0) -> Path:
    """Renders faces of the ``evaluator`` pool, each once neutral and once smiling, as a folder of
    aligned faces with labels."""
    root = Path(root)
    if (root / "labels.csv").exists():
        return root
    root.mkdir(parents=True, exist_ok=True)
    spec = BenchmarkSpec(pool="evaluator", subjects=subjects, frames=1, size=size, seed=seed)
    studio, rows = Studio(size), []
    for number in range(subjects):
        name = subject_name("evaluator", number)
        face = face_of(spec, number)
        for expression, intensities in ((NEUTRAL, {}), (SMILING, {12: 3.0, 6: 2.0})):
            rng = np.random.default_rng(
                [VERSION, POOLS.index("evaluator"), seed, number, len(intensities)]
            )
            frame = replace(sample_frame(rng), left=intensities, right=intensities)
            image = f"{name}_{expression}.jpg"
            cv2.imwrite(str(root / image), studio.original(face, frame, rng)[..., ::-1])
            rows.append({"image": image, "subject": name, "expression": expression})
    write_table(pd.DataFrame(rows), root / "labels.csv")
    return root
