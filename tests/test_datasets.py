"""Rendered benchmark, image folders, protocols, crops: what they read, and how they refuse what is
wrong."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.image_folder import FolderFaces
from norface_lib.datasets.label_table import expression_columns, read_labels
from norface_lib.datasets.protocols import subject_folds
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import to_tensor, to_uint8
from norface_lib.images.crop import LONDON_CROP, NORFACE_CROP, crop_of
from norface_lib.images.files import read_face, read_faces


@pytest.fixture
def copy(tiny_benchmark, tmp_path):
    """A copy of the tiny benchmark that a test may damage."""
    return shutil.copytree(tiny_benchmark, tmp_path / "copy")


def change_table(root, change):
    table = pd.read_csv(root / "labels.csv")
    change(table).to_csv(root / "labels.csv", index=False)


def test_rendered_is_read_in_the_order_of_its_table(tiny_benchmark, tiny_spec):
    data = Rendered(tiny_benchmark)
    count = tiny_spec.subjects * tiny_spec.frames
    assert data.originals.shape == data.truths.shape == (count, 112, 112, 3)
    assert data.occurrences().shape == (count, 12)
    np.testing.assert_array_equal(
        data.originals[-1], read_face(tiny_benchmark / data.table["image"].iloc[-1], 112)
    )
    np.testing.assert_array_equal(data.occurrences()[:, 6], (data.table["AU12"] >= 1).astype(float))
    half = data.select(np.arange(count) % 2 == 0)
    assert len(half) == len(half.truths) == count // 2
    np.testing.assert_array_equal(half.subjects, data.subjects[::2])


def test_rows_may_be_selected_before_or_after_faces_are_read(tiny_benchmark, tmp_path):
    unread = Rendered(tiny_benchmark).select([5, 2])
    read = Rendered(tiny_benchmark)
    assert len(read.originals) == len(read.truths) == len(read.table)
    read = read.select([5, 2])
    for name in ("originals", "truths"):
        np.testing.assert_array_equal(getattr(read, name), getattr(unread, name))
    pd.testing.assert_frame_equal(read.table, unread.table)
    np.testing.assert_array_equal(unread.occurrences(), unread.values())
    saved = Rendered(tiny_benchmark, index=unread.save_index(tmp_path / "index.csv"))
    pd.testing.assert_frame_equal(saved.table, unread.table)
    np.testing.assert_array_equal(saved.truths, unread.truths)


def test_the_table_has_the_simulated_errors_that_items_have(tiny_benchmark):
    exact = Rendered(tiny_benchmark)
    coded = Rendered(tiny_benchmark, coder_errors=0.3)
    np.testing.assert_array_equal(coded.occurrences(), coded.values())
    assert (coded.values() != exact.values()).any()


def test_a_table_without_true_images_has_none(copy):
    change_table(copy, lambda table: table.drop(columns="truth"))
    assert Rendered(copy).truths is None and Rendered(copy).originals.any()


def test_expression_codes_swap_sides_when_mirrored(tiny_benchmark):
    codes, names, mirrored = Rendered(tiny_benchmark).expression_codes()
    assert codes.min() >= 0 and codes.max() <= 1
    assert names[mirrored[names.index("AU12L")]] == "AU12R"
    assert names[mirrored[names.index("AU17")]] == "AU17"
    np.testing.assert_array_equal(mirrored[mirrored], np.arange(len(names)))
    assert "AU12" not in names  # the maximum of the sides says nothing more


def test_columns_without_sides_stand_for_themselves():
    assert expression_columns(
        pd.DataFrame(columns=["subject", "AU01", "AU12", "AU12L", "AU12R"])
    ) == ("AU01", "AU12L", "AU12R")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="AU12"), "lacks the column.*AU12"),
        (lambda t: t.drop(columns="subject"), "lacks the column.*subject"),
        (lambda t: t.assign(AU99=1.0), "unknown AU column.*AU99"),
        (lambda t: t.assign(AU12=7.0), "line 2, AU12.*no intensity"),
        (lambda t: t.assign(AU04=np.nan), "line 2, AU04"),
        (lambda t: t.assign(AU04="much"), "line 2, AU04"),
        (lambda t: t.iloc[:0], "holds no row"),
    ],
)
def test_a_wrong_label_table_is_refused_with_its_name(copy, change, words):
    change_table(copy, change)
    with pytest.raises(DataError, match=words) as error:
        read_labels(copy)
    assert "labels.csv" in str(error.value)


def test_missing_parts_of_a_benchmark_are_named(copy):
    (copy / "truth/lab0001/0002.png").unlink()
    with pytest.raises(DataError, match=r"0002\.png: no such file"):
        _ = Rendered(copy).truths
    (copy / "benchmark.json").write_text("{")
    with pytest.raises(DataError, match=r"benchmark\.json: missing or damaged"):
        _ = Rendered(copy).originals
    with pytest.raises(DataError, match="no label table"):
        Rendered(copy / "images")


def test_a_truncated_image_is_refused_with_its_name(copy):
    path = copy / "images/lab0000/0001.jpg"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"0001\.jpg: not a readable image"):
        _ = Rendered(copy).originals


@pytest.mark.parametrize("shape", [(112, 150, 3), (20, 20, 3)])
def test_an_image_that_is_no_face_crop_is_refused(tmp_path, shape):
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=r"wide\.png: \d+ x \d+ px is no face crop"):
        read_faces([tmp_path / "wide.png"], 112)


def test_color_order_is_rgb(tmp_path):
    red = np.zeros((112, 112, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    assert read_face(tmp_path / "red.png", 112)[0, 0].tolist() == [255, 0, 0]


def test_tensors_and_images_are_inverse(tiny_benchmark):
    faces = Rendered(tiny_benchmark).originals
    np.testing.assert_array_equal(to_uint8(to_tensor(faces)), faces)
    assert to_tensor(faces[0]).shape == (1, 3, 112, 112)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        FolderFaces(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        FolderFaces(tmp_path / "nowhere")


def test_another_crop_is_carried_over_to_ours(tmp_path):
    """A dot on each of the five points of a London frame ends on the five points of our crop."""
    image = np.zeros((512, 512, 3), np.uint8)
    for x, y in LONDON_CROP.pixels(512):
        cv2.circle(image, (round(x), round(y)), 6, (255, 255, 255), -1)
    (tmp_path / "london").mkdir()
    cv2.imwrite(str(tmp_path / "london/a.png"), image)
    face = read_face(tmp_path / "london/a.png", 224, crop_of(tmp_path / "london"))
    face = face.astype(float).mean(-1)
    eyes = NORFACE_CROP.pixels(224)[:2].round().astype(int)
    assert all(face[y - 3 : y + 4, x - 3 : x + 4].max() > 150 for x, y in eyes)
    assert face[: eyes[0, 1] - 25].max() < 20


def test_crop_json_says_how_a_folder_is_framed(tmp_path):
    assert crop_of(tmp_path) == NORFACE_CROP
    (tmp_path / "crop.json").write_text(json.dumps({"points": LONDON_CROP.points}))
    assert crop_of(tmp_path).points == LONDON_CROP.points
    for wrong in ('{"points": [[0.1, 0.2]]}', "{}", "no json"):
        (tmp_path / "crop.json").write_text(wrong)
        with pytest.raises(DataError, match=r"crop\.json"):
            crop_of(tmp_path)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(2, 5), st.integers(0, 9))
def test_no_subject_is_ever_in_two_parts(people, folds, seed):
    subjects = np.array([f"S{number:03d}" for number in people])
    if len(set(people)) < folds:
        with pytest.raises(ValueError, match="at least as many subjects"):
            subject_folds(subjects, folds, seed)
        return
    parts = subject_folds(subjects, folds, seed)
    assert sorted(np.concatenate([test for _, test in parts])) == list(range(len(subjects)))
    for train, test in parts:
        assert len(train) + len(test) == len(subjects)
        assert not set(subjects[train]) & set(subjects[test])


def test_occurrence_starts_at_intensity_a(tiny_benchmark):
    data = Rendered(tiny_benchmark)
    column = data.table.columns.get_loc("AU12")
    # tables hold six digits
    for value, occurs in ((0.0, 0), (0.999999, 1), (0.9, 0), (1.0, 1), (5.0, 1)):
        data.table.iloc[0, column] = value
        assert data.occurrences()[0, labels.BP4D_AUS.index(12)] == occurs
