"""Packages that only some need are loaded by what needs them, and not with the library."""

import subprocess
import sys

LIBRARY = (
    *("networks.weights", "networks.frozen", "networks.inference", "networks.pretrained"),
    *("photos.folders", "photos.landmarker", "photos.prediction", "photos.pseudo_pairs"),
    *("photos.dataset_points", "photos.sources"),
)
LATER = (
    *("onnx", "onnx2torch", "onnxruntime", "insightface", "ai_edge_litert"),
    *("matplotlib", "IPython", "sklearn"),
)


def test_networks_and_photos_load_without_packages_that_only_some_need():
    names = ", ".join(f"norface_lib.{name}" for name in LIBRARY)
    code = f"import sys, {names}; print([name for name in {LATER!r} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert loaded.strip() == "[]"
