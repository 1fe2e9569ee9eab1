"""Photographs with a pseudo-true I_n: the target head rendered with the facial actions that
MediaPipe's landmarker sees in each.

The landmarker's blendshapes are named after the ARKit actions that our heads are driven by, so it
can teach the normalizer the expression of a photograph, where no true I_n exists. Our choice: the
paper and its peers have nothing like it. `norface_lib.photos.calibration` makes intensities of the
scores.
"""

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
from norface_lib.common.paths import inside
from norface_lib.datasets.index import EMOTION
from norface_lib.datasets.label_table import read_spec
from norface_lib.datasets.text_tables import match_names, read_named, some
from norface_lib.faces.studio import Studio
from norface_lib.faces.writing import intensity_columns
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import decode, write_png
from norface_lib.photos.calibration import Calibration, calibration_of
from norface_lib.photos.landmarker import BLENDSHAPES as NAMES
from norface_lib.photos.tables import BLENDSHAPES, FACES

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
    columns = [name for name in ("subject", "emotion", "expression") if name in known.columns]
    known = known[["image", *columns]].replace("", np.nan)
    known = known.assign(source=known["image"].map(files)).dropna(subset="source")
    known = known.drop(columns="image").drop_duplicates("source")
    rows = rows.merge(known, how="left", on="source")
    rows["emotion"] = _emotions(rows, table)
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
    progress: bool = True,
) -> Counter[str]:
    """Writes photographs with their pseudo-true I_n as benchmarks ``out/train`` and ``out/test``,
    in the rendered layout.

    People of ``test`` are not in ``train`` (`is_held_out`). ``mirrored``: also ``out/mirrored``,
    those of ``train`` mirrored; their I_n are rendered anew, for the target face itself is not
    symmetric. ``calibration``: default, that of the photographs of ``train``; it is written beside
    them. Rendered faces that are there already are kept, so an interrupted call goes on. Returns
    how many faces and people are in each part. Raises :class:`DataError` as `read_photographs`, and
    if ``out`` holds other pairs.
    """
    aligned, out = Path(aligned), Path(out)
    faces = read_photographs(aligned, table)
    test = faces["subject"].map(lambda name: is_held_out(name, held_out)).to_numpy(bool)
    train = faces[~test]
    if calibration is None:
        calibration = Calibration.of(train[list(NAMES[1:])], train["emotion"].to_numpy(str))
    settings = {
        "pool": "photographs",
        "seed": 0,
        "size": size,
        "target": target,
        "held_out": held_out,
        "calibration": asdict(calibration),
    }
    studio = Studio(size, target)
    counts: Counter[str] = Counter()
    with only_process(out):
        for part in ("train", "mirrored", "test") if mirrored else ("train", "test"):
            rows = faces[test] if part == "test" else train
            if rows.empty:
                continue
            _begin(out / part, settings | {"part": part}, studio)
            bar = tqdm(
                rows.to_dict("records"), desc=f"render {part}", unit="face", disable=not progress
            )
            lines = []
            for row in bar:
                left, right = calibration.sides(row)
                sides = (right, left) if part == "mirrored" else (left, right)
                _write_pair(
                    aligned, out / part, str(row["output"]), sides, studio, part == "mirrored"
                )
                lines.append(_line(row, sides))
            write_table(pd.DataFrame(lines), out / part / "labels.csv")
            counts[f"{part} faces"] = len(lines)
            counts[f"{part} people"] = rows["subject"].nunique()
    return counts


def _begin(folder: Path, settings: dict[str, object], studio: Studio) -> None:
    path = folder / "benchmark.json"
    # folders of earlier versions name no seed
    if path.exists() and read_spec(folder) != settings:
        raise DataError(
            f"{path}: was made with other settings; choose another folder or delete this one"
        )
    write_json(settings, path)
    write_png(folder / "target.png", studio.neutral())


def _write_pair(
    aligned: Path,
    folder: Path,
    name: str,
    sides: tuple[dict[int, float], dict[int, float]],
    studio: Studio,
    mirrored: bool,
) -> None:
    """Copies a crop, mirrored or not, and renders its pseudo-true I_n, unless they are there."""
    truth = inside(folder / "truth", name, writes=True)
    if not truth.exists():
        _copy(inside(aligned, name), inside(folder / "images", name, writes=True), mirrored)
        write_png(truth, studio.normalized(*sides))


def _line(
    row: Mapping[str, object], sides: tuple[dict[int, float], dict[int, float]]
) -> dict[str, object]:
    """Line of the label table for a face."""
    line = {
        "subject": row["subject"],
        "sequence": "",
        "frame": 0 if pd.isna(row["frame"]) else int(row["frame"]),  # of a video
        "domain": "photographs",
        EMOTION: row["emotion"],
        "image": f"images/{row['output']}",
        "truth": f"truth/{row['output']}",
    }
    if "expression" in row:
        line["expression"] = row["expression"]
    return line | intensity_columns(sides)


def _copy(source: Path, place: Path, mirrored: bool) -> None:
    if mirrored:
        write_png(place, np.ascontiguousarray(decode(source.read_bytes(), str(source))[:, ::-1]))
    else:
        write_atomically(place, lambda part: shutil.copyfile(source, part))
