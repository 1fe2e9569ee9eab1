"""The synthesis stage: terms, batches of both kinds, several targets, the watch, and the leakage
switch."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.studio import Studio
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import to_tensor
from norface_lib.networks.discriminator import Discriminator
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.evaluator import Evaluator, EvaluatorConfig
from norface_lib.networks.normalizer import PRESETS, Normalizer, NormalizerConfig
from norface_lib.training import normalizer_recipe
from norface_lib.training.image_losses import gradient_l1, weighted_l1
from norface_lib.training.leakage import normalizers_of_folds
from norface_lib.training.normalizer import (
    NormalizerTraining,
    fine_tune,
    standardized_codes,
    train_normalizer,
)
from norface_lib.training.normalizer_losses import Sources, SynthesisLoss, SynthesisNetwork
from norface_lib.training.normalizer_recipe import Watch
from norface_lib.training.normalizer_terms import LossWeights, SynthesisTerms, terms_of

SMALL = NormalizerConfig(
    encoder=EncoderConfig(image_size=112, dim=32, depth=1, heads=2, stem=(16, 16)),
    merging_blocks=1,
    widths=(16, 16),
)
CPU = torch.device("cpu")
NOTHING = LossWeights(reconstruction=0, edge=0, reading=0)


class Brightness(nn.Module):
    """Stands in for a frozen network: embeds an image by its mean colors."""

    def embed(self, images):
        return images.mean((2, 3))

    def features(self, images):
        return (images,)


@pytest.fixture(scope="module")
def data(tiny_benchmark):
    return Rendered(tiny_benchmark)


@pytest.fixture(scope="module")
def two_targets(tmp_path_factory):
    spec = BenchmarkSpec(pool="pretrain", subjects=2, frames=4, target="noor+ada")
    return Rendered(write_benchmark(spec, tmp_path_factory.mktemp("two"), 1, progress=False))


@pytest.fixture
def network(data):
    torch.manual_seed(0)
    normalizer = Normalizer(SMALL)
    with torch.no_grad():
        normalizer.decoder.draw[2].weight.normal_(0, 0.05)
    return SynthesisNetwork(normalizer, nn.Linear(32, standardized_codes(data)[0].shape[1]))


@pytest.fixture
def frozen(monkeypatch):
    monkeypatch.setattr(
        "norface_lib.training.normalizer_losses.frozen_network", lambda spec: Brightness()
    )


def step(loss, network, rows):
    """The loss of some rows, and its figures."""
    return loss(network, loss.sources[np.asarray(rows)])


def loss_of(data, weights, **settings):
    codes, _ = standardized_codes(data)
    return SynthesisLoss(
        Sources(data.targets, data),
        codes,
        SynthesisTerms(weights=weights, **settings),
        PRESETS["tiny"],
        CPU,
    )


def test_frames_take_turns_at_the_targets(two_targets):
    assert two_targets.names == ("noor", "ada") and two_targets.targets.shape == (2, 112, 112, 3)
    assert two_targets.target_of.tolist() == [0, 1] * 4
    assert (two_targets.targets[1] == Studio(112, "ada").neutral()).all()
    distance = np.abs(two_targets.truths[:, None].astype(int) - two_targets.targets[None]).mean(
        (2, 3, 4)
    )
    assert (distance.argmin(1) == two_targets.target_of).all(), (
        "a true image resembles its own target most"
    )
    assert two_targets.select(np.array([1, 2])).target_of.tolist() == [1, 0]


def test_a_pool_of_one_target_has_no_column_for_it(data):
    assert "target" not in data.table.columns and not data.target_of.any()


@pytest.mark.parametrize("target", ["zoe", "noor+zoe", "noor+noor", ""])
def test_unknown_targets_are_refused(target):
    with pytest.raises(ValueError, match="target must be of noor"):
        BenchmarkSpec(target=target)


def test_the_total_is_the_weighted_sum_of_the_terms(data, network):
    loss = loss_of(data, LossWeights(reconstruction=2.0, edge=3.0, reading=0.5))
    rows = np.arange(6)
    torch.manual_seed(1)
    total, figures = step(loss, network, rows)
    assert total.item() == pytest.approx(
        2 * figures["reconstruction"] + 3 * figures["edge"] + 0.5 * figures["reading"], rel=1e-5
    )
    torch.manual_seed(1)
    batch = loss.batch(loss.sources[rows])
    drawn = network.normalizer(batch.originals, loss.targets)
    assert figures["reconstruction"] == pytest.approx(
        weighted_l1(drawn, batch.truths, loss.pixel_weights, 0.05).item(), rel=1e-4
    )
    assert figures["edge"] == pytest.approx(gradient_l1(drawn, batch.truths).item(), rel=1e-4)
    neutral = (loss.targets - batch.truths).abs().mean()
    assert figures["to_neutral"] == pytest.approx(
        ((drawn - batch.truths).abs().mean() / neutral).item(), rel=1e-4
    )


def test_each_true_image_is_compared_with_its_own_targets_drawing(two_targets, network):
    loss = loss_of(two_targets, LossWeights(reconstruction=1.0, edge=0, reading=0), softness=0.0)
    nn.init.zeros_(network.normalizer.decoder.draw[2].weight)  # draws the neutral target
    _, figures = step(loss, network, torch.arange(8))
    assert figures["to_neutral"] == pytest.approx(1, rel=1e-4)
    assert loss.pixel_weights.shape == (2, 1, 112, 112) and not torch.equal(*loss.pixel_weights)


def test_a_mixed_batch_holds_its_share_of_faces_without_a_true_image(data):
    faces = np.full((5, 112, 112, 3), 7, np.uint8)
    codes, _ = standardized_codes(data)
    loss = SynthesisLoss(
        Sources(data.targets, data, faces),
        codes,
        SynthesisTerms(unpaired_share=0.25),
        PRESETS["tiny"],
        CPU,
    )
    rows = loss.choose(torch.arange(8), torch.Generator().manual_seed(0))
    batch = loss.batch(loss.sources[rows.numpy()])
    assert len(batch.originals) == 8 and len(batch.truths) == len(batch.codes) == 6
    assert torch.equal(batch.truths, to_tensor(data.truths[:6]))
    flat = batch.originals.flatten(2).std(2).amax(1) < 1e-4
    assert flat.tolist() == [False] * 6 + [True] * 2


def test_terms_without_a_true_image(data, network, frozen):
    faces = data.originals[:6]
    weights = replace(NOTHING, expression=1.0, identity=1.0, self_reconstruction=1.0)
    loss = SynthesisLoss(
        Sources(data.targets, faces=faces),
        None,
        SynthesisTerms(weights=weights),
        PRESETS["tiny"],
        CPU,
    )
    total, figures = step(loss, network, torch.arange(6))
    assert set(figures) == {"expression", "identity", "self_reconstruction"}
    assert total.item() == pytest.approx(sum(figures.values()), rel=1e-5)
    nn.init.zeros_(network.normalizer.decoder.draw[2].weight)
    _, neutral = step(loss, network, torch.arange(6))
    assert neutral["self_reconstruction"] == pytest.approx(0, abs=1e-6) and neutral[
        "identity"
    ] == pytest.approx(0, abs=1e-5)
    assert neutral["expression"] > 0.001


def test_the_perceptual_term_looks_through_its_network(data, network, frozen):
    _, figures = step(loss_of(data, replace(NOTHING, perceptual=1.0)), network, torch.arange(4))
    assert set(figures) == {"perceptual", "to_neutral"} and figures["perceptual"] > 0


def test_the_two_sides_of_the_adversarial_game_do_not_mix(data, network):
    network.discriminator = Discriminator()
    loss = loss_of(data, replace(NOTHING, adversarial=1.0, r1=0.5))
    total, figures = step(loss, network, torch.arange(4))
    assert set(figures) == {"adversarial", "discriminator", "r1", "to_neutral"}
    total.backward()
    drawn = [p.grad for p in network.normalizer.decoder.parameters()]
    judged = [p.grad for p in network.discriminator.parameters()]
    assert all(g is not None and g.abs().sum() > 0 for g in drawn[-2:] + judged[:2])
    network.zero_grad()
    step(loss_of(data, replace(NOTHING, adversarial=1.0)), network, torch.arange(4))
    assert all(p.requires_grad for p in network.discriminator.parameters())


def test_the_drawn_face_does_not_train_the_discriminator_to_like_it(data, network):
    """A step of the discriminator alone and one of the whole game move it alike."""
    torch.manual_seed(0)
    network.discriminator = Discriminator().eval()  # power iterations stand still
    loss, drawn = (
        loss_of(data, replace(NOTHING, adversarial=1.0)),
        torch.rand(4, 3, 112, 112, requires_grad=True),
    )
    terms = dict(
        loss._adversarial(network.discriminator, loss.batch(loss.sources[np.arange(4)]), drawn)
    )
    wanted = torch.autograd.grad(
        terms["discriminator"], list(network.discriminator.parameters()), retain_graph=True
    )
    (terms["discriminator"] + terms["adversarial"]).backward()
    for parameter, gradient in zip(network.discriminator.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert drawn.grad.abs().sum() > 0


def test_wrong_settings_are_refused(data):
    with pytest.raises(ValueError, match="at least 0: edge"):
        LossWeights(edge=-1.0)
    with pytest.raises(ValueError, match="pairs or faces"):
        Sources(data.targets)
    with pytest.raises(ValueError, match="unpaired_share"):
        SynthesisTerms(unpaired_share=1.0)
    with pytest.raises(ValueError, match="at least one step"):
        NormalizerTraining.of_steps(1, 0)


def test_terms_by_text():
    terms = terms_of(["perceptual=0.1", "edge=2"], ["identity=onnx:face.onnx"])
    assert (
        terms.weights == LossWeights(perceptual=0.1, edge=2.0)
        and terms.identity_network == "onnx:face.onnx"
    )
    assert terms_of([], []) == SynthesisTerms()
    for weights, networks in (
        (["sharpness=1"], []),
        (["edge"], []),
        (["edge=much"], []),
        ([], ["eyes=evaluator"]),
    ):
        with pytest.raises(ValueError, match=r"NAME=VALUE|could not convert"):
            terms_of(weights, networks)


def test_a_training_with_every_stage_and_both_kinds_of_faces_resumes_exactly(
    two_targets, tmp_path, frozen, monkeypatch
):
    weights = LossWeights(
        perceptual=0.1,
        expression=0.1,
        identity=0.1,
        self_reconstruction=0.1,
        adversarial=0.1,
        r1=0.1,
    )
    recipe = NormalizerTraining.of_steps(2, 4, masked=2, terms=SynthesisTerms(weights=weights))
    recipe = replace(
        recipe,
        **{
            name: replace(stage, batch_size=4, checkpoint_seconds=0.0)
            for name, stage in recipe.stages.items()
        },
    )
    faces = two_targets.originals[:3]
    whole = train_normalizer(
        two_targets, SMALL, recipe, folder=tmp_path / "whole", progress=False, faces=faces
    )

    class Stopped(Exception):
        pass

    def stop_at_three(model, step):
        raise Stopped

    watched = replace(recipe, synthesis=replace(recipe.synthesis, watch_every=3))
    watched_whole = train_normalizer(
        two_targets, SMALL, watched, folder=tmp_path / "watched", progress=False, faces=faces
    )
    with pytest.raises(Stopped):
        train_normalizer(
            two_targets,
            SMALL,
            watched,
            folder=tmp_path / "cut",
            progress=False,
            faces=faces,
            watch=stop_at_three,
        )
    resumed = train_normalizer(
        two_targets, SMALL, watched, folder=tmp_path / "cut", progress=False, faces=faces
    )
    for key, value in whole.state_dict().items():
        assert torch.equal(value, watched_whole.state_dict()[key]) and torch.equal(
            value, resumed.state_dict()[key]
        ), key


def test_the_watch_tells_a_collapsed_network_from_a_good_one(data, network, tmp_path):
    torch.manual_seed(0)
    evaluator = Evaluator(EvaluatorConfig()).eval()
    watch = Watch(data, tmp_path / "samples", evaluator)
    nn.init.zeros_(network.normalizer.decoder.draw[2].weight)
    found = watch(network.eval(), 7)
    assert found["held_out_to_neutral"] == pytest.approx(1)
    assert (
        found["au_error"] == pytest.approx(found["au_error_target"])
        and found["au_error_truth"] != found["au_error"]
    )
    assert (tmp_path / "samples" / "000007.png").stat().st_size > 10_000
    assert Watch(data, tmp_path, None)(network, 8).keys() == {"held_out_to_neutral"}


# --- the leakage switch ---------------------------------------------------------------------------


@pytest.mark.parametrize("leakage", ["pretrained", "per-fold", "all"])
def test_per_fold_never_reads_a_test_subject(leakage, data, network, frozen, monkeypatch):
    """Every face that a training touches is written down, by its place in the dataset."""
    subjects = np.unique(data.subjects)
    folds = [
        (np.flatnonzero(~(test := np.isin(data.subjects, part))), np.flatnonzero(test))
        for part in (subjects[:2], subjects[2:])
    ]
    read: list[set[int]] = []
    fine_tuned = fine_tune

    class Recorder:
        def __init__(self, rows):
            self.rows, self.shape = rows, data.originals[rows].shape

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            read[-1].update(self.rows[index].tolist())
            return data.originals[self.rows[index]]

    def noted(*arguments, **settings):
        read.append(set())
        return fine_tuned(*arguments, **settings)

    monkeypatch.setattr("norface_lib.training.leakage.fine_tune", noted)
    recipe = NormalizerTraining.of_steps(
        0,
        3,
        terms=SynthesisTerms(weights=replace(NOTHING, expression=1.0, self_reconstruction=1.0)),
    )
    recipe = replace(recipe, synthesis=replace(recipe.synthesis, batch_size=6))
    start = network.normalizer.eval()
    before = {key: value.clone() for key, value in start.state_dict().items()}
    found = normalizers_of_folds(
        leakage,
        start,
        folds,
        lambda rows: Sources(data.targets, faces=Recorder(rows)),
        recipe,
        progress=False,
    )
    assert len(found) == 2 and all(
        torch.equal(value, before[key]) for key, value in start.state_dict().items()
    )
    if leakage == "pretrained":
        assert read == [] and all(model is start for model in found)
    elif leakage == "all":
        assert read == [set(range(len(data)))] and found[0] is found[1] is not start
    else:
        assert [
            seen == set(train.tolist()) for seen, (train, _) in zip(read, folds, strict=True)
        ] == [True, True]
        assert found[0] is not found[1]


def test_an_unknown_setting_is_refused(network):
    with pytest.raises(ValueError, match="pretrained, per-fold, all"):
        normalizers_of_folds(
            "none", network.normalizer, [], lambda rows: None, NormalizerTraining.of_steps(0, 1)
        )


def test_fine_tuning_on_pairs_continues_from_the_weights(data, network, tmp_path):
    recipe = NormalizerTraining.of_steps(0, 2)
    start = network.normalizer.eval()
    tuned = fine_tune(start, Sources(data.targets, data), recipe, folder=tmp_path, progress=False)
    assert json.loads((tmp_path / "synthesis.jsonl").read_text().splitlines()[-1])["step"] == 2
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(tuned.parameters(), start.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 0.01


def test_the_evaluator_is_optional_while_training(monkeypatch, tmp_path, capsys, tiny_spec):
    monkeypatch.setattr(
        normalizer_recipe,
        "find_weights",
        lambda name: (_ for _ in ()).throw(normalizer_recipe.CheckpointError("none")),
    )
    spec = {"pool": "pretrain", "size": 112, "seed": 0, "target": "noor"}
    watch = normalizer_recipe._watch(spec, tmp_path)
    assert watch.evaluator is None and "no AU errors" in capsys.readouterr().out
    assert len(watch.faces) == 64
