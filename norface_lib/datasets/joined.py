"""Several rendered benchmarks, pseudo-pairs of photographs among them, as one folder."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_json, write_table
from norface_lib.common.locks import whole_folder
from norface_lib.common.paths import inside
from norface_lib.datasets.label_table import expression_columns, read_labels, read_spec


def join_benchmarks(roots: Sequence[Path], out: Path) -> int:
    """One benchmark folder of several, rendered faces and pseudo-pairs of photographs alike.
    Returns its number of faces.

    Images are linked where that can be, else copied. Columns that only some tables have stay empty
    in the others. ``benchmark.json`` is the first one's, with that of each under ``parts``. Raises
    :class:`DataError` if they have other targets, other sizes, or other AU columns, and if ``out``
    is there already.
    """
    roots = [Path(root) for root in roots]
    out = Path(out)
    if out.exists():
        raise DataError(f"{out}: is there already; choose another folder or delete it")
    specs = [read_spec(root) for root in roots]
    tables = [read_labels(root) for root in roots]
    for root, spec, table in zip(roots, specs, tables, strict=True):
        if (spec["size"], spec["target"]) != (specs[0]["size"], specs[0]["target"]):
            raise DataError(f"{root}: its target or its size is another than in {roots[0]}")
        if expression_columns(table) != expression_columns(tables[0]):
            raise DataError(f"{root}: its AU columns are others than in {roots[0]}")
        if "truth" not in table.columns or table["truth"].isna().any():
            raise DataError(
                f"{root / 'labels.csv'}: names no true normalized image for some frame (column "
                "truth); join benchmarks that were rendered, or made by `pseudo-pairs`"
            )

    with whole_folder(out) as part:
        _write_joined(roots, specs, tables, part)
    return sum(map(len, tables))


def _write_joined(
    roots: Sequence[Path],
    specs: Sequence[dict[str, Any]],
    tables: Sequence[pd.DataFrame],
    folder: Path,
) -> None:
    """Writes the joined benchmark into a new folder."""
    for number, (root, table) in enumerate(zip(roots, tables, strict=True)):
        for column in ("image", "truth"):
            moved = f"{number}/" + table[column].astype(str)
            for name, place in tqdm(
                zip(table[column], moved, strict=True),
                total=len(table),
                desc=f"{root.name} {column}",
            ):
                _link(inside(root, name), inside(folder, place, writes=True))
            table[column] = moved

    write_table(pd.concat(tables, ignore_index=True), folder / "labels.csv")
    counts = [{"faces": len(table), "people": int(table["subject"].nunique())} for table in tables]
    parts = [count | spec for count, spec in zip(counts, specs, strict=True)]
    write_json(specs[0] | {"parts": parts}, folder / "benchmark.json")
    for picture in roots[0].glob("target*.png"):
        shutil.copyfile(picture, folder / picture.name)


def _link(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), place)
    except FileNotFoundError as error:
        raise DataError(f"{source}: listed in the label table but missing") from error
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, place)
