"""Where things lie: the project's folders, and a cache keyed by settings."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder, which holds ``notebooks`` and ``results``."""

NOTEBOOKS = ROOT / "notebooks"


def runs() -> Path:
    """Folder of everything that runs write; ``NORFACE_RUNS`` names another one."""
    return Path(os.environ.get("NORFACE_RUNS", ROOT / "runs"))


def cache(name: str, **settings: Any) -> Path:
    """A folder for what these settings make, the same at each call: ``runs/cache/<name>-<hash of
    the settings>``."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return runs() / "cache" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def models(name: str) -> Path:
    """Where a network of other people is looked for: in the folder that ``NORFACE_MODELS`` names,
    else in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "norface")
    given = Path(os.environ["NORFACE_MODELS"], name) if "NORFACE_MODELS" in os.environ else None
    return given if given and given.exists() else home / name


def target_picture(first: Path, targets: Sequence[str], name: str) -> Path:
    """Where the picture of one of several targets lies: ``tiny.png`` for the first of them,
    ``tiny-ada.png`` for another."""
    return first if name == targets[0] else first.with_stem(f"{first.stem}-{name}")


def shown(path: Path) -> str:
    """A path to print: relative to the project where it lies inside, so that no output holds a
    machine's folders."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
