"""Names of files and folders that copies of the datasets have: each is read, or refused with the
rule that failed."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_loaders import affectnet, bp4d, disfa, encoded, listed, number_of, occurrence, put

from norface_lib.common.errors import DataError
from norface_lib.datasets import open_dataset
from norface_lib.datasets.bp4d import BP4D
from norface_lib.datasets.bp4d_plus import BP4DPlus
from norface_lib.datasets.disfa import DISFA


def with_labels(dataset: str, root: Path) -> Path:
    """The labels of three frames, 1 to 3, of one sequence, where they lie apart from the images."""
    if dataset in ("bp4d", "bp4d_plus"):
        put(root / "AUCoding/AU_OCC/F001_T1.csv", occurrence({row: {} for row in (1, 2, 3)}))
    if dataset == "disfa":
        disfa(root, {1: [0, 0, 0]})
    return root


def images(pattern: str, numbers=(1, 2, 3)) -> list[str]:
    return [pattern.format(number) for number in numbers]


# dataset, options of its loader, images, what they show in the order of the index
READ = [
    ("bp4d", {}, images("Sequences/F001/T1/frame_{}.jpg"), [1, 2, 3]),
    ("bp4d", {}, images("Sequences/F001/T1/F001_T1_{:04d}.png"), [1, 2, 3]),
    ("bp4d", {}, images("2D+3D/F001/T1/{:05d}.jpg"), [1, 2, 3]),
    ("bp4d", {}, images("2D+3D/F001/T1/{:03d}.png"), [1, 2, 3]),
    ("bp4d", {}, images("2F01_T1/{}.jpg"), [1, 2, 3]),
    ("bp4d", {}, images("frames/2F01_01/{}.jpg"), [1, 2, 3]),
    ("bp4d", {}, images("frames/f001_t1/frame{:04d}.jpg"), [1, 2, 3]),
    ("bp4d", {}, images("F001/2F01_T1/{}.jpg"), [1, 2, 3]),
    ("bp4d", {}, [*images("F001/T1/{}.jpg"), "F001/T1/thumb_7.jpg"], [1, 2, 3]),
    ("bp4d_plus", {}, images("F001_T1/{:05d}.png", (0, 1, 2)), [0, 1, 2]),
    ("bp4d_plus", {}, images("F001/T1/frame_{}.jpg", (0, 1, 2)), [0, 1, 2]),
    ("disfa", {}, images("SN001/{:05d}.png"), [1, 2, 3]),
    ("disfa", {}, images("SN001/frame_{}.jpg", (0, 1, 2)), [0, 1, 2]),
    ("disfa", {}, images("LeftVideoSN001/{:05d}.jpg"), [1, 2, 3]),
    ("disfa", {}, images("LeftVideoSN001_comp/{:05d}.jpg"), [1, 2, 3]),
    ("disfa", {}, images("Video_LeftCamera/SN001/{}.png", (0, 1, 2)), [0, 1, 2]),
    ("disfa", {}, images("left/SN001/{}.png", (0, 1, 2)), [0, 1, 2]),
    (
        "disfa",
        {"camera": "right"},
        images("LeftVideoSN001/{}.jpg") + images("RightVideoSN001_Comp/{}.jpg"),
        [1, 2, 3],
    ),
    ("affectnet", {}, ["train/0/7.png", "val/3/8.jpeg"], [7, 8]),
    ("affectnet", {}, ["train_class/class000/7.jpg", "val_class/class003/8.jpg"], [7, 8]),
    (
        "affectnet",
        {"first_class": 1},
        ["train_class/class001/7.jpg", "val_class/class008/8.jpg"],
        [7, 8],
    ),
    ("rafdb", {}, ["train/1/00007.png", "test/7/8.jpg"], [7, 8]),
]

REFUSED = [
    ("bp4d", images("F001/T1/{}_color.jpg"), "folder of images whose names are no frame numbers"),
    ("bp4d", ["F001/T1/a1.jpg", "F001/T1/b2.jpg"], "names are no frame numbers, as 12.jpg or fr"),
    ("bp4d", images("F001/2F02_T1/{}.jpg"), "folder of another subject in that of F001"),
    ("bp4d", images("2F01_02/{}.jpg"), "sequence of a session without AU codes, such as 2F01_02"),
    ("disfa", images("SN001/x{}y.jpg"), "folder of images whose names are no frame numbers"),
    ("disfa", images("RightVideoSN001/{}.jpg"), "right camera alone, where left was asked for"),
    ("affectnet", [f"train_class/class00{n}/1.jpg" for n in range(1, 9)], "say first_class=1"),
    ("rafdb", [f"train/{n}/1.jpg" for n in range(7)], "add 1 to each"),
]


def name_of(case) -> str:
    return f"{case[0]} {case[-2][0]}"


def shown(path: str) -> int:
    """The number in a file's name."""
    return int("".join(letter for letter in Path(path).stem if letter.isdigit())[-4:] or 0)


@pytest.mark.parametrize(("dataset", "options", "paths", "numbers"), READ, ids=map(name_of, READ))
def test_a_layout_that_is_read(tmp_path, dataset, options, paths, numbers):
    root = with_labels(dataset, tmp_path)
    for path in paths:
        put(root / path, encoded(shown(path), Path(path).suffix))
    data = open_dataset(dataset, root, **options)
    assert [number_of(item["image"]) for item in data] == numbers
    assert data.report.dropped == {}
    if dataset in ("bp4d", "bp4d_plus", "disfa"):
        assert data.index["frame"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("dataset", "paths", "words"), REFUSED, ids=map(name_of, REFUSED))
def test_a_layout_that_is_refused_with_its_rule(tmp_path, dataset, paths, words):
    root = with_labels(dataset, tmp_path)
    for path in paths:
        put(root / path, encoded(1))
    with pytest.raises(DataError, match=words):
        open_dataset(dataset, root)


def test_a_zip_may_hold_folders_named_by_their_sequence(tmp_path):
    with_labels("bp4d_plus", tmp_path)
    with zipfile.ZipFile(tmp_path / "F001.zip", "w") as file:
        for number in range(3):
            file.writestr(f"2F01_T1/frame_{number}.jpg", encoded(number))
        file.writestr("2F02_T1/frame_7.jpg", encoded(7))
    data = BP4DPlus(tmp_path)
    assert [number_of(item["image"]) for item in data] == [0, 1, 2]
    assert data.report.noted == {"folder of another subject in that of F001, not used": 1}


@pytest.mark.parametrize(
    ("path", "camera", "line"),
    [
        ("LeftVideoSN001/{}.png", "left", "camera: left, by the names of the folders"),
        ("RightVideoSN001/{}.png", "both", "camera: right, by the names of the folders"),
        ("SN001/{}.png", "right", "camera: told by no folder of images, taken for right"),
    ],
)
def test_disfa_says_which_camera_it_is(tmp_path, path, camera, line):
    for name in images(path):
        put(with_labels("disfa", tmp_path) / name, encoded(1, ".png"))
    assert line in str(DISFA(tmp_path, camera=camera).report)


def test_images_that_tell_their_camera_come_before_those_that_do_not(tmp_path):
    with_labels("disfa", tmp_path)
    for number in (1, 2, 3):
        put(tmp_path / f"LeftVideoSN001/{number}.png", encoded(number, ".png"))
        put(tmp_path / f"RightVideoSN001/{number}.png", encoded(number + 10, ".png"))
        put(tmp_path / f"SN001/{number}.png", encoded(number + 20, ".png"))
    data = DISFA(tmp_path, camera="both")
    assert [number_of(item["image"]) for item in data] == [1, 2, 3, 11, 12, 13]
    assert data.index["sequence"].unique().tolist() == ["left", "right"]
    assert (
        data.report.noted[
            "image of a subject, not used beside those whose folders tell their camera"
        ]
        == 3
    )


def test_listed_images_may_have_another_suffix(tmp_path):
    put(tmp_path / "raf/EmoLabel/list_patition_label.txt", "train_1.jpg 1\ntest_2.jpg 7\n")
    for name in ("train_1", "test_2"):
        put(tmp_path / f"raf/Image/aligned/{name}_aligned.png", encoded(3, ".png"))
    data = open_dataset("rafdb", tmp_path / "raf")
    assert len(data) == 2 and data.report.dropped == {}
    affectnet(tmp_path / "old", [listed("1/a.png", 0)])
    table = tmp_path / "old/Manually_Annotated_file_lists/training.csv"
    put(table, table.read_text().replace("a.png", "a.jpg"))
    assert open_dataset("affectnet", tmp_path / "old").index["path"][0].endswith("1/a.png")


@pytest.mark.parametrize("cls", [BP4D, BP4DPlus])
def test_sequences_without_a_coded_frame_are_noted_and_skipped(tmp_path, cls):
    bp4d(tmp_path)
    nines = {1: dict.fromkeys(range(1, 28), 9), 2: dict.fromkeys(range(1, 28), 9)}
    for task, content in (("T6", ""), ("T7", "0,1,2,4,6,7,10\n"), ("T8", occurrence(nines))):
        put(tmp_path / f"AUCoding/AU_OCC/F001_{task}.csv", content)
        for number in (1, 2):
            put(tmp_path / f"2D+3D/F001/{task}/{number}.jpg", encoded(number))
    put(tmp_path / "AUCoding/AU_OCC/F002_T1.csv", "\n")
    data = cls(tmp_path)
    assert data.index["sequence"].unique().tolist() == ["T1"] and data.report.dropped == {}
    assert data.report.noted == {
        "sequence whose label file is empty, skipped": 3,
        "label value 9 (unknown), masked": 24,
        "sequence of which no label is known, skipped": 1,
        "image of a sequence without a coded frame, skipped": 6,
    }
    assert data.report.unused == {}


def test_an_empty_file_of_one_intensity_costs_that_au(tmp_path):
    bp4d(tmp_path)
    put(tmp_path / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "1,5\n2,0\n")
    put(tmp_path / "AUCoding/AU_INT/AU12/F001_T1_AU12.csv", "")
    for au in (6, 12):
        put(tmp_path / f"AUCoding/AU_INT/AU{au:02d}/F001_T2_AU{au:02d}.csv", "\n")
    data = BP4D(tmp_path, task="au_intensity")
    np.testing.assert_array_equal(data.index["AU06"], [5, 0])
    assert data.index["AU12"].isna().all() and data.report.dropped == {}
    assert data.report.noted["sequence whose label file is empty, skipped"] == 1
