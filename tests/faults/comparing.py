"""Comparison of a run's files and words with those of a clean run."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.running import Outcome

VOLATILE = {"seconds", "peak_memory_mb", "images_per_second", "machine", "versions"}
"""Entries of result files that no two runs share."""


@dataclass
class Faults:
    """What is lost and what is wrong after some tries: a sentence for each faulty try."""

    tries: int = 1
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Faults") -> None:
        """Adds the faults of the same try."""
        self.lost += other.lost
        self.wrong += other.wrong

    def merged(self) -> "Faults":
        """The faults of one try with a sentence of each kind at most."""
        return Faults(
            lost=["; ".join(self.lost)] if self.lost else [],
            wrong=["; ".join(self.wrong)] if self.wrong else [],
        )


Snapshot = dict[str, str | list[str]]
"""Content of a folder: a hash for each file, the lines of tables and logs."""


def snapshot(folder: Path) -> Snapshot:
    """Content of a folder without what may differ: hidden files, checkpoints, times."""
    content: Snapshot = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and path.suffix != ".ckpt":
            content[name.as_posix()] = _content(path)
    return content


def _content(path: Path) -> str | list[str]:
    if path.suffix == ".csv":
        return path.read_text(encoding="utf-8").splitlines()
    try:
        if path.suffix == ".json":
            return json.dumps(_steady(json.loads(path.read_text(encoding="utf-8"))))
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            return [json.dumps(_steady(json.loads(line))) for line in lines]
    except ValueError:
        return "damaged"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _steady(value: Any) -> Any:
    """JSON without its `VOLATILE` entries."""
    if isinstance(value, dict):
        return {key: _steady(part) for key, part in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_steady(part) for part in value]
    return value


def differences(clean: Snapshot, now: Snapshot) -> Faults:
    """What of a clean run is missing now, and what differs or is too much."""
    faults = Faults()
    for name, content in clean.items():
        if name not in now:
            faults.lost.append(f"{name} is missing")
        elif now[name] != content:
            _compare(name, content, now[name], faults)
    for name in now.keys() - clean.keys():
        faults.wrong.append(f"{name} is not in the clean run")
    return faults


def _compare(name: str, clean: str | list[str], now: str | list[str], faults: Faults) -> None:
    if isinstance(clean, str) or isinstance(now, str):
        faults.wrong.append(f"{name} differs")
        return
    rows = []
    if len(now) < len(clean):
        faults.lost.append(f"{name} has {len(now)} of {len(clean)} rows")
    elif len(now) > len(clean):
        faults.wrong.append(f"{name} has {len(now)} rows, not {len(clean)}")
    else:
        pairs = zip(now, clean, strict=True)
        rows = [row for row, before in pairs if not same_line(row, before)]
    if rows:
        faults.wrong.append(f"{name}: {len(rows)} rows differ, the first is {rows[0][:100]!r}")


TOLERANCE = 2e-4
"""Of numbers in tables: the last digit depends on which other faces a batch holds."""


def same_line(first: str, second: str) -> bool:
    """True if two lines of a table have the same cells, by `same_cell`."""
    cells = first.split(",")
    others = second.split(",")
    return len(cells) == len(others) and all(map(same_cell, cells, others))


def same_cell(first: str, second: str) -> bool:
    """True if two cells hold the same text, or numbers within `TOLERANCE`."""
    if first == second:
        return True
    try:
        return abs(float(first) - float(second)) <= TOLERANCE
    except ValueError:
        return False


def leftovers(folder: Path) -> Faults:
    """Temporary files and folders that a killed process left and the next one did not remove."""
    faults = Faults()
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix == ".part" or (path.is_dir() and path.name == "parts"):
            faults.wrong.append(f"{path.relative_to(folder)} is left over")
    return faults


def bad_end(outcome: Outcome, names: list[str], *, refused: bool = True) -> list[str]:
    """Faults in how a command ended, empty for a good end.

    ``refused``: it must end with an exit code that is not 0 and one sentence that holds one of
    ``names``; else it must succeed, without a traceback.
    """
    if outcome.code is None:
        return ["it hung"]
    if outcome.code < 0:
        return [f"it was ended by signal {-outcome.code}"]
    if "Traceback (most recent call last)" in outcome.err:
        return [f"a traceback: {outcome.last_line[:200]}"]
    if not refused:
        return [f"exit code {outcome.code}: {outcome.last_line[:300]}"] if outcome.code else []
    if outcome.code == 0:
        return ["exit code 0"]
    return _bad_sentence(outcome.last_line, names)


def _bad_sentence(line: str, names: list[str]) -> list[str]:
    if not line.startswith("norface: "):
        return [f"no sentence, but: {line[:200]!r}"]
    if re.search(r"0x[0-9a-f]{6,}", line):
        return [f"a memory address: {line[:200]!r}"]
    if names and not any(name in line for name in names):
        return [f"a sentence without {' or '.join(names)}: {line[:200]!r}"]
    return []
