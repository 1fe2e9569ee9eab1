"""Measures of readers: known values on made-up readings, whole runs, and errors."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import invoke

from norface_lib import labels
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.writing import write_benchmark
from norface_lib.networks.cards import read_card
from norface_lib.networks.token_reader import TokenReader, TokenReaderConfig
from norface_lib.networks.weights import load_classifier, save_token_reader
from norface_lib.photos.pseudo_pairs import is_held_out
from norface_lib.studies.face_readings import (
    FaceReadings,
    FacesToRead,
    hashes_of,
    load_together,
    read_by,
)
from norface_lib.studies.known_faces import KnownFaces, first_half, majority_emotions
from norface_lib.studies.reader_evaluation import evaluate_readers, measures_as_text, side_by_side
from norface_lib.studies.reader_measures import (
    emotion_measure,
    neutral_measure,
    sign_measure,
    signs_of,
    smile_measure,
    truth_measure,
)
from norface_lib.studies.resampling import (
    mean_of,
    person_weights,
    weighted_auc,
    weighted_mean,
    with_intervals,
)
from norface_lib.studies.transfer import evaluate_transfer, linear_readings
from norface_lib.tasks.metrics import auc
from norface_lib.tasks.tasks import task_of
from norface_lib.training.classifier import predict

CLASSIFIERS = "tiny-au+tiny-intensity+tiny-emotion"
"""Shipped classifiers that go with the normalizer `tiny`."""


def known_faces(emotions, **given):
    """Faces of which each is a person of its own, with known emotions."""
    emotions = np.array(emotions)
    table = pd.DataFrame({"emotion": emotions})
    rows = np.flatnonzero(table["emotion"].isin(["happy", "neutral"]))
    values = {
        "subjects": np.array([f"p{number:03d}" for number in range(len(emotions))]),
        "emotions": emotions,
        "undecided": 0,
        "neutral": emotions == "neutral",
        "smile_rows": rows,
        "smiling": emotions[rows] == "happy",
    }
    values["first_half"] = first_half(given.get("subjects", values["subjects"]), 1.0)
    return KnownFaces(**values | given)


def calls(names):
    """(N, E) probabilities that call each face by a name."""
    return 0.9 * (np.array(names)[:, None] == np.array(labels.EMOTIONS)).astype(np.float32)


def weights_of(known):
    return person_weights(known.subjects, resamples=200)


# --- resampling -----------------------------------------------------------------------------------


def test_weights_are_one_first_and_then_times_that_a_person_was_drawn():
    subjects = np.array(["a", "b", "a", "c"])
    weights = person_weights(subjects, resamples=300)
    assert weights.shape == (301, 4) and (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert weights[1:].mean() == pytest.approx(1, abs=0.05)
    assert np.array_equal(weights, person_weights(subjects, resamples=300))
    with pytest.raises(DataError, match="two people or more, and there is 1"):
        person_weights(np.array(["a", "a"]))


def test_a_weighted_auc_is_that_of_faces_repeated():
    rng = np.random.default_rng(0)
    scores, positives = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.4  # with ties
    weights = rng.integers(0, 4, (20, 40)).astype(float)
    weights[0] = 1
    found = weighted_auc(scores, positives, weights)
    for row, times in enumerate(weights.astype(int)):
        again = np.repeat(np.arange(40), times)
        assert found[row] == pytest.approx(auc(scores[again], positives[again]))
    assert np.isnan(weighted_auc(scores, positives, weights * positives)).all()


def test_means_leave_out_what_is_undefined():
    assert mean_of(np.array([[1, np.nan], [2, 4], [np.nan, np.nan]]))[:2].tolist() == [1, 3]
    weights = np.array([[1.0, 1, 1], [2, 0, 1], [0, 0, 0]])
    found = weighted_mean(np.array([True, True, False]), weights)
    assert found[:2].tolist() == pytest.approx([2 / 3, 2 / 3]) and np.isnan(found[2])


def test_samples_become_a_value_and_the_ends_of_its_interval():
    samples = np.concatenate([[7.0], np.arange(101), [np.nan]])
    found = with_intervals({"a": {"b": samples}, "n": 3, "no": np.full(4, np.nan)})
    assert found["a"]["b"] == {"value": 7.0, "interval": pytest.approx([2.5, 97.5])}
    assert found["n"] == 3 and found["no"] == {"value": None, "interval": None}


# --- what is known --------------------------------------------------------------------------------


def test_a_majority_is_more_than_half_of_the_votes_and_the_others_are_counted():
    votes = {
        "votes_neutral": [6, 5, 0, 4, 0, 0],
        "votes_sad": [4, 5, 0, 3, 0, 0],
        "votes_anger": [0, 0, 0, 3, 0, 9],
        "votes_unknown": [0, 0, 0, 0, 7, 1],
    }
    table = pd.DataFrame({"emotion": ["sad", "sad", "fear", "neutral", "sad", np.nan], **votes})
    emotions, undecided = majority_emotions(Rendered.from_arrays(table))
    # a tie, a plurality and a majority for none are undecided; nobody voted on the third
    assert emotions.tolist() == ["neutral", "", "fear", "", "", "anger"] and undecided == 3
    plain = majority_emotions(Rendered.from_arrays(table[["emotion"]]))
    assert plain[0].tolist() == ["sad", "sad", "fear", "neutral", "sad", ""] and plain[1] == 0


def test_halves_of_people_that_the_same_hash_chose_are_halves_too():
    everybody = np.array([f"p{number}" for number in range(4000)])
    whole = first_half(everybody, 1.0)
    assert whole.tolist() == [is_held_out(name, 0.5) for name in everybody]
    assert np.array_equal(whole, first_half(everybody, 0.15)), "not chosen by the hash"
    test = everybody[[is_held_out(name, 0.15) for name in everybody]]
    assert whole.mean() == pytest.approx(0.5, abs=0.03)
    assert first_half(test, 0.15).mean() == pytest.approx(0.5, abs=0.08)


def test_pseudo_labels_of_photographs_are_no_truth(tiny_benchmark, tmp_path):
    data = Rendered(tiny_benchmark)
    known = KnownFaces.of(data)
    assert np.array_equal(known.sides.max(axis=2)[:, 0], data.intensities((1,))[:, 0])
    spec = json.loads((tiny_benchmark / "benchmark.json").read_text())
    (tmp_path / "benchmark.json").write_text(json.dumps(spec | {"pool": "photographs"}))
    data.root = tmp_path
    assert KnownFaces.of(data).sides is None


# --- measures -------------------------------------------------------------------------------------


def test_emotions_are_scored_over_classes_with_enough_faces():
    truth = ["neutral"] * 20 + ["happy"] * 10 + ["sad"] * 10 + ["fear"] * 9 + [""] * 3
    called = ["neutral"] * 20 + ["happy"] * 5 + ["sad"] * 5 + ["anger"] * 22
    known = known_faces(truth, undecided=3)
    found = emotion_measure(FaceReadings(emotions=calls(called)), known, weights_of(known))
    assert (found["faces"], found["undecided"]) == (40, 3)
    assert found["classes"] == {"neutral": 20, "happy": 10, "sad": 10}
    assert found["accuracy"][0] == 25 / 40 and found["most_frequent"] == 0.5
    assert found["class_mean"][0] == pytest.approx((1 + 0.5 + 0) / 3)
    assert {name: values[0] for name, values in found["recall"].items()} == {
        "neutral": 1,
        "happy": 0.5,
        "sad": 0,
    }
    assert found["confusion"]["sad"] == dict.fromkeys(labels.EMOTIONS, 0) | {"anger": 10}
    assert found["never_called"] == []  # "sad", though never rightly
    low, high = with_intervals(found)["accuracy"]["interval"]
    assert low < 25 / 40 < high


def test_classes_that_are_never_called_are_named():
    truth = ["neutral"] * 10 + ["happy"] * 10 + ["fear"] * 10
    known = known_faces(truth)
    always = FaceReadings(emotions=calls(["neutral"] * 30))
    found = emotion_measure(always, known, weights_of(known))
    assert found["never_called"] == ["happy", "fear"] and found["class_mean"][0] == 1 / 3
    assert emotion_measure(FaceReadings(), known, weights_of(known)) == (
        "the reader reads no emotions"
    )
    few = known_faces(["neutral"] * 30)
    assert "no two emotions" in emotion_measure(always, few, weights_of(few))


def test_signs_are_the_aus_that_must_show_in_an_emotion():
    assert signs_of("happy") == ("AU12",) and signs_of("sad") == ("AU01", "AU04", "AU15")
    truth = ["neutral"] * 10 + ["happy"] * 12 + ["sad"] * 10 + ["fear"] * 3
    known = known_faces(truth)
    of_happy, of_sad = known.emotions == "happy", known.emotions == "sad"
    columns = [of_happy, of_sad, ~of_sad, np.zeros(35)]
    readings = FaceReadings(
        aus=("AU12", "AU01", "AU15", "AU26"),
        probabilities=np.stack(columns, axis=1).astype(np.float32),
    )
    found = sign_measure(readings, known, weights_of(known))
    values = {name: {au: v[0] for au, v in of.items()} for name, of in found["per_emotion"].items()}
    # AU04 is not read, AU26 belongs to neither, and there are too few faces of fear
    assert values == {"happy": {"AU12": 1.0}, "sad": {"AU01": 1.0, "AU15": 0.0}}
    assert found["pairs"] == 3 and found["mean"][0] == pytest.approx(2 / 3)
    assert found["pairs_bp4d"] == 3 and found["neutral_faces"] == 10
    assert (found["per_emotion"]["happy"]["AU12"] == 1).all()
    nobody = known_faces(["happy"] * 35)
    assert "neutral" in sign_measure(readings, nobody, weights_of(nobody))
    other = replace(readings, aus=("AU43", "AU28", "AU24", "AU23"))
    assert "no AU that belongs" in sign_measure(other, known, weights_of(known))


def test_false_alarms_are_counted_on_neutral_faces_alone():
    known = known_faces(["neutral"] * 20 + ["happy"] * 20)
    probabilities = np.ones((40, 3), np.float32)
    probabilities[:20, 0] = 0.49
    probabilities[:15, 1] = 0.2
    probabilities[15:20, 1] = 0.5  # as much as is needed
    probabilities[:10, 2] = 0
    readings = FaceReadings(aus=("AU01", "AU02", "AU43"), probabilities=probabilities)
    found = neutral_measure(readings, known, weights_of(known))
    assert {au: value[0] for au, value in found["per_au"].items()} == {
        "AU01": 0,
        "AU02": 0.25,
        "AU43": 0.5,
    }
    assert found["mean"][0] == 0.25 and found["mean_bp4d"][0] == 0.125
    assert (found["largest"][0], found["largest_au"], found["faces"]) == (0.5, "AU43", 20)
    few = known_faces(["neutral"] * 9 + ["happy"] * 31)
    assert "not 10 neutral faces" in neutral_measure(readings, few, weights_of(few))


def test_smiles_are_measured_of_all_people_and_of_either_half():
    subjects = np.repeat([f"p{number}" for number in range(40)], 2)
    smiling = np.tile([False, True], 40)
    known = known_faces(np.where(smiling, "happy", "neutral"), subjects=subjects, smiling=smiling)
    first = np.array([is_held_out(name, 0.5) for name in subjects])
    # of the first half all right, of the second all wrong
    scores = np.where(first, smiling, ~smiling).astype(np.float32)
    readings = FaceReadings(aus=("AU12",), probabilities=scores[:, None])
    found = smile_measure(readings, known, weights_of(known))
    assert found["first half"]["auc"][0] == 1 and found["second half"]["auc"][0] == 0
    assert found["first half"]["people"] + found["second half"]["people"] == 40
    assert found["all"]["auc"][0] == pytest.approx(auc(scores, smiling))
    assert found["compared"] == 40 and found["own_neutral"][0] == first.mean()
    grim = known_faces(["anger"] * 80)
    assert smile_measure(readings, grim, weights_of(grim)) == (
        "there are no smiling and neutral faces"
    )
    assert "AU12" in smile_measure(replace(readings, aus=("AU01",)), known, weights_of(known))


def test_rendered_faces_are_measured_against_their_true_aus():
    rng = np.random.default_rng(0)
    sides = rng.uniform(0, 5, (30, len(labels.AUS), 2)) * (
        rng.random((30, len(labels.AUS), 1)) < 0.6
    )
    known = known_faces(["neutral"] * 30, sides=sides.astype(np.float32))
    aus = tuple(labels.AUS)
    exact = FaceReadings(
        aus=labels.columns(aus),
        probabilities=(sides.max(axis=2) / 5 > 0.2).astype(np.float32),
        intensities=sides.max(axis=2),
        sides=sides,
    )
    found = truth_measure(exact, known, weights_of(known))
    for name in ("auc", "f1", "icc", "sides"):
        assert found[f"{name}_mean"][0] == pytest.approx(1) == found[f"{name}_mean_bp4d"][0]
    sided = {labels.au_column(au) for au in aus if labels.AUS[au].sided}
    assert set(found["sides"]) == sided and set(found["icc"]) == set(labels.columns(aus))

    swapped = replace(exact, sides=sides[..., ::-1], probabilities=1 - exact.probabilities)
    found = truth_measure(swapped, known, weights_of(known))
    assert found["sides_mean"][0] == pytest.approx(-1)
    assert found["auc_mean"][0] == 0 == found["f1_mean"][0]
    # some AUs in another order
    part = FaceReadings(aus=("AU12", "AU01"), intensities=sides.max(axis=2)[:, [aus.index(12), 0]])
    found = truth_measure(part, known, weights_of(known))
    assert found["icc_mean"][0] == pytest.approx(1) and "auc_mean" not in found
    photographs = replace(known, sides=None)
    assert "photographs" in truth_measure(exact, photographs, weights_of(known))


def test_readers_are_compared_on_the_same_resamples():
    known = known_faces(["neutral"] * 30 + ["happy"] * 30)
    right = FaceReadings(emotions=calls(known.emotions))
    wrong = FaceReadings(emotions=calls(["neutral"] * 60))
    found, differences = side_by_side({"wrong": wrong, "right": right, "same": right}, known)
    assert list(found) == ["wrong", "right", "same"] and "smile" in found["right"]["left_out"]
    gain = differences["right - wrong"]
    assert gain["emotion accuracy"]["value"] == 0.5 and gain == differences["same - wrong"]
    low, high = gain["emotion accuracy"]["interval"]
    assert 0.3 < low < 0.5 < high < 0.7
    text = measures_as_text(found)
    assert "smile of wrong is left out: the reader reads no occurrence of AU12" in text
    assert "recall, happy" in text and "1.000 [1.000, 1.000]" in text


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def token_reader(tmp_path_factory):
    """Weights of a token reader that learned nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    return save_token_reader(TokenReader(TokenReaderConfig()), path, {"data": "none"})


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Folder of 12 people of the pool `wild`, with emotions, three frames each."""
    spec = BenchmarkSpec(pool="wild", subjects=12, frames=3, size=112, seed=3)
    return write_benchmark(spec, tmp_path_factory.mktemp("people") / "wild", progress=False)


def test_a_token_reader_and_classifiers_are_measured_side_by_side(people, token_reader, tmp_path):
    out = tmp_path / "result.json"
    readers = ["--reader", CLASSIFIERS, "--reader", token_reader, "--weights", "tiny"]
    done = invoke("evaluate", "readers", people, *readers, "--out", out, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    content = json.loads(out.read_text())
    assert json.loads(done.stdout)["result"] == content["result"]
    assert content["counts"] == {"faces": 36, "people": 12}
    assert content["settings"]["data"]["pool"] == "wild"
    assert set(content["settings"]["readers"][CLASSIFIERS]) == set(CLASSIFIERS.split("+"))
    taught, random = content["result"]["readers"].values()
    assert taught["truth"]["aus"] == 12 and random["truth"]["aus"] == 22
    assert taught["truth"]["auc_mean"]["value"] > 0.75  # it learned on such faces
    assert abs(random["truth"]["auc_mean"]["value"] - 0.5) < 0.2
    assert "sides_mean" in random["truth"] and "sides_mean" not in taught["truth"]
    (difference,) = content["result"]["differences"].values()
    assert difference["truth auc_mean_bp4d"]["interval"][1] < 0
    text = measures_as_text(content["result"]["readers"])
    assert "auc mean bp4d" in text and "left out" in text


def test_readings_are_those_of_the_networks(people, token_reader):
    data = Rendered(people)
    faces = FacesToRead(data.originals, "tiny")
    networks = load_together(str(token_reader))
    read = read_by(networks, faces)
    assert "normalized" not in vars(faces), "a token reader needs no I_n"
    assert read.sides.shape == (36, 22, 2) and read.emotions.sum(1) == pytest.approx(1)
    assert np.array_equal(read.sides.max(axis=2), read.intensities)
    assert hashes_of(networks) == {"random": read_card(token_reader)["sha256"]}
    alone = read_by(load_together("tiny-emotion"), faces)
    assert alone.probabilities is None and alone.aus == () and alone.emotions.shape == (36, 8)
    both = read_by(load_together("tiny-intensity+tiny-au"), faces)
    assert both.numbers == labels.BP4D_AUS and both.of_bp4d.all() and both.emotions is None
    networks = [load_classifier(name)[0] for name in ("tiny-au", "tiny-intensity")]
    for values, model, task in zip(
        (both.probabilities, both.intensities),
        networks,
        ("au_detection", "au_intensity"),
        strict=True,
    ):
        expected = predict(model, data.originals, faces.normalized, task_of(task, both.aus))
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_what_is_learned_on_rendered_faces_is_tested_on_others(people, tiny_benchmark, tmp_path):
    out = tmp_path / "result.json"
    call = ["evaluate", "transfer", tiny_benchmark, "--train", people, "--weights", "tiny"]
    done = invoke(*call, "--out", out, "--quiet")
    assert done.exit_code == 0 and "correlation within the rendered faces" in done.stdout
    content = json.loads(out.read_text())
    assert content["settings"]["train"]["pool"] == "wild" and content["counts"]["people"] == 4
    inputs = content["result"]["inputs"]
    assert list(inputs) == ["original", "normalized"]
    assert all(row["truth"]["auc_mean"]["value"] > 0.55 for row in inputs.values())
    assert inputs["normalized"]["fit"]["alpha"] > 0
    assert set(content["result"]["differences"]) == {"normalized - original"}


def test_other_ways_to_draw_can_be_compared(people, tiny_benchmark, token_reader):
    result = evaluate_transfer(
        tiny_benchmark,
        train=people,
        weights="tiny",
        token_reader=str(token_reader),
        further={"black": np.zeros_like},
        progress=False,
    )
    assert list(result["inputs"]) == ["original", "normalized", "black", "read + render"]
    assert result["inputs"]["black"]["truth"]["auc_mean"]["value"] == 0.5
    assert result["inputs"]["black"]["fit"]["rendered"] == pytest.approx(0, abs=0.35)


def test_a_linear_reader_counts_an_au_from_intensity_a_on():
    predicted = np.array([[-1.0, 0.99, 1.0, 7.0] + [0.0] * 18])
    read = linear_readings(predicted)
    assert (read.probabilities[0, :4] >= 0.5).tolist() == [False, False, True, True]
    assert read.intensities[0, [0, 3]].tolist() == [0, 5] and read.numbers == tuple(labels.AUS)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny", "kind normalizer, not of kind classifier"),
        ("evaluator", "kind evaluator, not of kind classifier"),
        ("tiny-au+{token}", "random: a token reader reads all there is; give it alone, not in"),
        ("tiny-au+tiny-au", "two of these are of one task; give one for each task"),
        ("tiny-photo-au", "belongs to another normalizer than tiny"),
        ("tiny-au+nobody", "no weights 'nobody'"),
    ],
)
def test_weights_that_cannot_read_are_refused(name, words, people, token_reader, tmp_path):
    out = tmp_path / "result.json"
    with pytest.raises(CheckpointError, match=words):
        evaluate_readers(
            people, [name.format(token=token_reader)], weights="tiny", out=out, progress=False
        )
    assert not out.exists()


def test_a_reader_of_unknown_emotions_is_refused(people, tmp_path):
    model = TokenReader(replace(TokenReaderConfig(), emotions=("neutral", "bored")))
    path = save_token_reader(model, tmp_path / "odd.safetensors", {"data": "none"})
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: reads the unknown .* bored;"):
        evaluate_readers(people, [str(path)], progress=False)


def test_a_reader_given_twice_or_none_is_refused(people):
    with pytest.raises(DataError, match="given twice"):
        evaluate_readers(people, ["tiny-au", "tiny-au"], progress=False)
    done = invoke("evaluate", "readers", people)
    assert done.exit_code == 2 and "--reader" in done.stderr
    assert invoke("evaluate", "readers", people, "--reader", " ").exit_code == 2


def test_one_person_is_too_few_for_intervals(tmp_path, token_reader):
    spec = BenchmarkSpec(pool="lab", subjects=1, frames=2)
    alone = write_benchmark(spec, tmp_path / "alone", progress=False)
    with pytest.raises(DataError, match="two people or more, and there is 1"):
        evaluate_readers(alone, [str(token_reader)], progress=False)
    with pytest.raises(DataError, match=r"alone: 1 people are too few; render 4 people or more"):
        evaluate_transfer(alone, train=alone, weights="tiny", progress=False)


def test_pseudo_labels_teach_nothing(people, tiny_benchmark, tmp_path):
    photographs = tmp_path / "photographs"
    shutil.copytree(tiny_benchmark, photographs)
    spec = json.loads((photographs / "benchmark.json").read_text())
    (photographs / "benchmark.json").write_text(json.dumps(spec | {"pool": "photographs"}))
    with pytest.raises(DataError, match="the AUs of these faces are not known"):
        evaluate_transfer(people, train=photographs, weights="tiny", progress=False)
