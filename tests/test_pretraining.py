"""The whole recipe for a normalizer's weights: a benchmark in, weights with a card out, and weights
to begin with."""

import json
from dataclasses import replace
from functools import partial

import pytest

from norface_lib.common.errors import DataError
from norface_lib.networks.normalizer import PRESETS, Normalizer
from norface_lib.networks.weights import load_normalizer
from norface_lib.training import normalizer_recipe
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_recipe import train_and_save

_TINY = PRESETS["tiny"]
SMALL = replace(
    _TINY, encoder=replace(_TINY.encoder, dim=32, depth=1, heads=2, stem=(16, 16)), widths=(16, 16)
)
SHORT = NormalizerTraining.of_steps(1, 2)

MEASURE = normalizer_recipe.measure


@pytest.fixture(autouse=True)
def soon_done(monkeypatch):
    """A small network, which nobody looks at."""
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    monkeypatch.setattr(normalizer_recipe, "measure", lambda model, folder, target: {})
    monkeypatch.setattr(normalizer_recipe, "_watch", lambda spec, out: None)


def test_weights_come_with_a_card_that_says_how_good_they_are(
    tiny_benchmark, tmp_path, monkeypatch
):
    monkeypatch.setattr(normalizer_recipe, "measure", partial(MEASURE, subjects=1, frames=2))
    path = train_and_save(tiny_benchmark, tmp_path / "first", "tiny", SHORT)
    model, _, card = load_normalizer(str(path))
    assert path.name == "tiny.safetensors" and model.config == SMALL and card["start"] is None
    assert (
        card["data"]["pairs"] == 12 and card["data"]["pool"] == "lab" and card["data"]["faces"] == 0
    )
    assert (
        set(card["training"]["seconds"]) == {"expression", "synthesis"}
        and card["training"]["synthesis"]["steps"] == 2
    )
    assert set(card["measured"]) == {"lab", "wild"} and card["measured"]["wild"]["faces"] == 2
    assert card["measured"]["lab"]["distance_ratio"] > 0.5, "two steps teach nothing"


def test_a_card_tells_all_that_weights_ever_learned_of(tiny_benchmark, tmp_path):
    path = train_and_save(tiny_benchmark, tmp_path / "first", "tiny", SHORT)
    card = load_normalizer(str(path))[2]
    further = train_and_save(
        tiny_benchmark, tmp_path / "second", "tiny", SHORT, start=str(path), name="mine"
    )
    card_of_second = load_normalizer(str(further))[2]
    told = card_of_second["start"]
    assert further.name == "mine.safetensors" and card_of_second["name"] == "mine"
    assert (
        told["sha256"] == card["sha256"] and told["data"] == card["data"] and told["start"] is None
    )
    assert json.loads(json.dumps(told["training"])) == card["training"]


def test_weights_to_begin_with_must_fit(tiny_benchmark, tmp_path, monkeypatch):
    path = train_and_save(tiny_benchmark, tmp_path / "first", "tiny", SHORT)
    with pytest.raises(DataError, match="no preset 'huge'; there are tiny, tiny-224, small, base"):
        train_and_save(tiny_benchmark, tmp_path / "out", "huge", SHORT)
    other = replace(SMALL, encoder=replace(SMALL.encoder, depth=SMALL.encoder.depth + 1))
    monkeypatch.setitem(PRESETS, "tiny", other)
    with pytest.raises(DataError, match="its encoder is another one than that of the preset"):
        train_and_save(tiny_benchmark, tmp_path / "out", "tiny", SHORT, start=str(path))


def test_training_begins_with_the_weights_that_were_given(tiny_benchmark, tmp_path, monkeypatch):
    path = train_and_save(tiny_benchmark, tmp_path / "first", "tiny", SHORT)
    begun: list[Normalizer | None] = []

    def noted(data, config, training, *others, start=None, **settings):
        begun.append(start)
        return (start or Normalizer(config)).eval()

    monkeypatch.setattr(normalizer_recipe, "train_normalizer", noted)
    monkeypatch.setattr(normalizer_recipe, "logged_seconds", lambda path: 0.0)
    again = train_and_save(tiny_benchmark, tmp_path / "second", "tiny", SHORT, start=str(path))
    (first,), given = begun, load_normalizer(str(path))[0].state_dict()
    assert all(value.equal(given[name]) for name, value in first.state_dict().items())
    assert all(
        value.equal(given[name])
        for name, value in load_normalizer(str(again))[0].state_dict().items()
    )
