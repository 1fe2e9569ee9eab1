"""Findings of `doctor`: each thing that was looked at, its state, and the cure if it is missing."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from norface_lib.cli.requirements import CORE, EXTRAS, FOLDERS, SETTINGS
from norface_lib.common.errors import NorfaceError
from norface_lib.common.paths import IN_CHECKOUT, models, no_folder, runs, user_cache

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. ``essential``: without it nothing works."""

    section: str
    name: str
    state: State
    text: str
    cure: str = ""
    essential: bool = False


def examine() -> Iterator[Finding]:
    """All findings, section by section."""
    yield from _versions()
    yield from _devices()
    yield from _extras()
    yield from _models()
    yield from _weights()
    yield from _caches()
    yield from _environment()


def _versions() -> Iterator[Finding]:
    python = platform.python_version()
    enough = sys.version_info >= (3, 11)
    yield Finding(
        section="versions",
        name="python",
        state="ok" if enough else "broken",
        text=f"{python} ({platform.system()}, {platform.machine()})",
        cure="" if enough else "norface needs Python 3.11 or newer",
        essential=True,
    )
    where = "a copy of the repository" if IN_CHECKOUT else "an installed package"
    yield Finding(
        section="versions", name="norface", state="ok", text=f"{_version('norface')}, {where}"
    )
    for module, package in CORE.items():
        problem = _import_problem(module)
        yield Finding(
            section="versions",
            name=package,
            state="broken" if problem else "ok",
            text=problem or _version(package),
            cure=f"pip install --force-reinstall {package}" if problem else "",
            essential=True,
        )


def _import_problem(module: str) -> str:
    """The reason why a module cannot be imported, or an empty text."""
    try:
        import_module(module)
    except Exception as error:  # a broken package may raise anything
        return f"cannot be imported ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "no version known"


def _devices() -> Iterator[Finding]:
    try:
        import torch

        from norface_lib.common.devices import available_devices
        from norface_lib.common.records import machine
    except Exception:  # said above
        return
    about = machine()
    threads = f"{torch.get_num_threads()} threads of {about['cores']} cores"
    for name in available_devices():
        text = f"{about['processor']}, {threads}"
        if name.startswith("cuda"):
            properties = torch.cuda.get_device_properties(name)
            text = f"{properties.name}, {_size(properties.total_memory)}"
        yield Finding(section="devices", name=name, state="ok", text=text)
    if not torch.cuda.is_available():
        yield Finding(
            section="devices",
            name="cuda",
            state="missing",
            text="no GPU that this build of PyTorch can use",
            cure="nothing is needed: all runs on the CPU; for a GPU install its driver and "
            "PyTorch's CUDA build",
        )


def _extras() -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        missing = [package for module, package in packages.items() if find_spec(module) is None]
        yield Finding(
            section="extras",
            name=extra,
            state="missing" if missing else "ok",
            text=f"lacks {', '.join(missing)}" if missing else "installed",
            cure=f'pip install "norface[{extra}]"' if missing else "",
        )


def _models() -> Iterator[Finding]:
    """Networks of other people: MediaPipe's landmarker, insightface's detector and recognizer."""
    try:
        from norface_lib.networks.frozen import ARCFACE_FILE
        from norface_lib.photos.detection import INSIGHTFACE_PACK, LANDMARKER_FILE
        from norface_lib.photos.landmarker import read_networks
    except Exception:  # said above
        return
    section = "networks of other people"
    path = models(LANDMARKER_FILE)
    cure = "" if path.is_file() else f"the first `align` downloads it (3.8 MB) to {path}"
    problem = "" if path.is_file() else "not there"
    if path.is_file():
        try:
            read_networks(path)
        except NorfaceError as error:
            problem, cure = str(error), f"delete {path}; the first `align` downloads it again"
    yield Finding(
        section=section,
        name="MediaPipe's landmarker",
        state="ok" if not problem else "broken" if path.is_file() else "missing",
        text=problem or f"{path}, SHA-256 as expected",
        cure=cure,
    )

    home = Path.home()
    pack = models(INSIGHTFACE_PACK)
    pack = pack if pack.is_dir() else home / ".insightface" / "models" / INSIGHTFACE_PACK
    for name, path, use in (
        ("insightface's detector", pack, "`--detector insightface` downloads it (280 MB)"),
        ("insightface's recognizer", home / ARCFACE_FILE, "it comes with insightface's detector"),
    ):
        there = path.exists()
        yield Finding(
            section=section,
            name=name,
            state="ok" if there else "missing",
            text=str(path) if there else "not there; only some options need it",
            cure="" if there else use,
        )


def _weights() -> Iterator[Finding]:
    """Shipped weights and those of ``NORFACE_WEIGHTS``, each loaded, so that hashes are checked."""
    try:
        from norface_lib.networks import weights
    except Exception:  # said above
        return
    loaders = {
        "normalizer": weights.load_normalizer,
        "classifier": weights.load_classifier,
        "evaluator": weights.load_evaluator,
    }
    folders = {weights.FOLDER: True}
    if "NORFACE_WEIGHTS" in os.environ:
        folders[Path(os.environ["NORFACE_WEIGHTS"])] = False

    for folder, shipped in folders.items():
        paths = sorted(folder.glob("*.safetensors"))
        if shipped and not paths:
            yield Finding(
                section="weights",
                name="shipped weights",
                state="broken",
                text=f"none in {folder}",
                cure="install norface again",
                essential=True,
            )
        for path in paths:
            problem = _weights_problem(path, loaders)
            yield Finding(
                section="weights",
                name=path.stem,
                state="broken" if problem else "ok",
                text=problem or f"{_size(path.stat().st_size)}, hashes hold",
                cure=("install norface again" if shipped else "fetch or train it again")
                if problem
                else "",
                essential=shipped,
            )


def _weights_problem(path: Path, loaders: dict[str, Callable[[Path], Any]]) -> str:
    """The reason why weights cannot be loaded, or an empty text."""
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        loaders[card["kind"]](path)
    except (NorfaceError, OSError, ValueError, KeyError, TypeError) as error:
        return str(error) if isinstance(error, NorfaceError) else "its card is missing or damaged"
    return ""


def _caches() -> Iterator[Finding]:
    """Folders that runs and downloads fill, and the disks that they lie on."""
    networks = user_cache() / "norface"
    kernels = os.environ.get("WARP_CACHE_PATH") or user_cache() / "warp"
    folders = {
        "runs": (runs(), "delete it to free space; results of yours are lost with it"),
        "cache of runs": (runs() / "cache", "may be deleted: it is made again"),
        "downloaded networks": (networks, "may be deleted: they are downloaded again"),
        "rendering kernels": (Path(kernels), "may be deleted: they are compiled again"),
    }
    for name, (folder, remark) in folders.items():
        size = _size_of(folder)
        yield Finding(
            section="caches and disks",
            name=name,
            state="ok",
            text=f"{folder}: {_size(size) if size else 'empty'}",
            cure=remark if size > _LARGE else "",
        )
    disks = {}
    for folder in (runs(), networks, Path.cwd()):
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        disks.setdefault(place.stat().st_dev, place)
    for place in disks.values():
        free = shutil.disk_usage(place).free
        writable = os.access(place, os.W_OK)
        enough = free > _LITTLE and writable
        yield Finding(
            section="caches and disks",
            name="disk",
            state="ok" if enough else "broken",
            text=f"{place}: {_size(free)} free" + ("" if writable else ", cannot be written to"),
            cure="" if enough else "free some space, or name another folder with NORFACE_RUNS",
        )


_LARGE = 1 << 30
_LITTLE = 1 << 30


def _size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:  # deleted meanwhile
                continue
    return total


def _size(count: int) -> str:
    """Bytes for people to read."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _environment() -> Iterator[Finding]:
    """Environment variables: those that are set, and what the others would do."""
    for name, meaning in FOLDERS.items():
        value = os.environ.get(name)
        lost = value is not None and not Path(value).is_dir() and name != "NORFACE_RUNS"
        yield Finding(
            section="environment variables",
            name=name,
            state="missing" if lost else "ok",
            text=f"{value}{f': {no_folder(Path(value))}' if lost else ''}"
            if value is not None
            else f"not set ({meaning})",
            cure="create that folder, or unset the variable" if lost else "",
        )
    for name, meaning in SETTINGS.items():
        value = os.environ.get(name)
        text = f"not set ({meaning})" if value is None else value
        yield Finding(section="environment variables", name=name, state="ok", text=text)
