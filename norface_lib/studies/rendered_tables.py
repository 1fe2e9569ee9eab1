"""Tables of what was measured on rendered faces and on photographs: does the normalized face help,
do mixtures, and what does each part add?"""

from collections.abc import Mapping, Sequence
from typing import Any

from norface_lib.networks.classifier import MINI_BACKBONE
from norface_lib.studies.ablation_files import ablation_files
from norface_lib.studies.recipes import COMPARISONS, ROWS
from norface_lib.studies.result_files import ResultFile, ResultFiles
from norface_lib.studies.text_table import TextTable, signed, with_interval

STUDIES = (
    ("au_detection", "lab", "AU detection, `lab` (mean F1)"),
    ("au_detection", "wild", "AU detection, `wild` (mean F1)"),
    ("au_intensity", "lab", "AU intensity, `lab` (mean ICC)"),
    ("au_intensity", "wild", "AU intensity, `wild` (mean ICC)"),
    ("emotion", "wild", "emotion, `wild` (accuracy)"),
)
"""Result file, benchmark and heading of each column: notebooks 5, 6 and 7."""

MISSING = "-"
"""What stands where nothing was measured."""


def study_of(files: ResultFiles, name: str, domain: str) -> Mapping[str, Any] | None:
    """Rows and differences of a notebook's result on one benchmark, or None."""
    found = files.of_profile(name)
    if found is None:
        return None
    return found.result if "rows" in found.result else found.result[domain]


_BESIDE = "the normalized face, beside the original"
_NOT_OF_SIZE = "the normalized face, beside a second view"
_TWICE = "the same, over the original twice"


def additions_of(files: ResultFiles, name: str, domain: str) -> dict[str, Any]:
    """Differences of a notebook's result on one benchmark by what is added; none if there is no
    result. After what the normalized face adds beside the original stands what it adds over the
    original in both places, which tells nothing new: the sweep `original_twice`."""
    study = study_of(files, name, domain)
    added: dict[str, Any] = {}
    for what, found in (study["differences"] if study else {}).items():
        added[what] = found
        if what == _BESIDE and (twice := _original_twice(files, name, domain)):
            added[_TWICE] = twice["differences"][_NOT_OF_SIZE]
    return added


def _original_twice(files: ResultFiles, name: str, domain: str) -> Mapping[str, Any] | None:
    """The result of the sweep `original_twice` for a task and benchmark, or None."""
    found = files.file(f"full/original_twice/{name}-{domain}.json")
    return found and found.result


def rows_table(files: ResultFiles) -> TextTable:
    """Score of each row of ``ROWS`` with its interval over people, and the constant baseline."""
    studies = [study_of(files, name, domain) for name, domain, _ in STUDIES]
    baseline = [
        MISSING if study is None else f"{study['rows']['both']['constant_baseline']:.3f}"
        for study in studies
    ]
    return TextTable(
        name="rows",
        title="Does the normalized face help? And the mixtures of experts?",
        header=("", *(heading for _, _, heading in STUDIES)),
        rows=(*_scores(studies), ("constant baseline", *baseline)),
    )


def additions_table(files: ResultFiles) -> TextTable:
    """What each part adds: differences with intervals over people and over trainings."""
    studies = [{"differences": additions_of(files, name, domain)} for name, domain, _ in STUDIES]
    short = [heading.removeprefix("AU ").partition(" (")[0] for _, _, heading in STUDIES]
    return TextTable(
        name="additions",
        title="What each part adds",
        header=("what is added", *short),
        rows=tuple(_differences(studies)),
    )


def original_twice_table(files: ResultFiles) -> TextTable:
    """The same rows with the original once more in place of the normalized face: what the sweep
    `original_twice` measured."""
    studies = [_original_twice(files, name, domain) for name, domain, _ in STUDIES]
    note = "95 % over other people, and for differences also over other trainings."
    if not any(studies):
        note = "Not run yet: `norface sweep original_twice results/full/original_twice`."
    return TextTable(
        name="original-twice",
        title="The normalized face beside the original, or the original twice?",
        header=("", *(heading for _, _, heading in STUDIES)),
        rows=(*_scores(studies), *_differences(studies)),
        notes=(note,),
    )


Study = Mapping[str, Any]
"""Rows and differences of a result."""

_ORDER = tuple(
    name for what in COMPARISONS for name in ((what, _TWICE) if what == _BESIDE else (what,))
)
"""Differences in the order of tables."""


def _scores(studies: Sequence[Study | None]) -> list[tuple[str, ...]]:
    """A line for each row of ``ROWS`` that a study has, with a cell for each study."""

    def cell(study: Study | None, row: str) -> str:
        if study is None or row not in study["rows"]:
            return MISSING
        return with_interval(study["rows"][row]["headline"], study["rows"][row]["interval"])

    there = [row for row in ROWS if any(study and row in study["rows"] for study in studies)]
    return [(row, *(cell(study, row) for study in studies)) for row in there]


def _differences(studies: Sequence[Study | None]) -> list[tuple[str, ...]]:
    """A line for each of ``COMPARISONS`` that a study has, with a cell for each study."""

    def cell(study: Study | None, what: str) -> str:
        if study is None or what not in study["differences"]:
            return MISSING
        found = study["differences"][what]
        return signed(found["value"], found["subjects"], found.get("trainings"))

    known = dict.fromkeys(what for study in studies if study for what in study["differences"])
    there = [what for what in _ORDER if what in known]
    return [(what, *(cell(study, what) for study in studies)) for what in there]


_TRANSFERS = (
    ("London, `tiny-photo-224`", "transfer-london-224"),
    ("press photographs, `tiny-photo-224`", "transfer-press-224"),
    ("FER+ `valid`, `tiny-photo-224`", "transfer-ferplus-224"),
    ("London, `tiny-photo`", "transfer-london"),
    ("press photographs, `tiny-photo`", "transfer-press"),
    ("FER+ `valid`, `tiny-photo`", "transfer-ferplus"),
    ("London, `tiny`", "transfer-london-tiny"),
    ("press photographs, `tiny`", "transfer-press-tiny"),
)
_DRAWINGS = {
    "original": "original",
    "normalized": "I_n of the network",
    "read + render": "read and render",
}


_TRANSFERRED = {
    "smiling from neutral by AU12 (AUC)": ("smile", "all", "auc"),
    "the same, AUs against emotions (mean AUC)": ("signs", "mean"),
    "the same, neutral faces on which an AU is called (mean over AUs)": ("neutral", "mean"),
}
"""What `evaluate transfer` measured, and where it stands in a result file."""


def transfer_table(files: ResultFiles) -> TextTable:
    """Rendered faces teach, photographs test: what `evaluate transfer` measured."""
    rows = []
    for place, name in _TRANSFERS:
        if (file := files.file(f"{name}.json")) is None:
            continue
        inputs = file.result["inputs"].values()
        rows += [
            (f"{place}: {what}" if keys[0] == "smile" else what, *_of_drawings(file, keys))
            for what, keys in _TRANSFERRED.items()
            if any(keys[0] in measures for measures in inputs)
        ]
    return TextTable(
        name="transfer",
        title="Rendered faces teach a linear reader of AUs, photographs test it",
        header=("", *_DRAWINGS.values()),
        rows=tuple(rows),
    )


def _of_drawings(file: ResultFile, keys: tuple[str, ...]) -> list[str]:
    """A measure with its interval for each way to draw the faces."""
    cells = []
    for drawing in _DRAWINGS:
        found: Any = file.result["inputs"].get(drawing)
        for key in keys:
            found = (found or {}).get(key)
        cells.append(
            with_interval(found["value"], found["interval"], digits=2) if found else MISSING
        )
    return cells


_GROUPS = (
    ("rendered, `lab`", "groups-rendered-lab"),
    ("rendered, `wild`", "groups-rendered-wild"),
    ("London", "groups-london"),
)
_GROUP_MEASURES = {
    "truth auc_mean_bp4d": "AUs: mean AUC",
    "truth f1_mean_bp4d": "AUs: mean F1",
    "neutral mean_bp4d": "AUs called on neutral faces",
    "smile all": "smiling from neutral (AUC)",
    "emotion class_mean": "emotion: class mean",
}


def groups_table(files: ResultFiles) -> TextTable:
    """The token reader on groups of people: what `evaluate groups` measured."""
    rows = []
    for place, name in _GROUPS:
        if (file := files.file(f"{name}.json")) is None:
            continue
        for way, found in file.result["groups"].items():
            for group, each in found["measured"].items():
                who = f"{place}, {way}: {group} ({each['people']} people)"
                rows.append((who, *(_of_group(each, measure) for measure in _GROUP_MEASURES)))
    return TextTable(
        name="groups",
        title="The token reader on groups of people",
        header=("people", *_GROUP_MEASURES.values()),
        rows=tuple(rows),
        notes=(
            "Bold: differs from the others of its kind, 95 % over people; of twenty differences "
            "that are chance, one would be bold.",
        ),
    )


def _of_group(group: Mapping[str, Any], measure: str) -> str:
    """A measure of a group with its interval, bold where it differs from the other groups."""
    found = group["measures"].get(measure)
    if found is None or found["value"] is None:
        return MISSING
    text = with_interval(found["value"], found["interval"], digits=2)
    ends = group["difference_from_others"].get(measure, {}).get("interval")
    return f"**{text}**" if ends and not ends[0] <= 0 <= ends[1] else text


_QUESTIONS = (
    (_BESIDE, "au_detection", "lab", "F1, `lab`"),
    (_TWICE, "au_detection", "lab", "F1, `lab`"),
    (_BESIDE, "au_intensity", "lab", "ICC, `lab`"),
    (_TWICE, "au_intensity", "lab", "ICC, `lab`"),
    ("both mixtures", "au_detection", "lab", "F1, `lab`"),
    ("both mixtures", "au_intensity", "lab", "ICC, `lab`"),
)
_SCRATCH = ("the normalized face instead of the original", _BESIDE)


def summary_table(files: ResultFiles) -> TextTable:
    """What the normalized face and the mixtures add, in a few lines: over the normalizer's frozen
    backbone, and to a small network from random initialization."""
    rows = []
    for what, name, domain, metric in _QUESTIONS:
        added = additions_of(files, name, domain)
        if what in added:
            rows.append((what, "frozen", metric, _added(added[what])))
    for file in ablation_files(files):
        experiment = file.content["settings"]["experiment"]
        if experiment["backbone"] != MINI_BACKBONE or file.name != "rows":
            continue
        metric = f"F1, `lab`, {experiment['people']} people"
        for what in _SCRATCH:
            if what in file.result["differences"]:
                found = _added(file.result["differences"][what])
                rows.append((what, "small, from random initialization", metric, found))
    return TextTable(
        name="summary",
        title="What was found on rendered faces",
        header=("what is added", "backbone", "measure", "difference [over people]"),
        rows=tuple(rows),
    )


def _added(found: Mapping[str, Any]) -> str:
    return signed(found["value"], found["subjects"])
