"""Result of an experiment: its rows, their differences, and the tables and files made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from norface_lib.common.paths import shown
from norface_lib.common.records import write_result
from norface_lib.networks.weights import save_classifier
from norface_lib.studies.cross_validation import CrossValidation, difference
from norface_lib.studies.experiment_tables import printed, published_numbers, tables_of
from norface_lib.studies.recipes import COMPARISONS


@dataclass(frozen=True, kw_only=True)
class Result:
    """Cross-validated rows by name, and how they were made."""

    rows: dict[str, CrossValidation]
    task: str
    dataset: str
    splits: list[str]  # names, in the order of a row's folds
    seeds: tuple[int, ...]
    leakage: str
    counts: dict[str, Any]
    settings: dict[str, Any]
    started: float  # time.monotonic()
    path: Path | None = None  # of the result file, if it was written

    @property
    def _first(self) -> CrossValidation:
        return next(iter(self.rows.values()))

    def table(self) -> pd.DataFrame:
        """A line for each row: headline, its 95 % interval over subjects, the score of all tested
        frames pooled, the spread over folds and seeds, further metrics, seconds."""
        lines = {}
        for name, row in self.rows.items():
            low, high = row.interval or (np.nan, np.nan)
            line = {"score": row.score, "low": low, "high": high, "pooled": row.pooled}
            line["spread"] = float(row.scores.std())
            lines[name] = line | row.further | {"seconds": row.seconds}
        table = pd.DataFrame(lines).T
        table.index.name = self._first.task.headline
        return table

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of `norface_lib.studies.experiment_tables` by name."""
        return tables_of(self.rows, self.dataset)

    def differences(self) -> dict[str, dict[str, Any]]:
        """`difference` of each pair of ``COMPARISONS`` whose rows are there."""
        return {
            what: difference(self.rows[first], self.rows[second])
            for what, (first, second) in COMPARISONS.items()
            if first in self.rows and second in self.rows
        }

    def difference_table(self) -> pd.DataFrame:
        """A line for each difference: its value, its 95 % intervals over subjects and over
        trainings, and the p-value over trainings; rounded to three digits."""
        return differences_table(self.differences(), "adds").round(3)

    def report(self) -> str:
        """All tables as text, with intervals, constant baselines and published numbers."""
        task = self._first.task
        head = (
            f"{task.headline}, last step, mean over {len(self.splits)} split(s) and "
            f"{len(self.seeds)} seed(s)"
        )
        if task.name == "au_detection":
            head += ", threshold 0.5"
        lines = ["", head, _trained(self._first.extents), ""]
        for table in self.tables().values():
            lines += [printed(table), ""]
        for name, row in self.rows.items():
            interval = "(too few subjects for an interval)"
            if row.interval:
                interval = "[{:.3f}, {:.3f}] over subjects".format(*row.interval)
            lines.append(
                f"{name}: {row.score:.3f} {interval}; constant baseline {row.constant_baseline:.3f}"
            )
        lines.append("an oracle was chosen on the test rows: it is comparable with nothing")
        if len(self.rows) > 1 and self.differences():
            lines += ["", "what a row adds", self.difference_table().to_string(), ""]
        lines += _published(published_numbers(task, self.dataset))
        if self.path is not None:
            lines.append(f"(see {shown(self.path)})")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Rows and differences, for a result file."""
        return {
            "rows": {name: row.as_dict() for name, row in self.rows.items()},
            "differences": self.differences(),
        }

    def write(self, path: Path) -> "Result":
        """Writes the result file, with seeds, counts, leakage, settings, machine and versions."""
        write_result(
            path,
            {"experiment": self.task} | self.as_dict(),
            seed=list(self.seeds),
            started=self.started,
            counts=self.counts,
            leakage=self.leakage,
            settings=self.settings,
        )
        return replace(self, path=Path(path))

    def card(self) -> dict[str, Any]:
        """Entries that the card of every classifier of this experiment has."""
        return {
            "task": self.task,
            "data": self.settings["experiment"]["data"],
            "protocol": self.settings["experiment"]["protocol"],
            "normalizer": self.settings["weights"],
            "seed": self.seeds[0],
            "counts": self.counts,
        }

    def save_classifiers(self, folder: Path, rows: Sequence[str] = ()) -> list[Path]:
        """Writes the classifiers of the first seed, ``<row>-<split>.safetensors`` for each split;
        ``rows``: default all."""
        return [
            save_classifier(
                model,
                Path(folder) / f"{name}-{split}.safetensors",
                self.card() | {"split": split},
            )
            for name in rows or self.rows
            for split, model in zip(self.splits, self.rows[name].models, strict=True)
        ]


def differences_table(differences: Mapping[str, Mapping[str, Any]], column: str) -> pd.DataFrame:
    """A line for each of some differences, as `difference` gives them: its value in ``column``, and
    what is known of its intervals over subjects and over trainings, and of its p-value."""
    lines = {}
    for what, values in differences.items():
        low, high = values["subjects"] or (np.nan, np.nan)
        lines[what] = {column: values["value"], "low": low, "high": high}
        if "trainings" in values:
            low, high = values["trainings"]
            lines[what] |= {"low (trainings)": low, "high (trainings)": high}
        if "p" in values:
            lines[what]["p"] = values["p"]
    return pd.DataFrame(lines).T


def _trained(extents: Sequence[dict[str, float]]) -> str:
    """How long each fold was trained, as text; from least to most where folds differ."""
    shown = {}
    for name in extents[0]:
        values = sorted({extent[name] for extent in extents})
        shown[name] = " to ".join(
            f"{value:,.4g}" if value < 100 else f"{value:,.0f}"
            for value in (values if len(values) == 1 else (values[0], values[-1]))
        )
    return (
        f"trained for {shown['epochs']} epochs of the training rows: {shown['steps']} steps of "
        f"{shown['effective_batch']} samples, {shown['samples_seen']} samples in all"
    )


def _published(numbers: pd.DataFrame) -> list[str]:
    """What the published numbers are of; nothing where there are none."""
    if numbers.empty:
        return []
    about = f"published: {numbers.attrs['metric']} on real faces, {numbers.attrs['protocol']}"
    return [about + (f"; {numbers.attrs['caution']}" if "caution" in numbers.attrs else "")]
