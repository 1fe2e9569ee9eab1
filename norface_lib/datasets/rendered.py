"""The rendered benchmark as a dataset: label table, originals, and the true normalized images."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_json, write_table
from norface_lib.common.paths import target_picture
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.index import EMOTION
from norface_lib.images.files import read_face, read_faces


@dataclass(frozen=True)
class Rendered:
    """A rendered benchmark in memory. Faces are (N, S, S, 3) RGB of 8 bits in the order of
    ``table``'s rows."""

    root: Path
    table: pd.DataFrame
    originals: NDArray[np.uint8]
    truths: NDArray[np.uint8] | None
    targets: NDArray[np.uint8]  # (K, S, S, 3), the target faces without expression
    names: tuple[str, ...] = ("noor",)  # of the targets

    def __len__(self) -> int:
        return len(self.table)

    @property
    def target(self) -> NDArray[np.uint8]:
        """(S, S, 3) the target face, or the first of several."""
        return self.targets[0]

    @property
    def target_of(self) -> NDArray[np.intp]:
        """(N,) number of the target that each true image shows."""
        if "target" not in self.table.columns:
            return np.zeros(len(self), np.intp)
        return self.table["target"].map(self.names.index).to_numpy(np.intp)

    @property
    def subjects(self) -> NDArray[np.str_]:
        """(N,) subject of each face."""
        return self.table["subject"].to_numpy(str)

    def intensities(self, aus: tuple[int, ...] = labels.BP4D_AUS) -> NDArray[np.float32]:
        """(N, A) intensity of each AU, 0..5."""
        return self.table[list(labels.columns(aus))].to_numpy(np.float32)

    def occurrences(self, aus: tuple[int, ...] = labels.BP4D_AUS) -> NDArray[np.float32]:
        """(N, A) 1 where an AU occurs at intensity A or above, else 0."""
        # tables hold six digits
        return (self.intensities(aus) >= labels.OCCURRENCE_THRESHOLD - 1e-4).astype(np.float32)

    def expression_codes(self) -> tuple[NDArray[np.float32], tuple[str, ...], NDArray[np.intp]]:
        """All that is known of the expression: (N, E) intensities 0..1, each side on its own where
        sides differ.

        Also the E column names, and the column order that a mirrored face has.
        """
        names = expression_columns(self.table)
        swap = {"L": "R", "R": "L"}
        mirrored = np.array(
            [
                names.index(name[:-1] + swap[name[-1]]) if name[-1] in swap else i
                for i, name in enumerate(names)
            ]
        )
        return self.table[list(names)].to_numpy(np.float32) / labels.INTENSITY_MAX, names, mirrored

    def select(self, rows: NDArray) -> "Rendered":
        """The same benchmark with only some rows (indices or a mask)."""
        truths = None if self.truths is None else self.truths[rows]
        table = self.table.iloc[np.arange(len(self))[rows]]
        return Rendered(self.root, table, self.originals[rows], truths, self.targets, self.names)


def join_benchmarks(roots: Sequence[Path], out: Path) -> int:
    """One benchmark folder of several, rendered faces and pseudo-pairs of photographs alike.
    Returns its number of faces.

    Images are linked where that can be, else copied. Columns that only some tables have stay empty
    in the others. What ``benchmark.json`` says is the first one's, and, under ``parts``, each one's
    own. Raises :class:`DataError` if they draw other targets, at other sizes, or have other AU
    columns, and if ``out`` is there already.
    """
    roots, out = [Path(root) for root in roots], Path(out)
    if out.exists():
        raise DataError(f"{out}: is there already; choose another folder or delete it")
    specs = [_read_spec(root) for root in roots]
    tables = [read_labels(root) for root in roots]
    for root, spec, table in zip(roots, specs, tables, strict=True):
        if (spec["size"], spec["target"]) != (specs[0]["size"], specs[0]["target"]):
            raise DataError(f"{root}: its target or its size is another than in {roots[0]}")
        if expression_columns(table) != expression_columns(tables[0]):
            raise DataError(f"{root}: its AU columns are others than in {roots[0]}")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for number, (root, table) in enumerate(zip(roots, tables, strict=True)):
        for column in ("image", "truth"):
            moved = f"{number}/" + table[column].astype(str)
            for name, place in tqdm(
                zip(table[column], moved, strict=True),
                total=len(table),
                desc=f"{root.name} {column}",
            ):
                _link(root / name, part / place)
            table[column] = moved
    write_table(pd.concat(tables, ignore_index=True), part / "labels.csv")
    counts = [{"faces": len(table), "people": int(table["subject"].nunique())} for table in tables]
    parts = [count | spec for count, spec in zip(counts, specs, strict=True)]
    write_json(specs[0] | {"parts": parts}, part / "benchmark.json")
    for picture in roots[0].glob("target*.png"):
        shutil.copyfile(picture, part / picture.name)
    part.rename(out)
    return sum(map(len, tables))


def _link(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), place)
    except FileNotFoundError as error:
        raise DataError(f"{source}: listed in the label table but missing") from error
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, place)


def _read_spec(root: Path) -> dict[str, Any]:
    """What ``benchmark.json`` says. Raises :class:`DataError` if it is missing or damaged."""
    try:
        spec = json.loads((root / "benchmark.json").read_text())
        return spec | {"size": int(spec["size"]), "target": str(spec["target"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{root / 'benchmark.json'}: missing or damaged; render the benchmark again"
        ) from error


def coded(data: Rendered, errors: float = 0.03, seed: int = 0) -> Rendered:
    """The benchmark as human coders would have labeled it: whole levels 0..5, and a share of
    ``errors`` of wrong labels.

    Of an AU that occurs at rate p, ``errors`` / 2 of all frames are misses and as many are false
    alarms, so that its rate stays: it is missed with chance errors / (2 p), at most one half, the
    weaker the rather, and seen as A (1) where it is not with the same number of frames. As many
    images are given another emotion, of which each is as likely. Two trained coders of real data
    differ at least so much; the amounts are our choice. The columns of either side stay true.
    """
    return replace(data, table=coded_table(data.table, errors, seed))


def coded_table(table: pd.DataFrame, errors: float = 0.03, seed: int = 0) -> pd.DataFrame:
    """A label table with simulated coder errors, as `coded` describes them."""
    rng = np.random.default_rng([seed, 77])
    table = table.copy()
    for name in (name for name in table.columns if name.startswith("AU") and name[-1] not in "LR"):
        table[name] = _coded_levels(table[name].to_numpy(float), errors, rng)
    if EMOTION in table.columns:
        named = _named(table).to_numpy(object)
        wrong = (rng.random(len(table)) < errors) & (named != "")
        named[wrong] = rng.choice(labels.EMOTIONS, wrong.sum())
        table[EMOTION] = named
    return table


def _coded_levels(
    intensity: NDArray[np.float64], errors: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Whole levels (N,) of intensities (N,), with misses and as many false alarms."""
    levels = np.where(
        intensity >= labels.OCCURRENCE_THRESHOLD - 1e-4, np.maximum(np.rint(intensity), 1.0), 0.0
    )
    shown, absent = np.flatnonzero(levels), np.flatnonzero(levels == 0)
    count = int(min(rng.binomial(len(levels), errors / 2), len(shown) // 2, len(absent)))
    if count:
        chances = np.exp(-levels[shown])
        missed = rng.choice(shown, count, replace=False, p=chances / chances.sum())
        levels[missed], levels[rng.choice(absent, count, replace=False)] = 0.0, 1.0
    return levels


def expression_columns(table: pd.DataFrame) -> tuple[str, ...]:
    """AU columns of a table, the two sides (``AU12L``, ``AU12R``) in place of their maximum where
    both are there."""
    columns = [name for name in table.columns if name.startswith("AU")]
    return tuple(name for name in columns if f"{name}L" not in columns)


def read_labels(root: Path, aus: tuple[int, ...] = labels.BP4D_AUS) -> pd.DataFrame:
    """The label table of a benchmark folder, checked.

    Raises :class:`DataError`, naming the file, if it is missing, empty or no table, lacks a column
    that ``aus`` needs, has an AU that is not known, or an intensity outside 0..5.
    """
    path = Path(root) / "labels.csv"
    if not path.is_file():
        raise DataError(
            f"{path}: no label table; make the benchmark with `python -m norface_lib render`"
        )
    try:
        table = pd.read_csv(path, dtype={"subject": str})
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path}: not a readable CSV table ({error})") from error
    if table.empty:
        raise DataError(f"{path}: holds no row")
    missing = [
        name
        for name in ("subject", "frame", "image", *labels.columns(aus))
        if name not in table.columns
    ]
    if missing:
        raise DataError(f"{path}: lacks the column(s) {', '.join(missing)}")
    _check_intensities(table, path)
    return table


def _check_intensities(table: pd.DataFrame, path: Path) -> None:
    known = {labels.au_column(au) + side for au in labels.AUS for side in ("", "L", "R")}
    columns = [name for name in table.columns if name.startswith("AU")]
    if unknown := [name for name in columns if name not in known]:
        raise DataError(
            f"{path}: unknown AU column(s) {', '.join(unknown)}; known are "
            f"{', '.join(labels.columns(tuple(labels.AUS)))}"
        )
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if (bad := ~((values >= 0) & (values <= labels.INTENSITY_MAX))).any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{path}: line {row + 2}, {columns[column]}: {table[columns[column]].iloc[row]!r} is "
            "no intensity of 0..5"
        )


def load_rendered(
    root: Path, truth: bool = True, aus: tuple[int, ...] = labels.BP4D_AUS, progress: bool = True
) -> Rendered:
    """Reads a benchmark that :func:`norface_lib.faces.writing.write_benchmark` wrote. ``truth``:
    the true I_n too."""
    root = Path(root)
    table = read_labels(root, aus)
    spec = _read_spec(root)
    size, names = spec["size"], tuple(spec["target"].split("+"))
    originals = read_faces([root / name for name in table["image"]], size, progress=progress)
    truths = (
        read_faces([root / name for name in table["truth"]], size, progress=progress)
        if truth
        else None
    )
    targets = np.stack(
        [read_face(target_picture(root / "target.png", names, name), size) for name in names]
    )
    return Rendered(root, table, originals, truths, targets, names)


class RenderedFaces(FaceDataset):
    """A rendered benchmark on disk, read frame by frame; its index also has the column ``truth``,
    the path of the true I_n.

    ``task`` is ``au_detection`` (``aus``, 0 or 1), ``au_intensity`` (``aus``, 0..5) or ``emotion``
    (8 classes in AffectNet's order; a frame without one is dropped and counted). ``coder_errors``:
    share of labels that simulated coders get wrong (`coded`); None: exact labels.
    """

    title = "Rendered"
    tasks = ("au_detection", "au_intensity", "emotion")
    source = "It is not downloaded but made: `python -m norface_lib render OUT`"
    tree = """
labels.csv                      a row per frame: subject, frame, image, truth, AU01, ...
images/lab0000/0000.jpg         truth/lab0000/0000.png"""

    def __init__(
        self,
        root: Path,
        task: str = "au_detection",
        aus: tuple[int, ...] = labels.BP4D_AUS,
        transform: Callable[..., Any] | None = None,
        index: Any = None,
        coder_errors: float | None = None,
    ):
        self.coder_errors = coder_errors
        self.task = self.checked_task(task)
        self.aus = () if task == "emotion" else tuple(aus)
        self.classes = labels.EMOTIONS if task == "emotion" else ()
        self.labels = (EMOTION,) if task == "emotion" else labels.columns(self.aus)
        self.highest = {
            "au_detection": 1.0,
            "au_intensity": labels.INTENSITY_MAX,
            "emotion": len(labels.EMOTIONS) - 1.0,
        }[task]
        super().__init__(root, transform, index)

    def _scan(self) -> pd.DataFrame:
        table = read_labels(self.root, self.aus).rename(columns={"image": "path"})
        if self.coder_errors is not None:
            table = coded_table(table, self.coder_errors, _read_spec(self.root).get("seed", 0))
        there = table["path"].map(lambda path: self.listing.find(str(path)) is not None)
        for path in table["path"][~there]:
            self.report.drop("listed image that is missing", path)
        kept = table[there & self._has_label(table)]
        texts = {
            name: table[name].fillna("").astype(str) if name in table.columns else ""
            for name in ("sequence", "part")
        }
        return kept[["subject", "frame", "path"]].assign(
            **texts, **self._labels(kept), truth=table.get("truth", "")
        )

    def _has_label(self, table: pd.DataFrame) -> pd.Series:
        if self.task != "emotion":
            return pd.Series(True, table.index)
        names = emotions_of(table, self.root)
        for path in table["path"][names == ""]:
            self.report.drop("frame without an emotion", path)
        return names != ""

    def _labels(self, table: pd.DataFrame) -> dict[str, Any]:
        if self.task == "emotion":
            return {EMOTION: emotions_of(table, self.root).map(labels.EMOTIONS.index).astype(float)}
        values = table[list(self.labels)].astype(float)
        if self.task == "au_detection":
            # tables hold six digits
            values = (values >= labels.OCCURRENCE_THRESHOLD - 1e-4).astype(float)
        return dict(values.items())


def emotions_of(table: pd.DataFrame, root: Path) -> pd.Series:
    """Name of the emotion that each frame of a label table shows, or an empty text.

    Raises :class:`DataError` if the benchmark names no emotions, or an unknown one: none is guessed
    from AUs.
    """
    names = _named(table) if EMOTION in table.columns else pd.Series("", table.index)
    unknown = sorted(set(names) - {"", *labels.EMOTIONS})
    if unknown or not (names != "").any():
        what = f"unknown emotion(s) {', '.join(unknown)}" if unknown else "no frame has an emotion"
        raise DataError(
            f"{Path(root) / 'labels.csv'}: {what}; needed is a column emotion with "
            f"{', '.join(labels.EMOTIONS)}"
        )
    return names


def _named(table: pd.DataFrame) -> pd.Series:
    """The column of emotions as text, empty where there is none: a table without any holds NaN."""
    return table[EMOTION].astype(object).fillna("").astype(str)
