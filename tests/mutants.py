"""Plants known faults in copies of the library, one at a time, and reports which tests notice.

``python tests/mutants.py [NAME ...]`` runs the faults of ``mutants.toml``, all or those whose names
contain one of the words. Each is planted in a copy of the repository, so the working tree is never
touched. Faults that were tried already, with the same library and tests, are not tried again.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("norface_lib", "tests", "notebooks", "results", "pyproject.toml", "README.md", "Makefile")
LEAST_CAUGHT = 38
"""Faults that the tests must notice for the command to succeed."""


@dataclass(frozen=True)
class Mutant:
    """A fault: ``old`` stands exactly once in ``file``, ``new`` takes its place; ``tests`` run."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def plant(self, root: Path) -> None:
        """Changes the file below ``root``. Raises ``ValueError`` unless ``old`` occurs once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        count = text.count(self.old)
        if count != 1:
            raise ValueError(
                f"{self.name}: {self.old!r} occurs {count} times in {self.file}, not once"
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True)
class Verdict:
    """The outcome of one fault: the first test that failed, or an empty text if none did."""

    name: str
    caught_by: str
    seconds: float


def read_mutants(path: Path = ROOT / "tests" / "mutants.toml") -> list[Mutant]:
    """The faults of a list, in its order. Raises ``ValueError`` for a name that occurs twice."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    mutants = [Mutant(**entry | {"tests": tuple(entry["tests"])}) for entry in entries]
    names = [mutant.name for mutant in mutants]
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: a name occurs twice")
    return mutants


def copy_repository(folder: Path) -> None:
    """Copies what the tests need; weights are linked, as no fault changes them."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "runs")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy2(source, folder / name)

    for weights in ROOT.glob("*/**/*.safetensors"):
        if weights.relative_to(ROOT).parts[0] in COPIED:
            (folder / weights.relative_to(ROOT)).symlink_to(weights)


def try_mutant(mutant: Mutant) -> Verdict:
    """Runs the tests of one fault until the first failure."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy_repository(Path(folder))
        mutant.plant(Path(folder))
        output = run_tests(Path(folder), mutant.tests)

    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if failed is None and not re.search(r"^\d+ passed", output, re.MULTILINE):
        raise RuntimeError(f"{mutant.name}: the tests did not run:\n{output[-2000:]}")
    caught_by = failed.group(1) if failed else ""
    return Verdict(mutant.name, caught_by, round(time.monotonic() - started, 1))


def run_tests(root: Path, tests: tuple[str, ...]) -> str:
    """Output of pytest, stopped at the first failure; a test that hangs counts as one."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    # several run at once: with more threads each, they would only wait for one another
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environment["NORFACE_RUNS"] = str(root / "runs")
    done = subprocess.run(
        [*command, *tests], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def code_hash() -> str:
    """Hash of library and tests: a verdict holds for this code alone."""
    digest = hashlib.sha256()
    for folder in ("norface_lib", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def earlier_verdicts(path: Path) -> dict[str, Verdict]:
    """Verdicts of an earlier, interrupted call by name."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    verdicts = [Verdict(**json.loads(line)) for line in lines]
    return {verdict.name: verdict for verdict in verdicts}


def verdicts_of(mutants: list[Mutant], journal: Path, workers: int) -> Iterator[Verdict]:
    """Verdicts as they come, those of an earlier call first; each goes to the journal at once."""
    known = earlier_verdicts(journal)
    yield from (known[mutant.name] for mutant in mutants if mutant.name in known)

    journal.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool, journal.open("a", encoding="utf-8") as file:
        missing = [mutant for mutant in mutants if mutant.name not in known]
        running = [pool.submit(try_mutant, mutant) for mutant in missing]
        for future in as_completed(running):
            verdict = future.result()
            file.write(json.dumps(asdict(verdict)) + "\n")
            file.flush()
            yield verdict


def main() -> int:
    """Tries the faults, prints a line for each, and returns 1 if too few were caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="words that the names contain; default: all faults"
    )
    parser.add_argument("--workers", type=int, default=2, help="faults that are tried at once")
    arguments = parser.parse_args()

    mutants = read_mutants()
    if arguments.names:
        mutants = [m for m in mutants if any(word in m.name for word in arguments.names)]
    journal = ROOT / "runs" / "mutants" / f"{code_hash()}.jsonl"

    started = time.monotonic()
    survivors = []
    for number, verdict in enumerate(verdicts_of(mutants, journal, arguments.workers), 1):
        left = (time.monotonic() - started) / number * (len(mutants) - number)
        outcome = f"caught by {verdict.caught_by}" if verdict.caught_by else "SURVIVED"
        print(
            f"[{number}/{len(mutants)}] {verdict.name}: {outcome} ({left / 60:.0f} min left)",
            flush=True,
        )
        if not verdict.caught_by:
            survivors.append(verdict.name)

    caught = len(mutants) - len(survivors)
    print(
        f"{caught} of {len(mutants)} faults caught"
        + f"; not: {', '.join(survivors)}" * bool(survivors)
    )
    return int(bool(survivors) if arguments.names else caught < LEAST_CAUGHT)


if __name__ == "__main__":
    sys.exit(main())
