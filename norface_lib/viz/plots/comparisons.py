"""Charts of results: what each part adds, published numbers, gaps between datasets."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from norface_lib.viz.plots.charts import INPUT_COLORS


class Effect(NamedTuple):
    """A difference with its 95 % interval over people, and one over trainings (or None)."""

    name: str
    value: float
    people: Sequence[float] | None
    trainings: Sequence[float] | None

    @property
    def sure(self) -> bool:
        """True if the intervals that are there leave out zero."""
        known = [interval for interval in (self.people, self.trainings) if interval is not None]
        return bool(known) and all(low > 0 or high < 0 for low, high in known)


def effects_of(differences: Mapping[str, Mapping[str, Any]]) -> list[Effect]:
    """The ``differences`` of a result file as effects, by name ``value``, ``subjects`` and
    ``trainings``."""
    return [
        Effect(name, found["value"], found["subjects"], found.get("trainings"))
        for name, found in differences.items()
    ]


def forest(groups: Mapping[str, Sequence[Effect]], axis_label: str) -> Figure:
    """A forest plot: a panel for each group, a line for each effect, at its value, with the
    interval over people (thick) and over trainings (thin). Gray where one of them holds zero."""
    names = list(dict.fromkeys(effect.name for effects in groups.values() for effect in effects))
    figure, axes = plt.subplots(
        1,
        len(groups),
        figsize=(1.9 + 1.7 * len(groups), 1.0 + 0.4 * len(names)),
        sharey=True,
        squeeze=False,
    )
    for axis, (title, effects) in zip(axes[0], groups.items(), strict=True):
        for effect in effects:
            height = len(names) - 1 - names.index(effect.name)
            color = "#b5532d" if effect.sure else "#9a9a9a"
            if effect.trainings is not None:
                axis.plot(effect.trainings, [height, height], color=color, linewidth=1)
            if effect.people is not None:
                axis.plot(effect.people, [height, height], color=color, linewidth=3, alpha=0.6)
            axis.plot(effect.value, height, "o", color=color, markersize=5)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=9.5)
        axis.tick_params(axis="x", labelsize=8.5)
        axis.set(yticks=range(len(names)), ylim=(-0.6, len(names) - 0.4))
    axes[0, 0].set_yticklabels([textwrap.fill(name, 24) for name in names[::-1]], fontsize=9.5)
    sns.despine(figure)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    first, last = axes[0, 0].get_position(), axes[0, -1].get_position()
    figure.supxlabel(axis_label, x=(first.x0 + last.x1) / 2, y=0.02, fontsize=9.5)
    return figure


def method_bars(
    labels: Sequence[str], methods: Mapping[str, Sequence[float]], apart: str, axis_label: str
) -> Figure:
    """Bars of each label (percent), one for each method; that of ``apart``, which is of another
    kind of data, is hatched and stands away from the others. NaN where a number is not known."""
    figure, axis = plt.subplots(figsize=(10, 3.2))
    width = 0.84 / (len(methods) + 0.6)
    shades = iter(sns.color_palette("Greys", len(methods) + 2)[2:])
    at = np.arange(len(labels))
    for number, (name, values) in enumerate(methods.items()):
        if name == apart:
            style: dict[str, Any] = {"color": "white", "edgecolor": "#b5532d", "hatch": "///"}
            place = at - 0.42 + (number + 1.1) * width
        else:
            style = {"color": next(shades)}
            place = at - 0.42 + (number + 0.5) * width
        axis.bar(place, values, width, label=name, **style)
    axis.set(xticks=at, xticklabels=labels, ylabel=axis_label, ylim=(0, 100))
    axis.legend(frameon=False, fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.24))
    sns.despine(figure)
    figure.tight_layout()
    return figure


def gaps(
    directions: Mapping[str, Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]],
    axis_label: str,
) -> Figure:
    """In-domain and cross-dataset scores: a panel for each direction, a line for each input from
    its cross-dataset score (filled) to its in-domain score (open), each with its interval.

    ``directions``: name -> input -> (in-domain row, cross-dataset row), rows as a result file holds
    them, with ``headline`` and ``interval``.
    """
    figure, axes = plt.subplots(
        1, len(directions), figsize=(1.2 + 2.9 * len(directions), 2.3), squeeze=False
    )
    for axis, (title, inputs) in zip(axes[0], directions.items(), strict=True):
        for number, (name, (own, across)) in enumerate(inputs.items()):
            height = len(inputs) - 1 - number
            color = INPUT_COLORS[name]
            values = [across["headline"], own["headline"]]
            axis.plot(values, [height, height], color=color, linewidth=2, alpha=0.5)
            for row, face, shift in ((across, color, 0.12), (own, "white", -0.12)):
                if row["interval"]:
                    axis.plot(row["interval"], [height + shift] * 2, color=color, linewidth=1)
                axis.plot(row["headline"], height, "o", color=color, markerfacecolor=face)
        axis.set(yticks=range(len(inputs)), yticklabels=list(inputs)[::-1], xlabel=axis_label)
        axis.set_ylim(-0.6, len(inputs) - 0.4)
        axis.set_title(title, fontsize=9)
    axes[0, 0].plot([], [], "o", color="black", label="cross-dataset")
    axes[0, 0].plot([], [], "o", color="black", markerfacecolor="white", label="in-domain")
    figure.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    sns.despine(figure)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return figure


def people_curves(
    curves: Mapping[str, Mapping[int, tuple[float, Sequence[float] | None]]], axis_label: str
) -> Figure:
    """Scores over the number of labeled people, logarithmic: a line for each row, with a band for
    its interval. ``curves``: row -> people -> (score, interval or None)."""
    figure, axis = plt.subplots(figsize=(6, 3))
    colors = iter(sns.color_palette("Dark2", len(curves)))
    for name, points in curves.items():
        people = sorted(points)
        color = INPUT_COLORS.get(name) or next(colors)
        axis.plot(people, [points[count][0] for count in people], "o-", color=color, label=name)
        known = [count for count in people if points[count][1] is not None]
        if known:
            low, high = zip(*(points[count][1] for count in known), strict=True)
            axis.fill_between(known, low, high, color=color, alpha=0.15, linewidth=0)
    counts = sorted({count for points in curves.values() for count in points})
    axis.set_xscale("log")
    axis.set(xticks=counts, xlabel="labeled people", ylabel=axis_label)
    axis.set_xticklabels(counts)
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8)
    sns.despine(figure)
    figure.tight_layout()
    return figure
