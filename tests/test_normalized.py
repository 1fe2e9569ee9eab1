"""Normalizing a folder on disk: the mirror tree, its manifest, interruption, and what cannot be read."""

import csv
import hashlib
import shutil

import cv2
import numpy as np
import pytest

from norface_lib import normalized
from norface_lib.checkpoints import load_normalizer
from norface_lib.errors import DataError
from norface_lib.evaluation import normalize_faces
from norface_lib.images import read_face
from norface_lib.normalized import MANIFEST, normalize_tree


@pytest.fixture
def tree(tiny_benchmark, tmp_path):
    """Twelve faces in four folders, and one truncated image."""
    root = shutil.copytree(tiny_benchmark / "images", tmp_path / "faces")
    data = (root / "lab0000" / "0000.jpg").read_bytes()
    (root / "lab0001" / "broken.jpg").write_bytes(data[: len(data) // 2])
    return root


def manifest(folder):
    lines = (folder / MANIFEST).read_text().splitlines()
    assert lines[0].startswith("# weights ")
    return {row["path"]: row for row in csv.DictReader(lines[1:])}


def test_the_mirror_tree_holds_what_the_network_draws(tree, tmp_path):
    counts = normalize_tree(tree, tmp_path / "out", batch_size=5, progress=False)
    assert counts == {"normalized": 12, "unreadable": 1}
    folder, (model, target, _) = tmp_path / "out" / "noor", load_normalizer()
    rows = manifest(folder)
    assert len(rows) == 13 and rows["lab0001/broken.jpg"]["error"].startswith("lab0001/broken.jpg: not a readable image")
    row = rows["lab0002/0001.jpg"]
    assert row["sha256"] == hashlib.sha256((tree / "lab0002/0001.jpg").read_bytes()).hexdigest()
    assert row["normalized_sha256"] == hashlib.sha256((folder / row["normalized"]).read_bytes()).hexdigest()
    drawn = cv2.imread(str(folder / "lab0002/0001.png"))[..., ::-1].astype(int)
    alone = normalize_faces(model, target, read_face(tree / "lab0002/0001.jpg", 112)[None])[0]
    assert np.abs(drawn - alone).max() <= 1  # the size of a batch may round a pixel
    assert not (folder / "lab0001/broken.png").exists()


def test_an_interrupted_call_goes_on(tree, tmp_path, monkeypatch):
    write, written = normalized.write_face, []

    def interrupted(folder, path, face):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path)
        return write(folder, path, face)

    monkeypatch.setattr(normalized, "write_face", interrupted)
    with pytest.raises(KeyboardInterrupt):
        normalize_tree(tree, tmp_path / "out", batch_size=5, progress=False)
    monkeypatch.setattr(normalized, "write_face", write)
    assert normalize_tree(tree, tmp_path / "out", progress=False) == {"there already": 5, "normalized": 7, "unreadable": 1}
    (tmp_path / "out/noor/lab0003/0002.png").unlink()
    shutil.copy(tree / "lab0000/0000.jpg", tree / "lab0000/0001.jpg")
    assert normalize_tree(tree, tmp_path / "out", progress=False) == {"there already": 10, "normalized": 2, "unreadable": 1}
    rows = manifest(tmp_path / "out/noor")
    assert rows["lab0000/0000.jpg"]["normalized_sha256"] == rows["lab0000/0001.jpg"]["normalized_sha256"]


@pytest.mark.parametrize(
    ("first", "message"), [("# weights other", "drawn by other weights"), ("", "damaged")], ids=["other weights", "damaged"]
)
def test_a_foreign_or_damaged_manifest_is_refused(tree, tmp_path, first, message):
    (tmp_path / "out/noor").mkdir(parents=True)
    (tmp_path / "out/noor" / MANIFEST).write_text(f"{first}\npath\n" if first else "a,b\n")
    with pytest.raises(DataError, match=message):
        normalize_tree(tree, tmp_path / "out", progress=False)


def test_an_output_inside_the_source_is_refused(tree):
    with pytest.raises(DataError, match="would be normalized itself"):
        normalize_tree(tree, tree / "out", progress=False)


def test_two_images_that_would_become_one_are_refused(tree, tmp_path):
    cv2.imwrite(str(tree / "lab0000" / "0000.png"), np.zeros((112, 112, 3), np.uint8))
    with pytest.raises(DataError, match="differ in their suffix alone"):
        normalize_tree(tree, tmp_path / "out", progress=False)
