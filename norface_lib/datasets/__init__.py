"""Datasets: loaders, protocols, normalized trees and pairs; :func:`open_dataset` opens each."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from norface_lib.datasets.base import FaceDataset

DATASETS = {
    "bp4d": "bp4d.BP4D",
    "bp4d_plus": "bp4d_plus.BP4DPlus",
    "disfa": "disfa.DISFA",
    "affectnet": "affectnet.AffectNet",
    "rafdb": "rafdb.RAFDB",
    "rendered": "rendered.Rendered",
    "folder": "image_folder.FolderFaces",
}
"""Module and class of each dataset."""


def dataset_class(name: str) -> type[FaceDataset]:
    """The class of the dataset ``name``, whose ``tasks`` tell what it has labels of.

    Raises ``ValueError`` for an unknown name.
    """
    key = name.lower().replace("+", "_plus")
    if key not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    module, class_name = DATASETS[key].split(".")
    return getattr(import_module(f"norface_lib.datasets.{module}"), class_name)


def open_dataset(name: str, root: Path, **options: Any) -> FaceDataset:
    """The dataset ``name`` (one of ``DATASETS``) that lies at ``root``; ``options`` are those of
    its class, such as ``task``.

    ``bp4d+`` may be written for ``bp4d_plus``. Raises ``ValueError`` for an unknown name or option,
    and :class:`norface_lib.common.errors.DataError` if the folder does not hold that dataset.
    """
    dataset = dataset_class(name)
    known = [option for option in signature(dataset).parameters if option != "root"]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"{dataset.title} has no option {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return dataset(root, **options)
