"""Norface (ECCV 2024): faces normalized to one identity, and read for facial expressions.

    import norface_lib as norface

    table = norface.predict("me.jpg", "out")             # AUs, intensities, emotion: a row per face
    norface.normalize("photographs", "out", detector="mediapipe", weights="tiny-photo")
    normalizer, target, card = norface.load_normalizer("tiny-photo")
    data = norface.open_dataset("disfa", "/your/DISFA")  # an index of frames, labels and subjects
    folds = norface.protocol("disfa/3fold", data.index)
    experiment = norface.Experiment(task="au_detection", data="disfa", root="/your/DISFA")

- ``predict``: reads the faces of an image, a video or a folder into a table.
- ``normalize``: writes the normalized images of a folder or a dataset into a mirror tree.
- ``load_normalizer``, ``load_classifier``: trained networks by shipped name or path.
- ``Normalizer``, ``Classifier``: the paper's two networks, as ``torch.nn.Module``.
- ``open_dataset``: BP4D, BP4D+, DISFA, AffectNet, RAF-DB, rendered faces, or a folder of images.
- ``protocol``: the folds or the official split by which a dataset is used.
- ``Experiment``: the settings of a cross-validation, as ``python -m norface_lib train`` runs it.

Each name is imported when it is first used, so that ``import norface_lib`` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from norface_lib.datasets import open_dataset
    from norface_lib.datasets.protocols import protocol
    from norface_lib.networks.classifier import Classifier
    from norface_lib.networks.normalizer import Normalizer
    from norface_lib.networks.weights import load_classifier, load_normalizer
    from norface_lib.photos.whole_folders import normalize, predict
    from norface_lib.studies.experiment import Experiment

__all__ = [
    "Classifier",
    "Experiment",
    "Normalizer",
    "load_classifier",
    "load_normalizer",
    "normalize",
    "open_dataset",
    "predict",
    "protocol",
]

_MODULES = {
    "Classifier": "networks.classifier",
    "Experiment": "studies.experiment",
    "Normalizer": "networks.normalizer",
    "load_classifier": "networks.weights",
    "load_normalizer": "networks.weights",
    "normalize": "photos.whole_folders",
    "open_dataset": "datasets",
    "predict": "photos.whole_folders",
    "protocol": "datasets.protocols",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
