"""`normalize` and `predict`: from a folder of photographs to normalized images or to a table."""

from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.datasets import open_dataset
from norface_lib.datasets.normalized import normalize_dataset
from norface_lib.images.crop import ALIGNED
from norface_lib.photos.detection import Detector, open_detector
from norface_lib.photos.folders import align_tree
from norface_lib.photos.prediction import PREDICTIONS, READERS, predict_tree


def predict(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    detector: str | Detector = "mediapipe",
    readers: Sequence[str] = READERS,
    weights: str = "tiny-photo",
    target: str | None = None,
    every: int = 1,
    all_faces: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    engine: str = "torch",
    progress: bool = True,
) -> pd.DataFrame:
    """Reads the faces of an image, a video, or a folder of both: a row for each face and frame.

    The first columns say where a face is (``source``, ``frame``, ``face``, box in pixels); ``AU12``
    is a probability, ``AU12_intensity`` 0..5, ``emotion`` a name. ``detector``: ``mediapipe``,
    ``insightface``, or ``none`` for faces that are aligned already; ``readers``: classifiers by
    shipped name or path; ``every``: takes each k-th frame of a video; ``all_faces``: every face of
    an image, else the largest; ``engine``: ``torch``, or ``onnx`` for onnxruntime on the CPU. The
    table is also in ``out/predictions.csv``, beside ``aligned/``
    and ``normalized/``; a call after an interruption goes on. Raises
    :class:`norface_lib.common.errors.DataError` for a source without images.
    """
    predict_tree(
        Path(source),
        Path(out),
        detector=_opened(detector),
        readers=readers,
        weights=weights,
        target=target,
        every=every,
        all_faces=all_faces,
        batch_size=batch_size,
        device=device,
        engine=engine,
        progress=progress,
    )
    return pd.read_csv(Path(out) / PREDICTIONS)


def normalize(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    detector: str | Detector = "none",
    layout: str = "folder",
    weights: str = "tiny",
    target: str | None = None,
    points: str | PathLike[str] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    progress: bool = True,
) -> Counter[str]:
    """Writes the normalized image of each face under a folder to ``out/<target>/<same path>.png``.

    Faces that are aligned already need no detector; with one, those of ordinary photographs and
    videos are found first, and their crops kept in ``out/aligned``. ``layout``: ``folder``, or the
    dataset that lies at ``source``, such as ``bp4d``; ``points``: the table by which a dataset's
    whole frames are cropped. A call after an interruption goes on. Returns how many faces were
    ``normalized``, ``there already`` and ``unreadable``, and with a detector also how many images
    it found faces in, as `norface_lib.photos.folders.align_tree` counts them. Raises
    :class:`norface_lib.common.errors.DataError` for a source that holds no images or not that
    dataset, and for a detector with a dataset.
    """
    source = Path(source)
    aligned: Counter[str] = Counter()
    if detector != "none":
        if layout != "folder":
            raise DataError(
                f"{source}: a dataset is aligned by `align --layout` and --points, not by a "
                "detector"
            )
        crops = Path(out) / "aligned"
        aligned = align_tree(source, crops, _opened(detector), progress=progress)
        if not aligned[ALIGNED]:
            return aligned
        source = crops

    data = open_dataset(layout, source)
    if points is not None:
        data = data.aligned_by(Path(points))
    return aligned + normalize_dataset(
        data,
        Path(out),
        weights=weights,
        target=target,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )


def _opened(detector: str | Detector) -> Detector:
    return open_detector(detector) if isinstance(detector, str) else detector
