"""Attacks on weights: the tests of `test_weight_attacks.py`, counted."""

import subprocess
import sys
from pathlib import Path
from random import Random
from xml.etree import ElementTree

from faults.commands import Bench, Kind
from faults.comparing import Faults
from faults.running import ROOT, environment

ATTACKS = ROOT / "tests" / "test_weight_attacks.py"


def attack_try(bench: Bench, number: int, random: Random) -> Faults:
    """Runs all attacks, a try each; one that does not end as its test says is wrong."""
    folder = bench.place("weights")
    report = folder / "report.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        + [f"--basetemp={folder / 'temporary'}", str(ATTACKS)],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        check=False,
    )
    return faults_of_report(report)


def faults_of_report(report: Path) -> Faults:
    """Tests of a report of pytest as tries; those that were skipped tried nothing."""
    if not report.is_file():
        return Faults(lost=["pytest ended without a report"])
    cases = [
        case for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None
    ]
    failed = [
        case.get("name", "")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return Faults(tries=len(cases), wrong=[f"{name} fails" for name in failed])


KINDS = [Kind(name="changed weights", attempt=attack_try, tries=1)]
