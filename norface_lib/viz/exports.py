"""What a widget can save of a face: a picture, a moving picture, a film and a table."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from norface_lib.common.errors import NorfaceError
from norface_lib.images.arrays import resized
from norface_lib.viz.moving import moving_wipe, write_moving
from norface_lib.viz.wipe import Picture, links_as_html, png


def files_of(pictures: Sequence[Picture], table: str) -> dict[str, bytes]:
    """Files by their names: ``comparison.png``, all pictures side by side; ``wipe.gif`` and
    ``wipe.mp4``, in which a border runs between the first picture, the original, and the last one,
    the normalized face; ``aus.csv``, the ``table``.

    Pictures are (S, S, 3), all at the size of the first. Raises :class:`MissingExtraError` where
    films cannot be written.
    """
    size = len(pictures[0])
    pictures = [resized(picture[None], size)[0] for picture in pictures]
    frames = moving_wipe(pictures[0][None], [pictures[-1][None]])
    with TemporaryDirectory() as folder:
        moving = {
            name: write_moving(Path(folder, name), frames).read_bytes()
            for name in ("wipe.gif", "wipe.mp4")
        }
    return {
        "comparison.png": png(np.concatenate(pictures, axis=1)),
        **moving,
        "aus.csv": table.encode(),
    }


def saved(pictures: Sequence[Picture], table: str) -> str:
    """Links that save the files of `files_of`, or the reason why there are none."""
    try:
        return links_as_html(files_of(pictures, table))
    except NorfaceError as error:
        return escape(str(error))
