"""Where networks compute: each on the device that was asked for, in the precision that suits it.

There need be no CUDA device: a stand-in is named, to which networks are "moved" by leaving a mark
on them, and whatever computes without the mark is noted.
"""

import contextlib
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from norface_lib.common import devices
from norface_lib.datasets import pairs as pair_files
from norface_lib.datasets.pairs import Pairs, embed
from norface_lib.networks import inference
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.weights import load_normalizer
from norface_lib.studies.experiment import Experiment
from norface_lib.tasks.tasks import Detection
from norface_lib.training import classifier as classifiers
from norface_lib.training import loader
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_terms import terms_of

ELSEWHERE = torch.device("cuda:7")


@pytest.fixture
def elsewhere(monkeypatch):
    """The kinds of networks that computed on the CPU while ``cuda:7`` was asked for."""
    to_module, to_tensor = nn.Module.to, torch.Tensor.to
    left_behind = set()

    def move_module(module, *places, **options):
        if ELSEWHERE in places:
            for part in module.modules():
                part.moved = True
            places = [place for place in places if place != ELSEWHERE]
        return to_module(module, *places, **options) if places or options else module

    def move_tensor(tensor, *places, **options):
        places = [place for place in places if place != ELSEWHERE]
        return to_tensor(tensor, *places, **options) if places else tensor

    def note(module, _):
        if next(module.parameters(recurse=False), None) is not None and not hasattr(
            module, "moved"
        ):
            left_behind.add(type(module).__name__)

    monkeypatch.setattr(devices, "available_devices", lambda: ["cpu", "cuda:7"])
    monkeypatch.setattr(nn.Module, "to", move_module)
    monkeypatch.setattr(torch.Tensor, "to", move_tensor)
    # nothing to pin and nobody to read ahead for
    monkeypatch.setattr(loader, "default_workers", lambda device: 0)
    made = loader.DataLoader
    monkeypatch.setattr(
        loader, "DataLoader", lambda *parts, **more: made(*parts, **more | {"pin_memory": False})
    )
    monkeypatch.setattr(devices, "mixed_precision", lambda *_: contextlib.nullcontext())
    before = torch.backends.cuda.matmul.allow_tf32
    hook = nn.modules.module.register_module_forward_pre_hook(note)
    yield left_behind
    hook.remove()
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(
    ("backbone", "leakage"), [("frozen", "pretrained"), ("frozen", "all"), ("tuned", "per-fold")]
)
def test_every_network_computes_on_the_device_that_was_asked_for(
    backbone, leakage, tiny_benchmark, tmp_path, elsewhere
):
    """Normalizing, embedding, fine-tuning, second faces, training and testing."""
    terms = terms_of(["reconstruction=0", "edge=0", "reading=0", "self_reconstruction=1"], [])
    experiment = Experiment(
        task="au_detection",
        data="rendered",
        root=tiny_benchmark,
        protocol="rendered/2fold-seed0",
        backbone=backbone,
        rows=("both", "read and render"),
        steps=1,
        leakage=leakage,
        tuning=NormalizerTraining.of_steps(0, 1, terms=terms),
        final=leakage == "all",
    )
    experiment.run(tmp_path, device="cuda:7", progress=False, workers=0)
    assert elsewhere == set()


def test_both_datasets_of_an_experiment_are_embedded_on_the_device(
    tiny_benchmark, tmp_path, elsewhere
):
    others = shutil.copytree(tiny_benchmark, tmp_path / "others")
    table = pd.read_csv(others / "labels.csv")
    table.assign(subject="other " + table["subject"]).to_csv(others / "labels.csv", index=False)
    experiment = Experiment(
        task="au_detection",
        data="rendered",
        root=tiny_benchmark,
        test_data="rendered",
        test_root=others,
        protocol="rendered->rendered/all",
        rows=("both",),
        steps=1,
    )
    experiment.run(tmp_path / "out", device="cuda:7", progress=False, workers=0)
    assert elsewhere == set()


@pytest.fixture
def no_tf32():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def test_float32_is_multiplied_as_tf32_on_cuda_alone(monkeypatch, no_tf32):
    monkeypatch.setattr(devices, "available_devices", lambda: ["cpu", "cuda:0"])
    assert devices.device_of("cpu").type == "cpu"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert devices.device_of("cuda:0") == torch.device("cuda:0")
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def faces(tiny_benchmark):
    from norface_lib.datasets.rendered import Rendered

    data = Rendered(tiny_benchmark)
    return Pairs(data.originals, data.truths, data.occurrences(), data.subjects)


def test_a_trained_network_is_used_in_float32_on_a_cpu_and_in_bfloat16_on_cuda(monkeypatch):
    asked = []

    def noted(device, wanted=None):
        asked.append((device.type, wanted))
        return contextlib.nullcontext()

    monkeypatch.setattr(devices, "mixed_precision", noted)
    for name in ("cpu", "cuda", "mps"):
        devices.evaluation_precision(torch.device(name))
    assert asked == [("cpu", False), ("cuda", True), ("mps", False)]


def test_what_is_computed_in_bfloat16_comes_as_float32_and_is_nearly_the_same(faces, monkeypatch):
    """Embeddings, drawn faces, predictions, gates."""
    from norface_lib.studies.expert_usage import gates_of
    from norface_lib.studies.recipes import recipe_for

    model, target, _ = load_normalizer("tiny")
    task = Detection(("AU12",))
    torch.manual_seed(0)
    network = classifiers.Classifier(recipe_for(task, model, "tuned").config).eval()
    rows = np.arange(len(faces))

    def all_of_it():
        embedded = embed(faces, model)
        return {
            "embedded": embedded.originals.numpy(),
            "drawn": normalize_faces(model, target, faces.originals).astype(np.float32),
            "predicted": classifiers.predict_rows(network, faces, rows, task),
            "gates": gates_of(network, faces, rows)["input"],
        }

    plain = all_of_it()
    from norface_lib.studies import expert_usage

    used = []

    def half(device):
        used.append(device)
        return torch.autocast("cpu", torch.bfloat16)

    for module in (pair_files, inference, classifiers, expert_usage):
        monkeypatch.setattr(module, "evaluation_precision", half)
    fast = all_of_it()
    assert len(used) >= 4
    for name, values in plain.items():
        assert fast[name].dtype == np.float32, name
        off = np.abs(fast[name] - values).mean() / np.abs(values).mean()
        assert off < 0.03, (name, off)
        assert off > 0 or name == "gates"  # an untrained gate treats all faces alike
