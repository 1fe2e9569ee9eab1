"""The class of all datasets: a table of frames and labels, a report on the folder, and items for
training."""

import copy
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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
from norface_lib.common.paths import no_folder
from norface_lib.common.tree import walk_tree
from norface_lib.datasets.frames import IN_VIDEO, IN_ZIP, FrameReader
from norface_lib.datasets.index import EMOTION, KEYS, load_index
from norface_lib.datasets.listing import Listing, kind_of, list_names
from norface_lib.datasets.report import Report
from norface_lib.images.crop import ALIGNED, NORFACE_CROP, POINT_COLUMNS, Crop, align_face, crop_of


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
            raise self._refusal(no_folder(self.root))
        self.listing = Listing(self.root)
        self.accounted: set[str] = set()
        if index is None:
            scanned = self._scan()
            self._count_unused(scanned)
            self.index = self._check_scan(scanned)
        else:
            self.index = load_index(index, self.labels, self.highest)
        del self.listing  # 300,000 names that no worker needs
        del self.accounted
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
        of the layout is there. Files that it has read or counted, beside those of the index, go
        into ``accounted``, by their path below the root."""
        raise NotImplementedError

    def _count_unused(self, index: pd.DataFrame) -> None:
        """Counts the files below the root that no rule of the dataset reads."""
        used = self._used_names(index)
        for folder in walk_tree(self.root, unreadable=self._unreadable_folder):
            identity = _identity(self.root / folder.path)
            for name in folder.files:
                if name in used.get(identity, ()):
                    continue
                kind = kind_of(name)
                if kind == "image" and folder.path:
                    kind = f"image in {folder.path.split('/')[0]}/"
                self.report.leave(kind, folder.below(name))

    def _used_names(self, index: pd.DataFrame) -> dict[Any, set[str]]:
        """Names of the files that are read or counted, by the identity of their folder: a link may
        lead to it by another name."""
        paths = set(index["path"]) if "path" in index else set()
        names: defaultdict[str, set[str]] = defaultdict(set)
        for path in paths | self.accounted:
            match = IN_ZIP.fullmatch(path) or IN_VIDEO.fullmatch(path)
            folder, _, name = (match["file"] if match else path).rpartition("/")
            names[folder].add(name)
        used: defaultdict[Any, set[str]] = defaultdict(set)
        for folder, files in names.items():
            used[_identity(self.root / folder)] |= files
        return used

    def _unreadable_folder(self, path: str) -> None:
        self.report.note("folder that cannot be listed", path or ".")

    def _names(self, folder: Path) -> list[str]:
        """Names in a folder below the root; none, which is noted, if it cannot be listed."""
        try:
            return list_names(self.root / folder)
        except DataError:
            self._unreadable_folder(folder.as_posix())
            return []

    def _refusal(self, what: str) -> DataError:
        tree = "\n".join(f"    {line}" for line in self.tree.strip().splitlines())
        inside = ""
        if self.root.is_dir():
            names = sorted(path.name + "/" * path.is_dir() for path in self.root.iterdir())
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            inside = f"\nFound instead: {', '.join(names[:8]) or 'an empty folder'}{more}"
        return DataError(
            f"{self.root}: {what}. {self.source}\nPoint the root at a folder that "
            f"holds\n{tree}{inside}"
        )

    def _check_scan(self, index: pd.DataFrame) -> pd.DataFrame:
        if index.empty:
            reasons = self.report.reasons()
            raise self._refusal(
                f"holds no labeled frame of {self.title}" + (f" ({reasons})" if reasons else "")
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
        if self._points is None:
            return image
        return align_face(image, self._points[row["path"]], NORFACE_CROP, self._size)

    def picture(self, row: pd.Series) -> NDArray[np.uint8]:
        """The image of a row of ``index`` as the dataset has it: (H, W, 3) of 8 bits, RGB."""
        return self.read(row["path"])

    @property
    def framing(self) -> Crop:
        """The framing of a face in its images.

        Raises :class:`DataError` if the root's ``crop.json`` is damaged.
        """
        return crop_of(self.root) if self._points is None else NORFACE_CROP

    def aligned_by(self, points: Path, size: int = 224) -> "FaceDataset":
        """The same dataset, whose images are crops by a table of five points, which `find_points`
        wrote: of ``size`` px, until a network asks for its own (`sized`).

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
        places = table.loc[part.index["path"], list(POINT_COLUMNS)].to_numpy(float)
        part._points = dict(zip(part.index["path"], places.reshape(-1, 5, 2), strict=True))
        part._size = size
        part._summarize()
        return part

    def sized(self, size: int) -> "FaceDataset":
        """The same dataset, whose crops are of ``size`` px if it is `aligned_by` points; images
        that are no crops stay as they are."""
        part = copy.copy(self)
        part._size = size
        return part

    def values(self) -> NDArray[np.float32]:
        """(N, L) labels, NaN where unknown."""
        return self.index[list(self.labels)].to_numpy(np.float32)

    def select(self, rows: NDArray | Sequence[int]) -> "FaceDataset":
        """The same dataset with only some rows (positions or a mask), as a fold needs it. The
        report stays the whole's."""
        part = copy.copy(self)
        part.read = FrameReader(self.root)
        part._keep(np.arange(len(self))[np.asarray(rows)])
        return part

    def _keep(self, rows: NDArray[np.intp]) -> None:
        """Leaves only some rows, by their positions, of all that has a row per frame."""
        self.index = self.index.iloc[rows].reset_index(drop=True)

    def batches(self, size: int) -> Iterator["FaceDataset"]:
        """The dataset in parts of ``size`` rows, with the same reader of frames: small enough to
        be sent to worker processes."""
        for start in range(0, len(self), size):
            part = self.select(np.arange(start, min(start + size, len(self))))
            part.read = self.read
            part.report = Report(self.title)
            if self._points is not None:
                part._points = {path: self._points[path] for path in part.index["path"]}
            yield part

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
        self._keep(np.flatnonzero(good))
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


def _identity(folder: Path) -> tuple[int, int] | None:
    """What a folder is, by whatever name; None for one that is gone."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


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
