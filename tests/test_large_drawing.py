"""A normalizer that draws larger than it sees, and from intensities alone; and what uses it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec, target_face
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import resized, to_tensor
from norface_lib.networks.drawing import NetworkDrawing
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.export_onnx import export_onnx
from norface_lib.networks.frozen import frozen_network
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import PRESETS, Normalizer, NormalizerConfig, shrunk
from norface_lib.networks.token_reader import TokenReader, TokenReaderConfig
from norface_lib.networks.weights import load_normalizer, save_normalizer, save_token_reader
from norface_lib.studies.normalizer_measures import evaluate_normalizer
from norface_lib.training.beginning import beginning
from norface_lib.training.normalizer import NormalizerTraining, train_normalizer
from norface_lib.training.normalizer_losses import Sources, SynthesisLoss, plain_codes
from norface_lib.training.normalizer_recipe import train_and_save
from norface_lib.training.normalizer_terms import SynthesisTerms

ENCODER = EncoderConfig(image_size=112, dim=32, depth=1, heads=2, stem=(16, 16))
LARGE = NormalizerConfig(
    encoder=ENCODER,
    merging_blocks=1,
    widths=(16, 16),
    scale=2,
    codes=labels.EXPRESSION_COLUMNS,
)


@pytest.fixture(scope="module")
def large_benchmark(tmp_path_factory):
    """Four people of two frames at 224 px, with two targets in turn."""
    spec = BenchmarkSpec(pool="pretrain", subjects=4, frames=2, size=224, target="noor+mira")
    folder = tmp_path_factory.mktemp("large") / "benchmark"
    return write_benchmark(spec, folder, workers=1, progress=False)


@pytest.fixture
def network():
    """A network that draws something."""
    torch.manual_seed(0)
    model = Normalizer(LARGE)
    with torch.no_grad():
        model.decoder.draw[2].weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return model.eval()


@pytest.fixture
def weights(network, large_benchmark, tmp_path):
    """A file of that network, with both targets."""
    card = {"data": {"target": "noor+mira"}}
    return save_normalizer(
        network, large_benchmark / "target.png", tmp_path / "large.safetensors", card
    )


# --- the network ----------------------------------------------------------------------------------


def test_what_is_drawn_is_as_large_as_the_target(network):
    originals, target = torch.rand(2, 3, 112, 112), torch.rand(1, 3, 224, 224)
    assert network.config.size == 224
    assert network(originals, target).shape == (2, 3, 224, 224)
    untrained = Normalizer(LARGE).eval()
    assert torch.equal(untrained(originals, target), target.expand(2, -1, -1, -1))


def test_intensities_are_drawn_without_an_original(network):
    codes = torch.zeros(2, len(LARGE.codes))
    codes[1, LARGE.codes.index("AU12L")] = 1
    target = network.target(torch.rand(1, 3, 224, 224))
    neutral, smile = network.draw(codes, target)
    assert neutral.shape == (3, 224, 224)
    assert not torch.allclose(neutral, smile, atol=1e-4)


def test_a_network_without_codes_draws_from_faces_only(network):
    plain = Normalizer(replace(LARGE, codes=()))
    with pytest.raises(ValueError, match="draws from faces only"):
        plain.draw(torch.zeros(1, 3), network.target(torch.rand(1, 3, 224, 224)))


def test_sides_have_columns_where_they_move_on_their_own(large_benchmark):
    names = labels.EXPRESSION_COLUMNS
    assert "AU12L" in names and "AU12R" in names and "AU26" in names and "AU12" not in names
    codes, columns, _ = Rendered(large_benchmark).expression_codes()
    assert sorted(columns) == sorted(names)
    plain = plain_codes(Rendered(large_benchmark), names)
    np.testing.assert_array_equal(plain[:, names.index("AU12R")], codes[:, columns.index("AU12R")])


@pytest.mark.parametrize(("size", "target"), [(100, 112), (112, 224)])
def test_sizes_that_do_not_divide_are_refused(size, target):
    with pytest.raises(ValueError, match="cannot be shrunk evenly"):
        shrunk(torch.rand(1, 3, size, size), target)


def test_arrays_and_tensors_shrink_alike(large_benchmark):
    faces = Rendered(large_benchmark).originals
    small = resized(faces, 112)
    assert small.shape == (8, 112, 112, 3)
    tensor = shrunk(to_tensor(faces), 112)
    np.testing.assert_allclose(to_tensor(small).numpy(), tensor.numpy(), atol=0.5 / 255 + 1e-6)
    assert resized(faces, 224) is faces


def test_the_preset_draws_twice_as_large():
    config = PRESETS["tiny-224"]
    assert config.encoder == PRESETS["tiny"].encoder and config.size == 224
    assert config.codes == labels.EXPRESSION_COLUMNS
    with pytest.raises(ValueError, match="scale must be at least 1"):
        replace(config, scale=0)


# --- its training ---------------------------------------------------------------------------------


def test_the_first_faces_are_drawn_from_their_intensities_alone(large_benchmark, network):
    data = Rendered(large_benchmark)
    terms = SynthesisTerms(code_share=0.5)
    sources = Sources(data.targets, data)
    loss = SynthesisLoss(sources, None, terms, LARGE, torch.device("cpu"))
    batch = loss.batch(sources[np.arange(8)])
    assert batch.originals.shape == (8, 3, 112, 112) and batch.truths.shape == (8, 3, 224, 224)
    assert len(batch.coded) == 4

    drawn, expression = loss._draw(network, batch)
    assert len(expression) == 4
    blind = batch._replace(originals=torch.zeros_like(batch.originals))
    unseen, _ = loss._draw(network, blind)
    torch.testing.assert_close(unseen[:4], drawn[:4])
    assert not torch.allclose(unseen[4:], drawn[4:], atol=1e-4)


def test_drawing_from_intensities_needs_codes_and_pairs(large_benchmark):
    data = Rendered(large_benchmark)
    sources = Sources(data.targets, data)
    terms = SynthesisTerms(code_share=0.5)
    with pytest.raises(ValueError, match="a normalizer with codes"):
        SynthesisLoss(sources, None, terms, replace(LARGE, codes=()), torch.device("cpu"))
    with pytest.raises(ValueError, match="no column AU99"):
        plain_codes(data, ("AU12L", "AU99"))
    with pytest.raises(ValueError, match=r"code_share must be within \[0, 1\]"):
        SynthesisTerms(code_share=1.5)


def test_the_decoder_learns_to_draw_and_a_frozen_encoder_stays(large_benchmark, network):
    data = Rendered(large_benchmark)
    training = NormalizerTraining.of_steps(2, 2, drawing=12, frozen_encoder=True)
    assert list(training.stages) == ["expression", "drawing", "synthesis"]
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    trained = train_normalizer(data, LARGE, training, progress=False, start=network)
    for name, value in trained.encoder.state_dict().items():
        assert torch.equal(value, before[name])
    changed = trained.decoder.stages[0][0].weight - network.decoder.stages[0][0].weight
    assert changed.abs().max() > 0
    assert all(value.requires_grad for value in trained.parameters())


def test_the_recipe_begins_with_the_encoder_of_a_reader(large_benchmark, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny-224", LARGE)
    reader = TokenReader(TokenReaderConfig(encoder=ENCODER))
    path = save_token_reader(reader, tmp_path / "r.safetensors", {"license": "none"})
    monkeypatch.setattr(
        "norface_lib.training.normalizer_recipe.measure", lambda model, folder, target: {}
    )
    training = NormalizerTraining.of_steps(0, 1, drawing=1, frozen_encoder=True)
    saved = train_and_save(
        large_benchmark, tmp_path / "out", "tiny-224", training, encoder=str(path), terms="research"
    )
    model, face, card = load_normalizer(saved, "mira")
    assert face.shape == (1, 3, 224, 224)
    assert card["license"] == "research" and card["start"]["encoder"]["weights"] == "r"
    theirs = reader.encoder.state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, theirs[name].half().float())


def test_weights_of_another_decoder_are_taken_as_far_as_they_fit(tmp_path, capsys, weights):
    config = replace(LARGE, scale=1, codes=())
    model, card = beginning(config, start=str(weights))
    assert torch.equal(model.merging.tell.weight, load_normalizer(weights)[0].merging.tell.weight)
    begins_at_random = card["start"]["random"]
    assert 0 < begins_at_random < card["start"]["taken"]
    assert f"{begins_at_random} begin at random, as decoder." in capsys.readouterr().out
    _, card = beginning(LARGE, start=str(weights))
    assert card["start"]["random"] == 0 and capsys.readouterr().out == ""
    assert beginning(LARGE) == (None, {"start": None})


def test_encoders_of_another_size_are_refused(tmp_path, weights):
    other = replace(LARGE, encoder=replace(ENCODER, depth=2))
    with pytest.raises(DataError, match="its encoder is another one than that of the preset"):
        beginning(other, start=str(weights))
    reader = TokenReader(TokenReaderConfig(encoder=ENCODER))
    path = save_token_reader(reader, tmp_path / "r.safetensors", {})
    with pytest.raises(DataError, match="its encoder is another one than that of the preset"):
        beginning(other, encoder=str(path))


def test_a_frozen_reader_shows_its_tokens_and_what_it_reads(tmp_path):
    reader = TokenReader(TokenReaderConfig(encoder=ENCODER)).eval()
    path = save_token_reader(reader, tmp_path / "r.safetensors", {})
    network = frozen_network(f"reader:{path}")
    embedding, (maps,) = network(torch.rand(2, 3, 224, 224))
    count = len(reader.config.aus)
    assert embedding.shape == (2, 2 * count + len(reader.config.emotions))
    assert maps.shape == (2, 32, 7, 7)


# --- its use --------------------------------------------------------------------------------------


def test_faces_are_drawn_large_and_given_small_on_request(weights, large_benchmark):
    originals = resized(Rendered(large_benchmark).originals, 112)
    model, face, _ = load_normalizer(weights)
    large = normalize_faces(model, face, originals)
    small = normalize_faces(model, face, originals, size=112)
    assert large.shape == (8, 224, 224, 3) and small.shape == (8, 112, 112, 3)
    assert np.abs(resized(large, 112).astype(int) - small).max() <= 1
    drawing = NetworkDrawing(str(weights), "mira", "cpu", size=112)
    assert drawing.draw(originals).shape == (8, 112, 112, 3)
    assert np.abs(drawing.draw(originals).astype(int) - small).mean() > 1


def test_what_is_drawn_large_is_measured_large(weights, monkeypatch):
    """Faces that were shrunk have other edges than rendered ones of that size."""
    seen = {}

    def measure(draw, evaluator, data, domain, seed, probes):
        seen.update(truths=data.truths.shape[1], drawn=draw(data.originals[:2]).shape)
        return iter(())

    monkeypatch.setattr("norface_lib.studies.normalizer_measures.measure_normalizer", measure)
    evaluated = evaluate_normalizer(weights, subjects=4, frames=2)
    assert seen == {"truths": 224, "drawn": (2, 224, 224, 3)}
    assert evaluated["settings"]["benchmark"]["size"] == 224


def test_an_exported_file_draws_as_large(weights, large_benchmark, tmp_path):
    import onnxruntime

    export_onnx([str(weights)], tmp_path / "large.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "large.onnx"))
    faces = to_tensor(resized(Rendered(large_benchmark).originals[:2], 112)).contiguous()
    (drawn,) = session.run(None, {"original": faces.numpy()})
    model, face, _ = load_normalizer(weights)
    with torch.inference_mode():
        np.testing.assert_allclose(drawn, model(faces, face).numpy(), atol=1e-4)


def test_a_symmetric_target_has_two_sides_alike():
    def uneven(name):
        """How far nine tenths of the mirrored head are from the head at most, in millimeters."""
        vertices = torch.from_numpy(np.asarray(target_face(name).subject.vertices))
        mirrored = vertices * torch.tensor([-1.0, 1.0, 1.0])
        return 1000 * torch.cdist(mirrored, vertices).amin(dim=1).quantile(0.9).item()

    assert uneven("mira") < 0.5 < 1 < uneven("noor")
