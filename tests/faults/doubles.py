"""Two processes that run the same command on the same folder."""

import time
from functools import partial
from random import Random

from faults.commands import (
    COMMANDS,
    OUT,
    Bench,
    Kind,
    clean_run,
    faults_of_end,
    same_command_again,
)
from faults.comparing import Faults, bad_end


def double_try(name: str, bench: Bench, number: int, random: Random) -> Faults:
    """Starts a command twice: one may be refused, and what there is in the end must be right."""
    clean = clean_run(bench, name)
    folder = bench.place(f"two-{name}")
    clean.give(folder)

    first = bench.server.start(clean.arguments, folder)
    time.sleep(random.uniform(0, 0.5 * clean.seconds))
    second = bench.server.start(clean.arguments, folder)
    outcomes = [first.wait(), second.wait()]

    faults = Faults()
    for outcome in outcomes:
        if outcome.code != 0:
            faults.wrong += bad_end(outcome, [OUT])
    successes = [outcome for outcome in outcomes if outcome.code == 0]
    if successes:
        faults.add(faults_of_end(clean, folder, successes[0]))
    else:
        faults.wrong.append("both were refused")
    return same_command_again(bench, clean, folder, faults)


KINDS = [
    Kind(
        name=f"two processes: {name}",
        attempt=partial(double_try, name),
        tries=3 if name in ("render", "train-normalizer") else 5,
    )
    for name in COMMANDS
]
