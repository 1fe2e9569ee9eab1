"""Share of small faces that are found in large pictures, and the seconds that it takes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib.cli.bench.measuring import Figure, figure_of
from norface_lib.common.errors import DataError
from norface_lib.images.crop import overlap
from norface_lib.images.files import decode, list_images
from norface_lib.photos.detection import Detector, open_detector

Image = NDArray[np.uint8]
Box = NDArray[np.float64]

PICTURES = ((1280, 720), (1920, 1080), (4000, 3000), (6000, 400))
"""Width and height of the pictures in pixels."""

HEIGHTS = (20, 30, 40, 60, 80, 120, 160, 240)
"""Heights in pixels of the boxes of faces, from the upper forehead to the chin."""

SEARCHES = {"one shrunk picture": 1, "tiles": None}
"""Levels of the detector by the name of the search."""

_SAME = 0.3
"""Overlap (IoU) of a box with the true one from which on a face is found."""


def bench_small_faces(
    photos: Path | None = None, *, pictures: int = 3, faces: int = 8, seed: int = 0
) -> Iterator[Figure]:
    """Recall of MediaPipe's landmarker over the size of faces and of pictures, with the false
    detections and the processor's seconds of a picture.

    Each of some pictures is gray and shows up to ``faces`` portraits of the Face Research Lab
    London Set (DeBruine and Jones 2017, CC BY 4.0), which do not overlap. ``photos``: the folder of
    that set; default: ``london`` in ``$NORFACE_PHOTOS``. Raises :class:`DataError` if it is not
    there.
    """
    portraits = _portraits(photos)
    detectors = {name: open_detector("mediapipe", levels=SEARCHES[name]) for name in SEARCHES}
    for size in PICTURES:
        for height in HEIGHTS:
            rng = np.random.default_rng([seed, *size, height])
            scenes = [_scene(portraits, size, height, faces, rng) for _ in range(pictures)]
            if not all(boxes for _, boxes in scenes):
                continue
            for search, detector in detectors.items():
                figure = _measured(detector, scenes, search=search, size=size, height=height)
                yield figure | {"seed": seed}


def _measured(
    detector: Detector,
    scenes: list[tuple[Image, list[Box]]],
    *,
    search: str,
    size: tuple[int, int],
    height: int,
) -> Figure:
    found = 0
    wrong = 0
    seconds = []
    for image, truth in scenes:
        started = time.process_time()
        boxes = [face.box for face in detector.detect(image)]
        seconds.append(time.process_time() - started)
        matches = np.array([overlap(box, np.array(truth)) >= _SAME for box in boxes])
        matches = matches.reshape(len(boxes), len(truth))
        found += int(matches.any(0).sum())
        wrong += int((~matches.any(1)).sum())

    total = sum(len(truth) for _, truth in scenes)
    return figure_of(
        "recall",
        found / total,
        "of all faces",
        search=search,
        width=size[0],
        height=size[1],
        face=height,
        faces=total,
        false_faces=wrong,
        processor_seconds=round(float(np.median(seconds)), 3),
    )


def _portraits(photos: Path | None) -> list[tuple[Image, Box]]:
    """Photographs with the box of their face."""
    folder = photos or Path(os.environ.get("NORFACE_PHOTOS", "photos"), "london")
    paths = list_images(folder) if folder.is_dir() else []
    if not paths:
        raise DataError(
            f"{folder}: no photographs there; let NORFACE_PHOTOS name a folder with london/"
        )

    detector = open_detector("mediapipe")
    portraits = []
    for path in paths:
        image = decode(path.read_bytes(), str(path))
        portraits.append((image, detector.detect(image)[0].box))
    return portraits


def _scene(
    portraits: list[tuple[Image, Box]],
    size: tuple[int, int],
    height: int,
    faces: int,
    rng: np.random.Generator,
) -> tuple[Image, list[Box]]:
    """A gray picture with portraits at random places, and the boxes of their faces, which are
    ``height`` pixels high."""
    image = np.full((size[1], size[0], 3), 128, np.uint8)
    taken = np.zeros(image.shape[:2], bool)
    boxes = []
    for number in rng.integers(len(portraits), size=faces):
        portrait, box = portraits[number]
        scale = height / (box[3] - box[1])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        portrait = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=method)
        start = _free_place(taken, portrait.shape[:2], rng)
        if start is not None:
            y, x = start
            area = (slice(y, y + portrait.shape[0]), slice(x, x + portrait.shape[1]))
            image[area] = portrait
            taken[area] = True
            boxes.append(box * scale + np.tile((x, y), 2))
    return image, boxes


def _free_place(
    taken: NDArray[np.bool_], shape: tuple[int, ...], rng: np.random.Generator, tries: int = 50
) -> tuple[int, int] | None:
    """Row and column at which a rectangle fits; None if none of some tries is free."""
    room = np.array(taken.shape) - shape[:2]
    if room.min() < 0:
        return None
    for _ in range(tries):
        y, x = rng.integers(0, room + 1)
        if not taken[y : y + shape[0], x : x + shape[1]].any():
            return int(y), int(x)
    return None
