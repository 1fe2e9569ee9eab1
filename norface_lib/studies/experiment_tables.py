"""Tables of one experiment: each label beside published numbers, means and spreads, errors of
intensities, confusions of emotions; as frames of numbers and as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.studies.cross_validation import CrossValidation
from norface_lib.studies.published import AVERAGE, published
from norface_lib.studies.text_table import SUFFIXES, TextTable
from norface_lib.tasks.tasks import Task

PUBLISHED = "(published)"
"""What stands behind the name of a method whose numbers others published, on real faces."""

Rows = Mapping[str, CrossValidation]
"""Cross-validated rows by name."""


def tables_of(rows: Rows, dataset: str) -> dict[str, pd.DataFrame]:
    """All tables of an experiment by name; ``attrs`` of each are its ``title`` and ``digits``."""
    first = next(iter(rows.values()))
    tables = {"labels": label_table(rows, dataset), "summary": summary_table(rows)}
    for metric in first.further_per_label:
        tables[metric] = error_table(rows, metric)
    for name, row in rows.items():
        if row.confusion is not None:
            short = name.replace(", ", "-").replace(" ", "-")
            tables[f"confusion-{short}"] = confusion_table(row, name)
    return tables


def label_table(rows: Rows, dataset: str) -> pd.DataFrame:
    """A line for each AU or emotion and for the headline, a column for each row and each published
    method, best first; NaN where a number is not known. In percent, but for ICC."""
    first = next(iter(rows.values()))
    task = first.task
    scale = _scale(task)
    columns = {name: [*row.per_label * scale, row.score * scale] for name, row in rows.items()}
    table = pd.DataFrame(columns, index=[*task.outputs, task.headline])
    numbers = published_numbers(task, dataset)
    for method, values in numbers.iterrows():
        values = values.reindex([*task.outputs, AVERAGE])
        table[f"{method} {PUBLISHED}"] = values.to_numpy()
    unit = "" if scale == 1 else ", percent"
    return _titled(table, f"{task.headline} and {task.metric} of each label{unit}", scale)


def published_numbers(task: Task, dataset: str) -> pd.DataFrame:
    """What was published on a dataset, best first; an empty table where nothing was."""
    if dataset == "affectnet" and len(task.outputs) == 7:
        dataset = "affectnet7"
    try:
        return published(task.name, dataset).sort_values(AVERAGE, ascending=False)
    except DataError:
        return pd.DataFrame()


def summary_table(rows: Rows) -> pd.DataFrame:
    """A line for each row: the mean over folds and seeds, its 95 % interval over subjects, the
    standard deviations over folds and over seeds (NaN of a single one), all tested frames pooled,
    further metrics, the score of a constant prediction, and the oracle, which was chosen on the
    test rows and is comparable with nothing."""
    lines = {}
    for name, row in rows.items():
        low, high = row.interval or (np.nan, np.nan)
        line = {"mean": row.score, "low": low, "high": high}
        line |= {f"sd over {what}": value for what, value in row.spread.items()}
        line |= {"pooled": row.pooled} | row.further
        line |= {"constant baseline": row.constant_baseline}
        lines[name] = line | {f"oracle {what}": value for what, value in row.oracle.items()}
    task = next(iter(rows.values())).task
    return _titled(pd.DataFrame(lines).T.astype(float), f"{task.headline}, mean and spread", 1)


def error_table(rows: Rows, metric: str) -> pd.DataFrame:
    """A line for each AU and for their mean, a column for each row: ``mse`` or ``mae``."""
    columns = {name: row.further_per_label[metric] for name, row in rows.items()}
    outputs = list(next(iter(rows.values())).task.outputs)
    table = pd.DataFrame(columns, index=outputs)
    table.loc["mean"] = table.mean()
    return _titled(table, f"{metric.upper()} of each AU, intensities 0 to 5", 1)


def confusion_table(row: CrossValidation, name: str) -> pd.DataFrame:
    """Percent of the images of each emotion (line) that were called each emotion (column), and the
    number of images; over folds, the mean over seeds."""
    names = list(row.task.outputs)
    images = row.confusion.sum(axis=1)
    shares = np.full(row.confusion.shape, np.nan)
    np.divide(100 * row.confusion, images[:, None], out=shares, where=images[:, None] > 0)
    table = pd.DataFrame(shares, index=names, columns=names).assign(images=images)
    return _titled(table, f"confusion of {name}: percent of each emotion (line)", 100)


def export_tables(
    tables: Mapping[str, pd.DataFrame], folder: Path, formats: Sequence[str]
) -> list[Path]:
    """Writes each table in each of the ``FORMATS`` of `norface_lib.studies.text_table` and returns
    the files, ``folder/<name>.csv`` and so on."""
    files = []
    for name, table in tables.items():
        for form in formats:
            text = as_text_table(name, table).as_text(form).encode()
            path = Path(folder) / f"{name}{SUFFIXES[form]}"
            files.append(write_atomically(path, lambda part, text=text: part.write_bytes(text)))
    return files


def as_text_table(name: str, table: pd.DataFrame) -> TextTable:
    """A table of numbers as text, empty where there is none."""
    lines = shown_numbers(table)
    return TextTable(
        name=name,
        title=table.attrs["title"],
        header=("", *map(str, table.columns)),
        rows=tuple((str(label), *line) for label, line in zip(table.index, lines, strict=True)),
    )


def shown_numbers(table: pd.DataFrame) -> list[list[str]]:
    """The numbers of a table line by line with its digits, empty where there is none."""
    digits = table.attrs["digits"]
    return [
        [
            "" if np.isnan(value) else f"{value:.{0 if column == 'images' else digits}f}"
            for column, value in line.items()
        ]
        for _, line in table.iterrows()
    ]


def printed(table: pd.DataFrame) -> str:
    """A table for a terminal, with its title above it."""
    text = pd.DataFrame(shown_numbers(table), index=table.index, columns=table.columns)
    return f"{table.attrs['title']}\n{text.to_string()}"


def _scale(task: Task) -> float:
    return 1.0 if task.name == "au_intensity" else 100.0


def _titled(table: pd.DataFrame, title: str, scale: float) -> pd.DataFrame:
    table.attrs |= {"title": title, "digits": 3 if scale == 1 else 1}
    return table
