"""Reading and writing face images. Color order is RGB everywhere."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.common.tree import walk_tree
from norface_lib.images.crop import NORFACE_CROP, Crop, similarity, warp

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


SMALLEST = 48
"""Pixels along a side below which a face shows no action units."""


def read_face(path: Path, size: int, crop: Crop = NORFACE_CROP) -> NDArray[np.uint8]:
    """One aligned face as (size, size, 3) RGB. An image framed by another ``crop`` is carried over
    to ours.

    Raises :class:`DataError`, naming the file, if it is missing, unreadable, not square or too
    small to be a face crop.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such image")
    return aligned(decode(path.read_bytes(), str(path)), str(path), size, crop)


def aligned(
    image: NDArray[np.uint8], name: str, size: int, crop: Crop = NORFACE_CROP
) -> NDArray[np.uint8]:
    """An aligned face (H, H, 3), framed by ``crop``, as (size, size, 3) in our crop.

    Raises :class:`DataError`, naming it, if it is not square or too small to be a face crop.
    """
    height, width = image.shape[:2]
    if height != width or height < SMALLEST:
        raise DataError(
            f"{name}: {width} x {height} px is no face crop: aligned faces are square and at least "
            f"{SMALLEST} px"
        )
    return _reframe(image, size, crop)


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """An encoded image as (H, W, 3) RGB of 8 bits, turned as its EXIF says; what is transparent
    lies over white.

    Of 16 bits the upper eight are kept. Raises :class:`DataError`, naming it, for what is no image,
    also for a truncated JPEG, which OpenCV would fill with gray, for one of more than 179 million
    pixels, and for pixels that are floating point numbers, whose range is not known.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _as_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: too large an image ({error}); shrink it first") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{name}: not a readable image (truncated, damaged, or not one of "
            f"{', '.join(SUFFIXES)}): {error}"
        ) from error


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # gray of 16 bits, which convert() would clip at 255
        gray = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _reframe(image: NDArray[np.uint8], size: int, crop: Crop) -> NDArray[np.uint8]:
    if crop == NORFACE_CROP:
        if len(image) == size:
            return np.ascontiguousarray(image)
        shrinks = len(image) > size
        return cv2.resize(
            image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        )
    # Both sets half a pixel off: so cv2.warpAffine counts pixels, and so every number on these
    # crops was measured.
    return warp(
        image, similarity(crop.pixels(len(image)) + 0.5, NORFACE_CROP.pixels(size) + 0.5), size
    )


def read_faces(
    paths: Sequence[Path], size: int, crop: Crop = NORFACE_CROP, progress: bool = False
) -> NDArray[np.uint8]:
    """Many aligned faces as (N, size, size, 3) RGB, in the order of ``paths``."""
    faces = np.empty((len(paths), size, size, 3), np.uint8)
    for index, path in enumerate(
        tqdm(paths, desc="read faces", unit="face", disable=not progress, leave=False)
    ):
        faces[index] = read_face(path, size, crop)
    return faces


def write_png(path: Path, image: NDArray[np.uint8]) -> bytes:
    """Writes (H, W, 3) RGB as PNG, atomically, and returns what the file holds."""
    data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    write_atomically(path, lambda part: part.write_bytes(data))
    return data


def list_images(folder: Path) -> list[Path]:
    """Image files under a folder, sorted by path; hidden ones are none, and links to folders are
    followed. Raises :class:`DataError` if there is no such folder or no image in it, and for a
    folder below it that cannot be listed."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    images = sorted(
        folder / inner.below(name)
        for inner in walk_tree(folder)
        for name in inner.files
        if name.lower().endswith(SUFFIXES)
    )
    if not images:
        raise DataError(f"{folder}: holds no image ({', '.join(SUFFIXES)})")
    return images
