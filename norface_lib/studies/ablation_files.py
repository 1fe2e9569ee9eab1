"""Result files of the ablations of notebook 8: one for each configuration of a sweep, as
`Experiment` writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from norface_lib.networks.classifier import INPUTS
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
    """Scores of original, normalized and both over the number of labeled people, for each backbone
    that was trained with two numbers or more.

    Trainings of one length are compared: of several lengths that with the most numbers of people;
    of two files with the same number, that with more seeds counts.
    """
    found: dict[tuple[str, int], dict[int, ResultFile]] = {}
    for file in ablation_files(files):
        experiment = _experiment(file)
        if not experiment.get("people") or file.content["leakage"] != "pretrained":
            continue
        steps = file.content["settings"]["recipe"]["training"]["steps"]
        points = found.setdefault((experiment["backbone"], steps), {})
        known = points.get(experiment["people"])
        if known is None or len(_experiment(known)["seeds"]) < len(experiment["seeds"]):
            points[experiment["people"]] = file

    longest: dict[str, dict[int, ResultFile]] = {}
    for (backbone, _), points in found.items():
        if len(points) > max(1, len(longest.get(backbone, {}))):
            longest[backbone] = points
    return {backbone: _curves(points) for backbone, points in longest.items()}


def _curves(points: Mapping[int, ResultFile]) -> Curves:
    curves: Curves = {}
    for people, file in points.items():
        for name in INPUTS:
            if row := file.result["rows"].get(name):
                curves.setdefault(name, {})[people] = (row["headline"], row["interval"])
    return curves


def ablation_table(files: ResultFiles) -> TextTable:
    """A line for each row of each experiment: backbone, labeled people, score and interval."""
    lines = []
    for file in ablation_files(files):
        experiment = _experiment(file)
        run = file.path.rpartition("/")[2].removesuffix(".json")
        for number, (name, row) in enumerate(file.result["rows"].items()):
            about = [run, experiment["backbone"], str(experiment.get("people") or "all")]
            about.append(str(len(experiment["seeds"])))
            score = with_interval(row["headline"], row["interval"])
            lines.append((*(["", "", "", ""] if number else about), name, score))
    note = "Mean F1 with 95 % over the tested people. What each experiment is: notebook 8."
    if not lines:
        note = "Not run yet: `norface sweep few_people results/full/ablations`."
    return TextTable(
        name="ablations",
        title="Ablations, rendered faces",
        header=("experiment", "backbone", "labeled people", "seeds", "row", "mean F1"),
        rows=tuple(lines),
        notes=(note,),
    )


_FEW_PEOPLE = (
    *("rows", "settled", "longer"),
    *(f"pair-people-{people}" for people in (5, 10, 20, 80, 160)),
)
"""Experiments of the sweep `few_people` on the small network: all rows, originals trained for
longer, and other numbers of people."""


def few_people_table(files: ResultFiles) -> TextTable:
    """What a small network from random initialization learns from few people, by what it sees."""
    found = {
        file.path.rpartition("/")[2].removesuffix(".json"): file for file in ablation_files(files)
    }
    lines = []
    for name in _FEW_PEOPLE:
        if (file := found.get(name)) is None:
            continue
        steps = file.content["settings"]["recipe"]["training"]["steps"]
        experiment = _experiment(file)
        about = (str(experiment["people"]), f"{steps:,}", str(len(experiment["seeds"])))
        for row, values in file.result["rows"].items():
            score = with_interval(values["headline"], values["interval"])
            lines.append((row, *about, score))
    return TextTable(
        name="few-people",
        title="A small network from random initialization on few people",
        header=("what it sees", "labeled people", "steps", "seeds", "mean F1"),
        rows=tuple(lines),
        notes=("95 % over the tested people.",),
    )
