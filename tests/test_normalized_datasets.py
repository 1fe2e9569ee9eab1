"""Normalizing datasets in the layouts of the gated ones: frames in folders, zips and videos, and
what cannot be read."""

import hashlib
import pickle
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.datasets import normalized, open_dataset
from norface_lib.datasets.normalized import (
    MANIFEST,
    load_pairs,
    mirror_of,
    normalize_dataset,
    read_manifest,
)
from norface_lib.datasets.write_as import CLEAN, write_as
from norface_lib.images.crop import ALIGNED, NORFACE_CROP, POINT_COLUMNS
from norface_lib.images.files import decode
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import PRESETS, Normalizer
from norface_lib.networks.weights import load_normalizer, save_normalizer
from norface_lib.photos.dataset_points import find_points
from norface_lib.photos.detection import Face
from norface_lib.photos.whole_folders import normalize

ONE_BROKEN = replace(CLEAN, unreadable=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_benchmark):
    """An untrained normalizer whose drawings differ with the face."""
    torch.manual_seed(0)
    model = Normalizer(PRESETS["tiny"])
    with torch.no_grad():
        for value in model.parameters():
            value += 0.02 * torch.randn_like(value)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    return save_normalizer(model, tiny_benchmark / "target.png", path, {"data": {"target": "noor"}})


@pytest.fixture
def benchmark(tiny_benchmark, tmp_path):
    """The twelve faces of the tiny benchmark, with emotions, so that each layout can be written."""
    root = shutil.copytree(tiny_benchmark, tmp_path / "benchmark")
    table = pd.read_csv(root / "labels.csv")
    table.assign(emotion=np.resize(["happy", "sad", "fear"], len(table))).to_csv(
        root / "labels.csv", index=False
    )
    return root


def opened(layout, benchmark, tmp_path, variant=None, quirks=CLEAN):
    root = tmp_path / layout
    write_as(layout, benchmark, root, variant, quirks)
    return open_dataset(layout, root)


@pytest.mark.parametrize(
    ("path", "mirror"),
    [
        ("F001/T1/12.JPG", "F001/T1/12.png"),
        ("2D+3D/F001.zip!F001/T1/12.jpg", "2D+3D/F001.zip/F001/T1/12.png"),
        ("Videos/F001_T1.mp4#11", "Videos/F001_T1.mp4/11.png"),
        ("odd!name#1.jpg", "odd!name#1.png"),
        ("a.b/c.d.jpg", "a.b/c.d.png"),
    ],
)
def test_the_mirror_of_a_path(path, mirror):
    assert mirror_of(path).as_posix() == mirror


def test_entries_of_a_zip_may_have_names_that_no_file_system_takes():
    paths = [f"F001.zip!{'x' * 300}/T1/{'y' * 300}{number}.jpg" for number in (1, 2)]
    mirrors = [mirror_of(path) for path in paths]
    assert mirrors[0].parent == mirrors[1].parent and mirrors[0] != mirrors[1]
    assert all(len(name) < 255 for mirror in mirrors for name in mirror.parts)
    assert all(mirror.suffix == ".png" for mirror in mirrors)


@pytest.mark.parametrize(
    ("layout", "variant"),
    [
        ("bp4d", "images"),
        ("bp4d_plus", "zip"),
        ("disfa", "video"),
        ("affectnet", "old"),
        ("rafdb", "aligned"),
    ],
)
def test_every_layout_is_drawn_and_joined_again(layout, variant, benchmark, tmp_path, weights):
    data, (model, target, card) = (
        opened(layout, benchmark, tmp_path, variant),
        load_normalizer(weights),
    )
    assert normalize_dataset(data, tmp_path / "out", weights, batch_size=5, progress=False) == {
        "normalized": 12
    }
    folder = tmp_path / "out" / "noor"
    manifest = read_manifest(folder)
    assert set(manifest["path"]) == set(data.index["path"]) and (manifest["error"] == "").all()
    part, originals, drawn = load_pairs(data, folder, 112)
    pd.testing.assert_frame_equal(part.index, data.index)
    expected = normalize_faces(model, target, originals)
    assert np.abs(drawn.astype(int) - expected).max() <= 1  # the size of a batch may round a pixel
    assert len({face.tobytes() for face in drawn}) == 12
    assert (folder / MANIFEST).read_text().splitlines()[0] == f"# weights {card['sha256']}"
    for _, row in manifest.iterrows():
        assert (
            row["normalized_sha256"]
            == hashlib.sha256((folder / row["normalized"]).read_bytes()).hexdigest()
        )


def test_a_face_box_is_cut_before_a_face_is_drawn(benchmark, tmp_path, weights):
    data = opened("affectnet", benchmark, tmp_path, "old")
    normalize_dataset(data, tmp_path / "out", weights, progress=False)
    row = data.index.iloc[0]
    whole = decode((data.root / row["path"]).read_bytes(), "")
    face = whole[28:-28, 28:-28]  # the border that write_as puts around a face of 112 px
    digest = read_manifest(tmp_path / "out/noor").set_index("path").loc[row["path"], "sha256"]
    assert digest == hashlib.sha256(np.ascontiguousarray(face).tobytes()).hexdigest()


def test_what_cannot_be_read_is_counted_and_left_out_of_pairs(benchmark, tmp_path, weights):
    data = opened("bp4d_plus", benchmark, tmp_path, "zip", ONE_BROKEN)
    assert normalize_dataset(data, tmp_path / "out", weights, progress=False) == {
        "normalized": 11,
        "unreadable": 1,
    }
    manifest = read_manifest(tmp_path / "out/noor")
    bad = manifest[manifest["error"] != ""].iloc[0]
    assert bad["error"].startswith(f"{bad['path']}: unreadable frame") and bad["normalized"] == ""
    part, originals, drawn = load_pairs(data, tmp_path / "out/noor", 112)
    assert len(part) == len(originals) == len(drawn) == 11 and bad["path"] not in set(
        part.index["path"]
    )


def test_a_whole_frame_is_no_aligned_face(tiny_benchmark, tmp_path, weights):
    root = shutil.copytree(tiny_benchmark / "images", tmp_path / "faces")
    cv2.imwrite(str(root / "lab0000/0000.jpg"), np.zeros((112, 200, 3), np.uint8))
    counts = normalize_dataset(
        open_dataset("folder", root), tmp_path / "out", weights, progress=False
    )
    assert counts == {"normalized": 11, "unreadable": 1}
    error = read_manifest(tmp_path / "out/noor").set_index("path").loc["lab0000/0000.jpg", "error"]
    assert error.startswith("lab0000/0000.jpg: 200 x 112 px is no face crop")


def test_an_interrupted_call_goes_on(benchmark, tmp_path, monkeypatch, weights):
    data, write, written = opened("disfa", benchmark, tmp_path), normalized.write_png, []

    def interrupted(path, face):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, face)

    monkeypatch.setattr(normalized, "write_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        normalize_dataset(data, tmp_path / "out", weights, batch_size=5, progress=False)
    monkeypatch.setattr(normalized, "write_png", write)
    assert normalize_dataset(data, tmp_path / "out", weights, progress=False) == {
        "there already": 5,
        "normalized": 7,
    }
    (tmp_path / "out/noor" / mirror_of(data.index["path"].iloc[3])).unlink()
    assert normalize_dataset(data, tmp_path / "out", weights, progress=False) == {
        "there already": 11,
        "normalized": 1,
    }
    assert normalize_dataset(data, tmp_path / "out", weights, progress=False) == {
        "there already": 12
    }


def test_an_original_that_changed_is_drawn_anew(tiny_benchmark, tmp_path, weights):
    root = shutil.copytree(tiny_benchmark / "images", tmp_path / "faces")
    normalize_dataset(open_dataset("folder", root), tmp_path / "out", weights, progress=False)
    shutil.copy(root / "lab0000/0000.jpg", root / "lab0001/0001.jpg")
    again = normalize_dataset(
        open_dataset("folder", root), tmp_path / "out", weights, progress=False
    )
    assert again == {"there already": 11, "normalized": 1}
    hashes = read_manifest(tmp_path / "out/noor").set_index("path")["sha256"]
    assert hashes["lab0000/0000.jpg"] == hashes["lab0001/0001.jpg"]


def test_an_original_that_became_unreadable_leaves_no_normalized_image(
    tiny_benchmark, tmp_path, weights
):
    root = shutil.copytree(tiny_benchmark / "images", tmp_path / "faces")
    normalize_dataset(open_dataset("folder", root), tmp_path / "out", weights, progress=False)
    path = root / "lab0001/0001.jpg"
    path.write_bytes(path.read_bytes()[:100])
    again = normalize_dataset(
        open_dataset("folder", root), tmp_path / "out", weights, progress=False
    )
    assert again == {"there already": 11, "unreadable": 1}
    row = read_manifest(tmp_path / "out/noor").set_index("path").loc["lab0001/0001.jpg"]
    assert row["normalized"] == "" and row["error"]
    assert not (tmp_path / "out/noor/lab0001/0001.png").exists()
    assert len(list((tmp_path / "out/noor").rglob("*.png"))) == 11


def test_normalizing_a_dataset_tells_what_its_loader_left_out(benchmark, tmp_path, weights, capsys):
    opened("bp4d", benchmark, tmp_path)
    image = sorted((tmp_path / "bp4d").rglob("*.jpg"))[0]
    image.rename(image.with_suffix(".gone"))
    normalize(tmp_path / "bp4d", tmp_path / "out", layout="bp4d", weights=str(weights))
    assert image.stem in capsys.readouterr().out


def test_a_full_disk_is_an_error_before_faces_are_mapped_into_memory(
    benchmark, tmp_path, weights, monkeypatch
):
    """A mapped file that finds no room ends the process."""
    data = opened("disfa", benchmark, tmp_path)
    normalize_dataset(data, tmp_path / "out", weights, progress=False)

    def full(descriptor, start, length):
        assert length > 12 * 112 * 112 * 3
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device"):
        load_pairs(data, tmp_path / "out/noor", 112, tmp_path / "memory")
    assert not list((tmp_path / "memory").glob("*.np*"))


def test_what_would_go_wrong_is_refused(tiny_benchmark, tmp_path, weights):
    data = open_dataset("folder", tiny_benchmark / "images")
    with pytest.raises(DataError, match="lies inside"):
        normalize_dataset(data, data.root / "out", weights, progress=False)
    with pytest.raises(DataError, match="is listed twice"):
        normalize_dataset(data.select([0, 1, 1]), tmp_path / "out", weights, progress=False)
    data.index.loc[1, "path"] = data.index["path"][0].replace(".jpg", ".bmp")
    with pytest.raises(DataError, match="differ in their suffix alone"):
        normalize_dataset(data, tmp_path / "out", weights, progress=False)
    with pytest.raises(CheckpointError, match="cannot synthesize 'nobody'"):
        normalize_dataset(data, tmp_path / "out", weights, "nobody", progress=False)
    (tmp_path / "out/noor").mkdir(parents=True)
    for text, message in (
        ("# weights other\npath\n", "normalized by other weights"),
        ("a,b\n", "damaged"),
    ):
        (tmp_path / "out/noor" / MANIFEST).write_text(text)
        with pytest.raises(DataError, match=message):
            normalize_dataset(data.select([0]), tmp_path / "out", weights, progress=False)


def test_the_command_draws_a_folder_and_a_dataset(benchmark, tmp_path, weights):
    opened("disfa", benchmark, tmp_path)
    for source, layout in ((benchmark / "images", "folder"), (tmp_path / "disfa", "disfa")):
        call = [
            "normalize",
            str(source),
            str(tmp_path / f"out-{layout}"),
            "--layout",
            layout,
            "--weights",
            str(weights),
        ]
        done = CliRunner().invoke(app, call)
        assert done.exit_code == 0 and "12 normalized (see manifest.csv)" in done.stdout


def test_pairs_need_a_manifest_of_these_frames(tiny_benchmark, tmp_path, weights):
    data = open_dataset("folder", tiny_benchmark / "images")
    with pytest.raises(DataError, match="missing or damaged"):
        load_pairs(data, tmp_path, 112)
    normalize_dataset(data.select([0, 1]), tmp_path / "out", weights, progress=False)
    with pytest.raises(DataError, match="names no frame of"):
        load_pairs(data.select([2, 3]), tmp_path / "out/noor", 112)
    part, *_ = load_pairs(data, tmp_path / "out/noor", 112)
    assert part.index["path"].tolist() == data.index["path"][:2].tolist()


# --- whole frames, cropped by a table of points ---------------------------------------------------


class Finder:
    """Finds every face where it stands in our crop, except in the frames (counted from 0) that it
    is told to miss."""

    name, blendshapes = "finder", ()

    def __init__(self, misses=(), breaks=None):
        self.calls, self.misses, self.breaks = 0, misses, breaks

    def detect(self, image):
        self.calls += 1
        if self.calls - 1 == self.breaks:
            raise KeyboardInterrupt
        if self.calls - 1 in self.misses:
            return []
        size = image.shape[0]
        return [Face(np.array([0, 0, size, size], float), NORFACE_CROP.pixels(size), 0.9)]


@pytest.mark.parametrize(
    ("layout", "variant"), [("bp4d_plus", "zip"), ("disfa", "video"), ("affectnet", "old")]
)
def test_a_dataset_is_cropped_where_it_lies(layout, variant, benchmark, tmp_path, weights):
    data, points = opened(layout, benchmark, tmp_path, variant), tmp_path / "points.csv"
    assert find_points(data, points, Finder(misses=(1,)), progress=False) == {
        "aligned": 11,
        "no face": 1,
    }
    part = data.aligned_by(points, size=112)
    assert len(part) == 11 and part.report.dropped["frame: no face"] == 1 and len(data) == 12
    first = part.index.iloc[0]
    assert part.image(first).shape == (112, 112, 3)
    assert np.abs(part.image(first).astype(int) - data.image(first)).mean() < 1, (
        "a face that stands right stays as it is"
    )
    assert normalize_dataset(part, tmp_path / "out", weights, progress=False) == {"normalized": 11}
    assert len(load_pairs(part, tmp_path / "out/noor", 112)[0]) == 11


def test_finding_faces_goes_on_after_an_interruption(benchmark, tmp_path):
    data, points = opened("bp4d", benchmark, tmp_path, "images"), tmp_path / "points.csv"
    with pytest.raises(KeyboardInterrupt):
        find_points(data, points, Finder(breaks=5), progress=False)
    with points.open("a") as file:
        file.write("F001/T1/half a li")
    later = Finder()
    assert find_points(data, points, later, progress=False) == {"aligned": 12}
    assert later.calls == 7 and list(pd.read_csv(points)["path"]) == list(data.index["path"])


def test_a_table_of_points_that_does_not_fit_is_refused(benchmark, tmp_path):
    data, points = opened("bp4d", benchmark, tmp_path, "images"), tmp_path / "points.csv"
    with pytest.raises(DataError, match="no readable table"):
        data.aligned_by(points)
    with pytest.raises(DataError, match="inside"):
        find_points(data, data.root / "points.csv", Finder())
    find_points(data, points, Finder(), progress=False)
    table = pd.read_csv(points)
    for change, words in (
        (table.drop(columns="nose_x"), "lacks the column"),
        (table.assign(nose_y=np.nan), "lacks a point"),
        (pd.concat([table, table.iloc[:1]]), "listed twice"),
        (table.assign(path="other/" + table["path"]), "knows no face"),
    ):
        change.to_csv(points, index=False)
        with pytest.raises(DataError, match=words):
            data.aligned_by(points)


def test_pairs_are_mapped_from_files_and_read_again_from_there(
    benchmark, tmp_path, weights, monkeypatch
):
    data = opened("bp4d", benchmark, tmp_path, "images")
    normalize_dataset(data, tmp_path / "out", weights, progress=False)
    folder, memory = tmp_path / "out/noor", tmp_path / "memory"
    _, *plain = load_pairs(data, folder, 112)
    for _ in range(2):
        part, *mapped = load_pairs(data, folder, 112, memory)
        assert all(isinstance(faces, np.memmap) for faces in mapped) and len(part) == 12
        assert all(np.array_equal(one, two) for one, two in zip(plain, mapped, strict=True))
        monkeypatch.setattr(normalized, "read_face", None)  # the second call must not read a face
    monkeypatch.undo()
    _, some, _ = load_pairs(data.select([3, 1]), folder, 112, memory)
    assert np.array_equal(some, plain[0][[3, 1]]), "other rows are no longer those of the file"

    for damage in (b"", b"PK\x03\x04", b"\x93NUMPY", mapped[0].tobytes()):
        kept = sorted(memory.glob("originals-*.npy"))
        for path in kept:
            path.write_bytes(damage)
        _, *again = load_pairs(data, folder, 112, memory)
        assert all(np.array_equal(one, two) for one, two in zip(plain, again, strict=True))


def test_files_of_others_are_never_overwritten(benchmark, tmp_path, weights):
    data = opened("bp4d", benchmark, tmp_path, "images")
    image = tmp_path / "out/noor" / normalized.mirror_of(data.index["path"].iloc[3])
    image.parent.mkdir(parents=True)
    image.write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="is there already, and no earlier call made it"):
            normalize_dataset(data, tmp_path / "out", weights, overwrite=overwrite, progress=False)
        assert image.read_bytes() == b"mine"
    image.unlink()
    for _ in range(2):
        normalize_dataset(data, tmp_path / "out", weights, overwrite=True, progress=False)


def test_the_commands_align_a_dataset_and_normalize_it_by_the_table(benchmark, tmp_path, weights):
    data = opened("disfa", benchmark, tmp_path, "video")
    call = [
        "align",
        str(data.root),
        str(tmp_path / "points"),
        "--layout",
        "disfa",
        "--detector",
        "none",
    ]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0 and "12 aligned (see" in done.output
    points = str(tmp_path / "points/points.csv")
    call = [
        "normalize",
        str(data.root),
        str(tmp_path / "out"),
        "--layout",
        "disfa",
        "--weights",
        str(weights),
        "--points",
        points,
    ]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0 and "12 normalized" in done.output
    assert (tmp_path / "out/noor/manifest.csv").is_file() and not (data.root / "crop.json").exists()


@pytest.mark.slow
def test_workers_write_the_very_same_files(benchmark, tmp_path, weights):
    """Zips and crops by points, a frame that fails, and a second call that only reads."""
    data = opened("bp4d_plus", benchmark, tmp_path, "zip", ONE_BROKEN)
    trees, pairs = {}, {}
    for workers in (0, 2):
        out = tmp_path / f"out{workers}"
        call = {"batch_size": 3, "progress": False, "workers": workers}
        counts = normalize_dataset(data, out, weights, **call)
        assert counts == {"normalized": 11, "unreadable": 1}
        folder = out / "noor"
        trees[workers] = {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.suffix in (".png", ".csv")
        }
        assert normalize_dataset(data, out, weights, **call) == {
            "there already": 11,
            "unreadable": 1,
        }
        _, *pairs[workers] = load_pairs(data, folder, 112, tmp_path / "m", workers=workers)
        for file in (tmp_path / "m").glob("*.npy"):
            file.unlink()
    assert trees[0] == trees[2] and len(trees[0]) == 12
    assert all(np.array_equal(one, two) for one, two in zip(pairs[0], pairs[2], strict=True))


def test_a_part_for_a_worker_is_small_and_crops_as_the_whole(benchmark, tmp_path):
    data = opened("disfa", benchmark, tmp_path, "images")
    table = data.index[["path"]].assign(status=ALIGNED, score=1.0)
    points = NORFACE_CROP.pixels(100) + 6
    for number, name in enumerate(POINT_COLUMNS):
        table[name] = points.ravel()[number]
    table.to_csv(tmp_path / "points.csv", index=False)
    cropped = data.aligned_by(tmp_path / "points.csv", 64)
    parts = list(cropped.batches(5))
    assert [len(part) for part in parts] == [5, 5, 2]
    for part, start in zip(parts, (0, 5, 10), strict=True):
        sent = pickle.loads(pickle.dumps(part))
        assert len(sent._points) == len(part) and sent.framing == cropped.framing
        for row in range(len(part)):
            whole = cropped.image(cropped.index.iloc[start + row])
            np.testing.assert_array_equal(sent.image(sent.index.iloc[row]), whole)
    readers = [pickle.loads(pickle.dumps(part)).read for part in parts]
    assert readers[0] is readers[1], "a worker opens each zip and video once"
