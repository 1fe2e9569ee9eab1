"""Nearest neighbors: by hand, and where person and expression are known to decide."""

import numpy as np
import pytest

from norface_lib.studies.neighbors import (
    Agreement,
    agreement,
    all_pairs,
    closest,
    nearest_pairs,
    shrunk,
)


def test_the_nearest_row_is_looked_for_in_other_groups():
    features = np.array([[0.0], [0.1], [1.0], [1.5], [9.0]], np.float32)
    assert nearest_pairs(features, np.arange(5)).tolist() == [
        [0, 1],
        [1, 0],
        [2, 3],
        [3, 2],
        [4, 3],
    ]
    assert nearest_pairs(features, np.array(list("aabbc"))).tolist() == [
        [0, 2],
        [1, 2],
        [2, 1],
        [3, 1],
        [4, 3],
    ]


def test_a_single_group_has_no_neighbors():
    with pytest.raises(ValueError, match="only one"):
        nearest_pairs(np.zeros((3, 2), np.float32), np.zeros(3))


def test_all_pairs_are_those_that_a_neighbor_is_chosen_from():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 4, 30)
    pairs = all_pairs(groups)
    assert len(pairs) == 30**2 - sum(count**2 for count in np.bincount(groups))
    chosen = nearest_pairs(rng.normal(size=(30, 3)).astype(np.float32), groups)
    assert {tuple(pair) for pair in chosen.tolist()} <= {tuple(pair) for pair in pairs.tolist()}


def test_agreement_by_hand():
    subjects = np.array(["a", "a", "b"])
    # 0.9 is below A: it does not show
    intensities = np.array([[3, 0, 0], [0, 4, 0.9], [3, 1, 0]], np.float32)
    found = agreement(np.array([[0, 1], [0, 2]]), subjects, intensities)
    assert found == pytest.approx(
        Agreement(0.5, (np.sqrt(9 + 16 + 0.81) + 1) / 2, (0 / 2 + 1 / 2) / 2)
    )


def test_two_faces_that_show_nothing_share_it():
    assert agreement(np.array([[0, 1]]), np.array(["a", "b"]), np.zeros((2, 4), np.float32)) == (
        0,
        0,
        1,
    )


def test_closest_finds_a_face_again_after_a_change_that_is_small():
    faces = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    order = np.array([4, 0, 5])
    changed = np.clip(faces[order].astype(int) + 5, 0, 255).astype(np.uint8)
    rows, distances = closest(shrunk(changed, 8), shrunk(faces, 8))
    assert rows.tolist() == order.tolist()
    np.testing.assert_allclose(distances, np.sqrt(8 * 8 * 3) * 5 / 255, rtol=0.1)


def test_shrunk_averages_blocks_of_pixels():
    face = np.zeros((1, 4, 4, 3), np.uint8)
    face[0, :2, :2] = [[[0], [255]], [[255], [0]]]
    np.testing.assert_allclose(
        shrunk(face, 2).reshape(2, 2, 3)[..., 0], [[128 / 255, 0], [0, 0]], atol=1 / 255
    )


def test_true_normalized_faces_lie_by_expression_and_originals_by_person(studio):
    from dataclasses import replace

    from norface_lib.faces.sampling import sample_face, sample_frame

    expressions = {}, {6: 3.0, 12: 4.0}, {1: 5.0, 2: 5.0, 26: 4.0}
    shown = [(person, number) for person in range(3) for number in range(3)]
    frame = sample_frame(np.random.default_rng(1))
    originals = np.stack(
        [
            studio.plain(
                sample_face(np.random.default_rng(p)),
                replace(frame, left=expressions[e], right=expressions[e]),
            )
            for p, e in shown
        ]
    )
    truths = np.stack([studio.normalized(expressions[e]) for _, e in shown])
    people, moods = np.array(shown).T
    moments = np.arange(9)
    by_person, by_mood = (nearest_pairs(shrunk(faces), moments) for faces in (originals, truths))
    assert (people[by_person[:, 0]] == people[by_person[:, 1]]).mean() > 0.8
    assert (moods[by_mood[:, 0]] == moods[by_mood[:, 1]]).all()
