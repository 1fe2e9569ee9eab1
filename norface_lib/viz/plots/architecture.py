"""The two networks of the paper as one picture, with a real face at each stage."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from norface_lib.images.arrays import Faces
from norface_lib.viz.plots.charts import INPUT_COLORS
from norface_lib.viz.plots.mixtures import EXPERT_COLORS

_WIDTH, _HEIGHT = 11.0, 5.9
"""Of the picture, in inches, which are also the units of all places in it."""

Box = tuple[float, float, float, float]
"""Left, bottom, width and height."""


def architecture(
    original: Faces,
    target: Faces,
    normalized: Faces,
    gates: Sequence[float],
    probabilities: Mapping[str, float],
) -> Figure:
    """Normalization network above, classification network below, as boxes and arrows.

    ``original``, ``target`` and ``normalized``: (S, S, 3) of 8 bits. ``gates``: the share (M,) that
    the gate of the input mixture gives each expert for this face, 0 where it is not chosen.
    ``probabilities``: 0..1 for each label, drawn as bars.
    """
    figure = plt.figure(figsize=(_WIDTH, _HEIGHT))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(0, _HEIGHT))
    axis.set_axis_off()
    _normalization(axis, original, target, normalized)
    _classification(axis, original, normalized, gates, probabilities)
    return figure


def _normalization(axis: Axes, original: Faces, target: Faces, normalized: Faces) -> None:
    axis.text(0.15, 5.65, "Normalization network", fontsize=12, weight="bold")
    _face(axis, original, (0.15, 4.3, 1.0, 1.0), "original")
    _face(axis, target, (0.15, 2.95, 1.0, 1.0), "target, the same for all")
    _box(axis, (1.75, 4.3, 1.6, 1.0), "face encoder\n(transformer)", "original")
    _box(axis, (1.75, 2.95, 1.6, 1.0), "the same\nface encoder", "original")
    _box(axis, (3.95, 4.45, 1.6, 0.7), "expression\nembedding", "original")
    _box(
        axis,
        (6.0, 3.2, 1.75, 1.45),
        "expression merging:\ntarget tokens attend\nto original tokens",
        "both",
    )
    _box(axis, (8.2, 3.45, 1.1, 0.95), "decoder", "normalized")
    _face(axis, normalized, (9.8, 3.4, 1.05, 1.05), "normalized")
    _arrow(axis, (1.2, 4.8), (1.7, 4.8))
    _arrow(axis, (1.2, 3.45), (1.7, 3.45))
    _arrow(axis, (3.4, 4.8), (3.9, 4.8))
    _arrow(axis, (5.6, 4.7), (5.95, 4.4))
    _arrow(axis, (3.4, 4.4), (5.95, 3.95), "original tokens")
    _arrow(axis, (3.4, 3.45), (5.95, 3.45), "target tokens")
    _arrow(axis, (7.8, 3.92), (8.15, 3.92))
    _arrow(axis, (9.35, 3.92), (9.75, 3.92))


def _classification(
    axis: Axes,
    original: Faces,
    normalized: Faces,
    gates: Sequence[float],
    probabilities: Mapping[str, float],
) -> None:
    axis.text(0.15, 2.6, "Classification network", fontsize=12, weight="bold")
    _face(axis, original, (0.15, 1.35, 1.0, 1.0), "original")
    _face(axis, normalized, (0.15, 0.1, 1.0, 1.0), "normalized")
    _box(axis, (1.75, 0.6, 1.6, 1.2), "backbone,\none for both", "original")
    _box(axis, (3.75, 0.75, 0.95, 0.9), "fusion", "both")
    _experts(axis, (5.1, 0.45, 2.1, 1.75), gates)
    _box(
        axis,
        (7.6, 0.45, 1.35, 1.5),
        "output mixture:\na gate for each\nlabel chooses\namong experts",
        "both",
    )
    _bars(axis, (9.85, 0.2, 1.0, 2.1), probabilities)
    _arrow(axis, (1.2, 1.75), (1.7, 1.45))
    _arrow(axis, (1.2, 0.6), (1.7, 0.95))
    _arrow(axis, (3.4, 1.2), (3.7, 1.2))
    _arrow(axis, (4.75, 1.2), (5.05, 1.2))
    _arrow(axis, (7.25, 1.2), (7.55, 1.2))
    _arrow(axis, (9.0, 1.2), (9.3, 1.2))


def _experts(axis: Axes, place: Box, gates: Sequence[float]) -> None:
    """The input mixture: an expert a column, as dark as the gate lets it speak."""
    left, bottom, width, height = place
    _box(axis, place, "", "both")
    middle = left + width / 2
    axis.text(middle, bottom + height - 0.12, "input mixture", fontsize=9, ha="center", va="top")
    axis.text(middle, bottom + 0.08, "a gate chooses experts", fontsize=8, ha="center")
    step = (width - 0.2) / len(gates)
    for number, gate in enumerate(gates):
        column = (left + 0.15 + number * step, bottom + 0.4, step - 0.1, height - 0.95)
        color = EXPERT_COLORS[number % len(EXPERT_COLORS)] if gate > 0 else "#dddddd"
        axis.add_patch(
            FancyBboxPatch(column[:2], *column[2:], boxstyle="round,pad=0", fc=color, ec="none")
        )
        axis.text(
            column[0] + column[2] / 2,
            column[1] + column[3] / 2,
            f"{gate:.2f}" if gate > 0 else "0",
            fontsize=8,
            ha="center",
            va="center",
        )


def _bars(axis: Axes, place: Box, probabilities: Mapping[str, float]) -> None:
    """A bar from 0 to 1 for each label."""
    left, bottom, width, height = place
    step = height / max(len(probabilities), 1)
    for number, (name, value) in enumerate(probabilities.items()):
        y = bottom + height - (number + 0.5) * step
        color = INPUT_COLORS["normalized"] if value > 0.5 else "#c9c9c9"
        axis.barh(y, width, 0.7 * step, left=left, color="#f0f0f0")
        axis.barh(y, width * value, 0.7 * step, left=left, color=color)
        axis.text(left - 0.06, y, name, fontsize=7, ha="right", va="center")


def _face(axis: Axes, face: Faces, place: Box, name: str) -> None:
    left, bottom, width, height = place
    # `aspect` must stay, or the picture would give the axis that of its pixels
    axis.imshow(face, extent=(left, left + width, bottom, bottom + height), aspect="auto")
    axis.text(left, bottom + height + 0.04, name, fontsize=8)


def _box(axis: Axes, place: Box, text: str, color: str) -> None:
    left, bottom, width, height = place
    axis.add_patch(
        FancyBboxPatch(
            (left, bottom),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=f"{INPUT_COLORS[color]}22",
            edgecolor=INPUT_COLORS[color],
        )
    )
    axis.text(left + width / 2, bottom + height / 2, text, fontsize=9, ha="center", va="center")


def _arrow(axis: Axes, start: Sequence[float], end: Sequence[float], name: str = "") -> None:
    axis.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color="#555555")
    )
    if name:
        middle = [(one + other) / 2 for one, other in zip(start, end, strict=True)]
        axis.text(middle[0], middle[1] + 0.05, name, fontsize=7.5, ha="center", color="#555555")
