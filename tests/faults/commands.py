"""Inputs of the fault suite, and the commands whose runs are disturbed."""

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import cv2
import numpy as np

from faults.comparing import Faults, Snapshot, bad_end, differences, leftovers, snapshot
from faults.running import Outcome, Server

OUT = "RESULTS"
"""Folder that a command writes, below the folder of a try."""


@dataclass
class Shared:
    """What is made once for all benches: a folder of inputs and of clean runs."""

    folder: Path
    clean: dict[str, "Clean"] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass
class Bench:
    """What every kind of fault needs: a server, a folder to work in, and small inputs."""

    server: Server
    folder: Path
    shared: Shared

    @property
    def benchmark(self) -> Path:
        """A rendered benchmark: six subjects with three frames each, at 112 px."""
        return self.once("benchmark", self._render)

    @property
    def faces(self) -> Path:
        """A folder of six aligned faces in two subfolders, and a video of three."""
        return self.once("faces", self._gather)

    def place(self, name: str) -> Path:
        """An empty folder for a try."""
        return empty(self.folder / name)

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that all benches read: ``make`` fills it, the first time."""
        folder = self.shared.folder / name
        with self.shared.lock:
            if not folder.exists():
                part = empty(self.shared.folder / f"{name}.making")
                make(part)
                part.rename(folder)
        return folder

    def _render(self, folder: Path) -> None:
        outcome = self.server.run(rendering(folder, subjects=6, frames=3), folder)
        if outcome.code:
            raise RuntimeError(f"the inputs could not be rendered: {outcome.err}")

    def _gather(self, folder: Path) -> None:
        images = sorted((self.benchmark / "images").rglob("*.jpg"))
        for number, image in enumerate(images[::3]):
            place = folder / "ab"[number % 2] / f"{number}.jpg"
            place.parent.mkdir(exist_ok=True)
            shutil.copy(image, place)
        write_video(folder / "clip.avi", [cv2.imread(str(image)) for image in images[:3]])


def empty(folder: Path) -> Path:
    """A folder without content, made if it is missing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """Writes frames (H, W, 3) BGR as a video that holds each as an image of its own."""
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter_fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), codec, 10, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def rendering(out: str | Path, *, subjects: int, frames: int) -> list[str]:
    """The command line that renders a benchmark."""
    sizes = ("--subjects", str(subjects), "--frames", str(frames), "--workers", "2")
    return ["render", "--pool", "pretrain", *sizes, str(out)]


def arguments_of(name: str, bench: Bench) -> list[str]:
    """The command line of a command on the bench's inputs, which writes `OUT`."""
    faces, benchmark = str(bench.faces), str(bench.benchmark)
    small = ("--batch-size", "2")
    inputs = ("--inputs", "both", "--inputs", "original")
    lengths = ("--expression-steps", "3", "--synthesis-steps", "2")
    return {
        "render": rendering(OUT, subjects=3, frames=2),
        "align": ["align", faces, OUT, "--detector", "none"],
        "normalize": ["normalize", faces, OUT, *small],
        "predict": ["predict", faces, OUT, "--detector", "none", *small],
        "train": ["train", benchmark, OUT, "--steps", "8", *inputs],
        "train-normalizer": ["train-normalizer", benchmark, OUT, *lengths],
    }[name]


COMMANDS = ("render", "align", "normalize", "predict", "train", "train-normalizer")


@dataclass(frozen=True, kw_only=True)
class Clean:
    """An undisturbed run of a command: what it wrote, and how long it took."""

    arguments: list[str]
    folder: Path
    content: Snapshot
    seconds: float
    given: tuple[str, ...]

    @property
    def out(self) -> Path:
        """The folder that it wrote."""
        return self.folder / OUT

    @property
    def size(self) -> int:
        """Bytes that its files take in blocks of 4 KiB."""
        files = [path for path in self.out.rglob("*") if path.is_file()]
        return sum(-(-path.stat().st_size // 4096) * 4096 for path in files)

    @property
    def largest_file(self) -> int:
        """Bytes of its largest file."""
        return max(path.stat().st_size for path in self.out.rglob("*") if path.is_file())

    def give(self, folder: Path) -> Path:
        """Puts into the folder of a try what need not be made again, and returns its `OUT`."""
        out = folder / OUT
        for name in self.given:
            shutil.copytree(self.out / name, out / name, copy_function=os.link)
        return out


RENDERED_ALREADY = {"train-normalizer": ("held-out", "watched")}
"""Benchmarks below `OUT` that take most of a command's time, and that `render` tries anyway."""


def clean_run(bench: Bench, name: str) -> Clean:
    """The undisturbed run of a command, made once; its time is that of a second run."""
    with bench.shared.lock:
        if name not in bench.shared.clean:
            bench.shared.clean[name] = _clean_run(bench, name)
        return bench.shared.clean[name]


def _clean_run(bench: Bench, name: str) -> Clean:
    folder = bench.shared.folder / "clean" / name
    kept = empty(bench.shared.folder / "clean" / f"{name}.kept")
    given = RENDERED_ALREADY.get(name, ())
    arguments = arguments_of(name, bench)
    for _ in range(2):
        for part in given:
            if (folder / OUT / part).exists():
                (folder / OUT / part).rename(kept / part)
        empty(folder)
        shutil.move(kept, folder / OUT)
        kept.mkdir()

        outcome = bench.server.run(arguments, folder)
        if outcome.code:
            raise RuntimeError(f"{name} fails undisturbed: {outcome.last_line}")
    return Clean(
        arguments=arguments,
        folder=folder,
        content=snapshot(folder / OUT),
        seconds=outcome.seconds,
        given=given,
    )


def same_command_again(
    bench: Bench, clean: Clean, folder: Path, before: Faults | None = None
) -> Faults:
    """Faults after the command is run to its end in the folder of a try, as one try."""
    faults = before or Faults()
    outcome = bench.server.run(clean.arguments, folder)
    faults.add(faults_of_end(clean, folder, outcome))
    return faults.merged()


def faults_of_end(clean: Clean, folder: Path, outcome: Outcome) -> Faults:
    """Faults of a run that should have ended as the clean one did."""
    end = bad_end(outcome, [], refused=False)
    if end:
        return Faults(lost=[f"the same command again: {text}" for text in end])
    faults = differences(clean.content, snapshot(folder / OUT))
    faults.add(leftovers(folder / OUT))
    return faults


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of fault. ``attempt(bench, number, random)`` makes one try, or a batch of them;
    ``tries`` is their number in a full run, ``batch`` how many one attempt makes."""

    name: str
    attempt: Callable[[Bench, int, Random], Faults]
    tries: int
    batch: int = 1
    note: str = ""
