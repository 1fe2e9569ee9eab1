"""A moving picture in which a border runs over faces: originals on one side, normalized ones on the
other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.datasets.manifest import read_manifest
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import crop_of
from norface_lib.images.files import read_faces
from norface_lib.images.sheets import wipe
from norface_lib.photos.film import write_film

SUFFIXES = (".gif", ".webp", ".mp4")
"""Kinds of moving pictures that `write_moving` writes."""

Frames = list[NDArray[np.uint8]]
"""Pictures (H, W, 3) of 8 bits and of one size."""


def moving_wipe(originals: Faces, rows: Sequence[Faces], steps: int = 24, gap: int = 4) -> Frames:
    """Frames of a loop: the border goes from the left of each face to its right and back.

    ``originals``: (N, S, S, 3), a column each; ``rows``: normalized faces (N, S, S, 3), one array
    for each way to draw. The first frame shows originals alone, the middle one of an even number
    of ``steps`` normalized faces alone; both states are held for a moment.
    """
    turn = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    border = (0.5 - 0.6 * np.cos(turn)).clip(0, 1)
    return [_sheet(originals, rows, position, gap) for position in border]


def _sheet(originals: Faces, rows: Sequence[Faces], border: float, gap: int) -> NDArray[np.uint8]:
    lines = []
    for faces in rows:
        wiped = [wipe(face, one, border) for face, one in zip(faces, originals, strict=True)]
        lines.append(_joined(wiped, gap, axis=1))
    return _joined(lines, gap, axis=0)


def _joined(images: Sequence[NDArray[np.uint8]], gap: int, axis: int) -> NDArray[np.uint8]:
    """Images side by side or one below another, white between them."""
    shape = list(images[0].shape)
    shape[axis] = gap
    white = np.full(shape, 255, np.uint8)
    parts = [part for image in images for part in (white, image)][1:]
    return np.concatenate(parts, axis=axis)


def write_moving(path: Path, frames: Frames, seconds: float = 4.0) -> Path:
    """Writes frames as a picture that moves: GIF and WebP repeat for ever, MP4 does not.

    ``seconds``: of one round. Raises :class:`DataError` for another suffix than those of
    `SUFFIXES`.
    """
    path = Path(path)
    step = seconds / len(frames)
    if path.suffix == ".mp4":
        return write_film(path, ((step * number, frame) for number, frame in enumerate(frames)))
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: must end in {', '.join(SUFFIXES)}")
    first, *others = map(Image.fromarray, frames)
    settings = {"append_images": others, "save_all": True, "duration": round(1000 * step)}
    settings |= {"quality": 80, "method": 6} if path.suffix == ".webp" else {"optimize": True}

    def write(part: Path) -> None:
        first.save(part, path.suffix[1:], loop=0, **settings)

    return write_atomically(path, write)


def faces_of(
    originals: Path, normalized: Sequence[Path], count: int, size: int
) -> tuple[Faces, list[Faces]]:
    """The first ``count`` faces of a folder that all folders of normalized faces hold, too, each
    (N, size, size, 3).

    ``normalized``: folders with a manifest, as `normalize` and `predict` write them. Raises
    :class:`DataError` if they have no face in common.
    """
    places = []
    for folder in normalized:
        rows = read_manifest(folder)
        rows = rows[rows["normalized"] != ""]
        places.append(dict(zip(rows["path"], rows["normalized"], strict=True)))
    shared = [path for path in places[0] if all(path in each for each in places)][:count]
    if not shared:
        folders = ", ".join(map(str, normalized))
        raise DataError(f"{folders}: hold no normalized face in common; normalize {originals} anew")
    crop = crop_of(originals)
    faces = read_faces([Path(originals) / path for path in shared], size, crop)
    drawn = [
        read_faces([Path(folder) / place[path] for path in shared], size)
        for folder, place in zip(normalized, places, strict=True)
    ]
    return faces, drawn
