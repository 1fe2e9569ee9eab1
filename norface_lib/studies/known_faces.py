"""What is known of faces apart from any reader: what people called them, and the truth of rendered
ones."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.datasets.index import EMOTION
from norface_lib.datasets.label_table import VOTES, read_spec, side_codes
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import POOLS
from norface_lib.photos.pseudo_pairs import is_held_out
from norface_lib.studies.face_readings import FaceReadings
from norface_lib.studies.photo_measures import smiling_of


@dataclass(frozen=True, kw_only=True)
class KnownFaces:
    """What is known of N faces apart from any reader.

    ``emotions`` (N,) are names, empty where unknown or where people disagree (``undecided`` faces);
    ``neutral`` (N,) is true for neutral faces; ``smile_rows`` are the rows of smiles and of faces
    without one, ``smiling`` which they are; ``first_half`` (N,) tells two halves of the people
    apart. ``sides`` (N, 22, 2) are the true intensities of
    ``labels.AUS`` in their order; None for photographs.
    """

    subjects: NDArray[np.str_]
    emotions: NDArray[np.str_]
    undecided: int
    neutral: NDArray[np.bool_]
    smile_rows: NDArray[np.intp]
    smiling: NDArray[np.bool_]
    first_half: NDArray[np.bool_]
    sides: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, data: Rendered) -> "KnownFaces":
        """What a benchmark knows: a rendered one, or photographs in its layout, whose AU columns
        are pseudo labels and are not taken."""
        emotions, undecided = majority_emotions(data)
        table = data.table.assign(**{EMOTION: emotions})
        expressions = table["expression"].to_numpy() if "expression" in table.columns else ""
        rows, smiling = smiling_of(table)
        spec = read_spec(data.root)
        return cls(
            subjects=data.subjects,
            emotions=emotions,
            undecided=undecided,
            neutral=(emotions == "neutral") | (expressions == "neutral"),
            smile_rows=rows,
            smiling=smiling,
            first_half=first_half(data.subjects, spec.get("held_out", 1.0)),
            sides=side_codes(table, tuple(labels.AUS)) if spec.get("pool") in POOLS else None,
        )

    def of_rows(self, chosen: NDArray[np.bool_]) -> "KnownFaces":
        """What is known of the ``chosen`` (N,) faces; ``undecided`` stays that of all."""
        smiles = chosen[self.smile_rows]
        return KnownFaces(
            subjects=self.subjects[chosen],
            emotions=self.emotions[chosen],
            undecided=self.undecided,
            neutral=self.neutral[chosen],
            # rows are counted among the chosen ones
            smile_rows=np.cumsum(chosen)[self.smile_rows[smiles]] - 1,
            smiling=self.smiling[smiles],
            first_half=self.first_half[chosen],
            sides=None if self.sides is None else self.sides[chosen],
        )

    def truth(self, readings: FaceReadings) -> NDArray[np.float32]:
        """(N, A, 2) true intensities of the AUs of some readings."""
        return self.sides[:, [list(labels.AUS).index(au) for au in readings.numbers]]


def first_half(subjects: NDArray[np.str_], held_out: float) -> NDArray[np.bool_]:
    """(N,) which faces are of people in the first of two halves, by the hash of their names
    (`norface_lib.photos.pseudo_pairs.is_held_out`).

    The same hash may have chosen these people out of all, as the share ``held_out``; then it is
    this share that is halved.
    """
    chosen = all(is_held_out(name, held_out) for name in set(subjects))
    share = held_out / 2 if chosen else 0.5
    return np.array([is_held_out(name, share) for name in subjects], bool)


def majority_emotions(data: Rendered) -> tuple[NDArray[np.str_], int]:
    """(N,) emotion of each face, empty where it is unknown; and the number of faces that people
    voted on without a majority for one.

    A majority is more than half of all votes, also of those that name no emotion. Where nobody
    voted, it is the emotion of the table.
    """
    names = data.table.get(EMOTION, pd.Series("", data.table.index))
    names = names.astype(object).fillna("").to_numpy(str)
    columns = [name for name in data.table.columns if name.startswith(VOTES)]
    if not columns:
        return names, 0
    votes = data.table[columns].fillna(0).to_numpy(float)
    voted = votes.sum(axis=1) > 0
    most = np.array([name.removeprefix(VOTES) for name in columns])[votes.argmax(axis=1)]
    decided = votes.max(axis=1) > votes.sum(axis=1) / 2
    decided &= np.isin(most, labels.EMOTIONS)
    emotions = np.where(decided, most, "")
    return np.where(voted, emotions, names), int((voted & ~decided).sum())
