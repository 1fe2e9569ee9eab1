"""Sheets of many faces in one image."""

from collections.abc import Sequence

import numpy as np

from norface_lib.images.arrays import Faces, resized


def contact_sheet(rows: Sequence[Faces], columns: int = 12, gap: int = 2) -> Faces:
    """Rows of faces (each (N, S, S, 3)) broken into blocks of ``columns``: one image, white between
    faces."""
    count, size = len(rows[0]), rows[0].shape[1]
    blocks = -(-count // columns)
    height = blocks * (len(rows) * (size + gap) + 3 * gap)
    sheet = np.full((height, min(columns, count) * (size + gap), 3), 255, np.uint8)
    for index in range(count):
        block, column = divmod(index, columns)
        for row, faces in enumerate(rows):
            top = block * (len(rows) * (size + gap) + 3 * gap) + row * (size + gap)
            sheet[top : top + size, column * (size + gap) : column * (size + gap) + size] = faces[
                index
            ]
    return sheet


def difference(faces: Faces, others: Faces, gain: float = 4.0) -> Faces:
    """Absolute difference of two sets of faces, ``gain`` times, as gray on white: what is dark is
    wrong."""
    distance = np.abs(faces.astype(np.float32) - others).mean(-1, keepdims=True) * gain
    return np.repeat(255 - distance.clip(0, 255), 3, axis=-1).astype(np.uint8)


def wipe(left: Faces, right: Faces, position: float) -> Faces:
    """Two images (S, S, 3) in one: ``left`` up to ``position`` (0..1) of the width, ``right`` after
    it, a line between; the smaller of them is enlarged."""
    size = max(len(left), len(right))
    left, right = (resized(image[None], size)[0] for image in (left, right))
    edge = round(position * left.shape[1])
    mixed = np.concatenate([left[:, :edge], right[:, edge:]], axis=1)
    if 0 < edge < left.shape[1]:
        mixed[:, edge - 1 : edge + 1] = 255
    return mixed
