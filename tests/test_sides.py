"""How a token reader tells the left side of a face from the right one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from norface_lib import labels
from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.datasets.label_table import side_codes
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.studio import Studio
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import to_tensor
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.token_reader import TokenReader, TokenReaderConfig
from norface_lib.networks.weights import load_token_reader, save_token_reader
from norface_lib.training.reader_sides import EVEN, SIDES_FIT, calibrate_sides, train_sides

CONFIG = TokenReaderConfig(
    encoder=EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16)), tells_sides=True
)
AUS = CONFIG.aus
SIDED = np.array(CONFIG.sided)


@pytest.fixture
def reader():
    torch.manual_seed(0)
    model = TokenReader(CONFIG).eval()
    with torch.no_grad():
        model.head.bias[: 2 * len(AUS)].fill_(2.0)
    return model


def images(count=5):
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def differences(model, faces):
    return model.sides(model.encoder(faces), model.encoder(faces.flip(3)))


@torch.inference_mode()
def test_a_face_and_its_mirror_image_have_opposite_differences(reader):
    faces = images()
    there, here = differences(reader, faces.flip(3)), differences(reader, faces)
    torch.testing.assert_close(there, -here)
    assert here[:, SIDED].abs().max() > 1e-3 and not here[:, ~SIDED].any()
    even = (faces + faces.flip(3)) / 2
    torch.testing.assert_close(differences(reader, even), torch.zeros(5, len(AUS)))


def test_small_differences_are_none_and_large_ones_stay(reader):
    reader.sides.least.fill_(0.4)
    found = reader.sides.without_small(torch.tensor([4.0, -0.5, 0.3, -0.4])[:, None])
    expected = torch.tensor([3.96, -0.18, 0.0, 0.0])[:, None].expand(4, len(AUS))
    torch.testing.assert_close(found, expected)


def with_intensities(reader, learned):
    """A reading of faces (N,) each of whose AUs was learned to be as strong on either side."""
    head = reader.head
    with torch.no_grad():
        head.threshold.fill_(0.7)
        head.full.fill_(4.0)
        head.log_slope.fill_(0.5)
    sides = head.graded(learned[:, None, None].expand(len(learned), len(AUS), 2))
    occurrence = head.log_slope.exp() * (learned[:, None] - head.threshold)
    reading = reader(images(len(learned)))._replace(sides=sides, occurrence=occurrence)
    torch.testing.assert_close(head.learned(reading.intensity), learned[:, None].expand(-1, 22))
    return reading


def test_the_weaker_side_is_as_much_below_the_stronger_one_as_the_difference_says(reader):
    reading = with_intensities(reader, torch.tensor([2.0, 3.9]))
    for sign, stronger, weaker in ((1, 0, 1), (-1, 1, 0)):
        changed = reader.head.with_difference(reading, torch.full((2, len(AUS)), 1.5 * sign))
        torch.testing.assert_close(changed.sides[..., stronger], reading.intensity)
        torch.testing.assert_close(changed.sides[..., weaker], reading.intensity - 1.5)
        torch.testing.assert_close(changed.occurrence, reading.occurrence)


def test_the_stronger_side_is_at_least_the_difference_and_its_occurrence_follows(reader):
    """An intensity of 1 (a trace) stays where an occurrence is a matter of even odds."""
    reading = with_intensities(reader, torch.tensor([0.1, 0.3, 0.6]))
    for difference in (0.9, 1.1, 3.0, 7.0):
        changed = reader.head.with_difference(reading, torch.full((3, len(AUS)), -difference))
        expected = min(difference, labels.INTENSITY_MAX)
        torch.testing.assert_close(changed.sides[..., 1], torch.full((3, 22), expected))
        assert not changed.sides[..., 0].any()
        assert ((changed.occurrence > 0) == (difference > labels.OCCURRENCE_THRESHOLD)).all()
        assert (changed.occurrence > reading.occurrence).all()


def test_a_head_for_sides_changes_nothing_where_it_sees_no_difference(reader):
    reader.sides.least.fill_(9.0)
    alone = TokenReader(replace(CONFIG, tells_sides=False)).eval()
    alone.load_state_dict(reader.state_dict(), strict=False)
    before, after = alone(images()), reader(images())
    torch.testing.assert_close(after.intensity, before.intensity)
    torch.testing.assert_close(after.occurrence, before.occurrence)
    torch.testing.assert_close(after.emotion, before.emotion)
    assert torch.equal(after.sides[..., 0], after.sides[..., 1])


def test_a_head_for_sides_is_kept_with_the_weights_of_a_reader(reader, tmp_path):
    reader = reader.half().float()
    reader.sides.least.fill_(0.5)
    again, _ = load_token_reader(save_token_reader(reader, tmp_path / "own.safetensors", {}))
    assert again.config == CONFIG
    torch.testing.assert_close(again(images()).sides, reader(images()).sides)


# --- training -------------------------------------------------------------------------------------


def without_sides():
    torch.manual_seed(0)
    return TokenReader(replace(CONFIG, tells_sides=False)).eval()


def test_a_head_learns_differences_and_the_rest_of_the_reader_stays(tiny_benchmark):
    """The faces are few, so that they can be learned by heart."""
    faces = Rendered(tiny_benchmark, aus=AUS)
    rng = np.random.default_rng(0)
    names = [f"{labels.au_column(AUS[k])}{side}" for k in np.flatnonzero(SIDED) for side in "LR"]
    faces.table[names] = rng.uniform(0, 5, (len(faces), len(names)))
    before = without_sides()
    training = replace(SIDES_FIT.of_length(150, 0), learning_rate=3e-3, batch_size=len(faces))
    model = train_sides(before, faces, training, progress=False)
    for name, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    with torch.inference_mode():
        found = differences(model, to_tensor(faces.originals)).numpy()
    true = side_codes(faces.table, AUS)
    true = true[..., 0] - true[..., 1]
    assert np.corrcoef(found[:, SIDED].ravel(), true[:, SIDED].ravel())[0, 1] > 0.5


def test_what_counts_as_no_difference_is_set_by_faces_whose_sides_move_alike(
    reader, tiny_benchmark, monkeypatch
):
    faces = Rendered(tiny_benchmark, aus=AUS)
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1, (len(faces), len(AUS))) * rng.integers(0, 2, (len(faces), 1))
    told = torch.from_numpy(true + rng.uniform(-0.2, 0.2, true.shape))
    monkeypatch.setattr("norface_lib.training.reader_sides._true_differences", lambda *_: true)
    monkeypatch.setattr(type(reader.sides), "forward", lambda *_: told)
    calibrate_sides(reader, faces)
    least = reader.sides.least.numpy()
    assert not least[~SIDED].any() and (least[SIDED] > 0).all() and (least < 0.5).all()
    alike = np.abs(true) < 0.3
    even = np.abs(told.numpy()) <= least + 1e-6
    assert EVEN - 0.1 < even[:, SIDED][alike[:, SIDED]].mean() < 1


def train_by_command(faces, tmp_path, calibration):
    begin = save_token_reader(without_sides(), tmp_path / "begin.safetensors", {"license": "MIT"})
    call = ["train-sides", tmp_path / "out", faces, "--calibrate", calibration, "--start", begin]
    return CliRunner().invoke(app, [*map(str, call), "--steps", "2", "--name", "sided"])


def test_faces_that_move_both_sides_alike_are_refused(tiny_benchmark, tmp_path):
    done = train_by_command(tiny_benchmark, tmp_path, tiny_benchmark)
    assert isinstance(done.exception, DataError)
    assert "its faces move both sides alike; render some with --one-sided 1" in str(done.exception)


def test_the_command_writes_a_reader_with_a_head_for_sides(tiny_spec, tiny_benchmark, tmp_path):
    spec = replace(tiny_spec, one_sided=1.0)
    faces, out = write_benchmark(spec, tmp_path / "one-sided", progress=False), tmp_path / "out"
    done = train_by_command(faces, tmp_path, tiny_benchmark)
    assert done.exit_code == 0, done.output
    model, card = load_token_reader(out / "sided.safetensors")
    assert model.config.tells_sides and card["license"] == "MIT"
    assert card["sides"]["training"]["steps"] == 2 and card["sides"]["reader"]["weights"] == "begin"
    text = json.dumps(card)
    assert str(tmp_path) not in text and str(tiny_benchmark) not in text


# --- the shipped one ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["noor", "ada"])
def test_the_shipped_reader_sees_which_brow_is_raised_and_which_eye_winks(target):
    """Without its second head it reads the same of both sides but for smiles, and half of it."""
    reader, _ = load_token_reader("tiny-photo-reader")
    studio = Studio(112, target)
    for au, least in ((2, 1.0), (7, 1.0), (10, 1.0), (12, 1.0), (43, 1.0)):
        one = studio.normalized({au: 4.5}, {})
        both = studio.normalized({au: 4.5}, {au: 4.5})
        with torch.inference_mode():
            sides = reader(to_tensor(np.stack([one, one[:, ::-1], both]))).sides
        left, right = sides[:, AUS.index(au)].unbind(1)
        difference = left - right
        assert difference[0] > least and difference[1] < -least, labels.au_column(au)
        assert difference[2] == 0, labels.au_column(au)
        if au in (2, 12, 43):
            assert left[0] > 2.5 and right[1] > 2.5, labels.au_column(au)
            assert right[0] < 1.5 and left[1] < 1.5, labels.au_column(au)
