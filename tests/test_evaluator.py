"""The evaluator: outputs, feature maps, what its losses leave out, training, weights on disk, the
command."""

import json
import math
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from norface_lib import labels
from norface_lib.common.errors import CheckpointError
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import to_tensor
from norface_lib.networks.evaluator import Evaluator, EvaluatorConfig, EvaluatorOutput
from norface_lib.networks.weights import load_evaluator, load_normalizer, save_evaluator
from norface_lib.training.evaluator import (
    UNNAMED,
    EvaluatorLabels,
    EvaluatorTraining,
    _emotion_loss,
    evaluator_outputs,
    reading_scores,
    train_and_save,
    train_evaluator,
    training_images,
)

SMALL = EvaluatorConfig(aus=(1, 12, 25), widths=(8, 8, 16, 16), hidden=16, dropout=0.0)


@pytest.fixture(scope="module")
def data(tiny_benchmark):
    return Rendered(tiny_benchmark, aus=SMALL.aus)


def with_emotions(data, names):
    changed = copy(data)
    changed.table = data.table.assign(emotion=names)
    return changed


def test_every_au_and_emotion_is_read_within_its_range():
    evaluator, images = Evaluator().eval(), torch.rand(2, 3, 112, 112)
    output = evaluator(images)
    assert output.occurrence.shape == output.intensity.shape == (2, len(labels.AUS))
    assert output.emotion.shape == (2, len(labels.EMOTIONS))
    assert EvaluatorConfig().aus == tuple(sorted(labels.AUS))
    with torch.no_grad():
        evaluator.heads["intensity"].bias.fill_(100.0)
    assert evaluator(images).intensity.max() == labels.INTENSITY_MAX
    assert evaluator.train()(images).intensity.max() > labels.INTENSITY_MAX  # gradients pass


def test_feature_maps_halve_and_pass_gradients():
    images = torch.rand(2, 3, 112, 112, requires_grad=True)
    maps = Evaluator(SMALL).eval().features(images)
    assert [tuple(each.shape) for each in maps] == [
        (2, 8, 28, 28),
        (2, 8, 14, 14),
        (2, 16, 7, 7),
        (2, 16, 4, 4),
    ]
    maps[-1].sum().backward()
    assert images.grad.abs().sum() > 0


def test_images_of_another_size_and_other_stages_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 3, 112, 112\), got \(1, 3, 96, 96\)"):
        Evaluator(SMALL)(torch.rand(1, 3, 96, 96))
    with pytest.raises(ValueError, match="four stages"):
        EvaluatorConfig(widths=(8, 8, 8))


def test_faces_without_an_emotion_take_no_part_in_its_loss(data):
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    output = EvaluatorOutput(logits, logits, logits)
    assert _emotion_loss(output, torch.tensor([0, UNNAMED, UNNAMED])).item() == pytest.approx(
        math.log1p(math.exp(-2))
    )
    assert _emotion_loss(output, torch.full((3,), UNNAMED)).item() == 0
    named = with_emotions(data, ["happy", None, "sad"] * 4)
    assert EvaluatorLabels.of(named, SMALL).emotions[:3].tolist() == [1, UNNAMED, 2]


def test_labels_come_in_the_order_of_the_config(data):
    backwards = replace(SMALL, aus=(25, 12, 1))
    ours, theirs = EvaluatorLabels.of(data, SMALL), EvaluatorLabels.of(data, backwards)
    assert torch.equal(ours.intensities, theirs.intensities.flip(1))
    assert torch.equal(
        ours.intensities[:, 1], torch.from_numpy(data.table["AU12"].to_numpy(np.float32))
    )
    assert torch.equal(ours.occurrences, (ours.intensities >= 1 - 1e-4).float())


@pytest.fixture(scope="module")
def bright(data):
    """Forty-eight even faces that are bright if AU12 shows; the true images tell it as the
    originals do."""
    rng = np.random.default_rng(0)
    smiles = rng.integers(0, 2, 48)
    faces = np.clip(
        rng.normal(70 + 110 * smiles[:, None, None, None], 10, (48, 112, 112, 3)), 0, 255
    ).astype(np.uint8)
    table = data.table.iloc[np.arange(48) % len(data)].assign(AU01=0.0, AU12=3.0 * smiles, AU25=0.0)
    table = table.assign(emotion=np.where(smiles, "happy", "sad"))
    return Rendered.from_arrays(table, originals=faces, truths=faces)


def test_what_is_learned_is_read_in_new_faces(bright):
    recipe = EvaluatorTraining.of_steps(25)
    recipe = replace(
        recipe, fit=replace(recipe.fit, batch_size=16, learning_rate=8e-3, average=0.0)
    )
    evaluator = train_evaluator(bright.select(np.arange(32)), SMALL, recipe, progress=False)
    held_out = bright.select(np.arange(32, 48))
    known = EvaluatorLabels.of(held_out, SMALL)
    scores = reading_scores(evaluator_outputs(evaluator, held_out.originals), known, SMALL)
    assert scores["f1"] > 0.9 and scores["icc"] > 0.4 and scores["emotion_accuracy"] > 0.9
    assert list(scores["f1_per_au"]) == ["AU12"]  # the others never occur there
    swapped = reading_scores(evaluator_outputs(evaluator, 250 - held_out.originals), known, SMALL)
    assert swapped["f1"] < 0.3


def test_training_begins_with_a_copy_of_given_weights(bright):
    start = Evaluator(SMALL)
    before = start.body.conv1.weight.detach().clone()
    recipe = EvaluatorTraining.of_steps(1)
    recipe = replace(recipe, fit=replace(recipe.fit, batch_size=16, learning_rate=1e-9))
    evaluator = train_evaluator(bright, SMALL, recipe, progress=False, start=start)
    assert torch.allclose(evaluator.body.conv1.weight, before, atol=1e-6) and torch.equal(
        start.body.conv1.weight, before
    )


def test_true_images_are_shown_as_they_are_and_originals_changed(data):
    originals = torch.from_numpy(data.originals[:6])
    truths = torch.from_numpy(data.truths[:6])
    true = torch.tensor([True, False] * 3)
    faces = training_images(originals, truths, true)
    assert torch.equal(faces[true], to_tensor(truths[true]))
    assert (faces[~true] - to_tensor(originals[~true])).abs().mean() > 0.01


def test_scores_agree_with_scikit_learn_and_batches_do_not_change_them(data):
    torch.manual_seed(0)
    evaluator = Evaluator(SMALL).eval()
    with torch.no_grad():  # calls an AU in about half of the faces, and none by a hair
        read = evaluator_outputs(evaluator, data.originals)
        evaluator.heads["occurrence"].bias -= read.occurrence.quantile(0.41, dim=0)
    whole, parts = (
        evaluator_outputs(evaluator, data.originals),
        evaluator_outputs(evaluator, data.originals, batch_size=5),
    )
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(whole, parts, strict=True))
    wanted = f1_score(
        data.occurrences(SMALL.aus), whole.occurrence >= 0, average=None, zero_division=0
    )
    scores = reading_scores(whole, EvaluatorLabels.of(data, SMALL), SMALL)
    wrong = np.abs(whole.intensity.numpy() - data.intensities(SMALL.aus)).mean()
    assert scores["intensity_error"] == pytest.approx(wrong, rel=1e-4)
    for name, value in scores["f1_per_au"].items():
        assert value == pytest.approx(wanted[labels.columns(SMALL.aus).index(name)])
    assert scores["emotion_accuracy"] is None  # frames of the lab show none


def test_training_needs_the_true_images(data):
    without = copy(data)
    without.truths = None
    with pytest.raises(ValueError, match="true normalized images"):
        train_evaluator(without, SMALL, EvaluatorTraining.of_steps(1))


def test_saved_evaluators_read_the_same(tmp_path):
    torch.manual_seed(0)
    evaluator, images = Evaluator(SMALL).eval(), torch.rand(2, 3, 112, 112)
    path = save_evaluator(evaluator, tmp_path / "mine.safetensors", {"license": "MIT"})
    again, card = load_evaluator(path)
    assert (
        again.config == SMALL
        and card["config"]["aus"] == [1, 12, 25]
        and card["kind"] == "evaluator"
    )
    # half precision
    assert torch.allclose(again(images).occurrence, evaluator(images).occurrence, atol=0.01)
    with pytest.raises(CheckpointError, match="of kind evaluator, not of kind normalizer"):
        load_normalizer(path)


def test_the_recipe_writes_weights_with_what_they_read(tiny_benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "norface_lib.training.evaluator.measure", lambda evaluator, folder: {"lab": {"faces": 0}}
    )
    path = train_and_save(tiny_benchmark, tmp_path, steps=2)
    evaluator, card = load_evaluator(path)
    assert path == tmp_path / "evaluator.safetensors" and not evaluator.training
    assert (
        card["data"]["subjects"] == 4
        and card["training"]["fit"]["steps"] == 2
        and card["measured"]["lab"] == {"faces": 0}
    )
    assert (
        len([json.loads(line) for line in (tmp_path / "evaluator.jsonl").read_text().splitlines()])
        == 2
    )
