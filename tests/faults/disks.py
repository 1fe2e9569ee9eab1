"""Disks that fill up while a command writes; once there is room, the same command again."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

from faults.commands import OUT, Bench, Clean, Kind, clean_run, faults_of_end, same_command_again
from faults.comparing import Faults, bad_end

ROOMY = 2**30


@dataclass(frozen=True)
class Disk:
    """A small disk: its folder, and the largest file that it takes if it is none of its own."""

    folder: Path
    largest_file: int | None

    def enlarge(self) -> None:
        """Makes room."""
        if self.largest_file is None:
            _mount(self.folder, f"remount,size={ROOMY}")


@contextmanager
def small_disk(folder: Path, clean: Clean, share: float) -> Iterator[Disk]:
    """A file system that holds a share of what the clean run wrote, where this user may mount one;
    else a folder, and a limit on the size of each file."""
    if not can_mount():
        yield Disk(folder, max(1, int(clean.largest_file * share)))
        return
    pages = max(1, int(clean.size * share) // 4096)
    _mount(folder, f"size={pages * 4096}")
    try:
        yield Disk(folder, None)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@cache
def can_mount() -> bool:
    """True if this process may mount file systems."""
    library = ctypes.CDLL(None, use_errno=True)
    probe = Path(f"/tmp/.norface-faults-{os.getpid()}")
    probe.mkdir()
    try:
        mounted = library.mount(b"tmpfs", bytes(probe), b"tmpfs", 0, b"size=4096") == 0
        if mounted:
            library.umount2(bytes(probe), 2)
        return mounted
    finally:
        probe.rmdir()


def _mount(folder: Path, options: str) -> None:
    call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(call, check=True, capture_output=True)


def disk_try(name: str, bench: Bench, number: int, random: Random) -> Faults:
    """Runs a command on a disk that is too small: a sentence is due, and later the clean result."""
    clean = clean_run(bench, name)
    folder = bench.place(f"disk-{name}")
    share = random.uniform(0, 1)

    with small_disk(folder, clean, share) as disk:
        clean.give(folder)
        outcome = bench.server.run(clean.arguments, folder, largest_file=disk.largest_file)
        faults = Faults()
        if outcome.code == 0:
            # the room was enough, or the command says so without reason
            faults.add(faults_of_end(clean, folder, outcome))
        else:
            faults.wrong += bad_end(outcome, [OUT])
        disk.enlarge()
        faults = same_command_again(bench, clean, folder, faults)

    text = f"disk of {share:.0%}: "
    return Faults(
        lost=[text + fault for fault in faults.lost], wrong=[text + fault for fault in faults.wrong]
    )


def note() -> str:
    """The stand-in for a full disk that is used here."""
    return "tmpfs" if can_mount() else "limit of the file size"


TRIES = {"render": 4, "align": 10, "normalize": 10, "predict": 10, "train": 10}

KINDS = [
    Kind(name=f"disk full: {name}", attempt=partial(disk_try, name), tries=tries, note=note())
    for name, tries in TRIES.items()
]
