"""Figures of predictions: AU intensities and emotions beside or below the faces."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from norface_lib import labels
from norface_lib.images.arrays import Faces
from norface_lib.viz.plots.charts import INPUT_COLORS
from norface_lib.viz.plots.faces import room_below, strip
from norface_lib.viz.plots.mixtures import EXPERT_COLORS


class Bars(NamedTuple):
    """A few values from 0 to ``limit`` under a title; those that are ``dark`` stand out."""

    title: str
    limit: float
    names: Sequence[str]
    values: Sequence[float]
    dark: Sequence[bool]


def bars_of(row: Mapping[str, Any]) -> tuple[Bars, Bars]:
    """Bars of a row with the columns of ``predictions.csv``: AU intensities, and probabilities of
    emotions.

    Dark are AUs whose own probability is over 0.5, and the likeliest emotion.
    """
    aus = [name for name in row.keys() if f"{name}_intensity" in row]  # noqa: SIM118 (of a pandas row, too)
    named = [f"{name} {labels.AUS[int(name[2:])].name}" for name in aus]
    intensities = [float(row[f"{name}_intensity"]) for name in aus]
    emotions = [name for name in labels.EMOTIONS if name in row]
    au_bars = Bars(
        title="intensity of action units",
        limit=labels.INTENSITY_MAX,
        names=named,
        values=intensities,
        dark=[row[name] > 0.5 for name in aus],
    )
    emotion_bars = Bars(
        title=f"emotion: {row['emotion']}",
        limit=1.0,
        names=emotions,
        values=[float(row[name]) for name in emotions],
        dark=[name == row["emotion"] for name in emotions],
    )
    return au_bars, emotion_bars


def reading(row: Mapping[str, Any], faces: Sequence[Faces] = ()) -> Figure:
    """The bars of `bars_of` a row, right of ``faces`` if there are any."""
    ratios = [1.0] * len(faces) + [1.0, 0.8]
    figure, axes = plt.subplots(
        1, len(ratios), figsize=(6.4 + 2.6 * len(faces), 3.1), width_ratios=ratios
    )
    for axis, face in zip(axes, faces, strict=False):
        axis.imshow(face, interpolation="antialiased")
        axis.set_axis_off()
    for axis, bars in zip(axes[-2:], bars_of(row), strict=True):
        axis.barh(
            range(len(bars.names)), bars.values, 0.7, color=[_shade(dark) for dark in bars.dark]
        )
        axis.set(xlim=(0, bars.limit), ylim=(len(bars.names) - 0.4, -0.6))
        axis.set_yticks(range(len(bars.names)), bars.names)
        axis.set_title(bars.title, fontsize=9)
        axis.tick_params(labelsize=7.5, length=0)
        sns.despine(ax=axis, left=True)
    figure.tight_layout()
    return figure


def bars_as_html(row: Mapping[str, Any]) -> str:
    """The bars of `bars_of` a row as HTML: a figure takes ten times as long, which is felt while
    one plays with a control."""
    bars = "".join(map(_html_of, bars_of(row)))
    return f'<div style="display: flex; flex-wrap: wrap; gap: 8px 28px">{bars}</div>'


_GRID = (
    "display: grid; grid-template-columns: auto 120px 2.5em; gap: 4px 8px; align-items: center; "
    "line-height: 1.3; margin-top: 6px"
)
"""Style of three columns: name, bar, number."""


def _html_of(bars: Bars) -> str:
    lines = []
    for name, value, dark in zip(bars.names, bars.values, bars.dark, strict=True):
        width = min(100 * value / bars.limit, 100)
        style = f"display: block; height: 12px; width: {width:.1f}%; background: {_shade(dark)}"
        lines += [
            f'<span style="text-align: right">{escape(name)}</span>',
            f'<span style="background: #8882; height: 12px"><span style="{style}"></span></span>',
            f"<span>{value:.2f}</span>",
        ]
    return f'<div><b>{escape(bars.title)}</b><div style="{_GRID}">{"".join(lines)}</div></div>'


def _shade(dark: bool) -> str:
    """The color of a bar."""
    return INPUT_COLORS["normalized"] if dark else "#c9c9c9"


def readings(
    rows: Mapping[str, Faces],
    values: Mapping[str, Sequence[float]],
    titles: Sequence[str],
    scale: float = 1.25,
) -> Figure:
    """`strip` of faces, and below each the intensities 0..5 of its AUs, dark from 1 (A) on.
    ``values``: (N,) for each AU."""
    figure = strip(rows, scale, titles)
    axis = room_below(figure, 0.17 * len(values))
    for line, amounts in enumerate(values.values()):
        colors = [_shade(amount >= labels.OCCURRENCE_THRESHOLD) for amount in amounts]
        axis.barh(
            line,
            np.array(amounts) / labels.INTENSITY_MAX * 0.9,
            0.7,
            np.arange(len(amounts)) + 0.05,
            color=colors,
        )
    axis.vlines(np.arange(1, len(titles)), -0.5, len(values) - 0.5, color="#e6e6e6", linewidth=0.8)
    axis.set(
        ylim=(len(values) - 0.4, -0.6), yticks=range(len(values)), yticklabels=values, xticks=[]
    )
    axis.tick_params(labelsize=7, length=0)
    axis.spines[:].set_visible(False)
    return figure


def film(
    rows: Mapping[str, Faces], curves: Mapping[str, Sequence[float]], name: str, scale: float = 0.95
) -> Figure:
    """`strip` of the frames of a film over curves of a value 0..5 in each frame, the last dashed.
    ``name``: of the value."""
    figure = strip(rows, scale)
    axis = room_below(figure, 1.5)
    for index, (legend, values) in enumerate(curves.items()):
        last = index == len(curves) - 1
        color = "#4d4d4d" if last else EXPERT_COLORS[index]
        axis.plot(
            np.arange(len(values)) + 0.5,
            values,
            "--" if last else "o-",
            color=color,
            markersize=3,
            label=legend,
        )
    axis.set(ylim=(-0.1, labels.INTENSITY_MAX), xticks=[], ylabel=name)
    axis.legend(frameon=False, fontsize=8, loc="upper right")
    axis.tick_params(labelsize=7)
    sns.despine(ax=axis, bottom=True)
    return figure
