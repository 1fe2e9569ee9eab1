"""What ablations are made of: a small backbone, other second faces, some people only, the use of
experts, and tables of many experiments."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from norface_lib.common.errors import DataError
from norface_lib.datasets.pairs import EmbeddedPairs
from norface_lib.images.files import read_face
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.encoder import MINI_SIZE, MiniEncoder
from norface_lib.networks.fusion import without_a_face
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.weights import load_classifier, save_classifier
from norface_lib.studies.cross_validation import of_some_people
from norface_lib.studies.experiment import Experiment
from norface_lib.studies.expert_usage import gates_of, usage
from norface_lib.studies.preparation import resized
from norface_lib.studies.recipes import input_size
from norface_lib.studies.second_faces import KINDS, views_with
from norface_lib.studies.sweep import Configuration
from norface_lib.studies.sweep_tables import across, read_results
from norface_lib.training.augmentation import two_views
from norface_lib.viz import plots

CONFIG = ClassifierConfig(labels=("AU01", "AU02"), backbone="mini", image_size=32, hidden=8)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def faces(count=6, size=32):
    return torch.rand(count, 3, size, size)


# --- networks -------------------------------------------------------------------------------------


def test_the_small_backbone_is_small_and_depends_on_every_pixel():
    encoder = MiniEncoder()
    assert 4e5 < sum(parameter.numel() for parameter in encoder.parameters()) < 6e5
    images = faces(2, MINI_SIZE).requires_grad_()
    embeddings = encoder(images)
    assert embeddings.shape == (2, CONFIG.dim) == (2, 128)
    (gradient,) = torch.autograd.grad(embeddings[0].square().sum(), images)
    assert (gradient[0] != 0).all() and (gradient[1] == 0).all()
    with pytest.raises(ValueError, match="takes images of shape"):
        encoder(faces(2, MINI_SIZE + 1))
    depths = encoder.layers()
    assert depths.keys() == dict(encoder.named_parameters()).keys()
    assert depths["network.0.weight"] == 0 and max(depths.values()) == 5


def test_a_small_classifier_is_saved_and_loaded(tmp_path):
    model = Classifier(CONFIG).eval()
    save_classifier(model, tmp_path / "mini.safetensors", {"task": "au_detection"})
    loaded, card = load_classifier(tmp_path / "mini.safetensors")
    assert card["backbone"] == "trained" and loaded.config == CONFIG
    torch.testing.assert_close(
        loaded(faces(), faces()).logits, model(faces(), faces()).logits, atol=1, rtol=1
    )
    with pytest.raises(ValueError, match="backbone mini cannot start from a normalizer"):
        model.start_from(None)


def test_input_sizes_are_those_of_the_networks():
    assert (
        input_size("mini") == MINI_SIZE == Classifier(replace(CONFIG, image_size=None)).image_size
    )
    assert input_size("frozen") is None and input_size("scratch") is None
    assert input_size("timm:test_resnet.r160_in1k") == 160


def test_own_backbones_read_one_face_each():
    model = Classifier(replace(CONFIG, shared=False)).eval()
    original, normalized = faces(), faces()
    before = model(original, normalized).logits
    torch.testing.assert_close(model.embed(original), model.encoder(original))
    assert not torch.equal(model.embed(original), model.embed(original, "normalized"))
    with torch.no_grad():
        for parameter in model.own.parameters():
            parameter.zero_()
    after = model(original, normalized).logits
    torch.testing.assert_close(after, model(original, faces()).logits)
    assert not torch.equal(before, after)
    assert Classifier(replace(CONFIG, shared=False, inputs="original")).own is None


def test_own_backbones_both_start_from_the_normalizer():
    normalizer = Normalizer(NormalizerConfig())
    config = ClassifierConfig(labels=("AU01",), encoder=normalizer.config.encoder, shared=False)
    model = Classifier(config)
    model.start_from(normalizer)
    images = faces(2, 112)
    torch.testing.assert_close(model.embed(images), model.embed(images, "normalized"))
    depth = model.group_matcher()
    for name, _ in model.encoder.named_parameters():
        assert depth(f"encoder.{name}") == depth(f"own.0.{name}")


def test_without_a_face_leaves_one_face_out_of_a_share():
    embeddings = torch.ones(10_000, 6)
    original, normalized = without_a_face(embeddings, 0.4).chunk(2, dim=1)
    gone = [(part == 0).all(dim=1) for part in (original, normalized)]
    assert all(part.float().mean() == pytest.approx(0.2, abs=0.02) for part in gone)
    assert not (gone[0] & gone[1]).any()
    kept = ~gone[0]
    assert (original[kept] == 1).all()
    assert torch.equal(without_a_face(embeddings, 0.0), embeddings)


def test_face_dropout_is_of_training_alone():
    model = Classifier(replace(CONFIG, face_dropout=0.9, dropout=0.0)).eval()
    inputs = faces(), faces()
    torch.testing.assert_close(model(*inputs).logits, model(*inputs).logits)
    plain = Classifier(replace(CONFIG, dropout=0.0)).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(*inputs).logits, model(*inputs).logits)
    with pytest.raises(ValueError, match="face_dropout must be within"):
        replace(CONFIG, face_dropout=1.0)


def test_two_views_of_one_face_differ_and_stay_faces():
    images = faces(8)
    first, second = two_views(images)
    assert first.shape == second.shape == images.shape
    assert all(view.min() >= 0 and view.max() <= 1 for view in (first, second))
    assert ((first - second).abs().flatten(1).mean(dim=1) > 1e-3).all()


# --- data -----------------------------------------------------------------------------------------


def test_people_are_chosen_whole_nested_and_by_seed_and_fold():
    subjects = np.repeat([f"s{number}" for number in range(20)], 3)
    rows = np.arange(6, 60)
    few = of_some_people(rows, subjects, 4, 0, 0)
    more = of_some_people(rows, subjects, 9, 0, 0)
    assert len(few) == 12 and len(set(subjects[few])) == 4
    assert set(few) < set(more) <= set(rows)
    assert set(few) != set(of_some_people(rows, subjects, 4, 1, 0))
    assert set(few) != set(of_some_people(rows, subjects, 4, 0, 1))
    np.testing.assert_array_equal(of_some_people(rows, subjects, 0, 0, 0), rows)
    with pytest.raises(ValueError, match="fold 3 trains on 18 people"):
        of_some_people(rows, subjects, 19, 0, 2)


@pytest.fixture(scope="module")
def prepared(tiny_benchmark, tmp_path_factory):
    """Four rendered people, as a small network and as the frozen backbone see them."""
    out = tmp_path_factory.mktemp("prepared")
    plain = {"task": "au_detection", "data": "rendered", "root": tiny_benchmark}
    plain["protocol"] = "rendered/2fold-seed0"
    return {
        backbone: Experiment(**plain, backbone=backbone).prepare(out, progress=False)
        for backbone in ("mini", "frozen")
    }


def test_second_faces_are_what_they_are_called(prepared, tiny_benchmark):
    mini = prepared["mini"]
    data = mini.data
    found = {kind: views_with(kind, mini)[0].normalized for kind in KINDS if kind != "render"}
    for kind, images in found.items():
        assert images.shape == (len(data), MINI_SIZE, MINI_SIZE, 3), kind
        assert np.array_equal(views_with(kind, mini)[0].originals, mini.views[0].originals)
    truth = read_face(tiny_benchmark / data.index["truth"].iloc[5], 112)
    np.testing.assert_array_equal(found["truth"][5], resized(truth[None], MINI_SIZE)[0])
    np.testing.assert_array_equal(found["original"], mini.views[0].originals)
    np.testing.assert_array_equal(found["normalized"], mini.views[0].normalized)
    assert (found["neutral"] == found["neutral"][0]).all()
    target = read_face(tiny_benchmark / "target.png", 112)
    np.testing.assert_allclose(
        found["neutral"][0].astype(int), resized(target[None], MINI_SIZE)[0].astype(int), atol=2
    )


def test_second_faces_of_a_frozen_backbone_are_embedded_by_it(prepared):
    frozen = prepared["frozen"]
    for kind in ("original", "truth"):
        view = views_with(kind, frozen)[0]
        assert isinstance(view, EmbeddedPairs) and view.normalized.shape == view.originals.shape
    torch.testing.assert_close(view.originals, frozen.views[0].originals)
    assert not torch.equal(view.normalized, frozen.views[0].normalized)
    views = views_with("truth", frozen)
    assert views[0] is views[1], "embedded once for all folds"


def test_a_dataset_without_truths_says_so(prepared):
    index = prepared["mini"].data.index.assign(truth="")
    data = SimpleNamespace(index=index, root="DISFA")
    with pytest.raises(DataError, match="DISFA: has no true normalized images"):
        views_with("truth", replace(prepared["mini"], data=data))


def test_faces_that_shrink_keep_their_mean():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    small = resized(images, 32)
    means = images.reshape(3, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(small, means, atol=1)


# --- experts --------------------------------------------------------------------------------------


def test_usage_tells_collapse_evenness_and_specialization():
    labels = np.repeat([[1.0, 0.0], [0.0, 1.0]], 50, axis=0).astype(np.float32)
    one = usage(np.tile([1.0, 0, 0, 0], (100, 1)), labels)
    assert one["experts_in_use"] == pytest.approx(1) and one["specialization"] == 0
    assert one["label_correlation"] == 0
    alike = usage(np.full((100, 4), 0.25), labels)
    assert alike["experts_in_use"] == pytest.approx(4) and alike["specialization"] == 0
    assert alike["experts_of_a_face"] == pytest.approx(4)
    special = usage(np.repeat([[1.0, 0], [0, 1.0]], 50, axis=0), labels)
    assert special["specialization"] == pytest.approx(1)
    assert special["label_correlation"] == pytest.approx(1) and special["chance"] < 0.5
    assert special["shares"] == [0.5, 0.5]


def test_gates_are_those_of_the_mixtures_that_are_on(prepared):
    view = prepared["mini"].views[0]
    names = tuple(prepared["mini"].outputs)
    config = ClassifierConfig(labels=names, backbone="mini", output_mixture=False, experts=3)
    gates = gates_of(Classifier(config).eval(), view, np.arange(5), batch_size=2)
    assert gates.keys() == {"input"} and gates["input"].shape == (5, 3)
    np.testing.assert_allclose(gates["input"].sum(axis=1), 1, rtol=1e-5)


# --- tables ---------------------------------------------------------------------------------------


def test_tables_are_those_of_the_result_files(tiny_benchmark, prepared, tmp_path):
    experiment = Experiment(
        task="au_detection",
        data="rendered",
        root=tiny_benchmark,
        protocol="rendered/2fold-seed0",
        backbone="mini",
        people=2,
        steps=1,
        rows=("original", "true normalized", "both", "both, no mixture"),
        seeds=(0, 1),
    )
    one = Configuration(name="one", experiment=experiment)
    other = Configuration(name="other", experiment=replace(experiment, steps=2))
    result = experiment.run(prepared=prepared["mini"], progress=False).write(one.path(tmp_path))
    tables = read_results([one, other], tmp_path)
    assert tables.missing == ["other"] and set(tables.scores["run"]) == {"one"}
    line = tables.scores.set_index("row").loc["true normalized"]
    row = result.rows["true normalized"]
    assert line["score"] == pytest.approx(row.score) and line["trainings"] == 4
    assert line["people"] == 2 and line["backbone"] == "mini" and line["experts"] == 4
    np.testing.assert_allclose(line["each"], row.scores.ravel())
    difference = tables.differences.set_index("what").loc["both mixtures"]
    assert (difference["first"], difference["second"]) == ("both", "both, no mixture")
    both, dense = (
        tables.scores.set_index("row").loc[name] for name in ("both", "both, no mixture")
    )
    assert difference["adds"] == pytest.approx(both["score"] - dense["score"])
    paired = across(both, dense)
    assert paired["adds"] == pytest.approx(difference["adds"])
    assert paired["t_low"] == pytest.approx(difference["t_low"]) and 0 < paired["p"] <= 1
    usage_of_folds = both["usage"]
    assert len(usage_of_folds) == 2 and set(usage_of_folds[0]) == {"input", "output"}
    assert dense["usage"] == [{}, {}]
    json.dumps(usage_of_folds)


def test_nothing_run_gives_empty_tables(tiny_benchmark, tmp_path):
    experiment = Experiment(task="au_detection", data="rendered", root=tiny_benchmark)
    tables = read_results([Configuration(name="one", experiment=experiment)], tmp_path)
    assert len(tables.scores) == len(tables.differences) == 0 and tables.missing == ["one"]


def test_figures_show_every_line_and_label_their_axes():
    table = pd.DataFrame(
        {"score": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7]}, index=["original", "a row"]
    )
    figure = plots.scores(table, "mean F1", zero=True)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a row", "original"]
    assert axis.get_xlabel() == "mean F1"
    lines = pd.concat(
        table.assign(row=table.index, people=people, backbone=backbone)
        for people in (5, 10)
        for backbone in ("mini", "frozen")
    )
    figure = plots.curves(lines, "people", "backbone", ["original"], ("people", "mean F1"))
    assert [axis.get_title() for axis in figure.axes] == ["mini", "frozen"]
    assert all(len(axis.lines) == 1 for axis in figure.axes)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [5, 10])
