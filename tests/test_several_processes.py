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
import torch
from accelerate import Accelerator

from norface_lib.common.paths import ROOT
from norface_lib.datasets.manifest import Row, joined_rows, read_manifest, write_manifest
from norface_lib.training.shares import check_shares

TRAINING = """
import sys, torch
from pathlib import Path
from torch import nn
from torch.utils.data import TensorDataset
from norface_lib.common.devices import processes
from norface_lib.datasets.image_folder import FolderFaces
from norface_lib.datasets.normalized import normalize_dataset
from norface_lib.training.loop import TrainConfig, fit

out, faces, share = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
data = TensorDataset(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))

def loss(model, batch):
    (samples,) = batch
    assert len(samples) == share, "a process takes its share of the batch"
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


@pytest.mark.slow
def test_two_and_four_processes_make_what_one_does(tiny_benchmark, tmp_path):
    """Losses, weights, normalized faces and counts, at the same effective batch."""
    script = tmp_path / "script.py"
    script.write_text(TRAINING)
    faces = tmp_path / "images"
    shutil.copytree(tiny_benchmark / "images", faces)
    (faces / "lab0001/0001.jpg").write_bytes(b"broken")
    trees, losses = {}, {}
    for count in (1, 2, 4):
        out = tmp_path / str(count)
        out.mkdir()
        printed = run_together(count, script, out, faces, 8 // count)
        line = f"train: {count} processes x {8 // count} samples x 1 passes: an effective batch of"
        assert (f"{line} 8" in printed) == (count > 1)
        lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 4, 6], "one process writes the log"
        losses[count] = [line["loss"] for line in lines]
        np.testing.assert_allclose(losses[count], losses[1], rtol=0, atol=1e-5)

        weights = [torch.load(out / f"{number}.pt") for number in range(count)]
        alone = torch.load(tmp_path / "1/0.pt")
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
