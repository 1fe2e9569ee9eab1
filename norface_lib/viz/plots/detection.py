"""Figures of the detection of faces."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

COLORS = {"one shrunk picture": "#8c8c8c", "tiles": "#b5532d"}
"""One color for each search for faces."""


def small_faces(figures: Sequence[dict[str, Any]]) -> Figure:
    """Recall over the height of faces, a panel for each size of pictures, with the processor's
    median seconds of a picture in the legend.

    ``figures``: as `norface_lib.cli.bench.small_faces` measures them.
    """
    table = pd.DataFrame(figures)
    panels = table.groupby(["width", "height"], sort=False)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.1 * len(panels), 2.9), sharex=True, sharey=True
    )
    for axis, ((width, height), panel) in zip(axes, panels, strict=True):
        for search, rows in panel.groupby("search", sort=False):
            seconds = rows["processor_seconds"].median()
            label = f"{search}, {seconds:.2f} s"
            axis.plot(rows["face"], rows["value"], "o-", color=COLORS[search], label=label, ms=4)

        axis.set_title(f"{width} x {height} px", fontsize=10)
        ticks = sorted(table["face"].unique())
        axis.set(xscale="log", xlabel="height of the face (px)", ylim=(-0.03, 1.03))
        axis.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.24))

    axes[0].set_ylabel("faces found")
    sns.despine(figure)
    figure.tight_layout()
    return figure
