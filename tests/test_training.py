"""The training loop: exact resume, refusal of what does not fit, schedule."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import TensorDataset

from norface_lib.common.errors import CheckpointError, NorfaceError
from norface_lib.training.loader import StepSampler, balanced, batch_indices, make_loader
from norface_lib.training.loop import TrainConfig, fit
from norface_lib.training.optimizer import base_rate, parameter_groups, rate_at

CONFIG = TrainConfig(steps=12, batch_size=4, log_every=3, average=0.9, checkpoint_seconds=0.0)
SAMPLES = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(SAMPLES)


def network():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def loss(model, batch):
    (samples,) = batch
    value = (model(samples) - samples.sum(1, keepdim=True)).square().mean()
    return value, {"figure": value.item()}


class Layered(nn.Sequential):
    """A network that says how deep its layers are: the first, what follows it, the last."""

    def group_matcher(self, coarse):
        return lambda name: {"0": 0, "3": 2}.get(name.split(".")[0], 1)


def layered():
    return Layered(*network())


class Stopped(Exception):
    pass


def stopping_at(step):
    """The loss, which breaks off at the given call as if the process had been stopped."""
    calls = 0

    def stop(model, batch):
        nonlocal calls
        calls += 1
        if calls > step:
            raise Stopped
        return loss(model, batch)

    return stop


def weights(model):
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


@pytest.mark.parametrize("stop", [1, 7, 11])
@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, stop, layer_decay):
    config = replace(CONFIG, layer_decay=layer_decay)
    whole = fit(layered(), loss, DATA, config, folder=tmp_path / "whole", progress=False)
    with pytest.raises(Stopped):
        fit(layered(), stopping_at(stop), DATA, config, folder=tmp_path / "cut", progress=False)
    resumed = fit(layered(), loss, DATA, config, folder=tmp_path / "cut", progress=False)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_checkpoint_from_before_a_setting_goes_on(tmp_path):
    fit(network(), loss, DATA, CONFIG, folder=tmp_path / "whole", progress=False)
    with pytest.raises(Stopped):
        fit(network(), stopping_at(5), DATA, CONFIG, folder=tmp_path, progress=False)
    state = torch.load(tmp_path / "train.ckpt")
    older = {
        name: value for name, value in json.loads(state["config"]).items() if name != "layer_decay"
    }
    torch.save(state | {"config": json.dumps(older)}, tmp_path / "train.ckpt")
    resumed = fit(network(), loss, DATA, CONFIG, folder=tmp_path, progress=False)
    assert torch.equal(
        weights(resumed), weights(fit(network(), loss, DATA, CONFIG, progress=False))
    )


def test_a_finished_run_is_used_as_it_is(tmp_path, capsys):
    trained = fit(network(), loss, DATA, CONFIG, folder=tmp_path, progress=False)
    again = fit(network(), stopping_at(0), DATA, CONFIG, folder=tmp_path, progress=False)
    assert torch.equal(weights(again), weights(trained))
    assert "used as it is" in capsys.readouterr().out
    assert not again.training


def test_the_log_has_a_line_every_few_steps(tmp_path):
    fit(network(), loss, DATA, CONFIG, folder=tmp_path, name="log", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert {"loss", "figure", "seconds"} <= lines[0].keys()


def test_the_log_has_each_line_once_however_a_run_was_stopped(tmp_path):
    """Steps after the last checkpoint are trained again; a killed process may leave half a line."""
    config = replace(CONFIG, checkpoint_seconds=1e9)
    with pytest.raises(Stopped):
        fit(network(), stopping_at(7), DATA, config, folder=tmp_path, progress=False)
    with (tmp_path / "train.jsonl").open("a") as log:
        log.write('{"step": 9, "lo')
    fit(network(), loss, DATA, config, folder=tmp_path, progress=False)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6, 9, 12]


def test_a_full_disk_stops_a_training_with_the_name_of_its_file(tmp_path, monkeypatch):
    def full(state, file):
        file.close()
        raise RuntimeError("unexpected pos 576 vs 534") from OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        fit(network(), loss, DATA, CONFIG, folder=tmp_path, progress=False)
    assert error.value.filename == str(tmp_path / "train.ckpt")


def test_other_settings_or_a_damaged_checkpoint_are_refused(tmp_path):
    fit(network(), loss, DATA, CONFIG, folder=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=r"train\.ckpt: was made with other settings"):
        fit(
            network(),
            loss,
            DATA,
            replace(CONFIG, learning_rate=0.5),
            folder=tmp_path,
            progress=False,
        )
    with pytest.raises(CheckpointError, match=r"train\.ckpt: this checkpoint cannot be read"):
        fit(nn.Linear(3, 1), loss, DATA, CONFIG, folder=tmp_path, progress=False)
    (tmp_path / "train.ckpt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"train\.ckpt: this checkpoint cannot be read"):
        fit(network(), loss, DATA, CONFIG, folder=tmp_path, progress=False)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "gone": lambda path: path.unlink(),  # a stop between two names
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_training_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    tmp_path, capsys, damage
):
    """And the one before stays until there is another sound one."""
    whole = fit(network(), loss, DATA, CONFIG, folder=tmp_path / "whole", progress=False)
    newest, before = tmp_path / "train.ckpt", tmp_path / "train.before.ckpt"
    with pytest.raises(Stopped):
        fit(network(), stopping_at(6), DATA, CONFIG, folder=tmp_path, progress=False)
    assert [torch.load(path)["step"] for path in (newest, before)] == [6, 5]

    damage(newest)
    kept = before.read_bytes()
    with pytest.raises(Stopped):  # the first step anew, then a checkpoint, then a stop
        fit(network(), stopping_at(1), DATA, CONFIG, folder=tmp_path, progress=False)
    said = capsys.readouterr().out
    assert "goes on from step 5" in said
    assert (f"{newest} is damaged;" in said) == (damage is not DAMAGES["gone"])
    assert torch.load(newest)["step"] == 6 and before.read_bytes() == kept

    resumed = fit(network(), loss, DATA, CONFIG, folder=tmp_path, progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6, 9, 12]
    assert newest.exists() and not before.exists(), "a finished training needs no other one"


def test_two_damaged_checkpoints_are_refused_with_both_names(tmp_path):
    with pytest.raises(Stopped):
        fit(network(), stopping_at(6), DATA, CONFIG, folder=tmp_path, progress=False)
    for name in ("train.ckpt", "train.before.ckpt"):
        (tmp_path / name).write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"train\.ckpt: .* it and train\.before\.ckpt beside"):
        fit(network(), loss, DATA, CONFIG, folder=tmp_path, progress=False)


def test_a_full_disk_costs_none_of_the_two_checkpoints(tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        fit(network(), stopping_at(6), DATA, CONFIG, folder=tmp_path, progress=False)
    paths = (tmp_path / "train.ckpt", tmp_path / "train.before.ckpt")
    kept = [path.read_bytes() for path in paths]

    def full(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        fit(network(), loss, DATA, CONFIG, folder=tmp_path, progress=False)
    assert [path.read_bytes() for path in paths] == kept
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*.part"))


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(FloatingPointError, match="step 0"):
        fit(
            network(),
            lambda model, _: (model(SAMPLES).sum() * float("nan"), {}),
            DATA,
            CONFIG,
            progress=False,
        )


def test_averaged_weights_are_returned():
    plain = fit(network(), loss, DATA, replace(CONFIG, average=0.0), progress=False)
    averaged = fit(network(), loss, DATA, CONFIG, progress=False)
    start = network()
    assert (weights(averaged) - weights(start)).norm() < (weights(plain) - weights(start)).norm()


def test_an_epoch_shows_each_sample_once():
    epoch = torch.cat([batch_indices(12, 4, seed=0, step=step) for step in range(3)])
    assert sorted(epoch.tolist()) == list(range(12))
    following = torch.cat([batch_indices(12, 4, seed=0, step=step) for step in range(3, 6)])
    assert epoch.tolist() != following.tolist()
    assert len(batch_indices(3, 64, seed=0, step=5)) == 3


@pytest.mark.parametrize("choose", [None, balanced(torch.arange(10.0))])
def test_batches_are_known_from_seed_and_step(choose):
    """What a resumed run reads, and what several workers read ahead, is what an uninterrupted run
    reads."""
    settings = {"steps": 9, "seed": 3, "choose": choose}
    whole = [rows.tolist() for rows in StepSampler(10, 4, **settings)]
    assert [rows.tolist() for rows in StepSampler(10, 4, first=5, **settings)] == whole[5:]
    other = [rows.tolist() for rows in StepSampler(10, 4, **settings | {"seed": 4})]
    assert other != whole

    loader = make_loader(DATA, StepSampler(10, 4, **settings), torch.device("cpu"), workers=2)
    for rows, (samples,) in zip(whole, loader, strict=True):
        assert torch.equal(samples, SAMPLES[rows])


def test_processes_share_a_batch():
    first, second = (
        next(iter(StepSampler(10, 4, steps=1, process=process, processes=2))) for process in (0, 1)
    )
    assert sorted([*first, *second]) == sorted(batch_indices(10, 4, seed=0, step=0).tolist())


def test_balanced_batches_hold_rows_by_their_weights():
    weights = torch.tensor([0.5, *[0.0] * 8, 0.5])
    rows = torch.cat(
        [
            torch.from_numpy(rows)
            for rows in StepSampler(10, 10, steps=100, choose=balanced(weights))
        ]
    )
    assert set(rows.tolist()) == {0, 9}
    assert 400 < (rows == 0).sum() < 600


def test_chance_in_the_loss_follows_that_of_the_sampler():
    """The loss must not see the numbers again by which its rows were chosen."""
    sampler = StepSampler(10, 4, steps=1, choose=balanced(torch.ones(10)))
    sampler.seed_step(0)
    after = torch.rand(3)
    torch.manual_seed(0)
    torch.multinomial(torch.ones(10), 4, replacement=True)
    assert torch.equal(after, torch.rand(3))


def test_a_gradient_is_clipped():
    """A huge gradient is shortened to the length ``clip``, and its direction stays."""
    gradients = []

    def steep(model, batch):
        return 1e6 * loss(model, batch)[0], {}

    def note(optimizer, *_):
        groups = optimizer.param_groups
        gradients.extend(p.grad.flatten().clone() for g in groups for p in g["params"])

    handle = register_optimizer_step_pre_hook(note)
    try:
        model = nn.Linear(3, 1)
        config = TrainConfig(steps=1, batch_size=10, clip=0.5, average=0.0)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fit(model, steep, DATA, config, progress=False)
    finally:
        handle.remove()

    clipped = torch.cat(gradients)
    assert clipped.norm() == pytest.approx(0.5, rel=1e-4)
    model.load_state_dict(before)
    value, _ = loss(model, (SAMPLES,))
    plain = torch.autograd.grad(value, [model.bias, model.weight])
    plain = torch.cat([part.flatten() for part in plain])
    assert torch.cosine_similarity(clipped, plain, dim=0) == pytest.approx(1, abs=1e-4)


def test_the_rate_warms_up_and_falls_to_nothing():
    config = TrainConfig(steps=100, warmup=0.1, learning_rate=1.0)
    rates = [rate_at(step, config) for step in range(100)]
    assert rates[9] == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_the_rate_falls_as_timms_cosine_does():
    """timm's warm-up begins at a rate of its own choice, so only what follows is compared."""
    config = TrainConfig(steps=100, warmup=0.1, learning_rate=0.3)
    optimizer = torch.optim.SGD(network().parameters(), lr=config.learning_rate)
    schedule = CosineLRScheduler(optimizer, t_initial=90, warmup_t=10, warmup_prefix=True)
    for step in range(10, 100):
        schedule.step(step)
        assert rate_at(step, config) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)


def test_only_matrices_decay():
    free, decayed = parameter_groups(network(), 0.05)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in free["params"]} == {1}
    assert free["weight_decay"] == 0


def test_layers_learn_slower_the_nearer_they_are_to_the_image():
    model = layered()
    groups = parameter_groups(model, 0.05, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert [scales[id(p)] for p in model.parameters()] == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    assert all(
        group["weight_decay"] == (0.05 if p.ndim > 1 else 0)
        for group in groups
        for p in group["params"]
    )


def test_the_first_step_of_a_layer_is_its_share_of_the_rate():
    """Adam's first step is as long as the rate, whatever the gradient."""
    config = TrainConfig(
        steps=1, batch_size=4, average=0.0, weight_decay=0.0, learning_rate=1e-3, layer_decay=0.5
    )
    before, after = layered(), fit(layered(), loss, DATA, config, progress=False)
    moved = [
        (now - then).abs().max().item()
        for now, then in zip(after.parameters(), before.parameters(), strict=True)
    ]
    assert moved[0] == pytest.approx(0.25e-3, rel=1e-2)
    assert moved[-1] == pytest.approx(1e-3, rel=1e-2)


def test_layer_decay_needs_layers():
    with pytest.raises(ValueError, match="Sequential has none"):
        fit(network(), loss, DATA, replace(CONFIG, layer_decay=0.7), progress=False)


def test_the_rate_of_a_batch_is_that_of_256_images_in_proportion():
    assert base_rate(1e-3, 256) == 1e-3
    assert base_rate(1e-4, 64) == pytest.approx(2.5e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 1, "average": 1.0},
        {"steps": 1, "batch_size": 0},
        {"steps": 1, "layer_decay": 0.0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        TrainConfig(**wrong)


def test_watching_sees_the_network_in_evaluation_mode_and_changes_nothing(tmp_path):
    seen = []

    def watch(model, step):
        seen.append((step, model.training, torch.rand(1).item()))
        return {"watched": float(step)}

    config = replace(CONFIG, watch_every=5)
    watched = fit(network(), loss, DATA, config, folder=tmp_path, progress=False, watch=watch)
    assert [(step, training) for step, training, _ in seen] == [
        (5, False),
        (10, False),
        (12, False),
    ]
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert {line["step"]: line["watched"] for line in lines if "watched" in line} == {
        5: 5.0,
        10: 10.0,
        12: 12.0,
    }
    assert torch.equal(
        weights(watched), weights(fit(network(), loss, DATA, config, progress=False))
    )


def test_the_log_goes_to_tensorboard_if_asked(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            written.append((self.folder, name, step))

        def flush(self):
            pass

    fit(network(), loss, DATA, CONFIG, folder=tmp_path / "without", progress=False)
    monkeypatch.setenv("NORFACE_TENSORBOARD", "1")
    # as if the package were not there
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(NorfaceError, match="pip install tensorboard"):
        fit(network(), loss, DATA, CONFIG, folder=tmp_path / "missing", progress=False)
    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer)
    )
    fit(network(), loss, DATA, CONFIG, folder=tmp_path / "with", progress=False)
    folder = tmp_path / "with" / "tensorboard" / "train"
    assert {(folder, "figure", step) for step in (3, 6, 9, 12)} <= set(written)
    assert {place for place, _, _ in written} == {folder}
