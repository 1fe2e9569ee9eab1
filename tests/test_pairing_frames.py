"""Which image a label row of BP4D and BP4D+ belongs to: the same in folders, zips and videos."""

import zipfile

import pytest
from test_loaders import (
    CLEAN,
    bp4d,
    encoded,
    fake,  # noqa: F401
    number_of,
    occurrence,
    put,
    put_video,
)
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.datasets.bp4d import BP4D
from norface_lib.datasets.bp4d_plus import BP4DPlus
from norface_lib.datasets.write_as import VARIANTS, write_as

CONTAINERS = ("folder", "zip", "video")


def sequence(root, container, numbers, rows, name="F001_T1"):
    """A sequence whose images have these numbers, which they show, and these label rows."""
    subject, task = name.split("_")
    put(root / f"AUCoding/AU_OCC/{name}.csv", occurrence({row: {} for row in rows}))
    if container == "folder":
        for number in numbers:
            put(root / f"2D+3D/{subject}/{task}/{number:03d}.jpg", encoded(number))
    elif container == "zip":
        (root / "2D+3D").mkdir(exist_ok=True, parents=True)
        with zipfile.ZipFile(root / f"2D+3D/{subject}.zip", "a") as file:
            for number in numbers:
                file.writestr(f"{subject}/{task}/{number:03d}.jpg", encoded(number))
    else:
        put_video(root / f"{name}.mp4", numbers)
    return root


def pairs(data):
    """Number that the image of each label row shows."""
    frames = data.index["frame"]
    return {int(row): number_of(item["image"]) for row, item in zip(frames, data, strict=True)}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("rows", [range(1, 7), range(2, 5)], ids=["whole", "excerpt"])
def test_bp4d_plus_pairs_by_position_in_every_container(tmp_path, container, rows):
    data = BP4DPlus(sequence(tmp_path, container, range(6), rows))
    assert pairs(data) == {row: row - 1 for row in rows} and data.report.dropped == {}
    said = data.report.counting[0]
    assert said.startswith(
        "labels count the frames of a video from 1"
        if container == "video"
        else "label row f is image f - 1, the f'th picture: the lowest number of an"
    )


@pytest.mark.parametrize("variant", VARIANTS["bp4d_plus"])
def test_bp4d_plus_is_written_with_numbers_from_0(fake, tmp_path, variant):  # noqa: F811
    write_as("bp4d_plus", fake, tmp_path / "out", variant, CLEAN)
    data = BP4DPlus(tmp_path / "out")
    first = data.index.groupby(["subject", "sequence"], sort=False).first()
    assert set(first["frame"]) == {1}
    ends = {"images": "/0.jpg", "zip": "/0.jpg", "video": ".mp4#0"}
    assert first["path"].str.endswith(ends[variant]).all()
    assert [number_of(item["image"]) for item in data] == list(range(len(data)))


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_bp4d_refuses_what_both_rules_fit_and_takes_the_answer(tmp_path, container):
    root = sequence(tmp_path, container, range(6), range(2, 5))
    with pytest.raises(
        DataError, match=r"images begin with 0 and label rows with 1, as in F001/T1"
    ):
        BP4D(root)
    assert pairs(BP4D(root, first_frame=0)) == {2: 1, 3: 2, 4: 3}
    asked = BP4D(root, first_frame=1)
    assert pairs(asked) == {2: 2, 3: 3, 4: 4}
    assert asked.report.counting[0].startswith("label row f is image f: images count from 1")
    assert pairs(BP4DPlus(root, first_frame=1)) == {2: 2, 3: 3, 4: 4}


def test_ends_that_leave_one_rule_decide_for_bp4d_too(tmp_path):
    root = sequence(tmp_path, "folder", range(6), range(3, 7))
    data = BP4D(root)
    assert pairs(data) == {row: row - 1 for row in range(3, 7)}
    assert "image is 0 (F001/T1)" in data.report.counting[0]
    assert pairs(BP4D(root, first_frame=1)) == {3: 3, 4: 4, 5: 5}
    coded = sequence(tmp_path / "coded", "folder", range(10, 14), range(11, 15))
    assert pairs(BP4D(coded)) == {row: row - 1 for row in range(11, 15)}
    later = sequence(tmp_path / "later", "folder", range(1, 4), range(3))
    assert pairs(BP4D(later)) == {row: row + 1 for row in range(3)}


def test_equal_numbers_are_one_frame_where_images_begin_later_or_rows_with_0(tmp_path):
    data = BP4D(sequence(tmp_path, "folder", range(12, 20), range(13, 17)))
    assert pairs(data) == {row: row for row in range(13, 17)}
    assert data.report.counting == [
        "label row f is image f: the lowest number of an image is 12 (F001/T1)"
    ]
    zero = sequence(tmp_path / "zero", "folder", range(6), range(4))
    for cls in (BP4D, BP4DPlus):
        assert pairs(cls(zero)) == {row: row for row in range(4)}
    assert "F001/T1 has a label row 0" in BP4D(zero).report.counting[0]


@pytest.mark.parametrize("cls", [BP4D, BP4DPlus])
def test_sequences_that_begin_with_0_and_with_1_are_refused(tmp_path, cls):
    sequence(tmp_path, "folder", range(6), range(2, 5))
    sequence(tmp_path, "folder", range(1, 6), range(2, 5), "F002_T1")
    with pytest.raises(DataError, match="begin with 0 in F001/T1 and with 1 in F002/T1"):
        cls(tmp_path)
    assert set(pairs(cls(tmp_path, first_frame=0)).values()) == {1, 2, 3}


def test_the_command_says_which_rule_was_used_and_takes_another(tmp_path):
    sequence(tmp_path, "folder", range(6), range(2, 5))
    call = ["inspect", "bp4d_plus", str(tmp_path)]
    assert "label row f is image f - 1" in CliRunner().invoke(app, call).output
    asked = CliRunner().invoke(app, [*call, "--option", "first_frame=1"])
    assert asked.exit_code == 0 and "label row f is image f: images count from 1" in asked.output


def test_without_a_common_sequence_nothing_is_counted(tmp_path):
    bp4d(tmp_path, images=())
    put(tmp_path / "2D+3D/F002/T1/1.jpg", encoded(1))
    with pytest.raises(DataError, match="label row without an image"):
        BP4D(tmp_path)
