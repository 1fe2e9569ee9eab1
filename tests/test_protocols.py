"""Protocols: the official lists, that nobody is ever on both sides, and how wrong or incomplete
data are told."""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norface_lib.common.errors import DataError
from norface_lib.datasets import official_splits
from norface_lib.datasets.protocols import (
    SUBJECT_SPLITS,
    SUBJECTS,
    missing_subjects,
    protocol,
    shared_labels,
    subject_folds,
)

few = settings(max_examples=12)


def index_of(subjects, **columns):
    return pd.DataFrame({"subject": list(subjects), **columns})


def complete(dataset, frames=2):
    """An index of all official subjects, shuffled, a few rows each."""
    return index_of(np.random.default_rng(0).permutation(sorted(SUBJECTS[dataset]) * frames))


def subjects_of(index, rows):
    return set(index["subject"].iloc[rows])


# --- the official lists ---------------------------------------------------------------------------


def numbered(letter, last):
    return {f"{letter}{number:03d}" for number in range(1, last + 1)}


def test_the_datasets_have_their_subjects():
    assert SUBJECTS["bp4d"] == numbered("F", 23) | numbered("M", 18)
    assert SUBJECTS["bp4d_plus"] == numbered("F", 82) | numbered("M", 58)
    absent = {f"SN{number:03d}" for number in (14, 15, 19, 20, 22)}
    assert SUBJECTS["disfa"] == numbered("SN", 32) - absent
    assert {name: len(subjects) for name, subjects in SUBJECTS.items()} == {
        "bp4d": 41,
        "bp4d_plus": 140,
        "disfa": 27,
    }


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("bp4d/3fold", [14, 14, 13]),
        ("bp4d/3fold-megraph", [13, 14, 14]),
        ("bp4d/fera2015", [20]),
        ("bp4d_plus/4fold-fmae", [35, 35, 35, 35]),
        ("bp4d_plus/3fold-bigsmall", [46, 47, 47]),
        ("disfa/3fold", [9, 9, 9]),
        ("disfa/3fold-megraph", [9, 9, 9]),
    ],
)
def test_each_list_is_disjoint_and_covers_its_dataset(name, sizes):
    everyone = SUBJECTS[name.split("/")[0]]
    splits = SUBJECT_SPLITS[name]
    assert [len(test) for _, test in splits] == sizes
    for train, test in splits:
        assert sorted(train + test) == sorted(everyone)  # each subject once
    if len(splits) > 1:
        assert sorted(sum((test for _, test in splits), ())) == sorted(everyone)


def test_the_lists_are_those_of_paper_md():
    text = (Path(official_splits.__file__).parents[1] / "PAPER.md").read_text(encoding="utf-8")
    written = re.findall(r"- (?:P\d =|\d:|test \d \(\d+\):)((?: (?:[FM]|SN)\d{3})+)", text)
    lists = (
        official_splits.BP4D_FOLDS
        + official_splits.BP4D_PLUS_FMAE_FOLDS
        + official_splits.BP4D_PLUS_BIGSMALL_FOLDS
        + official_splits.DISFA_FOLDS
    )
    assert [tuple(names.split()) for names in written] == list(lists)


def test_megraph_counts_the_folds_backwards():
    for dataset in ("bp4d", "disfa"):
        index = complete(dataset)
        ours, theirs = (
            protocol(f"{dataset}/3fold", index),
            protocol(f"{dataset}/3fold-megraph", index),
        )
        for one, other in zip(ours, theirs[::-1], strict=True):
            np.testing.assert_array_equal(one.test, other.test)
            np.testing.assert_array_equal(one.train, other.train)
        assert (
            [split.name for split in ours]
            == [split.name for split in theirs]
            == ["fold1", "fold2", "fold3"]
        )
        assert SUBJECT_SPLITS[f"{dataset}/3fold-jaa"] == SUBJECT_SPLITS[f"{dataset}/3fold"]
    assert "F001" in subjects_of(complete("bp4d"), protocol("bp4d/3fold", complete("bp4d"))[0].test)


def test_fera_trains_on_odd_numbers_and_tests_even_ones():
    index = complete("bp4d")
    (split,) = protocol("bp4d/fera2015", index)
    assert {int(name[1:]) % 2 for name in subjects_of(index, split.train)} == {1}
    assert {int(name[1:]) % 2 for name in subjects_of(index, split.test)} == {0}
    assert split.name == "fera2015"


# --- nobody on both sides -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*no row of")
@pytest.mark.parametrize("name", [*SUBJECT_SPLITS, "bp4d/5fold-seed3", "rendered/3fold-seed0"])
@few
@given(data=st.data())
def test_no_subject_is_ever_in_two_parts_and_every_row_is_tested_once(name, data):
    everyone = sorted(
        SUBJECTS.get(name.split("/")[0], {f"lab{number:04d}" for number in range(12)})
    )
    sides = sum(SUBJECT_SPLITS.get(name, ()), ())
    least = [side[0] for side in sides] or everyone[:5]  # somebody for each side
    people = least + data.draw(st.lists(st.sampled_from(everyone), max_size=50))
    index = index_of(np.random.default_rng(len(people)).permutation(people))
    splits = protocol(name, index)
    for split in splits:
        assert not subjects_of(index, split.train) & subjects_of(index, split.test)
        assert sorted([*split.train, *split.test]) == list(range(len(index)))
    if "fold" in name:
        assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(index)))


def test_folds_by_seed_are_subject_folds():
    index = index_of([f"lab{number % 7:04d}" for number in range(30)])
    for split, (train, test) in zip(
        protocol("rendered/3fold-seed5", index), subject_folds(index["subject"], 3, 5), strict=True
    ):
        np.testing.assert_array_equal(split.train, train)
        np.testing.assert_array_equal(split.test, test)
    assert (
        protocol("rendered/3fold-seed5", index)[0].test.tolist()
        != protocol("rendered/3fold-seed6", index)[0].test.tolist()
    )


def test_a_list_that_names_somebody_twice_is_found_out(monkeypatch):
    twice = {"disfa/3fold": ((("SN001", "SN002"), ("SN002", "SN003")),)}
    monkeypatch.setattr("norface_lib.datasets.protocols.SUBJECT_SPLITS", twice)
    with pytest.raises(DataError, match=r"trained on and tested 1 subject \(SN002\)"):
        protocol("disfa/3fold", complete("disfa"))


def test_all_of_one_dataset_is_no_split():
    with pytest.raises(DataError, match="trained on and tested 27 subjects"):
        protocol("disfa/all", complete("disfa"))
    photographs = pd.DataFrame({"part": ["train", "val"]})
    with pytest.raises(DataError, match="trained on and tested 2 rows"):
        protocol("affectnet/all", photographs)


# --- what is missing or unknown is told -----------------------------------------------------------


def test_missing_subjects_are_warned_of_by_count_and_name():
    index = complete("disfa")
    index = index[~index["subject"].isin(["SN004", "SN031"])]
    with pytest.warns(UserWarning, match=r"disfa: no row of 2 official subjects \(SN004, SN031\)"):
        splits = protocol("disfa/3fold", index)
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(index)))
    assert missing_subjects("disfa", index) == ("SN004", "SN031")


def test_complete_data_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in SUBJECT_SPLITS:
            protocol(name, complete(name.split("/")[0]))
    assert missing_subjects("rendered", index_of(["lab0000"])) == ()


@pytest.mark.parametrize("name", ["bp4d/3fold", "bp4d/fera2015", "bp4d/3fold-seed0"])
def test_unknown_subjects_are_refused_by_count_and_name(name):
    index = pd.concat([complete("bp4d"), index_of(["F024", "f001", "F024"])])
    with pytest.raises(DataError, match=r"2 subjects \(F024, f001\) not among the 41 of bp4d"):
        protocol(name, index)


@pytest.mark.filterwarnings("ignore:.*no row of")
@pytest.mark.parametrize(
    ("name", "index", "words"),
    [
        (
            "bp4d/4fold",
            complete("bp4d"),
            r"no protocol bp4d/4fold; known are bp4d/3fold, .*bp4d/fera2015, bp4d/3fold-seed0",
        ),
        ("rafdb/3fold", index_of([]), "no protocol rafdb/3fold; known are rafdb/official"),
        ("bp5d/3fold", complete("bp4d"), "no dataset 'bp5d'; known are bp4d, bp4d_plus, disfa"),
        ("bp4d", complete("bp4d"), "no protocol bp4d/;"),
        (
            "bp4d/3fold",
            index_of(["F001"]),
            r"bp4d/3fold \(fold1\): no row to train on; bp4d/3fold-seed0 makes folds",
        ),
        ("bp4d/3fold", index_of(["F001", None, ""]), "2 of 3 rows have no subject"),
        ("bp4d/3fold", pd.DataFrame({"path": ["a"]}), "lacks the column subject; it has path"),
        ("rendered/3fold-seed0", index_of(["a", "b"]), "at least as many subjects"),
        (
            "affectnet/official",
            pd.DataFrame({"part": ["train", "validation", "x"]}),
            r"2 values \(validation, x\) .*train and val",
        ),
        ("affectnet/official", pd.DataFrame({"part": ["train"]}), "no row to test"),
        ("rafdb/official", pd.DataFrame({"part": ["train", None]}), "1 of 2 rows have no part"),
        ("bp4d->disfa/3fold", complete("bp4d"), "second index is needed"),
    ],
)
def test_wrong_names_and_wrong_data_are_refused(name, index, words):
    with pytest.raises(DataError, match=words):
        protocol(name, index)


def test_a_second_index_without_a_second_dataset_is_refused():
    with pytest.raises(DataError, match="second index"):
        protocol("bp4d/3fold", complete("bp4d"), complete("disfa"))


# --- parts, and across datasets -------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "tested"), [("affectnet", "val"), ("rafdb", "test")])
def test_photographs_follow_their_part(dataset, tested):
    index = pd.DataFrame({"part": ["train", tested, "train"]})
    (split,) = protocol(f"{dataset}/official", index)
    assert (split.name, split.train.tolist(), split.test.tolist()) == ("official", [0, 2], [1])


def test_a_person_in_both_parts_is_found_out():
    index = index_of(["a", "b", "a"], part=["train", "train", "test"])
    with pytest.raises(DataError, match=r"1 subject \(a\)"):
        protocol("rafdb/official", index)


@pytest.mark.parametrize(("source", "target"), [("bp4d", "disfa"), ("disfa", "bp4d")])
def test_across_datasets_each_fold_meets_the_fold_of_its_number(source, target):
    trained, tested = complete(source), complete(target, frames=3)
    across = protocol(f"{source}->{target}/3fold", trained, tested)
    for split, ours, theirs in zip(
        across,
        protocol(f"{source}/3fold", trained),
        protocol(f"{target}/3fold", tested),
        strict=True,
    ):
        np.testing.assert_array_equal(split.train, ours.train)
        np.testing.assert_array_equal(split.test, theirs.test)


def test_all_of_bp4d_is_tested_on_all_of_bp4d_plus():
    """F001 of the one is not F001 of the other."""
    (split,) = protocol("bp4d->bp4d_plus/all", complete("bp4d"), complete("bp4d_plus"))
    assert (len(split.train), len(split.test), split.name) == (2 * 41, 2 * 140, "all")


def test_photographs_across_datasets():
    affectnet = pd.DataFrame({"part": ["val", "train", "train"]})
    rafdb = pd.DataFrame({"part": ["test", "train"]})
    (split,) = protocol("affectnet->rafdb/official", affectnet, rafdb)
    assert (split.train.tolist(), split.test.tolist()) == ([1, 2], [0])


def test_two_indexes_of_one_dataset_may_not_share_a_person():
    lab, wild = index_of(["lab0000", "lab0001"]), index_of(["wild0000"])
    assert len(protocol("rendered->rendered/all", lab, wild)) == 1
    with pytest.raises(DataError, match=r"1 subject \(lab0001\)"):
        protocol("rendered->rendered/all", lab, index_of(["lab0001"]))


@pytest.mark.parametrize(
    ("source", "target", "task", "labels", "ours", "theirs"),
    [
        # FG-Net's positions
        ("bp4d", "disfa", "au_detection", (1, 2, 4, 6, 12), [0, 1, 2, 3, 6], [0, 1, 2, 3, 5]),
        ("disfa", "bp4d", "au_detection", (1, 2, 4, 6, 12), [0, 1, 2, 3, 5], [0, 1, 2, 3, 6]),
        (
            "bp4d",
            "bp4d_plus",
            "au_detection",
            (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24),
            range(12),
            range(12),
        ),
        ("bp4d", "disfa", "au_intensity", (6, 12, 17), [0, 2, 4], [4, 6, 8]),
    ],
)
def test_shared_aus_are_the_published_ones(source, target, task, labels, ours, theirs):
    shared = shared_labels(source, target, task)
    assert shared.labels == labels
    np.testing.assert_array_equal(shared.source, ours)
    np.testing.assert_array_equal(shared.target, theirs)


def test_shared_emotions_are_the_published_ones():
    shared = shared_labels("rafdb", "affectnet", "emotion")
    codes = {
        int(ours) + 1: int(theirs)
        for ours, theirs in zip(shared.source, shared.target, strict=True)
    }
    assert codes == {1: 3, 2: 4, 3: 5, 4: 1, 5: 2, 6: 6, 7: 0}  # PAPER.md 2.6
    back = shared_labels("affectnet", "rafdb", "emotion")
    assert len(back.labels) == 7 and "contempt" not in back.labels


@pytest.mark.parametrize(
    ("source", "target", "task"), [("bp4d", "rafdb", "emotion"), ("bp4d", "disfa", "occurrence")]
)
def test_datasets_without_labels_of_a_task_are_refused(source, target, task):
    with pytest.raises(
        DataError, match=r"no labels of the task .*detection: bp4d, bp4d_plus, disfa"
    ):
        shared_labels(source, target, task)
