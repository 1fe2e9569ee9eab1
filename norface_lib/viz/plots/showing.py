"""Figures in notebooks, with a text for readers who cannot see them."""

from pathlib import Path

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure


def show(figure: Figure, alt: str, file: Path | None = None) -> None:
    """Shows a figure below a notebook's cell, with the text ``alt`` for readers who cannot see it,
    and closes it. ``file``: where it is kept, too, at 100 dots per inch."""
    if file is not None:
        figure.savefig(file, dpi=100)
    metadata = {"image/png": {"alt": alt}}
    shell = get_ipython()
    if shell is None:
        display(figure, metadata=metadata)
    else:
        pictures, facts = shell.display_formatter.format(figure)
        metadata["image/png"] |= facts.get("image/png", {})  # a size, for screens of small pixels
        # VS Code takes the plain text for the alternative text, and terminals show it
        display(pictures | {"text/plain": alt}, metadata=metadata, raw=True)
    plt.close(figure)
