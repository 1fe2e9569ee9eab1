"""The run of the whole suite: tries go to a journal as they end, and the table is made of it."""

import datetime
import hashlib
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm

from faults import changes, disks, doubles, inputs, kills, weights
from faults.commands import Bench, Kind, Shared
from faults.comparing import Faults
from faults.running import ROOT, Server

JOURNALS = ROOT / "runs" / "faults"

KINDS = [
    *(*kills.KINDS, *disks.KINDS, *doubles.KINDS, *changes.KINDS, *inputs.KINDS, *weights.KINDS),
]


@dataclass
class Row:
    """A line of the table: a kind, its tries, and how many of them lost something or were wrong."""

    kind: str
    note: str
    tries: int = 0
    lost: int = 0
    wrong: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def count(self, faults: Faults, seconds: float) -> None:
        """Adds an attempt."""
        self.tries += faults.tries
        self.lost += len(faults.lost)
        self.wrong += len(faults.wrong)
        self.seconds = round(self.seconds + seconds, 2)
        self.faults += [f"lost: {text}" for text in faults.lost]
        self.faults += [f"wrong: {text}" for text in faults.wrong]


def kinds_of(words: Sequence[str]) -> list[Kind]:
    """Kinds whose names contain one of the words; all without a word."""
    kinds = [kind for kind in KINDS if not words or any(word in kind.name for word in words)]
    if not kinds:
        raise SystemExit(f"no kind contains {' or '.join(words)}; see --list")
    return kinds


class Journal:
    """Attempts that have ended, so that a stopped run goes on with the next one."""

    def __init__(self, path: Path):
        self.path = path
        self.lock = threading.Lock()
        self.known: dict[tuple[str, int], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # half a line, of a suite that was killed
                    entry = json.loads(line)
                    self.known[entry["kind"], entry["number"]] = entry

    def add(self, kind: str, number: int, faults: Faults, seconds: float) -> None:
        """Writes down an attempt."""
        entry = {"kind": kind, "number": number, "seconds": round(seconds, 2), **asdict(faults)}
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0) + json.dumps(entry))


def run_suite(
    kinds: Sequence[Kind], *, tries: int | None, seed: int, workers: int, out: Path
) -> list[Row]:
    """Tries the kinds, prints what goes wrong and the table, and writes both."""
    journal = Journal(JOURNALS / f"{code_hash()}-{seed}.jsonl")
    with tempfile.TemporaryDirectory(prefix="norface-faults-") as work:
        benches = _Benches(Path(work))
        total = sum(attempts(kind, tries) for kind in kinds)
        bar = tqdm(total=total, desc="faults", unit="attempt", mininterval=5)
        with bar, ThreadPoolExecutor(min(workers, len(kinds))) as pool:
            try:
                running = [
                    pool.submit(try_kind, kind, benches, journal, tries, seed, bar)
                    for kind in kinds
                ]
                rows = [future.result() for future in running]
            except BaseException:
                benches.stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        benches.close()

    write_report(rows, out, seed=seed, workers=workers)
    print(table(rows))
    return rows


def attempts(kind: Kind, tries: int | None) -> int:
    """How often a kind is attempted for a number of tries; None: that of a full run."""
    return math.ceil((tries or kind.tries) / kind.batch)


class _Benches:
    """A bench for each thread, made when it is first needed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.shared = Shared(folder / "shared")
        self.local = threading.local()
        self.benches: list[Bench] = []
        self.stopped = False

    def get(self) -> Bench:
        """The bench of this thread."""
        if not hasattr(self.local, "bench"):
            folder = self.folder / str(threading.get_ident())
            self.local.bench = Bench(Server(folder / "server"), folder, self.shared)
            self.benches.append(self.local.bench)
        return self.local.bench

    def close(self) -> None:
        """Ends the servers."""
        for bench in self.benches:
            bench.server.close()


def try_kind(
    kind: Kind,
    benches: _Benches,
    journal: Journal,
    tries: int | None,
    seed: int,
    bar: tqdm,
) -> Row:
    """All attempts of a kind; those that the journal holds are not made again."""
    row = Row(kind.name, kind.note)
    for number in range(attempts(kind, tries)):
        if benches.stopped:
            break
        entry = journal.known.get((kind.name, number))
        if entry is None:
            begun = time.monotonic()
            random = Random(f"{seed} {kind.name} {number}")
            faults = kind.attempt(benches.get(), number, random)
            seconds = time.monotonic() - begun
            journal.add(kind.name, number, faults, seconds)
        else:
            faults = Faults(tries=entry["tries"], lost=entry["lost"], wrong=entry["wrong"])
            seconds = entry["seconds"]
        row.count(faults, seconds)
        bar.update()

    line = f"{row.kind}: {row.tries} tries, {row.lost} lost, {row.wrong} wrong"
    tqdm.write("\n  ".join([f"{line} ({row.seconds:.0f} s)", *row.faults[:8]]), sys.stdout)
    return row


def code_hash() -> str:
    """Hash of library and suite: an attempt holds for this code alone."""
    digest = hashlib.sha256()
    for folder in ("norface_lib", "tests/faults"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def table(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = ["| kind | tries | lost | wrong |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        name = f"{row.kind} ({row.note})" if row.note else row.kind
        lines.append(f"| {name} | {row.tries} | {row.lost} | {row.wrong} |")
    total = [sum(getattr(row, name) for row in rows) for name in ("tries", "lost", "wrong")]
    lines.append(f"| **all** | {total[0]} | {total[1]} | {total[2]} |")
    return "\n".join(lines)


def write_report(rows: Sequence[Row], out: Path, *, seed: int, workers: int) -> None:
    """Writes ``faults.json`` and, for the documentation, ``faults.md``."""
    from norface_lib.common.files import write_atomically, write_json
    from norface_lib.common.records import machine, versions

    date = datetime.date.today().isoformat()
    about = {"seed": seed, "date": date, "machine": machine()}
    content = {"result": [asdict(row) for row in rows], **about, "versions": versions()}
    write_json(content, out / "faults.json")

    computer = f"{about['machine']['processor']}, {about['machine']['cores']} cores"
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    spent = sum(row.seconds for row in rows) / 60
    minutes = f"{spent:.0f} minutes of attempts, {workers} kinds at once"
    text = TEXT.format(
        date=date,
        computer=computer,
        packages=packages,
        minutes=minutes,
        seed=seed,
        table=table(rows),
    )
    write_atomically(out / "faults.md", lambda part: part.write_text(text, encoding="utf-8"))


TEXT = """# Fault suite

`make faults` disturbs the commands and compares what they leave with an undisturbed run.

- **lost**: tries after which the same command does not bring back all that the undisturbed run has.
- **wrong**: tries with another value, file or row; with success reported for an incomplete result;
  with a traceback, or a message that does not name the file; or with processes or temporary files
  left over.

{table}

{date}, {computer}, {minutes}, seed {seed}. {packages}.
"""
