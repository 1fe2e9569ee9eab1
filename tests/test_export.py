"""ONNX files: the same outputs as PyTorch for any number of faces, metadata that says what they
mean, and nothing left of an export that failed; `predict` with onnxruntime."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import CheckpointError
from norface_lib.datasets.rendered import Rendered
from norface_lib.images.arrays import to_tensor
from norface_lib.networks import export_onnx as exporting
from norface_lib.networks.classifier import Classifier, ClassifierConfig
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.export_onnx import export_onnx
from norface_lib.networks.mixtures import MixtureOfExperts, OutputMixture, dense_sum, sparse_sum
from norface_lib.networks.pipeline import ACTIVATIONS
from norface_lib.networks.weights import load_classifier, load_normalizer, save_classifier
from norface_lib.photos.detection import WholeImage
from norface_lib.photos.engines import exported, open_engine
from norface_lib.photos.prediction import predict_tree
from norface_lib.photos.readers import load_reader
from norface_lib.tasks.tasks import TASKS, task_of

READERS = ("tiny-photo-au", "tiny-photo-intensity", "tiny-photo-emotion")
SMALL = EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache, empty."""
    monkeypatch.delenv("NORFACE_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/norface/onnx"


@pytest.fixture
def originals(tiny_benchmark):
    return Rendered(tiny_benchmark).originals[:12]


def run(path, **inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
    return dict(zip(names, session.run(None, arrays), strict=True))


def metadata(path):
    (entry,) = (entry for entry in onnx.load(path).metadata_props if entry.key == "norface")
    return json.loads(entry.value)


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_a_normalizer_gives_what_pytorch_gives_for_any_number_of_faces(originals, tmp_path, count):
    path = tmp_path / "n.onnx"
    export_onnx(["tiny-photo"], path)
    model, target, card = load_normalizer("tiny-photo")
    faces = to_tensor(originals[:count])
    with torch.inference_mode():
        expected = model(faces, target).numpy()
    np.testing.assert_allclose(run(path, original=faces)["normalized"], expected, atol=1e-4)

    onnx.checker.check_model(onnx.load(path))
    about = metadata(path)
    assert about["fingerprints"] == {"tiny-photo": card["fingerprint"]}
    assert about["outputs"] == {"normalized": {"target": "noor"}}
    assert about["color"] == "RGB" and about["range"] == [0, 1] and about["image_size"] == 112
    assert about["crop"] == card["crop"]


@pytest.mark.parametrize("count", [1, 5, 12])
def test_readers_share_a_file_and_give_probabilities_and_intensities(originals, tmp_path, count):
    path = tmp_path / "r.onnx"
    export_onnx(READERS, path)
    faces = to_tensor(originals[:count])
    others = faces.flip(0)
    outputs = run(path, original=faces, normalized=others)
    assert tuple(outputs) == READERS
    for name in READERS:
        model, card = load_classifier(name)
        with torch.inference_mode():
            logits = model(faces, others).logits
        expected = task_of(card["task"], model.config.labels).predictions(logits)
        np.testing.assert_allclose(outputs[name], expected, atol=1e-4)
        about = metadata(path)["outputs"][name]
        assert about == {"task": card["task"], "labels": card["config"]["labels"]}


def test_a_normalizer_with_its_readers_goes_from_the_face_to_the_predictions(originals, tmp_path):
    path = tmp_path / "all.onnx"
    export_onnx(["tiny-photo", *READERS], path)
    outputs = run(path, original=to_tensor(originals))
    engine = open_engine("torch", weights="tiny-photo", readers=READERS, device="cpu")
    normalized, table = engine.run(originals)
    assert np.abs(outputs["normalized"] * 255 - normalized.transpose(0, 3, 1, 2)).max() < 0.51
    values = np.concatenate([outputs[name] for name in READERS], axis=1)
    expected = table.select_dtypes("number")
    limits = np.array([5 if name.endswith("intensity") else 1 for name in expected])
    assert (np.abs(values - expected) / limits).to_numpy().max() < 1e-3


@pytest.mark.parametrize("inputs", ["original", "normalized"])
@pytest.mark.parametrize("changes", [{}, {"input_mixture": False, "output_mixture": False}])
def test_classifiers_that_read_one_face_take_one(tmp_path, originals, inputs, changes):
    config = replace(
        ClassifierConfig(("AU01", "AU12"), inputs=inputs, encoder=SMALL, hidden=16), **changes
    )
    path = save_classifier(trained(config), tmp_path / "c.safetensors", {"task": "au_detection"})
    about = export_onnx([path], tmp_path / "c.onnx")
    assert about["inputs"] == [inputs]
    faces = to_tensor(originals[:5])
    model, _ = load_classifier(path)
    with torch.inference_mode():
        expected = model(faces, faces).logits.sigmoid()
    result = run(tmp_path / "c.onnx", **{inputs: faces})["c"]
    np.testing.assert_allclose(result, expected, atol=1e-4)


def trained(config):
    """A classifier whose gates tell experts apart, as after a training."""
    torch.manual_seed(0)
    model = Classifier(config)
    for module in model.modules():
        if hasattr(module, "gate") and hasattr(module.gate, "clean"):
            torch.nn.init.normal_(module.gate.clean.weight)
    return model.eval()


def test_readers_of_different_backbones_share_a_file_too(tmp_path, originals):
    paths = []
    for number, task in enumerate(("au_detection", "au_intensity")):
        model = trained(ClassifierConfig(("AU12",), inputs="both", encoder=SMALL, hidden=16))
        torch.nn.init.constant_(model.encoder.vit.norm.bias, number)
        path = tmp_path / f"{task}.safetensors"
        paths.append(save_classifier(model, path, {"task": task}))
    export_onnx(paths, tmp_path / "two.onnx")
    faces = to_tensor(originals[:4])
    outputs = run(tmp_path / "two.onnx", original=faces, normalized=faces.flip(0))
    for path in paths:
        model, card = load_classifier(path)
        with torch.inference_mode():
            logits = model(faces, faces.flip(0)).logits
        expected = ACTIVATIONS[card["task"]](logits).numpy()
        np.testing.assert_allclose(outputs[path.stem], expected, atol=1e-4)


@pytest.mark.parametrize("experts", [1, 4, 9])
def test_all_experts_weighted_are_the_experts_that_a_gate_chose(experts):
    top_k = min(2, experts)
    x = torch.randn(11, 16, generator=torch.Generator().manual_seed(0))
    mixture = MixtureOfExperts(16, 8, experts, top_k).eval()
    labels = OutputMixture(16, 8, 5, experts, top_k).eval()
    for module in (mixture, labels):
        torch.nn.init.normal_(module.gate.clean.weight)
        gates = module.gate(x).gates
        gates = gates[:, None] if gates.ndim == 2 else gates
        read = None if module is mixture else lambda rows: rows @ labels.head_weight.t()
        arguments = (module.experts, x, gates, read)
        torch.testing.assert_close(dense_sum(*arguments), sparse_sum(*arguments))


def test_the_activations_of_a_file_are_those_of_the_tasks():
    assert ACTIVATIONS.keys() == TASKS.keys()
    logits = 4 * torch.randn(6, 3)
    for name, activation in ACTIVATIONS.items():
        expected = task_of(name, ("a", "b", "c")).predictions(logits)
        np.testing.assert_allclose(activation(logits), expected)


def test_a_file_that_differs_from_pytorch_is_not_kept(tmp_path, monkeypatch):
    out = tmp_path / "n.onnx"
    out.write_bytes(b"an earlier file")
    monkeypatch.setattr(exporting, "TOLERANCE", 1e-9)
    with pytest.raises(CheckpointError, match=r"n\.onnx: not written, as its output normalized di"):
        export_onnx(["tiny-photo"], out)
    assert out.read_bytes() == b"an earlier file" and len(list(tmp_path.glob("*.onnx"))) == 1


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["tiny", "tiny-photo"], {}, "one normalizer"),
        (["evaluator"], {}, "cannot be exported"),
        (["tiny-photo-au", "tiny-photo-au"], {}, "different names"),
        (["tiny-photo-au"], {"target": "noor"}, "a reader has no target"),
        (["tiny-photo"], {"target": "ada"}, "cannot synthesize 'ada'"),
        (["tiny-photo"], {"opset": 9}, "opset must be within 17..20"),
        (["nothing"], {}, "no weights 'nothing'"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, names, options, words):
    with pytest.raises(CheckpointError, match=words):
        export_onnx(names, tmp_path / "out.onnx", **options)
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize("opset", [17, 20])
def test_the_command_writes_a_file_of_the_opset_asked_for(tmp_path, opset):
    out = tmp_path / "deep/n.onnx"
    result = CliRunner().invoke(app, ["export", "tiny", str(out), "--opset", str(opset)])
    assert result.exit_code == 0 and "original to normalized" in result.output
    assert [entry.version for entry in onnx.load(out).opset_import] == [opset]


# --- predict --------------------------------------------------------------------------------------


def test_predict_gives_the_same_table_with_both_engines(tiny_benchmark, tmp_path, cache):
    source = tiny_benchmark / "images"
    tables = {}
    for engine in ("torch", "onnx"):
        out = tmp_path / engine
        predict_tree(source, out, WholeImage(), engine=engine, batch_size=5, progress=False)
        tables[engine] = pd.read_csv(out / "predictions.csv")
    assert list(tables["onnx"].columns) == list(tables["torch"].columns)
    numbers = tables["torch"].select_dtypes("number").columns
    limits = np.array([5 if name.endswith("intensity") else 1 for name in numbers])
    differences = (tables["onnx"][numbers] - tables["torch"][numbers]).abs() / limits
    assert differences.max().max() < 1e-3
    assert tables["onnx"]["source"].equals(tables["torch"]["source"])
    assert len(list(cache.glob("*.onnx"))) == 1
    for path in (tmp_path / "onnx/normalized").rglob("*.png"):
        other = tmp_path / "torch/normalized" / path.relative_to(tmp_path / "onnx/normalized")
        assert other.is_file()


def test_the_exported_file_is_kept_and_a_damaged_one_is_made_anew(cache, originals):
    path, _ = exported(["tiny-photo", *READERS[:1]], None)
    assert path.parent == cache
    before = path.stat().st_mtime_ns
    assert exported(["tiny-photo", *READERS[:1]], None)[0].stat().st_mtime_ns == before
    assert exported(["tiny-photo", *READERS[1:2]], None)[0] != path

    path.write_bytes(path.read_bytes()[:1000])
    engine = open_engine("onnx", weights="tiny-photo", readers=READERS[:1])
    assert path.stat().st_size > 1e6
    _, table = engine.run(originals[:3])
    assert len(table) == 3 and table["AU12"].between(0, 1).all()


def test_a_file_of_other_weights_in_its_place_is_not_used(cache):
    path, _ = exported(["tiny-photo", *READERS[:1]], None)
    export_onnx(["tiny", "tiny-au"], path)
    engine = open_engine("onnx", weights="tiny-photo", readers=READERS[:1])
    assert list(metadata(engine.path)["fingerprints"]) == ["tiny-photo", READERS[0]]


def test_engines_refuse_other_devices_names_and_normalizers():
    with pytest.raises(ValueError, match="engine must be one of torch, onnx, got 'tensorrt'"):
        open_engine("tensorrt", weights="tiny-photo", readers=READERS)
    with pytest.raises(ValueError, match="computes on the CPU, not on cuda"):
        open_engine("onnx", weights="tiny-photo", readers=READERS, device="cuda")
    with pytest.raises(CheckpointError, match="belongs to another normalizer"):
        open_engine("onnx", weights="tiny", readers=READERS)


def test_a_token_reader_reads_alike_by_both_engines(originals):
    settings = {"weights": "tiny-photo", "readers": ["tiny-photo-reader", "tiny-photo-au"]}
    by_torch = open_engine("torch", device="cpu", **settings).run(originals[:4])[1]
    by_onnx = open_engine("onnx", **settings).run(originals[:4])[1]
    assert list(by_torch.columns) == list(by_onnx.columns)
    assert {"tiny-photo-reader.AU12", "tiny-photo-au.AU12", "AU12_left", "emotion"} <= set(by_torch)
    assert (by_torch["emotion"] == by_onnx["emotion"]).all()
    numbers = by_torch.columns.drop("emotion")
    np.testing.assert_allclose(by_torch[numbers], by_onnx[numbers], atol=1e-3)


def test_a_reader_can_be_a_path(tmp_path, originals):
    model, card = load_classifier("tiny-photo-au")
    path = save_classifier(model, tmp_path / "mine.safetensors", {"task": card["task"]})
    engine = open_engine("onnx", weights="tiny-photo", readers=[str(path)])
    reader = load_reader(str(path))
    assert list(engine.run(originals[:2])[1].columns) == list(reader.columns)
