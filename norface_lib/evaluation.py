"""Normalizing arrays of faces, how far they are from the truth, and result files that say how they were made."""

import json
import os
import platform
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from norface_lib.files import write_json
from norface_lib.images import to_tensor, to_uint8
from norface_lib.normalizer import Normalizer
from norface_lib.paths import ROOT

Faces = NDArray[np.uint8]
"""(N, S, S, 3) RGB of 8 bits."""

# --- normalized faces ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def normalize_faces(
    model: Normalizer,
    target: Tensor,
    faces: Faces,
    batch_size: int = 64,
    progress: bool = False,
    which: NDArray[np.intp] | None = None,
) -> Faces:
    """I_n of many faces, same shape as ``faces``, for one target (1, 3, S, S), whose features are computed once.

    With several targets (K, 3, S, S), ``which`` (N,) says which of them each face gets.
    """
    device = next(model.parameters()).device
    prepared = model.target(target.to(device))
    drawn = np.empty_like(faces)
    starts = range(0, len(faces), batch_size)
    for start in tqdm(starts, desc="normalize", unit="batch", disable=not progress, leave=False):
        rows = slice(start, start + batch_size)
        images = to_tensor(faces[rows]).to(device)
        wanted = prepared if which is None else prepared.of(torch.from_numpy(which[rows]).to(device))
        drawn[rows] = to_uint8(model.draw(model.encoder(images), wanted))
    return drawn


def distance_to(truths: Faces, drawn: Faces) -> NDArray[np.float64]:
    """(N,) mean absolute difference of each face to its true normalized image, in units of the full range, 0..1."""
    return np.array([np.abs(d.astype(np.int16) - t).mean() / 255 for d, t in zip(drawn, truths, strict=True)])


def neutral_ratio(truths: Faces, drawn: Faces, target: NDArray[np.uint8]) -> float:
    """Distance of I_n to the true I_n, relative to that of the bare target face (S, S, 3): 0 is perfect, 1 moves nothing."""
    bare = np.broadcast_to(target, truths.shape)
    return float(distance_to(truths, drawn).mean() / distance_to(truths, bare).mean())


REGIONS = {"brows": (0.22, 0.36), "eyes": (0.36, 0.47), "mouth": (0.60, 0.86)}
"""Bands of rows of the crop, as shares of its height, in which brows, lids and mouth move."""


def region_ratios(truths: Faces, drawn: Faces, target: NDArray[np.uint8]) -> dict[str, float]:
    """:func:`neutral_ratio` within each of ``REGIONS`` (the middle 70 % of the width)."""
    size = truths.shape[1]
    side = slice(round(0.15 * size), round(0.85 * size))
    bands = {name: slice(round(top * size), round(bottom * size)) for name, (top, bottom) in REGIONS.items()}
    return {
        name: neutral_ratio(truths[:, rows, side], drawn[:, rows, side], target[rows, side]) for name, rows in bands.items()
    }


# --- result files -------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What this ran on, without names or paths of the machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count(), "gpu": gpu}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def peak_memory() -> float:
    """MB that this process has taken at most: on the GPU if there is one, else in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def versions() -> dict[str, str]:
    """Python and the packages that decide numbers."""
    packages = ("torch", "timm", "numpy", "anny", "warp-lang", "norface")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


LEAKAGE = {
    "pretrained": "the normalizer never saw a subject of the dataset",
    "per-fold": "it was fine-tuned on the training subjects of each fold",
    "all": "it was fine-tuned on all faces without their labels, the test fold's among them, as the paper may have done",
}
"""Which faces of a dataset a normalizer may have learned from before a classifier is tested on it."""


def check_leakage(leakage: str) -> str:
    """The setting itself. Raises ``ValueError`` for one that is not in ``LEAKAGE``."""
    if leakage not in LEAKAGE:
        raise ValueError(f"leakage must be one of {', '.join(LEAKAGE)}, got {leakage!r}")
    return leakage


def write_result(
    path: Path,
    result: dict[str, Any],
    *,
    seed: int | Sequence[int],
    started: float,
    counts: dict[str, int],
    leakage: str,
    settings: dict[str, Any],
) -> Path:
    """Writes a result with all that is needed to judge it.

    ``started``: ``time.monotonic()`` at the start of the run. ``leakage``: one of ``LEAKAGE``.
    """
    head = {
        "seed": seed,
        "leakage": check_leakage(leakage),
        "counts": counts,
        "settings": settings,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(peak_memory()),
    }
    return write_json({"result": result} | head | {"machine": machine(), "versions": versions()}, path)


def settings_of(**configs: Any) -> dict[str, Any]:
    """Dataclass configs as one JSON-ready dictionary."""
    return {name: asdict(config) for name, config in configs.items()}


def check_expected(profile: str, name: str, value: float) -> str:
    """Compares a number with ``results/expected.json`` and says how it stands.

    Raises ``AssertionError`` if it is farther off than the tolerance there. A profile or name without an entry is not compared.
    """
    entry = json.loads((ROOT / "results" / "expected.json").read_text()).get(profile, {}).get(name)
    if entry is None:
        return f"{name} = {value:.3f} (nothing to compare with for profile {profile})"
    off = value - entry["value"]
    assert abs(off) <= entry["tolerance"], f"{name} = {value:.3f}, expected {entry['value']} +- {entry['tolerance']}"
    return f"{name} = {value:.3f}, expected {entry['value']} +- {entry['tolerance']}"
