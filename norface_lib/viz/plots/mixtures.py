"""Figures of mixtures of experts: which expert a gate chose where, how often, and for whom."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from norface_lib.images.arrays import Faces

EXPERT_COLORS = (
    "#4c9f9a",
    "#b5532d",
    "#e0b13e",
    "#5b6fa8",
    "#9a6a9e",
    "#7d8f45",
    "#c98a8a",
    "#6b6b6b",
)
"""One color for each expert of a mixture; beyond eight they repeat."""


def painted(numbers: NDArray[np.intp], colors: Sequence[str] = EXPERT_COLORS) -> Faces:
    """Maps of whole numbers (N, G, G), such as the expert at each place, as images (N, G, G, 3);
    colors repeat."""
    palette = np.array(
        [[round(255 * part) for part in to_rgb(color)] for color in colors], np.uint8
    )
    return palette[np.asarray(numbers) % len(palette)]


def gate_maps(
    names: Sequence[str],
    gates: Mapping[str, NDArray[np.float32]],
    center: float | None = None,
    unit: str = "mean gate",
) -> Figure:
    """Heat maps label x expert, one panel for each entry (L, m). ``center``: the value that is
    white, for differences. ``unit``: what a value is."""
    figure, axes = plt.subplots(
        1, len(gates), figsize=(1.2 + 2.3 * len(gates), 0.6 + 0.26 * len(names)), squeeze=False
    )
    middle = center or 0.0
    reach = max(float(np.abs(values - middle).max()) for values in gates.values())
    scale = {"vmin": 0, "cmap": "crest"}
    if center is not None:
        scale = {"vmin": center - reach, "center": center, "cmap": "vlag"}
    for index, (axis, (title, values)) in enumerate(zip(axes[0], gates.items(), strict=True)):
        sns.heatmap(
            values,
            vmax=middle + reach,
            annot=True,
            fmt=".2f",
            annot_kws={"fontsize": 7},
            cbar=index == len(gates) - 1,
            cbar_kws={"label": unit},
            xticklabels=np.arange(1, values.shape[1] + 1),
            yticklabels=names if index == 0 else False,
            ax=axis,
            **scale,
        )
        axis.set_xlabel("expert")
        axis.set_title(title, fontsize=9)
        axis.tick_params(axis="y", rotation=0, length=0)
    figure.tight_layout()
    return figure


def expert_shares(shares: Mapping[str, tuple[Sequence[int], NDArray[np.float32]]]) -> Figure:
    """Load of the experts over training: for each panel the steps (T,) and the share of each expert
    (T, m), stacked to 1."""
    figure, axes = plt.subplots(
        1, len(shares), figsize=(2.0 + 2.4 * len(shares), 2.4), squeeze=False, sharey=True
    )
    for axis, (title, (steps, values)) in zip(axes[0], shares.items(), strict=True):
        colors = [EXPERT_COLORS[expert % len(EXPERT_COLORS)] for expert in range(values.shape[1])]
        names = [f"expert {expert + 1}" for expert in range(values.shape[1])]
        axis.stackplot(steps, values.T, colors=colors, labels=names, linewidth=0)
        axis.set(ylim=(0, 1), xlabel="step", xlim=(steps[0], max(steps[-1], steps[0] + 1)))
        axis.set_title(title, fontsize=9)
    axes[0, 0].set_ylabel("share of the gates")
    handles = axes[0, -1].get_legend_handles_labels()
    axes[0, -1].legend(
        *(part[::-1] for part in handles),  # as they are stacked
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    sns.despine(figure)
    figure.tight_layout()
    return figure


def face_gates(
    original: Faces,
    normalized: Faces,
    input_gates: NDArray,
    output_gates: NDArray,
    names: Sequence[str],
    probabilities: NDArray,
) -> Figure:
    """One pair of faces (S, S, 3) and its gates: the input mixture's (m,), the output mixture's (L,
    m).

    ``probabilities`` (L,) of the labels stand behind their names.
    """
    figure = plt.figure(figsize=(7.4, 3.6))
    faces, bars, heat = figure.subplots(1, 3, width_ratios=(1.25, 0.55, 1.6))
    faces.imshow(np.concatenate([original, normalized]))
    faces.set_axis_off()
    experts = np.arange(1, len(input_gates) + 1)
    bars.bar(
        experts, input_gates, color=[EXPERT_COLORS[(e - 1) % len(EXPERT_COLORS)] for e in experts]
    )
    bars.set(ylim=(0, 1), xticks=experts, xlabel="expert", ylabel="gate")
    bars.set_title("input gate", fontsize=9)
    rows = [f"{name}  {value:.2f}" for name, value in zip(names, probabilities, strict=True)]
    sns.heatmap(
        output_gates,
        vmin=0,
        vmax=1,
        cmap="crest",
        cbar_kws={"label": "gate"},
        xticklabels=experts,
        yticklabels=rows,
        ax=heat,
    )
    heat.tick_params(axis="y", rotation=0, labelsize=8, length=0)
    heat.set(xlabel="expert", ylabel="AU and its probability")
    heat.set_title("output gates", fontsize=9)
    sns.despine(ax=bars)
    figure.tight_layout()
    return figure
