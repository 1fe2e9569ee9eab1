"""A reader by groups of people: who is in which group, and what is measured of each."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from norface_lib import labels
from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec, face_of
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.crop import NORFACE_CROP
from norface_lib.studies.face_readings import FaceReadings
from norface_lib.studies.group_evaluation import LEAST_PEOPLE, by_group
from norface_lib.studies.groups import groups_of, rendered_groups, skin_groups, typology_angle
from norface_lib.studies.known_faces import KnownFaces

AUS = labels.columns()


def face_of_color(color, size=112):
    """A face of one color before a background of another."""
    image = np.full((size, size, 3), (90, 90, 90), np.uint8)
    points = NORFACE_CROP.pixels(size)
    (left, top), (right, bottom) = points.min(0).astype(int) - 12, points.max(0).astype(int) + 12
    image[top:bottom, left:right] = color
    return image


def known_of(subjects, shown):
    """Rendered faces of which each shows all AUs at intensity 4, or none."""
    count = len(subjects)
    sides = np.zeros((count, len(labels.AUS), 2), np.float32)
    sides[shown] = 4.0
    return KnownFaces(
        subjects=np.array(subjects),
        emotions=np.array([""] * count),
        undecided=0,
        neutral=np.zeros(count, bool),
        smile_rows=np.empty(0, np.intp),
        smiling=np.empty(0, bool),
        first_half=np.zeros(count, bool),
        sides=sides,
    )


def test_the_angle_is_larger_the_lighter_skin_is_and_looks_at_the_cheeks():
    light, tan, dark = (
        typology_angle(face_of_color(color))
        for color in ((240, 210, 190), (190, 140, 105), (80, 50, 35))
    )
    assert light > 41 > tan > 10 > dark
    beside = face_of_color((240, 210, 190))
    beside[:20] = beside[-12:] = 0
    assert typology_angle(beside) == pytest.approx(light), "hair and clothes do not count"


def test_the_angle_is_the_published_formula():
    # CIELAB of sRGB (187, 139, 113) is about L* 61.6, b* 21.0, so atan(11.6 / 21.0) = 28.9 degrees
    assert typology_angle(face_of_color((187, 139, 113))) == pytest.approx(28.9, abs=1.5)


def test_people_on_photographs_are_grouped_by_the_median_of_their_faces():
    faces = np.stack([face_of_color(color) for color in [(240, 210, 190)] * 3 + [(80, 50, 35)] * 3])
    faces[1] = face_of_color((80, 50, 35))  # one picture of the first person is too dark
    table = skin_groups(faces, np.array(["a"] * 3 + ["b"] * 3))
    assert table["skin"].to_dict() == {"a": "light", "b": "brown to dark"}


def test_rendered_people_are_grouped_by_what_they_were_made_from():
    spec = BenchmarkSpec(pool="lab", subjects=9)
    names = np.array([f"lab000{number}" for number in range(9)])
    table = rendered_groups(spec, names)
    person = face_of(spec, 4)
    female = person.subject.phenotype["gender"] < 0.5
    assert table.loc["lab0004", "sex"] == ("female" if female else "male")
    assert table["skin"].value_counts().to_dict() == {"dark": 3, "medium": 3, "light": 3}
    shades = [face_of(spec, int(name[-1])).look.skin.mean() for name in names]
    assert table["skin"].iloc[int(np.argmin(shades))] == "dark"
    assert table["skin"].iloc[int(np.argmax(shades))] == "light"


def test_a_reader_that_fails_on_one_group_is_found_out():
    people = [f"{group}{number}" for group in "ab" for number in range(12)]
    subjects = np.repeat(people, 6)
    rng = np.random.default_rng(0)
    shown = rng.random(len(subjects)) < 0.5
    scores = np.where(shown, 0.9, 0.1) + rng.normal(0, 0.02, len(subjects))
    blind = np.char.startswith(subjects, "b")
    scores[blind] = rng.random(blind.sum())
    probabilities = np.repeat(scores[:, None], len(AUS), axis=1).astype(np.float32)
    table = pd.DataFrame({"town": [name[0] for name in people]}, index=people)
    table.loc["c0"] = "c"

    found = by_group(
        FaceReadings(aus=AUS, probabilities=probabilities), known_of(subjects, shown), table
    )["town"]
    assert found["too_small"] == {"c": 1} and LEAST_PEOPLE > 1
    assert set(found["measured"]) == {"a", "b"}
    first, second = found["measured"]["a"], found["measured"]["b"]
    assert first["people"] == 12 and first["faces"] == 72
    assert first["measures"]["truth auc_mean_bp4d"]["value"] == pytest.approx(1.0)
    assert 0.3 < second["measures"]["truth auc_mean_bp4d"]["value"] < 0.7
    low, high = second["difference_from_others"]["truth auc_mean_bp4d"]["interval"]
    assert high < 0, "the second group differs beyond chance"
    assert low < -0.3


def test_faces_of_no_group_are_left_out_of_the_others():
    people = [f"{group}{number}" for group in "abx" for number in range(6)]
    subjects = np.repeat(people, 4)
    shown = np.tile([True, False], len(subjects) // 2)
    scores = np.where(shown, 0.9, 0.1).astype(np.float32)
    scores[np.char.startswith(subjects, "x")] *= -1  # they would spoil the rest
    table = pd.DataFrame({"town": [name[0].replace("x", "") for name in people]}, index=people)
    probabilities = np.repeat(scores[:, None], len(AUS), axis=1)
    found = by_group(
        FaceReadings(aus=AUS, probabilities=probabilities), known_of(subjects, shown), table
    )["town"]["measured"]
    assert set(found) == {"a", "b"}
    assert found["a"]["difference_from_others"]["truth auc_mean_bp4d"]["value"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person,sex\nlab0000,female\n", "needs the column subject"),
        ("subject\nlab0000\n", "one for each way"),
        ("subject,sex\nsomebody,female\n", "knows none"),
    ],
)
def test_a_wrong_table_is_refused(tiny_benchmark, tmp_path, text, message):
    path = tmp_path / "people.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        groups_of(Rendered(tiny_benchmark), path)


def test_people_of_another_version_are_refused_in_a_sentence(tiny_benchmark, tmp_path):
    shutil.copytree(tiny_benchmark, tmp_path / "old")
    path = tmp_path / "old/benchmark.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    with pytest.raises(DataError, match="render it anew, or give a table"):
        groups_of(Rendered(tmp_path / "old"))


def test_the_command_measures_groups_of_a_table(tmp_path):
    spec = BenchmarkSpec(subjects=LEAST_PEOPLE + 1, frames=2)
    write_benchmark(spec, tmp_path / "people", progress=False)
    subjects = sorted(set(Rendered(tmp_path / "people").subjects))
    clubs = ["red"] * LEAST_PEOPLE + ["blue"]
    pd.DataFrame({"subject": subjects, "club": clubs}).to_csv(tmp_path / "clubs.csv")
    out = tmp_path / "groups.json"
    done = CliRunner().invoke(
        app,
        [
            *("evaluate", "groups", str(tmp_path / "people")),
            *("--groups", str(tmp_path / "clubs.csv"), "--out", str(out)),
        ],
        env={"COLUMNS": "200"},
    )
    assert done.exit_code == 0, done.output
    assert f"red ({LEAST_PEOPLE} people)" in done.output
    assert "blue: 1 person, too few" in done.output
    result = json.loads(out.read_text())
    assert result["counts"]["people"] == LEAST_PEOPLE + 1
    assert (
        "truth auc_mean_bp4d" in result["result"]["groups"]["club"]["measured"]["red"]["measures"]
    )
