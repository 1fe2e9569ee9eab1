"""A process that has imported the library and forks a copy of itself for each command.

So a command starts in milliseconds, where a new interpreter takes seconds to import torch. The
copies are sound because the server has one thread and runs nothing itself; it refuses to fork
otherwise. It reads requests from stdin and writes answers to stdout, a line of JSON each.
"""

import gc
import json
import os
import resource
import signal
import sys
import time
from typing import Any


def main() -> int | None:
    """Answers requests until stdin ends; in a forked copy, runs the command."""
    import_library()
    gc.freeze()  # the copies share what is there
    reply({"ready": True})

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            reply({"code": code_of(request["wait"], request["seconds"])})
            continue

        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            raise RuntimeError(f"the server has {threads} threads, so a copy would not be sound")
        process = os.fork()
        if not process:
            return run(request)
        reply({"process": process})
    return None


def import_library() -> None:
    """Imports what the commands need, and starts nothing."""
    import norface_lib.cli.app
    import norface_lib.faces.writing
    import norface_lib.photos.whole_folders
    import norface_lib.studies.experiment
    import norface_lib.training.normalizer_recipe  # noqa: F401


def reply(answer: dict[str, Any]) -> None:
    """Writes an answer."""
    print(json.dumps(answer), flush=True)


def code_of(process: int, seconds: float) -> int | None:
    """Exit code of a copy, negative for a signal; None if it still runs after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def run(request: dict[str, Any]) -> int:
    """Runs a command in this copy, as the leader of a session of its own.

    ``fresh``: in a new interpreter. ``largest_file``: bytes that a file may have.
    """
    os.setsid()
    os.chdir(request["folder"])
    redirect(request["output"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["largest_file"] is not None:
        largest = request["largest_file"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    arguments = request["arguments"]
    if request["fresh"]:
        os.execv(sys.executable, [sys.executable, "-m", "norface_lib", *arguments])
    sys.argv = ["norface", *arguments]
    from norface_lib.cli.app import main as norface

    return norface()


def redirect(output: str) -> None:
    """Sends stdout and stderr to the files ``output``.out and ``output``.err, and stdin nowhere."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    targets = (
        os.open(os.devnull, os.O_RDONLY),
        os.open(f"{output}.out", flags, 0o600),
        os.open(f"{output}.err", flags, 0o600),
    )
    for number, target in enumerate(targets):
        os.dup2(target, number)
        os.close(target)


if __name__ == "__main__":
    sys.exit(main())
