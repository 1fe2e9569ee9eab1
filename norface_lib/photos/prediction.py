"""Photographs and videos in, a tidy table out: faces detected, aligned, normalized, and read for
AUs, intensities and emotions."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from norface_lib.common.errors import CheckpointError, DataError, NorfaceError, StoppedError
from norface_lib.common.failures import not_read, writing
from norface_lib.common.locks import only_process
from norface_lib.common.paths import inside
from norface_lib.datasets.normalized import check_batch_size
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import read_face, write_png
from norface_lib.networks.drawing import Drawing
from norface_lib.photos.detection import Detector
from norface_lib.photos.engines import Engine, Redrawn, open_engine
from norface_lib.photos.folders import align_tree
from norface_lib.photos.listing import Sources, list_sources
from norface_lib.photos.readers import READERS
from norface_lib.photos.readings import (
    Readings,
    check_format,
    read_predictions,
    remove_predictions,
    write_predictions,
)
from norface_lib.photos.tables import FACES


def predict_tree(
    source: Sources,
    out: Path,
    detector: Detector,
    *,
    readers: Sequence[str] = READERS,
    weights: str | None = None,
    target: str | None = None,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    all_faces: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    table_format: str = "csv",
    overwrite: bool = False,
    engine: str | Engine = "torch",
    drawing: Drawing | None = None,
    progress: bool = True,
) -> Counter[str]:
    """Reads the faces of images and videos into ``out/predictions.csv``: a row for each face, and
    for each file and frame without one, with its status.

    ``source``: a file, a folder, a pattern, or several of them. Faces that are aligned already need
    no search: the detector ``none``. Beside the table lie ``aligned/`` with ``faces.csv``, and
    ``normalized/``, the mirror tree of I_n. ``table_format``: ``parquet`` or ``json`` for a second
    file with the same table. ``overwrite``: deletes first what an earlier call made in ``out``.
    ``weights``: of the normalizer; default: `norface_lib.photos.readers.normalizer_for`.
    ``engine``: one of `norface_lib.photos.engines.ENGINES`, or an open one; then ``readers``,
    ``weights``, ``target`` and ``device`` mean nothing. ``drawing``: draws what is written to
    ``normalized/`` in place of the engine, whose readers read the engine's own images all the same.

    A call after an interruption goes on, and reads only what was not read by the same networks; the
    tables of what is done are there even then. Memory does not grow with the size of images and
    videos. Returns the counts of `norface_lib.photos.folders.align_tree`; errors as there, and
    :class:`CheckpointError` for a reader that belongs to another normalizer.
    """
    out = Path(out)
    check_batch_size(batch_size)
    check_format(table_format)
    if isinstance(engine, str):
        engine = open_engine(engine, weights=weights, target=target, readers=readers, device=device)
    if drawing is not None:
        engine = Redrawn(engine, drawing)
    listing = list_sources(source, out)

    with only_process(out):
        if overwrite:
            remove_predictions(out)
        with Readings(out, engine.fingerprint) as readings:

            def write() -> None:
                write_predictions(
                    out,
                    readings,
                    columns=engine.columns,
                    blendshapes=detector.blendshapes,
                    kind=table_format,
                )

            try:
                counts = align_tree(
                    listing,
                    out / "aligned",
                    detector,
                    size=engine.size,
                    every=every,
                    start=start,
                    end=end,
                    all_faces=all_faces,
                    overwrite=overwrite,
                    mirrors=[out / "normalized"],
                    progress=progress,
                )
                _read_all(out, readings, engine, batch_size, progress)
            except (DataError, CheckpointError):
                raise
            except BaseException:
                with suppress(NorfaceError, OSError):
                    write()
                raise
            write()
    return counts


def _read_all(
    out: Path, readings: Readings, engine: Engine, batch_size: int, progress: bool
) -> None:
    """Normalizes and reads all crops that were not read yet."""
    faces = read_predictions(out / "aligned" / FACES)
    outputs = faces.loc[faces["status"] == ALIGNED, "output"].tolist()
    missing = [output for output in outputs if not readings.knows(output)]
    bar = tqdm(
        desc="read",
        total=len(outputs),
        initial=len(outputs) - len(missing),
        unit="face",
        disable=not progress,
    )
    with bar:
        for first in range(0, len(missing), batch_size):
            batch = missing[first : first + batch_size]
            originals = _crops([inside(out / "aligned", name) for name in batch], engine.size)
            normalized, table = engine.run(originals)
            for output, image in zip(batch, normalized, strict=True):
                path = inside(out / "normalized", output, writes=True)
                with writing(path):
                    write_png(path, image)
            readings.append(batch, table.values.tolist())
            bar.update(len(batch))


def _crops(paths: Sequence[Path], size: int) -> Faces:
    """Aligned faces (N, size, size, 3); one that was damaged since it was written is deleted, so
    that the next call makes it anew."""
    faces = np.empty((len(paths), size, size, 3), np.uint8)
    for row, path in enumerate(paths):
        try:
            faces[row] = read_face(path, size)
        except DataError as error:
            path.unlink(missing_ok=True)
            raise StoppedError(
                f"{path}: was damaged after it was written, and is deleted; the same command makes "
                "it anew"
            ) from error
        except OSError as error:
            raise not_read(path, error) from error
    return faces
