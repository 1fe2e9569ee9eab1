"""The device to compute on, and the precision that it multiplies fast."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import PartialState

from norface_lib.common.errors import DataError


def device_of(name: str = "auto") -> torch.device:
    """Device by name; ``auto`` is the CUDA device of this process if there is one, else the CPU.

    Raises :class:`DataError`, listing the devices that are there, for any other name.
    """
    if name == "auto":
        return PartialState().device if torch.cuda.is_available() else torch.device("cpu")

    devices = available_devices()
    if name not in devices and not (name == "cuda" and "cuda:0" in devices):
        raise DataError(
            f"no device {name!r} on this machine; there are {', '.join(devices)}, and auto, which "
            "takes the best of them"
        )
    return torch.device(name)


def available_devices() -> list[str]:
    """Names of the devices of this machine that networks can run on, the CPU first."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{number}" for number in range(gpus)), *apple]


def mixed_precision(device: torch.device, wanted: bool | None = None) -> AbstractContextManager:
    """Context that computes in bfloat16, or one that changes nothing.

    ``wanted``: None for what suits the hardware: a CPU without units that multiply bfloat16 takes
    many times longer.
    """
    if wanted is not None:
        return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    fast = torch.backends.mkldnn.is_available() and _cpu_has_bf16_units()
    return torch.autocast("cpu", torch.bfloat16) if fast else nullcontext()


def _cpu_has_bf16_units() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
