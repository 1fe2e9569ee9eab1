"""Folders of photographs that change, fail and are shared: what a second call of `align` and
`predict` keeps, does anew, refuses and removes."""

import errno
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from test_detection import Fake, film, run, save, scene, walk_past
from test_prediction import networks  # noqa: F401

from norface_lib.common.errors import DataError, StoppedError
from norface_lib.common.locks import only_process, only_writer
from norface_lib.datasets import open_dataset
from norface_lib.datasets.normalized import MANIFEST, normalize_dataset, read_manifest
from norface_lib.images.files import write_png
from norface_lib.photos import job, prediction
from norface_lib.photos.detection import WholeImage
from norface_lib.photos.engines import open_engine
from norface_lib.photos.folders import align_tree
from norface_lib.photos.listing import list_sources
from norface_lib.photos.prediction import predict_tree
from norface_lib.photos.readings import PREDICTIONS, read_predictions
from norface_lib.photos.tables import FACES

ONE = scene((80, 40, 100))
TWO = scene((10, 10, 60), (150, 20, 120))


def sources_of(table):
    return dict(zip(table["source"], table["status"], strict=True))


class Fails(Fake):
    """Meets an error at its n-th image."""

    def __init__(self, error, at=0):
        super().__init__()
        self.error = error
        self.at = at

    def detect(self, image):
        if self.seen == self.at:
            self.seen += 1
            raise self.error
        return super().detect(image)


# --- sources that change --------------------------------------------------------------------------


def test_a_second_file_of_one_name_is_refused_not_mistaken_for_the_first(tmp_path):
    save(tmp_path / "a/face.png", ONE)
    save(tmp_path / "b/face.png", scene())
    run(tmp_path / "a/face.png", tmp_path / "out")
    with pytest.raises(DataError, match=r"holds the faces of .*a, not of .*b; .*--overwrite"):
        run(tmp_path / "b/face.png", tmp_path / "out")
    counts, _ = run(tmp_path / "b/face.png", tmp_path / "out", overwrite=True)
    assert counts == {"no face": 1} and not (tmp_path / "out/face.png").exists()


def test_overwrite_deletes_what_norface_made_and_nothing_else(tmp_path):
    save(tmp_path / "a/two.png", TWO)
    film(tmp_path / "a/walk.avi", walk_past(3))
    run(tmp_path / "a", tmp_path / "out", all_faces=True)
    notes = save(tmp_path / "out/notes.png", ONE)
    inside = save(tmp_path / "out/walk.avi/mine.png", ONE)
    save(tmp_path / "b/one.png", ONE)
    run(tmp_path / "b", tmp_path / "out", overwrite=True)
    left = {path for path in (tmp_path / "out").rglob("*.png")}
    assert left == {notes, inside, tmp_path / "out/one.png"}


def test_files_of_others_are_never_overwritten(tmp_path):
    save(tmp_path / "in/one.png", ONE)
    film(tmp_path / "in/walk.avi", walk_past(3))
    for name in ("one.png", "walk.avi/000001.png"):
        notes = save(tmp_path / "out" / name, TWO)
        before = notes.read_bytes()
        for overwrite in (False, True):
            with pytest.raises(DataError, match=f"{name}: is there already, and no earlier call"):
                run(tmp_path / "in", tmp_path / "out", overwrite=overwrite)
        assert notes.read_bytes() == before
        notes.unlink()
    counts, _ = run(tmp_path / "in", tmp_path / "out")
    assert counts["aligned"]


def test_what_is_no_longer_there_leaves_the_table_and_the_folder(tmp_path):
    for name in ("a.png", "sub/b.png"):
        save(tmp_path / "in" / name, ONE)
    film(tmp_path / "in/walk.avi", walk_past(3))
    run(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/sub/b.png").unlink()
    (tmp_path / "in/walk.avi").unlink()
    counts, table = run(tmp_path / "in", tmp_path / "out")
    assert counts == {"aligned": 1} and table["source"].tolist() == ["a.png"]
    assert [path.name for path in (tmp_path / "out").rglob("*.png")] == ["a.png"]
    assert not (tmp_path / "out/sub").exists()


def test_an_image_that_takes_the_name_of_another_ones_crop_moves_that(tmp_path):
    save(tmp_path / "in/b.png", TWO)
    run(tmp_path / "in", tmp_path / "out", all_faces=True)
    save(tmp_path / "in/b_1.png", ONE)
    _, table = run(tmp_path / "in", tmp_path / "out", all_faces=True)
    _, fresh = run(tmp_path / "in", tmp_path / "fresh", all_faces=True)
    pd.testing.assert_frame_equal(table, fresh)
    for output in table["output"]:
        again = (tmp_path / "fresh" / output).read_bytes()
        assert (tmp_path / "out" / output).read_bytes() == again


def test_other_files_of_the_same_folder_wait_without_being_lost(tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, ONE)
    run(tmp_path / "in", tmp_path / "out")
    again = Fake()
    counts, table = run(tmp_path / "in/a.png", tmp_path / "out", again)
    assert counts == {"aligned": 1} and table["source"].tolist() == ["a.png"]
    assert run(tmp_path / "in", tmp_path / "out", again)[0] == {"aligned": 2} and again.seen == 0


# --- failures -------------------------------------------------------------------------------------


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_full_disk_stops_the_run_and_the_same_call_goes_on(tmp_path, monkeypatch, kind):
    if kind == "image":
        for name in ("a.png", "b.png", "c.png"):
            save(tmp_path / "in" / name, ONE)
    else:
        film(tmp_path / "in/walk.avi", walk_past(3))
    written = []

    def write(path, image):
        if len(written) == 1:
            full_disk()
        written.append(path)
        return write_png(path, image)

    monkeypatch.setattr(job, "write_png", write)
    with pytest.raises(StoppedError, match=r"png: could not be written \(No space left.*goes on"):
        run(tmp_path / "in", tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / FACES)) == 1
    monkeypatch.setattr(job, "write_png", write_png)
    assert run(tmp_path / "in", tmp_path / "out")[0] == {"aligned": 3}


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), OSError(errno.EMFILE, "x"), MemoryError()]
)
def test_a_failure_that_may_pass_stops_the_run_and_is_not_kept(tmp_path, error):
    save(tmp_path / "in/a.png", ONE)
    save(tmp_path / "in/b.png", ONE)
    with pytest.raises(StoppedError, match=r"b\.png: could not be read .*the same command goes on"):
        run(tmp_path / "in", tmp_path / "out", Fails(error, at=1))
    rest = Fake()
    assert run(tmp_path / "in", tmp_path / "out", rest)[0] == {"aligned": 2} and rest.seen == 1


@pytest.mark.parametrize("error", [cv2.error("bad size"), ValueError("a\nb"), RuntimeError("x")])
def test_an_unforeseen_error_costs_its_file_alone_and_is_tried_again(tmp_path, error):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "in" / name, ONE)
    counts, table = run(tmp_path / "in", tmp_path / "out", Fails(error, at=1))
    assert counts == {"aligned": 2, "failed": 1}
    assert sources_of(table)["b.png"] == "failed" and "\n" not in table["error"][1]
    rest = Fake()
    assert run(tmp_path / "in", tmp_path / "out", rest)[0] == {"aligned": 3} and rest.seen == 1


def test_a_frame_that_fails_costs_that_frame_alone(tmp_path):
    film(tmp_path / "in/walk.avi", walk_past(4))
    counts, table = run(tmp_path / "in", tmp_path / "out", Fails(ValueError("odd"), at=2))
    assert counts == {"aligned": 3, "failed": 1, "not the largest": 1}
    assert table[table["status"] == "failed"]["frame"].tolist() == ["2"]


def test_a_file_that_vanishes_has_a_row_until_it_is_back(tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, ONE)
    listing = list_sources(tmp_path / "in")
    (tmp_path / "in/b.png").unlink()
    counts, table = run(listing, tmp_path / "out")
    assert counts == {"aligned": 1, "missing": 1} and sources_of(table)["b.png"] == "missing"
    save(tmp_path / "in/b.png", ONE)
    assert run(tmp_path / "in", tmp_path / "out")[0] == {"aligned": 2}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_tried_again(tmp_path):
    path = save(tmp_path / "in/a.png", ONE)
    path.chmod(0)
    assert run(tmp_path / "in", tmp_path / "out")[0] == {"no permission": 1}
    path.chmod(0o600)
    assert run(tmp_path / "in", tmp_path / "out")[0] == {"aligned": 1}


def test_names_of_any_bytes_and_of_any_length_have_a_row_and_a_crop(tmp_path):
    path = save(tmp_path / "in/a.png", ONE)
    for name in (b"caf\xe9.png", b"line\nbreak.png", b"x" * 251 + b".png"):
        (tmp_path / "in").joinpath(os.fsdecode(name)).write_bytes(path.read_bytes())
    film(tmp_path / "in/v.avi", walk_past(1)).rename(tmp_path / f"in/{'v' * 251}.avi")
    counts, table = run(tmp_path / "in", tmp_path / "out")
    assert counts == {"aligned": 5} and table["output"].is_unique
    assert r"caf\udce9.png" in set(table["source"])
    assert all((tmp_path / "out" / output).is_file() for output in table["output"])
    again = Fake()
    assert run(tmp_path / "in", tmp_path / "out", again)[0] == counts and again.seen == 0


# --- finding sources ------------------------------------------------------------------------------


def test_links_to_folders_are_followed_once_each(tmp_path):
    save(tmp_path / "other/day/a.png", ONE)
    save(tmp_path / "in/z/b.png", ONE)
    (tmp_path / "in/link").symlink_to(tmp_path / "other")
    (tmp_path / "in/again").symlink_to(tmp_path / "in/z")
    (tmp_path / "other/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/nothing.png").symlink_to(tmp_path / "nowhere.png")
    counts, table = run(tmp_path / "in", tmp_path / "out")
    statuses = sources_of(table)
    assert statuses["link/day/a.png"] == statuses["z/b.png"] == "aligned"
    assert statuses["nothing.png"] == "missing"
    reasons = dict(zip(table["source"], table["error"], strict=True))
    assert reasons["again"] == "a link to the folder z, which is read already"
    assert statuses["link/loop"] == "left out" and counts["aligned"] == 2


def test_what_is_left_out_is_listed_by_name_and_reason(tmp_path):
    save(tmp_path / "in/a.png", ONE)
    (tmp_path / "in/notes.txt").write_text("")
    (tmp_path / "in/b.zip").write_bytes(b"")
    (tmp_path / "in/.git").mkdir()
    os.mkfifo(tmp_path / "in/pipe.png")
    _, table = run(tmp_path / "in", tmp_path / "out")
    reasons = dict(zip(table["source"], table["error"], strict=True))
    assert reasons["notes.txt"] == "neither image nor video by its suffix (.txt)"
    assert reasons["b.zip"] == "an archive (.zip): unpack it first"
    assert reasons[".git"] == "a hidden folder" and reasons["pipe.png"] == "not a regular file"


def test_several_sources_have_names_that_tell_them_apart(tmp_path):
    for name in ("s1/day/x.png", "s2/day/x.png", "s2/day/y.png", "other/x.png"):
        save(tmp_path / name, ONE)
    both = [tmp_path / "s1/day", tmp_path / "s2/day"]
    names = [source.name for source in list_sources(both).sources]
    assert names == ["s1/day/x.png", "s2/day/x.png", "s2/day/y.png"]
    names = [each.name for each in list_sources([tmp_path / "s1", tmp_path / "other"]).sources]
    assert names == ["other/x.png", "s1/day/x.png"]
    pattern = list_sources(str(tmp_path / "s2/day/*.png"))
    assert [each.name for each in pattern.sources] == ["x.png", "y.png"]
    inside = list_sources([tmp_path / "s2", tmp_path / "s2/day", tmp_path / "s2/day/x.png"])
    assert [each.name for each in inside.sources] == ["day/x.png", "day/y.png"]
    with pytest.raises(DataError, match="matches no file"):
        list_sources(tmp_path / "*.jpg")


# --- videos ---------------------------------------------------------------------------------------


def test_every_frame_has_a_row_with_its_time(tmp_path):
    film(tmp_path / "in/gap.avi", [ONE, scene(), scene(), ONE])
    run(tmp_path / "in", tmp_path / "out")
    table = read_predictions(tmp_path / "out" / FACES)
    assert table["status"].tolist() == ["aligned", "no face", "no face", "aligned"]
    assert table["frame"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(table["time_s"], [0, 0.04, 0.08, 0.12], atol=1e-3)
    written = pd.read_csv(tmp_path / "out" / FACES, dtype=str)
    assert written["track"].tolist()[::3] == ["0", "0"] and written["face"][0] == "0"


def test_frames_between_two_seconds(tmp_path):
    film(tmp_path / "in/walk.avi", walk_past())
    _, table = run(tmp_path / "in/walk.avi", tmp_path / "out", start=0.1, end=0.2)
    assert table["frame"].unique().tolist() == ["3", "4", "5"]
    _, table = run(tmp_path / "in/walk.avi", tmp_path / "late", start=99)
    assert table["status"].tolist() == ["left out"]
    with pytest.raises(DataError, match="end at least start"):
        run(tmp_path / "in", tmp_path / "wrong", start=2, end=1)


# --- one process ----------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from norface_lib.common.locks import only_process, only_writer
with only_process(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    save(tmp_path / "in/a.png", ONE)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match=f"process {other.pid} is writing here"):
            run(tmp_path / "in", tmp_path / "out")
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert run(tmp_path / "in", tmp_path / "out")[0] == {"aligned": 1}
    finally:
        other.kill()


def test_leftovers_of_a_killed_process_are_deleted_and_nothing_else(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/.a.png.123.part").write_bytes(b"half")
    (tmp_path / "mine.part").write_bytes(b"whole")
    with only_process(tmp_path):
        assert not (tmp_path / "sub/.a.png.123.part").exists()
        assert (tmp_path / "mine.part").exists()


# --- reading --------------------------------------------------------------------------------------


class Counts:
    """An engine that counts the faces that it reads, and is interrupted before a batch."""

    def __init__(self, engine, stops_at=None):
        self.engine = engine
        self.size = engine.size
        self.columns = engine.columns
        self.fingerprint = engine.fingerprint
        self.stops_at = stops_at
        self.faces = 0

    def run(self, originals):
        if self.faces == self.stops_at:
            raise KeyboardInterrupt
        self.faces += len(originals)
        return self.engine.run(originals)


def predicted(folder, networks, readers=slice(None), stops_at=None, **more):  # noqa: F811
    """Reads ``folder/in``, in batches of two; faces that the networks read, and the table."""
    opened = open_engine("torch", readers=networks[0][readers], weights=networks[1])
    engine = Counts(opened, stops_at)
    try:
        predict_tree(
            folder / "in", folder / "out", WholeImage(), engine=engine, batch_size=2,
            progress=False, **more,
        )  # fmt: skip
    except KeyboardInterrupt:
        assert stops_at is not None
    return engine.faces, read_predictions(folder / "out" / PREDICTIONS)


def face(seed):
    return np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8)


@pytest.fixture
def five(tmp_path):
    for number in range(5):
        save(tmp_path / f"in/{number}.png", face(number))
    return tmp_path


def test_a_stopped_reading_goes_on_and_reads_only_what_is_missing(five, networks):  # noqa: F811
    faces, table = predicted(five, networks, stops_at=2)
    assert faces == 2 and table["AU06"].notna().tolist() == [True, True, False, False, False]
    faces, table = predicted(five, networks)
    assert faces == 3 and table["AU06"].notna().all()
    assert predicted(five, networks)[0] == 0
    (five / "out/normalized/3.png").unlink()
    faces, again = predicted(five, networks)
    assert faces == 1
    pd.testing.assert_frame_equal(again, table)


def test_an_edited_or_deleted_file_and_other_readers_are_read_anew(five, networks):  # noqa: F811
    _, before = predicted(five, networks)
    save(five / "in/2.png", face(9))
    (five / "in/4.png").unlink()
    faces, table = predicted(five, networks)
    assert faces == 1 and table["source"].tolist() == ["0.png", "1.png", "2.png", "3.png"]
    changed = (table["AU06"] != before["AU06"][:4]).tolist()
    assert changed == [False, False, True, False]
    assert not (five / "out/normalized/4.png").exists()
    faces, table = predicted(five, networks, readers=slice(1))
    assert faces == 4 and "emotion" not in table


def test_a_disk_that_fills_while_reading_stops_the_run(five, networks, monkeypatch):  # noqa: F811
    monkeypatch.setattr(prediction, "write_png", full_disk)
    with pytest.raises(StoppedError, match=r"could not be written \(No space left"):
        predicted(five, networks)
    monkeypatch.undo()
    faces, table = predicted(five, networks)
    assert faces == 5 and table["AU06"].notna().all()


def test_a_crop_that_was_damaged_is_made_anew(five, networks):  # noqa: F811
    predicted(five, networks)
    (five / "out/aligned/1.png").write_bytes(b"")
    with pytest.raises(StoppedError, match="is deleted; the same command makes it anew"):
        predicted(five, networks)
    assert predicted(five, networks)[1]["AU06"].notna().all()


def test_readers_with_the_same_columns_are_told_apart_by_name(networks):  # noqa: F811
    reader = networks[0][0]
    second = reader.with_name("second.safetensors")
    for suffix in (".safetensors", ".json"):
        second.with_suffix(suffix).write_bytes(reader.with_suffix(suffix).read_bytes())
    engine = open_engine("torch", readers=[reader, second], weights=str(networks[1]))
    names = ["au_detection.AU06", "au_detection.AU12", "second.AU06", "second.AU12"]
    assert engine.columns == names


def test_parquet_and_json_hold_the_same_table(five, networks):  # noqa: F811
    film(five / "in/clip.avi", [face(0), face(1)])
    pytest.importorskip("pyarrow")
    _, table = predicted(five, networks, table_format="parquet")
    parquet = pd.read_parquet(five / "out/predictions.parquet")
    pd.testing.assert_frame_equal(parquet, table, check_dtype=False)
    assert (parquet.dtypes[["frame", "face", "track", "turn"]] == "Int64").all()
    predicted(five, networks, table_format="json")
    records = pd.read_json(five / "out/predictions.json")
    assert records["source"].tolist() == table["source"].tolist()
    assert records["AU06"].tolist() == pytest.approx(table["AU06"].tolist())
    with pytest.raises(DataError, match="there are csv, parquet, json"):
        predicted(five, networks, table_format="xlsx")


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_without_faces_is_refused(five, size):
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        predict_tree(five / "in", five / "out", WholeImage(), batch_size=size)
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        normalize_dataset(open_dataset("folder", five / "in"), five / "out", batch_size=size)


# --- normalized folders ---------------------------------------------------------------------------


def test_a_normalized_folder_knows_its_root_and_loses_what_is_gone(five):
    def normalize(root, **more):
        data = open_dataset("folder", root)
        return normalize_dataset(data, five / "out", progress=False, **more)

    assert normalize(five / "in") == {"normalized": 5}
    (five / "in/3.png").unlink()
    assert normalize(five / "in") == {"there already": 4}
    assert len(read_manifest(five / "out/noor")) == 4
    assert not (five / "out/noor/3.png").exists()
    save(five / "other/0.png", face(0))
    with pytest.raises(DataError, match=r"of .*in, not of .*other; .*--overwrite"):
        normalize(five / "other")
    assert normalize(five / "other", overwrite=True) == {"normalized": 1}
    assert [path.name for path in (five / "out/noor").glob("*.png")] == ["0.png"]
    with only_process(five / "out/noor"), pytest.raises(DataError, match=f"process {os.getpid()}"):
        normalize(five / "other")
    assert (five / "out/noor" / MANIFEST).is_file()


def test_align_refuses_a_folder_that_it_holds_itself(tmp_path):
    save(tmp_path / "in/a.png", ONE)
    with only_process(tmp_path / "out"), pytest.raises(DataError, match="is writing here"):
        align_tree(tmp_path / "in", tmp_path / "out", Fake(), progress=False)


def test_one_process_renders_a_benchmark_and_trains_a_network(tmp_path, tiny_spec):
    from norface_lib.faces.writing import write_benchmark
    from norface_lib.training.loop import TrainConfig, fit

    with only_process(tmp_path), pytest.raises(DataError, match="is writing here"):
        write_benchmark(tiny_spec, tmp_path, workers=1, progress=False)
    data = torch.utils.data.TensorDataset(torch.zeros(4, 1))
    settings = TrainConfig(steps=1, batch_size=2)

    def train(name):
        model = torch.nn.Linear(1, 1)
        fit(model, squared, data, settings, folder=tmp_path, name=name, progress=False)

    with only_writer(tmp_path / "a"):
        with pytest.raises(DataError, match="is writing here"):
            train("a")
        train("b")


def squared(model, batch):
    value = model(batch[0]).square().mean()
    return value, {}
