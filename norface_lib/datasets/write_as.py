"""A rendered benchmark in the layout of a gated dataset, quirks included, so that the real loader
and protocol run on it.

Rendered subjects take the dataset's official subject ids in order, so the official folds apply. AUs
that the benchmark lacks are written as 9 (not coded) in BP4D and BP4D+, and as 0 in DISFA, which
has no code for that. Intensities are rounded; below 1 (A) an AU is absent. Both cameras of DISFA
get the same images. Frames without an emotion are left out of the emotion datasets, where a fifth
of the rendered subjects makes the part that is tested. All is deterministic by seed.
"""

from pathlib import Path

import numpy as np

from norface_lib.common.errors import DataError
from norface_lib.common.locks import whole_folder
from norface_lib.datasets.au_layouts import BP4DPlusWriter, BP4DWriter, DISFAWriter
from norface_lib.datasets.emotion_layouts import AffectNetWriter, RAFDBWriter
from norface_lib.datasets.layout_writer import Quirks
from norface_lib.datasets.report import Report

VARIANTS = {
    "bp4d": ("images", "zip", "video"),
    "bp4d_plus": ("zip", "video", "images"),
    "disfa": ("video", "images"),
    "affectnet": ("old", "new", "folders"),
    "rafdb": ("aligned", "original", "folders"),
}
"""Layouts, and the forms in which each was distributed; the first is the default."""

AWKWARD = Quirks()
"""Data with every oddity that real ones have."""

CLEAN = Quirks(
    mixed_case=False,
    padding=False,
    nines=0.0,
    missing_labels=False,
    unreadable=False,
    odd_rows=False,
)
"""Data without any."""

_WRITERS = {
    "bp4d": BP4DWriter,
    "bp4d_plus": BP4DPlusWriter,
    "disfa": DISFAWriter,
    "affectnet": AffectNetWriter,
    "rafdb": RAFDBWriter,
}


def write_as(
    layout: str,
    benchmark: Path,
    out: Path,
    variant: str | None = None,
    quirks: Quirks = AWKWARD,
    seed: int = 0,
) -> Report:
    """Writes ``benchmark``, a folder that ``write_benchmark`` made, to ``out`` in a layout of
    ``VARIANTS``, all or nothing.

    The report says what was written and left out, and counts each quirk. Raises ``ValueError`` for
    an unknown layout or variant and :class:`DataError` for a damaged benchmark, one without
    emotions where they are needed, or an ``out`` that is in use.
    """
    layout = layout.lower().replace("+", "_plus")
    if layout not in VARIANTS or variant not in (None, *VARIANTS[layout]):
        known = "; ".join(f"{name}: {', '.join(forms)}" for name, forms in VARIANTS.items())
        raise ValueError(f"layout and variant must be among {known}; got {layout!r}, {variant!r}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is in use; choose a folder that does not exist")
    variant = variant or VARIANTS[layout][0]
    report = Report(f"written as {layout} ({variant})")
    rng = np.random.default_rng([seed, list(VARIANTS).index(layout)])
    with whole_folder(out) as part:
        _WRITERS[layout](Path(benchmark), part, variant, quirks, rng, report).write()
    return report
