"""Runs the fault suite and prints its table: ``PYTHONPATH=tests python -m faults [WORD ...]``."""

import argparse
import sys
from pathlib import Path

from faults.running import ROOT
from faults.suite import kinds_of, run_suite


def main() -> int:
    """Tries the kinds whose names contain a word; exit code 1 if anything is lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="words that the kinds contain; default: all kinds")
    parser.add_argument(
        "--tries", type=int, help="tries of each kind; default: those of a full run"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    parser.add_argument("--workers", type=int, default=2, help="kinds that are tried at once")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for faults.md and faults.json; default: docs for a full run, else runs/faults",
    )
    parser.add_argument("--list", action="store_true", help="list the kinds, and try none")
    arguments = parser.parse_args()

    kinds = kinds_of(arguments.words)
    if arguments.list:
        print(*(f"{kind.name}: {kind.tries} tries" for kind in kinds), sep="\n")
        return 0
    full = not arguments.words and arguments.tries is None
    default = ROOT / "docs" if full else ROOT / "runs" / "faults"
    rows = run_suite(
        kinds,
        tries=arguments.tries,
        seed=arguments.seed,
        workers=arguments.workers,
        out=arguments.out or default,
    )
    return int(any(row.lost or row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
