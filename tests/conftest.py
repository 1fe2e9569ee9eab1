"""Shared fixtures: a tiny rendered benchmark, made once, and settings that make runs alike."""

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")  # before any test imports matplotlib

import pytest
from hypothesis import settings

# a slow machine is no failure; the same inputs each time
settings.register_profile("norface", deadline=None, derandomize=True)
settings.load_profile("norface")


FIRST = ("test_notebooks.py", "test_browser.py", "test_photographs.py", "test_real_faces.py")
"""Files that take longest: begun first, so that no process waits for another at the end."""


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def tiny_spec():
    """Four subjects of the benchmark pool with three frames each, at 112 px."""
    from norface_lib.faces.benchmark import BenchmarkSpec

    return BenchmarkSpec(pool="lab", subjects=4, frames=3, size=112, seed=0)


@pytest.fixture(scope="session")
def tiny_benchmark(tiny_spec, tmp_path_factory):
    """Folder of the rendered ``tiny_spec``, made by two processes. Shared by all tests: read it, or
    copy it first."""
    from norface_lib.faces.writing import write_benchmark

    return write_benchmark(
        tiny_spec, tmp_path_factory.mktemp("tiny") / "benchmark", workers=2, progress=False
    )


@pytest.fixture(scope="session")
def head():
    """The head model of this process."""
    from norface_lib.faces.head import head_model

    return head_model()


@pytest.fixture(scope="session")
def studio():
    """A studio of 112 px that draws the default target face."""
    from norface_lib.faces.studio import Studio

    return Studio(112)


@pytest.fixture(scope="session")
def landmarker():
    """The detector `mediapipe` with the networks of `NORFACE_MODELS`."""
    from norface_lib.photos.detection import LANDMARKER_FILE, open_detector

    pytest.importorskip("ai_edge_litert", reason="pip install ai-edge-litert")
    path = Path(os.environ.get("NORFACE_MODELS", ""), LANDMARKER_FILE)
    if "NORFACE_MODELS" not in os.environ or not path.is_file():
        pytest.skip(f"NORFACE_MODELS names no folder with {LANDMARKER_FILE}")
    return open_detector("mediapipe", path)


@pytest.fixture(scope="session")
def portrait():
    """(512, 512, 3): a photograph of an astronaut, public domain, which scikit-image ships."""
    return pytest.importorskip("skimage.data").astronaut()
