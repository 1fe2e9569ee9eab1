"""Result files of the ablations of notebook 8: one for each configuration of a sweep, as
`Experiment` writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from norface_lib.studies.result_files import PROFILES, ResultFile, ResultFiles
from norface_lib.studies.text_table import TextTable, with_interval

Curves = dict[str, dict[int, tuple[float, Sequence[float] | None]]]
"""Row -> labeled people -> score and its interval over tested people."""


def ablation_files(files: ResultFiles) -> list[ResultFile]:
    """The result files of the first of the profiles that has some; those that are not of one
    experiment are left out."""
    for profile in PROFILES:
        found = [
            file
            for pattern in (f"{profile}/ablations*.json", f"{profile}/ablations*/**/*.json")
            for file in files.matching(pattern)
            if "rows" in file.result and _experiment(file)
        ]
        if found:
            return found
    return []


def _experiment(file: ResultFile) -> Mapping[str, Any]:
    return file.content.get("settings", {}).get("experiment", {})


def people_curves(files: ResultFiles) -> dict[str, Curves]:
    """Scores over the number of labeled people, for each backbone that was trained with two numbers
    or more."""
    found: dict[str, Curves] = {}
    for file in ablation_files(files):
        experiment = _experiment(file)
        if not experiment.get("people"):
            continue
        curves = found.setdefault(experiment["backbone"], {})
        for name, row in file.result["rows"].items():
            curves.setdefault(name, {})[experiment["people"]] = (row["headline"], row["interval"])
    return {
        backbone: curves
        for backbone, curves in found.items()
        if any(len(points) > 1 for points in curves.values())
    }


def ablation_table(files: ResultFiles) -> TextTable:
    """A line for each row of each configuration: backbone, labeled people, score and interval."""
    lines = []
    for file in ablation_files(files):
        experiment = _experiment(file)
        seeds = len(experiment["seeds"])
        for name, row in file.result["rows"].items():
            score = with_interval(row["headline"], row["interval"])
            people = str(experiment.get("people") or "all")
            lines.append(
                (name, experiment["backbone"], people, str(seeds), f"{row['metric']} {score}")
            )
    note = "95 % over the tested people."
    if not lines:
        note = "Not run yet: `norface reproduce --profile full --only 08`."
    return TextTable(
        name="ablations",
        title="Ablations, rendered faces",
        header=("row", "backbone", "labeled people", "seeds", "score"),
        rows=tuple(lines),
        notes=(note,),
    )
