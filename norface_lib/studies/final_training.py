"""Classifiers that are trained on all faces, to be used."""

from dataclasses import asdict
from typing import Any

import numpy as np

from norface_lib.common.devices import processes
from norface_lib.networks.weights import save_classifier
from norface_lib.studies.preparation import Prepared
from norface_lib.studies.recipes import SECOND_FACES
from norface_lib.studies.result import Result
from norface_lib.studies.second_faces import views_with
from norface_lib.training.classifier import train_classifier


def train_final(prepared: Prepared, result: Result, backbone: str, **settings: Any) -> None:
    """Trains a classifier of each row on all faces, with the first seed, and saves it beside those
    of the folds. ``settings``: ``device``, ``progress`` and ``workers``."""
    everything = np.arange(len(prepared.data))
    start = prepared.normalizer if backbone == "tuned" else None
    for name, row in result.rows.items():
        recipe = row.recipe.seeded(result.seeds[0])
        model = train_classifier(
            views_with(SECOND_FACES.get(name, "normalized"), prepared)[0],
            everything,
            row.task,
            recipe,
            start=start,
            folder=prepared.training_folder(name, backbone, row.task, row.recipe),
            name="final",
            **settings,
        )
        if not processes().is_main_process:
            continue
        about = {
            "trained_on": "all of the data",
            "cross_validated": row.as_dict(),
            "recipe": asdict(recipe),
        }
        path = prepared.folder / "weights" / f"{name}-final.safetensors"
        save_classifier(model, path, result.card() | about)
