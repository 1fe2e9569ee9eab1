"""Where the frames of an experiment come from: a dataset by name and folder, or a rendered
benchmark by its specification."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from norface_lib.common.paths import cache
from norface_lib.datasets import dataset_class, open_dataset
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.options import check_options
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.writing import write_benchmark

DEFAULT_PROTOCOLS: Mapping[str, str] = {
    "bp4d": "bp4d/3fold",
    "bp4d_plus": "bp4d_plus/4fold-fmae",
    "disfa": "disfa/3fold",
    "affectnet": "affectnet/official",
    "rafdb": "rafdb/official",
    "rendered": "rendered/3fold-seed0",
}

_SEEDED = "3fold-seed0"
"""The split that every dataset has: the people at hand, shuffled."""


def default_protocol(dataset: str, tested: str = "") -> str:
    """The protocol of a dataset, or of one that is tested by what another one teaches: the split
    that is usual for both, else three folds of the people at hand."""
    if not tested:
        return DEFAULT_PROTOCOLS[dataset]
    splits = {DEFAULT_PROTOCOLS[name].partition("/")[2] for name in (dataset, tested)}
    return f"{dataset}->{tested}/{splits.pop() if len(splits) == 1 else _SEEDED}"


@dataclass(frozen=True)
class DataSource:
    """``data``: the name of a dataset, or the specification of a rendered benchmark, which is
    rendered where it is missing. ``root``: folder of the dataset; of a benchmark, default in the
    cache. ``points``: a table of points by which whole frames are cropped. ``options``: of the
    dataset's loader."""

    data: str | BenchmarkSpec
    root: Path | None = None
    points: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.data if isinstance(self.data, str) else "rendered"

    def check(self, task: str, root_option: str = "root") -> None:
        """Raises ``ValueError`` for a dataset without labels of a task, for options that its loader
        does not have, and for a folder that is not named (by ``root_option``)."""
        tasks = dataset_class(self.name).tasks if self.name in DEFAULT_PROTOCOLS else ()
        if task not in tasks:
            known = "; ".join(
                f"{name}: {', '.join(dataset_class(name).tasks)}" for name in DEFAULT_PROTOCOLS
            )
            raise ValueError(f"no {task!r} on {self.name!r}; there are {known}")
        check_options(self.name, tuple(self.options))
        if isinstance(self.data, str) and self.root is None:
            raise ValueError(f"{self.data} needs {root_option}, the folder where it lies")

    def opened(self, **options: Any) -> FaceDataset:
        """The dataset; ``options`` are further ones of its class, and None leaves one out."""
        root = self.root
        if isinstance(self.data, BenchmarkSpec):
            root = root or cache(self.data.pool, spec=self.data)
            write_benchmark(self.data, root, progress=False)
        given = {name: value for name, value in options.items() if value is not None}
        data = open_dataset(self.name, root, **self.options, **given)
        return data if self.points is None else data.aligned_by(self.points)
