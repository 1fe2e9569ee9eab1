"""A page of a folder of predictions: its faces to click through in a browser, without a kernel."""

import os
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from norface_lib.common.failures import writing
from norface_lib.common.files import write_atomically
from norface_lib.common.paths import inside
from norface_lib.images.crop import ALIGNED
from norface_lib.photos.readings import PREDICTIONS, read_faces_with_predictions
from norface_lib.viz.wipe import Item, gallery_as_html

PAGE = "index.html"
"""Its file, beside the table of the predictions."""

MOST = 300
"""Faces of a page at most: a browser stays quick with them."""

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ max-width: 1100px; margin: 24px auto; padding: 0 16px; font: 15px/1.5 sans-serif; }}
table {{ border-spacing: 12px 2px; font-size: 13px; }}
th {{ font-weight: normal; text-align: left; }}
summary {{ cursor: pointer; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{counts}; all values: <a href="{table}">{table}</a>. Drag the border on a face, or move it with
the arrow keys; left of it is the normalized face, or how far it differs from the
original. An AU is a movement, not a feeling, and an emotion that a network names is how a face
looks to others.</p>
{gallery}
</body>
</html>
"""


def write_page(out: Path, *, size: int = 320) -> int:
    """Writes ``out/index.html`` for the predictions that
    `norface_lib.photos.prediction.predict_tree` made in ``out``; returns the number of its faces.

    Its pictures are those of ``aligned/`` and ``normalized/``, by relative addresses. Of more than
    `MOST` faces it shows as many, evenly spread, and says so. ``size``: CSS pixels along a side of
    a face. Raises :class:`DataError` if there are no predictions.
    """
    out = Path(out)
    table = read_faces_with_predictions(out)
    faces = table[table["status"] == ALIGNED]
    shown = faces.iloc[np.unique(np.linspace(0, len(faces) - 1, min(MOST, len(faces))).astype(int))]
    text = _TEMPLATE.format(
        title=f"{len(shown)} faces",
        counts=_counts(table, len(shown)),
        table=PREDICTIONS,
        gallery=gallery_as_html([_item(row, out) for row in shown.to_dict("records")], size),
    )
    path = out / PAGE
    # a name that is no Unicode has surrogates, which no page can hold
    data = text.encode("utf-8", "replace")
    with writing(path):
        write_atomically(path, lambda part: part.write_bytes(data))
    return len(shown)


def _counts(table: pd.DataFrame, shown: int) -> str:
    statuses = table["status"].value_counts()
    text = ", ".join(f"{count} {escape(status)}" for status, count in statuses.items())
    left = int(statuses.get(ALIGNED, 0)) - shown
    return f"{text}; {left} of them, evenly spread, are not on this page" if left else text


def _item(row: dict[str, Any], out: Path) -> Item:
    address = quote(os.fsencode(row["output"]))
    there = inside(out / "normalized", row["output"]).is_file()
    known = {name: value for name, value in row.items() if not pd.isna(value)}
    return Item(
        name=_name(known),
        original=f"aligned/{address}",
        normalized=f"normalized/{address}" if there else "",
        row=known,
        more=_values(known),
    )


def _name(row: dict[str, Any]) -> str:
    """Source of a face, with what tells it from others there; the first face of a picture goes
    without its number."""
    kinds = [kind for kind in ("frame", "track", "face") if kind in row]
    parts = [f"{kind} {int(row[kind])}" for kind in kinds if kind != "face" or row[kind] > 0]
    return " ".join([row["source"], *parts])


def _values(row: dict[str, Any]) -> str:
    """All values of a face, folded away."""
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(_text(value))}</td></tr>"
        for name, value in row.items()
    )
    return f"<details><summary>all values</summary><table>{lines}</table></details>"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
