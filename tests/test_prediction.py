"""From files to the table of predictions: columns, boxes, counts, videos, and weights without a
task."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from norface_lib.common.errors import CheckpointError
from norface_lib.datasets.rendered import load_rendered
from norface_lib.images.arrays import to_tensor
from norface_lib.images.files import read_face
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.weights import save_classifier, save_normalizer
from norface_lib.photos.detection import WholeImage
from norface_lib.photos.prediction import load_reader, predict_tree, read_all
from norface_lib.tasks.tasks import task_of
from norface_lib.training.classifier import predict

ENCODER = EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16))
TASKS = {
    "au_detection": ("AU06", "AU12"),
    "au_intensity": ("AU12",),
    "emotion": ("neutral", "happy"),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory, tiny_benchmark):
    """Untrained weights on disk: a classifier of each task, and a normalizer."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    readers = []
    for task, outputs in TASKS.items():
        model = Classifier(ClassifierConfig(outputs, "both", ENCODER, hidden=16)).eval()
        readers.append(save_classifier(model, folder / f"{task}.safetensors", {"task": task}))
    normalizer = Normalizer(NormalizerConfig(ENCODER, 1, (16, 16)))
    weights = save_normalizer(
        normalizer,
        tiny_benchmark / "target.png",
        folder / "normalizer.safetensors",
        {"data": {"target": "noor"}},
    )
    return readers, weights


@pytest.fixture
def photographs(tiny_benchmark, tmp_path):
    """Three faces in two folders, a picture that is none, a damaged file, and a video of two
    frames."""
    root = tmp_path / "photographs"
    faces = load_rendered(tiny_benchmark, truth=False, progress=False).originals
    for name, face in zip(("a/one.png", "a/two.png", "b/three.png"), faces, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), face[..., ::-1])
    cv2.imwrite(str(root / "wide.png"), np.zeros((60, 90, 3), np.uint8))
    (root / "damaged.jpg").write_bytes(b"\xff\xd8 no picture")
    video = cv2.VideoWriter(str(root / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (112, 112))
    for face in faces[:2]:
        video.write(np.ascontiguousarray(face[..., ::-1]))
    video.release()
    return root


def test_every_face_gets_a_row_and_every_failure_is_counted(networks, photographs, tmp_path):
    readers, weights = networks
    counts = predict_tree(
        photographs, tmp_path / "out", WholeImage(), readers, weights, batch_size=2, progress=False
    )
    assert counts["aligned"] == 5 and counts["unreadable"] == 2
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    assert list(table.columns[9:]) == [
        "AU06",
        "AU12",
        "AU12_intensity",
        "emotion",
        "neutral",
        "happy",
    ]
    assert set(table["source"]) == {"a/one.png", "a/two.png", "b/three.png", "clip.avi"}
    assert table.loc[table["source"] == "clip.avi", "frame"].tolist() == [0, 1]
    assert (
        table[["AU06", "AU12", "neutral", "happy"]].stack().between(0, 1).all()
        and table["AU12_intensity"].between(0, 5).all()
    )
    assert set(table["emotion"]) <= {"neutral", "happy"}
    np.testing.assert_allclose(table["neutral"] + table["happy"], 1, atol=2e-4)
    assert (table[["x0", "y0", "x1", "y1"]].iloc[0] == [0, 0, 112, 112]).all()
    assert len(list((tmp_path / "out/normalized").rglob("*.png"))) == 5
    listed = pd.read_csv(tmp_path / "out/aligned/faces.csv")
    assert set(listed.loc[listed["status"] == "unreadable", "source"]) == {
        "wide.png",
        "damaged.jpg",
    }


def test_the_table_says_what_the_networks_say(networks, photographs, tmp_path):
    readers, weights = networks
    predict_tree(
        photographs / "a/two.png",
        tmp_path / "out",
        WholeImage(),
        readers[:1],
        weights,
        progress=False,
    )
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    assert table["source"].tolist() == ["two.png"]
    from norface_lib.networks.weights import load_classifier, load_normalizer

    normalizer, target, _ = load_normalizer(weights)
    face = read_face(photographs / "a/two.png", 112)[None]
    model, _ = load_classifier(readers[0])
    wanted = predict(
        model,
        face,
        normalize_faces(normalizer, target, face),
        task_of("au_detection", TASKS["au_detection"]),
    )
    np.testing.assert_allclose(table[["AU06", "AU12"]].to_numpy(), wanted, atol=2e-4)
    drawn = read_face(tmp_path / "out/normalized/two.png", 112)
    np.testing.assert_array_equal(drawn, normalize_faces(normalizer, target, face)[0])
    assert to_tensor(drawn).shape == (1, 3, 112, 112)


def test_readers_of_one_backbone_share_what_it_sees(tmp_path, tiny_benchmark, monkeypatch):
    torch.manual_seed(1)
    first = Classifier(ClassifierConfig(("AU06", "AU12"), "both", ENCODER, hidden=16)).eval()
    second = Classifier(
        ClassifierConfig(("neutral", "happy"), "original", ENCODER, hidden=16)
    ).eval()
    other = Classifier(ClassifierConfig(("AU12",), "normalized", ENCODER, hidden=16)).eval()
    second.encoder.load_state_dict(first.encoder.state_dict())
    second.expression.load_state_dict(first.expression.state_dict())
    models = {"au_detection": first, "emotion": second, "au_intensity": other}
    paths = [
        save_classifier(model, tmp_path / f"{task}.safetensors", {"task": task})
        for task, model in models.items()
    ]
    readers = [load_reader(str(path)) for path in paths]
    originals = load_rendered(tiny_benchmark, truth=False, progress=False).originals[:4]
    alone = [reader.read(originals, originals[::-1]) for reader in readers]
    calls, embed = [], Classifier.embed
    monkeypatch.setattr(
        Classifier, "embed", lambda self, images: calls.append(len(images)) or embed(self, images)
    )
    assert read_all(readers, originals, originals[::-1]) == alone
    assert calls == [4, 4, 4], "both pictures by the first backbone, one by the other"


def test_weights_that_do_not_say_their_task_are_refused(tmp_path):
    path = save_classifier(
        Classifier(ClassifierConfig(("AU12",), "both", ENCODER, hidden=16)),
        tmp_path / "old.safetensors",
        {},
    )
    with pytest.raises(CheckpointError, match="does not say their task"):
        load_reader(str(path))


def test_a_second_call_reads_the_same_faces_again(networks, photographs, tmp_path):
    readers, weights = networks
    arguments = (photographs, tmp_path / "out", WholeImage(), readers, weights)
    predict_tree(*arguments, progress=False)
    before = (tmp_path / "out/predictions.csv").read_bytes()
    shutil.rmtree(tmp_path / "out/normalized")
    predict_tree(*arguments, progress=False)
    assert (tmp_path / "out/predictions.csv").read_bytes() == before
    assert len(list((tmp_path / "out/normalized").rglob("*.png"))) == 5
