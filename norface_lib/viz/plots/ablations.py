"""Figures of ablations: scores and differences with their intervals, and curves over a setting."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from norface_lib.viz.plots.charts import INPUT_COLORS

ROW_COLORS: Mapping[str, str] = INPUT_COLORS | {
    "original twice": "#b9a37e",
    "true normalized": "#31626e",
    "neutral target": "#c9c9c9",
    "read and render": "#5b6fa8",
}
"""One color for each row; others are dark gray."""


def scores(table: pd.DataFrame, axis_label: str, zero: bool = False) -> Figure:
    """A point for each line of a table with its interval, one below the other; the index names
    them.

    ``table``: columns ``score``, ``low`` and ``high``. ``zero``: with a line at 0, for differences.
    """
    figure, axis = plt.subplots(figsize=(7.4, 0.7 + 0.3 * len(table)))
    for place, (name, line) in enumerate(table[::-1].iterrows()):
        color = ROW_COLORS.get(str(name), "#444444")
        axis.plot([line["low"], line["high"]], [place, place], color=color, lw=3.5, alpha=0.6)
        axis.plot(line["score"], place, "o", color=color, ms=6)
    if zero:
        axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks(range(len(table)), list(table.index[::-1]))
    axis.set(xlabel=axis_label, ylim=(-0.6, len(table) - 0.4))
    axis.grid(axis="x", alpha=0.3)
    sns.despine(figure, left=True)
    axis.tick_params(axis="y", length=0)
    figure.tight_layout()
    return figure


def curves(
    table: pd.DataFrame, over: str, panels: str, rows: Sequence[str], labels: tuple[str, str]
) -> Figure:
    """Scores over a setting, a panel for each value of the column ``panels`` and a line with its
    interval for each of ``rows``.

    ``table``: columns ``row``, ``score``, ``low``, ``high``, ``over`` and ``panels``; ``labels``:
    of the two axes. The setting is shown on a logarithmic axis.
    """
    names = list(dict.fromkeys(table[panels]))
    figure, axes = plt.subplots(
        1, len(names), figsize=(1.4 + 3.1 * len(names), 3.1), sharey=True, squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        part = table[table[panels] == name]
        for row in rows:
            _curve(axis, part[part["row"] == row].sort_values(over), over, row)
        ticks = sorted(part[over].unique())
        axis.set(xscale="log", xlabel=labels[0])
        axis.set_title(str(name), fontsize=10)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel(labels[1])
    axes[0, -1].legend(frameon=False, fontsize=9)
    sns.despine(figure)
    figure.tight_layout()
    return figure


def _curve(axis: Axes, part: pd.DataFrame, over: str, row: str) -> None:
    color = ROW_COLORS.get(row, "#444444")
    axis.fill_between(part[over], part["low"], part["high"], color=color, alpha=0.18, lw=0)
    axis.plot(part[over], part["score"], "o-", color=color, ms=4, label=row)
