"""Result of an experiment that trains on one dataset and tests on another: what it costs not to
have learned from the tested dataset, and whether the normalized face makes that less."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from norface_lib.studies.cross_validation import CrossValidation, difference
from norface_lib.studies.recipes import COMPARISONS
from norface_lib.studies.result import Result, differences_table
from norface_lib.studies.statistics import bootstrap_interval, paired_t_interval


@dataclass(frozen=True, kw_only=True)
class CrossResult(Result):
    """Rows that learned from another dataset than the tested one, and ``in_domain`` the same rows
    trained on the tested dataset's other people. Both test the same frames, fold by fold."""

    in_domain: dict[str, CrossValidation]

    def gaps(self) -> dict[str, dict[str, Any]]:
        """In-domain minus cross-dataset headline of each row, as `difference` gives it: what is
        lost by learning elsewhere."""
        return {name: difference(self.in_domain[name], self.rows[name]) for name in self.in_domain}

    def shrinkages(self) -> dict[str, dict[str, Any]]:
        """By how much what is added makes the gap smaller, for each pair of ``COMPARISONS`` whose
        rows are there: `gap_difference`, positive where the gap shrinks."""
        return {
            what: gap_difference(
                (self.in_domain[second], self.rows[second]),
                (self.in_domain[first], self.rows[first]),
            )
            for what, (first, second) in COMPARISONS.items()
            if first in self.in_domain and second in self.in_domain
        }

    def gap_table(self) -> pd.DataFrame:
        """A line for each row: score in its own domain and across, and the gap between them with
        its 95 % interval over the tested people."""
        lines = {}
        for name, gap in self.gaps().items():
            low, high = gap["subjects"] or (np.nan, np.nan)
            lines[name] = {
                "in-domain": self.in_domain[name].score,
                "cross-dataset": self.rows[name].score,
                "gap": gap["value"],
                "low": low,
                "high": high,
            }
        return pd.DataFrame(lines).T

    def shrinkage_table(self) -> pd.DataFrame:
        """A line for each comparison: by how much the gap shrinks, with 95 % intervals over the
        tested people and over trainings."""
        return differences_table(self.shrinkages(), "gap shrinks by")

    def report(self) -> str:
        """The report of the rows, what the labels mean on both sides, and the gaps."""
        lines = [super().report(), "", "trained on one dataset, tested on another"]
        for side in ("source", "target"):
            count = self.counts[side]
            lines.append(
                f"{side}: {count['dataset']}, {count['frames']} frames of {count['subjects']} "
                f"people; {count['labels']}"
            )
        lines.append(f"labels in common: {', '.join(self._first.task.outputs)}")
        if not self.in_domain:
            return "\n".join([*lines, "no in-domain training: the split tests everybody"])
        lines += ["", self.gap_table().round(3).to_string()]
        if self.shrinkages():
            lines += ["", self.shrinkage_table().round(3).to_string()]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Rows, in-domain rows, differences, gaps and by how much they shrink."""
        return super().as_dict() | {
            "in_domain": {name: row.as_dict() for name, row in self.in_domain.items()},
            "gaps": self.gaps(),
            "shrinkages": self.shrinkages(),
        }


Pair = tuple[CrossValidation, CrossValidation]
"""In-domain, and across datasets."""


def gap_difference(larger: Pair, smaller: Pair) -> dict[str, Any]:
    """The gap of the first pair minus that of the second, on the same tested people, folds and
    seeds: ``value``; ``subjects``, interval over other tested people (None if a fold has fewer than
    two); ``trainings``, Student's interval over folds and seeds, where there are two or more."""
    parts = [*larger, *smaller]
    signs = np.array([1.0, -1.0, -1.0, 1.0])
    value = float(signs @ [part.score for part in parts])
    result: dict[str, Any] = {"value": value, "subjects": None}

    sums = np.stack([part.by_subject()[0] for part in parts], axis=1)
    _, folds = parts[0].by_subject()
    if np.bincount(folds).min() >= 2:
        low, high = bootstrap_interval(
            sums, lambda sums: parts[0].mean_score(sums) @ signs, folds=folds
        )
        result["subjects"] = [float(low), float(high)]
    gaps = [(first.scores - second.scores).ravel() for first, second in (larger, smaller)]
    if len(gaps[0]) > 1:
        over_trainings = paired_t_interval(*gaps)
        result["trainings"] = [float(over_trainings.low), float(over_trainings.high)]
    return result
