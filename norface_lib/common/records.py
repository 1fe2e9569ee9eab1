"""Normalizing arrays of faces, how far they are from the truth, and result files that say how they
were made."""

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

import torch

from norface_lib.common.files import write_json
from norface_lib.common.paths import ROOT


def machine() -> dict[str, Any]:
    """What this ran on, without names or paths of the machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
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
"""Which faces of a dataset a normalizer may have learned from before a classifier is tested on it.
"""


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
    return write_json(
        {"result": result} | head | {"machine": machine(), "versions": versions()}, path
    )


def settings_of(**configs: Any) -> dict[str, Any]:
    """Dataclass configs as one JSON-ready dictionary."""
    return {name: asdict(config) for name, config in configs.items()}


def check_expected(profile: str, name: str, value: float) -> str:
    """Compares a number with ``results/expected.json`` and says how it stands.

    Raises ``AssertionError`` if it is farther off than the tolerance there. A profile or name
    without an entry is not compared.
    """
    entry = json.loads((ROOT / "results" / "expected.json").read_text()).get(profile, {}).get(name)
    if entry is None:
        return f"{name} = {value:.3f} (nothing to compare with for profile {profile})"
    off = value - entry["value"]
    assert abs(off) <= entry["tolerance"], (
        f"{name} = {value:.3f}, expected {entry['value']} +- {entry['tolerance']}"
    )
    return f"{name} = {value:.3f}, expected {entry['value']} +- {entry['tolerance']}"
