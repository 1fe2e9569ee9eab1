"""Charts of labels, scores, training logs and embeddings."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

INPUT_COLORS = {"original": "#8c8c8c", "normalized": "#4c9f9a", "both": "#b5532d"}
"""One color for each classifier input in every figure."""


def base_rates(
    names: Sequence[str], measured: Sequence[float], published: Sequence[float]
) -> Figure:
    """Base rates of AUs in a benchmark beside those in BP4D, in 0..1."""
    figure, axis = plt.subplots(figsize=(8, 2.8))
    at = np.arange(len(names))
    axis.bar(at - 0.2, np.array(measured) * 100, 0.4, color="#4c9f9a", label="this benchmark")
    axis.bar(
        at + 0.2, np.array(published) * 100, 0.4, color="#c9c9c9", label="BP4D (published labels)"
    )
    axis.set(xticks=at, xticklabels=names, ylabel="frames with the AU (%)")
    axis.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    sns.despine(figure)
    figure.tight_layout()
    return figure


def f1_bars(names: Sequence[str], f1: Mapping[str, Sequence[float]], measure: str = "F1") -> Figure:
    """F1 (0..1) of each AU, or another ``measure`` in that range, one bar for each classifier
    input."""
    figure, axis = plt.subplots(figsize=(9, 3))
    at = np.arange(len(names))
    width = 0.8 / len(f1)
    for index, (inputs, values) in enumerate(f1.items()):
        mean = float(np.mean(values))
        axis.bar(
            at + (index - (len(f1) - 1) / 2) * width,
            values,
            width,
            color=INPUT_COLORS[inputs],
            label=f"{inputs}, mean {mean:.3f}",
        )
    axis.set(xticks=at, xticklabels=names, ylabel=measure, ylim=(0, 1))
    axis.legend(frameon=False, ncols=len(f1), loc="upper center", bbox_to_anchor=(0.5, 1.2))
    sns.despine(figure)
    figure.tight_layout()
    return figure


def confusion(names: Sequence[str], counts: NDArray[np.int64]) -> Figure:
    """Confusions (C, C), rows true classes and columns predicted ones, in shares of each row."""
    totals = counts.sum(axis=1)
    figure, axis = plt.subplots(figsize=(5.2, 4.4))
    sns.heatmap(
        counts / np.maximum(totals[:, None], 1),
        vmin=0,
        vmax=1,
        cmap="Blues",
        annot=True,
        fmt=".2f",
        annot_kws={"size": 7},
        square=True,
        cbar=False,
        xticklabels=names,
        yticklabels=[f"{name} ({total})" for name, total in zip(names, totals, strict=True)],
        ax=axis,
    )
    axis.set(xlabel="predicted", ylabel="true")
    axis.tick_params(axis="x", rotation=45)
    figure.tight_layout()
    return figure


def cooccurrence(names: Sequence[str], occurrences: NDArray[np.float32]) -> Figure:
    """Correlation of AU occurrences (N, A) of 0 and 1, as a triangle."""
    correlation = np.corrcoef(occurrences.T)
    figure, axis = plt.subplots(figsize=(5, 4.2))
    upper = np.triu(np.ones_like(correlation, dtype=bool))
    sns.heatmap(
        correlation,
        mask=upper,
        vmin=-1,
        vmax=1,
        cmap="vlag",
        square=True,
        xticklabels=names,
        yticklabels=names,
        ax=axis,
    )
    axis.set_title("correlation of AUs", fontsize=10)
    figure.tight_layout()
    return figure


def curve(lines: Sequence[Mapping[str, float]], keys: Mapping[str, str], axis_label: str) -> Figure:
    """Lines of a training log over steps: log key -> legend. A key that is not in every line is
    plotted where it is."""
    figure, axis = plt.subplots(figsize=(6, 2.6))
    for key, name in keys.items():
        points = [(line["step"], line[key]) for line in lines if key in line]
        axis.plot(*zip(*points, strict=True), label=name)
    axis.set(xlabel="step", ylabel=axis_label)
    axis.legend(frameon=False)
    sns.despine(figure)
    figure.tight_layout()
    return figure


def maps(
    points: Mapping[str, NDArray[np.float32]],
    subjects: NDArray,
    values: NDArray[np.float32],
    names: tuple[str, str],
) -> Figure:
    """Embeddings in the plane, name -> (N, 2), a row for each: left colored by subject (N,), right
    by a value (N,).

    ``names``: of the two colorings, the second with its unit. With more than 20 subjects, colors
    repeat.
    """
    figure, axes = plt.subplots(len(points), 2, figsize=(8.4, 3.5 * len(points)), squeeze=False)
    people = np.unique(subjects, return_inverse=True)[1]
    for (left, right), (title, places) in zip(axes, points.items(), strict=True):
        left.scatter(*places.T, c=people % 20, cmap="tab20", s=10, linewidths=0)
        shown = right.scatter(*places.T, c=values, cmap="viridis", s=10, linewidths=0)
        figure.colorbar(shown, ax=right, fraction=0.05, pad=0.02, label=names[1])
        for axis, name in zip((left, right), names, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{title}, by {name}", fontsize=9)
    figure.tight_layout()
    return figure
