"""The training loop: exact resume, refusal of what does not fit, schedule."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from norface_lib.errors import CheckpointError
from norface_lib.training import TrainConfig, batch_indices, fit, parameter_groups, rate_at

CONFIG = TrainConfig(steps=12, batch_size=4, log_every=3, average=0.9, checkpoint_seconds=0.0)
SAMPLES = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def loss(model, indices):
    value = (model(SAMPLES[indices]) - SAMPLES[indices].sum(1, keepdim=True)).square().mean()
    return value, {"figure": value.item()}


class Stopped(Exception):
    pass


def stopping_at(step):
    """The loss, which breaks off at the given call as if the process had been stopped."""
    calls = 0

    def stop(model, indices):
        nonlocal calls
        calls += 1
        if calls > step:
            raise Stopped
        return loss(model, indices)

    return stop


def weights(model):
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


@pytest.mark.parametrize("stop", [1, 7, 11])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, stop):
    whole = fit(network(), loss, 10, CONFIG, tmp_path / "whole", progress=False)
    with pytest.raises(Stopped):
        fit(network(), stopping_at(stop), 10, CONFIG, tmp_path / "cut", progress=False)
    resumed = fit(network(), loss, 10, CONFIG, tmp_path / "cut", progress=False)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_finished_run_is_used_as_it_is(tmp_path, capsys):
    trained = fit(network(), loss, 10, CONFIG, tmp_path, progress=False)
    again = fit(network(), stopping_at(0), 10, CONFIG, tmp_path, progress=False)
    assert torch.equal(weights(again), weights(trained))
    assert "used as it is" in capsys.readouterr().out
    assert not again.training


def test_the_log_has_a_line_every_few_steps(tmp_path):
    fit(network(), loss, 10, CONFIG, tmp_path, name="log", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert {"loss", "figure", "seconds"} <= lines[0].keys()


def test_other_settings_or_a_damaged_checkpoint_are_refused(tmp_path):
    fit(network(), loss, 10, CONFIG, tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=r"train\.ckpt: was made with other settings"):
        fit(network(), loss, 10, replace(CONFIG, learning_rate=0.5), tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=r"train\.ckpt: this checkpoint cannot be read"):
        fit(nn.Linear(3, 1), loss, 10, CONFIG, tmp_path, progress=False)
    (tmp_path / "train.ckpt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"train\.ckpt: this checkpoint cannot be read"):
        fit(network(), loss, 10, CONFIG, tmp_path, progress=False)


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(FloatingPointError, match="step 0"):
        fit(network(), lambda model, _: (model(SAMPLES).sum() * float("nan"), {}), 10, CONFIG, progress=False)


def test_averaged_weights_are_returned():
    plain = fit(network(), loss, 10, replace(CONFIG, average=0.0), progress=False)
    averaged = fit(network(), loss, 10, CONFIG, progress=False)
    start = network()
    assert (weights(averaged) - weights(start)).norm() < (weights(plain) - weights(start)).norm()


def test_an_epoch_shows_each_sample_once():
    epoch = torch.cat([batch_indices(12, 4, seed=0, step=step) for step in range(3)])
    assert sorted(epoch.tolist()) == list(range(12))
    following = torch.cat([batch_indices(12, 4, seed=0, step=step) for step in range(3, 6)])
    assert epoch.tolist() != following.tolist()
    assert len(batch_indices(3, 64, seed=0, step=5)) == 3


def test_the_rate_warms_up_and_falls_to_nothing():
    config = TrainConfig(steps=100, warmup=0.1, learning_rate=1.0)
    rates = [rate_at(step, config) for step in range(100)]
    assert rates[9] == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_only_matrices_decay():
    decayed, free = parameter_groups(network(), 0.05)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in free["params"]} == {1}
    assert free["weight_decay"] == 0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1, "average": 1.0}, {"steps": 1, "batch_size": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        TrainConfig(**wrong)
