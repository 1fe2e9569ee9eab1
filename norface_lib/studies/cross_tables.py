"""Tables of experiments that train on one dataset and test on another, from their result files."""

from collections.abc import Mapping
from typing import Any

from norface_lib.studies.result_files import ResultFiles
from norface_lib.studies.text_table import TextTable, signed, with_interval

CROSS_DATASET = "cross_dataset"
"""Name of the result file of notebook 9."""

_SHRINKS = {
    "normalized": "the normalized face instead of the original",
    "both": "the normalized face, beside the original",
}
_GAP_HEADER = ("input", "in-domain", "cross-dataset", "gap", "shrinks by")
_GAP_NOTE = (
    "In-domain: trained on the tested dataset's other people. Gap: in-domain minus cross-dataset, "
    "on the same test people; shrinks: by how much it is smaller than the original's. 95 % over "
    "the tested people, and in the last column a second interval over trainings; bold where they "
    "leave out zero."
)


def cross_dataset_table(files: ResultFiles) -> TextTable:
    """Notebook 9: scores in-domain and across, the gap, and by how much it shrinks beside that of
    the original face."""
    file = files.of_profile(CROSS_DATASET)
    rows = []
    for direction, found in (file.result["directions"] if file else {}).items():
        rows += _gap_lines(direction, found)
    note = "Not run yet: `norface reproduce --profile full --only 09`."
    if file:
        note = f"From {file.how}. {_GAP_NOTE}"
    return TextTable(
        name="cross-dataset-rendered",
        title="Across datasets, rendered faces",
        header=("trained -> tested", *_GAP_HEADER),
        rows=tuple(rows),
        notes=(note,),
    )


ACROSS = "across"
"""Name of the sweep across datasets, and of the folder of its result files."""

_BACKBONES = {"frozen": "frozen backbone", "mini": "small network"}


def across_table(files: ResultFiles) -> TextTable:
    """The sweep across datasets: gaps over the frozen backbone, and of a small network that is
    trained end to end."""
    lines = {}
    for file in files.matching(f"full/{ACROSS}/*.json"):
        experiment = file.content["settings"]["experiment"]
        sides = " -> ".join(experiment[name]["pool"] for name in ("data", "test_data"))
        backbone, seeds = experiment["backbone"], len(experiment["seeds"])
        what = f"{sides}, {_BACKBONES[backbone]}, {seeds} seed{'s' * (seeds > 1)}"
        lines[sides, list(_BACKBONES).index(backbone)] = _gap_lines(what, file.result)
    rows = [line for key in sorted(lines) for line in lines[key]]
    command = f"`norface sweep {ACROSS} results/full/{ACROSS}`"
    return TextTable(
        name="across",
        title="Across datasets, frozen backbone and small network",
        header=("trained -> tested", *_GAP_HEADER),
        rows=tuple(rows),
        notes=(f"From {command}. {_GAP_NOTE}" if rows else f"Not run yet: {command}.",),
    )


def _gap_lines(what: str, found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line for each input of a result across datasets, the first of which says ``what`` it is."""
    lines = []
    for name, row in found["rows"].items():
        own, gap = found["in_domain"][name], found["gaps"][name]
        shrinks = found["shrinkages"].get(_SHRINKS.get(name, ""))
        line = (
            "" if lines else f"{what} ({row['metric']})",
            name,
            with_interval(own["headline"], own["interval"]),
            with_interval(row["headline"], row["interval"]),
            signed(gap["value"], gap["subjects"]),
            signed(shrinks["value"], shrinks["subjects"], shrinks.get("trainings"))
            if shrinks
            else "",
        )
        lines.append(line)
    return lines
