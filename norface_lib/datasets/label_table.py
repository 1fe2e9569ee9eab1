"""The label table of a rendered benchmark: read and checked, its expressions, and simulated coder
errors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.common.paths import leaves_folder, no_folder, plain_name
from norface_lib.datasets.index import EMOTION


def read_labels(root: Path, aus: tuple[int, ...] = labels.BP4D_AUS) -> pd.DataFrame:
    """The label table of a benchmark folder, checked.

    Raises :class:`DataError`, naming the file, if it is missing, empty or no table, lacks a column
    that ``aus`` needs, has an AU that is not known, an intensity outside 0..5, or an image whose
    name leads out of the folder, or a frame that is no number.
    """
    path = Path(root) / "labels.csv"
    if not Path(root).is_dir():
        raise DataError(f"{root}: {no_folder(root)}; give the folder of a benchmark")
    if not path.is_file():
        raise DataError(
            f"{path}: no label table; make the benchmark with `python -m norface_lib render`"
        )
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(("subject", "image", "truth"), str))
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path}: not a readable CSV table ({error})") from error
    if table.empty:
        raise DataError(f"{path}: holds no row")
    missing = [
        name
        for name in ("subject", "frame", "image", *labels.columns(aus))
        if name not in table.columns
    ]
    if missing:
        raise DataError(f"{path}: lacks the column(s) {', '.join(missing)}")
    _check_intensities(table, path)
    _check_names(table, path)
    frames = pd.to_numeric(table["frame"], errors="coerce")
    if (wrong := ~np.isfinite(frames)).any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{path}: line {row + 2}, frame: {str(table['frame'].iloc[row])!r} is no number"
        )
    return table


def _check_names(table: pd.DataFrame, path: Path) -> None:
    for column in ("image", "truth"):
        names = table[column].fillna("").astype(str) if column in table.columns else ()
        for row, name in enumerate(names):
            if leaves_folder(name) and (name or column == "image"):
                raise DataError(
                    f"{path}: line {row + 2}, {column}: {name!r} is no path inside this folder; "
                    "correct it, or render the benchmark again"
                )


def _check_intensities(table: pd.DataFrame, path: Path) -> None:
    known = {labels.au_column(au) + side for au in labels.AUS for side in ("", "L", "R")}
    columns = [name for name in table.columns if name.startswith("AU")]
    if unknown := [name for name in columns if name not in known]:
        raise DataError(
            f"{path}: unknown AU column(s) {', '.join(unknown)}; known are "
            f"{', '.join(labels.columns(tuple(labels.AUS)))}"
        )
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if (bad := ~((values >= 0) & (values <= labels.INTENSITY_MAX))).any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{path}: line {row + 2}, {columns[column]}: {str(table[columns[column]].iloc[row])!r} "
            "is no intensity of 0..5"
        )


def read_spec(root: Path) -> dict[str, Any]:
    """The specification of a benchmark, ``benchmark.json``.

    ``seed`` is 0 where there is none: pseudo-pairs of photographs had none at first. Raises
    :class:`DataError` if it is missing or damaged, or a target's name is no name of a file.
    """
    path = Path(root) / "benchmark.json"
    if not Path(root).is_dir():
        raise DataError(f"{root}: {no_folder(root)}; give the folder of a benchmark")
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
        checked = {"size": int(spec["size"]), "target": str(spec["target"])}
        seed = {"seed": int(spec.get("seed", 0))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: missing or damaged; render the benchmark again") from error
    for name in checked["target"].split("+"):
        plain_name(name, path)
    return spec | checked | seed


def expression_columns(table: pd.DataFrame) -> tuple[str, ...]:
    """AU columns of a table, the two sides (``AU12L``, ``AU12R``) in place of their maximum where
    both are there."""
    columns = [name for name in table.columns if name.startswith("AU")]
    return tuple(name for name in columns if f"{name}L" not in columns)


def emotions_of(table: pd.DataFrame, root: Path) -> pd.Series:
    """Name of the emotion that each frame of a label table shows, or an empty text.

    Raises :class:`DataError` if the benchmark names no emotions, or an unknown one: none is guessed
    from AUs.
    """
    names = _emotion_names(table) if EMOTION in table.columns else pd.Series("", table.index)
    unknown = sorted(set(names) - {"", *labels.EMOTIONS})
    if unknown or not (names != "").any():
        what = f"unknown emotion(s) {', '.join(unknown)}" if unknown else "no frame has an emotion"
        raise DataError(
            f"{Path(root) / 'labels.csv'}: {what}; needed is a column emotion with "
            f"{', '.join(labels.EMOTIONS)}"
        )
    return names


def side_codes(table: pd.DataFrame, aus: Sequence[int]) -> NDArray[np.float32]:
    """AU intensities (N, A, 2) of a label table, left and right; of an AU without sides twice the
    same."""
    columns = [
        labels.au_column(au) + (side if labels.AUS[au].sided else "") for au in aus for side in "LR"
    ]
    return table[columns].to_numpy(np.float32).reshape(len(table), len(aus), 2)


VOTES = "votes_"
"""Beginning of the columns of a label table that hold how many people saw an emotion."""


def emotion_shares(table: pd.DataFrame, emotions: Sequence[str]) -> NDArray[np.float32]:
    """Shares (N, E) of votes of a label table, of its one emotion where there are no votes, and 0
    where there is neither."""
    names = _emotion_names(table).to_numpy(str)
    shares = (names[:, None] == np.array(emotions)).astype(np.float32)
    # an emotion without a column got no votes
    votes = table.reindex(columns=[VOTES + name for name in emotions])
    votes = votes.fillna(0).to_numpy(np.float32)
    total = votes.sum(axis=1, keepdims=True)
    voted = total[:, 0] > 0
    shares[voted] = votes[voted] / total[voted]
    return shares


def _emotion_names(table: pd.DataFrame) -> pd.Series:
    """The column of emotions as text, empty where there is none: a table without any holds NaN."""
    return table[EMOTION].astype(object).fillna("").astype(str)


def coded_table(table: pd.DataFrame, errors: float = 0.03, seed: int = 0) -> pd.DataFrame:
    """A label table as human coders would have labeled it: whole levels 0..5, and a share of
    ``errors`` of wrong labels.

    Of an AU that occurs at rate p, ``errors`` / 2 of all frames are misses and as many are false
    alarms, so that its rate stays: it is missed with chance errors / (2 p), at most one half, the
    weaker the likelier, and labeled A (1) where it is not in the same number of frames. As many
    images get another emotion, each equally likely. Two trained coders of real data differ at least
    so much; the amounts are our choice. The columns of either side stay true.
    """
    rng = np.random.default_rng([seed, 77])
    table = table.copy()
    columns = [name for name in table.columns if name.startswith("AU") and name[-1] not in "LR"]
    for name in columns:
        table[name] = _coded_levels(table[name].to_numpy(float), errors, rng)
    if EMOTION in table.columns:
        names = _emotion_names(table).to_numpy(object)
        wrong = (rng.random(len(table)) < errors) & (names != "")
        names[wrong] = rng.choice(labels.EMOTIONS, wrong.sum())
        table[EMOTION] = names
    return table


def _coded_levels(
    intensity: NDArray[np.float64], errors: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Whole levels (N,) of intensities (N,), with misses and as many false alarms."""
    levels = np.where(
        intensity >= labels.OCCURRENCE_THRESHOLD - 1e-4, np.maximum(np.rint(intensity), 1.0), 0.0
    )
    shown = np.flatnonzero(levels)
    absent = np.flatnonzero(levels == 0)
    count = int(min(rng.binomial(len(levels), errors / 2), len(shown) // 2, len(absent)))
    if count:
        chances = np.exp(-levels[shown])
        missed = rng.choice(shown, count, replace=False, p=chances / chances.sum())
        falsely = rng.choice(absent, count, replace=False)
        levels[missed] = 0.0
        levels[falsely] = 1.0
    return levels
