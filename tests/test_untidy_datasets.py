"""Datasets as nobody has cleaned them: frames counted in another way, folders of other names,
links, zips that lie, and label files that people have edited."""

import io
import os
import shutil
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from test_loaders import (
    affectnet,
    bp4d,
    disfa,
    encoded,
    listed,
    number_of,
    occurrence,
    put,
    put_video,
)
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.common.tree import walk_tree
from norface_lib.datasets import frames as frames_module
from norface_lib.datasets.affectnet import AffectNet
from norface_lib.datasets.bp4d import BP4D
from norface_lib.datasets.bp4d_plus import BP4DPlus
from norface_lib.datasets.disfa import DISFA
from norface_lib.datasets.image_folder import FolderFaces
from norface_lib.datasets.index import load_index
from norface_lib.datasets.normalized import mirror_of
from norface_lib.datasets.rafdb import RAFDB
from norface_lib.datasets.rendered import Rendered
from norface_lib.datasets.text_tables import match_names, read_named
from norface_lib.images.files import list_images

EIGHT = (1, 2, 4, 6, 9, 12, 25, 26)


def disfa_images(root, subject, numbers, labels, first_label=1):
    """A subject of DISFA whose images tell their number and whose AU1 is ``labels``."""
    for au in EIGHT:
        values = labels if au == 1 else [0] * len(labels)
        text = "\n".join(f"{n},{value}" for n, value in enumerate(values, start=first_label))
        put(root / f"ActionUnit_Labels/{subject}/{subject}_au{au}.txt", text)
    for number in numbers:
        put(root / f"{subject}/{number}.png", encoded(number, ".png"))
    return root


def labels_of(data, column="AU01"):
    """Label of each image, by the number that the image tells."""
    values = data.index[column]
    return {number_of(item["image"]): value for item, value in zip(data, values, strict=True)}


# --- counting -------------------------------------------------------------------------------------


def test_disfa_that_lost_its_first_image_is_read_by_the_other_subjects(tmp_path):
    disfa_images(tmp_path, "SN001", range(4), [0, 0, 5, 0])
    disfa_images(tmp_path, "SN002", range(1, 4), [0, 0, 5, 0])
    data = DISFA(tmp_path)
    of_second = data.select(data.index["subject"] == "SN002")
    assert labels_of(of_second) == {1: 0, 2: 1, 3: 0}
    assert data.report.dropped == {"label row without an image": 1}
    assert data.report.counting == [
        "camera: told by no folder of images, taken for left",
        "label rows count from 1: no label row has the number 0",
        "images count from 0: SN001 has an image 0",
    ]


def test_disfa_of_which_all_lost_their_first_or_last_image_is_refused(tmp_path):
    disfa_images(tmp_path, "SN001", range(1, 4), [0, 0, 5, 0])
    with pytest.raises(DataError, match=r"may count from 0 or from 1 \(.*SN001 end at 3 for 4"):
        DISFA(tmp_path)
    assert labels_of(DISFA(tmp_path, first_frame=0)) == {1: 0, 2: 1, 3: 0}
    assert labels_of(DISFA(tmp_path, first_frame=1)) == {1: 0, 2: 0, 3: 1}


def test_disfa_whose_subjects_count_in_two_ways_is_refused(tmp_path):
    disfa_images(tmp_path, "SN001", range(4), [0] * 4)
    disfa_images(tmp_path, "SN002", range(1, 5), [0] * 4)
    with pytest.raises(DataError, match="SN001 has an image 0, and SN002 none but its last"):
        DISFA(tmp_path)


@pytest.mark.parametrize("numbers", [range(4), range(1, 5)])
def test_disfa_whose_labels_count_from_0_is_read_right(tmp_path, numbers):
    disfa_images(tmp_path, "SN001", numbers, [0, 0, 5, 0], first_label=0)
    data = DISFA(tmp_path)
    assert labels_of(data) == {numbers[0]: 0, numbers[1]: 0, numbers[2]: 1, numbers[3]: 0}
    assert "label rows count from 0: SN001_au1.txt has a label row 0" in data.report.counting


def test_labels_from_0_fit_the_frames_of_a_video(tmp_path):
    disfa_images(tmp_path, "SN001", (), [0, 0, 5, 0], first_label=0)
    put_video(tmp_path / "LeftVideoSN001_comp.avi", range(4))
    data = DISFA(tmp_path)
    assert labels_of(data) == {0: 0, 1: 0, 2: 1, 3: 0} and data.report.dropped == {}
    assert "label rows count from 0" in str(data.report)


def test_label_files_that_count_in_two_ways_are_refused(tmp_path):
    disfa_images(tmp_path, "SN001", range(4), [0] * 4)
    disfa_images(tmp_path, "SN002", range(4), [0] * 4, first_label=0)
    with pytest.raises(DataError, match=r"from 0 in SN002_au\d+\.txt and from 1 in SN001_au\d+"):
        DISFA(tmp_path)
    assert len(DISFA(tmp_path, first_label=1)) == 7


@pytest.mark.parametrize("cls", [BP4D, BP4DPlus])
def test_videos_of_bp4d_are_counted_as_their_labels_say(tmp_path, cls):
    put(tmp_path / "AUCoding/AU_OCC/F001_T1.csv", occurrence({n: {1: n == 2} for n in range(4)}))
    put_video(tmp_path / "F001_T1.mp4", range(4))
    assert labels_of(cls(tmp_path)) == {0: 0, 1: 0, 2: 1, 3: 0}
    assert "from 0: F001/T1 has a label row 0" in cls(tmp_path).report.counting[0]
    assert labels_of(cls(tmp_path, first_label=1)) == {0: 0, 1: 1, 2: 0}
    put(tmp_path / "AUCoding/AU_OCC/F002_T1.csv", occurrence({4: {}}))
    put_video(tmp_path / "F002_T1.mp4", range(4))
    with pytest.raises(DataError, match="from 0 in F001/T1 and from 1 in F002/T1"):
        cls(tmp_path)


def test_the_command_inspect_takes_the_counting(tmp_path):
    disfa_images(tmp_path, "SN001", range(1, 4), [0, 0, 5, 0])
    run = CliRunner().invoke
    assert run(app, ["inspect", "disfa", str(tmp_path)]).exit_code != 0
    result = run(app, ["inspect", "disfa", str(tmp_path), "--option", "first_frame=0"])
    assert result.exit_code == 0 and "images count from 0: as was asked for" in result.output


def test_a_wrong_counting_is_refused(tmp_path):
    with pytest.raises(ValueError, match="first_frame must be 0, 1, or None"):
        DISFA(tmp_path, first_frame=2)


def test_class_folders_that_count_in_another_way_are_refused(tmp_path):
    for label in range(7):
        put(tmp_path / f"rafdb/train/{label}/train_{label}.jpg", encoded(0))
        put(tmp_path / f"affectnet/train/{label + 1}/{label}.jpg", encoded(0))
    with pytest.raises(DataError, match="its labels count from 0"):
        RAFDB(tmp_path / "rafdb")
    with pytest.raises(DataError, match=r"have no 0 .* go up to 7, as if they counted from 1"):
        AffectNet(tmp_path / "affectnet")
    put(tmp_path / "list/EmoLabel/list_patition_label.txt", "train_1.jpg 0\ntest_1.jpg 6\n")
    with pytest.raises(DataError, match="its labels count from 0"):
        RAFDB(tmp_path / "list")


# --- names of folders -----------------------------------------------------------------------------


@pytest.mark.parametrize("val", ["val", "VAL", "valid", "Validation"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_folders_of_affectnet_are_found_by_their_usual_names(tmp_path, train, val):
    put(tmp_path / train / "0/a.jpg", encoded(0))
    put(tmp_path / val / "1/a.jpg", encoded(1))
    data = AffectNet(tmp_path)
    assert data.index["part"].tolist() == ["train", "val"] and data.report.unused == {}
    np.save(put(tmp_path / f"new/{train}_set/annotations/0_exp.npy"), np.array(3))
    put(tmp_path / f"new/{train}_set/images/0.jpg", encoded(0))
    assert len(AffectNet(tmp_path / "new")) == 1


def test_folders_of_rafdb_are_read_or_named(tmp_path):
    put(tmp_path / "Training/1/a.jpg", encoded(0))
    put(tmp_path / "Test/7/b.jpg", encoded(1))
    for number in range(3):
        put(tmp_path / f"valid/1/{number}.jpg", encoded(2))
    data = RAFDB(tmp_path)
    assert data.index["part"].tolist() == ["train", "test"]
    assert data.report.unused == {"image in valid/": 3}
    assert "not used:\n          3  image in valid/ (valid/1/0.jpg;" in str(data.report)


def test_images_of_one_name_in_two_folders_are_two_people(tmp_path):
    for label in range(3):
        for part in ("train", "val"):
            put(tmp_path / f"{part}/{label}/0001.jpg", encoded(label))
    assert AffectNet(tmp_path).index["subject"].nunique() == 6


def test_names_that_differ_in_their_case_are_two_images(tmp_path):
    put(tmp_path / "train/0/a.jpg", encoded(1))
    put(tmp_path / "train/0/A.jpg", encoded(2))
    if len(os.listdir(tmp_path / "train/0")) == 1:
        pytest.skip("this file system does not tell cases apart")
    data = AffectNet(tmp_path)
    assert {item["path"]: number_of(item["image"]) for item in data} == {
        "train/0/A.jpg": 2,
        "train/0/a.jpg": 1,
    }
    rows = [listed("a.jpg", 0), listed("A.jpg", 3)]
    affectnet(tmp_path / "old", rows)
    assert AffectNet(tmp_path / "old").index["path"].str.endswith("/A.jpg").tolist() == [
        False,
        True,
    ]


def test_files_that_no_rule_uses_are_counted_by_kind(tmp_path):
    bp4d(tmp_path)
    for name in ("notes.txt", "F009.zip.part", "2D+3D/F001/T1/cover.jpg", "extra/a.mp4", "README"):
        put(tmp_path / name)
    put(tmp_path / ".hidden/a.jpg")
    data = BP4D(tmp_path)
    assert data.report.unused == {
        "file without a suffix": 1,
        ".part file": 1,
        ".txt file": 1,
        "image in 2D+3D/": 1,
        "video": 1,
    }
    assert data.report.noted == {} and "2D+3D/F001/T1/cover.jpg" in str(data.report)


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="all folders can be listed"
)
def test_a_folder_that_cannot_be_listed_is_noted(tmp_path):
    put(bp4d(tmp_path) / "locked/a.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        assert BP4D(tmp_path).report.noted == {"folder that cannot be listed": 2}
    finally:
        (tmp_path / "locked").chmod(0o755)


# --- links ----------------------------------------------------------------------------------------


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    put(tmp_path / "elsewhere/deep/a.jpg", encoded(1))
    put(tmp_path / "root/here/b.jpg", encoded(2))
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/here/up").symlink_to(tmp_path / "root")
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/again").symlink_to(tmp_path / "root/here")
    (tmp_path / "root/gone").symlink_to(tmp_path / "nowhere")
    images = [path.relative_to(tmp_path / "root") for path in list_images(tmp_path / "root")]
    assert [path.as_posix() for path in images] == ["here/b.jpg", "link/deep/a.jpg"]
    assert len(FolderFaces(tmp_path / "root")) == 2
    assert sum(len(folder.files) for folder in walk_tree(tmp_path / "root")) == 3


def test_linked_frames_of_bp4d_are_read_and_none_is_left_over(tmp_path):
    root = tmp_path / "root"
    put(root / "AUCoding/AU_OCC/F001_T1.csv", occurrence({1: {}}))
    put(root / "AUCoding/AU_OCC/F002_T1.csv", occurrence({2: {}}))
    put(tmp_path / "disk/frames/F001/T1/1.jpg", encoded(1))
    put(root / "pool/second/2.jpg", encoded(2))
    (root / "Sequences").symlink_to(tmp_path / "disk/frames")
    (root / "2D/F002").mkdir(parents=True)
    (root / "2D/F002/T1").symlink_to(root / "pool/second")
    data = BP4D(root)
    assert [number_of(item["image"]) for item in data] == [1, 2]
    assert data.report.noted == data.report.unused == {}


# --- zips -----------------------------------------------------------------------------------------


def zipped(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def test_entries_that_lead_out_of_a_zip_are_dropped(tmp_path):
    put(tmp_path / "AUCoding/AU_OCC/F001_T1.csv", occurrence({1: {}, 2: {}, 3: {}, 4: {}}))
    names = ("T1/1.jpg", "../../x/T1/2.jpg", "/T1/3.jpg", "C:/T1/4.jpg")
    zipped(tmp_path / "F001.zip", {name: encoded(1) for name in names})
    data = BP4DPlus(tmp_path)
    assert data.index["path"].tolist() == ["F001.zip!T1/1.jpg"]
    assert data.report.dropped["entry of a zip whose name leads out of it"] == 3
    assert all(".." not in mirror_of(path).parts for path in data.index["path"])


def test_an_index_whose_paths_lead_out_is_refused(tmp_path):
    index = BP4D(bp4d(tmp_path)).index
    for path in ("../x.jpg", "F001.zip!../x.jpg", "/etc/passwd", "F001.zip!/x.jpg"):
        with pytest.raises(DataError, match="leads out of the dataset"):
            load_index(index.assign(path=path), BP4D(tmp_path).labels)


def test_an_image_that_is_too_large_is_unreadable_and_read_by_no_more_than_its_limit(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(frames_module, "LARGEST_IMAGE", 10_000)
    put(tmp_path / "AUCoding/AU_OCC/F001_T1.csv", occurrence({1: {}, 2: {}}))
    zipped(tmp_path / "F001.zip", {"T1/1.jpg": bytes(5_000_000), "T1/2.jpg": encoded(2)})
    data = BP4DPlus(tmp_path)
    with pytest.raises(DataError, match=r"F001\.zip!T1/1\.jpg: unreadable frame \(more than"):
        data[0]
    assert data.check(progress=False).dropped == {"unreadable frame": 1} and len(data) == 1
    put(tmp_path / "images/1.jpg", bytes(20_000))
    with pytest.raises(DataError, match="too large for an image"):
        FolderFaces(tmp_path / "images")[0]


def test_a_zip_with_a_password_or_of_an_unknown_method_costs_its_frames(tmp_path):
    put(tmp_path / "AUCoding/AU_OCC/F001_T1.csv", occurrence({1: {}, 2: {}}))
    content = bytearray(
        zipped(tmp_path / "F001.zip", {"T1/1.jpg": b"", "T1/2.jpg": encoded(2)}).read_bytes()
    )
    first = content.find(b"PK\1\2")
    content[first + 8] |= 1  # encrypted
    (tmp_path / "F001.zip").write_bytes(content)
    data = BP4DPlus(tmp_path)
    assert data.check(progress=False).dropped == {"unreadable frame": 1}


def test_one_damaged_zip_or_video_costs_that_one(tmp_path):
    bp4d(tmp_path)
    for subject in ("F002", "F003"):
        put(tmp_path / f"AUCoding/AU_OCC/{subject}_T1.csv", occurrence({1: {}}))
    put(tmp_path / "F002.zip", b"PK no zip")
    put(tmp_path / "F003_T1.mp4", b"no video")
    data = BP4D(tmp_path)
    assert len(data) == 3
    assert data.report.dropped == {
        "zip that cannot be read": 1,
        "video that cannot be read": 1,
        "label row without an image": 2,
    }
    assert "F002.zip: not a readable zip" in str(data.report)


def test_images_in_a_zip_that_are_not_used_are_counted(tmp_path):
    put(tmp_path / "AUCoding/AU_OCC/F001_T1.csv", occurrence({1: {}}))
    names = ("T1/1.jpg", "T1/01.jpg", "T1/x.jpg", "other/1.jpg", "T1/1.obj")
    zipped(tmp_path / "F001.zip", {name: encoded(1) for name in names})
    assert BP4DPlus(tmp_path).report.unused == {"image in a zip": 3, ".obj file in a zip": 1}


# --- label files ----------------------------------------------------------------------------------


def test_one_label_file_that_cannot_be_read_costs_its_sequence(tmp_path):
    bp4d(tmp_path)
    for task, content in (
        ("T2", "0,1,2,4,6\n"),
        ("T3", ""),
        ("T4", b"\0\1\2"),
        ("T5", "a,b\nc,d\n"),
    ):
        put(tmp_path / f"AUCoding/AU_OCC/F001_{task}.csv", content)
        put(tmp_path / f"2D+3D/F001/{task}/1.jpg", encoded(1))
    data = BP4D(tmp_path)
    assert len(data) == 3 and data.report.dropped == {
        "label file that cannot be read": 2,
        "image of a sequence whose labels cannot be read": 2,
    }
    assert "F001_T4.csv: not a readable label file" in str(data.report)
    assert data.report.unused == {}


def test_one_intensity_file_that_cannot_be_read_costs_its_au(tmp_path):
    bp4d(tmp_path)
    put(tmp_path / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "1,5\n2,0\n")
    put(tmp_path / "AUCoding/AU_INT/AU12/F001_T1_AU12.csv", "frame,code\n")
    data = BP4D(tmp_path, task="au_intensity")
    assert data.index["AU06"].tolist() == [5, 0] and data.index["AU12"].isna().all()
    assert data.report.dropped == {"label file that cannot be read": 1}
    disfa(tmp_path / "disfa", {au: [0, 3] for au in EIGHT})
    put(tmp_path / "disfa/ActionUnit_Labels/SN001/SN001_au12.txt", "")
    put_video(tmp_path / "disfa/LeftVideoSN001_comp.avi", [0, 1])
    data = DISFA(tmp_path / "disfa")
    assert data.index["AU12"].isna().all() and data.index["AU01"].tolist() == [0, 1]
    assert data.report.dropped == {"label file that cannot be read": 1}


def test_a_blank_cell_is_masked_and_leaves_the_others(tmp_path):
    data = BP4D(bp4d(tmp_path, {1: {12: ""}, 2: {12: 1, 1: " "}, 3: {}}))
    assert data.index["frame"].tolist() == [1, 2, 3] and data.report.dropped == {}
    assert data.index["AU12"].isna().tolist() == [True, False, False]
    assert data.index["AU01"].isna().tolist() == [False, True, False]
    assert data.values().size - np.isnan(data.values()).sum() == 3 * 12 - 2
    assert data.report.noted == {"label that is blank, masked": 2}


def test_a_row_without_a_frame_number_costs_that_row(tmp_path):
    path = bp4d(tmp_path) / "AUCoding/AU_OCC/F001_T1.csv"
    put(path, path.read_text().replace("\n2,", "\nsecond,"))
    data = BP4D(tmp_path)
    assert data.index["frame"].tolist() == [1, 3]
    assert data.report.dropped == {"label row without a frame number": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(",", " , "),
        lambda text: text.replace("\n", ",\n"),
        lambda text: text.replace("\n", ",,,\n\n"),
        lambda text: text.split("\n")[0] + "\n" + text.split("\n", 1)[1].replace("\n", ",\n"),
        lambda text: text + ",,,,\n  \n",
        lambda text: "\n".join(
            ",".join(f'"{v}"' for v in line.split(",")) for line in text.split()
        ),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: (
            text.replace(",27\n", ",27,côté\n", 1).replace(",0\n", ",0,é\n").encode("latin-1")
        ),
    ],
)
def test_tables_are_read_however_they_were_saved(tmp_path, change):
    path = bp4d(tmp_path) / "AUCoding/AU_OCC/F001_T1.csv"
    put(path, change(path.read_text()))
    data = BP4D(tmp_path)
    assert data.index["AU12"].tolist() == [0, 1, 0]
    assert data.report.dropped == data.report.noted == {}


def test_a_column_that_is_named_twice_counts_once(tmp_path):
    path = bp4d(tmp_path) / "AUCoding/AU_OCC/F001_T1.csv"
    put(path, path.read_text().replace(",27\n", ",12\n"))
    assert BP4D(tmp_path).index["AU12"].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "line",
    [
        *("train_00001.jpg 3", "train_00001.jpg,3", "train_00001.jpg;3", "train_00001.jpg\t3.0"),
        *("train_00001_aligned.jpg 3", '"train_00001.jpg",3', "Train_00001.JPG  3,"),
        *("Image\\aligned\\train_00001_aligned.jpg 3", "basic/Image/original/train_00001.jpg 3"),
    ],
)
@pytest.mark.parametrize("aligned", [True, False])
def test_the_list_of_rafdb_is_read_however_it_was_saved(tmp_path, line, aligned):
    put(tmp_path / "EmoLabel/list_patition_label.txt", "image label\n" + line + "\n")
    put(tmp_path / "Image/aligned/train_00001_aligned.jpg", encoded(1))
    put(tmp_path / "Image/original/train_00001.jpg", encoded(2))
    data = RAFDB(tmp_path, aligned=aligned)
    assert data.index["emotion"].tolist() == [2] and number_of(data[0]["image"]) == 2 - aligned
    assert data.report.dropped == {"line that cannot be parsed": 1}


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("1;2;3;4", '"1;2;3;4"').replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("1/", "1\\"),
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("expression", " Expression "),
        lambda text: text.replace(",", " , "),
    ],
)
def test_the_lists_of_affectnet_are_read_however_they_were_saved(tmp_path, header, change):
    root = affectnet(tmp_path, [listed("1/a.jpg", 3), listed("1/b.jpg", 0)], header)
    path = root / "Manually_Annotated_file_lists/training.csv"
    put(path, change(path.read_text()))
    data = AffectNet(root)
    assert data.index["emotion"].tolist() == [3, 0] and data.report.dropped == {}


def test_lists_of_affectnet_whose_names_lead_out_name_no_image(tmp_path):
    put(tmp_path / "secret.jpg", encoded(5))
    names = ("../secret.jpg", "..\\secret.jpg", str(tmp_path / "secret.jpg"), "1/../../secret.jpg")
    affectnet(tmp_path / "root", [listed("1/a.jpg", 0)])
    path = tmp_path / "root/Manually_Annotated_file_lists/training.csv"
    rows = [",".join(map(str, listed(name, 1).values())) for name in names]
    put(path, path.read_text() + "\n".join(rows))
    data = AffectNet(tmp_path / "root")
    assert len(data) == 1 and data.report.dropped == {"listed image that is missing": 4}


def npy(value, **options):
    stream = io.BytesIO()
    np.save(stream, value, **options)
    return stream.getvalue()


def test_annotations_that_are_not_one_whole_number_are_dropped(tmp_path):
    huge = io.BytesIO()
    header = {"descr": "<i8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(huge, header)
    contents = {
        "inf": npy(np.array(np.inf)),
        "nan": npy(np.array("nan")),
        "half": npy(np.array(2.5)),
        "zip": b"PK\3\4" + bytes(100),
        "pickle": npy(np.array([{}], dtype=object), allow_pickle=True),
        "huge": huge.getvalue() + bytes(8),
        "huge header": b"\x93NUMPY\2\0\xff\xff\xff\x7f" + b"(" * 1000,
        "nested": b"\x93NUMPY\1\0\x10\x27" + b"(" * 10000,
        "two": npy(np.array([1, 2])),
        "cut": npy(np.array(1))[:-4],
        "complex": npy(np.array(1j)),
        "record": npy(np.zeros(1, [("a", int)])),
        "large": npy(np.zeros(20_000)),
        "empty": b"",
        "text": b"3\n",
    }
    for name, content in contents.items():
        put(tmp_path / f"train_set/annotations/{name}_exp.npy", content)
        put(tmp_path / f"train_set/images/{name}.jpg", encoded(0))
    for name, value in (("a", np.array(3)), ("b", np.array([b"4"])), ("c", np.array(5.0))):
        put(tmp_path / f"train_set/annotations/{name}_exp.npy", npy(value))
        put(tmp_path / f"train_set/images/{name}.jpg", encoded(0))
    data = AffectNet(tmp_path)
    assert data.index["emotion"].tolist() == [3, 4, 5]
    assert data.report.dropped == {"annotation that cannot be read": len(contents)}


def test_images_of_a_benchmark_that_its_table_does_not_list_are_counted(tiny_benchmark, tmp_path):
    assert Rendered(tiny_benchmark).report.unused == {}
    copy = shutil.copytree(tiny_benchmark, tmp_path / "copy")
    table = pd.read_csv(copy / "labels.csv")
    table.iloc[2:].to_csv(copy / "labels.csv", index=False)
    assert Rendered(copy).report.unused == {"image in images/": 2, "image in truth/": 2}


# --- tables whose rows are found by the name of a file --------------------------------------------


def test_a_table_of_names_is_read_as_people_write_it(tmp_path):
    text = (
        '\ufeff Image ; "Expression"; SUBJECT \n\n a.jpg ; Smile ;p1\n;;\n"b.jpg"; neutral;p2;;\n'
    )
    table = read_named(put(tmp_path / "labels.csv", text))
    expected = {"image": ["a.jpg", "b.jpg"], "expression": ["Smile", "neutral"]}
    pd.testing.assert_frame_equal(
        table, pd.DataFrame(expected | {"subject": ["p1", "p2"]}), check_dtype=False
    )
    with pytest.raises(DataError, match="lacks the column image; its columns are a, b"):
        read_named(put(tmp_path / "other.csv", "A,b\n1,2\n"))
    with pytest.raises(DataError, match="lacks the column image; its columns are none"):
        read_named(put(tmp_path / "empty.csv", ""))


def test_names_are_matched_exactly_or_else_by_what_they_mean():
    files = ["a/B.jpg", "a/b.jpg", "c\u0327.png"]
    assert match_names(["a/b.jpg", "A\\B.JPG", "./a/B.jpg", "\u00e7.png", "z"], files) == {
        "a/b.jpg": "a/b.jpg",
        "A\\B.JPG": "a/B.jpg",
        "./a/B.jpg": "a/B.jpg",
        "\u00e7.png": "c\u0327.png",
    }
