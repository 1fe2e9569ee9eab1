"""Classifiers that are trained on all faces, to be used."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from norface_lib.common.devices import processes
from norface_lib.networks.weights import save_classifier
from norface_lib.studies.preparation import Prepared
from norface_lib.studies.recipes import SECOND_FACES
from norface_lib.studies.result import Result
from norface_lib.studies.second_faces import views_with
from norface_lib.training.classifier import train_classifier

if TYPE_CHECKING:
    from norface_lib.studies.experiment import Experiment


def train_final(
    experiment: "Experiment", prepared: Prepared, result: Result, how: dict[str, Any]
) -> None:
    """Trains a classifier of each row on all faces, and saves it beside those of the folds.
    ``how``: ``device``, ``progress`` and ``workers``."""
    everything = np.arange(len(prepared.data))
    start = prepared.normalizer if experiment.backbone == "tuned" else None
    for name, row in result.rows.items():
        recipe = row.recipe.seeded(experiment.seeds[0])
        folder = prepared.training_folder(name, experiment.backbone, row.task, row.recipe)
        model = train_classifier(
            views_with(SECOND_FACES.get(name, "normalized"), prepared)[0],
            everything,
            row.task,
            recipe,
            start=start,
            folder=folder,
            name="final",
            **how,
        )
        about = {
            "trained_on": "all of the data",
            "cross_validated": row.as_dict(),
            "recipe": asdict(recipe),
        }
        if not processes().is_main_process:
            continue
        path = prepared.folder / "weights" / f"{name}-final.safetensors"
        save_classifier(model, path, result.card() | about)
