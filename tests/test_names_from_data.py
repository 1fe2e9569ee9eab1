"""No name that a file holds leads out of its folder: tables, zips, cards, manifests."""

import csv
import json
import os
import shutil

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from norface_lib.common.errors import DataError
from norface_lib.common.paths import inside, leaves_folder, plain_name
from norface_lib.datasets.image_folder import FolderFaces
from norface_lib.datasets.joined import join_benchmarks
from norface_lib.datasets.label_table import read_labels, read_spec
from norface_lib.datasets.normalized import MANIFEST, load_pairs, mirror_of, normalize_dataset
from norface_lib.datasets.rendered import Rendered
from norface_lib.networks.weights import target_names
from norface_lib.photos.detection import WholeImage
from norface_lib.photos.folders import align_tree
from norface_lib.photos.journal import JOURNAL

LEAVING = (
    *("../x.png", "a/../../x.png", "/x.png", "C:\\x.png", "..\\x.png", "a\\..\\..\\x.png"),
    *("", ".", "..", "a/..", "a\0.png", "\\\\host\\x.png"),
)
STAYING = ("x.png", "a/b.png", "./a.png", "a..b/c...png", "..a/b..", "2D+3D/F001.zip", "a b/ä.png")


@pytest.mark.parametrize("name", LEAVING)
def test_a_name_that_leaves_its_folder_is_refused(tmp_path, name):
    assert leaves_folder(name)
    with pytest.raises(DataError, match="leads out of this folder"):
        inside(tmp_path, name)
    with pytest.raises(DataError, match=r"card\.json: .* cannot be a part of a file name"):
        plain_name(name, "card.json")


@pytest.mark.parametrize("name", STAYING)
def test_a_name_inside_its_folder_is_taken_as_it_is(tmp_path, name):
    assert inside(tmp_path, name) == inside(tmp_path, name, writes=True) == tmp_path / name


@given(st.text(alphabet="./\\aC:\0 ", max_size=12))
def test_no_name_that_is_taken_leads_out(name):
    if not leaves_folder(name):
        folder = inside("/root/folder", name)
        windows = inside("/root/folder", name.replace("\\", "/"))
        for path in (folder, windows):
            assert ".." not in path.parts and path.parts[:3] == ("/", "root", "folder")


def test_links_are_followed_for_reading_and_not_for_writing(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/a.txt").write_text("there")
    assert inside(folder, "link/a.txt").read_text() == "there"
    with pytest.raises(DataError, match="through a link"):
        inside(folder, "link/a.txt", writes=True)


@pytest.mark.parametrize(
    "path",
    [
        *("../x.jpg", "/x.jpg", "F001.zip!../../x.jpg", "F001.zip!/x.jpg", "../F001.zip!x.jpg"),
        *("../F001.mp4#3", "/F001.mp4#3", "a\\..\\..\\x.jpg"),
    ],
)
def test_no_mirror_leaves_the_tree(path):
    with pytest.raises(DataError, match="leads out of this folder"):
        mirror_of(path)


def test_a_table_whose_names_leave_the_benchmark_is_refused(tiny_benchmark, tmp_path):
    for number, (column, name) in enumerate(
        [("image", "../../x.jpg"), ("truth", "/x.png"), ("image", float("nan"))]
    ):
        copy = shutil.copytree(tiny_benchmark, tmp_path / str(number))
        table = pd.read_csv(copy / "labels.csv")
        table.loc[2, column] = name
        table.to_csv(copy / "labels.csv", index=False)
        with pytest.raises(DataError, match=rf"labels\.csv: line 4, {column}: .* no path inside"):
            read_labels(copy)
        with pytest.raises(DataError, match="no path inside"):
            join_benchmarks([tiny_benchmark, copy], tmp_path / "out/joined")
    assert not (tmp_path / "out").exists()


def test_benchmarks_without_true_images_are_not_joined(tiny_benchmark, tmp_path):
    copy = shutil.copytree(tiny_benchmark, tmp_path / "copy")
    table = pd.read_csv(copy / "labels.csv").drop(columns="truth")
    table.to_csv(copy / "labels.csv", index=False)
    with pytest.raises(DataError, match="names no true normalized image"):
        join_benchmarks([copy, tiny_benchmark], tmp_path / "joined")


@pytest.mark.parametrize("target", ["../../evil", "noor+../evil", "a/b", "noor+", ".."])
def test_targets_are_names_and_no_paths(tmp_path, target):
    (tmp_path / "benchmark.json").write_text(json.dumps({"size": 112, "target": target}))
    with pytest.raises(DataError, match="cannot be a part of a file name"):
        read_spec(tmp_path)
    with pytest.raises(DataError, match="cannot be a part of a file name"):
        target_names({"data": {"target": target}})


@pytest.mark.parametrize("content", ["[]", "3", '{"size": 112}', '{"size": "x", "target": "a"}'])
def test_a_damaged_specification_is_refused(tmp_path, content):
    (tmp_path / "benchmark.json").write_text(content)
    with pytest.raises(DataError, match=r"benchmark\.json: missing or damaged"):
        read_spec(tmp_path)


def test_a_specification_without_a_seed_has_seed_0(tmp_path):
    spec = {"size": 112, "target": "noor", "pool": "photographs"}
    (tmp_path / "benchmark.json").write_text(json.dumps(spec))
    assert read_spec(tmp_path) == spec | {"seed": 0}


def test_a_manifest_whose_names_leave_the_folder_is_refused(tiny_benchmark, tmp_path):
    root = tmp_path / "faces"
    shutil.copytree(tiny_benchmark / "images", root)
    data = FolderFaces(root).select([0, 1])
    normalize_dataset(data, tmp_path / "out", progress=False)
    folder = tmp_path / "out/noor"
    lines = list(csv.reader((folder / MANIFEST).read_text().splitlines()))
    lines[2][2] = "../../secret.png"
    with (folder / MANIFEST).open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    with pytest.raises(DataError, match="leads out of this folder"):
        load_pairs(data, folder, 112)
    with pytest.raises(DataError, match="leads out of this folder"):
        normalize_dataset(data, tmp_path / "out", progress=False)


def test_a_journal_whose_names_leave_the_folder_deletes_nothing(tiny_benchmark, tmp_path):
    source = shutil.copytree(tiny_benchmark / "images/lab0000", tmp_path / "source")
    out = tmp_path / "out"
    align_tree(source, out, WholeImage(), progress=False)
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")
    text = (out / JOURNAL).read_text()
    (out / JOURNAL).write_text(text.replace('"output": "0000.png"', '"output": "../precious.txt"'))
    assert "precious" in (out / JOURNAL).read_text()
    os.utime(source / "0000.jpg", (1, 1))  # an image that has changed: its crop is made anew
    with pytest.raises(DataError, match="leads out of this folder"):
        align_tree(source, out, WholeImage(), progress=False)
    assert precious.read_text() == "kept"


def test_a_table_of_truths_may_not_lead_out(tiny_benchmark, tmp_path):
    data = Rendered(tiny_benchmark)
    index = data.index.assign(truth="../../secret.png")
    with pytest.raises(DataError, match="leads out of this folder"):
        _ = Rendered(tiny_benchmark, index=index).truths
