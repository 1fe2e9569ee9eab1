"""Training and cross-validating classifiers of the three tasks, on images and on what a frozen
backbone sees."""

import contextlib
import copy
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.data import DataLoader

from norface_lib.datasets.pairs import ArrayDataset, Pairs, embed, embed_faces
from norface_lib.datasets.protocols import subject_folds
from norface_lib.images.arrays import LazyFaces, to_tensor, to_uint8
from norface_lib.networks.classifier import Classifier, ClassifierConfig, ClassifierHead
from norface_lib.networks.encoder import EncoderConfig, FaceEncoder
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.weights import load_classifier, save_classifier
from norface_lib.studies.cross_validation import cross_validate, difference
from norface_lib.studies.second_faces import views_with
from norface_lib.tasks.metrics import f1_per_label, icc3_1
from norface_lib.tasks.tasks import Detection, Emotion, Intensity
from norface_lib.training.classifier import (
    Recipe,
    inputs_of,
    predict,
    predict_rows,
    train_classifier,
)
from norface_lib.training.loop import TrainConfig

ENCODER = EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16))
TASK = Detection(("AU12",))
CPU = torch.device("cpu")


def recipe(task=TASK, inputs="both", steps=3, batch_size=8, **training):
    config = ClassifierConfig(
        task.outputs, inputs=inputs, encoder=ENCODER, hidden=16, experts=2, top_k=1
    )
    return Recipe(
        config=config, training=TrainConfig(steps=steps, batch_size=batch_size, **training)
    )


@pytest.fixture(scope="module")
def pairs():
    """Sixty pairs of twelve people in which the AU shows as brightness: in the normalized face
    alone."""
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 2, 60)
    originals = rng.integers(0, 256, (60, 112, 112, 3), np.uint8)
    normalized = np.clip(
        rng.normal(70 + 110 * wanted[:, None, None, None], 20, originals.shape), 0, 255
    ).astype(np.uint8)
    return Pairs(
        originals,
        normalized,
        wanted[:, None].astype(np.float32),
        np.repeat([f"S{k}" for k in range(12)], 5),
    )


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return Normalizer(NormalizerConfig(encoder=ENCODER, merging_blocks=1, widths=(16, 16))).eval()


@pytest.fixture(scope="module")
def seen(pairs, backbone):
    return embed(pairs, backbone, batch_size=25)


def cross_validated(pairs, inputs):
    settings = recipe(inputs=inputs, steps=25, batch_size=16, learning_rate=3e-3, average=0.5)
    return cross_validate(pairs, subject_folds(pairs.subjects, 2), TASK, settings, progress=False)


def test_a_classifier_sees_what_its_input_shows(pairs):
    bright, dark = cross_validated(pairs, "normalized"), cross_validated(pairs, "original")
    assert bright.score > 0.95
    assert dark.score < 0.85
    assert bright.per_fold.shape == (1, 2, 1) and not np.isnan(bright.predictions).any()
    assert bright.as_dict()["per_label"]["AU12"] == pytest.approx(bright.score)
    assert difference(bright, dark)["value"] == pytest.approx(bright.score - dark.score)


@pytest.mark.parametrize(("logged", "rate"), [(4.0, 2 * 2 * 3 * 16 / 16.0), (0.2, None)])
def test_images_a_second_are_those_of_the_logs(seen, tmp_path, monkeypatch, logged, rate):
    monkeypatch.setattr(
        "norface_lib.studies.cross_validation.logged_seconds",
        lambda log: logged if log.is_file() else None,
    )
    settings = recipe(inputs="both", steps=3, batch_size=16)
    folds = subject_folds(seen.subjects, 2)
    found = cross_validate(
        seen, folds, TASK, settings, seeds=(0, 1), folder=tmp_path, progress=False
    )
    assert found.as_dict()["images_per_second"] == rate


@pytest.mark.parametrize("is_balanced", [False, True])
def test_test_rows_never_reach_training(pairs, is_balanced):
    """Absurd labels outside the training fold would give other weights if they were trained on."""
    settings = replace(recipe(), balanced=is_balanced)
    train, test = subject_folds(pairs.subjects, 3)[0]
    poisoned = pairs.labels.copy()
    poisoned[test] = 1e9
    first = train_classifier(pairs.labeled(poisoned), train, TASK, settings, progress=False)
    second = train_classifier(pairs, train, TASK, settings, progress=False)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("term", ["importance", "load"])
def test_the_auxiliary_losses_reach_the_gates(pairs, term):
    """The same training with another weight of a term ends in other gates."""
    settings = recipe(average=0.0).with_config(experts=3, top_k=2)
    gates = []
    for weight in (0.0, 10.0):
        weighted = replace(settings, **{term: weight})
        model = train_classifier(pairs, np.arange(60), TASK, weighted, progress=False)
        gates.append(model.head.input_stage.gate.clean.weight)
    assert not torch.equal(*gates)


def test_only_a_backbone_that_is_trained_is_compiled(pairs, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module)))
    for compile in (False, True):
        settings = replace(recipe(steps=1), compile=compile)
        train_classifier(pairs, np.arange(16), TASK, settings, progress=False)
    assert compiled == [FaceEncoder]


@pytest.mark.slow  # the compiler
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++ on a CPU")
def test_a_compiled_training_is_saved_resumed_and_tested_as_a_plain_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (2, 16, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 2, (16, 1)).astype(np.float32)
    pairs = Pairs(*faces, labels, np.arange(16).astype(str))
    encoder = EncoderConfig(image_size=32, dim=8, depth=1, heads=1, stem=())
    plain = recipe(steps=2, batch_size=16, amp=False, checkpoint_seconds=0.0)
    plain = plain.with_config(encoder=encoder, drop_path_rate=0.0)
    compiled = replace(plain, compile=True)
    how = {"rows": np.arange(16), "task": TASK, "device": "cpu", "progress": False}

    first = train_classifier(pairs, recipe=plain, **how)
    second = train_classifier(pairs, recipe=compiled, folder=tmp_path, **how)
    assert second.encoder._compiled_call_impl is not None
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, atol=1e-4, rtol=1e-3)
    rows = np.arange(16)
    expected = predict_rows(first, pairs, rows, TASK)
    np.testing.assert_allclose(predict_rows(second, pairs, rows, TASK), expected, atol=1e-3)

    path = save_classifier(second, tmp_path / "compiled.safetensors", {})
    loaded, _ = load_classifier(path)
    np.testing.assert_allclose(predict_rows(loaded, pairs, rows, TASK), expected, atol=1e-3)
    # the checkpoint is that of a plain network, too
    again = train_classifier(pairs, recipe=plain, folder=tmp_path, **how)
    torch.testing.assert_close(again.state_dict(), second.state_dict(), rtol=0, atol=0)


def test_looking_at_the_test_rows_changes_no_weight(pairs, seen, tmp_path):
    train, test = subject_folds(pairs.subjects, 3)[0]
    settings = recipe(steps=6, watch_every=2)
    plain = train_classifier(
        seen, train, TASK, settings, folder=tmp_path / "plain", progress=False, tested=test
    )
    assert "test" not in (tmp_path / "plain" / "classifier.jsonl").read_text()
    settings = replace(settings, watch=True)
    watched = train_classifier(
        seen, train, TASK, settings, folder=tmp_path, progress=False, tested=test
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    looks = [json.loads(line) for line in (tmp_path / "classifier.jsonl").read_text().splitlines()]
    assert [row["step"] for row in looks if "test" in row] == [5, 6]


def test_a_start_from_an_encoder_is_a_copy(pairs):
    start = Normalizer(NormalizerConfig(encoder=ENCODER, merging_blocks=1, widths=(16, 16)))
    before = start.encoder.state_dict()["vit.pos_embed"].clone()
    model = train_classifier(
        pairs, np.arange(30), TASK, recipe(steps=1), start=start, progress=False
    )
    assert torch.equal(start.encoder.state_dict()["vit.pos_embed"], before)
    assert torch.allclose(model.encoder.state_dict()["vit.pos_embed"], before, atol=0.01)


def test_embedded_pairs_are_what_the_backbone_sees(pairs, seen, backbone):
    assert seen.originals.shape == seen.normalized.shape == (2, 60, 32)
    with torch.inference_mode():
        image = to_tensor(pairs.normalized[40:41])
        for view, face in enumerate((image, image.flip(3))):
            alone = backbone.expression(backbone.encoder(face))[0]
            torch.testing.assert_close(seen.normalized[view, 40], alone, atol=1e-4, rtol=1e-3)


def test_a_frozen_backbone_stays_and_its_classifier_reads_images_alike(pairs, seen, backbone):
    rows = np.arange(30)
    model = train_classifier(seen, rows, TASK, recipe(), progress=False)
    for name, values in (model.encoder.state_dict() | model.expression.state_dict()).items():
        owner = backbone.encoder if name in backbone.encoder.state_dict() else backbone.expression
        assert torch.equal(values, owner.state_dict()[name]), name
    cached, drawn = (
        predict_rows(model, seen, rows, TASK),
        predict(model, pairs.originals[rows], pairs.normalized[rows], TASK),
    )
    np.testing.assert_allclose(cached, drawn, atol=1e-4)


def test_augmented_embeddings_are_mirrored_pairs(seen):
    rows = np.arange(60)
    views = inputs_of(seen[rows], CPU, augmented=True)
    mirror = [
        (batch == side[1]).all(dim=1)
        for batch, side in zip(views, (seen.originals, seen.normalized), strict=True)
    ]
    assert torch.equal(*mirror) and 10 < mirror[0].sum() < 50
    plain = inputs_of(seen[rows], CPU)
    assert torch.equal(plain[0], seen.originals[0]) and torch.equal(plain[1], seen.normalized[0])


def test_geometry_is_changed_alike_and_light_apart(pairs):
    """The same picture given as both: what moves moves in both, so edges stay together while
    brightness does not."""
    rng = np.random.default_rng(0)
    faces = np.repeat(np.repeat(rng.integers(60, 200, (8, 14, 14, 3), np.uint8), 8, 1), 8, 2)
    twice = Pairs(faces, faces, np.zeros((8, 1), np.float32), np.arange(8).astype(str))
    torch.manual_seed(0)
    original, normalized = inputs_of(twice[np.arange(8)], CPU, augmented=True)
    moved = (normalized - to_tensor(faces)).abs().mean()
    assert moved > 0.02 and (original - normalized).abs().mean() > 0.01
    for one, other in zip(original.mean(1), normalized.mean(1), strict=True):
        agreement = np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1]
        assert agreement > 0.97


@contextlib.contextmanager
def inputs_noted(kind):
    """A list that fills with the two inputs of each pass through a network of some kind."""
    noted = []

    def note(module, inputs):
        if isinstance(module, kind):
            noted.append([value.detach().clone() for value in inputs])

    handle = register_module_forward_pre_hook(note)
    try:
        yield noted
    finally:
        handle.remove()


def test_classifiers_are_trained_on_augmented_images(pairs):
    """All faces are one picture, dark on its left: in training it is mirrored, moved and lit."""
    face = np.full((112, 112, 3), 200, np.uint8)
    face[:, :40] = 20
    faces = np.repeat(face[None], 30, axis=0)
    alike = Pairs(faces, faces, pairs.labels[:30], pairs.subjects[:30])
    with inputs_noted(Classifier) as noted:
        train_classifier(alike, np.arange(30), TASK, recipe(steps=4), progress=False)

    originals, normalized = map(torch.cat, zip(*noted, strict=True))
    plain = to_tensor(face)[0]
    dark_right = normalized[..., -20:].mean((1, 2, 3)) < normalized[..., :20].mean((1, 2, 3))
    assert 0 < dark_right.sum() < len(normalized), "half of the pairs are mirrored"
    unmirrored = normalized[~dark_right]
    assert (unmirrored - plain).abs().flatten(1).amax(1).min() > 0.1, "each is moved a little"
    assert (originals.mean((1, 2, 3)) - normalized.mean((1, 2, 3))).std() > 0.02, "light changes"


def test_heads_are_trained_on_faces_and_mirror_images(seen):
    marked = torch.stack([torch.zeros(60, 32), torch.ones(60, 32)])
    faces = replace(seen, originals=marked, normalized=marked)
    with inputs_noted(ClassifierHead) as noted:
        train_classifier(faces, np.arange(30), TASK, recipe(steps=10), progress=False)
    mirrored = torch.cat([originals[:, 0] for originals, _ in noted])
    assert 0.3 < mirrored.mean() < 0.7


def test_balance_is_that_of_the_training_rows(seen):
    """One training row in ten shows the AU, and every other row does: each batch is half and
    half."""
    rows = np.arange(30)
    labels = np.ones((60, 1), np.float32)
    labels[rows] = (rows % 10 == 0)[:, None]
    marked = torch.from_numpy(labels).expand(60, 32).expand(2, 60, 32)
    faces = replace(seen, originals=marked, normalized=marked, labels=labels)
    settings = replace(recipe(steps=20, batch_size=30), balanced=True)
    with inputs_noted(ClassifierHead) as noted:
        train_classifier(faces, rows, TASK, settings, progress=False)
    positive = torch.cat([originals[:, 0] for originals, _ in noted])
    assert positive.mean() == pytest.approx(0.5, abs=0.07)


def test_pairs_are_ordinary_datasets(pairs, seen):
    """One row, an array of rows, and whatever a plain loader makes of them, are the same."""
    rows = np.array([7, 3, 40, 8])
    for data in (pairs, seen):
        batch = data[rows]
        items = [data[int(row)] for row in rows]
        (collated,) = DataLoader(data, batch_size=4, sampler=rows.tolist())
        for whole, parts, loaded in zip(batch, zip(*items, strict=True), collated, strict=True):
            assert torch.equal(whole, torch.stack(parts)) and torch.equal(whole, loaded)
    assert pairs[0].originals.dtype == torch.uint8


def test_faces_in_files_are_read_by_batches_alone(pairs, tmp_path):
    asked = []

    class Mapped:
        """Faces in a file, which notes for how many it is asked."""

        def __init__(self, name):
            np.save(tmp_path / f"{name}.npy", getattr(pairs, name))
            self.faces = np.load(tmp_path / f"{name}.npy", mmap_mode="r")

        def __len__(self):
            return len(self.faces)

        def __getitem__(self, rows):
            found = self.faces[rows]
            asked.append(len(found))
            return found

    mapped = Pairs(Mapped("originals"), Mapped("normalized"), pairs.labels, pairs.subjects)
    rows = np.arange(40)
    model = train_classifier(mapped, rows, TASK, recipe(), progress=False)
    found = predict_rows(model, mapped, rows, TASK, batch_size=16)
    assert max(asked) <= 16
    np.testing.assert_allclose(found, predict_rows(model, pairs, rows, TASK), atol=1e-5)


def test_lazy_faces_are_those_of_their_sources(pairs):
    both = LazyFaces([pairs.originals, pairs.normalized], np.array([59, 0, 60, 119]))
    assert both.shape == (4, 112, 112, 3)
    whole = [pairs.originals[59], pairs.originals[0], pairs.normalized[0], pairs.normalized[59]]
    np.testing.assert_array_equal(both[:], whole)
    np.testing.assert_array_equal(both[np.array([3, 1])], [whole[3], whole[1]])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("frozen", [True, False])
def test_an_interrupted_training_ends_with_the_same_weights(
    pairs, seen, backbone, frozen, tmp_path, monkeypatch
):
    data = seen if frozen else pairs
    settings, rows = replace(recipe(steps=6, checkpoint_seconds=0), balanced=True), np.arange(30)
    whole = train_classifier(data, rows, TASK, settings, start=backbone, progress=False)
    steps = []
    read = type(data).__getitem__

    def stops(*arguments):
        steps.append(len(steps))
        if len(steps) == 4:
            raise Interrupted
        return read(*arguments)

    monkeypatch.setattr(type(data), "__getitem__", stops)
    for _ in range(2):
        with contextlib.suppress(Interrupted):
            resumed = train_classifier(
                data, rows, TASK, settings, start=backbone, folder=tmp_path, progress=False
            )
    assert len(steps) == 7  # the fourth is done twice
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_pairs_of_unlike_length_are_refused(pairs):
    with pytest.raises(ValueError, match="of one length"):
        Pairs(pairs.originals, pairs.normalized[:5], pairs.labels, pairs.subjects)
    with pytest.raises(ValueError, match="of one length, got 60, 5"):
        ArrayDataset(pairs.originals, pairs.labels[:5])


def test_a_network_for_other_labels_is_refused(seen):
    with pytest.raises(ValueError, match="are not the task's outputs"):
        train_classifier(seen, np.arange(30), Detection(("AU06",)), recipe(), progress=False)


# --- the three tasks, over seeds ------------------------------------------------------------------


@pytest.fixture(scope="module")
def readable(seen):
    """Embeddings in which two features tell the strength of two actions and, by the stronger, one
    of three classes."""
    rng = np.random.default_rng(1)
    strength = rng.integers(0, 6, (60, 2)).astype(np.float32)
    told = torch.zeros(2, 60, 32)
    told[:, :, :2] = torch.from_numpy(strength)
    classes = np.where((strength < 2).all(1), 0, 1 + strength.argmax(1)).astype(np.float32)[:, None]
    faces = replace(seen, originals=told, normalized=told + 0.01 * torch.randn(2, 60, 32))
    return faces, strength, classes


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "ccc", "ordinal", "mse+ccc"])
def test_intensities_are_learned_by_every_loss(readable, loss):
    faces, strength, _ = readable
    task = Intensity(("AU06", "AU12"), loss)
    settings = recipe(task, steps=50, batch_size=30, learning_rate=3e-2, average=0.8)
    found = cross_validate(
        faces.labeled(strength), subject_folds(faces.subjects, 2), task, settings, progress=False
    )
    assert found.score > 0.7, loss
    assert found.predictions.min() >= 0 and found.predictions.max() <= 5
    test = found.folds[0][1]
    np.testing.assert_allclose(
        found.per_fold[0, 0], icc3_1(found.predictions[0, test], strength[test])
    )
    assert {"mse", "mae", "pcc", "ccc"} == found.as_dict()["further"].keys()


def test_emotions_are_learned_and_scored_over_seeds(readable):
    faces, _, classes = readable
    task = Emotion(("neutral", "happy", "sad"))
    settings = replace(
        recipe(task, steps=50, batch_size=30, learning_rate=3e-2, average=0.8), balanced=True
    )
    folds = subject_folds(faces.subjects, 2)
    found = cross_validate(
        faces.labeled(classes), folds, task, settings, seeds=(0, 1), progress=False
    )
    assert found.score > found.constant_baseline + 0.1
    assert found.scores.shape == (2, 2) and found.per_fold.shape == (2, 2, 3)
    np.testing.assert_allclose(found.predictions.sum(-1), 1, atol=1e-5)
    test = folds[0][1]
    assert found.scores[0, 0] == pytest.approx(
        (found.predictions[0, test].argmax(1) == classes[test, 0]).mean()
    )
    low, high = found.interval
    assert low <= found.score <= high
    assert not np.array_equal(found.predictions[0], found.predictions[1])


def test_trainings_are_kept_and_choosing_on_the_test_rows_flatters(readable, tmp_path):
    faces, strength, _ = readable
    task = Detection(("AU06", "AU12"))
    labels = (strength >= 3).astype(np.float32)
    settings = recipe(task, steps=12, batch_size=30, learning_rate=3e-2, average=0.5, watch_every=6)
    settings = replace(settings, watch=True)
    folds = subject_folds(faces.subjects, 3)
    first, again = (
        cross_validate(
            faces.labeled(labels),
            folds,
            task,
            settings,
            seeds=(0, 1),
            folder=tmp_path,
            progress=False,
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.predictions, again.predictions)
    assert first.oracle["best_threshold"] >= first.score - 1e-9 and first.oracle["best_epoch"] > 0
    test = folds[0][1]
    np.testing.assert_allclose(
        first.per_fold[0, 0], f1_per_label(first.predictions[0, test], labels[test])
    )


def test_a_difference_needs_two_tested_subjects_for_its_interval(readable):
    faces, strength, _ = readable
    task = Detection(("AU06", "AU12"))
    labels = faces.labeled((strength >= 3).astype(np.float32))
    people = np.unique(faces.subjects)
    folds = [
        (np.flatnonzero(faces.subjects != name), np.flatnonzero(faces.subjects == name))
        for name in people[:2]
    ]
    one, other = (
        cross_validate(labels, folds, task, recipe(task, inputs), progress=False)
        for inputs in ("both", "original")
    )
    result = difference(one, other)
    assert result["subjects"] is None and result["value"] == one.score - other.score
    assert result["trainings"][0] <= result["value"] <= result["trainings"][1]


def test_embeddings_are_kept_in_a_file_and_taken_from_it(
    pairs, backbone, seen, tmp_path, monkeypatch
):
    kept = tmp_path / "embedded.safetensors"
    first = embed(pairs, backbone, keep=kept)
    # the second call must not look at a face
    monkeypatch.setattr("norface_lib.datasets.pairs._embedded_batches", None)
    second = embed(pairs, backbone, keep=kept)
    for made in (first, second):
        torch.testing.assert_close(made.originals, seen.originals, atol=1e-4, rtol=1e-4)
        assert np.array_equal(made.labels, pairs.labels)
    assert torch.equal(first.normalized, second.normalized)
    monkeypatch.undo()
    expected = first.normalized.clone()  # what is mapped into memory goes with its file
    for damage in (b"", b"damaged" * 9, kept.read_bytes()[:-5]):
        kept.unlink()
        kept.write_bytes(damage)
        assert torch.equal(embed(pairs, backbone, keep=kept).normalized, expected)


def test_second_faces_are_embedded_in_a_file_for_each_backbone(
    pairs, backbone, seen, tmp_path, monkeypatch
):
    """The neutral target in place of the normalized face, as two normalizers' backbones see it."""
    other = copy.deepcopy(backbone)
    other.expression.narrow.weight.data.mul_(2)
    views = [seen, replace(seen, backbone=other), seen]
    target = torch.rand(1, 3, 112, 112)
    prepared = SimpleNamespace(
        views=views, pairs=pairs, normalizer=backbone, target=target, faces=tmp_path, key="these"
    )
    made = views_with("neutral", prepared)
    files = sorted(tmp_path.glob("embedded-neutral-*-these.safetensors"))
    assert len(files) == 2 and made[0] is made[2]
    face = np.broadcast_to(to_uint8(target), pairs.originals.shape)
    for view, network in zip(made, (backbone, other), strict=False):
        assert view.originals is seen.originals
        torch.testing.assert_close(view.normalized, embed_faces(face, network))

    # a second call must not look at a face
    monkeypatch.setattr("norface_lib.datasets.pairs._embedded_batches", None)
    again = views_with("neutral", prepared)
    assert all(torch.equal(a.normalized, b.normalized) for a, b in zip(again, made, strict=True))
