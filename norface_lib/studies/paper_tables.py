"""The paper's tables: published numbers, ours on real data where a result file is there, and ours
on rendered faces in a column of their own, for they are another kind of data."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from norface_lib.studies.published import AVERAGE, PAPER, SCALES, published
from norface_lib.studies.rendered_tables import study_of
from norface_lib.studies.result_files import REAL, ResultFile, ResultFiles
from norface_lib.studies.text_table import TextTable, with_interval

OURS_REAL = "ours, real data"
OURS_RENDERED = "ours, rendered faces (not comparable)"
ROW = "both"
"""The row of a result that stands for the method: original and normalized face."""

TITLES = {
    "bp4d": "BP4D",
    "bp4d_plus": "BP4D+",
    "disfa": "DISFA",
    "affectnet": "AffectNet, 8 classes",
    "affectnet7": "AffectNet, 7 classes",
    "rafdb": "RAF-DB",
}
_FOLDERS = {
    "bp4d": "/your/BP4D",
    "bp4d_plus": "/your/BP4D+",
    "disfa": "/your/DISFA",
    "affectnet": "/your/AffectNet",
    "affectnet7": "/your/AffectNet",
    "rafdb": "/your/RAF-DB",
}
_UNITS = {"percent": "Percent", "one": "ICC, at most 1"}
_PAPER_COLUMN = f"{PAPER} (paper)"
_DIGITS = {"percent": 1}
_OWN_DIGITS = 3


def fill_command(task: str, dataset: str, tested: str = "") -> str:
    """The commands that fill the empty column of a table."""
    name = f"{task}-{dataset}{f'-{tested}' if tested else ''}.json"
    loaded = "affectnet --option classes=7" if dataset == "affectnet7" else dataset
    call = f"norface train {_FOLDERS[dataset]} OUT --dataset {loaded} --task {task} --seeds 0,1,2"
    if tested:
        call += f" --test-dataset {tested} --test-root {_FOLDERS[tested]}"
    return f"`{call}`, then `cp OUT/{task}/result.json results/{REAL}/{name}`"


def au_table(files: ResultFiles, task: str, dataset: str, domain: str = "") -> TextTable:
    """A table of one AU dataset: a line for each AU and for the mean, a column for each method.

    ``domain``: the rendered benchmark whose AUs stand beside it; none where it has others.
    """
    numbers = published(task, dataset)
    scale = SCALES.get(numbers.attrs["unit"], 1.0)
    digits = _DIGITS.get(numbers.attrs["unit"], _OWN_DIGITS)
    lines = [name for name in numbers.columns if name != AVERAGE]
    mean = f"mean {numbers.attrs['metric'].upper()}"
    columns = {
        _paper_name(method): [_number(value, digits) for value in row]
        for method, row in _paper_first(numbers).iterrows()
    }
    real = files.real.get((task, dataset, ""))
    columns[OURS_REAL] = _own(real and real.result, lines, scale, digits)
    study = study_of(files, task, domain) if domain else None
    columns[OURS_RENDERED] = _own(study, lines, scale, digits)

    notes = [_sources(numbers), _of_ours(files, real, task, dataset, domain and task)]
    extra = _further(files, task, dataset, columns, real, study)
    table = pd.DataFrame(columns, index=[*lines, f"**{mean}**"])
    table = pd.concat([table, extra]).fillna("")
    return TextTable(
        name=f"{task}-{dataset}",
        title=f"{task.replace('_', ' ').replace('au', 'AU')}, {TITLES[dataset]}",
        header=("", *table.columns),
        rows=tuple(tuple(map(str, row)) for row in table.itertuples()),
        notes=tuple(notes),
    )


def _further(
    files: ResultFiles,
    task: str,
    dataset: str,
    columns: Mapping[str, Any],
    real: ResultFile | None,
    study: Mapping[str, Any] | None,
) -> pd.DataFrame:
    """Lines of the other metrics that are published on a dataset."""
    lines = {}
    for metric in ("mse", "mae") if (task, dataset) == ("au_intensity", "disfa") else ():
        numbers = published(task, dataset, metric)[AVERAGE]
        line = {_paper_name(name): _number(value, 2) for name, value in numbers.items()}
        for column, found in ((OURS_REAL, real and real.result), (OURS_RENDERED, study)):
            if found:
                line[column] = _number(found["rows"][ROW]["further"][metric], _OWN_DIGITS)
        lines[metric.upper()] = line
    return pd.DataFrame(lines).T.reindex(columns=list(columns))


def emotion_table(files: ResultFiles) -> TextTable:
    """Accuracy on AffectNet with 8 and with 7 classes, and on RAF-DB, a column for each method."""
    datasets = ("affectnet", "affectnet7", "rafdb")
    numbers = {name: published("emotion", name)[AVERAGE] for name in datasets}
    methods = dict.fromkeys([PAPER, *(method for row in numbers.values() for method in row.index)])
    lines, commands = {}, []
    for name, row in numbers.items():
        line = {_paper_name(method): _number(row.get(method), 2) for method in methods}
        real = files.real.get(("emotion", name, ""))
        line[OURS_REAL] = _score(real and real.result, 100.0, 2)
        study = study_of(files, "emotion", "") if name == "affectnet" else None
        line[OURS_RENDERED] = _score(study, 100.0, 2)
        lines[TITLES[name]] = line
        if not real:
            commands.append(f"{TITLES[name]}: {fill_command('emotion', name)}")
    table = pd.DataFrame(lines).T
    notes = [_sources(published("emotion", name), TITLES[name]) for name in datasets]
    notes.append(_from(files.of_profile("emotion"), "`wild`, eight classes as AffectNet has them"))
    if commands:
        notes.append("Empty, for we do not have the data; to fill it: " + "; ".join(commands) + ".")
    return TextTable(
        name="emotion",
        title="Emotion recognition, accuracy in percent",
        header=("", *table.columns),
        rows=tuple(tuple(map(str, row)) for row in table.itertuples()),
        notes=tuple(notes),
    )


CROSSINGS = (
    ("au_detection", "bp4d", "disfa"),
    ("au_detection", "disfa", "bp4d"),
    ("emotion", "affectnet", "rafdb"),
    ("emotion", "rafdb", "affectnet"),
)
"""Task, trained and tested dataset of the rows that real data would fill."""


def crossing_table(files: ResultFiles) -> TextTable:
    """Across real datasets: a line for each direction; no published numbers are at hand."""
    rows, commands = [], []
    for task, source, target in CROSSINGS:
        found = files.real.get((task, source, target))
        cells = ["", "", ""]
        if found:
            inputs = found.result["rows"]
            cells = [
                with_interval(inputs[name]["headline"], inputs[name]["interval"])
                if name in inputs
                else ""
                for name in ("original", "normalized", ROW)
            ]
        else:
            commands.append(
                f"{TITLES[source]} to {TITLES[target]}: {fill_command(task, source, target)}"
            )
        name = f"{TITLES[source]} -> {TITLES[target]}, {task.replace('_', ' ')}"
        rows.append((name.replace(", au", ", AU"), *cells))
    notes = ["Published numbers of others by the same protocol are not at hand."]
    if commands:
        notes.append("Empty, for we do not have the data; to fill it: " + "; ".join(commands) + ".")
    return TextTable(
        name="cross-dataset",
        title="Across real datasets",
        header=("trained -> tested", "original", "normalized", ROW),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _paper_name(method: str) -> str:
    return _PAPER_COLUMN if method == PAPER else method


def _paper_first(numbers: pd.DataFrame) -> pd.DataFrame:
    return numbers.loc[[PAPER, *(name for name in numbers.index if name != PAPER)]]


def _number(value: float | None, digits: int) -> str:
    """A number, or nothing where it is not known."""
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _own(
    result: Mapping[str, Any] | None, lines: list[str], scale: float, digits: int
) -> list[str]:
    """Cells of ours for each label and for their mean, empty where a label was not measured; the
    mean only if all were, and its interval only if no other was."""
    if not result:
        return [""] * (len(lines) + 1)
    row = result["rows"][ROW]
    values = [row["per_label"].get(name) for name in lines]
    cells = [_number(value and value * scale, digits) for value in values]
    if None in values:
        return [*cells, ""]
    interval = None
    if len(row["per_label"]) == len(lines) and row["interval"]:
        interval = [end * scale for end in row["interval"]]
    return [*cells, with_interval(float(np.mean(values)) * scale, interval, digits)]


def _score(result: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if not result:
        return ""
    row = result["rows"][ROW]
    interval = row["interval"] and [end * scale for end in row["interval"]]
    return with_interval(row["headline"] * scale, interval, digits)


def _sources(numbers: pd.DataFrame, title: str = "") -> str:
    """What is published, by which protocol, and how sure it is."""
    second_hand = [
        name for name, status in numbers.attrs["status"].items() if status != "established"
    ]
    unit = _UNITS[numbers.attrs["unit"]]
    text = f"{title + ': ' if title else ''}{unit}; {numbers.attrs['protocol']}."
    if second_hand:
        text += f" Second hand: {', '.join(second_hand)}."
    if "caution" in numbers.attrs:
        text += f" Caution: {numbers.attrs['caution']}."
    return text


def _of_ours(
    files: ResultFiles, real: ResultFile | None, task: str, dataset: str, rendered: str
) -> str:
    """Where ours come from, or the command that fills them."""
    text = f"Column {OURS_REAL!r}: empty, for we do not have the data; to fill it: "
    text += f"{fill_command(task, dataset)}."
    if real:
        text = f"Ours, real data: {real.how}."
    if not rendered:
        return f"{text} No rendered run has these AUs with labels of this kind."
    return f"{text} {_from(files.of_profile(task), '`lab`, frozen backbone, row both')}"


def _from(file: ResultFile | None, what: str) -> str:
    if file is None:
        return "No rendered run yet: `norface reproduce --profile full`."
    return f"Ours, rendered faces: {what}, from {file.how}."


TABLES: Mapping[str, Callable[[ResultFiles], TextTable]] = {
    "au_detection-bp4d": lambda files: au_table(files, "au_detection", "bp4d", "lab"),
    "au_detection-bp4d_plus": lambda files: au_table(files, "au_detection", "bp4d_plus", "lab"),
    "au_detection-disfa": lambda files: au_table(files, "au_detection", "disfa"),
    "au_intensity-bp4d": lambda files: au_table(files, "au_intensity", "bp4d", "lab"),
    "au_intensity-disfa": lambda files: au_table(files, "au_intensity", "disfa", "lab"),
    "emotion": emotion_table,
    "cross-dataset": crossing_table,
}
"""The paper's tables by name."""
