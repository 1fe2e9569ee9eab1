"""From files to the table of predictions: columns, boxes, counts, videos, and weights without a
task."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from norface_lib.common.errors import CheckpointError
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.files import read_face
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.weights import (
    load_classifier,
    load_normalizer,
    save_classifier,
    save_normalizer,
)
from norface_lib.photos.detection import WholeImage
from norface_lib.photos.prediction import predict_tree
from norface_lib.photos.readers import NORMALIZER, load_reader, normalizer_for, read_table
from norface_lib.photos.readings import PLACES
from norface_lib.tasks.tasks import task_of
from norface_lib.training.classifier import predict as predict_faces

ENCODER = EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16))
TASKS = {
    "au_detection": ("AU06", "AU12"),
    "au_intensity": ("AU12",),
    "emotion": ("neutral", "happy"),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory, tiny_benchmark):
    """Untrained weights on disk: a normalizer, and a classifier of each task over its backbone."""
    folder = tmp_path_factory.mktemp("weights")
    weights = save_untrained_normalizer(folder / "normalizer.safetensors", tiny_benchmark, seed=0)
    readers = []
    for task, outputs in TASKS.items():
        model = Classifier(ClassifierConfig(outputs, inputs="both", encoder=ENCODER, hidden=16))
        model.start_from(load_normalizer(weights)[0])
        path = folder / f"{task}.safetensors"
        readers.append(save_classifier(model, path, {"task": task}, normalizer=weights))
    return readers, weights


def save_untrained_normalizer(path, benchmark, seed):
    torch.manual_seed(seed)
    model = Normalizer(NormalizerConfig(encoder=ENCODER, merging_blocks=1, widths=(16, 16)))
    return save_normalizer(model, benchmark / "target.png", path, {"data": {"target": "noor"}})


@pytest.fixture
def photographs(tiny_benchmark, tmp_path):
    """Three faces in two folders, a picture that is none, a damaged file, and a video of two
    frames."""
    root = tmp_path / "photographs"
    faces = Rendered(tiny_benchmark).originals
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


def predict(folder, benchmark, reader, weights):
    """Reads one aligned face."""
    picture = next((benchmark / "images").rglob("*.*"))
    counts = predict_tree(
        picture, folder / "out", WholeImage(), readers=[reader], weights=weights, progress=False
    )
    assert counts["aligned"] == 1


def test_every_face_gets_a_row_and_every_failure_is_counted(networks, photographs, tmp_path):
    readers, weights = networks
    counts = predict_tree(
        photographs,
        tmp_path / "out",
        WholeImage(),
        readers=readers,
        weights=weights,
        batch_size=2,
        progress=False,
    )
    assert counts["aligned"] == 5 and counts["unreadable"] == 2
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    assert tuple(table.columns[: len(PLACES)]) == PLACES
    assert list(table.columns[len(PLACES) :]) == [
        "AU06",
        "AU12",
        "AU12_intensity",
        "emotion",
        "neutral",
        "happy",
    ]
    unread = table[table["status"] != "aligned"]
    assert set(unread["source"]) == {"wide.png", "damaged.jpg"}
    assert unread[["AU06", "AU12_intensity", "emotion", "x0"]].isna().all(axis=None)
    table = table[table["status"] == "aligned"]
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
        readers=readers[:1],
        weights=weights,
        progress=False,
    )
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    assert table["source"].tolist() == ["two.png"]
    normalizer, target, _ = load_normalizer(weights)
    face = read_face(photographs / "a/two.png", 112)[None]
    model, _ = load_classifier(readers[0])
    expected = predict_faces(
        model,
        face,
        normalize_faces(normalizer, target, face),
        task_of("au_detection", TASKS["au_detection"]),
    )
    np.testing.assert_allclose(table[["AU06", "AU12"]].to_numpy(), expected, atol=2e-4)
    normalized = read_face(tmp_path / "out/normalized/two.png", 112)
    np.testing.assert_array_equal(normalized, normalize_faces(normalizer, target, face)[0])


def test_readers_of_one_backbone_share_what_it_sees(tmp_path, tiny_benchmark, monkeypatch):
    torch.manual_seed(1)
    first = Classifier(
        ClassifierConfig(("AU06", "AU12"), inputs="both", encoder=ENCODER, hidden=16)
    ).eval()
    second = Classifier(
        ClassifierConfig(("neutral", "happy"), inputs="original", encoder=ENCODER, hidden=16)
    ).eval()
    other = Classifier(
        ClassifierConfig(("AU12",), inputs="normalized", encoder=ENCODER, hidden=16)
    ).eval()
    second.encoder.load_state_dict(first.encoder.state_dict())
    second.expression.load_state_dict(first.expression.state_dict())
    models = {"au_detection": first, "emotion": second, "au_intensity": other}
    paths = [
        save_classifier(model, tmp_path / f"{task}.safetensors", {"task": task})
        for task, model in models.items()
    ]
    readers = [load_reader(str(path)) for path in paths]
    originals = Rendered(tiny_benchmark).originals[:4]
    alone = pd.concat([read_table([r], originals, originals[::-1]) for r in readers], axis=1)
    calls, embed = [], Classifier.embed
    monkeypatch.setattr(
        Classifier,
        "embed",
        lambda self, images, face: calls.append(len(images)) or embed(self, images, face),
    )
    pd.testing.assert_frame_equal(read_table(readers, originals, originals[::-1]), alone)
    assert calls == [4, 4, 4], "both pictures by the first backbone, one by the other"


def test_weights_that_do_not_say_their_task_are_refused(tmp_path):
    path = save_classifier(
        Classifier(ClassifierConfig(("AU12",), inputs="both", encoder=ENCODER, hidden=16)),
        tmp_path / "old.safetensors",
        {},
    )
    with pytest.raises(CheckpointError, match="does not say their task"):
        load_reader(str(path))


def test_a_second_call_reads_the_same_faces_again(networks, photographs, tmp_path):
    readers, weights = networks

    def call():
        predict_tree(
            photographs,
            tmp_path / "out",
            WholeImage(),
            readers=readers,
            weights=weights,
            progress=False,
        )

    call()
    before = (tmp_path / "out/predictions.csv").read_bytes()
    shutil.rmtree(tmp_path / "out/normalized")
    call()
    assert (tmp_path / "out/predictions.csv").read_bytes() == before
    assert len(list((tmp_path / "out/normalized").rglob("*.png"))) == 5


def test_a_classifier_brings_its_normalizer_unless_one_is_named(networks, tmp_path):
    reader, weights = networks[0][0], networks[1]
    assert normalizer_for([str(reader)]) == str(weights)
    assert normalizer_for(["tiny-photo-reader", "tiny-au"]) == "tiny"
    assert normalizer_for(["tiny-photo-224-au"]) == "tiny-photo-224"
    assert normalizer_for(["tiny-photo-reader"]) == normalizer_for([]) == NORMALIZER
    alone = tmp_path / reader.name
    for suffix in (".safetensors", ".json"):
        shutil.copy(reader.with_suffix(suffix), alone.with_suffix(suffix))
    assert normalizer_for([str(alone)]) == NORMALIZER  # theirs is not there
    with pytest.raises(CheckpointError, match="nowhere"):
        normalizer_for(["nowhere"])


@pytest.mark.parametrize("kind", ["head alone", "whole, with a hash", "whole, without a hash"])
def test_a_reader_of_another_normalizer_is_refused(networks, tiny_benchmark, tmp_path, kind):
    other = save_untrained_normalizer(tmp_path / "other.safetensors", tiny_benchmark, seed=1)
    reader = networks[0][0]
    if kind != "head alone":  # as files were before heads were saved alone
        model, card = load_classifier(reader)
        about = {"task": "au_detection"}
        if kind == "whole, with a hash":
            about["normalizer"] = card["normalizer"]["sha256"]
        reader = save_classifier(model, tmp_path / "old.safetensors", about)
        card_path = reader.with_suffix(".json")
        card = json.loads(card_path.read_text())
        del card["backbone"], card["fingerprint"]
        card_path.write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"belongs to another normalizer than .*other"):
        predict(tmp_path, tiny_benchmark, reader, other)
    predict(tmp_path, tiny_benchmark, reader, networks[1])


@pytest.mark.parametrize(
    ("inputs", "named", "fits"),
    [("both", True, False), ("original", True, True), ("both", False, True)],
)
def test_a_reader_with_a_backbone_of_its_own_belongs_to_the_images_it_learned_from(
    networks, tiny_benchmark, tmp_path, inputs, named, fits
):
    other = save_untrained_normalizer(tmp_path / "other.safetensors", tiny_benchmark, seed=1)
    model = Classifier(ClassifierConfig(("AU12",), inputs=inputs, encoder=ENCODER, hidden=16))
    card = {"task": "au_detection"}
    path = tmp_path / "tuned.safetensors"
    reader = save_classifier(model, path, card, normalizer=networks[1] if named else None)
    if fits:
        predict(tmp_path, tiny_benchmark, reader, other)
    else:
        with pytest.raises(CheckpointError, match="belongs to another normalizer"):
            predict(tmp_path, tiny_benchmark, reader, other)
