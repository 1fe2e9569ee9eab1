"""Runs the configurations of a sweep: skips what is done, survives what fails, tells what is
left."""

import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from norface_lib.common.errors import StoppedError, without_addresses
from norface_lib.common.files import write_atomically
from norface_lib.common.processes import end_with_process
from norface_lib.studies.normalizer_experiment import NormalizerData
from norface_lib.studies.preparation import Prepared
from norface_lib.studies.sweep import Configuration
from norface_lib.studies.sweep_kinds import complete, data_key, work


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a configuration. ``error``: a sentence, empty if it succeeded."""

    name: str
    seconds: float
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a sweep: outcomes of this call, and the names of what was done before."""

    outcomes: list[Outcome]
    skipped: list[str]

    @property
    def failed(self) -> list[Outcome]:
        """Those that did not succeed."""
        return [outcome for outcome in self.outcomes if outcome.error]

    @property
    def counts(self) -> dict[str, int]:
        """How many are done, were done before, and failed."""
        failed = len(self.failed)
        return {
            "done": len(self.outcomes) - failed,
            "done before": len(self.skipped),
            "failed": failed,
        }


Say = Callable[[str], None]
"""Shows a line of progress."""


def run_sweep(
    configurations: Sequence[Configuration],
    out: Path,
    *,
    workers: int = 1,
    device: str = "auto",
    say: Say = print,
) -> Report:
    """Runs what has no result file in ``out`` yet, or one of fewer seeds, in ``workers`` processes,
    and writes ``out/<name>.json`` for each.

    A failure ends one configuration: it is reported, its traceback goes to
    ``out/<name>.error.txt``, and the next call tries it again. An interrupted training goes on
    where it was. Faces are rendered, normalized and embedded in this process, once for all
    configurations that share them and follow each other.
    Raises :class:`norface_lib.common.errors.DataError` before anything runs if a result file was
    made with other settings, and :class:`StoppedError` if the system killed a worker.
    """
    out = Path(out)
    done = [one.name for one in configurations if one.is_done(out)]
    left = [one for one in configurations if one.name not in done]
    if done:
        say(f"{len(done)} of {len(configurations)} are done already")
    out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    progress = _Progress(left, workers)

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        say(progress.line(outcome))

    parallel = joblib.Parallel(
        n_jobs=workers, return_as="generator_unordered", pre_dispatch=workers
    )
    try:
        for outcome in parallel(_jobs(left, out, device, ended)):
            ended(outcome)
    except TerminatedWorkerError as error:
        raise StoppedError(
            "the system killed a worker (out of memory?); the same command goes on, with fewer "
            "--workers"
        ) from error
    return Report(outcomes=outcomes, skipped=done)


def _jobs(
    configurations: Sequence[Configuration],
    out: Path,
    device: str,
    ended: Callable[[Outcome], None],
) -> Iterator[tuple]:
    """A call for a worker for each configuration; one that cannot be prepared has ended at once."""
    prepared: dict[str, Prepared | NormalizerData] = {}
    for one in configurations:
        started = time.monotonic()
        key = data_key(one.experiment)
        try:
            if key not in prepared:
                prepared.clear()  # memory for one dataset
                prepared[key] = one.experiment.prepare(device=device, progress=False)
            complete(one.experiment, prepared[key])
        except Exception as error:
            ended(_failure(one.name, started, error, out))
            continue
        yield joblib.delayed(_run)(one, prepared[key], out, device, os.getpid())


def _run(
    one: Configuration, prepared: Prepared | NormalizerData, out: Path, device: str, parent: int
) -> Outcome:
    """Trains and tests one configuration and writes its result file, in the process ``parent`` or
    in a worker of it."""
    end_with_process(parent)
    started = time.monotonic()
    try:
        result = one.experiment.run(prepared=prepared, device=device, progress=False)
        result.write(one.path(out))
    except Exception as error:
        return _failure(one.name, started, error, out)
    _error_file(one.name, out).unlink(missing_ok=True)
    return Outcome(name=one.name, seconds=time.monotonic() - started)


def _failure(name: str, started: float, error: Exception, out: Path) -> Outcome:
    path = _error_file(name, out)
    text = without_addresses("".join(traceback.format_exception(error)))
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
    sentence = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Outcome(name=name, seconds=time.monotonic() - started, error=sentence)


def _error_file(name: str, out: Path) -> Path:
    return out / f"{name}.error.txt"


class _Progress:
    """Lines that say how far a sweep is, with an estimate from what took how long so far."""

    def __init__(self, configurations: Sequence[Configuration], workers: int):
        self.left = {one.name: work(one.experiment) for one in configurations}
        self.number = len(self.left)
        self.workers = workers
        self.done = 0.0
        self.seconds = 0.0

    def line(self, outcome: Outcome) -> str:
        """A line about an outcome, which counts from now on unless it failed."""
        work = self.left.pop(outcome.name)
        words = f"failed: {outcome.error}" if outcome.error else f"{outcome.seconds:.0f} s"
        if not outcome.error:
            self.done += work
            self.seconds += outcome.seconds
        line = f"[{self.number - len(self.left)}/{self.number}] {outcome.name}: {words}"
        if self.left and self.done:
            # several run at a time, but no more than are left
            together = min(self.workers, len(self.left))
            minutes = self.seconds / self.done * sum(self.left.values()) / together / 60
            line += f"  (about {max(1, round(minutes))} min left)"
        return line
