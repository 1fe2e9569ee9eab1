"""`normalize` and `predict`: from a folder of photographs to normalized images or to a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from norface_lib.common.devices import processes
from norface_lib.common.errors import DataError
from norface_lib.datasets import open_dataset
from norface_lib.datasets.normalized import check_batch_size, normalize_dataset
from norface_lib.images.crop import ALIGNED
from norface_lib.photos.detection import Detector, open_detector
from norface_lib.photos.folders import align_tree
from norface_lib.photos.listing import Sources, list_sources, one_folder
from norface_lib.photos.prediction import predict_tree
from norface_lib.photos.read_and_render import TOKEN_READER, open_rendering
from norface_lib.photos.readers import READERS
from norface_lib.photos.readings import PREDICTIONS, read_predictions
from norface_lib.photos.tables import FACES


def predict(
    source: Sources,
    out: str | PathLike[str],
    *,
    detector: str | Detector = "mediapipe",
    levels: int | None = None,
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
    engine: str = "torch",
    draw: str = "network",
    token_reader: str = TOKEN_READER,
    size: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Reads the faces of images and videos: a row for each face, and for each file and frame
    without one.

    ``source``: a file, a folder with its subfolders, a pattern such as ``photos/*.jpg``, or several
    of them. The first columns say where a face is (``source``, ``frame``, ``time_s``, ``face``, box
    in pixels) and its ``status``; ``AU12`` is a probability, ``AU12_intensity`` 0..5, ``emotion`` a
    name; all are empty where no face was read. ``detector``: ``mediapipe``, ``insightface``, or
    ``none`` for faces that are aligned already; ``levels``: how far mediapipe searches for small
    faces, by default as the size of an image asks for; ``readers``: token readers and classifiers
    by shipped name or path; ``weights``: of the normalizer, by default tiny-photo-224 or the one
    that a classifier belongs to; ``every``: takes each k-th frame of a video; ``start``, ``end``:
    only those between these seconds; ``all_faces``: every face of an image, else the largest;
    ``engine``: ``torch``, or ``onnx`` for onnxruntime on the CPU. The table is also in
    ``out/predictions.csv``, and in another ``table_format`` (``parquet``, ``json``) beside it, next
    to ``aligned/`` and ``normalized/``; a call after an interruption goes on, and ``overwrite``
    starts anew.

    ``draw``: ``render`` fills ``normalized/`` with rendered pictures of ``target`` (of
    `norface_lib.faces.benchmark.TARGETS`) of ``size`` pixels, by what the ``token_reader`` reads;
    classifiers go on reading the network's. Raises
    :class:`norface_lib.common.errors.DataError` for sources without images, and for an
    ``out`` that other sources or settings have made.
    """
    drawing = open_rendering(
        draw, token_reader=token_reader, target=target, size=size, device=device
    )
    predict_tree(
        source,
        Path(out),
        detector=_opened(detector, levels),
        readers=readers,
        weights=weights,
        target=None if drawing else target,
        every=every,
        start=start,
        end=end,
        all_faces=all_faces,
        batch_size=batch_size,
        device=device,
        table_format=table_format,
        overwrite=overwrite,
        engine=engine,
        drawing=drawing,
        progress=progress,
    )
    return read_predictions(Path(out) / PREDICTIONS)


def normalize(
    source: Sources,
    out: str | PathLike[str],
    *,
    detector: str | Detector = "none",
    levels: int | None = None,
    layout: str = "folder",
    options: Mapping[str, Any] | None = None,
    weights: str = "tiny",
    target: str | None = None,
    points: str | PathLike[str] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    overwrite: bool = False,
    draw: str = "network",
    token_reader: str = TOKEN_READER,
    size: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Counter[str]:
    """Writes the normalized image of each face under a folder to ``out/<target>/<same path>.png``.

    Faces that are aligned already need no detector; with one, those of ordinary photographs and
    videos are found first, and their crops kept in ``out/aligned``; ``source`` may then also be a
    file, a pattern, or several of them. ``levels``: how far mediapipe searches for small faces, by
    default as the size of an image asks for.
    ``layout``: ``folder``, or the dataset that lies at ``source``, such as ``bp4d``, opened with
    ``options``, such as the ``camera`` of DISFA; ``points``: the table by which a dataset's whole
    frames are cropped. A call after an interruption goes on; ``overwrite`` deletes first what an
    earlier call made in ``out``. ``draw``: ``network``, or ``render`` for rendered pictures of
    ``target`` (of `norface_lib.faces.benchmark.TARGETS`) of ``size`` pixels, by what the
    ``token_reader`` reads; then ``weights`` mean nothing. ``workers``: processes that read and
    write, 0 for this one; default: none on a CPU. Returns how many faces were
    ``normalized``, ``there already`` and ``unreadable``, and with a detector also how many images
    it found faces in, as `norface_lib.photos.folders.align_tree` counts them. Raises
    :class:`norface_lib.common.errors.DataError` for a source that holds no images or not that
    dataset, for a detector with a dataset, and for an ``out`` that was drawn otherwise.
    """
    out = Path(out)
    check_batch_size(batch_size)
    drawing = open_rendering(
        draw, token_reader=token_reader, target=target, size=size, device=device
    )
    if detector == "none":
        data = open_dataset(layout, one_folder(source), **(options or {}))
        aligned: Counter[str] = Counter()
    else:
        if layout != "folder":
            raise DataError(
                f"{source}: a dataset is aligned by `align --layout` and --points, not by a "
                "detector"
            )
        if processes().num_processes > 1:
            raise DataError(
                f"{source}: a detector runs in one process; run `align` first, and then "
                "`normalize` in several"
            )
        listing = list_sources(source, out)
        finder = _opened(detector, levels)
        crops = out / "aligned"
        aligned = align_tree(listing, crops, finder, overwrite=overwrite, progress=progress)
        if not aligned[ALIGNED]:
            return aligned
        data = open_dataset(layout, crops)
        faces = read_predictions(crops / FACES)
        data = data.select(data.index["path"].isin(faces["output"].dropna()))

    if points is not None:
        data = data.aligned_by(Path(points))
    if progress and (data.report.dropped or data.report.noted):
        print(data.report)
    return aligned + normalize_dataset(
        data,
        out,
        weights=weights,
        target=target,
        batch_size=batch_size,
        device=device,
        overwrite=overwrite,
        progress=progress,
        drawing=drawing,
        workers=workers,
    )


def _opened(detector: str | Detector, levels: int | None) -> Detector:
    return open_detector(detector, levels=levels) if isinstance(detector, str) else detector
