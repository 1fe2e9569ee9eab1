"""What files and folders of BP4D and BP4D+ are called: label tables, and sequences as folders, in
zips, and as videos (PAPER.md 2.1)."""

import re
from pathlib import Path

from norface_lib.datasets.report import Report

SESSIONS = {
    "01": "T1",
    "03": "T2",
    "07": "T3",
    "08": "T4",
    "09": "T5",
    "10": "T6",
    "11": "T7",
    "13": "T8",
}
"""Task of the session code in a video's name: ``2F01_11.avi`` is task T7 of F001."""

SUBJECT = r"[FM]\d{3}"
TASK = r"T\d{1,2}"
SEQUENCE = rf"{SUBJECT}_{TASK}|2[FM]\d{{2}}_(?:{TASK}|\d{{2}})"
"""Patterns of names; of a sequence as a video or a folder: F001_T1, 2F01_T1, or 2F01_01 by its
session."""

_LABELS = re.compile(rf"({SUBJECT})_({TASK})(?!\d).*\.csv", re.IGNORECASE)

_AU_FOLDER = re.compile(r"AU0?(\d+)", re.IGNORECASE)

Key = tuple[str, str]  # subject and task


def label_tables(paths: list[Path], task: str) -> dict[Key, dict[int, Path]]:
    """Label files of each sequence: by AU, or under 0 for occurrence. ``AU_OCC`` is preferred to
    files beside it."""
    tables: dict[Key, dict[int, Path]] = {}
    for path in sorted(paths, key=lambda path: "AU_OCC" not in path.parts):
        au = _AU_FOLDER.fullmatch(path.parent.name)
        if (match := _LABELS.fullmatch(path.name)) and (task == "au_intensity") == bool(au):
            tables.setdefault((match[1].upper(), match[2].upper()), {}).setdefault(
                int(au[1]) if au else 0, path
            )
    return tables


def sequence_key(name: str, report: Report) -> Key | None:
    """Subject and task of a sequence's name (``SEQUENCE``); None for any other."""
    if not re.fullmatch(SEQUENCE, name, re.IGNORECASE):
        return None
    subject, _, task = name.upper().partition("_")
    if subject.startswith("2"):
        subject = f"{subject[1]}0{subject[2:]}"
    if task.isdigit() and task not in SESSIONS:
        report.note("sequence of a session without AU codes", name)
        return None
    return subject, SESSIONS.get(task, task)


def task_of(name: str, subject: str, report: Report) -> str | None:
    """Task of a folder of a subject; None for any other."""
    if re.fullmatch(TASK, name, re.IGNORECASE):
        return name.upper()
    key = sequence_key(name, report)
    if key and key[0] != subject:
        report.note(f"folder of another subject in that of {subject}, not used", name)
        return None
    return key[1] if key else None


def order_of(key: Key) -> tuple[str, int]:
    """What sorts sequences by subject and task, T2 before T10."""
    return key[0], int(key[1][1:])
