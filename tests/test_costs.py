"""What the paper's runs cost, and the batch file that runs them."""

import os
import signal
import subprocess
import time

import pytest
import torch

from norface_lib.common.paths import ROOT
from norface_lib.networks.flops import flops_of
from norface_lib.networks.normalizer import PRESETS, Normalizer
from norface_lib.studies.costs import (
    EPOCHS,
    FLOPS_PER_SECOND,
    RUNS,
    Run,
    costs_table,
    flops_per_face,
    gigabytes,
    hours,
)
from norface_lib.studies.result_files import ResultFiles


def test_operations_are_counted_without_being_done_as_if_they_were():
    model = Normalizer(PRESETS["tiny"]).eval()
    image = torch.rand(1, 3, 112, 112)
    # with gradients: without any, a CPU fuses attention into an operation that is not counted
    target = model.target(torch.rand(1, 3, 112, 112))
    encoder = flops_of(lambda face: model.expression(model.encoder(face)), image)
    whole = flops_of(lambda face: model.synthesize(model.encoder(face), target), image)
    assert flops_per_face("tiny") == (encoder, whole)
    assert flops_per_face()[0] > 20 * encoder, "base is far larger"


def test_hours_are_operations_over_speed():
    run = Run.of_folds("four folds", 1000, 4)
    assert (run.frames, run.trained, run.tested) == (1000, 3000, 1000)
    backbone, whole = flops_per_face()
    normalizing, training = hours(run)
    assert normalizing == pytest.approx(1000 * whole / FLOPS_PER_SECOND / 3600)
    # two faces of a pair; forward and twice as much backward in each epoch, forward in the test
    pairs = 3 * 3000 * EPOCHS + 1000
    assert training == pytest.approx(2 * backbone * pairs / FLOPS_PER_SECOND / 3600)
    assert gigabytes(1000) == pytest.approx(1000 * 256 * 256 * 3 / 1e9)


def test_the_table_has_a_line_for_each_run():
    table = costs_table(ResultFiles(ROOT / "results"))
    assert [row[0] for row in table.rows] == [run.name for run in RUNS]
    by_name = {row[0]: row for row in table.rows}
    assert by_name["BP4D+, 12 AUs, 4 folds"][3] == "7.3"
    assert "not measured" in table.notes[0] and "250 TFLOP/s" in table.notes[0]


@pytest.mark.parametrize("asked", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_that_must_make_room_ends_its_training_and_queues_again(asked, tmp_path):
    """With stand-ins for Slurm's programs."""
    programs = {
        "srun": f'echo "$@" > {tmp_path}/srun; exec sleep 60',
        "scontrol": f'[ "$1" = show ] && echo node7; echo "$@" >> {tmp_path}/scontrol',
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "SLURM_JOB_ID": "12",
        "SLURM_NNODES": "1",
        "SLURM_JOB_NODELIST": "node7",
    }
    job = subprocess.Popen(
        ["bash", str(ROOT / "docs/slurm/train.sbatch"), "/data", "out", "--dataset", "bp4d"],
        env=environment,
        stdout=subprocess.PIPE,
    )
    while not (tmp_path / "srun").exists():
        time.sleep(0.05)
    job.send_signal(asked)
    assert job.wait(30) == 0
    assert (tmp_path / "scontrol").read_text().splitlines()[-1] == "requeue 12"
    call = (tmp_path / "srun").read_text()
    assert "--rdzv-endpoint node7:29500" in call
    assert call.endswith("-m norface_lib train /data out --dataset bp4d --device cuda\n")
