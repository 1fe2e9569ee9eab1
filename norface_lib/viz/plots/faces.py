"""Figures of faces: labeled rows of them, a heat map over one, a detection."""

from collections.abc import Mapping, Sequence

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from norface_lib.images.arrays import Faces, resized
from norface_lib.viz.plots.mixtures import EXPERT_COLORS


def strip(rows: Mapping[str, Faces], scale: float = 0.95, titles: Sequence[str] = ()) -> Figure:
    """Labeled rows of faces, one column for each face: original / normalized / truth / difference.
    Smaller faces are shown as large as the largest. ``titles``: of columns."""
    size = max(faces.shape[1] for faces in rows.values())
    count = len(next(iter(rows.values())))
    step = size + max(1, size // 40)
    sheet = np.full((len(rows) * step, count * step, 3), 255, np.uint8)
    for line, faces in enumerate(rows.values()):
        for column, face in enumerate(resized(faces, size)):
            sheet[line * step : line * step + size, column * step : column * step + size] = face

    # inches for the names of rows, and for titles
    margin = 0.1 + 0.075 * max(map(len, rows))
    head = 0.2 if titles else 0.0
    width = count * scale + margin
    height = len(rows) * scale + head
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


def room_below(figure: Figure, tall: float, gap: float = 0.12) -> Axes:
    """An axis of ``tall`` inches below the faces of a `strip`, as wide as they are: face i lies
    between i and i + 1."""
    faces = figure.axes[0]
    width, height = figure.get_size_inches()
    place = faces.get_position()
    whole = height + tall + gap
    figure.set_size_inches(width, whole)
    faces.set_position((place.x0, (tall + gap) / whole, place.width, place.height * height / whole))
    count = round(np.divide(*faces.images[0].get_array().shape[1::-1]) * len(faces.get_yticks()))
    return figure.add_axes(
        (place.x0, 0.03 / whole, place.width, (tall - 0.03) / whole), xlim=(0, count)
    )


def heat_over(face: Faces, heat: NDArray[np.float32]) -> Faces:
    """A face (S, S, 3) with a coarse map (G, G) of values >= 0 over it: gray where it is 0, red
    where it is largest."""
    size = face.shape[0]
    share = heat.astype(np.float32) / max(float(heat.max()), 1e-9)
    smooth = cv2.resize(share, (size, size), interpolation=cv2.INTER_CUBIC)
    gray = np.repeat(face.mean(-1, keepdims=True), 3, axis=-1)
    weight = smooth.clip(0, 1)[..., None] * 0.75
    return (gray * (1 - weight) + np.array([226, 70, 40]) * weight).astype(np.uint8)


def detected_face(
    image: Faces,
    box: NDArray[np.float64],
    points: NDArray[np.float64],
    crop: Faces,
    names: tuple[str, str] = ("detected", "aligned"),
) -> Figure:
    """A picture (H, W, 3) with the box (x0, y0, x1, y1) and the five points (5, 2) of a face, in
    pixels; beside it the crop."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
    for axis, shown, name in zip(axes, (image, crop), names, strict=True):
        axis.imshow(shown, interpolation="antialiased")
        axis.set_axis_off()
        axis.set_title(name, fontsize=9)
    width, height = box[2:] - box[:2]
    axes[0].add_patch(
        Rectangle(box[:2], width, height, fill=False, edgecolor="white", linewidth=1.5)
    )
    axes[0].scatter(*points.T, s=14, color=EXPERT_COLORS[2], edgecolors="black", linewidths=0.4)
    figure.tight_layout()
    return figure
