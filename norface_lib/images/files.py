"""Reading and writing face images. Color order is RGB everywhere."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError, MissingExtraError, NorfaceError
from norface_lib.common.files import write_atomically
from norface_lib.common.paths import no_file, no_folder
from norface_lib.common.tree import walk_tree
from norface_lib.images.crop import NORFACE_CROP, Crop, similarity, warp

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif",
)  # fmt: skip
"""Suffixes of image files. HEIC and HEIF need the extra ``photos``."""

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
        raise DataError(f"{path}: {no_file(path)}; check the path")
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
    with open_image(io.BytesIO(data), name) as image:
        return as_rgb(ImageOps.exif_transpose(image))


def pages(data: bytes, name: str) -> int:
    """Number of pages of a TIFF, or of pictures in a HEIC; 1 for any other image. `decode` reads
    the first (of a HEIC the one that it calls its primary one).

    Raises :class:`DataError` for what is no image.
    """
    with open_image(io.BytesIO(data), name) as image:
        return getattr(image, "n_frames", 1) if image.format in ("TIFF", "HEIF") else 1


@contextmanager
def open_image(file: BinaryIO, name: str) -> Iterator[Image.Image]:
    """An image that Pillow reads from an open file.

    What goes wrong within the block because of the image becomes a :class:`DataError` that names
    it. A HEIC without the extra ``photos`` raises :class:`MissingExtraError`.
    """
    try:
        if is_heic(file):
            _register_heic(name)
        with Image.open(file) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: too large an image ({error}); shrink it first") from error
    except UnidentifiedImageError as error:
        # its own text names the object in memory
        raise DataError(
            f"{name}: not a readable image (damaged, or not one of {', '.join(SUFFIXES)})"
        ) from error
    except (NorfaceError, MemoryError):
        raise
    except Exception as error:  # damaged images let Pillow's decoders fail in many ways
        raise DataError(
            f"{name}: not a readable image: {error}; download or save it again"
        ) from error


_HEIC_BRANDS = (
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
)  # fmt: skip
"""Brands of ISO/IEC 23008-12 that phones write. AVIF has others, and Pillow reads it itself."""


def is_heic(file: BinaryIO) -> bool:
    """True for an open file that starts as a HEIC does."""
    start = file.read(12)
    file.seek(0)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS


def _register_heic(name: str) -> None:
    """Teaches Pillow to read HEIC. It comes out upright: the file's own turn is applied, and its
    EXIF says so."""
    try:
        import pi_heif
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'{name}: HEIC images need the package pi_heif: pip install "norface[photos]", or save '
            "it as JPEG"
        ) from error
    pi_heif.register_heif_opener()


def as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pillow's image as (H, W, 3) RGB of 8 bits; see `decode`."""
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
        raise DataError(f"{folder}: {no_folder(folder)}; check the path")
    images = sorted(
        folder / inner.below(name)
        for inner in walk_tree(folder)
        for name in inner.files
        if name.lower().endswith(SUFFIXES)
    )
    if not images:
        raise DataError(f"{folder}: holds no image ({', '.join(SUFFIXES)})")
    return images
