"""Writes a benchmark to disk: images, true normalized images and a table of labels."""

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.failures import writing
from norface_lib.common.files import write_json, write_table
from norface_lib.common.locks import only_process
from norface_lib.common.paths import target_picture
from norface_lib.common.processes import end_with_parent, interrupts_held, workers_ended
from norface_lib.faces.benchmark import TARGETS, BenchmarkSpec, face_of, frames_of, subject_name
from norface_lib.faces.sampling import RENDERED_AUS, Frame, Sides
from norface_lib.faces.studio import Studio


def intensity_columns(shown: Sides) -> dict[str, float]:
    """Columns of a label table for intensities of both sides: the stronger, as FACS codes, and each
    where sides may differ."""
    row = {}
    for au in RENDERED_AUS:
        sides = tuple(side.get(au, 0.0) for side in shown)
        row[labels.au_column(au)] = max(sides)
        if labels.AUS[au].sided:
            row[labels.au_column(au) + "L"], row[labels.au_column(au) + "R"] = sides
    return row


def label_row(subject: str, number: int, frame: Frame, length: int = 1) -> dict[str, object]:
    """One row of the label table: paths, AU intensities (the stronger side, as coded by FACS; then
    each side), nuisance.

    ``length``: frames of a sequence.
    """
    light_x, light_y, light_z = frame.light.direction
    return {
        "subject": subject,
        "sequence": f"T{number // length + 1}",
        "frame": number,
        "domain": frame.domain,
        "emotion": frame.emotion,
        "image": f"images/{subject}/{number:04d}.jpg",
        "truth": f"truth/{subject}/{number:04d}.png",
        **intensity_columns((frame.left, frame.right)),
        "yaw": frame.camera.yaw,
        "pitch": frame.camera.pitch,
        "gaze_yaw": frame.gaze[0],
        "gaze_pitch": frame.gaze[1],
        "light_x": light_x,
        "light_y": light_y,
        "light_z": light_z,
    }


def write_benchmark(
    spec: BenchmarkSpec, root: Path, workers: int | None = None, progress: bool = True
) -> Path:
    """Renders a benchmark into ``root`` and returns that: images/, truth/, labels.csv, target.png,
    benchmark.json.

    Subjects are rendered in parallel, each written as a whole; a call after an interruption goes on
    with those that are missing. A finished folder of the same specification is used as it is, but
    for subjects with a missing or truncated image, which are rendered anew. Raises
    :class:`DataError` if ``root`` holds another specification, or another process writes to it.
    """
    root = Path(root)
    workers = workers or os.cpu_count() or 1
    _check_same(root, spec)
    if (root / "labels.csv").exists():
        _repair(spec, root, workers, progress)
        return root
    with only_process(root):
        _write_missing(spec, root, workers, progress)
    return root


def _write_missing(spec: BenchmarkSpec, root: Path, workers: int, progress: bool) -> None:
    """Renders the subjects of an unfinished benchmark that are missing, and writes its table."""
    parts = root / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    write_json(asdict(spec), root / "benchmark.json")
    for name in spec.targets:
        picture = target_picture(root / "target.png", spec.targets, name)
        _write_image(picture, Studio(spec.size, name).neutral())

    tables = [parts / f"{subject_name(spec.pool, n)}.csv" for n in range(spec.subjects)]
    missing = [number for number, table in enumerate(tables) if not table.exists()]
    _render_all(spec, missing, root, workers, progress)
    rows = pd.concat([pd.read_csv(table) for table in tables], ignore_index=True)
    write_table(rows, root / "labels.csv")
    shutil.rmtree(parts)


def _repair(spec: BenchmarkSpec, root: Path, workers: int, progress: bool) -> None:
    """Renders those subjects of a finished benchmark anew that are not whole."""
    damaged = _damaged_subjects(spec, root)
    if not damaged:
        print(
            f"{root.name}: {spec.subjects} subjects x {spec.frames} frames are there already, "
            "used as they are"
        )
        return
    print(
        f"{root.name}: {len(damaged)} of {spec.subjects} subjects have missing or truncated "
        "images, rendered anew"
    )
    with only_process(root):
        _render_all(spec, damaged, root, workers, progress)
        shutil.rmtree(root / "parts")


def _render_all(
    spec: BenchmarkSpec, missing: list[int], root: Path, workers: int, progress: bool
) -> None:
    """Renders the subjects of these numbers in ``workers`` processes."""
    if not missing:
        return
    bar = tqdm(
        desc=f"render {spec.pool}",
        total=spec.subjects,
        initial=spec.subjects - len(missing),
        unit="subject",
        disable=not progress,
    )
    context = multiprocessing.get_context("spawn")  # Warp must not be forked
    pool = ProcessPoolExecutor(min(workers, len(missing)), context, initializer=end_with_parent)
    with bar, pool, workers_ended() as processes:
        with interrupts_held():
            jobs = [pool.submit(render_subject, spec, number, str(root)) for number in missing]
        processes += multiprocessing.active_children()
        try:
            for job in as_completed(jobs):
                job.result()
                bar.update()
        except BrokenProcessPool as error:
            raise DataError(_reason_of_end(root, processes)) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _reason_of_end(root: Path, processes: list[BaseProcess]) -> str:
    """The sentence for rendering processes that ended by themselves."""
    for process in processes:
        process.join(timeout=5)
    # a process that fails while it starts ends with 1, one that the system kills with -9
    if any(process.exitcode == 1 for process in processes):
        return (
            f"{root}: the rendering processes could not start; a script that renders must do so "
            'below `if __name__ == "__main__":`, since each process imports it'
        )
    return (
        f"{root}: a rendering process was killed (out of memory?); the same call goes on from here"
    )


# --- one subject ----------------------------------------------------------------------------------


@lru_cache(maxsize=len(TARGETS))
def _studio(size: int, target: str) -> Studio:
    """One studio for each target in a worker process."""
    return Studio(size, target)


def render_subject(spec: BenchmarkSpec, number: int, root: str) -> str:
    """Writes one subject's images and label rows, all or nothing, and returns its name."""
    name = subject_name(spec.pool, number)
    root_path = Path(root)
    part = root_path / "parts" / f"{name}.{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    rows = _render_frames(spec, number, part)

    for folder in ("images", "truth"):
        shutil.rmtree(root_path / folder / name, ignore_errors=True)
        (root_path / folder).mkdir(exist_ok=True)
        os.replace(part / folder / name, root_path / folder / name)
    # last: its presence says that the subject is done
    write_table(pd.DataFrame(rows), root_path / "parts" / f"{name}.csv")
    shutil.rmtree(part, ignore_errors=True)
    return name


def _render_frames(spec: BenchmarkSpec, number: int, part: Path) -> list[dict[str, object]]:
    """Writes the images of a subject below ``part`` and returns its label rows."""
    face = face_of(spec, number)
    studios = [_studio(spec.size, target) for target in spec.targets]
    texture = studios[0].renderer.textures(face.texture[None])

    rows = []
    for frame_number, (frame, rng) in enumerate(frames_of(spec, number)):
        row = label_row(subject_name(spec.pool, number), frame_number, frame, spec.sequence)
        _write_image(part / str(row["image"]), studios[0].original(face, frame, rng, texture))

        turn = frame_number % len(studios)
        _write_image(part / str(row["truth"]), studios[turn].normalized(frame.left, frame.right))
        if len(studios) > 1:
            row["target"] = spec.targets[turn]
        rows.append(row)
    return rows


_ENCODINGS = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
}
"""OpenCV's settings. Originals are JPEG, as photographs are; true images are PNG, as what an
expression moves is little beside JPEG's noise."""


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(path.suffix, image[..., ::-1], _ENCODINGS[path.suffix])
    if not done:
        raise DataError(f"{path}: OpenCV could not encode the image")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())


# --- what is there already ------------------------------------------------------------------------

_ENDS = {".jpg": b"\xff\xd9", ".png": b"IEND\xaeB`\x82"}
"""Last bytes of a whole file of each kind."""


def _damaged_subjects(spec: BenchmarkSpec, root: Path) -> list[int]:
    """Numbers of the subjects of a finished benchmark that lack an image, or have one that does not
    end as it should."""
    return [number for number in range(spec.subjects) if not _subject_is_whole(spec, number, root)]


def _subject_is_whole(spec: BenchmarkSpec, number: int, root: Path) -> bool:
    name = subject_name(spec.pool, number)
    return all(
        _is_whole(root / "images" / name / f"{frame:04d}.jpg")
        and _is_whole(root / "truth" / name / f"{frame:04d}.png")
        for frame in range(spec.frames)
    )


def _is_whole(path: Path) -> bool:
    end = _ENDS[path.suffix]
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # missing, or too short to have an end
        return False


def _check_same(root: Path, spec: BenchmarkSpec) -> None:
    """Raises unless the folder is free, or holds just this benchmark, whole or begun."""
    path = root / "benchmark.json"
    if not path.exists():
        if (root / "labels.csv").exists():
            raise DataError(
                f"{root}: holds a label table but no benchmark.json; choose another folder"
            )
        return

    try:
        # older folders do not name these
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored = {"strength": 1.0, "one_sided": 0.0, **stored}
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged; delete this folder and render again") from error
    differing = {
        key: (stored.get(key), value)
        for key, value in asdict(spec).items()
        if stored.get(key) != value
    }
    if differing:
        raise DataError(
            f"{path}: holds another benchmark (found, wanted: {differing}); choose another folder "
            "or delete it"
        )
