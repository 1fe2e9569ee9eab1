"""Figures of predictions: AU intensities and emotions beside or below the faces."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from norface_lib import labels
from norface_lib.images.arrays import Faces
from norface_lib.viz.bars import bars_of, shade
from norface_lib.viz.plots.faces import room_below, strip
from norface_lib.viz.plots.mixtures import EXPERT_COLORS


def reading(row: Mapping[str, Any], faces: Sequence[Faces] = ()) -> Figure:
    """The bars of `bars_of` a row, right of ``faces`` if there are any."""
    kinds = bars_of(row)
    ratios = [1.0] * len(faces) + [1.0, 0.8][: len(kinds)]
    figure, axes = plt.subplots(
        1,
        len(ratios),
        figsize=(3.2 * len(kinds) + 2.6 * len(faces), 3.1),
        width_ratios=ratios,
        squeeze=False,
    )
    for axis, face in zip(axes[0], faces, strict=False):
        axis.imshow(face, interpolation="antialiased")
        axis.set_axis_off()
    for axis, bars in zip(axes[0, len(faces) :], kinds, strict=True):
        axis.barh(
            range(len(bars.names)), bars.values, 0.7, color=[shade(dark) for dark in bars.dark]
        )
        axis.set(xlim=(0, bars.limit), ylim=(len(bars.names) - 0.4, -0.6))
        axis.set_yticks(range(len(bars.names)), bars.names)
        axis.set_title(bars.title, fontsize=9)
        axis.set_xlabel(bars.unit, fontsize=8)
        axis.tick_params(labelsize=7.5, length=0)
        sns.despine(ax=axis, left=True)
    figure.tight_layout()
    return figure


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
        colors = [shade(amount >= labels.OCCURRENCE_THRESHOLD) for amount in amounts]
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
    axis.set_xlabel("intensities: each column is 0 to 5 wide", fontsize=8)
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
    axis.set(ylim=(-0.1, labels.INTENSITY_MAX), xticks=[], xlabel="time", ylabel=name)
    axis.legend(frameon=False, fontsize=8, loc="upper right")
    axis.tick_params(labelsize=7)
    sns.despine(ax=axis, bottom=True)
    return figure
