"""Figures as pure functions: arrays in, a matplotlib figure or an image out."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from norface_lib import labels

Faces = NDArray[np.uint8]


INPUT_COLORS = {"original": "#8c8c8c", "normalized": "#4c9f9a", "both": "#b5532d"}
"""One color for each classifier input in every figure."""


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


def strip(rows: Mapping[str, Faces], scale: float = 0.95, titles: Sequence[str] = ()) -> Figure:
    """Labeled rows of faces, one column for each face: original / normalized / truth / difference.
    ``titles``: of columns."""
    count, size = len(next(iter(rows.values()))), next(iter(rows.values())).shape[1]
    step = size + max(1, size // 40)
    sheet = np.full((len(rows) * step, count * step, 3), 255, np.uint8)
    for line, faces in enumerate(rows.values()):
        for column, face in enumerate(faces):
            sheet[line * step : line * step + size, column * step : column * step + size] = face
    margin, head = 0.1 + 0.075 * max(map(len, rows)), 0.2 if titles else 0.0  # inches for the words
    width, height = count * scale + margin, len(rows) * scale + head
    figure = plt.figure(figsize=(width, height))
    axis = figure.add_axes((margin / width, 0, count * scale / width, len(rows) * scale / height))
    axis.imshow(sheet, interpolation="antialiased")
    axis.set(xticks=[(column + 0.5) * step for column in range(len(titles))])
    axis.set(yticks=[(line + 0.5) * step for line in range(len(rows))])
    axis.set_xticklabels(titles, fontsize=7)
    axis.xaxis.tick_top()
    axis.set_yticklabels(rows, fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def heat_over(face: Faces, heat: NDArray[np.float32]) -> Faces:
    """A face (S, S, 3) with a coarse map (G, G) of values >= 0 over it: gray where it is 0, red
    where it is largest."""
    size = face.shape[0]
    smooth = cv2.resize(
        heat.astype(np.float32) / max(float(heat.max()), 1e-9),
        (size, size),
        interpolation=cv2.INTER_CUBIC,
    )
    gray = np.repeat(face.mean(-1, keepdims=True), 3, axis=-1)
    weight = smooth.clip(0, 1)[..., None] * 0.75
    return (gray * (1 - weight) + np.array([226, 70, 40]) * weight).astype(np.uint8)


def base_rates(names: Sequence[str], measured: Sequence[float], wanted: Sequence[float]) -> Figure:
    """How often each AU occurs in a benchmark beside how often it does in BP4D; rates in 0..1."""
    figure, axis = plt.subplots(figsize=(8, 2.8))
    at = np.arange(len(names))
    axis.bar(at - 0.2, np.array(measured) * 100, 0.4, color="#4c9f9a", label="this benchmark")
    axis.bar(
        at + 0.2, np.array(wanted) * 100, 0.4, color="#c9c9c9", label="BP4D (published labels)"
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
    at, width = np.arange(len(names)), 0.8 / len(f1)
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
    """Confusions (C, C), rows labels and columns predictions, in shares of each row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axis = plt.subplots(figsize=(5.2, 4.4))
    sns.heatmap(
        shares, vmin=0, vmax=1, cmap="Blues", annot=True, fmt=".2f", annot_kws={"size": 7}, square=True, cbar=False,
        xticklabels=names, yticklabels=[f"{name} ({n})" for name, n in zip(names, counts.sum(axis=1), strict=True)], ax=axis,
    )  # fmt: skip
    axis.set(xlabel="said", ylabel="label")
    axis.tick_params(axis="x", rotation=45)
    figure.tight_layout()
    return figure


def cooccurrence(names: Sequence[str], occurrences: NDArray[np.float32]) -> Figure:
    """Correlation of AU occurrences (N, A) of 0 and 1, as a triangle."""
    correlation = np.corrcoef(occurrences.T)
    figure, axis = plt.subplots(figsize=(5, 4.2))
    hidden = np.triu(np.ones_like(correlation, dtype=bool))
    sns.heatmap(
        correlation,
        mask=hidden,
        vmin=-1,
        vmax=1,
        cmap="vlag",
        square=True,
        xticklabels=names,
        yticklabels=names,
        ax=axis,
    )
    axis.set_title("AUs that come together", fontsize=10)
    figure.tight_layout()
    return figure


def curve(lines: Sequence[Mapping[str, float]], keys: Mapping[str, str], axis_label: str) -> Figure:
    """Lines of a training log over steps: log key -> legend. A key that is not in every line is
    drawn where it is."""
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

    ``names``: of the two colorings. With more than 20 subjects, colors repeat.
    """
    figure, axes = plt.subplots(len(points), 2, figsize=(8.4, 3.5 * len(points)), squeeze=False)
    people = np.unique(subjects, return_inverse=True)[1]
    for (left, right), (title, places) in zip(axes, points.items(), strict=True):
        left.scatter(*places.T, c=people % 20, cmap="tab20", s=10, linewidths=0)
        shown = right.scatter(*places.T, c=values, cmap="viridis", s=10, linewidths=0)
        figure.colorbar(shown, ax=right, fraction=0.05, pad=0.02)
        for axis, name in zip((left, right), names, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{title}, by {name}", fontsize=9)
    figure.tight_layout()
    return figure


def painted(numbers: NDArray[np.intp], colors: Sequence[str] = EXPERT_COLORS) -> Faces:
    """Maps of whole numbers (N, G, G), such as the expert at each place, as images (N, G, G, 3);
    colors repeat."""
    palette = np.array(
        [[round(255 * part) for part in to_rgb(color)] for color in colors], np.uint8
    )
    return palette[np.asarray(numbers) % len(palette)]


def gate_maps(
    names: Sequence[str], gates: Mapping[str, NDArray[np.float32]], center: float | None = None
) -> Figure:
    """Heat maps label x expert, one panel for each entry (L, m). ``center``: the value that is
    white, for differences."""
    figure, axes = plt.subplots(
        1, len(gates), figsize=(1.2 + 2.3 * len(gates), 0.6 + 0.26 * len(names)), squeeze=False
    )
    reach = max(float(np.abs(values - (center or 0)).max()) for values in gates.values())
    scale = (
        {"vmin": 0, "cmap": "crest"}
        if center is None
        else {"vmin": center - reach, "center": center, "cmap": "vlag"}
    )
    for index, (axis, (title, values)) in enumerate(zip(axes[0], gates.items(), strict=True)):
        experts, last = np.arange(1, values.shape[1] + 1), index == len(gates) - 1
        shown = {
            "xticklabels": experts,
            "yticklabels": names if index == 0 else False,
            "annot_kws": {"fontsize": 7},
        }
        sns.heatmap(
            values,
            vmax=(center or 0) + reach,
            annot=True,
            fmt=".2f",
            cbar=last,
            ax=axis,
            **scale,
            **shown,
        )
        axis.set_xlabel("expert")
        axis.set_title(title, fontsize=9)
        axis.tick_params(axis="y", rotation=0, length=0)
    figure.tight_layout()
    return figure


def expert_shares(shares: Mapping[str, tuple[Sequence[int], NDArray[np.float32]]]) -> Figure:
    """Who works, over training: for each panel the steps (T,) and the share of each expert (T, m),
    stacked to 1."""
    figure, axes = plt.subplots(
        1, len(shares), figsize=(1.0 + 2.4 * len(shares), 2.4), squeeze=False, sharey=True
    )
    for axis, (title, (steps, values)) in zip(axes[0], shares.items(), strict=True):
        colors = [EXPERT_COLORS[expert % len(EXPERT_COLORS)] for expert in range(values.shape[1])]
        axis.stackplot(steps, values.T, colors=colors, linewidth=0)
        axis.set(ylim=(0, 1), xlabel="step", xlim=(steps[0], max(steps[-1], steps[0] + 1)))
        axis.set_title(title, fontsize=9)
    axes[0, 0].set_ylabel("share of the gates")
    sns.despine(figure)
    figure.tight_layout()
    return figure


def face_gates(
    original: Faces,
    normalized: Faces,
    input_gates: NDArray,
    output_gates: NDArray,
    names: Sequence[str],
    said: NDArray,
) -> Figure:
    """One pair of faces (S, S, 3) and what its gates chose: the input mixture's (m,), the output
    mixture's (L, m).

    ``said``: probability (L,) of each label, which stands behind its name.
    """
    figure = plt.figure(figsize=(6.4, 3.4))
    faces, bars, heat = figure.subplots(1, 3, width_ratios=(1.25, 0.55, 1.2))
    faces.imshow(np.concatenate([original, normalized]))
    faces.set_axis_off()
    experts = np.arange(1, len(input_gates) + 1)
    bars.bar(
        experts, input_gates, color=[EXPERT_COLORS[(e - 1) % len(EXPERT_COLORS)] for e in experts]
    )
    bars.set(ylim=(0, 1), xticks=experts, xlabel="expert")
    bars.set_title("input gate", fontsize=9)
    rows = [f"{name}  {value:.2f}" for name, value in zip(names, said, strict=True)]
    sns.heatmap(
        output_gates,
        vmin=0,
        vmax=1,
        cmap="crest",
        cbar=False,
        xticklabels=experts,
        yticklabels=rows,
        ax=heat,
    )
    heat.tick_params(axis="y", rotation=0, labelsize=8, length=0)
    heat.set_xlabel("expert")
    heat.set_title("output gates", fontsize=9)
    sns.despine(ax=bars)
    figure.tight_layout()
    return figure


def found_face(
    image: Faces,
    box: NDArray[np.float64],
    points: NDArray[np.float64],
    crop: Faces,
    names: tuple[str, str] = ("found", "aligned"),
) -> Figure:
    """A picture (H, W, 3) with the box (x0, y0, x1, y1) and the five points (5, 2) of a face, in
    pixels; beside it the crop."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
    for axis, shown, name in zip(axes, (image, crop), names, strict=True):
        axis.imshow(shown, interpolation="antialiased")
        axis.set_axis_off()
        axis.set_title(name, fontsize=9)
    (x0, y0), (width, height) = box[:2], box[2:] - box[:2]
    axes[0].add_patch(
        Rectangle((x0, y0), width, height, fill=False, edgecolor="white", linewidth=1.5)
    )
    axes[0].scatter(*points.T, s=14, color=EXPERT_COLORS[2], edgecolors="black", linewidths=0.4)
    figure.tight_layout()
    return figure


class Bars(NamedTuple):
    """A few values from 0 to ``limit`` under a title; those that are ``dark`` stand out."""

    title: str
    limit: float
    names: Sequence[str]
    values: Sequence[float]
    dark: Sequence[bool]


def bars_of(row: Mapping[str, Any]) -> tuple[Bars, Bars]:
    """What was read in a face, with the columns of ``predictions.csv``: AU intensities, and how
    likely each emotion is.

    Dark are AUs whose own probability is over 0.5, and the likeliest emotion.
    """
    aus = [name for name in row.keys() if f"{name}_intensity" in row]  # noqa: SIM118 (of a pandas row, too)
    named = [f"{name} {labels.AUS[int(name[2:])].name}" for name in aus]
    intensities = [float(row[f"{name}_intensity"]) for name in aus]
    emotions = [name for name in labels.EMOTIONS if name in row]
    likely = [float(row[name]) for name in emotions]
    return (
        Bars(
            "intensity of action units",
            labels.INTENSITY_MAX,
            named,
            intensities,
            [row[name] > 0.5 for name in aus],
        ),
        Bars(
            f"emotion: {row['emotion']}",
            1.0,
            emotions,
            likely,
            [name == row["emotion"] for name in emotions],
        ),
    )


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
    return f'<div style="display: flex; flex-wrap: wrap; gap: 8px 28px">{"".join(map(_html_of, bars_of(row)))}</div>'


def _html_of(bars: Bars) -> str:
    lines = [
        f'<span style="text-align: right">{escape(name)}</span><span style="background: #8882; '
        'height: 12px">'
        '<span style="display: block; height: 12px; width: '
        f"{min(100 * value / bars.limit, 100):.1f}%; "
        f'background: {_shade(dark)}"></span></span><span>{value:.2f}</span>'
        for name, value, dark in zip(bars.names, bars.values, bars.dark, strict=True)
    ]
    style = "display: grid; grid-template-columns: auto 120px 2.5em; gap: 4px 8px; align-items: center; line-height: 1.3"
    return f'<div><b>{escape(bars.title)}</b><div style="{style}; margin-top: 6px">{"".join(lines)}</div></div>'


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
    axis = _room_below(figure, 0.17 * len(values))
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
    axis = _room_below(figure, 1.5)
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


def _room_below(figure: Figure, tall: float, gap: float = 0.12) -> Axes:
    """An axis of ``tall`` inches below the faces of a `strip`, as wide as they are: face i lies
    between i and i + 1."""
    faces, (width, height) = figure.axes[0], figure.get_size_inches()
    place, whole = faces.get_position(), height + tall + gap
    figure.set_size_inches(width, whole)
    faces.set_position((place.x0, (tall + gap) / whole, place.width, place.height * height / whole))
    count = round(np.divide(*faces.images[0].get_array().shape[1::-1]) * len(faces.get_yticks()))
    return figure.add_axes(
        (place.x0, 0.03 / whole, place.width, (tall - 0.03) / whole), xlim=(0, count)
    )
