"""The token reader: what it gives, how it is trained, and its thresholds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from norface_lib import labels
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.datasets.label_table import emotion_shares, side_codes
from norface_lib.datasets.rendered import Rendered
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.token_reader import TokenReader, TokenReaderConfig
from norface_lib.networks.weights import load_classifier, load_token_reader, save_token_reader
from norface_lib.photos.readers import load_reader, read_table
from norface_lib.training.loop import TrainConfig
from norface_lib.training.reader_calibration import (
    FALSE_ALARMS,
    ReaderThresholds,
    learned_intensities,
    set_thresholds,
    thresholds_of,
)
from norface_lib.training.token_reader import (
    ReaderSource,
    ReaderTraining,
    sampling_weights,
    train_token_reader,
)

CONFIG = TokenReaderConfig(encoder=EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16)))
AUS = CONFIG.aus


@pytest.fixture
def reader():
    torch.manual_seed(0)
    return TokenReader(CONFIG).eval()


@pytest.fixture
def faces(tiny_benchmark):
    return Rendered(tiny_benchmark, aus=AUS)


def images(count=5, seed=0):
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed))


# --- what it gives --------------------------------------------------------------------------------


def test_a_reading_names_each_side_of_each_au_and_each_emotion(reader):
    read = reader(images())
    assert read.sides.shape == (5, len(AUS), 2)
    assert read.occurrence.shape == (5, len(AUS))
    assert read.emotion.shape == (5, len(labels.EMOTIONS))
    assert read.predictions.shape == (5, 3 * len(AUS) + len(labels.EMOTIONS))
    assert ((read.sides >= 0) & (read.sides <= 5)).all()


def test_aus_without_sides_are_alike_on_both(reader):
    sides = reader(images()).sides
    for number, au in enumerate(AUS):
        equal = torch.equal(sides[:, number, 0], sides[:, number, 1])
        assert equal or labels.AUS[au].sided


def test_an_au_occurs_just_where_its_intensity_is_one_or_more(reader):
    with torch.no_grad():
        reader.head.threshold.uniform_(0.3, 3)
        reader.head.bias[: 2 * len(AUS)].uniform_(0, 4)
    read = reader(images(64))
    occurs = read.occurrence > 0
    assert 0.1 < occurs.float().mean() < 0.9
    assert torch.equal(occurs, read.intensity > labels.OCCURRENCE_THRESHOLD)


def test_graded_intensities_rise_from_one_at_the_threshold_to_five_where_full(reader):
    with torch.no_grad():
        reader.head.threshold.copy_(torch.linspace(0.5, 2.5, len(AUS)))
        reader.head.full.fill_(3.0)
    learned = torch.linspace(-1, 6, 200)[:, None, None].expand(-1, len(AUS), 2)
    graded = reader.head.graded(learned)
    assert (graded.diff(dim=0) >= 0).all()
    assert graded.amin() == 0 and graded.amax() == 5
    at = reader.head.graded(reader.head.threshold[None, :, None])
    torch.testing.assert_close(at, torch.ones_like(at))
    at = reader.head.graded(reader.head.full[None, :, None])
    torch.testing.assert_close(at, 5 * torch.ones_like(at))


def test_attention_of_each_query_adds_up_to_one(reader):
    places = reader.head.places(reader.encoder(images()))
    assert places.shape == (5, 2 * len(AUS) + len(labels.EMOTIONS), 49)
    torch.testing.assert_close(places.sum(2), torch.ones(5, places.shape[1]))


def test_saved_weights_read_the_same_again(reader, tmp_path):
    path = save_token_reader(reader.half().float(), tmp_path / "mine.safetensors", {"data": "x"})
    again, card = load_token_reader(path)
    assert card["kind"] == "reader" and again.config == CONFIG
    torch.testing.assert_close(again(images()).predictions, reader(images()).predictions)
    with pytest.raises(CheckpointError, match="of kind reader, not of kind classifier"):
        load_classifier(path)


# --- its table ------------------------------------------------------------------------------------


@pytest.fixture
def saved(reader, tmp_path):
    return save_token_reader(reader, tmp_path / "mine.safetensors", {"data": "x"})


def test_a_table_holds_what_was_read(saved, faces):
    model, _ = load_token_reader(saved)
    originals = faces.originals[:4]
    table = read_table([load_reader(str(saved))], originals, originals[::-1])
    read = model(torch.from_numpy(originals).permute(0, 3, 1, 2) / 255)
    number = AUS.index(12)
    close = {"atol": 1e-4}
    np.testing.assert_allclose(
        table["AU12"], read.occurrence[:, number].sigmoid().detach(), **close
    )
    np.testing.assert_allclose(table["AU12_left"], read.sides[:, number, 0].detach(), **close)
    np.testing.assert_allclose(table["AU12_right"], read.sides[:, number, 1].detach(), **close)
    stronger = table[["AU12_left", "AU12_right"]].max(axis=1)
    np.testing.assert_allclose(table["AU12_intensity"], stronger)
    chances = table[list(labels.EMOTIONS)]
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-3)
    assert (table["emotion"] == chances.idxmax(axis=1)).all()
    assert "AU17_left" not in table and "AU17_intensity" in table
    assert table.shape[1] == len(load_reader(str(saved)).columns)


# --- labels ---------------------------------------------------------------------------------------


def test_codes_of_a_table_are_those_of_its_sides(faces):
    codes = side_codes(faces.table, AUS)
    number = AUS.index(12)
    assert (codes[:, number, 0] == faces.table["AU12L"].to_numpy(np.float32)).all()
    assert (codes[:, number, 1] == faces.table["AU12R"].to_numpy(np.float32)).all()
    np.testing.assert_allclose(codes.max(axis=2), faces.intensities(AUS))


def test_votes_are_shares_and_one_word_is_all_of_them():
    table = pd.DataFrame({"emotion": ["happy", "sad", ""]})
    for name in labels.EMOTIONS:
        table[f"votes_{name}"] = 0.0
    table.loc[1, ["votes_sad", "votes_anger"]] = 6, 2
    shares = emotion_shares(table, labels.EMOTIONS)
    happy, sad, anger = (labels.EMOTIONS.index(name) for name in ("happy", "sad", "anger"))
    assert shares[0, happy] == 1 and shares[1, sad] == 0.75 and shares[1, anger] == 0.25
    assert shares[2].sum() == 0


# --- training -------------------------------------------------------------------------------------


def source(count=24, name="photographs", **others):
    rng = np.random.default_rng(0)
    values = {
        "images": rng.integers(0, 255, (count, 112, 112, 3), dtype=np.uint8),
        "sides": rng.uniform(0, 5, (count, len(AUS), 2)).astype(np.float32),
        "reliability": np.ones(len(AUS), np.float32),
        "votes": np.eye(8, dtype=np.float32)[np.arange(count) % 8],
    }
    return ReaderSource(name=name, **values | others)


def test_rare_emotions_are_drawn_more_often_but_rendered_faces_alike():
    votes = np.eye(8, dtype=np.float32)[[0] * 16 + [1] * 4 + [2] * 4]
    photographs = source(votes=votes, share=0.3)
    weights = sampling_weights(photographs, rare=0.5)
    assert weights.sum() == pytest.approx(0.3)
    assert weights[16] / weights[0] == pytest.approx(2)  # a fourth as many, to the power 1/2
    rendered = replace(photographs, truths=photographs.images)
    assert sampling_weights(rendered, rare=0.5).numpy() == pytest.approx(0.3 / 24)


def test_training_learns_and_leaves_out_what_is_not_reliable(faces, tmp_path):
    def trained(sides, reliability):
        rendered = ReaderSource(
            name="rendered",
            images=faces.originals,
            truths=faces.truths,
            sides=side_codes(faces.table, AUS),
            reliability=np.ones(len(AUS), np.float32),
            votes=emotion_shares(faces.table, labels.EMOTIONS),
        )
        photographs = source(sides=sides, reliability=reliability)
        fit = TrainConfig(steps=4, batch_size=8, average=0.0)
        model = train_token_reader(
            [rendered, photographs], CONFIG, ReaderTraining(fit=fit), progress=False
        )
        return model(images()).predictions.detach()

    none = np.zeros(len(AUS), np.float32)
    zeros = np.zeros((24, len(AUS), 2), np.float32)
    same = trained(zeros, none)
    torch.testing.assert_close(trained(zeros + 5, none), same)
    assert not torch.allclose(trained(zeros + 5, none + 1), same)


def test_the_log_shows_that_the_loss_falls(faces, tmp_path):
    own = ReaderSource.of(faces.root, CONFIG, share=1.0)
    fit = TrainConfig(steps=60, batch_size=12, learning_rate=3e-3, log_every=1)
    train_token_reader([own], CONFIG, ReaderTraining(fit=fit), folder=tmp_path, progress=False)
    log = pd.read_json(tmp_path / "reader.jsonl", lines=True)
    assert log["intensity"][-10:].mean() < 0.8 * log["intensity"][:10].mean()


# --- thresholds -----------------------------------------------------------------------------------


def test_few_neutral_photographs_are_called(reader, faces):
    neutral = np.zeros((60, 8), np.float32)
    neutral[:, labels.EMOTIONS.index("neutral")] = 1
    photographs = source(60, votes=neutral)
    thresholds = thresholds_of(reader, faces, [photographs])
    set_thresholds(reader, thresholds)
    called = learned_intensities(reader, photographs.images) > thresholds.taken
    assert called.mean(axis=0).max() <= FALSE_ALARMS
    assert (thresholds.taken >= thresholds.rendered).all()
    np.testing.assert_allclose(reader.head.threshold.detach(), thresholds.taken, rtol=1e-5)
    np.testing.assert_allclose(reader.head.full, thresholds.full, rtol=1e-5)


def test_full_is_half_way_to_what_the_strongest_are_read_as(reader, faces, monkeypatch):
    true = faces.intensities(AUS)
    name = "norface_lib.training.reader_calibration.learned_intensities"
    monkeypatch.setattr(name, lambda *_, **__: 0.2 + 0.5 * true.astype(float))
    full = thresholds_of(reader, faces, []).full
    shown = [column[column >= 1] for column in true.T]
    varied = np.array([len(values) > 1 and np.ptp(values) > 0 for values in shown])
    assert varied.sum() > 5
    np.testing.assert_allclose(full[varied], np.sqrt(5 * 2.7), rtol=1e-4)
    assert (full[~varied] == 5).all()


def test_without_neutral_photographs_f1_on_rendered_faces_decides(reader, faces):
    thresholds = thresholds_of(reader, faces, [])
    np.testing.assert_array_equal(thresholds.taken, thresholds.rendered)


def test_slopes_and_thresholds_are_on_the_card():
    values = np.ones(len(AUS))
    thresholds = ReaderThresholds(values, 2 * values, values, 4 * values, {"rendered": 3})
    card = thresholds.card(AUS)
    assert card["by_neutral"]["AU12"] == 2 and card["full"]["AU12"] == 4
    assert card["counts"] == {"rendered": 3}


def test_shares_must_be_as_many_as_benchmarks(tiny_benchmark, tmp_path):
    from norface_lib.training.reader_recipe import train_and_save

    with pytest.raises(DataError, match="1 benchmarks need as many shares, got 2"):
        train_and_save(
            [tiny_benchmark],
            tmp_path,
            shares=[0.5, 0.5],
            training=ReaderTraining.of_steps(1),
            start="tiny",
        )


def test_the_recipe_writes_weights_that_read(tiny_benchmark, tmp_path):
    from norface_lib.training.reader_recipe import train_and_save

    path = train_and_save(
        [tiny_benchmark],
        tmp_path,
        shares=[1.0],
        training=ReaderTraining(fit=TrainConfig(steps=2, batch_size=4)),
        calibration=tiny_benchmark,
        start="tiny",
        name="own",
    )
    model, card = load_token_reader(path)
    assert path.name == "own.safetensors" and card["start"]["weights"] == "tiny"
    assert card["data"]["parts"][0]["faces"] == 12
    names = labels.columns(AUS)
    known = card["calibration"]
    expected = [max(known["by_rendered_f1"][name], known["by_neutral"][name]) for name in names]
    np.testing.assert_allclose(model.head.threshold.detach(), expected, atol=2e-3)


def test_a_reader_that_goes_on_learning_loses_its_head_for_sides(tiny_benchmark, tmp_path):
    """That head belongs to the encoder as it was; `train-sides` makes another one."""
    from norface_lib.training.reader_recipe import train_and_save

    path = train_and_save(
        [tiny_benchmark],
        tmp_path,
        shares=[1.0],
        training=ReaderTraining(fit=TrainConfig(steps=1, batch_size=4, learning_rate=1e-9)),
        start="tiny-photo-reader",
    )
    (first, _), (model, card) = load_token_reader("tiny-photo-reader"), load_token_reader(path)
    assert first.config.tells_sides and not model.config.tells_sides and "sides" not in card
    for name, value in model.head.named_parameters():
        torch.testing.assert_close(value, first.head.get_parameter(name), atol=1e-3, rtol=1e-3)
