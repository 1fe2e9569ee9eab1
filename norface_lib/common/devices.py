"""The device to compute on, and the precision that it multiplies fast."""

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

import joblib
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from norface_lib.common.errors import DataError


def device_of(name: str = "auto") -> torch.device:
    """Device by name; ``cuda`` is the CUDA device of this process, ``auto`` likewise if there is
    one, else the CPU. On CUDA, float32 is multiplied as TF32 from here on.

    Raises :class:`DataError`, listing the devices that are there, for any other name.
    """
    devices = available_devices()
    here = "cuda:0" in devices
    if name == "auto":
        name = "cuda" if here else "cpu"
    if name not in devices and not (name == "cuda" and here):
        raise DataError(
            f"no device {name!r} on this machine; there are {', '.join(devices)}, and auto, which "
            "takes the best of them"
        )
    device = processes().device if name == "cuda" else torch.device(name)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    return device


def processes() -> PartialState:
    """This process among those that run the same command, as ``accelerate launch`` and ``torchrun``
    start them; a process that was started otherwise is the first of one.

    They wait for each other for up to a day: one of them may read a whole dataset meanwhile.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return PartialState()
    cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    return PartialState(cpu=cpu, timeout=timedelta(days=1))


def default_workers(device: torch.device) -> int:
    """Processes that read and write for a device unless a number is given: none for a CPU, where
    the networks need the cores; for a CUDA device the cores of this process's share of the machine,
    up to 16."""
    if device.type != "cuda":
        return 0
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, joblib.cpu_count() // beside))


def available_devices() -> list[str]:
    """Names of the devices of this machine that networks can run on, the CPU first."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{number}" for number in range(gpus)), *apple]


def seed_generators(seed: int) -> None:
    """Seeds the generators of this machine's devices, as ``torch.manual_seed`` does. That one also
    keeps a stack trace at each call for devices that are not there: a millisecond, and memory."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


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


def evaluation_precision(device: torch.device) -> AbstractContextManager:
    """Context in which a trained network is used: bfloat16 on a CUDA device; elsewhere nothing
    changes, so that numbers do not depend on the kind of a CPU."""
    return mixed_precision(device, device.type == "cuda")


def _cpu_has_bf16_units() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
