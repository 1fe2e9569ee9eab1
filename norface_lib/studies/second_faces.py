"""Faces that a classifier can be given beside the original, or in its place: the normalizer's
image, and what it is compared with."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from norface_lib.common.errors import DataError
from norface_lib.common.paths import inside
from norface_lib.common.workers import workers_of
from norface_lib.datasets.face_files import mapped
from norface_lib.datasets.normalized import faces_of, load_pairs, normalize_dataset
from norface_lib.datasets.pairs import EmbeddedPairs, embed_faces, versions_of
from norface_lib.images.arrays import Faces, resized, resized_batches, to_uint8
from norface_lib.photos.read_and_render import ReadAndRender
from norface_lib.studies.preparation import Prepared, View, fingerprint_of
from norface_lib.studies.recipes import SECOND_FACES

KINDS: Mapping[str, str] = {
    "normalized": "the normalizer's image",
    "original": "the original once more, augmented by itself: a second view, not normalized (over "
    "a frozen backbone the same embedding)",
    "truth": "the true normalized image, which rendered faces have: of a perfect normalizer",
    "neutral": "the target without expression, the same for all: of an empty normalizer",
    "render": "the target's head, rendered with the AUs that a token reader reads of the original",
}
"""What a second face can show."""

OF_ONE_DATASET = tuple(row for row, kind in SECOND_FACES.items() if kind in ("truth", "render"))
"""Rows whose second face is made of the frames of one dataset; there are none across two."""


def views_with(kind: str, prepared: Prepared) -> list[View]:
    """The views of each fold with one of ``KINDS`` in place of the normalized face.

    Raises :class:`DataError` for ``truth`` if the dataset has none, and what
    `norface_lib.photos.read_and_render.ReadAndRender` raises for ``render``.
    """
    if kind == "normalized":
        return prepared.views
    faces = None if kind == "original" else _MAKERS[kind](prepared)
    made: dict[int, View] = {}
    for view in prepared.views:
        if id(view) not in made:
            plain = versions_of(view)[0]
            second = plain.originals if faces is None else _as_in(plain, faces, kind, prepared)
            made[id(view)] = replace(plain, normalized=second)
    return [made[id(view)] for view in prepared.views]


def _as_in(view: View, faces: Faces, kind: str, prepared: Prepared) -> Faces | Tensor:
    """Faces (N, S, S, 3) in the form that a view's originals have, resized or embedded, in a
    file."""
    if isinstance(view, EmbeddedPairs):
        name = f"embedded-{kind}-{fingerprint_of(view.backbone)}-{prepared.key}"
        return embed_faces(faces, view.backbone, keep=prepared.faces / f"{name}.safetensors")
    size = view.originals.shape[1]
    if size == faces.shape[1]:
        return faces
    if kind == "neutral":
        return _neutral(prepared, size)
    path = prepared.faces / f"{kind}-{size}-{prepared.key}.npy"
    return mapped(resized_batches(faces, size), len(faces), size, path)


def _size(prepared: Prepared) -> int:
    return prepared.normalizer.config.encoder.image_size


def _truths(prepared: Prepared) -> Faces:
    """True normalized images (N, S, S, 3), in a file that is mapped into memory."""
    data = prepared.data
    if "truth" not in data.index or (data.index["truth"] == "").any():
        raise DataError(
            f"{data.root}: has no true normalized images, which rendered faces have; leave out the "
            "rows that need them"
        )
    size = _size(prepared)

    files = [inside(data.root, name) for name in data.index["truth"]]
    path = prepared.faces / f"truth-{prepared.key}.npy"
    with workers_of(prepared.workers) as pool:
        return mapped(faces_of(files, size, pool), len(data), size, path)


def _neutral(prepared: Prepared, size: int | None = None) -> Faces:
    """The target face (N, S, S, 3), the same for all, without memory for each."""
    size = size or _size(prepared)
    face = resized(resized(to_uint8(prepared.target), _size(prepared)), size)
    return np.broadcast_to(face, (len(prepared.pairs), size, size, 3))


def _rendered(prepared: Prepared) -> Faces:
    """Images (N, S, S, 3) by reading and rendering, drawn where they are missing."""
    size = _size(prepared)
    drawing = ReadAndRender(size=size, device=prepared.device)
    out = prepared.faces / "rendered"
    workers = prepared.workers
    normalize_dataset(prepared.data, out, drawing=drawing, progress=False, workers=workers)
    part, _, faces = load_pairs(prepared.data, out / drawing.target, size, out, workers=workers)
    assert len(part) == len(prepared.data), "what one drawing could read, the other can"
    return faces


_MAKERS: dict[str, Callable[[Prepared], Faces]] = {
    "truth": _truths,
    "neutral": _neutral,
    "render": _rendered,
}
