"""Commands of the library as processes: started, watched, killed, and what came of them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

LONGEST = 300.0
"""Seconds after which a command counts as hanging."""

VANISH = 10.0
"""Seconds within which processes must end after the one that started them."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """End of a command: exit code (negative: a signal; None: it hung), outputs, seconds."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def last_line(self) -> str:
        """Last line of stderr, where a sentence about an error stands, with the lines that explain
        it: the folders that a dataset should have."""
        lines = [line.strip() for line in re.split(r"[\r\n]", self.err) if line.strip()]
        sentences = [n for n, line in enumerate(lines) if line.startswith("norface: ")]
        return " ".join(lines[sentences[-1] if sentences else -1 :])


class Server:
    """The process that starts commands; see `faults.server`. ``settings``: its environment."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(self.folder),
        )
        self._answer()

    def start(
        self,
        arguments: list[str],
        folder: Path,
        *,
        fresh: bool = False,
        largest_file: int | None = None,
    ) -> "Command":
        """Starts a command in a folder; see `faults.server.run` for the settings."""
        self.count += 1
        output = self.folder / f"output-{self.count % 50}"
        begun = time.monotonic()
        answer = self._ask(
            arguments=[str(argument) for argument in arguments],
            folder=str(folder),
            output=str(output),
            fresh=fresh,
            largest_file=largest_file,
        )
        return Command(self, answer["process"], output, begun)

    def run(self, arguments: list[str], folder: Path, **settings: Any) -> Outcome:
        """Runs a command to its end."""
        return self.start(arguments, folder, **settings).wait()

    def wait(self, process: int, seconds: float) -> int | None:
        """Exit code of a command; None if it runs on after ``seconds``."""
        return self._ask(wait=process, seconds=seconds)["code"]

    def close(self) -> None:
        """Ends the server."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the server of the fault suite ended; see its message on stderr")
        return json.loads(line)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def environment(folder: Path) -> dict[str, str]:
    """Environment of the commands: one thread, no GPU, no network, caches in ``folder``."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    settings = {
        "PYTHONPATH": path,
        "NORFACE_RUNS": str(folder / "runs"),
        # a checkpoint after each step: kills come within seconds
        "NORFACE_CHECKPOINT_SECONDS": "0",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # without it, the server has a thread of pyarrow, and may not fork
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "COLUMNS": "200",
    }
    kept = {name: value for name, value in os.environ.items() if name != "NORFACE_WEIGHTS"}
    return kept | settings


class Command:
    """A command that was started."""

    def __init__(self, server: Server, process: int, output: Path, begun: float):
        self.server = server
        self.process = process
        self.output = output
        self.begun = begun

    def wait(self, seconds: float = LONGEST) -> Outcome:
        """Outcome of the command, which is killed if it runs on after ``seconds``."""
        code = self.server.wait(self.process, seconds)
        spent = time.monotonic() - self.begun
        if code is None:
            self.kill_all()
            self.server.wait(self.process, VANISH)
        out, err = (
            self.output.with_suffix(suffix).read_text(encoding="utf-8", errors="replace")
            for suffix in (".out", ".err")
        )
        return Outcome(code=code, out=out, err=err, seconds=spent)

    def workers(self) -> list[int]:
        """Ids of the processes that the command has started and that are alive."""
        return [process for process in session(self.process) if process != self.process]

    def vanished(self, seconds: float = VANISH) -> bool:
        """True if every process of the command ends within ``seconds``; kills those that do not.
        Call it after `wait`."""
        end = time.monotonic() + seconds
        while session(self.process):
            if time.monotonic() > end:
                self.kill_all()
                return False
            time.sleep(0.02)
        return True

    def kill_all(self) -> None:
        """Kills every process of the command."""
        for process in session(self.process):
            kill(process)


def session(leader: int) -> list[int]:
    """Ids of the living processes of a session."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        state, number = fields[0], int(fields[3])
        if number == leader and state not in "ZX":
            processes.append(int(path.parent.name))
    return processes


def kill(process: int) -> bool:
    """Sends SIGKILL; False if there is no such process any more."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
