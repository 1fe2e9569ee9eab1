"""Result files of the ablations of notebook 8: one for each configuration of a sweep, as
`Experiment` writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from norface_lib.networks.classifier import INPUTS
from norface_lib.studies.result_files import PROFILES, ResultFile, ResultFiles
from norface_lib.studies.text_table import TextTable, signed, with_interval

Curves = dict[str, dict[int, tuple[float, Sequence[float] | None]]]
"""Row -> labeled people -> score and its interval over tested people."""


def ablation_files(files: ResultFiles) -> list[ResultFile]:
    """The result files of the first of the profiles that has some; those that are not of one
    experiment are left out."""
    for profile in PROFILES:
        candidates = files.matching(f"{profile}/ablations*.json")
        candidates += files.matching(f"{profile}/ablations*/**/*.json")
        ablations = [file for file in candidates if "rows" in file.result and _experiment(file)]
        if ablations:
            return ablations
    return []


def _experiment(file: ResultFile) -> Mapping[str, Any]:
    return file.content.get("settings", {}).get("experiment", {})


def people_curves(files: ResultFiles) -> dict[str, Curves]:
    """Scores of original, normalized and both over the number of labeled people, for each backbone
    that was trained with two numbers or more.

    Trainings of one length are compared: of several lengths that with the most numbers of people;
    of two files with the same number, that with more seeds counts, then that with more rows. Files
    whose training has settings of its own, as those of the sweep `mixtures`, are left out.
    """
    return {backbone: _curves(points) for (backbone, _), points in _curve_files(files).items()}


def _curve_files(files: ResultFiles) -> dict[tuple[str, int], dict[int, ResultFile]]:
    """Backbone and steps -> labeled people -> result file, by the rules of `people_curves`."""
    by_training: dict[tuple[str, int], dict[int, ResultFile]] = {}
    for file in ablation_files(files):
        experiment = _experiment(file)
        settings = experiment.get("training") or {}
        changed = any(value is not None for value in settings.values())
        if changed or file.content["leakage"] != "pretrained" or not experiment.get("people"):
            continue
        steps = file.content["settings"]["recipe"]["training"]["steps"]
        points = by_training.setdefault((experiment["backbone"], steps), {})
        known = points.get(experiment["people"])
        if known is None or _size(known) < _size(file):
            points[experiment["people"]] = file

    longest: dict[str, tuple[str, int]] = {}  # of each backbone, with two numbers of people or more
    for (backbone, steps), points in by_training.items():
        known = longest.get(backbone)
        if len(points) > (1 if known is None else len(by_training[known])):
            longest[backbone] = (backbone, steps)
    return {key: by_training[key] for key in longest.values()}


def _size(file: ResultFile) -> tuple[int, int]:
    """Seeds and rows of a result file."""
    return len(_experiment(file)["seeds"]), len(file.result["rows"])


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
        for number, (name, row) in enumerate(file.result["rows"].items()):
            about = (
                file.name,
                experiment["backbone"],
                str(experiment.get("people") or "all"),
                str(len(experiment["seeds"])),
            )
            if number:  # said once for all rows of an experiment
                about = ("",) * len(about)
            score = with_interval(row["headline"], row["interval"])
            lines.append((*about, name, score))
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


_SITUATIONS = {
    "small network": ("rows", "settled", "longer"),
    "frozen backbone": ("frozen",),
    "the normalizer's backbone, trained on": ("tuned",),
    "a masked autoencoder, trained on": ("masked",),
    "the same network, from random initialization": ("scratch",),
}
"""Experiments of the sweeps `few_people` and `backbones` with 41 labeled people, by what is
trained: of the small network those with all rows, and originals that were trained for longer."""


def few_people_table(files: ResultFiles) -> TextTable:
    """What classifiers learn from 41 people by what they see: a small network from random
    initialization, heads over the normalizer's frozen backbone, and backbones that are trained."""
    by_name = {file.name: file for file in ablation_files(files)}
    lines = []
    for situation, names in _SITUATIONS.items():
        for file in (by_name[name] for name in names if name in by_name):
            steps = file.content["settings"]["recipe"]["training"]["steps"]
            about = (situation, f"{steps:,}", str(len(_experiment(file)["seeds"])))
            for row, values in file.result["rows"].items():
                score = with_interval(values["headline"], values["interval"])
                lines.append((*about, row, score))
    return TextTable(
        name="few-people",
        title="Few labeled people, by what is trained",
        header=("what is trained", "steps", "seeds", "what it sees", "mean F1"),
        rows=tuple(lines),
        notes=("41 labeled people; 95 % over the tested people.",),
    )


_GAINS = ("the normalized face instead of the original", "the normalized face, beside the original")


def people_table(files: ResultFiles) -> TextTable:
    """Scores over the number of labeled people, a line for each backbone and number, and what the
    normalized face adds."""
    lines = []
    for (backbone, _), points in sorted(_curve_files(files).items()):
        for people, file in sorted(points.items()):
            rows = file.result["rows"]
            gains = file.result.get("differences", {})
            about = (backbone, str(people), str(len(_experiment(file)["seeds"])))
            scores = (f"{rows[name]['headline']:.3f}" if name in rows else "" for name in INPUTS)
            added = (
                signed(gains[name]["value"], gains[name]["subjects"]) if name in gains else ""
                for name in _GAINS
            )
            lines.append((*about, *scores, *added))
    return TextTable(
        name="people",
        title="Over the number of labeled people",
        header=("backbone", "labeled people", "seeds", *INPUTS, "instead adds", "beside adds"),
        rows=tuple(lines),
        notes=(
            "Mean F1. What the normalized face adds instead of the original, and beside it: 95 % "
            "over the tested people.",
        ),
    )


_WITHOUT_MIXTURE = "both, no mixture"


def mixtures_table(files: ResultFiles) -> TextTable:
    """A line for each mixture of experts over the frozen backbone: its score, that of a dense
    network of its size, and the difference."""
    lines = []
    for file in ablation_files(files):
        experiment = _experiment(file)
        rows = file.result["rows"]
        usage = rows.get("both", {}).get("expert_usage")
        mixed = _changes(experiment) or _WITHOUT_MIXTURE in rows
        if experiment["backbone"] != "frozen" or not usage or not mixed:
            continue
        dense = ""
        gain = ""
        if _WITHOUT_MIXTURE in rows:
            dense = f"{rows[_WITHOUT_MIXTURE]['headline']:.3f}"
            added = file.result["differences"]["both mixtures"]
            gain = signed(added["value"], added["subjects"], added["trainings"])
        specialization = f"{_mean(usage, 'specialization'):.2f}"
        correlation = f"{_mean(usage, 'label_correlation'):.2f}"
        score = with_interval(rows["both"]["headline"], rows["both"]["interval"])
        what = _changes(experiment) or "m = 4, k = 2, as in the paper"
        lines.append((what, score, dense, gain, specialization, correlation))
    return TextTable(
        name="mixtures",
        title="Mixtures of experts over the frozen backbone",
        header=(
            *("mixture", "mean F1", "dense, same size", "the mixtures add"),
            *("specialization", "correlation with a label"),
        ),
        rows=tuple(sorted(lines, key=lambda line: "paper" not in line[0])),
        notes=(
            "Mean F1 with 95 % over the tested people; of differences also over trainings. "
            "Specialization: 0 if all faces are treated alike, 1 if each has one expert of its "
            "own. Correlation of a gate with an AU: with shuffled labels it is about 0.04.",
        ),
    )


def _changes(experiment: Mapping[str, Any]) -> str:
    """In what a mixture differs from that of the paper, in words."""
    settings = dict(experiment.get("training") or {})
    names = {"experts": "m", "top_k": "k"}
    texts = [
        f"{names.get(name, name.replace('_', ' '))} = {value}"
        for name, value in settings.items()
        if value is not None
    ]
    if not experiment.get("people"):
        texts.append(f"all people, {experiment['steps']} steps")
    return ", ".join(texts)


def _mean(usage: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean of a measure over folds and both mixtures."""
    return float(np.mean([place[name] for fold in usage for place in fold.values()]))
