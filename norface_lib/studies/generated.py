"""Tables in documents that are made from result files: `<!-- results:NAME -->` and
`<!-- /results -->` stand around each, and what is between them is never typed by hand."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.studies import cross_tables, paper_tables, rendered_tables
from norface_lib.studies.ablation_files import (
    ablation_table,
    few_people_table,
    mixtures_table,
    people_table,
)
from norface_lib.studies.costs import costs_table
from norface_lib.studies.normalizer_files import normalizer_table
from norface_lib.studies.result_files import ResultFiles
from norface_lib.studies.text_table import TextTable

TABLES: Mapping[str, Callable[[ResultFiles], TextTable]] = {
    **paper_tables.TABLES,
    "summary": rendered_tables.summary_table,
    "rows": rendered_tables.rows_table,
    "additions": rendered_tables.additions_table,
    "original-twice": rendered_tables.original_twice_table,
    "transfer": rendered_tables.transfer_table,
    "groups": rendered_tables.groups_table,
    "cross-dataset-rendered": cross_tables.cross_dataset_table,
    "across": cross_tables.across_table,
    "ablations": ablation_table,
    "few-people": few_people_table,
    "people": people_table,
    "mixtures": mixtures_table,
    "normalizer-parts": normalizer_table,
    "costs": costs_table,
}
"""Every table that can be made, by the name that a marker gives."""

DOCUMENTS = (
    "README.md",
    "docs/measurements.md",
    "docs/photographs.md",
    "docs/real_data.md",
    "docs/results.md",
)
"""Documents with generated tables, below the repository."""

_BLOCK = re.compile(
    r"(?P<start><!-- results:(?P<name>[\w-]+) -->\n)(?P<text>.*?)(?P<end><!-- /results -->)",
    re.DOTALL,
)
_OPEN = re.compile(r"<!-- results:[\w-]+ -->")


def renewed(text: str, files: ResultFiles, source: str) -> str:
    """A document with all its generated tables made anew.

    Raises :class:`DataError`, naming the document ``source``, for a marker that names no table of
    ``TABLES`` or is not closed.
    """
    blocks = list(_BLOCK.finditer(text))
    if len(_OPEN.findall(text)) != len(blocks) or any(_OPEN.search(b["text"]) for b in blocks):
        raise DataError(
            f"{source}: a marker <!-- results:NAME --> is not closed; put <!-- /results --> below "
            "its table"
        )
    for block in blocks:
        if block["name"] not in TABLES:
            raise DataError(
                f"{source}: no table {block['name']!r}; there are {', '.join(TABLES)}: correct the "
                "marker"
            )
    return _BLOCK.sub(
        lambda block: (
            block["start"] + "\n" + TABLES[block["name"]](files).markdown() + "\n" + block["end"]
        ),
        text,
    )


def stale_documents(root: Path, names: Sequence[str] = DOCUMENTS) -> list[str]:
    """Names of documents below ``root`` whose tables are not what the result files say. Errors are
    those of `renewed`."""
    return [name for name, old, new in _renewed_all(root, names) if old != new]


def write_documents(root: Path, names: Sequence[str] = DOCUMENTS) -> list[str]:
    """Renews the tables of the documents below ``root``, and returns the names of those that
    changed. Errors are those of `renewed`."""
    changed = []
    for name, old, new in _renewed_all(root, names):
        if old != new:
            write_atomically(root / name, lambda part, new=new: part.write_text(new, "utf-8"))
            changed.append(name)
    return changed


def _renewed_all(root: Path, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name, present and new text of each document."""
    files = ResultFiles(root / "results")
    texts = [(name, (root / name).read_text(encoding="utf-8")) for name in names]
    return [(name, text, renewed(text, files, name)) for name, text in texts]
