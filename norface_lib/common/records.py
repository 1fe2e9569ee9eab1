"""Result files that say how they were made: machine, versions, leakage setting, counts."""

import json
import os
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from norface_lib.common.files import write_json
from norface_lib.common.paths import IN_CHECKOUT, ROOT


def machine() -> dict[str, Any]:
    """System, processor and GPU, without names or paths of the machine."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def peak_memory() -> float:
    """Largest memory of this process in MB: on the GPU if there is one, else main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide numbers; None for one that is not
    installed."""
    packages = ("torch", "timm", "numpy", "anny", "warp-lang", "norface")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


LEAKAGE = {
    "pretrained": "the normalizer never saw a subject of the dataset",
    "per-fold": "it was fine-tuned on the training subjects of each fold",
    "all": "it was fine-tuned on all faces without their labels, the test fold's among them, as "
    "the paper may have done",
}
"""Faces of a dataset that a normalizer may have learned from before a classifier is tested."""


def check_leakage(leakage: str) -> str:
    """Returns the setting; raises ``ValueError`` for one that is not in ``LEAKAGE``."""
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
    """Writes a result together with what a reader needs to assess and repeat it.

    ``started``: ``time.monotonic()`` at the start of the run. ``leakage``: one of ``LEAKAGE``.
    """
    content = {
        "result": result,
        "seed": seed,
        "leakage": check_leakage(leakage),
        "counts": counts,
        "settings": settings,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(peak_memory()),
        "machine": machine(),
        "versions": versions(),
    }
    return write_json(content, path)


def settings_of(**configs: Any) -> dict[str, Any]:
    """Dataclass configs as one dictionary that JSON can hold."""
    return {name: asdict(config) for name, config in configs.items()}


def check_expected(namespace: Mapping[str, Any], name: str, value: float) -> str:
    """Compares a number of a notebook with ``results/expected.json`` and returns a sentence with
    both.

    ``namespace``: the notebook's ``globals()``; ``name`` begins with the notebook's number, as in
    ``05.lab.both.mean_f1``. The sentence says "not compared" for a profile or name without an
    entry, for parameters that are not those of the entry, and outside a copy of the repository.
    Raises ``AssertionError`` if the number is farther off than the tolerance there.
    """
    if not IN_CHECKOUT:
        return f"{name} = {value:.3f} (not compared: this is no copy of the repository)"
    profile = namespace["profile"]
    content = json.loads((ROOT / "results" / "expected.json").read_text())
    expected = content["values"].get(profile, {}).get(name)
    if expected is None:
        return f"{name} = {value:.3f} (not compared: no number is expected of profile {profile})"
    for parameter, wanted in content["parameters"][profile][name.split(".")[0]].items():
        if namespace[parameter] != wanted:
            return (
                f"{name} = {value:.3f} (not compared: {parameter} is {namespace[parameter]!r}, of "
                f"profile {profile} {wanted!r})"
            )

    sentence = f"{name} = {value:.3f}, expected {expected['value']} +- {expected['tolerance']}"
    assert abs(value - expected["value"]) <= expected["tolerance"], sentence
    return sentence
