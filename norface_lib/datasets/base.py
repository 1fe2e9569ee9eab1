"""What all datasets share: a table of frames and labels, a report of what was found and dropped,
and items for training."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_table
from norface_lib.common.paths import shown
from norface_lib.datasets.frames import FrameReader, Listing
from norface_lib.images.crop import ALIGNED, NORFACE_CROP, POINT_COLUMNS, Crop, align_face, crop_of
from norface_lib.labels import UNKNOWN

KEYS = ("subject", "sequence", "frame", "path", "part")
"""Columns that every index has before its labels. ``frame`` is the dataset's own number, ``part``
train, val, test or empty."""

_TEXT = tuple(key for key in KEYS if key != "frame")

EMOTION = "emotion"
"""The one label of an emotion dataset: the position of the emotion in the dataset's ``classes``."""

_EXAMPLES = 3


@dataclass
class Report:
    """What a dataset's folder held: ``found``; what was left out and why: ``dropped``; what was
    kept but is odd: ``noted``.

    ``print(report)`` shows the counts, with a few examples of each reason.
    """

    title: str
    found: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, example: object, count: int = 1) -> None:
        """Counts what was left out."""
        self._count(self.dropped, reason, example, count)

    def note(self, reason: str, example: object, count: int = 1) -> None:
        """Counts what was kept, or never belonged to the data, and should be known."""
        self._count(self.noted, reason, example, count)

    def _count(self, counts: dict[str, int], reason: str, example: object, count: int) -> None:
        if count <= 0:
            return
        counts[reason] = counts.get(reason, 0) + count
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES and str(example) not in examples:
            examples.append(str(example))

    def __str__(self) -> str:
        lines = [
            f"{self.title}: "
            + (", ".join(f"{count:,} {what}" for what, count in self.found.items()) or "nothing")
        ]
        for head, counts in (("dropped", self.dropped), ("noted", self.noted)):
            lines += [f"{head}:"] if counts else []
            for reason, count in counts.items():
                lines.append(f"  {count:>9,}  {reason} ({'; '.join(self.examples[reason])})")
        return "\n".join(lines)


class FaceDataset(Dataset):
    """Frames of a dataset with their labels, as a map-style dataset.

    ``index`` is a table with a row per frame: ``KEYS``, then one float column per label in the
    order of ``labels``, NaN where a label is unknown; a dataset may add columns after these.
    Subclasses say how a folder is scanned; an index that was saved spares the scan.
    """

    title: ClassVar[str]
    source: ClassVar[str]  # who gives the data out, and where to apply
    tree: ClassVar[str]  # what the root should hold
    tasks: ClassVar[tuple[str, ...]] = ()  # that it has labels of
    published: ClassVar[str] = ""  # counts of the complete data, to compare a report with
    labels: tuple[str, ...]
    classes: tuple[str, ...] = ()  # names of the emotions that the label ``emotion`` counts
    highest: float = 1.0  # the highest value of a label

    def __init__(
        self,
        root: Path,
        transform: Callable[[NDArray[np.uint8]], Any] | None = None,
        index: Any = None,
    ):
        self.root = Path(root)
        self.transform = transform
        self.report = Report(self.title)
        if not self.root.is_dir():
            raise self._refusal("no such folder")
        self.listing = Listing(self.root)
        self.index = (
            self._check_scan(self._scan())
            if index is None
            else load_index(index, self.labels, self.highest)
        )
        del self.listing  # 300,000 names that no worker needs
        self.read = FrameReader(self.root)
        self._points: dict[str, NDArray[np.float64]] | None = None
        self._size = 0
        self._summarize()

    @classmethod
    def checked_task(cls, task: str) -> str:
        """The task, if the dataset has labels of it; else raises ``ValueError``."""
        if task not in cls.tasks:
            raise ValueError(f"task of {cls.title} must be {' or '.join(cls.tasks)}, got {task!r}")
        return task

    def _scan(self) -> pd.DataFrame:
        """The index, made from the folder; counts into ``report``. An empty one means that nothing
        of the layout is there."""
        raise NotImplementedError

    def _refusal(self, what: str) -> DataError:
        tree = "\n".join(f"    {line}" for line in self.tree.strip().splitlines())
        found = (
            sorted(path.name + "/" * path.is_dir() for path in self.root.iterdir())
            if self.root.is_dir()
            else []
        )
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        inside = (
            f"\nFound instead: {', '.join(found[:8]) or 'an empty folder'}{more}"
            if self.root.is_dir()
            else ""
        )
        return DataError(
            f"{self.root}: {what}. {self.source}\nPoint the root at a folder that "
            f"holds\n{tree}{inside}"
        )

    def _check_scan(self, index: pd.DataFrame) -> pd.DataFrame:
        if index.empty:
            said = "; ".join(
                f"{count} x {reason}"
                for reason, count in (self.report.dropped | self.report.noted).items()
            )
            raise self._refusal(
                f"holds no labeled frame of {self.title}" + (f" ({said})" if said else "")
            )
        extra = [name for name in index.columns if name not in (*KEYS, *self.labels)]
        return index[[*KEYS, *self.labels, *extra]].reset_index(drop=True)

    def _summarize(self) -> None:
        index = self.index
        self.report.found = {"frames": len(index), "subjects": index["subject"].nunique()}
        sequences = len(index[["subject", "sequence"]].drop_duplicates())
        self.report.found |= {"sequences": sequences} if (index["sequence"] != "").any() else {}
        parts = index["part"].value_counts(sort=False)
        self.report.found |= {f"in {part}": int(count) for part, count in parts.items() if part}

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Image (H, W, 3) of 8 bits, RGB (or what ``transform`` makes of it); labels (L,) float32,
        NaN where unknown, and mask (L,) of bool, True where known; subject, sequence, frame, path.
        Raises :class:`DataError` for an unreadable frame."""
        row = self.index.iloc[item]
        values = row[list(self.labels)].to_numpy(np.float32)
        image = self.image(row) if self.transform is None else self.transform(self.image(row))
        keys = {
            "subject": row["subject"],
            "sequence": row["sequence"],
            "frame": int(row["frame"]),
            "path": row["path"],
        }
        return {"image": image, "labels": values, "mask": ~np.isnan(values), **keys}

    def image(self, row: pd.Series) -> NDArray[np.uint8]:
        """The face of a row of ``index``: (H, W, 3) of 8 bits, RGB; its `picture`, cropped if the
        dataset is `aligned_by`."""
        image = self.picture(row)
        return (
            image
            if self._points is None
            else align_face(image, self._points[row["path"]], NORFACE_CROP, self._size)
        )

    def picture(self, row: pd.Series) -> NDArray[np.uint8]:
        """What the dataset has for a row of ``index``: (H, W, 3) of 8 bits, RGB."""
        return self.read(row["path"])

    @property
    def framing(self) -> Crop:
        """How its images frame a face. Raises :class:`DataError` if the root's ``crop.json`` is
        damaged."""
        return crop_of(self.root) if self._points is None else NORFACE_CROP

    def aligned_by(self, points: Path, size: int = 224) -> "FaceDataset":
        """The same dataset, whose images are crops of ``size`` px by a table of five points, which
        `find_points` wrote.

        Frames without a face, or that are not in the table, are dropped and counted. Raises
        :class:`DataError` if the table is missing or damaged, or knows no frame of the dataset.
        """
        table = read_points(points).set_index("path")
        status = self.index["path"].map(table["status"]).fillna("not in the table of points")
        kept = status == ALIGNED
        if not kept.any():
            raise DataError(
                f"{points}: knows no face in a frame of {self.root}; align this dataset first"
            )
        part = self.select(kept)
        part.report = copy.deepcopy(self.report)
        for reason, count in status[~kept].value_counts().items():
            part.report.drop(
                f"frame: {reason}", self.index["path"][status == reason].iloc[0], int(count)
            )
        found = table.loc[part.index["path"], list(POINT_COLUMNS)].to_numpy(float).reshape(-1, 5, 2)
        part._points, part._size = dict(zip(part.index["path"], found, strict=True)), size
        part._summarize()
        return part

    def values(self) -> NDArray[np.float32]:
        """(N, L) labels, NaN where unknown."""
        return self.index[list(self.labels)].to_numpy(np.float32)

    def select(self, rows: NDArray | Sequence[int]) -> "FaceDataset":
        """The same dataset with only some rows (positions or a mask), as a fold needs it. The
        report stays the whole's."""
        part = copy.copy(self)
        part.index = self.index.iloc[np.arange(len(self))[np.asarray(rows)]].reset_index(drop=True)
        part.read = FrameReader(self.root)
        return part

    def save_index(self, path: Path) -> Path:
        """Writes the index as CSV; pass the file as ``index`` to spare the scan next time."""
        return write_table(self.index, path)

    def check(self, progress: bool = True) -> Report:
        """Reads every frame once, and drops those that cannot be read from the index and into the
        report."""
        good = np.ones(len(self), bool)
        rows = tqdm(
            range(len(self)),
            desc=f"check {self.title}",
            unit="frame",
            disable=not progress,
            leave=False,
        )
        for item in rows:
            try:
                self.image(self.index.iloc[item])
            except DataError:
                good[item] = False
                self.report.drop("unreadable frame", self.index["path"].iloc[item])
        self.index = self.index[good].reset_index(drop=True)
        self._summarize()
        return self.report

    def base_rates(self) -> pd.Series:
        """Share of each label in 0..1: of each emotion over all images, or of frames that show an
        AU at 1 (A) or above, where it is coded (NaN if it never is)."""
        if self.classes:
            counts = self.index[EMOTION].value_counts(normalize=True)
            return pd.Series(
                {name: float(counts.get(number, 0.0)) for number, name in enumerate(self.classes)}
            )
        values = self.index[list(self.labels)]
        return (
            (values >= labels.OCCURRENCE_THRESHOLD - 1e-4)
            .where(values.notna())
            .astype(float)
            .mean()
        )


def read_points(path: Path) -> pd.DataFrame:
    """A table of five points: ``path``, ``status``, ``score`` and ``POINT_COLUMNS``, in pixels from
    the frame's corner.

    Raises :class:`DataError` if it is missing, no such table, or lacks a point of a face that was
    aligned.
    """
    try:
        table = pd.read_csv(
            path,
            dtype={"path": str, "status": str},
            keep_default_na=False,
            na_values={name: [""] for name in POINT_COLUMNS},
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: no readable table of points ({error}); make it with `align --layout`"
        ) from error
    if missing := [
        name for name in ("path", "status", *POINT_COLUMNS) if name not in table.columns
    ]:
        raise DataError(
            f"{path}: lacks the column(s) {', '.join(missing)}; make it with `align --layout`"
        )
    places = table.loc[table["status"] == ALIGNED, list(POINT_COLUMNS)].apply(
        pd.to_numeric, errors="coerce"
    )
    if places.isna().to_numpy().any() or table["path"].duplicated().any():
        raise DataError(
            f"{path}: a face lacks a point, or a frame is listed twice; delete the table, and "
            "align again"
        )
    return table


def sequence_rows(
    subject: str,
    sequence: str,
    coded: pd.DataFrame,
    frames: dict[int, str],
    report: Report,
    where: object,
) -> pd.DataFrame:
    """Index rows of one sequence: ``coded`` (label columns by frame number) joined with the images
    of ``frames``.

    Frames are matched by number. Labels without an image are dropped and images without labels
    noted, both counted.
    """
    there = coded.index.isin(list(frames))
    missing, uncoded = coded.index[~there], sorted(set(frames) - set(coded.index))
    report.drop("label row without an image", f"{where}, frame {missing.min()}", len(missing))
    report.note("image without a label row", frames[uncoded[0]] if uncoded else "", len(uncoded))
    table = coded[there].rename_axis("frame").reset_index()
    table["path"] = [frames[number] for number in table["frame"]]
    return table.assign(subject=subject, sequence=sequence, part="")


def single_images(images: list[dict[str, Any]]) -> pd.DataFrame:
    """Index of images that are no video: each its own subject, as datasets from the web name no
    persons."""
    table = pd.DataFrame(images, columns=None if images else [*KEYS, EMOTION])
    if len(table):
        table["subject"] = (
            table["part"]
            + "/"
            + table["path"].str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
        )
    return table.assign(sequence="", frame=0)


def read_codes(path: Path, report: Report, header: bool) -> pd.DataFrame:
    """A table of codes, indexed by the frame number in its first column, with its other columns as
    floats.

    A row that is cut short is dropped, and so is a frame that was listed before; both are counted.
    Raises :class:`DataError`, naming the line, if this is no table, or a row does not begin with a
    frame number.
    """
    options = {
        "header": 0 if header else None,
        "index_col": False,
        "skipinitialspace": True,
        "encoding": "utf-8-sig",
    }
    try:
        with warnings.catch_warnings():
            # rows that are longer than the header
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, **options)
    # pandas' parser errors are ValueErrors
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise DataError(
            f"{path}: not a readable label table ({error}); download it again"
        ) from error
    if table.shape[1] < 2 or table.empty:
        raise DataError(
            f"{path}: holds no label (frame and code, separated by commas, are expected); download "
            "it again"
        )
    whole = table.notna().all(axis=1)
    report.drop("label row that is cut short", path.name, int((~whole).sum()))
    numbers = table[whole]
    if not all(map(pd.api.types.is_numeric_dtype, numbers.dtypes)):
        # -1 is no code and no frame, as text is not
        numbers = numbers.apply(pd.to_numeric, errors="coerce").fillna(-1.0)
    frames = numbers.iloc[:, 0]
    if (wrong := ~((frames >= 0) & (frames < 1e9) & (frames % 1 == 0))).any():
        line = int(numbers.index[wrong][0]) + 1 + header
        raise DataError(
            f"{path}: line {line} does not begin with a frame number; download it again"
        )
    codes = numbers.iloc[:, 1:].set_axis(pd.Index(frames.astype(int), name="frame"), axis=0)
    again = codes.index.duplicated()
    report.drop("label row of a frame that was listed before", path.name, int(again.sum()))
    return codes[~again]


def known_values(
    codes: pd.DataFrame, highest: float, report: Report, where: object
) -> pd.DataFrame:
    """Codes of AUs, NaN where a code is 9 (unknown) or is no whole number of 0..``highest``; both
    are counted."""
    values = codes.to_numpy(float)
    unknown, valid = values == UNKNOWN, (values >= 0) & (values <= highest) & (values % 1 == 0)
    report.note("label value 9 (unknown), masked", where, int(unknown.sum()))
    report.note(
        "label value that is no code, masked",
        where,
        int((~valid & ~unknown & ~np.isnan(values)).sum()),
    )
    return pd.DataFrame(np.where(valid, values, np.nan), codes.index, codes.columns)


def load_index(
    index: pd.DataFrame | Path, columns: tuple[str, ...], highest: float = 1.0
) -> pd.DataFrame:
    """An index table, checked, from a table or from a CSV that ``save_index`` wrote.

    Raises :class:`DataError` if it is no table, lacks a column, holds the labels of another task,
    or a label outside 0..``highest``.
    """
    if isinstance(index, pd.DataFrame):
        return _check_index(index.reset_index(drop=True), columns, highest, "index")
    path = Path(index)
    try:
        blank = {name: [""] for name in columns}
        table = pd.read_csv(
            path, dtype=dict.fromkeys(_TEXT, str), na_values=blank, keep_default_na=False
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable index table ({error}); leave it out to scan the folder again"
        ) from error
    return _check_index(table, columns, highest, shown(path))


def _check_index(
    table: pd.DataFrame, columns: tuple[str, ...], highest: float, name: str
) -> pd.DataFrame:
    if missing := [column for column in (*KEYS, *columns) if column not in table.columns]:
        raise DataError(
            f"{name}: lacks the column(s) {', '.join(missing)}; leave it out to scan the folder "
            "again"
        )
    found = [column for column in table.columns if column == EMOTION or column.startswith("AU")]
    if found != list(columns):
        raise DataError(
            f"{name}: holds the labels {', '.join(found)}, but {', '.join(columns)} are wanted; "
            "scan again"
        )
    numbers = table[["frame", *columns]].apply(pd.to_numeric, errors="coerce")
    values = numbers[list(columns)]
    wrong = table[list(columns)].notna() & ~((values >= 0) & (values <= highest + 1e-4))
    if table.empty or numbers["frame"].isna().any() or wrong.to_numpy().any():
        raise DataError(
            f"{name}: holds no row, a frame that is no number, or a label outside 0..{highest:g}; "
            "scan again"
        )
    return table.assign(**{column: values[column].astype(float) for column in columns})
