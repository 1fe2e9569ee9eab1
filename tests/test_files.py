"""Files are whole or absent."""

import errno
import json
import os

import numpy as np
import pandas as pd
import pytest

from norface_lib.common.files import write_atomically, write_json, write_table


def fail_halfway(part):
    """A writer that dies after its first bytes."""
    part.write_text("half")
    raise RuntimeError("disk full")


def test_it_writes_makes_folders_and_returns_the_path(tmp_path):
    path = tmp_path / "a" / "b.txt"
    assert write_atomically(path, lambda part: part.write_text("new")) == path
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_string_will_do_as_a_path(tmp_path):
    assert (
        write_atomically(str(tmp_path / "b.txt"), lambda part: part.write_text("new")).read_text()
        == "new"
    )


def test_a_failure_keeps_the_old_file_and_leaves_no_part(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(path, fail_halfway)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["b.txt"]


def test_a_failure_without_an_old_file_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(tmp_path / "b.txt", fail_halfway)
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_no_part_either(tmp_path):
    def interrupted(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "b.txt", interrupted)
    assert os.listdir(tmp_path) == []


def full_for_the_system(part):
    raise OSError(errno.ENOSPC, "no room")  # as a write to an open file: it names no path


def full_for_safetensors(part):
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def full_for_torch(part):
    try:
        full_for_the_system(part)
    finally:
        raise RuntimeError("unexpected pos 576 vs 534")


@pytest.mark.parametrize("write", [full_for_the_system, full_for_safetensors, full_for_torch])
def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(tmp_path, write):
    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(tmp_path / "b.txt", write)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(tmp_path / "b.txt")


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write_atomically(tmp_path / "b.txt", lambda part: (tmp_path / "c" / "d").read_text())
    assert error.value.filename == str(tmp_path / "c" / "d")


def test_a_rename_that_fails_leaves_no_part(tmp_path):
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(OSError, match=r"b\.txt"):
        write_atomically(tmp_path / "b.txt", lambda part: part.write_text("new"))
    assert os.listdir(tmp_path) == ["b.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path, seen = tmp_path / "b.txt", []
    path.write_text("old")

    def write(part):
        part.write_text("new")
        seen.append((part.parent, path.read_text()))

    write_atomically(path, write)
    # in the same folder, so that the rename cannot cross a file system
    assert seen == [(tmp_path, "old")]


def test_json_keeps_order_and_letters_and_ends_with_a_newline(tmp_path):
    content = {"name": "Zoë", "b": 1, "a": [1.5, None]}
    text = write_json(content, tmp_path / "c.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "Zoë" in text
    assert list(json.loads(text).items()) == list(content.items())


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    path = write_json({"a": 1}, tmp_path / "c.json")
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["c.json"]


def test_a_table_has_six_digits_and_no_index(tmp_path):
    table = pd.DataFrame(
        {"subject": ["lab0001", "lab0002"], "AU12": [np.pi, 0.0], "frame": [1, 2_000_000]}
    )
    path = write_table(table, tmp_path / "labels.csv")
    assert path.read_text() == "subject,AU12,frame\nlab0001,3.14159,1\nlab0002,0,2000000\n"


def test_a_table_that_is_read_and_written_again_stays_as_it_is(tmp_path):
    table = pd.DataFrame({"value": np.random.default_rng(0).normal(0, 10.0 ** np.arange(-8, 8))})
    first = write_table(table, tmp_path / "1.csv")
    second = write_table(pd.read_csv(first), tmp_path / "2.csv")
    assert first.read_text() == second.read_text()
