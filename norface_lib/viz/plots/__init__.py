"""Figures as pure functions: arrays in, a matplotlib figure or an image out."""

from norface_lib.common.errors import needs

with needs("notebooks"):
    import seaborn  # noqa: F401

from norface_lib.viz.bars import Bars, bars_as_html, bars_of
from norface_lib.viz.plots.ablations import ROW_COLORS, curves, scores
from norface_lib.viz.plots.architecture import architecture
from norface_lib.viz.plots.charts import (
    INPUT_COLORS,
    base_rates,
    confusion,
    cooccurrence,
    curve,
    f1_bars,
    maps,
)
from norface_lib.viz.plots.comparisons import (
    Effect,
    effects_of,
    forest,
    gaps,
    method_bars,
    people_curves,
)
from norface_lib.viz.plots.detection import small_faces
from norface_lib.viz.plots.faces import (
    detected_face,
    heat_over,
    strip,
)
from norface_lib.viz.plots.mixtures import (
    EXPERT_COLORS,
    expert_shares,
    face_gates,
    gate_maps,
    painted,
)
from norface_lib.viz.plots.readings import film, reading, readings
from norface_lib.viz.plots.showing import show

__all__ = [
    "EXPERT_COLORS",
    "INPUT_COLORS",
    "ROW_COLORS",
    "Bars",
    "Effect",
    "architecture",
    "bars_as_html",
    "bars_of",
    "base_rates",
    "confusion",
    "cooccurrence",
    "curve",
    "curves",
    "detected_face",
    "effects_of",
    "expert_shares",
    "f1_bars",
    "face_gates",
    "film",
    "forest",
    "gaps",
    "gate_maps",
    "heat_over",
    "maps",
    "method_bars",
    "painted",
    "people_curves",
    "reading",
    "readings",
    "scores",
    "show",
    "small_faces",
    "strip",
]
