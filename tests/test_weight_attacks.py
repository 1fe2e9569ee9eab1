"""Attacks on shipped and on saved weights: card, label order, target picture and tensors that do
not belong together are refused, in one sentence that names the file."""

import json
import shutil
from contextlib import suppress

import cv2
import pytest
import torch
from safetensors.torch import load_file, save_file

from norface_lib.common.errors import NorfaceError
from norface_lib.common.files import sha256_of
from norface_lib.networks import cards
from norface_lib.networks.cards import FOLDER, TASK_NAMES, fingerprint, shipped_hashes
from norface_lib.networks.weights import (
    load_classifier,
    load_evaluator,
    load_normalizer,
    load_token_reader,
)
from norface_lib.photos.readers import load_reader
from norface_lib.tasks.tasks import TASKS

LOADERS = {
    "tiny-photo": load_normalizer,
    "tiny-photo-au": load_reader,
    "tiny-emotion": load_classifier,
    "tiny-photo-reader": load_reader,
    "evaluator": load_evaluator,
}
"""Shipped weights of every kind, and what loads them."""

WITH_PICTURE = "tiny-photo"


@pytest.fixture(params=LOADERS)
def weights(request, tmp_path):
    """The files of some shipped weights, and of the normalizer that they name, in a folder that
    lasts for one test."""
    name = request.param
    normalizer = name.removesuffix("-au").removesuffix("-emotion")
    for path in FOLDER.iterdir():
        if path.stem in (name, normalizer):
            shutil.copy(path, tmp_path)
    yield tmp_path / f"{name}.safetensors"
    shutil.rmtree(tmp_path)


def load(path):
    LOADERS[path.stem](str(path))


def card_of(path):
    return json.loads(path.with_suffix(".json").read_text())


def write_card(path, card):
    path.with_suffix(".json").write_text(json.dumps(card))


def write_fixed(path, card, fix):
    """Writes a card whose fingerprint is left as it was, deleted ("strip"), or made to fit what the
    card says now ("forge")."""
    if fix == "strip":
        del card["fingerprint"]
    elif fix == "forge":
        card["fingerprint"] = fingerprint(path, card)
    write_card(path, card)


def refused(path, words=""):
    """Loads weights and expects an error of one sentence that names their file, not a traceback."""
    with pytest.raises(NorfaceError, match=words) as error:
        load(path)
    assert path.stem in str(error.value)


# --- cards of any content -------------------------------------------------------------------------

ANY_VALUE = (
    None,
    7,
    -1.5,
    float("nan"),
    True,
    "",
    "../../evil",
    [],
    [[]],
    {},
    {"a": None},
    [1] * 9,
)


CONTENTS = ("[]", "null", "7", '"card"', "", "{", "{}", "\x00", "[" * 100_000, '{"kind": 1}')


def test_a_card_of_any_other_content_is_refused(weights):
    for content in CONTENTS:
        weights.with_suffix(".json").write_text(content)
        refused(weights)


def test_a_card_that_is_no_text_is_refused(weights):
    weights.with_suffix(".json").write_bytes(b"\xff\xfe\x00card")
    refused(weights, "missing or damaged")


@pytest.mark.parametrize(
    "entry", ["kind", "config", "color", "range", "crop", "sha256", "task", "data", "backbone"]
)
def test_any_value_of_any_entry_is_refused(weights, entry):
    """Without their fingerprint, too, as the tensors are known to be the shipped ones."""
    card = card_of(weights)
    if entry not in card or (entry == "data" and card["kind"] != "normalizer"):
        pytest.skip("these weights do not depend on it")
    for value in ANY_VALUE:
        changed = card | {entry: value}
        write_card(weights, changed)
        refused(weights)
        del changed["fingerprint"]
        write_card(weights, changed)
        refused(weights)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["config", "encoder"])
def test_any_value_of_any_setting_loads_or_is_refused_in_weights_of_users(
    weights, part, monkeypatch
):
    """Cards without a fingerprint, of tensors that nobody knows: never a traceback, and never
    memory for a network of another size."""
    monkeypatch.setattr(cards, "shipped_hashes", dict)
    card = card_of(weights)
    del card["fingerprint"]
    settings = card["config"] if part == "config" else card["config"].get("encoder", {})
    for name, before in list(settings.items()):
        for value in (*ANY_VALUE, 0, 10**12, [0.0, 0.5, 0.5]):
            settings[name] = value
            write_card(weights, card)
            with suppress(NorfaceError):
                load(weights)
        settings[name] = before


@pytest.mark.parametrize(
    "target", ["../../evil", "/evil", "a\\b", "..", ".hidden", "noor+", "a\x00"]
)
def test_names_of_targets_are_plain(weights, target):
    card = card_of(weights)
    del card["fingerprint"]
    write_card(weights, card | {"data": card["data"] | {"target": target}})
    refused(weights, "data must be")


@pytest.mark.parametrize("name", ["../../evil", "/evil", "", ".."])
def test_a_reader_that_names_its_normalizer_by_a_path_is_refused(weights, name):
    card = card_of(weights)
    if "normalizer" not in card:
        pytest.skip("no reader")
    del card["fingerprint"]
    write_card(weights, card | {"normalizer": card["normalizer"] | {"name": name}})
    refused(weights, "normalizer must be")


def test_the_tasks_that_a_card_may_name_are_those_of_the_library():
    assert set(TASK_NAMES) == set(TASKS)


# --- meaning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fix", ["nothing", "strip", "forge"])
@pytest.mark.parametrize("change", ["labels", "heads", "std", "color", "crop", "task"])
def test_another_meaning_of_shipped_tensors_is_refused(weights, change, fix):
    """Also where the fingerprint was taken out of the card, or made anew for the changed one."""
    card = card_of(weights)
    if change == "labels":
        name = next((name for name in ("labels", "aus", "emotions") if name in card["config"]), "")
        if not name:
            pytest.skip("no labels")
        card["config"][name].reverse()
    elif change in ("heads", "std"):
        if "encoder" not in card["config"]:
            pytest.skip("no such setting")
        card["config"]["encoder"][change] = 2 if change == "heads" else [0.2, 0.2, 0.2]
    elif change == "task":
        if "task" not in card:
            pytest.skip("no task")
        card["task"] = next(name for name in TASK_NAMES if name != card["task"])
    elif change == "color":
        card["color"] = "BGR"
    else:
        card["crop"]["points"][0][0] += 0.01
    write_fixed(weights, card, fix)
    refused(weights)


@pytest.mark.parametrize("fix", ["nothing", "strip", "forge"])
@pytest.mark.parametrize("picture", ["another face", "another size", "no picture", "missing"])
def test_another_target_picture_of_shipped_weights_is_refused(weights, picture, fix):
    if weights.stem != WITH_PICTURE:
        pytest.skip("no target picture")
    path = weights.with_suffix(".png")
    image = cv2.imread(str(path))
    if picture == "another face":
        cv2.imwrite(str(path), image[:, ::-1])
    elif picture == "another size":
        cv2.imwrite(str(path), cv2.resize(image, (224, 224)))
    elif picture == "no picture":
        path.write_bytes(b"no picture")
    else:
        path.unlink()
    card = card_of(weights)
    # a picture that is missing has no fingerprint to forge
    write_fixed(weights, card, "nothing" if (picture, fix) == ("missing", "forge") else fix)
    refused(weights)


# --- tensors --------------------------------------------------------------------------------------


def rename(tensors):
    name = next(iter(tensors))
    tensors[name + "_"] = tensors.pop(name)


def first_set_to(value):
    def change(tensors):
        name = next(name for name in tensors if tensors[name].is_floating_point())
        tensors[name].flatten()[0] = value

    return change


def reshaped(tensors):
    name = next(name for name, value in tensors.items() if len(set(value.shape)) > 1)
    tensors[name] = tensors[name].reshape(tensors[name].shape[::-1])


def of_type(dtype):
    def change(tensors):
        for name, value in tensors.items():
            if value.is_floating_point():
                tensors[name] = value.to(dtype)

    return change


STRUCTURE = {
    "extra": lambda tensors: tensors.update(extra=torch.zeros(3)),
    "missing": lambda tensors: tensors.pop(next(iter(tensors))),
    "renamed": rename,
    "none at all": lambda tensors: tensors.clear(),
    "reshaped": reshaped,
    "NaN": first_set_to(float("nan")),
    "inf": first_set_to(float("inf")),
    "-inf": first_set_to(-float("inf")),
    "bytes": of_type(torch.uint8),
    "integers": of_type(torch.int64),
    "true or false": of_type(torch.bool),
    "complex": of_type(torch.complex64),
    "8-bit floats": of_type(torch.float8_e4m3fn),
}
"""Tensors that no card can belong to."""

VALUES = {
    "float32": of_type(torch.float32),
    "bfloat16": of_type(torch.bfloat16),
    "a number": first_set_to(1.0),
}
"""Tensors that would load, if nobody knew which were saved with the card."""


def change_tensors(path, change):
    """Other tensors, with their hash in the card."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    write_card(path, card_of(path) | {"sha256": sha256_of(path)})


@pytest.mark.parametrize("fix", ["keep", "strip", "forge"])
@pytest.mark.parametrize("change", STRUCTURE)
def test_tensors_that_do_not_fit_are_refused_whatever_the_card_says(weights, change, fix):
    change_tensors(weights, STRUCTURE[change])
    write_fixed(weights, card_of(weights), fix)
    refused(weights)


@pytest.mark.parametrize("change", VALUES)
def test_other_values_are_refused_by_hash_and_by_fingerprint(weights, change):
    before = card_of(weights)
    change_tensors(weights, VALUES[change])
    refused(weights, "does not belong to these weights")
    write_card(weights, before)
    refused(weights, "damaged")


@pytest.mark.parametrize("fix", ["strip", "forge"])
def test_other_values_at_the_place_of_shipped_weights_are_refused(weights, fix, monkeypatch):
    monkeypatch.setattr(cards, "FOLDER", weights.parent)
    load(weights)
    change_tensors(weights, first_set_to(1.0))
    card = card_of(weights)
    write_fixed(weights, card, fix)
    refused(weights, "the shipped fingerprint")


@pytest.mark.parametrize("fixed", [False, True], ids=["hash kept", "hash fixed"])
@pytest.mark.parametrize("size", [0, 4, 1000, -1])
def test_truncated_files_are_refused(weights, size, fixed):
    weights.write_bytes(weights.read_bytes()[:size])
    if fixed:
        card = card_of(weights) | {"sha256": sha256_of(weights)}
        del card["fingerprint"]
        write_card(weights, card)
    refused(weights)


@pytest.mark.parametrize("length", [2**63, 2**40])
def test_a_file_that_promises_too_much_is_refused(weights, length):
    weights.write_bytes(length.to_bytes(8, "little") + b"{}")
    card = card_of(weights) | {"sha256": sha256_of(weights)}
    del card["fingerprint"]
    write_card(weights, card)
    refused(weights, "no safetensors file")


# --- what still loads -----------------------------------------------------------------------------


def test_copies_of_shipped_weights_load_under_any_name(weights):
    load(weights)
    for suffix in (".safetensors", ".json", ".png"):
        if weights.with_suffix(suffix).exists():
            shutil.copy(weights.with_suffix(suffix), weights.parent / f"mine{suffix}")
    LOADERS[weights.stem](str(weights.with_name("mine.safetensors")))


def test_weights_of_users_from_before_there_were_fingerprints_load_with_a_warning(weights):
    change_tensors(weights, of_type(torch.float32))
    card = card_of(weights)
    del card["fingerprint"]
    write_card(weights, card)
    with pytest.warns(UserWarning, match="has no fingerprint"):
        load(weights)


def test_the_list_of_shipped_fingerprints_is_that_of_the_cards():
    hashes = {
        path.stem: {key: card_of(path)[key] for key in ("sha256", "fingerprint")}
        for path in sorted(FOLDER.glob("*.safetensors"))
    }
    assert shipped_hashes() == hashes
    for path in FOLDER.glob("*.safetensors"):
        assert hashes[path.stem]["fingerprint"] == fingerprint(path, card_of(path))
        assert hashes[path.stem]["sha256"] == sha256_of(path)


def test_the_wrong_kind_is_refused(weights):
    own = card_of(weights)["kind"]
    loaders = {
        load_normalizer: ("normalizer",),
        load_classifier: ("classifier",),
        load_evaluator: ("evaluator",),
        load_token_reader: ("reader",),
        load_reader: ("classifier", "reader"),
    }
    for loader, kinds in loaders.items():
        if own not in kinds:
            with pytest.raises(NorfaceError, match=f"not of kind {kinds[0]}"):
                loader(str(weights))
