"""Damaged images, videos, zips and label files among whole ones, through the real commands.

Each file must have its row or be named, and the whole files beside it must keep their values.
"""

import csv
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import cv2

from faults.commands import OUT, Bench, Kind, write_video
from faults.comparing import Faults, bad_end, same_cell
from faults.damage import damaged, damaged_array, damaged_table, damaged_zip
from faults.running import Outcome

IMAGE_SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".tif")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv")
PARENT = "faces"

# --- photographs and videos -----------------------------------------------------------------------


def image_try(bench: Bench, number: int, random: Random) -> Faults:
    """Runs a command on twenty damaged images and a whole one of each format."""
    suffixes = IMAGE_SUFFIXES
    return folder_try(bench, number, random, whole_images(bench), suffixes, count=20)


def video_try(bench: Bench, number: int, random: Random) -> Faults:
    """Runs a command on ten damaged videos and a whole one of each container."""
    suffixes = VIDEO_SUFFIXES
    return folder_try(bench, number, random, whole_videos(bench), suffixes, count=10)


@dataclass(frozen=True, kw_only=True)
class Tabled:
    """A command for a folder of faces, and the table that it writes below `OUT`."""

    arguments: list[str]
    table: str


TABLED = (
    Tabled(arguments=["align", PARENT, OUT, "--detector", "none"], table="faces.csv"),
    Tabled(
        arguments=["predict", PARENT, OUT, "--detector", "none", "--batch-size", "8"],
        table="predictions.csv",
    ),
)


def folder_try(
    bench: Bench,
    number: int,
    random: Random,
    whole: Path,
    suffixes: tuple[str, ...],
    *,
    count: int,
) -> Faults:
    """Runs a command on a folder of whole files together with damaged copies of them."""
    command = TABLED[number % len(TABLED)]
    clean = whole_rows(bench, command, whole)
    folder = bench.place("damaged")
    shutil.copytree(whole, folder / PARENT)
    names = [
        add_damaged(folder / PARENT, whole, random, suffixes, f"damaged{copy:02d}")
        for copy in range(count)
    ]

    outcome = bench.server.run(command.arguments, folder)
    faults = Faults(tries=count, wrong=bad_end(outcome, [], refused=False))
    rows = rows_of(folder / OUT / command.table)
    faults.add(faults_of_table(clean, rows, names))
    return faults


def add_damaged(
    folder: Path, whole: Path, random: Random, suffixes: tuple[str, ...], stem: str
) -> str:
    """Writes a damaged copy of a whole file, or one with the suffix of another kind, and returns
    its name."""
    suffix = random.choice(suffixes)
    content = (whole / f"base{suffix}").read_bytes()
    if random.random() < 0.1:
        suffix = random.choice((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
    else:
        content = damaged(content, random)
    path = folder / f"{stem}{suffix}"
    path.write_bytes(content)
    return path.name


def faults_of_table(
    clean: list[dict[str, str]], rows: list[dict[str, str]], names: Iterable[str]
) -> Faults:
    """Each damaged file must have a row, with a reason if it is unreadable; the rows of whole files
    must be those of a run without damaged ones."""
    faults = Faults()
    names = set(names)
    missing = names - {row["source"] for row in rows}
    faults.lost += [f"{name} has no row" for name in sorted(missing)]
    faults.wrong += [
        f"{row['source']}: {row['status']} without a reason"
        for row in rows
        if row["status"] in ("unreadable", "failed") and not row.get("error")
    ]

    others = [row for row in rows if row["source"] not in names]
    keys = [tuple(row.get(name, "") for name in ROW_KEY) for row in others]
    now = dict(zip(keys, others, strict=True))
    if len(now) < len(others):
        faults.wrong.append(f"{len(others) - len(now)} rows are there twice")
    for row in clean:
        key = tuple(row.get(name, "") for name in ROW_KEY)
        if key not in now:
            faults.lost.append(f"{' '.join(key)}: no row any more")
        elif not same_row(row, now.pop(key)):
            faults.wrong.append(f"{' '.join(key)}: other values")
    faults.wrong += [f"{' '.join(key)}: a row too much" for key in now]
    return faults


ROW_KEY = ("source", "frame", "face")


def same_row(first: dict[str, str], second: dict[str, str]) -> bool:
    """True if the rows have the same texts, and almost the same numbers."""
    return first.keys() == second.keys() and all(
        same_cell(first[name], second[name]) for name in first
    )


def whole_rows(bench: Bench, command: Tabled, whole: Path) -> list[dict[str, str]]:
    """Rows of a command's table for a folder without damaged files."""

    def make(folder: Path) -> None:
        shutil.copytree(whole, folder / PARENT)
        outcome = bench.server.run(command.arguments, folder)
        if outcome.code:
            raise RuntimeError(f"{command.arguments[0]} fails: {outcome.last_line}")

    folder = bench.once(f"clean/{command.arguments[0]}-{whole.name}", make)
    return rows_of(folder / OUT / command.table)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV table; none if it is missing."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def whole_images(bench: Bench) -> Path:
    """A folder with a face in each image format."""

    def make(folder: Path) -> None:
        face = cv2.imread(str(next((bench.benchmark / "images").rglob("*.jpg"))))
        for suffix in IMAGE_SUFFIXES:
            cv2.imwrite(str(folder / f"base{suffix}"), face)

    return bench.once("images", make)


def whole_videos(bench: Bench) -> Path:
    """A folder with the same video of six frames in each container."""

    def make(folder: Path) -> None:
        paths = sorted((bench.benchmark / "images").rglob("*.jpg"))[:6]
        for suffix in VIDEO_SUFFIXES:
            write_video(folder / f"base{suffix}", [cv2.imread(str(path)) for path in paths])

    return bench.once("videos", make)


# --- datasets -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A dataset's layout, its label files, and which rows of the index belong to one of them.

    ``several``: it has many label files, so a damaged one may cost no more than its own rows.
    """

    dataset: str
    variant: str
    files: str  # pattern of the label files
    damage: Callable[[bytes, Random], bytes]
    unit: Callable[[Path], str]  # what a row's path or sequence contains if it belongs to a file
    several: bool = True


LAYOUTS = (
    Layout(
        dataset="bp4d",
        variant="images",
        files="AUCoding/AU_OCC/*.csv",
        damage=damaged_table,
        unit=lambda path: path.stem.replace("_", "/"),
    ),
    Layout(
        dataset="disfa",
        variant="images",
        files="ActionUnit_Labels/*/*_au[1249]*.txt",
        damage=damaged_table,
        unit=lambda path: path.parent.name,
    ),
    Layout(
        dataset="affectnet",
        variant="new",
        files="*/annotations/*_exp.npy",
        damage=damaged_array,
        unit=lambda path: f"{path.parents[1].name}/images/{path.stem.removesuffix('_exp')}.",
    ),
    Layout(
        dataset="affectnet",
        variant="old",
        files="Manually_Annotated_file_lists/training.csv",
        damage=damaged_table,
        unit=lambda path: "train",
        several=False,
    ),
    Layout(
        dataset="rafdb",
        variant="aligned",
        files="basic/EmoLabel/*.txt",
        damage=damaged_table,
        unit=lambda path: "basic/",
        several=False,
    ),
)

ZIPS = Layout(
    dataset="bp4d",
    variant="zip",
    files="2D+3D/*.zip",
    damage=damaged_zip,
    unit=lambda path: path.name,
)


def label_try(bench: Bench, number: int, random: Random) -> Faults:
    """Inspects a dataset with one damaged label file."""
    return dataset_try(bench, LAYOUTS[number % len(LAYOUTS)], random, check=False)


def zip_try(bench: Bench, number: int, random: Random) -> Faults:
    """Inspects or normalizes a dataset with one damaged zip."""
    if number % 3:
        return dataset_try(bench, ZIPS, random, check=True)
    return normalize_try(bench, random)


def dataset_try(bench: Bench, layout: Layout, random: Random, *, check: bool) -> Faults:
    """Inspects a dataset with one damaged file and compares the rows of its index."""
    clean = inspected(bench, layout)
    folder, path = damaged_dataset(bench, layout, random)
    outcome = bench.server.run(inspect_arguments(layout, check=check), folder)

    if outcome.code != 0 and not layout.several:
        faults = Faults(wrong=bad_end(outcome, [path.name]))
    else:
        end = bad_end(outcome, [], refused=False)
        faults = Faults(lost=[f"all other files: {text}" for text in end])
        if not end:
            rows = rows_of(folder / "index.csv")
            faults.add(faults_of_rows(clean, rows, layout.unit(path), path, outcome))
    return about(faults, f"{layout.dataset} ({layout.variant}), {path.name}: ")


def normalize_try(bench: Bench, random: Random) -> Faults:
    """Normalizes a dataset with one damaged zip and compares the rows of the manifest."""
    arguments = ["normalize", "root", OUT, "--layout", "bp4d"]

    def make(folder: Path) -> None:
        shutil.copytree(dataset_of(bench, ZIPS), folder / "root")
        bench.server.run(arguments, folder)

    clean_folder = bench.once("clean/normalized-zips", make)
    folder, path = damaged_dataset(bench, ZIPS, random)
    outcome = bench.server.run(arguments, folder)

    end = bad_end(outcome, [], refused=False)
    faults = Faults(lost=[f"all other files: {text}" for text in end])
    if not end:
        clean, now = (
            [row for table in (place / OUT).rglob("manifest.csv") for row in manifest_rows(table)]
            for place in (clean_folder, folder)
        )
        faults.add(faults_of_rows(clean, now, path.name, path, outcome))
    extra = {place.name for place in folder.iterdir()} - {"root", OUT}
    extra |= {str(place) for place in folder.parents if (place / "ESCAPED").exists()}
    faults.wrong += [f"{name} was written outside of {OUT}" for name in sorted(extra)]
    return about(faults, f"normalize, {path.name}: ")


def manifest_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a manifest, whose first line is a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def faults_of_rows(
    clean: list[dict[str, str]],
    now: list[dict[str, str]],
    unit: str,
    path: Path,
    outcome: Outcome,
) -> Faults:
    """Rows of other files must be as they were; what a damaged file loses must be named."""
    faults = Faults()
    others = [row for row in clean if not belongs(row, unit)]
    missing = [row for row in others if row not in now]
    if missing:
        faults.lost.append(f"{len(missing)} of {len(others)} rows of other files")

    lost = len(clean) - len(others) - sum(belongs(row, unit) for row in now)
    names = {path.name, path.stem, unit, unit.rstrip("/.")}
    words = outcome.out + outcome.err
    if lost > 0 and not any(name in words for name in names):
        faults.wrong.append(f"{lost} rows are gone, and no word says so")
    return faults


def belongs(row: dict[str, str], unit: str) -> bool:
    """True if a row comes from a unit of a dataset, by its path, sequence or part."""
    sequence = f"{row.get('subject')}/{row.get('sequence')}"
    return unit in row["path"] or unit == sequence or unit == row.get("part")


def damaged_dataset(bench: Bench, layout: Layout, random: Random) -> tuple[Path, Path]:
    """A folder with a copy of a dataset in ``root``, and the file of it that was damaged."""
    folder = bench.place("dataset")
    shutil.copytree(dataset_of(bench, layout), folder / "root")
    path = random.choice(sorted((folder / "root").glob(layout.files)))
    path.write_bytes(layout.damage(path.read_bytes(), random))
    return folder, path


def dataset_of(bench: Bench, layout: Layout) -> Path:
    """A dataset in a layout, without faults."""

    def make(folder: Path) -> None:
        call = ["write-as", layout.dataset, bench.benchmark, folder / "data"]
        outcome = bench.server.run([*call, "--variant", layout.variant, "--no-quirks"], folder)
        if outcome.code:
            raise RuntimeError(f"{layout.dataset} could not be written: {outcome.last_line}")

    return bench.once(f"{layout.dataset}-{layout.variant}", make) / "data"


def inspect_arguments(layout: Layout, *, check: bool) -> list[str]:
    """The command that writes the index of ``root``."""
    return ["inspect", layout.dataset, "root", "--save-index", "index.csv", *["--check"] * check]


def inspected(bench: Bench, layout: Layout) -> list[dict[str, str]]:
    """Rows of the index of a dataset without faults."""

    def make(folder: Path) -> None:
        shutil.copytree(dataset_of(bench, layout), folder / "root")
        outcome = bench.server.run(inspect_arguments(layout, check=False), folder)
        if outcome.code:
            raise RuntimeError(f"inspect fails on a whole dataset: {outcome.last_line}")

    folder = bench.once(f"clean/inspect-{layout.dataset}-{layout.variant}", make)
    return rows_of(folder / "index.csv")


def about(faults: Faults, text: str) -> Faults:
    """The faults of one try with a text before each."""
    faults = faults.merged()
    return Faults(lost=_with(text, faults.lost), wrong=_with(text, faults.wrong))


def _with(text: str, faults: Iterable[str]) -> list[str]:
    return [text + fault for fault in faults]


KINDS = [
    Kind(name="damaged images", attempt=image_try, tries=400, batch=20),
    Kind(name="damaged videos", attempt=video_try, tries=200, batch=10),
    Kind(name="damaged zips", attempt=zip_try, tries=150),
    Kind(name="damaged label files", attempt=label_try, tries=250),
]
