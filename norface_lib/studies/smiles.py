"""Smiles in a folder of aligned faces, by the AU12 that `predict_tree` reads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_table
from norface_lib.common.paths import inside
from norface_lib.datasets.text_tables import match_names, read_named, some
from norface_lib.faces.benchmark import POOLS, VERSION, BenchmarkSpec, face_of, subject_name
from norface_lib.faces.sampling import sample_frame
from norface_lib.faces.studio import Studio
from norface_lib.images.crop import ALIGNED, crop_of
from norface_lib.images.files import read_faces, write_png
from norface_lib.images.sheets import contact_sheet
from norface_lib.photos.detection import WholeImage
from norface_lib.photos.prediction import predict_tree
from norface_lib.photos.readings import PREDICTIONS, read_predictions
from norface_lib.photos.tables import FACES
from norface_lib.studies.photo_measures import SMILING as EXPRESSIONS
from norface_lib.studies.photo_measures import smiling_of
from norface_lib.tasks.metrics import auc

SMILING, NEUTRAL = "smile", "neutral"
"""Values of the column ``expression`` of a folder's ``labels.csv``."""

SHEET_SIZE = 112
"""Pixels of a face on a sheet."""


def read_smiles(
    root: Path, out: Path, *, sheet: Path, readers: Sequence[str], weights: str = "tiny"
) -> dict[str, Any]:
    """Reads a folder of aligned faces into ``out``, and writes a ``sheet`` (PNG) of originals over
    normalized faces.

    ``readers``: weights of AU detectors, whose AU12 is averaged. ``smile_auc``: how well that tells
    smiling from neutral faces, None if that is not known; ``smile_labels`` says of how many faces
    it is known, and why not of others. Errors as of
    `norface_lib.photos.prediction.predict_tree`, and :class:`DataError` for a ``labels.csv`` that
    names none of the faces.
    """
    root = Path(root)
    out = Path(out)
    predict_tree(root, out, WholeImage(), readers=readers, weights=weights, progress=False)
    table = read_predictions(out / PREDICTIONS)
    table = table[table["status"] == ALIGNED]
    # a column for each reader: AU12 of one, first.AU12 and second.AU12 of two
    of_readers = table.filter(regex=rf"(^|\.){labels.au_column(12)}$")
    scores = pd.Series(of_readers.mean(axis=1).to_numpy(), table["source"])

    faces = pd.read_csv(out / "aligned" / FACES)
    names = faces.loc[faces["status"] == ALIGNED, "output"]
    rows = [
        read_faces([inside(out / kind, name) for name in names], SHEET_SIZE)
        for kind in ("aligned", "normalized")
    ]
    write_png(sheet, contact_sheet(rows))
    smile_auc, smile_labels = _smile_auc(root / "labels.csv", scores)
    return {
        "faces": len(table),
        "crop": crop_of(root).name,
        "smile_auc": smile_auc,
        "smile_labels": smile_labels,
    }


def _smile_auc(path: Path, scores: pd.Series) -> tuple[float | None, str]:
    """AUC of scores, by image, for smiling against neutral faces, None where there are not both;
    and what is known of how many faces.

    Raises :class:`DataError` if the table names none of the images.
    """
    if not path.is_file():
        return None, f"there is no {path.name}"
    table = read_named(path)
    if "expression" not in table.columns:
        return None, f"{path.name} has no column expression"

    files = match_names(table["image"], scores.index)
    unmatched = [name for name in table["image"] if name not in files]
    if not files:
        raise DataError(
            f"{path}: names none of the {len(scores)} faces, but {some(unmatched)}; faces are "
            f"called {some(list(scores.index))}: name them so in the column image"
        )
    expressions = table["expression"].str.casefold()
    expression_of = dict(zip(table["image"].map(files), expressions, strict=True))
    known = pd.DataFrame({"expression": [expression_of.get(name, "") for name in scores.index]})
    rows, smiling = smiling_of(known)

    labeled = f"{int(smiling.sum())} smiling, {int((~smiling).sum())} neutral"
    others = sorted(set(expressions) - set(EXPRESSIONS))
    again = sorted(table["image"][table["image"].map(files).duplicated(keep=False)])
    twice = [name for name in again if name in files]
    unlabeled = [name for name in scores.index if name not in expression_of]
    for what, names in (
        ("values of expression that are neither", others),
        ("names without a face", unmatched),
        ("rows of faces that are listed twice, of which the last counts", twice),
        ("faces without a label", unlabeled),
    ):
        if names:
            labeled += f"; {len(names)} {what}: {some(names)}"
    if len(set(smiling)) < 2:
        return None, labeled
    return auc(scores.to_numpy()[rows], smiling), labeled


def write_smiles(root: Path, subjects: int = 24, size: int = 112, seed: int = 0) -> Path:
    """Renders faces of the ``evaluator`` pool, each once neutral and once smiling, as a folder of
    aligned faces with labels."""
    root = Path(root)
    if (root / "labels.csv").exists():
        return root
    root.mkdir(parents=True, exist_ok=True)
    spec = BenchmarkSpec(pool="evaluator", subjects=subjects, frames=1, size=size, seed=seed)
    studio = Studio(size)
    rows = []
    for number in range(subjects):
        name = subject_name("evaluator", number)
        face = face_of(spec, number)
        for expression, intensities in ((NEUTRAL, {}), (SMILING, {12: 3.0, 6: 2.0})):
            rng = np.random.default_rng(
                [VERSION, POOLS.index("evaluator"), seed, number, len(intensities)]
            )
            frame = replace(sample_frame(rng), left=intensities, right=intensities)
            image = f"{name}_{expression}.jpg"
            original = studio.original(face, frame, rng)
            cv2.imwrite(str(root / image), original[..., ::-1])
            rows.append({"image": image, "subject": name, "expression": expression})
    write_table(pd.DataFrame(rows), root / "labels.csv")
    return root
