"""The benchmark by seed: its specification, its people and frames, AU statistics, the card."""

import hashlib
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from norface_lib import labels
from norface_lib.common.paths import ROOT
from norface_lib.faces import benchmark
from norface_lib.faces.benchmark import (
    POOLS,
    TARGETS,
    VERSION,
    BenchmarkSpec,
    face_of,
    frames_of,
    subject_name,
    target_face,
)
from norface_lib.faces.sampling import (
    RENDERED_AUS,
    sample_emotion,
    sample_frame,
    sample_intensities,
    sequence_of,
)
from norface_lib.faces.writing import label_row

# --- people and frames by seed --------------------------------------------------------------------


def test_no_two_pools_seeds_or_subjects_share_a_stream(monkeypatch):
    """No generator, of a subject, a frame or a target, is ever used twice."""
    streams = []

    class Sampled(Exception):
        pass

    def note(rng, **_):
        streams.append(tuple(rng.random(4)))
        raise Sampled

    monkeypatch.setattr(benchmark, "sample_face", note)
    monkeypatch.setattr(
        benchmark,
        "sample_frame",
        lambda rng, domain, strength: streams.append(tuple(rng.random(4))),
    )
    for pool in POOLS:
        for seed in (0, 1, 2):
            spec = BenchmarkSpec(pool=pool, seed=seed, subjects=50, frames=3)
            for number in range(spec.subjects):
                with pytest.raises(Sampled):
                    face_of(spec, number)
                list(frames_of(spec, number))
    for name in TARGETS:
        with pytest.raises(Sampled):
            target_face.__wrapped__(name)
    assert len(streams) == len(POOLS) * 3 * 50 * 4 + len(TARGETS)
    assert len(set(streams)) == len(streams)


def test_names_tell_the_pools_apart():
    names = {subject_name(pool, number) for pool in POOLS for number in (0, 1, 9_999, 10_000)}
    assert len(names) == 4 * len(POOLS)


def test_labels_do_not_depend_on_size_or_target(tiny_spec):
    def rows(spec):
        return [
            label_row("x", number, frame) for number, (frame, _) in enumerate(frames_of(spec, 2))
        ]

    assert rows(tiny_spec) == rows(replace(tiny_spec, size=224))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool": "street"}, "pool must be one of pretrain, lab, evaluator, wild"),
        ({"target": "nobody"}, "target must be of noor"),
        ({"subjects": 0}, "at least 1"),
        ({"frames": 0}, "at least 1"),
        ({"sequence": 0}, "at least 1"),
        ({"seed": -1}, "must not be negative"),
        ({"version": 1}, "not 1"),
        ({"size": -1}, "at least 1"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        BenchmarkSpec(**wrong)


# --- AU statistics --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return [sample_intensities(rng) for _ in range(4000)]


def test_aus_occur_as_often_as_in_bp4d(samples):
    for au, rate in zip(labels.BP4D_AUS, labels.BP4D_RATES, strict=True):
        assert np.mean([au in left for left, _ in samples]) == pytest.approx(rate, abs=0.03), au


def test_aus_that_go_together_or_exclude_each_other_do_so(samples):
    occurs = {au: np.array([au in left for left, _ in samples], float) for au in RENDERED_AUS}
    for a, b in ((1, 2), (6, 12), (10, 12), (15, 17), (23, 24)):
        assert np.corrcoef(occurs[a], occurs[b])[0, 1] > 0.15
    for a, b in ((24, 25), (12, 15), (23, 25)):
        assert np.corrcoef(occurs[a], occurs[b])[0, 1] < -0.1


def test_an_au_that_occurs_is_at_least_a_trace_on_its_stronger_side(samples):
    stronger = [max(left[au], right[au]) for left, right in samples for au in left]
    assert min(stronger) >= 1
    assert max(stronger) <= 5
    assert 2.4 < np.median(stronger) < 3.1
    assert all(left.keys() == right.keys() for left, right in samples)


def test_only_smiles_and_dimples_are_one_sided_and_rarely(samples):
    weaker = {au: [] for au in RENDERED_AUS}
    for left, right in samples:
        for au in left:
            weaker[au].append(min(left[au], right[au]) / max(left[au], right[au]))
    for au, shares in weaker.items():
        one_sided = np.mean(np.array(shares) < 0.4)
        assert 0.04 < one_sided < 0.12 if au in (12, 14) else one_sided == 0
        assert labels.AUS[au].sided or min(shares) == 1


def test_single_sides_move_on_request_and_only_then():
    def apart(spec):
        """Left minus right of each AU with sides that shows clearly, and the emotions."""
        frames = [frame for number in range(40) for frame, _ in frames_of(spec, number)]
        gaps = [
            abs(frame.left[au] - frame.right[au]) / max(frame.left[au], frame.right[au])
            for frame in frames
            for au in frame.left
            if labels.AUS[au].sided
        ]
        return np.array(gaps), frames

    plain = BenchmarkSpec(pool="pretrain", frames=4)
    usual, frames = apart(plain)
    single, changed = apart(replace(plain, one_sided=1.0))
    assert (usual > 0.5).mean() < 0.1 < 0.6 < (single > 0.5).mean() < 0.8
    assert all(frame.emotion == "" for frame in changed)
    assert any(frame.emotion for frame in frames)
    for before, after in zip(frames, changed, strict=True):
        stronger = {au: max(before.left[au], before.right[au]) for au in before.left}
        for au, value in stronger.items():
            assert max(after.left[au], after.right[au]) <= value


@pytest.mark.parametrize("emotion", labels.EMOTIONS)
def test_an_emotion_shows_the_aus_of_one_of_its_prototypes(emotion):
    rng = np.random.default_rng(1)
    for _ in range(100):
        left, right = sample_emotion(rng, emotion)
        shown = {au: max(left[au], right[au]) for au in left}
        assert any(shown.keys() >= must.keys() for must, _ in labels.EMOTION_AUS[emotion])
        assert all(1 <= value <= labels.INTENSITY_MAX for value in shown.values())
        one_sided = [au for au in shown if min(left[au], right[au]) < 0.4 * shown[au]]
        assert set(one_sided) == (set(shown) & {12, 14} if emotion == "contempt" else set())


def test_every_au_of_an_emotion_can_be_rendered():
    assert {
        au
        for kinds in labels.EMOTION_AUS.values()
        for parts in kinds
        for part in parts
        for au in part
    } <= set(RENDERED_AUS)
    assert tuple(labels.EMOTION_AUS) == labels.EMOTIONS


def test_wild_faces_turn_more_and_show_emotions():
    rng = np.random.default_rng(2)
    lab, wild = ([sample_frame(rng, domain) for _ in range(300)] for domain in ("lab", "wild"))
    assert np.std([f.camera.yaw for f in wild]) > 2 * np.std([f.camera.yaw for f in lab])
    assert {f.emotion for f in lab} == {""}
    assert {f.emotion for f in wild} == {"", *labels.EMOTIONS}


def test_a_sequence_rises_to_its_apex_and_falls_again():
    rng = np.random.default_rng(3)
    apex = replace(sample_frame(rng), left={12: 4.0}, right={12: 2.0})
    frames = list(sequence_of(apex, 12, rng))
    course = [frame.left[12] for frame in frames]
    assert course[0] == course[-1] == 0
    assert max(course) == pytest.approx(4.0, abs=0.5)
    top = int(np.argmax(course))
    assert (np.diff(course[: top + 1]) >= 0).all()
    assert (np.diff(course[top:]) <= 0).all()
    assert all(frame.right[12] == pytest.approx(frame.left[12] / 2) for frame in frames)
    assert max(abs(a.camera.yaw - b.camera.yaw) for a, b in pairwise(frames)) < 0.05


@pytest.mark.parametrize(("frames", "lengths"), [(6, [3, 3]), (7, [3, 3, 1])])
def test_a_subject_s_frames_are_cut_into_sequences(frames, lengths):
    spec = BenchmarkSpec(pool="lab", subjects=1, frames=frames, sequence=3)
    frames = [frame for frame, _ in frames_of(spec, 0)]
    rows = [label_row("x", number, frame, 3) for number, frame in enumerate(frames)]
    assert pd.Series([row["sequence"] for row in rows]).value_counts(sort=False).tolist() == lengths


# --- the dataset card -----------------------------------------------------------------------------


# --- the dataset card -----------------------------------------------------------------------------

CARD = (ROOT / "DATASET.md").read_text()


def test_the_card_s_table_is_that_of_the_code():
    rows = re.findall(
        r"^\| (\d+) \| ([a-z ]+?)( \(both sides at once\))? \| (.+) \|$", CARD, re.MULTILINE
    )
    assert [int(row[0]) for row in rows] == list(labels.AUS)
    for number, name, single, actions in rows:
        au = labels.AUS[int(number)]
        assert (name, not single) == (au.name, au.sided)
        listed = {
            action: float(weight)
            for action, weight in (part.split() for part in actions.split(", "))
        }
        assert listed == {
            re.sub("(Left|Right)$", "", action): weight for action, weight in au.actions.items()
        }
    assert f"| version | {VERSION} " in CARD


def test_the_reference_sample_has_the_card_s_labels():
    """Images may be rounded otherwise on another processor; labels may not."""
    spec = BenchmarkSpec(pool="lab", subjects=2, frames=2)
    frames = [(n, k, frame) for n in range(2) for k, (frame, _) in enumerate(frames_of(spec, n))]
    table = pd.DataFrame([label_row(subject_name("lab", n), k, frame) for n, k, frame in frames])
    text = table.to_csv(index=False, float_format="%.6g").encode()
    assert f"| `labels.csv` | `{hashlib.sha256(text).hexdigest()}` |" in CARD
