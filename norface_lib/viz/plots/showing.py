"""Figures in notebooks, with a text for readers who cannot see them."""

from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure


def show(figure: Figure, alt: str, file: Path | None = None) -> None:
    """Shows a figure below a notebook's cell, with the text ``alt`` for readers who cannot see it,
    and closes it. ``file``: where it is kept, too, at 100 dots per inch."""
    if file is not None:
        figure.savefig(file, dpi=100)
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)
