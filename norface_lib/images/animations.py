"""Moving pictures: GIF, and animated WebP, PNG and AVIF."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.images.files import as_rgb, open_image

ANIMATED_SUFFIXES = (".gif", ".webp", ".png", ".apng", ".avif")
"""Suffixes of images that may have several frames in time."""


def count_frames(path: Path) -> int:
    """Number of frames of a picture, 1 of one that does not move, 0 of one that cannot be read."""
    try:
        with Path(path).open("rb") as file, open_image(file, str(path)) as image:
            return getattr(image, "n_frames", 1)
    except (DataError, OSError):
        return 0


def animation_frames(
    path: Path,
) -> Iterator[tuple[int, float, Callable[[], NDArray[np.uint8]]]]:
    """Frames of a moving picture in order: position, seconds since the first, and a function that
    returns it as (H, W, 3) RGB, to be called before the next frame is asked for.

    Raises :class:`DataError` for a picture that cannot be read, and after the last frame of one
    that breaks off early.
    """
    file = io.BytesIO(Path(path).read_bytes())  # so that no error of the disk seems the image's
    with open_image(file, str(path)) as image:
        count = getattr(image, "n_frames", 1)
        seconds = 0.0
        for position in range(count):
            try:
                image.seek(position)
                image.load()
            except Exception as error:  # as in open_image
                raise DataError(
                    f"{path}: breaks off after frame {position} of {count} ({error}); download it "
                    "again"
                ) from error
            yield position, seconds, partial(as_rgb, image)
            seconds += image.info.get("duration", 0) / 1000
