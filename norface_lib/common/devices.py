"""The device to compute on, and the precision that it multiplies fast."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import PartialState


def device_of(name: str = "auto") -> torch.device:
    """Device by name; ``auto`` is the CUDA device of this process if there is one, else the CPU."""
    if name != "auto":
        return torch.device(name)
    return PartialState().device if torch.cuda.is_available() else torch.device("cpu")


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """Context that computes in bfloat16 if the hardware multiplies it, else one that changes
    nothing: a CPU without such units takes many times longer."""
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
