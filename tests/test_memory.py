"""Memory does not grow with the number of faces: what is made of them lies in files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from norface_lib.common.paths import ROOT

EXPERIMENT = """
import sys, threading, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from norface_lib.datasets.face_files import mapped
from norface_lib.datasets.pairs import Pairs, embed
from norface_lib.datasets.protocols import Split
from norface_lib.networks.classifier import ClassifierConfig
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.studies.preparation import views_of_folds
from norface_lib.tasks.tasks import Detection
from norface_lib.training.classifier import Recipe, predict_rows, train_classifier
from norface_lib.training.loop import TrainConfig
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_terms import terms_of

out, count = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)
most = 0

def watch():
    global most
    while True:
        status = Path("/proc/self/status").read_text()
        most = max(most, int(status.partition("RssAnon:")[2].split()[0]))
        time.sleep(0.005)

def faces(kind):
    batch = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)
    return mapped((batch for _ in range(count // 50)), count, 32, out / f"{kind}.npy")

threading.Thread(target=watch, daemon=True).start()
people = np.arange(count) % 10
labels = (np.arange(count)[:, None] % 2).astype(np.float32)
pairs = Pairs(faces("originals"), faces("normalized"), labels, people.astype(str))
halves = [np.flatnonzero(people < 5), np.flatnonzero(people >= 5)]
splits = [Split("1", *halves), Split("2", *halves[::-1])]
encoder = EncoderConfig(image_size=32, dim=16, depth=1, heads=1, stem=())
model = Normalizer(NormalizerConfig(encoder=encoder, merging_blocks=1, widths=(4,))).eval()
terms = terms_of(["reconstruction=0", "edge=0", "reading=0", "self_reconstruction=1"], [])
task = Detection(("AU12",))
small = ClassifierConfig(task.outputs, encoder=replace(encoder, image_size=16), hidden=16)

for leakage, frozen in (("per-fold", False), ("all", True)):
    views = views_of_folds(
        pairs,
        splits,
        model,
        torch.rand(1, 3, 32, 32),
        embedded=(lambda: embed(pairs, model, keep=out / "kept.safetensors")) if frozen else None,
        size=None if frozen else 16,
        leakage=leakage,
        tuning=NormalizerTraining.of_steps(0, 1, terms=terms),
        folder=out / leakage,
        key="these",
        progress=False,
    )
    config = replace(small, encoder=encoder) if frozen else small
    recipe = Recipe(config=config, training=TrainConfig(steps=3, batch_size=64))
    for view in views:
        assert view.normalized.shape == ((2, count, 16) if frozen else (count, 16, 16, 3))
        assert view.originals.shape == view.normalized.shape
    trained = train_classifier(view, halves[0], task, recipe, progress=False)
    assert predict_rows(trained, view, halves[1], task).shape == (count // 2, 1)
assert len(set(map(id, views))) == 1
print(most)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_ten_times_the_faces_need_no_more_memory(tmp_path):
    """The normalizer fine-tuned by fold, all faces drawn anew, resized, embedded, and read by a
    classifier; 50,000 faces of 32 px take 150 MB, each time that they are held in memory."""
    needed = {}
    for count in (5_000, 50_000):
        (tmp_path / str(count)).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", EXPERIMENT, str(tmp_path / str(count)), str(count)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        needed[count] = int(done.stdout) / 1024
    assert needed[50_000] - needed[5_000] < 40, f"{needed} MB"
