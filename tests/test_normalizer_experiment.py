"""Ablations of the normalizer: each part can be left out and is gone then; a sweep of minute
networks runs, goes on and is tabulated."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from norface_lib.common.errors import DataError
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import resized
from norface_lib.images.distances import neutral_ratio, region_ratios
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.studies import normalizer_experiment
from norface_lib.studies.ablation_files import ablation_table
from norface_lib.studies.normalizer_experiment import NormalizerExperiment
from norface_lib.studies.normalizer_files import (
    chance_of,
    normalizer_rows,
    normalizer_table,
    scaling,
)
from norface_lib.studies.person_distances import difference, distances_by_person, with_ratios
from norface_lib.studies.result_files import ResultFiles
from norface_lib.studies.sweep import find_sweep, read_sweep
from norface_lib.studies.sweep_runner import run_sweep

ENCODER = EncoderConfig(image_size=32, patch_size=8, dim=16, depth=1, heads=2, stem=(16,))
CONFIG = NormalizerConfig(encoder=ENCODER, merging_blocks=1, widths=(16, 16))


# --- parts of the network -------------------------------------------------------------------------


def stirred(config):
    """A network of random weights that draws something."""
    torch.manual_seed(0)
    model = Normalizer(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    return model


def drawn(model, original, target, expression=None, details=None):
    """I_n with some of what the network computes replaced."""
    kept = model.target(target)
    kept = kept if details is None else kept._replace(details=details)
    with torch.inference_mode():
        return model.synthesize(model.encoder(original), kept, expression)


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32), torch.rand(1, 3, 32, 32)


def test_the_embedding_is_told_unless_it_is_left_out(images):
    other = torch.randn(2, 16)
    whole, part = stirred(CONFIG), stirred(replace(CONFIG, embedding=False))
    assert not torch.allclose(drawn(whole, *images), drawn(whole, *images, other), atol=1e-4)
    assert torch.equal(drawn(part, *images), drawn(part, *images, other))
    assert not any(name.startswith("merging.tell") for name in part.state_dict())
    assert not torch.allclose(
        drawn(part, *images), drawn(part, images[0].flip(0), images[1]), atol=1e-4
    ), "the tokens of the original are still attended to"
    with pytest.raises(ValueError, match="through the expression embedding"):
        replace(CONFIG, embedding=False, codes=("AU01",))


def test_the_targets_detail_is_added_unless_it_is_left_out(images):
    whole, part = stirred(CONFIG), stirred(replace(CONFIG, detail=False))
    details = tuple(torch.randn_like(one) for one in whole.target(images[1]).details)
    assert len(details) == 2
    assert not torch.allclose(
        drawn(whole, *images), drawn(whole, *images, details=details), atol=1e-4
    )
    assert part.target(images[1]).details == ()
    assert not any("details" in name for name in part.state_dict())
    assert drawn(part, *images).shape == images[0].shape


def test_without_self_attention_target_tokens_do_not_hear_of_each_other():
    """Each merged token depends on the target token of its own place alone."""
    tokens, original = torch.randn(1, 16, 16), torch.randn(1, 16, 16)
    changed = tokens.clone()
    changed[:, 3] = torch.randn(16)
    for self_attention, others_move in ((True, True), (False, False)):
        block = stirred(replace(CONFIG, self_attention=self_attention)).merging.blocks[0]
        with torch.inference_mode():
            moved = (block(changed, original) - block(tokens, original)).abs().amax(dim=2)[0]
        assert moved[3] > 1e-3
        assert (moved[torch.arange(16) != 3] > 1e-6).any() == others_move


def test_a_config_of_an_older_file_has_all_parts():
    values = json.loads(json.dumps(normalizer_experiment.asdict(CONFIG)))
    for name in ("self_attention", "embedding", "detail"):
        assert values.pop(name) is True
    assert NormalizerConfig.from_dict(values) == CONFIG


# --- measures -------------------------------------------------------------------------------------


def test_ratios_of_people_are_those_of_their_faces(tiny_benchmark):
    data = Rendered(tiny_benchmark)
    normalized = (data.truths * 0.75 + data.target * 0.25).astype(np.uint8)
    distances = distances_by_person(data, normalized)
    measured = with_ratios(distances)
    assert distances["face"].shape == (4, 2)
    assert measured["face_ratio"]["value"] == pytest.approx(
        neutral_ratio(data.truths, normalized, data.target)
    )
    for name, ratio in region_ratios(data.truths, normalized, data.target).items():
        assert measured[f"{name}_ratio"]["value"] == pytest.approx(ratio)
    low, high = measured["face_ratio"]["interval"]
    assert low < measured["face_ratio"]["value"] < high
    same = difference(distances["face"], distances["face"])
    assert same["value"] == 0 and same["interval"] == [0, 0]
    worse = difference(distances["face"] * [2, 1], distances["face"])
    assert worse["value"] == pytest.approx(measured["face_ratio"]["value"])


def test_few_trainings_leave_much_to_chance():
    assert chance_of([0.8]) == float("inf")
    assert chance_of([0.80, 0.82]) == pytest.approx(12.706 * 0.02 / 2**0.5 * 1.5**0.5, rel=1e-3)
    three = [0.80, 0.81, 0.82]
    assert chance_of(three) == pytest.approx(4.303 * 0.01 * (4 / 3) ** 0.5, rel=1e-3)
    assert chance_of(three, trainings=3) < chance_of(three) < chance_of([0.80, 0.82])


# --- sweeps ---------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path, tiny_benchmark, monkeypatch):
    """Writes a sweep of minute networks; all faces are those of the tiny benchmark."""
    monkeypatch.setenv("NORFACE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        normalizer_experiment, "write_benchmark", lambda *given, **options: tiny_benchmark
    )

    def written(*runs, **defaults):
        plain = {
            "data": {"pool": "pretrain", "subjects": 4, "frames": 3},
            "network": {
                "encoder": {"image_size": 32, "patch_size": 8, "dim": 16, "depth": 1, "heads": 2}
                | {"stem": [16]},
                "merging_blocks": 1,
                "widths": [16, 16],
            },
            **{"expression_steps": 2, "synthesis_steps": 2, "batch_size": 4},
        }
        path = tmp_path / "sweep.yaml"
        content = {"kind": "normalizer", "defaults": plain | defaults, "runs": list(runs)}
        path.write_text(yaml.safe_dump(content))
        return path

    return written


def test_a_file_describes_networks_and_losses(write):
    path = write(
        {"name": "plain"},
        {"name": "no-detail", "network": {"detail": False}, "seeds": [3, 4], "rate": 2},
        {"name": "l1", "terms": {"moving_weight": 0, "weights": {"edge": 0}}},
    )
    plain, part, l1 = [one.experiment for one in read_sweep(path)]
    assert plain.network == CONFIG and plain.training(5).synthesis.seed == 5
    assert part.network == replace(CONFIG, detail=False) and part.seeds == (3, 4)
    for stage, config in part.training(0).stages.items():
        assert config.learning_rate == 2 * plain.training(0).stages[stage].learning_rate
    assert l1.terms.weights.edge == 0 and l1.terms.weights.reconstruction == 1
    assert l1.terms.moving_weight == 0 and l1.training(0).expression.steps == 2


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"weights": "tiny"}, "no field weights; there are data, people"),
        ({"data": {"pool": "lab"}}, "people of lab, wild are tested"),
        ({"people": 5}, "data has 4 people"),
        ({"unpaired_people": 2}, "without a term that needs no true I_n"),
        ({"truths": "drawn"}, "truths must be one of rendered, read"),
        ({"truths": "read", "data": {"target": "noor+ada"}}, "are of one target"),
        ({"synthesis_steps": 0}, "needs at least one step"),
        ({"rate": 0}, "rate must be within"),
        ({"tested_frames": 1}, "two people with two frames"),
        ({"network": {"depth": 2}}, "depth"),
        ({"terms": {"weights": {"edges": 0}}}, "edges"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(run, words, write):
    path = write({"name": "run"} | run, terms={"weights": {}})
    with pytest.raises(DataError, match=words) as raised:
        read_sweep(path)
    assert str(path) in str(raised.value)


def test_an_unknown_kind_is_named(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("{kind: decoder, runs: []}")
    with pytest.raises(DataError, match="kind must be one of experiment, normalizer"):
        read_sweep(path)


def test_a_sweep_runs_goes_on_and_is_tabulated(write, tmp_path):
    out = tmp_path / "full/ablations/normalizer"
    path = write(
        {"name": "all-parts", "seeds": [0, 1]},
        {"name": "people-2", "people": 2},
        {"name": "steps-double", "expression_steps": 4, "synthesis_steps": 4},
        {"name": "people-3", "people": 3},
    )
    first = read_sweep(path, seeds=[0])[:1]
    assert run_sweep(first, out, say=print).counts["done"] == 1
    before = json.loads((out / "all-parts.json").read_text())

    configurations = read_sweep(path)
    said = []
    assert run_sweep(configurations, out, say=said.append).counts["done"] == 4
    assert run_sweep(configurations, out, say=said.append).counts["done before"] == 4
    after = json.loads((out / "all-parts.json").read_text())
    assert after["seed"] == [0, 1] and len(after["result"]["training_seconds"]) == 2
    for pool in ("lab", "wild"):
        measured = after["result"]["normalizer"][pool]
        trained = measured["each_training"]
        assert trained[:1] == before["result"]["normalizer"][pool]["each_training"]
        assert measured["face_ratio"]["value"] == pytest.approx(np.mean(trained))
        assert len(measured["by_person"]) == 4 and measured["identity"] >= 0
    assert after["counts"]["faces"] == 12 and after["counts"]["tested_lab"] == 12

    files = ResultFiles(tmp_path)
    rows = normalizer_rows(files)
    assert rows.index[0] == "all parts" and set(rows["people"]) == {2, 3, 4}
    assert rows["lab"].iloc[1:].is_monotonic_increasing
    assert rows.loc["people 2", "adds"] == pytest.approx(
        rows.loc["people 2", "lab"] - rows.loc["all parts", "lab"], abs=1e-4
    )
    assert list(scaling(rows, "people")["people"]) == [2, 3, 4]
    assert list(scaling(rows, "steps")["steps"]) == [4, 8]
    assert ablation_table(files).rows == (), "they are not taken for experiments on classifiers"
    table = normalizer_table(files)
    assert [line[0] for line in table.rows] == list(rows.index)


def test_a_normalizer_learns_from_some_people_and_from_faces_without_truths(write):
    terms = {"weights": {"expression": 1}}
    path = write({"name": "mixed", "people": 1, "unpaired_people": 2, "terms": terms})
    (one,) = read_sweep(path)
    prepared = one.experiment.prepare(progress=False)
    paired, unpaired = one.experiment._people(prepared.learned)
    assert set(paired.subjects) == {"lab0000"}
    assert set(unpaired.subjects) == {"lab0001", "lab0002"}
    assert paired.originals.shape == (3, 32, 32, 3)
    result = one.experiment.run(prepared=prepared, progress=False)
    assert result.counts["unpaired_faces"] == 6
    everybody = replace(one.experiment, people=0)
    assert len(np.unique(everybody._people(prepared.learned)[0].subjects)) == 2


def test_pseudo_pairs_are_what_is_read_and_rendered(write, tiny_benchmark, monkeypatch):
    class Drawing:
        def __init__(self, **settings):
            assert settings == {"target": "noor", "size": 112, "device": "auto"}

        def draw(self, faces):
            return 255 - faces

    monkeypatch.setattr(normalizer_experiment, "ReadAndRender", Drawing)
    (one,) = read_sweep(write({"name": "pseudo", "truths": "read"}))
    learned = one.experiment.prepare(progress=False).learned
    expected = resized(255 - Rendered(tiny_benchmark).originals, 32)
    np.testing.assert_array_equal(learned.truths, expected)


def test_the_shipped_sweep_changes_one_thing_at_a_time():
    whole, *others = read_sweep(find_sweep("normalizer"))
    assert whole.name == "all-parts" and len(others) >= 12
    assert len({repr(replace(one.experiment, seeds=(0,))) for one in others}) == len(others)
    assert all(one.experiment != whole.experiment for one in others)
    assert isinstance(whole.experiment, NormalizerExperiment)
