"""Installs PyTorch's CPU build where that is enough, and says which build is taken.

The default build for Linux brings 4.6 GB of CUDA libraries. Without an NVIDIA GPU they are never
used, so both packages of the pinned pair are taken from PyTorch's own index if it can be reached;
else nothing is installed here, and `pip install -r requirements.txt` takes the default build.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/cpu"
CUDA = "PyTorch's default build, with CUDA (4.6 GB)"
CPU = "PyTorch's CPU build (0.2 GB)"


def pinned() -> dict[str, str]:
    """Versions of torch and torchvision in requirements.txt."""
    text = Path(__file__).parents[1].joinpath("requirements.txt").read_text()
    return dict(re.findall(r"^(torch|torchvision)==(\S+)", text, re.MULTILINE))


def installed(name: str) -> str:
    """Version of a package, such as ``2.12.1+cpu``; empty if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def pair_is_there(pins: dict[str, str]) -> bool:
    """True if both packages are installed as pinned, and both as the same build."""
    numbers = [installed(name).partition("+") for name in pins]
    same_build = len({build for _, _, build in numbers}) == 1
    return same_build and [number for number, _, _ in numbers] == list(pins.values())


def pip(*arguments: str) -> bool:
    """Runs pip in this environment, without its output; True if it succeeded."""
    call = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(call, capture_output=True).returncode == 0


def main() -> None:
    """Installs the CPU build if it suits this machine, and prints one sentence."""
    pins = pinned()
    if pair_is_there(pins) or platform.system() != "Linux":
        return
    if shutil.which("nvidia-smi") or os.path.exists("/dev/nvidiactl"):
        print(f"This machine has an NVIDIA GPU: {CUDA}")
        return

    print(f"No NVIDIA GPU here: looking for {CPU}", flush=True)
    pair = [f"{name}=={number}+cpu" for name, number in pins.items()]
    quick = ("--retries", "0", "--timeout", "15")  # for an index that cannot be reached
    if pip("install", "--no-deps", *quick, "--extra-index-url", INDEX, *pair):
        print(f"Took {CPU}")
        return
    pip("uninstall", "--yes", *pins)  # never one package of each build
    print(f"No index that can be reached has it: {CUDA}")


if __name__ == "__main__":
    main()
