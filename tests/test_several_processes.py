"""Several processes that one command starts together: they share batches and frames, and end with
what one process makes."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from accelerate import Accelerator

from norface_lib.common import chance, sharing
from norface_lib.common.paths import ROOT
from norface_lib.datasets.manifest import Row, joined_rows, read_manifest, write_manifest
from norface_lib.networks import layers
from norface_lib.networks.encoder import FaceEncoder, TimmEncoder
from norface_lib.training.augmentation import (
    augmented_pairs,
    degraded,
    jitter,
    photometric,
    two_views,
)
from norface_lib.training.loader import StepSampler, balanced, of_versions
from norface_lib.training.shares import check_shares

TRAINING = """
import sys, torch
from pathlib import Path
from torch import nn
from torch.utils.data import TensorDataset
from norface_lib.common import chance
from norface_lib.common.devices import processes
from norface_lib.datasets.image_folder import FolderFaces
from norface_lib.datasets.normalized import normalize_dataset
from norface_lib.training.loop import TrainConfig, fit

out, faces, share = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
data = TensorDataset(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))

def loss(model, batch):
    (samples,) = batch
    assert len(samples) == share, "a process takes its share of the batch"
    samples = samples + chance.randn(*samples.shape)
    return (model(samples) - samples.sum(1, keepdim=True)).square().mean(), {}

torch.manual_seed(5)
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
for steps in (6, 6):  # the second call finds the finished checkpoint in every process
    config = TrainConfig(steps=steps, batch_size=8, log_every=2, checkpoint_seconds=0.0)
    fit(model, loss, data, config, folder=out, progress=False)
torch.save(model.state_dict(), out / f"{processes().process_index}.pt")

for _ in range(2):
    counts = normalize_dataset(FolderFaces(faces), out / "faces", batch_size=2, progress=False)
    (out / f"counts{processes().process_index}").open("a").write(f"{sorted(counts.items())}\\n")
"""


NETWORKS = """
import numpy as np
from norface_lib.datasets.pairs import Pairs, SeveralPairs, embed
from norface_lib.datasets.rendered import Rendered
from norface_lib.networks.classifier import ClassifierConfig
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.normalizer import NormalizerConfig
from norface_lib.studies.expert_usage import gates_of
from norface_lib.tasks.tasks import Detection
from norface_lib.training.classifier import Recipe, predict_rows, train_classifier
from norface_lib.training.normalizer import NormalizerTraining, train_normalizer
from norface_lib.training.normalizer_terms import SynthesisTerms

torch.set_num_threads(1)
how = {"folder": out, "device": "cpu", "progress": False}

# a normalizer: masked autoencoding, expressions, then pairs mixed with faces without a true I_n
encoder = EncoderConfig(dim=8, depth=2, heads=1, stem=())
data = Rendered(Path(sys.argv[4]))
rng = np.random.default_rng(0)
faces = rng.integers(0, 256, (6, *data.originals.shape[1:]), np.uint8)
terms = SynthesisTerms(degraded_share=0.7, unpaired_share=0.5)
exact = {"batch_size": 8, "log_every": 1, "amp": False}  # bfloat16 rounds by the size of a batch
stage = TrainConfig(steps=3, **exact)
stages = NormalizerTraining(masked=stage, expression=stage, synthesis=stage, terms=terms)
normalizer = train_normalizer(
    data,
    NormalizerConfig(encoder=encoder, merging_blocks=1, widths=(4, 4)),
    stages,
    faces=faces,
    **how,
)

# classifiers: the whole network, of several identities, and the head over a frozen backbone
task = Detection(("AU06", "AU12"))
labels = rng.integers(0, 2, (20, 2)).astype(np.float32)
labels[:9, 1] = np.nan
people = np.arange(20).astype(str)
first, second, third = (rng.integers(0, 256, (20, 112, 112, 3), np.uint8) for _ in range(3))
pairs = Pairs(first, second, labels, people)
config = ClassifierConfig(
    task.outputs, encoder=encoder, hidden=8, dropout=0.3, drop_path_rate=0.4, face_dropout=0.3
)
training = TrainConfig(steps=5, accumulate=2, **exact)
recipe = Recipe(config=config, training=training, balanced=True, watch=True, load=0.1)
data = {
    "tuned": SeveralPairs((pairs, Pairs(first, third, labels, people))),
    "frozen": embed(pairs, normalizer),
}
for name, kind in data.items():
    model = train_classifier(
        kind, np.arange(16), task, recipe, name=name, tested=np.arange(5, 20), **how
    )
    # batches of three, which do not go round evenly
    found = predict_rows(model, kind, np.arange(20)[::-1], task, batch_size=3)
    gates = gates_of(model, pairs, np.arange(20), batch_size=3)
    np.savez(out / f"{name}{processes().process_index}.npz", found=found, **gates)
"""


def run_together(processes, *call):
    """Runs a script or module in several processes; returns what they print on stdout."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    launch = launch if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launch, *map(str, call)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def runs(tiny_benchmark, tmp_path_factory):
    """Folders of what one, two and four processes make, and what they print, by their number."""
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "script.py"
    script.write_text(TRAINING + NETWORKS)
    faces = folder / "images"
    shutil.copytree(tiny_benchmark / "images", faces)
    (faces / "lab0001/0001.jpg").write_bytes(b"broken")
    made = {}
    for count in (1, 2, 4):
        out = folder / str(count)
        out.mkdir()
        made[count] = (out, run_together(count, script, out, faces, 8 // count, tiny_benchmark))
    return made


@pytest.mark.slow
def test_two_and_four_processes_make_what_one_does(runs):
    """Losses, weights, normalized faces and counts, at the same effective batch."""
    trees, losses = {}, {}
    for count, (out, printed) in runs.items():
        line = f"train: {count} processes x {8 // count} samples x 1 passes: an effective batch of"
        assert (f"{line} 8" in printed) == (count > 1)
        lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 4, 6], "one process writes the log"
        losses[count] = [line["loss"] for line in lines]
        np.testing.assert_allclose(losses[count], losses[1], rtol=0, atol=1e-5)

        weights = [torch.load(out / f"{number}.pt") for number in range(count)]
        alone = torch.load(runs[1][0] / "0.pt")
        for key, value in alone.items():
            # rounding differs by processor
            torch.testing.assert_close(weights[0][key], value, rtol=0, atol=1e-5)
            assert all(torch.equal(each[key], weights[0][key]) for each in weights)

        folder = out / "faces/noor"
        trees[count] = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.suffix in (".png", ".csv")
        }
        assert trees[count] == trees[1] and len(trees[count]) == 12
        counted = [(out / f"counts{number}").read_text() for number in range(count)]
        assert set(counted) == {
            "[('normalized', 11), ('unreadable', 1)]\n[('there already', 11), ('unreadable', 1)]\n"
        }


@pytest.mark.slow
def test_chance_and_tests_are_those_of_one_process(runs):
    """Augmentation, chosen rows, identities and targets, dropout, stochastic depth and gates' noise
    fall as in one process, and predictions come in the order of the rows."""
    alone = {}
    for count, (out, _) in runs.items():
        for name in ("masked", "expression", "synthesis", "tuned", "frozen"):
            lines = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
            losses = [line["loss"] for line in lines] + [line.get("test", 0.0) for line in lines]
            alone.setdefault(name, losses)
            np.testing.assert_allclose(losses, alone[name], rtol=0, atol=1e-5, err_msg=name)

        for name in ("tuned", "frozen"):
            for number in range(count):
                with (
                    np.load(out / f"{name}{number}.npz") as made,
                    np.load(runs[1][0] / f"{name}0.npz") as expected,
                ):
                    assert made.keys() == expected.keys() == {"found", "input", "output"}
                    # rounding may decide which of two experts with equal scores a face gets
                    gates = [(made[key] > 0, expected[key] > 0) for key in ("input", "output")]
                    alike = [
                        (ours == theirs).reshape(len(ours), -1).all(1) for ours, theirs in gates
                    ]
                    same = np.all(alike, axis=0)
                    assert (~same).sum() <= 1
                    for key in made:
                        rows = same[::-1] if key == "found" else same  # read in that order
                        np.testing.assert_allclose(
                            made[key][rows], expected[key][rows], rtol=0, atol=1e-4
                        )


@pytest.mark.slow
def test_one_of_two_processes_that_run_an_experiment_writes_and_prints(tiny_benchmark, tmp_path):
    call = ["-m", "norface_lib", "train", tiny_benchmark, tmp_path / "out", "--json"]
    call += ["--protocol", "rendered/2fold-seed0", "--inputs", "both", "--backbone", "tuned"]
    call += ["--steps", "2", "--batch-size", "4", "--leakage", "per-fold", "--tuning-steps", "1"]
    call += ["--term", "expression=0", "--term", "self_reconstruction=1"]
    printed = json.loads(run_together(2, *call))
    assert printed["exit_code"] == 0 and printed["scores"].keys() == {"both"}
    result = json.loads((tmp_path / "out/au_detection/result.json").read_text())
    row = result["result"]["rows"]["both"]
    assert row["headline"] == printed["scores"]["both"]
    assert row["trained"][0]["effective_batch"] == 4
    assert len(list((tmp_path / "out/au_detection/faces").glob("*.npy"))) == 2, "one for each fold"


@pytest.fixture
def shared(monkeypatch):
    """``shared(of, *values)``: what a function makes of a whole batch in one process, and of their
    shares in each of three, put together."""

    def as_process(number, count):
        for module in (chance, layers, sharing):
            monkeypatch.setattr(module, "place", lambda: (number, count))

    def both(of, *values):
        torch.manual_seed(3)
        as_process(0, 1)
        whole = of(*values)
        shares = torch.empty_like(whole)
        for number in range(3):
            as_process(number, 3)
            torch.manual_seed(3)
            shares[number::3] = of(*(value[number::3] for value in values))
        return whole, shares

    return both


CHANGES = {
    "photometric": photometric,
    "jitter": jitter,
    "degraded": lambda images: degraded(images, 0.8),
    "two views": lambda images: torch.cat(two_views(images), dim=1),
    "pairs": lambda images: torch.cat(augmented_pairs(images, 1 - images), dim=1),
    "dropout": layers.Dropout(0.4),
    "drop path": layers.DropPath(0.4),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_sample_meets_the_same_chance_in_any_number_of_processes(change, shared):
    images = torch.rand(12, 3, 16, 16)
    whole, shares = shared(change, images)
    assert torch.equal(whole, shares) and not torch.equal(whole[:, :3], images)


def test_dropout_falls_as_that_of_torch_and_timm_does():
    images = torch.rand(12, 3, 16, 16)
    for ours, theirs in (
        (layers.Dropout(0.4), torch.nn.Dropout(0.4)),
        (layers.DropPath(0.4), timm.layers.DropPath(0.4)),
    ):
        torch.manual_seed(0)
        made = ours(images)
        torch.manual_seed(0)
        assert torch.equal(made, theirs(images))
        assert torch.equal(ours.eval()(images), images)


def test_networks_have_no_stochastic_depth_of_their_own():
    networks = (FaceEncoder(drop_path_rate=0.2), TimmEncoder("resnet10t", None, 0.2))
    for network in networks:
        kinds = {type(module) for module in network.modules()}
        assert layers.DropPath in kinds and timm.layers.DropPath not in kinds


def test_rows_are_chosen_for_the_whole_batch():
    """Balanced rows and identities, as of one process."""
    choose = of_versions(balanced(torch.arange(10.0)), 10, 3)
    whole = list(StepSampler(10, 6, steps=4, choose=choose))
    for number in range(3):
        share = StepSampler(10, 6, steps=4, choose=choose, process=number, processes=3)
        for ours, all_rows in zip(share, whole, strict=True):
            assert ours.tolist() == all_rows[number::3].tolist()


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch):
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda _: 4))
    check_shares("train", 8, 1, accelerator)
    with pytest.raises(ValueError, match="4 processes cannot share batches of 6 samples evenly"):
        check_shares("train", 6, 1, accelerator)


def test_shares_of_a_stopped_call_become_part_of_the_manifest(tmp_path):
    rows = [Row(f"{name}.jpg", name, f"{name}.png", name, "") for name in "abc"]
    write_manifest(tmp_path, rows[:2], "w")
    write_manifest(tmp_path, [rows[1]._replace(sha256="new")], "w", "manifest-1.csv")
    write_manifest(tmp_path, rows[2:], "w", "manifest-3.csv")
    known = joined_rows(tmp_path, "w")
    assert known == {"a.jpg": rows[0], "b.jpg": rows[1]._replace(sha256="new"), "c.jpg": rows[2]}
    assert [path.name for path in tmp_path.glob("*.csv")] == ["manifest.csv"]
    expected = pd.DataFrame([known[f"{name}.jpg"] for name in "abc"])
    pd.testing.assert_frame_equal(read_manifest(tmp_path), expected)
