"""Groups of people: rendered ones by what they were made from, those on photographs by the color of
their skin as it is measured, or by a table."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib.common.errors import DataError
from norface_lib.datasets.label_table import read_spec
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import POOLS, BenchmarkSpec, face_of, subject_name
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import NORFACE_CROP

_LIGHT = 41.0
_TAN = 10.0
"""Typology angles in degrees from which on skin is light, or intermediate to tan; below, it is
brown or dark (Chardon et al. 1991; Del Bino and Bernerd 2013 name six classes, of which neighbors
are joined here)."""

_PATCH = 0.04
"""Half the width of the patch on a cheek, in widths of the face crop."""


def groups_of(data: Rendered, table: Path | None = None) -> pd.DataFrame:
    """A row for each subject, by name, and a column for each way to group them, such as ``sex``;
    an empty text where a subject belongs to none.

    ``table``: a CSV with the column ``subject``, and a column for each way; without it, rendered
    people are grouped by `rendered_groups`, others by `skin_groups`. Raises :class:`DataError` for
    a table that cannot be read, that has no such columns, or that knows none of the subjects, and
    for people of another version of the benchmark.
    """
    subjects = np.unique(data.subjects)
    if table is not None:
        return _read_groups(table, subjects)
    spec = read_spec(data.root)
    if spec.get("pool") in POOLS:
        return rendered_groups(_specification(spec, data.root), subjects)
    return skin_groups(data.originals, data.subjects)


def _specification(spec: Mapping[str, Any], root: Path) -> BenchmarkSpec:
    names = {field.name for field in fields(BenchmarkSpec)}
    try:
        return BenchmarkSpec(**{name: value for name, value in spec.items() if name in names})
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{root}: its people are not known any more ({error}); render it anew, or give a table "
            "of groups"
        ) from error


def _read_groups(path: Path, subjects: NDArray[np.str_]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path}: no table of groups: {error}") from error
    if "subject" not in table or len(table.columns) < 2:
        raise DataError(
            f"{path}: needs the column subject, and one for each way to group people, such as sex"
        )
    table = table.drop_duplicates("subject").set_index("subject").reindex(subjects, fill_value="")
    if (table == "").all(axis=None):
        raise DataError(f"{path}: knows none of the subjects, such as {subjects[0]}")
    return table


def rendered_groups(spec: BenchmarkSpec, subjects: NDArray[np.str_]) -> pd.DataFrame:
    """Rendered people by ``sex``, ``age`` (two halves) and ``skin`` (three thirds, by its
    luminance), as they were sampled."""
    numbers = {subject_name(spec.pool, number): number for number in range(spec.subjects)}
    people = [face_of(spec, numbers[name]) for name in subjects]
    phenotypes = pd.DataFrame([person.subject.phenotype for person in people], index=subjects)
    luminance = pd.Series([_luminance(person.look.skin) for person in people], index=subjects)
    older = phenotypes["age"] >= phenotypes["age"].median()
    return pd.DataFrame(
        {
            "sex": np.where(phenotypes["gender"] < 0.5, "female", "male"),
            "age": np.where(older, "older half", "younger half"),
            "skin": pd.qcut(luminance, 3, labels=["dark", "medium", "light"]).astype(str),
        },
        index=subjects,
    )


def _luminance(color: NDArray[np.float32]) -> float:
    """Relative luminance of a linear RGB color (3,), by the weights of ITU-R BT.709."""
    return float(np.asarray(color) @ (0.2126, 0.7152, 0.0722))


def skin_groups(faces: Faces, subjects: NDArray[np.str_]) -> pd.DataFrame:
    """People by ``skin`` as their photographs (N, S, S, 3) show it: light, intermediate to tan, or
    brown to dark, by the median of `typology_angle` over each one's faces.

    It means something for color photographs in even, white light, as in a studio, and nothing for
    gray ones.
    """
    angles = pd.Series([typology_angle(face) for face in faces]).groupby(subjects).median()
    names = ["brown to dark", "intermediate to tan", "light"]
    bounds = [-np.inf, _TAN, _LIGHT, np.inf]
    return pd.DataFrame({"skin": pd.cut(angles, bounds, labels=names).astype(str)})


def typology_angle(face: NDArray[np.uint8]) -> float:
    """Individual typology angle of the skin of an aligned face (S, S, 3), in degrees: the lighter,
    the larger.

    It is atan((L* - 50) / b*) of the CIELAB color (Chardon et al. 1991), here the median over a
    patch on each cheek, below the eyes at the height of the tip of the nose.
    """
    size = len(face)
    lab = cv2.cvtColor(face.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    eye_left, eye_right, nose = NORFACE_CROP.pixels(size)[:3]
    half = max(1, round(_PATCH * size))
    patches = [_patch(lab, eye[0], nose[1], half) for eye in (eye_left, eye_right)]
    lightness, _, yellow = np.median(np.concatenate(patches), axis=0)
    return float(np.degrees(np.arctan2(lightness - 50, yellow)))


def _patch(image: NDArray[np.float32], x: float, y: float, half: int) -> NDArray[np.float32]:
    """The pixels (P, 3) around a point."""
    column = round(x)
    row = round(y)
    return image[row - half : row + half, column - half : column + half].reshape(-1, 3)
