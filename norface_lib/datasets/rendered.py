"""The rendered benchmark as a dataset: originals, the true normalized images, and exact labels."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.paths import inside, target_picture
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.index import EMOTION
from norface_lib.datasets.label_table import (
    coded_table,
    emotions_of,
    expression_columns,
    read_labels,
    read_spec,
)
from norface_lib.images.files import read_face, read_faces


class Rendered(FaceDataset):
    """A rendered benchmark, which `norface_lib.faces.writing.write_benchmark` wrote; its index also
    has the column ``truth``, the path of the true I_n.

    Items are read frame by frame; ``table``, ``originals``, ``truths`` and ``targets`` are read
    whole into memory at first use, in the order of ``index``. ``task`` is ``au_detection``
    (``aus``, 0 or 1), ``au_intensity`` (``aus``, 0..5) or ``emotion`` (8 classes in AffectNet's
    order; a frame without one is dropped and counted). ``coder_errors``: share of labels that
    simulated coders get wrong (`norface_lib.datasets.label_table.coded_table`); None: exact labels.
    ``progress``: a bar while faces are read into memory.
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
        progress: bool = False,
    ):
        self.coder_errors = coder_errors
        self.progress = progress
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

    @classmethod
    def from_arrays(cls, table: pd.DataFrame, **arrays: Any) -> "Rendered":
        """A benchmark that is in memory only: a label table and, by name, ``originals``,
        ``truths``, ``targets`` and ``names``."""
        data = cls.__new__(cls)
        data.root = Path()
        data.index = table
        vars(data).update(names=("noor",), table=table, truths=None)
        vars(data).update(arrays)
        return data

    # --- in memory --------------------------------------------------------------------------------

    @cached_property
    def table(self) -> pd.DataFrame:
        """Rows of the label table."""
        table = self._read_table().set_index("image", drop=False)
        return table.loc[self.index["path"]].reset_index(drop=True)

    @cached_property
    def originals(self) -> NDArray[np.uint8]:
        """(N, S, S, 3) originals, RGB of 8 bits."""
        return self._faces("path")

    @cached_property
    def truths(self) -> NDArray[np.uint8] | None:
        """(N, S, S, 3) true normalized images; None if the label table names none."""
        return self._faces("truth") if (self.index["truth"] != "").all() else None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the K targets."""
        return tuple(read_spec(self.root)["target"].split("+"))

    @cached_property
    def targets(self) -> NDArray[np.uint8]:
        """(K, S, S, 3) the target faces without expression."""
        size = read_spec(self.root)["size"]
        picture = self.root / "target.png"
        return np.stack(
            [read_face(target_picture(picture, self.names, name), size) for name in self.names]
        )

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
        return self.index["subject"].to_numpy(str)

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

    def _faces(self, column: str) -> NDArray[np.uint8]:
        paths = [inside(self.root, name) for name in self.index[column]]
        return read_faces(paths, read_spec(self.root)["size"], progress=self.progress)

    def _keep(self, rows: NDArray[np.intp]) -> None:
        super()._keep(rows)
        for name in ("originals", "truths"):
            if vars(self).get(name) is not None:
                setattr(self, name, vars(self)[name][rows])
        if "table" in vars(self):
            self.table = self.table.iloc[rows].reset_index(drop=True)

    # --- scan -------------------------------------------------------------------------------------

    def _read_table(self) -> pd.DataFrame:
        table = read_labels(self.root, self.aus)
        if self.coder_errors is None:
            return table
        return coded_table(table, self.coder_errors, read_spec(self.root).get("seed", 0))

    def _scan(self) -> pd.DataFrame:
        table = self._read_table().rename(columns={"image": "path"})
        own = ("labels.csv", "benchmark.json", "crop.json", "target.png", "landmarks.npz")
        self.accounted.update(own, table["path"])
        if "truth" in table:
            self.accounted.update(table["truth"].dropna().astype(str))
        there = table["path"].map(lambda path: self.listing.find(str(path)) is not None)
        for path in table["path"][~there]:
            self.report.drop("listed image that is missing", path)
        kept = table[there & self._has_label(table)]
        texts = {
            name: table[name].astype(object).fillna("").astype(str) if name in table else ""
            for name in ("sequence", "part", "truth")
        }
        return kept[["subject", "frame", "path"]].assign(**texts, **self._labels(kept))

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
