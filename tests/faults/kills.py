"""SIGKILL at random moments, of a command or of one of its workers; then the same command again."""

import time
from functools import partial
from random import Random

from faults.commands import COMMANDS, Bench, Kind, clean_run, same_command_again
from faults.comparing import Faults, bad_end
from faults.running import Command, kill

FRESH_EVERY = 5
"""Each so many tries, the command is a new interpreter, and may be killed during its imports."""

START = 4.0
"""Seconds that a new interpreter takes to import the library."""


def kill_try(name: str, bench: Bench, number: int, random: Random) -> Faults:
    """Kills a command, or a worker of it in every other try, within the time that it takes."""
    clean = clean_run(bench, name)
    folder = bench.place(f"kill-{name}")
    clean.give(folder)

    fresh = number % FRESH_EVERY == FRESH_EVERY - 1
    moment = random.uniform(0, clean.seconds + START * fresh)
    command = bench.server.start(clean.arguments, folder, fresh=fresh)
    time.sleep(moment)
    killed_worker = number % 2 == 1 and kill_worker(command, random)
    if not killed_worker:
        kill(command.process)

    faults = Faults()
    outcome = command.wait()
    if killed_worker and outcome.code != 0:
        end = bad_end(outcome, [])
        faults.wrong += [f"after a worker was killed: {text}" for text in end]
    if not command.vanished():
        faults.wrong.append("workers lived on for 10 s")
    faults = same_command_again(bench, clean, folder, faults)
    moment_text = f"killed after {moment:.2f} of {clean.seconds:.2f} s: "
    return Faults(
        lost=[moment_text + text for text in faults.lost],
        wrong=[moment_text + text for text in faults.wrong],
    )


def kill_worker(command: Command, random: Random) -> bool:
    """Kills one of a command's workers by chance; False if it has none."""
    workers = command.workers()
    return bool(workers) and kill(random.choice(workers))


KINDS = [
    Kind(name=f"kill -9: {name}", attempt=partial(kill_try, name), tries=20) for name in COMMANDS
]
