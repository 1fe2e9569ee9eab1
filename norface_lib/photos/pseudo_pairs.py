"""Photographs with a pseudo-true I_n: the target head rendered with the facial actions that
MediaPipe's landmarker sees in each.

The landmarker's blendshapes are named after the ARKit actions that our heads are driven by, so it
can teach the normalizer the expression of a photograph, where no true I_n exists. Our choice: the
paper and its peers have nothing like it. `norface_lib.photos.calibration` makes intensities of the
scores.
"""

import itertools
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically, write_json, write_table
from norface_lib.common.locks import only_process
from norface_lib.common.paths import inside, target_picture
from norface_lib.datasets.index import EMOTION
from norface_lib.datasets.label_table import VOTES, emotion_shares, read_spec
from norface_lib.datasets.text_tables import match_names, read_named, some
from norface_lib.faces.sampling import Sides
from norface_lib.faces.studio import Studio
from norface_lib.faces.writing import intensity_columns
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import decode, read_faces, write_png
from norface_lib.photos.calibration import Calibration, calibration_of
from norface_lib.photos.face_points import read_points
from norface_lib.photos.landmarker import BLENDSHAPES as NAMES
from norface_lib.photos.read_and_render import ReadAndRender
from norface_lib.photos.tables import BLENDSHAPES, FACES
from norface_lib.photos.teacher import Lesson, Teacher

_READ_AT_ONCE = 64

EMOTION_NAMES = {"happiness": "happy", "sadness": "sad"} | {name: name for name in labels.EMOTIONS}
"""Names of emotions in tables of photographs -> ours."""


def render_shapes(
    shapes: NDArray[np.floating], studio: Studio, calibration: Calibration | None = None
) -> Faces:
    """A normalizer without a network, "landmarker + render": the target head with blendshapes (N,
    52), as (N, S, S, 3).

    A face without landmarks (NaN) becomes neutral. ``calibration``: default, the one that is
    shipped.
    """
    calibration = calibration or calibration_of()
    faces = []
    for row in np.nan_to_num(shapes).tolist():
        left, right = calibration.sides(dict(zip(NAMES, row, strict=True)))
        faces.append(studio.normalized(left, right))
    return np.stack(faces)


def read_photographs(aligned: Path, table: Path | None = None) -> pd.DataFrame:
    """Faces that ``align`` cropped, with their blendshapes: columns source, output, subject,
    emotion, and the 52 names.

    ``table``: CSV with ``image`` (the path below the folder that was aligned), and, if known,
    ``subject``, ``emotion`` and ``expression`` (``smile`` or ``neutral``, where no emotion is
    named). Without it each photograph is a person of its own. Raises :class:`DataError` if a file
    or a column is missing, or a photograph is not in the table.
    """
    aligned = Path(aligned)
    try:
        faces = pd.read_csv(aligned / FACES, dtype={"output": str})
        shapes = pd.read_csv(aligned / BLENDSHAPES)
    except OSError as error:
        raise DataError(
            f"{aligned}: lacks {FACES} or {BLENDSHAPES}; align with `--detector mediapipe` first"
        ) from error
    faces = faces[faces["status"] == ALIGNED]
    keys = ["source", "frame", "face"]
    rows = faces[[*keys, "output"]].merge(shapes[[*keys, *NAMES]], on=keys, validate="one_to_one")
    if table is None:
        return rows.assign(subject=rows["source"], emotion="")
    return _with_labels(rows, table)


def _with_labels(rows: pd.DataFrame, table: Path) -> pd.DataFrame:
    """The faces with subject, emotion and expression of a table of photographs."""
    known = read_named(table)
    files = match_names(known["image"], rows["source"].unique())
    if not files:
        raise DataError(
            f"{table}: names none of the photographs, but {some(list(known['image']))}; they are "
            f"called {some(list(rows['source'].unique()))}: name them so in the column image"
        )
    votes = [name for name in known.columns if name.startswith(VOTES)]
    texts = ("subject", "emotion", "expression", "split")
    columns = [name for name in texts if name in known.columns] + votes
    known = known[["image", *columns]].replace("", np.nan)
    known = known.assign(source=known["image"].map(files)).dropna(subset="source")
    known = known.drop(columns="image").drop_duplicates("source")
    rows = rows.merge(known, how="left", on="source")
    rows["emotion"] = _emotions(rows, table)
    rows[votes] = _counts(rows[votes], table)
    if "subject" not in columns:
        return rows.assign(subject=rows["source"])
    unknown = rows.loc[rows["subject"].isna(), "source"].unique()
    if len(unknown):
        raise DataError(
            f"{table}: names no subject for {len(unknown)} photographs: {some(list(unknown))}"
        )
    return rows


def _emotions(rows: pd.DataFrame, table: Path) -> pd.Series:
    if "emotion" not in rows.columns:
        return pd.Series("", rows.index)
    emotions = rows["emotion"].fillna("").astype(str).str.casefold()
    unknown = sorted(set(emotions) - {"", *EMOTION_NAMES})
    if unknown:
        raise DataError(
            f"{table}: unknown emotion(s) {', '.join(unknown)}; known are "
            f"{', '.join(EMOTION_NAMES)}"
        )
    return emotions.map(lambda name: EMOTION_NAMES.get(name, ""))


def _counts(votes: pd.DataFrame, table: Path) -> pd.DataFrame:
    """Votes for emotions as numbers, 0 where there are none."""
    counts = votes.apply(pd.to_numeric, errors="coerce")
    wrong = votes.notna() & ~(counts >= 0)
    if wrong.to_numpy().any():
        column = votes.columns[wrong.any()][0]
        value = votes.loc[wrong[column], column].iloc[0]
        raise DataError(f"{table}: column {column}: {value!r} is no number of votes")
    return counts.fillna(0.0)


def is_held_out(subject: str, share: float) -> bool:
    """Tells whether a person is kept for tests: by the hash of the name, so it never depends on the
    other people."""
    return int(sha256(subject.encode()).hexdigest()[:8], 16) < share * 2**32


def write_pseudo_pairs(
    aligned: Path,
    out: Path,
    *,
    table: Path | None = None,
    calibration: Calibration | None = None,
    target: str = "noor",
    size: int = 112,
    held_out: float = 0.15,
    mirrored: bool = False,
    teacher: Teacher | ReadAndRender | None = None,
    truths: bool = True,
    progress: bool = True,
) -> Counter[str]:
    """Writes photographs with their pseudo-true I_n as benchmarks ``out/train`` and ``out/test``,
    in the rendered layout.

    People of ``test`` are not in ``train`` (`is_held_out`). ``mirrored``: also ``out/mirrored``,
    those of ``train`` mirrored; their I_n are rendered anew, for the target face itself is not
    symmetric. ``calibration``: default, that of the photographs of ``train``; it is written beside
    them. ``target``: one identity, or several in turn, as ``noor+ada``; ``size``: of their
    pictures. ``teacher``: what names AUs in place of the calibrated scores: one that learned from
    rendered faces, whose reliability for each AU is written beside them, or a token reader as
    `norface_lib.photos.read_and_render` draws what it reads. ``truths``: False leaves the rendering
    out, for faces that only a reader learns from. Rendered faces that are there already are kept,
    so an interrupted call goes on. A table's column ``split`` (``train`` or anything else) decides
    who is in ``test``, where there is one.

    Returns how many faces and people are in each part, and how many the teacher did not find.
    Raises :class:`DataError` as `read_photographs`, and if ``out`` holds other pairs.
    """
    aligned, out = Path(aligned), Path(out)
    faces = read_photographs(aligned, table)
    faces["test"] = _kept_for_tests(faces, held_out)
    train = faces[~faces["test"]]
    if calibration is None:
        calibration = Calibration.of(train[list(NAMES[1:])], train["emotion"].to_numpy(str))
    reader = teacher if isinstance(teacher, ReadAndRender) else None
    lesson = None if reader or teacher is None else _lesson(teacher, aligned, faces, size)
    settings = {
        "pool": "photographs",
        "seed": 0,
        "size": size,
        "target": target,
        "held_out": held_out,
        "calibration": asdict(calibration),
    }
    if lesson is not None:
        settings |= {"reliability": lesson.weights, "teacher": teacher.spec}
    if reader is not None:
        settings |= {"reader": reader.reader}
        faces["sides"] = _read_sides(reader, aligned, faces, progress)
    else:
        faces["sides"] = _sides_of(faces, calibration, lesson)
    studios = {name: Studio(size, name) for name in target.split("+")}
    counts: Counter[str] = Counter()
    with only_process(out):
        for part in ("train", "mirrored", "test") if mirrored else ("train", "test"):
            rows = faces[faces["test"] == (part == "test")]
            if rows.empty:
                continue
            _begin(out / part, settings | {"part": part}, studios)
            seen = rows[rows["sides"].notna()]
            if len(seen) < len(rows):
                counts[f"{part} faces not found by the teacher"] = len(rows) - len(seen)
            lines = []
            records = seen.to_dict("records")
            bar = tqdm(records, desc=f"render {part}", unit="face", disable=not progress)
            for row, name in zip(bar, itertools.cycle(studios)):
                mirror = part == "mirrored"
                sides = row["sides"][::-1] if mirror else row["sides"]
                drawn_by = studios[name] if truths else None
                _write_pair(aligned, out / part, str(row["output"]), sides, drawn_by, mirror)
                line = _line(row, sides, truths)
                lines.append(line | ({"target": name} if len(studios) > 1 else {}))
            write_table(pd.DataFrame(lines), out / part / "labels.csv")
            counts[f"{part} faces"] = len(lines)
            counts[f"{part} people"] = seen["subject"].nunique()
    return counts


def _sides_of(
    faces: pd.DataFrame, calibration: Calibration, lesson: Lesson | None
) -> list[Sides | None]:
    """AU intensities of each face; None where a teacher found none."""
    if lesson is None:
        return [calibration.sides(row) for row in faces.to_dict("records")]
    return [lesson.sides(row) if found else None for row, found in enumerate(lesson.found)]


def _read_sides(
    reader: ReadAndRender, aligned: Path, faces: pd.DataFrame, progress: bool
) -> list[Sides]:
    """AU intensities of each face as a token reader reads and draws them."""
    sides: list[Sides] = []
    paths = [inside(aligned, name) for name in faces["output"]]
    starts = range(0, len(paths), _READ_AT_ONCE)
    for start in tqdm(starts, desc="read", unit="batch", disable=not progress, leave=False):
        crops = read_faces(paths[start : start + _READ_AT_ONCE], reader.input_size, progress=False)
        sides += [reader.expression(read) for read in reader.read(crops)]
    return sides


def _kept_for_tests(faces: pd.DataFrame, held_out: float) -> NDArray[np.bool_]:
    """(N,) which faces are for tests: those of the table's own split, or of people that are held
    out."""
    held = faces["subject"].map(lambda name: is_held_out(name, held_out)).to_numpy(bool)
    if "split" not in faces.columns:
        return held
    split = faces["split"].fillna("").astype(str)
    return np.where(split == "", held, split != "train")


def _lesson(teacher: Teacher, aligned: Path, faces: pd.DataFrame, size: int) -> Lesson:
    """What a teacher says of all faces. What people call those of ``test`` is for tests alone, so
    it is not told; the reliability is that of ``train``."""
    test = faces["test"].to_numpy(bool)
    if test.all():
        raise DataError(
            f"{aligned}: all photographs are for tests, and a teacher sets its zero by those of "
            "train; hold out fewer, or leave out the teacher"
        )
    crops = read_faces([inside(aligned, name) for name in faces["output"]], size, progress=True)
    seen = read_points(teacher.landmarker, crops, aligned / "landmarks.npz")
    shares = emotion_shares(faces, labels.EMOTIONS)
    zero = teacher.zero(seen.of(~test), shares[~test])
    train = teacher.teach(seen.of(~test), zero, shares[~test])
    codes = np.empty((len(faces), *train.codes.shape[1:]), np.float32)
    codes[~test] = train.codes
    codes[test] = teacher.teach(seen.of(test), zero).codes
    return Lesson(codes, train.reliability)


def _begin(folder: Path, settings: dict[str, object], studios: Mapping[str, Studio]) -> None:
    path = folder / "benchmark.json"
    # folders of earlier versions name no seed
    if path.exists() and read_spec(folder) != settings:
        raise DataError(
            f"{path}: was made with other settings; choose another folder or delete this one"
        )
    write_json(settings, path)
    for name, studio in studios.items():
        picture = target_picture(folder / "target.png", list(studios), name)
        write_png(picture, studio.neutral())


def _write_pair(
    aligned: Path,
    folder: Path,
    name: str,
    sides: Sides,
    studio: Studio | None,
    mirrored: bool,
) -> None:
    """Copies a crop, mirrored or not, and renders its pseudo-true I_n if there is a studio, unless
    they are there."""
    image = inside(folder / "images", name, writes=True)
    truth = inside(folder / "truth", name, writes=True) if studio else image
    if not truth.exists():
        _copy(inside(aligned, name), image, mirrored)
        if studio:
            write_png(truth, studio.normalized(*sides))


def _line(row: Mapping[str, object], sides: Sides, truth: bool) -> dict[str, object]:
    """Line of the label table for a face."""
    line = {
        "subject": row["subject"],
        "sequence": "",
        "frame": 0 if pd.isna(row["frame"]) else int(row["frame"]),  # of a video
        "domain": "photographs",
        EMOTION: row["emotion"],
        "image": f"images/{row['output']}",
        "truth": f"truth/{row['output']}" if truth else "",
    }
    for name, value in row.items():
        if name == "expression" or name.startswith(VOTES):
            line[name] = value
    return line | intensity_columns(sides)


def _copy(source: Path, place: Path, mirrored: bool) -> None:
    if mirrored:
        write_png(place, np.ascontiguousarray(decode(source.read_bytes(), str(source))[:, ::-1]))
    else:
        write_atomically(place, lambda part: shutil.copyfile(source, part))
