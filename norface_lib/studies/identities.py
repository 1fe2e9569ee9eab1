"""Normalized faces of several target identities: a classifier learns from one of them, drawn by
chance for each sample, and is tested on the mean of its predictions over all.

The paper's authors gave out seven identities of RAF-DB (PAPER.md 1.3); how they were used is not
known, and this is our choice.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.given import RULES, given_places, identity_folders
from norface_lib.datasets.pairs import SeveralPairs
from norface_lib.studies.preparation import Prepared, prepare


def prepare_identities(
    data: FaceDataset,
    identities: Sequence[str],
    *,
    given: Path | None,
    missing: str,
    **settings: Any,
) -> Prepared:
    """As `norface_lib.studies.preparation.prepare`; with ``identities``, ``given`` holds a folder
    for each.

    A frame that lacks an image of some identity is left out, or with ``missing`` as ``original``
    keeps its original in that one's place; they are counted for each. Raises :class:`DataError` if
    no frame is left, and what `identity_folders` and `prepare` raise.
    """
    if not identities:
        return prepare(data, given=given, missing=missing, **settings)
    folders = identity_folders(given, identities)
    places = {name: given_places(data.index["path"], place) for name, place in folders.items()}
    there = pd.DataFrame(places).notna()
    kept = data if missing == "original" else data.select(there.all(axis=1).to_numpy())
    if not len(kept):
        raise DataError(
            f"{given}: no frame has an image of every identity; name fewer identities, or say "
            "missing=original"
        )

    of_each = [
        prepare(kept, given=place, missing=missing, **settings) for place in folders.values()
    ]
    # folds with the same faces share one object, as in each identity's own views
    views: dict[tuple[int, ...], SeveralPairs] = {}
    views_of_folds = []
    for of_fold in zip(*(prepared.views for prepared in of_each), strict=True):
        same_faces = tuple(map(id, of_fold))
        views_of_folds.append(views.setdefault(same_faces, SeveralPairs(of_fold)))

    counts = {}
    for name in folders:
        counts[f"{name}: given"] = int(there[name].sum())
        counts[f"{name}: without a given image, {RULES[missing]}"] = int((~there[name]).sum())
    first = of_each[0]
    keys = "".join(prepared.key for prepared in of_each)
    return replace(
        first,
        views=views_of_folds,
        counts=first.counts | {"normalized": counts, "not_normalized": len(data) - len(kept)},
        key=f"identities-{hashlib.sha256(keys.encode()).hexdigest()[:16]}",
    )
