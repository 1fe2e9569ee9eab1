"""Overlays of a folder of predictions: a picture of each photograph, a video of each video."""

import os
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.common.paths import inside
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import decode, read_face
from norface_lib.photos.listing import Sources, list_sources
from norface_lib.photos.readings import read_faces_with_predictions
from norface_lib.photos.videos import VideoFrame, frame_rate, read_video
from norface_lib.viz.overlay import Picture, Reading, layout_of, overlay

OVERLAY = "overlay"
"""Folder of the overlays, beside the table of the predictions."""

FASTEST = 60.0
"""Frames a second of an overlay at most."""

LONGEST_STILL = 10.0
"""Seconds for which a frame is repeated at most, where times jump."""


def write_overlays(source: Sources, out: Path, *, progress: bool = True) -> Counter[str]:
    """Writes ``out/overlay`` for the predictions that `norface_lib.photos.prediction.predict_tree`
    made from ``source`` into ``out``.

    A photograph ``a/b.jpg`` becomes ``a/b.jpg``, another image ``a/b.png.jpg``, a video ``a/c.avi``
    becomes ``a/c.avi.mp4``, with its times; frames between those that were read keep their last
    reading. Each file is written whole or not at all; overlays of sources that are gone are
    deleted. Counts ``pictures``, ``videos``, and sources ``without a face`` or ``unreadable``,
    which get no overlay. Raises :class:`DataError` if there are no predictions.
    """
    out = Path(out)
    faces = read_faces_with_predictions(out)
    paths = {each.name: each.path for each in list_sources(source, out).sources}
    counts: Counter[str] = Counter()
    written = set()
    groups = list(faces.groupby("source", sort=True))
    for name, rows in tqdm(groups, desc="overlay", unit="file", disable=not progress):
        rows = rows[rows["status"] == ALIGNED]
        if rows.empty:
            counts["without a face"] += 1
            continue
        is_video = rows["frame"].notna().any()
        overlay_name = _overlay_name(name, is_video)
        target = _free(inside(out / OVERLAY, overlay_name, writes=True), written)
        written.add(target)
        try:
            if is_video:
                _write_video(paths[name], target, rows, out)
            else:
                _write_picture(paths[name], target, rows, out)
            counts["videos" if is_video else "pictures"] += 1
        except (DataError, FileNotFoundError, KeyError):
            counts["unreadable"] += 1
    _delete_others(out / OVERLAY, written)
    return counts


def _overlay_name(name: str, is_video: bool) -> str:
    if is_video:
        return f"{name}.mp4"
    return name if name.lower().endswith((".jpg", ".jpeg")) else f"{name}.jpg"


def _free(path: Path, taken: set[Path]) -> Path:
    """A path that no other overlay has taken: ``b.png`` and ``b.png.jpg`` may both be sources."""
    while path in taken:
        path = path.with_name(f"{path.name}.jpg")
    return path


def _readings(rows: pd.DataFrame, out: Path) -> list[Reading]:
    """Rows with their normalized faces, if these are there."""
    readings = []
    for row in rows.to_dict("records"):
        path = inside(out / "normalized", str(row["output"]))
        normalized = read_face(path, 112) if path.is_file() else None
        readings.append(Reading(row, normalized))
    return readings


# --- photographs ----------------------------------------------------------------------------------


def _write_picture(source: Path, target: Path, rows: pd.DataFrame, out: Path) -> None:
    image = decode(source.read_bytes(), str(source))
    shown = Image.fromarray(overlay(image, _readings(rows, out)))
    write_atomically(target, lambda part: shown.save(part, "JPEG", quality=92, subsampling=0))


# --- videos ---------------------------------------------------------------------------------------


def _write_video(source: Path, target: Path, rows: pd.DataFrame, out: Path) -> None:
    """Shows all frames of a video at their times."""
    frames = {int(frame): group for frame, group in rows.groupby("frame")}
    most = max(map(len, frames.values()))
    step = min((after - before for before, after in pairwise(sorted(frames))), default=1)

    def write(part: Path) -> None:
        whole = part.with_name(f"{part.name}.mp4")  # OpenCV goes by the suffix
        try:
            _encode(whole, _shown(read_video(source), frames, most, step, out), _rate(source))
            os.replace(whole, part)
        finally:
            whole.unlink(missing_ok=True)

    write_atomically(target, write)


def _shown(
    video: Iterator[VideoFrame],
    frames: dict[int, pd.DataFrame],
    most: int,
    step: int,
    out: Path,
) -> Iterator[tuple[float | None, Picture]]:
    """Time in seconds, and overlay, of each frame that can be read."""
    layout = None
    last = -step
    readings: list[Reading] = []
    try:
        for position, time_s, image in video:
            if image is None:
                continue  # it cannot be decoded: the frame before stays
            layout = layout or layout_of(image.shape[1], image.shape[0], most)
            if position in frames:
                readings = _readings(frames[position], out)
                last = position
            elif position - last >= step:
                readings = []
            yield time_s, overlay(image, readings, layout)
    except DataError:
        if layout is None:
            raise  # else the video breaks off, and so does its overlay


def _rate(source: Path) -> float:
    """Frames a second by the container, within reason."""
    rate = frame_rate(source) or 0.0
    return min(rate, FASTEST) if rate >= 1 else 25.0


def _encode(path: Path, frames: Iterator[tuple[float | None, Picture]], rate: float) -> None:
    """Writes frames at a constant rate, each until the next is due, so that times are kept where
    the rate of the source varies."""
    writer = None
    before: Picture | None = None
    written = 0
    last_time = -1.0
    try:
        for time_s, image in frames:
            if writer is None:
                size = (image.shape[1], image.shape[0])
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise OSError(f"{path}: this video cannot be written")
            known = time_s is not None and time_s > last_time
            due = round(time_s * rate) if known else written
            last_time = time_s if known else last_time

            frame = np.ascontiguousarray(image[..., ::-1])
            repeats = 0 if before is None else min(due - written, round(LONGEST_STILL * rate))
            for _ in range(repeats):
                writer.write(before)
            if due >= written:
                writer.write(frame)
            written = max(written, due + 1)
            before = frame
    finally:
        if writer is not None:
            writer.release()


def _delete_others(folder: Path, written: set[Path]) -> None:
    """Deletes overlays of sources that are gone."""
    for path in list(folder.rglob("*")):
        ours = path.suffix.lower() in (".jpg", ".jpeg", ".mp4")
        if ours and path.is_file() and path not in written:
            path.unlink()
