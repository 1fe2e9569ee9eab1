"""Photographs with a pseudo-true I_n: the target head drawn with the facial actions that
MediaPipe's landmarker sees in each.

The landmarker's blendshapes are named after the ARKit actions that our heads are driven by, so it
can teach the normalizer what a photograph shows, where no true I_n exists. Our choice: the paper
and its peers have nothing like it. A score is no intensity: each is set to zero where it stands in
neutral photographs and to full where it stands in the strongest, faint ones of brows, wide eyes and
frowning mouths count for more, actions that the landmarker does not see are left to others, and
whether somebody smiles is told by all scores together, as people would on the whole say it
(:class:`Calibration`).
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.common.files import write_atomically, write_json, write_table
from norface_lib.datasets.base import EMOTION
from norface_lib.faces.benchmark import DRAWN_AUS, Sides, Studio, intensity_columns
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import decode, write_png
from norface_lib.networks.weights import FOLDER
from norface_lib.photos.journal import BLENDSHAPES, FACES
from norface_lib.photos.landmarker import BLENDSHAPES as NAMES

UNSEEN = ("cheekSquint", "noseSneer")
"""Actions whose scores say nothing: on photographs and on rendered faces alike they stay at zero.
"""

FAINT = ("brow", "eyeWide", "mouthFrown")
"""Actions whose low scores count for more. The landmarker hardly sees lowered brows, wide eyes and
a frowning mouth unless they are strong (rendered heads with AU4 score 0.02 at intensity 2 to 3 and
0.2 at 4 to 5: medians of 4,000 faces; AU15 0.03, 0.14), and of raised brows on our target it sees
more of what it saw in a photograph if faint ones are drawn more strongly."""

SHIPPED = FOLDER / "landmarker.json"
"""The calibration that comes with the weights."""

EMOTION_NAMES = {"happiness": "happy", "sadness": "sad"} | {name: name for name in labels.EMOTIONS}
"""Names of emotions in tables of photographs -> ours."""


LEAST_CALLED = 100
"""Photographs that must be called happy, and neutral, before a smile is learned from them."""


@dataclass(frozen=True)
class Calibration:
    """What scores of blendshapes (name -> 0..1) mean.

    ``zero`` and ``full``: scores at which an action begins, and at which it is at its strongest.
    ``smile``: a weight for each score and a ``bias``, whose sum is the log odds that people call
    the face happy and not neutral; empty if it is not known. ``lift``: how many times as strong as
    in proportion the faintest of ``FAINT`` are; 1 for none.
    """

    zero: Mapping[str, float]
    full: Mapping[str, float]
    smile: Mapping[str, float] = field(default_factory=dict)
    lift: float = 4.0

    @classmethod
    def of(
        cls, shapes: pd.DataFrame, emotions: NDArray[np.str_] | None = None, least: float = 0.3
    ) -> "Calibration":
        """Zero is the median of photographs (N rows) called neutral, or of all; full the 99.5th
        percentile of all.

        What never gets as far as ``least`` above zero is not stretched any further: it would be
        noise. ``emotions`` (N,) are names or "". The smile needs ``LEAST_CALLED`` photographs of
        either kind; with fewer it is that of the shipped one.
        """
        said = np.full(len(shapes), "") if emotions is None else np.asarray(emotions)
        neutral = said == "neutral"
        zero, full = (shapes[neutral] if neutral.any() else shapes).median(), shapes.quantile(0.995)
        full = np.maximum(full, zero + least)
        smile = smile_of(shapes, said) or dict(calibration_of().smile)
        return cls(
            *({name: round(float(part[name]), 4) for name in shapes} for part in (zero, full)),
            smile,
        )

    def actions(self, scores: Mapping[str, float], gain: float = 1.25) -> dict[str, float]:
        """ARKit weights 0..``gain`` of a face's scores, each side on its own. Our choice: how far a
        head must go to be read so.

        ``cheekSquint`` goes along with a smile from a third of it on, and ``noseSneer`` with brows
        and upper lip together.
        """
        found = {
            name: gain * self._strength(name, scores[name])
            for name in self.zero
            if (name in drawn_actions() or name == "browInnerUp") and not name.startswith(UNSEEN)
        }
        inner = found.pop("browInnerUp", 0.0)
        for side in ("Left", "Right"):
            found[f"browInnerUp{side}"] = inner
            found[f"cheekSquint{side}"] = max(0.0, 1.2 * (found[f"mouthSmile{side}"] - gain / 3))
            found[f"noseSneer{side}"] = min(found[f"browDown{side}"], found[f"mouthUpperUp{side}"])
        return found

    def _strength(self, name: str, score: float) -> float:
        """0 where the action begins, 1 at its strongest; between, a share s, or lifted: l s / (1 +
        (l - 1) s). Our choice."""
        share = float(
            np.clip((score - self.zero[name]) / (self.full[name] - self.zero[name]), 0, 1)
        )
        lift = self.lift if name.startswith(FAINT) else 1.0
        return lift * share / (1 + (lift - 1) * share)

    def smiles(self, scores: Mapping[str, float]) -> float:
        """Log odds that people call a face with these scores happy and not neutral."""
        return self.smile["bias"] + sum(
            weight * scores[name] for name, weight in self.smile.items() if name != "bias"
        )

    def sides(self, scores: Mapping[str, float]) -> Sides:
        """AU intensities 0..5 of each side of a face with these scores, as `intensities_of`; AU12
        is there if it smiles.

        The single score of a smile is wrong about faint ones, and about faces whose mouth turns up
        at rest, more often than all scores together: they decide whether AU12 stays below a trace
        (A) or is 1.5 at least. Our choice.
        """
        read = intensities_of(self.actions(scores))
        if not self.smile:
            return read
        low, high = (
            (1.5, labels.INTENSITY_MAX)
            if self.smiles(scores) > 0
            else (0.0, 0.9 * labels.OCCURRENCE_THRESHOLD)
        )
        left, right = ({**side, 12: float(np.clip(side.get(12, 0.0), low, high))} for side in read)
        return left, right


def smile_of(shapes: pd.DataFrame, emotions: NDArray[np.str_]) -> dict[str, float]:
    """``Calibration.smile`` of photographs (N rows) with emotions (N,): logistic regression (L2, C
    = 1).

    It takes the place of what people said of each photograph: they, too, are wrong about single
    ones. Empty if there are fewer than ``LEAST_CALLED`` happy or neutral ones.
    """
    happy, neutral = emotions == "happy", emotions == "neutral"
    if min(happy.sum(), neutral.sum()) < LEAST_CALLED:
        return {}
    rows = happy | neutral
    model = LogisticRegression(max_iter=1000).fit(shapes.to_numpy()[rows], happy[rows])
    found = dict(zip(shapes, model.coef_[0].tolist(), strict=True)) | {
        "bias": float(model.intercept_[0])
    }
    return {name: round(value, 4) for name, value in found.items()}


def calibration_of(path: Path = SHIPPED) -> Calibration:
    """A calibration from a JSON file; default: the one that comes with the weights for photographs.

    Raises :class:`CheckpointError` if the file is missing or damaged.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return Calibration(values["zero"], values["full"], values["smile"], values["lift"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no calibration of the landmarker ({error})") from error


@lru_cache(maxsize=1)
def drawn_actions() -> tuple[str, ...]:
    """Actions that AUs are drawn with."""
    return tuple(sorted({action for au in DRAWN_AUS for action in labels.AUS[au].actions}))


@lru_cache(maxsize=1)
def _drawing() -> tuple[NDArray[np.float64], list[tuple[int, str]]]:
    """Matrix (A, V) from intensities to action weights, and what its columns are: (AU, side), side
    "" for both."""
    variables = [
        (au, side)
        for au in DRAWN_AUS
        for side in (("Left", "Right") if labels.AUS[au].sided else ("",))
    ]
    rows = drawn_actions()
    matrix = np.zeros((len(rows), len(variables)))
    for column, (au, side) in enumerate(variables):
        for action, weight in labels.AUS[au].actions.items():
            if not side or action.endswith(side):
                matrix[rows.index(action), column] = weight / labels.INTENSITY_MAX
    return matrix, variables


def intensities_of(actions: Mapping[str, float], damping: float = 0.02) -> Sides:
    """AU intensities 0..5 of each side whose drawing comes nearest to ARKit weights (non-negative
    least squares).

    ``damping`` makes the smallest of equally good answers the best one.
    """
    matrix, variables = _drawing()
    wanted = np.array([actions.get(name, 0.0) for name in drawn_actions()])
    system = np.concatenate([matrix, damping * np.eye(len(variables))])
    found = nnls(system, np.concatenate([wanted, np.zeros(len(variables))]))[0].clip(
        0, labels.INTENSITY_MAX
    )
    left, right = {}, {}
    for (au, side), value in zip(variables, found.tolist(), strict=True):
        if side != "Right":
            left[au] = value
        if side != "Left":
            right[au] = value
    return left, right


def draw_shapes(
    shapes: NDArray[np.floating], studio: Studio, calibration: Calibration | None = None
) -> Faces:
    """A normalizer without a network, "landmarker + render": the target head with blendshapes (N,
    52), as (N, S, S, 3).

    A face that the landmarker did not find (NaN) is drawn neutral. ``calibration``: default, the
    one that is shipped.
    """
    calibration = calibration or calibration_of()
    read = [dict(zip(NAMES, map(float, row), strict=True)) for row in np.nan_to_num(shapes)]
    return np.stack([studio.normalized(*calibration.sides(scores)) for scores in read])


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
    found = faces[[*keys, "output"]].merge(shapes[[*keys, *NAMES]], on=keys, validate="one_to_one")
    if table is None:
        return found.assign(subject=found["source"], emotion="")
    known = pd.read_csv(table, dtype=str)
    if "image" not in known.columns:
        raise DataError(f"{table}: lacks the column image")
    known = known.rename(columns={"image": "source"}).drop_duplicates("source")
    kept = [
        name for name in ("source", "subject", "emotion", "expression") if name in known.columns
    ]
    found = found.merge(known[kept], how="left", on="source")
    found["emotion"] = _emotions(found, table)
    if "subject" not in found.columns:
        return found.assign(subject=found["source"])
    if found["subject"].isna().any():
        raise DataError(
            f"{table}: names no subject for {found.loc[found['subject'].isna(), 'source'].iloc[0]}"
        )
    return found


def _emotions(found: pd.DataFrame, table: Path) -> pd.Series:
    given = (
        found["emotion"].fillna("") if "emotion" in found.columns else pd.Series("", found.index)
    )
    if unknown := sorted(set(given) - {"", *EMOTION_NAMES}):
        raise DataError(
            f"{table}: unknown emotion(s) {', '.join(unknown)}; known are "
            f"{', '.join(EMOTION_NAMES)}"
        )
    return given.map(lambda name: EMOTION_NAMES.get(name, ""))


def is_held_out(subject: str, share: float) -> bool:
    """Whether a person is kept for tests: by the hash of the name, so it never depends on who else
    is there."""
    return int(sha256(subject.encode()).hexdigest()[:8], 16) < share * 2**32


def write_pseudo_pairs(
    aligned: Path,
    out: Path,
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
    those of ``train`` left for right; their I_n are drawn anew, for the target face itself is not
    symmetric. ``calibration``: default, that of the photographs of ``train``; it is written beside
    them. Drawn faces that are there already are kept, so an interrupted call goes on. Returns how
    many faces and people are in each part. Raises :class:`DataError` as `read_photographs`, and if
    ``out`` holds other pairs.
    """
    aligned, out = Path(aligned), Path(out)
    found = read_photographs(aligned, table)
    test = found["subject"].map(lambda name: is_held_out(name, held_out)).to_numpy(bool)
    if calibration is None:
        learned = found[~test]
        calibration = Calibration.of(learned[list(NAMES[1:])], learned["emotion"].to_numpy(str))
    settings = {
        "pool": "photographs",
        "size": size,
        "target": target,
        "held_out": held_out,
        "calibration": asdict(calibration),
    }
    studio, counts = Studio(size, target), Counter()
    for part in ("train", "mirrored", "test") if mirrored else ("train", "test"):
        rows = found[test if part == "test" else ~test]
        if rows.empty:
            continue
        _begin(out / part, settings | {"part": part}, studio)
        lines = [
            _write_pair(aligned, out / part, row, calibration, studio, part == "mirrored")
            for row in tqdm(
                rows.to_dict("records"), desc=f"draw {part}", unit="face", disable=not progress
            )
        ]
        write_table(pd.DataFrame(lines), out / part / "labels.csv")
        counts |= {f"{part} faces": len(lines), f"{part} people": rows["subject"].nunique()}
    return counts


def _begin(folder: Path, settings: dict[str, object], studio: Studio) -> None:
    path = folder / "benchmark.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise DataError(
            f"{path}: was made with other settings; choose another folder or delete this one"
        )
    write_json(settings, path)
    write_png(folder / "target.png", studio.neutral())


def _write_pair(
    aligned: Path,
    folder: Path,
    row: Mapping[str, object],
    calibration: Calibration,
    studio: Studio,
    mirrored: bool,
) -> dict[str, object]:
    """Copies a crop, mirrored or not, draws its pseudo-true I_n, and returns its line of the label
    table."""
    left, right = calibration.sides(row)
    left, right = (right, left) if mirrored else (left, right)
    name = str(row["output"])
    image, truth = f"images/{name}", f"truth/{name}"
    if not (folder / truth).exists():
        _copy(aligned / name, folder / image, mirrored)
        write_png(folder / truth, studio.normalized(left, right))
    frame = 0 if pd.isna(row["frame"]) else int(row["frame"])  # of a video
    line = {
        "subject": row["subject"],
        "sequence": "",
        "frame": frame,
        "domain": "photographs",
        EMOTION: row["emotion"],
    }
    line |= {"image": image, "truth": truth} | (
        {"expression": row["expression"]} if "expression" in row else {}
    )
    return line | intensity_columns((left, right))


def _copy(source: Path, place: Path, mirrored: bool) -> None:
    if mirrored:
        write_png(place, np.ascontiguousarray(decode(source.read_bytes(), str(source))[:, ::-1]))
    else:
        write_atomically(place, lambda part: shutil.copyfile(source, part))
