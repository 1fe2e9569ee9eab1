"""Result files of the ablations of the normalizer: one for each configuration of the sweep
`normalizer`, as `NormalizerExperiment` writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from norface_lib.studies.person_distances import difference
from norface_lib.studies.result_files import PROFILES, ResultFile, ResultFiles
from norface_lib.studies.text_table import TextTable, with_interval

FOLDER = "ablations/normalizer"
"""Folder of the files, below that of a profile."""

WHOLE = "all-parts"
"""The experiment that the others are compared with."""

_STEPS = ("expression_steps", "synthesis_steps")


def normalizer_files(files: ResultFiles) -> dict[str, ResultFile]:
    """The files by the names of their experiments, of the first of the profiles that has some."""
    for profile in PROFILES:
        if found := files.matching(f"{profile}/{FOLDER}/*.json"):
            return {file.name: file for file in found if "normalizer" in file.result}
    return {}


def normalizer_rows(files: ResultFiles) -> pd.DataFrame:
    """A line for each experiment, by its name in words: first all parts, then the others from the
    best to the worst on `lab`. Empty if all parts have no file.

    ``lab`` and ``wild``: distance of I_n to the true one over that of the neutral target, with
    ``lab_low``, ``lab_high``, ... (95 % over people). On `lab`: ``brows``, ``eyes`` and ``mouth``
    of these parts of the face; ``each`` of each training; ``adds``, the difference from all parts,
    with ``adds_low`` and ``adds_high`` over the same people; ``by_chance``, see `chance_of`;
    ``sure``, whether that interval leaves out zero and ``adds`` is beyond chance; ``identity``, how
    many times more often than by chance a probe names the person by I_n, and ``identity_truth`` by
    the true one. ``varies``: ``people`` or ``steps`` if nothing else differs from all parts.
    """
    found = normalizer_files(files)
    if WHOLE not in found:
        return pd.DataFrame()
    lines = {name: _line(file, found[WHOLE]) for name, file in found.items()}
    table = pd.DataFrame(lines.values(), index=[name.replace("-", " ") for name in lines])
    whole = table.index == WHOLE.replace("-", " ")
    return pd.concat([table[whole], table[~whole].sort_values("lab")])


def scaling(rows: pd.DataFrame, over: str) -> pd.DataFrame:
    """Those of `normalizer_rows` that differ in ``people`` or in ``steps`` alone, all parts among
    them, from the least to the most."""
    first = np.arange(len(rows)) == 0
    return rows[first | (rows["varies"] == over)].sort_values(over)


def _line(file: ResultFile, whole: ResultFile) -> dict[str, Any]:
    experiment = file.content["settings"]["experiment"]
    by_pool = file.result["normalizer"]
    line = {
        "people": _people(experiment),
        "steps": sum(experiment[name] for name in _STEPS),
        "trainings": len(experiment["seeds"]),
        "varies": _varies(experiment, whole.content["settings"]["experiment"]),
        "minutes": float(np.mean(file.result["training_seconds"])) / 60,
    }
    for pool, measured in by_pool.items():
        line |= _interval(pool, measured["face_ratio"])
    lab = by_pool["lab"]
    line |= {part: lab[f"{part}_ratio"]["value"] for part in ("brows", "eyes", "mouth")}
    line |= {"identity": lab["identity"], "identity_truth": lab["probes"]["truth"]}
    reference = whole.result["normalizer"]["lab"]
    added = difference(lab["by_person"], reference["by_person"])
    low, high = added["interval"]
    chance = chance_of(reference["each_training"], len(lab["each_training"]))
    sure = (low > 0 or high < 0) and abs(added["value"]) > chance
    line |= _interval("adds", added) | {"by_chance": chance, "sure": bool(sure)}
    return line | {"each": lab["each_training"]}


def chance_of(scores: Sequence[float], trainings: int = 1) -> float:
    """How far the mean of some more trainings may be from the mean of these, with 95 %, if only the
    seed differs: Student's prediction interval. Infinite for one score."""
    count = len(scores)
    if count < 2:
        return float("inf")
    spread = np.std(scores, ddof=1) * np.sqrt(1 / trainings + 1 / count)
    return float(stats.t.ppf(0.975, count - 1) * spread)


def _interval(name: str, measure: Mapping[str, Any]) -> dict[str, float]:
    low, high = measure["interval"]
    return {name: measure["value"], f"{name}_low": low, f"{name}_high": high}


def _people(experiment: Mapping[str, Any]) -> int:
    """People with a true I_n."""
    return experiment["people"] or experiment["data"]["subjects"] - experiment["unpaired_people"]


def _varies(experiment: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    changed = {name for name in whole if experiment[name] != whole[name]} - {"seeds"}
    if changed == {"people"}:
        return "people"
    factors = {experiment[name] / whole[name] for name in _STEPS}
    return "steps" if changed == set(_STEPS) and len(factors) == 1 else ""


def normalizer_table(files: ResultFiles) -> TextTable:
    """A line for each experiment: what differs, its score and its difference from all parts."""
    rows = normalizer_rows(files)
    notes = (
        "Distance of I_n to the true one over that of the neutral target (0 is perfect, 1 moves "
        "nothing), with 95 % over the tested people; brows, eyes and mouth on `lab`. Bold: the "
        "interval over people leaves out zero, and the difference is larger than what other seeds "
        "of all parts would bring (Student's 95 %, from its trainings).",
    )
    if rows.empty:
        notes = (f"Not run yet: `norface sweep normalizer results/full/{FOLDER}`.",)
    return TextTable(
        name="normalizer-parts",
        title="Parts of the normalizer, small networks on rendered faces",
        header=(
            *("what differs", "people", "steps", "trainings", "`lab`", "minus all parts", "`wild`"),
            "brows, eyes, mouth",
        ),
        rows=tuple(_cells(str(name), line) for name, line in rows.iterrows()),
        notes=notes,
    )


def _cells(name: str, line: pd.Series) -> tuple[str, ...]:
    parts = ", ".join(f"{line[part]:.2f}" for part in ("brows", "eyes", "mouth"))
    added = f"{line['adds']:+.3f} [{line['adds_low']:+.3f}, {line['adds_high']:+.3f}]"
    added = f"**{added}**" if line["sure"] else added
    return (
        name,
        f"{line['people']:,}",
        f"{line['steps']:,}",
        str(line["trainings"]),
        with_interval(line["lab"], (line["lab_low"], line["lab_high"])),
        "" if name == WHOLE.replace("-", " ") else added,
        with_interval(line["wild"], (line["wild_low"], line["wild_high"])),
        parts,
    )
