"""Sources that change between two runs into the same folder: the second must show what is there."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import cv2

from faults.commands import OUT, Bench, Kind, arguments_of, write_video
from faults.comparing import Faults, bad_end, differences, leftovers, snapshot

SOURCE = "SOURCE"
"""Folder of the photographs, below the folder of a try."""

Change = Callable[[Path, Random], None]


def edit(source: Path, random: Random) -> None:
    """Another picture in place of one."""
    path = _one_of(source, random)
    image = cv2.imread(str(path))
    cv2.imwrite(str(path), image[:, ::-1] // 2)


def exchange(source: Path, random: Random) -> None:
    """Two pictures with each other's name."""
    first, second = random.sample(_images(source), 2)
    kept = source / "kept"
    first.rename(kept)
    second.rename(first)
    kept.rename(second)


def delete(source: Path, random: Random) -> None:
    """A file less."""
    random.choice([*_images(source), source / "clip.avi"]).unlink()


def rename(source: Path, random: Random) -> None:
    """Another name of a file."""
    path = _one_of(source, random)
    path.rename(path.with_name(f"new{path.name}"))


def damage(source: Path, random: Random) -> None:
    """A file that cannot be read any more."""
    path = _one_of(source, random)
    path.write_bytes(path.read_bytes()[:100])


def add(source: Path, random: Random) -> None:
    """A file more."""
    path = _one_of(source, random)
    shutil.copy(path, source / f"{random.randrange(10**6)}.jpg")


def video(source: Path, random: Random) -> None:
    """A video with other frames."""
    images = random.sample(_images(source), random.randint(1, 4))
    write_video(source / "clip.avi", [cv2.imread(str(image)) for image in images])


CHANGES: tuple[Change, ...] = (edit, exchange, delete, rename, damage, add, video)


def change_try(name: str, bench: Bench, number: int, random: Random) -> Faults:
    """Runs a command, changes its source, and runs it again: as if it were the first run."""
    change = CHANGES[number % len(CHANGES)]
    folder = source_of(bench, f"change-{name}")
    arguments = arguments_for(name, bench)
    first = bench.server.run(arguments, folder)
    change(folder / SOURCE, random)
    second = bench.server.run(arguments, folder)

    faults = Faults(wrong=bad_end(first, [], refused=False) + bad_end(second, [], refused=False))
    faults.add(differences(fresh_content(bench, name, folder), snapshot(folder / OUT)))
    faults.add(leftovers(folder / OUT))
    return _about(faults, change.__name__)


def other_folder_try(name: str, bench: Bench, number: int, random: Random) -> Faults:
    """Runs a command on a folder, and into the same OUT on another one with the same names: it is
    refused by name and changes nothing, or it gives what it gives alone."""
    folder = source_of(bench, f"other-{name}")
    arguments = arguments_for(name, bench)
    if number % 2:  # a single file, as in `predict a/face.jpg OUT`
        shutil.move(folder / SOURCE / "a" / "0.jpg", folder / "0.jpg")
        shutil.rmtree(folder / SOURCE)
        (folder / SOURCE).mkdir()
        shutil.move(folder / "0.jpg", folder / SOURCE / "0.jpg")
    first = bench.server.run(arguments, folder)
    before = snapshot(folder / OUT)

    shutil.copytree(folder / SOURCE, folder / "second")
    for path in _images(folder / "second"):
        mirror(path)
    second = bench.server.run([_other(part) for part in arguments], folder)
    faults = Faults(wrong=bad_end(first, [], refused=False))
    if second.code:
        faults.wrong += bad_end(second, [OUT])
        faults.add(differences(before, snapshot(folder / OUT)))
    else:
        shutil.rmtree(folder / SOURCE)
        (folder / "second").rename(folder / SOURCE)
        faults.add(differences(fresh_content(bench, name, folder), snapshot(folder / OUT)))
    return _about(faults, "another folder")


def mirror(path: Path) -> None:
    """Another picture by the same name."""
    cv2.imwrite(str(path), cv2.imread(str(path))[:, ::-1])


def fresh_content(bench: Bench, name: str, folder: Path) -> dict[str, str | list[str]]:
    """What the command writes for the source as it is now, into a folder that is new."""
    alone = bench.place(f"alone-{name}")
    shutil.copytree(folder / SOURCE, alone / SOURCE)
    outcome = bench.server.run(arguments_for(name, bench), alone)
    if outcome.code:
        raise RuntimeError(f"{name} fails on a changed source: {outcome.last_line}")
    return snapshot(alone / OUT)


def source_of(bench: Bench, name: str) -> Path:
    """The folder of a try with a copy of the faces in it."""
    folder = bench.place(name)
    shutil.copytree(bench.faces, folder / SOURCE)
    return folder


def arguments_for(name: str, bench: Bench) -> list[str]:
    """The command line, whose source lies in the folder of the try."""
    return [SOURCE if part == str(bench.faces) else part for part in arguments_of(name, bench)]


def _other(part: str) -> str:
    return "second" if part == SOURCE else part


def _images(source: Path) -> list[Path]:
    return sorted(source.rglob("*.jpg"))


def _one_of(source: Path, random: Random) -> Path:
    return random.choice(_images(source))


def _about(faults: Faults, text: str) -> Faults:
    faults = faults.merged()
    return Faults(
        lost=[f"{text}: {fault}" for fault in faults.lost],
        wrong=[f"{text}: {fault}" for fault in faults.wrong],
    )


KINDS = [
    kind
    for name in ("align", "normalize", "predict")
    for kind in (
        Kind(name=f"changed source: {name}", attempt=partial(change_try, name), tries=14),
        Kind(name=f"same names: {name}", attempt=partial(other_folder_try, name), tries=4),
    )
]
