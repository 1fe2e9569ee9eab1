"""Action units, their tables, and the step from intensities to ARKit actions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from norface_lib import labels
from norface_lib.labels import AUS, facial_actions

intensities = st.dictionaries(st.sampled_from(sorted(AUS)), st.floats(0, labels.INTENSITY_MAX))
sided = pytest.mark.parametrize("au", [number for number in AUS if AUS[number].sided])


def test_bp4d_has_its_twelve_aus_in_the_published_order():
    assert labels.BP4D_AUS == (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
    assert set(labels.BP4D_AUS) <= set(AUS)
    assert len(labels.BP4D_RATES) == 12
    assert all(0 < rate < 1 for rate in labels.BP4D_RATES)


def test_columns_are_named_with_two_digits_and_keep_their_order():
    assert labels.columns((12, 1, 43)) == ("AU12", "AU01", "AU43")
    assert labels.columns()[:2] == ("AU01", "AU02")
    assert AUS[4].column == "AU04"
    assert sorted(labels.columns(tuple(AUS))) == list(labels.columns(tuple(sorted(AUS))))


def test_the_table_of_aus_is_consistent():
    for number, au in AUS.items():
        assert au.number == number
        assert au.actions
        assert all(0 < weight <= 1.5 for weight in au.actions.values())


def test_the_table_of_aus_cannot_be_changed():
    with pytest.raises(TypeError):
        AUS[99] = AUS[1]
    with pytest.raises(TypeError):
        AUS[1].actions["browInnerUp"] = 0


@sided
def test_a_sided_au_moves_both_sides_alike_and_nothing_else(au):
    actions = AUS[au].actions
    assert all(name.endswith(("Left", "Right")) for name in actions)
    for name, weight in actions.items():
        assert (
            actions[name.replace("Left", "Right")]
            == actions[name.replace("Right", "Left")]
            == weight
        )


@pytest.mark.parametrize("au", AUS)
def test_an_au_at_five_is_drawn_by_its_own_actions_at_their_weight(au):
    assert facial_actions({au: 5.0}) == pytest.approx(dict(AUS[au].actions))


@pytest.mark.parametrize("au", AUS)
def test_one_au_grows_in_proportion_to_its_intensity(au):
    for intensity in (1.0, 2.5, 4.0):
        expected = {name: weight * intensity / 5 for name, weight in AUS[au].actions.items()}
        assert facial_actions({au: intensity}) == pytest.approx(expected)


@sided
@pytest.mark.parametrize("side", ["Left", "Right"])
def test_one_side_alone_leaves_the_other_at_rest(au, side):
    one, rest = {au: 5.0}, {}
    weights = facial_actions(one, rest) if side == "Left" else facial_actions(rest, one)
    moved = {name for name, weight in weights.items() if weight > 0}
    assert moved == {name for name in AUS[au].actions if name.endswith(side)}


def test_an_au_whose_sides_cannot_move_apart_takes_their_mean():
    assert facial_actions({26: 4.0}, {26: 2.0}) == pytest.approx(facial_actions({26: 3.0}))


def test_shared_actions_add_up_to_a_limit():
    squint = {au: facial_actions({au: 2.0})["eyeSquintLeft"] for au in (6, 7)}
    assert facial_actions({6: 2.0, 7: 2.0})["eyeSquintLeft"] == pytest.approx(sum(squint.values()))
    assert facial_actions({6: 5.0, 7: 5.0})["eyeSquintLeft"] == pytest.approx(1.5)


@given(intensities, intensities)
def test_weights_stay_within_their_range(left, right):
    assert all(0 <= weight <= 1.5 for weight in facial_actions(left, right).values())


@given(intensities, st.sampled_from(sorted(AUS)))
def test_more_of_an_au_never_means_less_of_an_action(left, au):
    before, after = facial_actions(left), facial_actions(left | {au: labels.INTENSITY_MAX})
    assert all(after[name] >= weight for name, weight in before.items())


@given(intensities)
def test_the_order_in_which_aus_are_named_does_not_matter(left):
    backwards = dict(reversed(left.items()))
    assert facial_actions(left) == facial_actions(backwards)


def test_no_au_moves_nothing():
    assert facial_actions({}) == {}
    assert set(facial_actions({12: 0.0}).values()) == {0.0}


@pytest.mark.parametrize("value", [-0.01, 5.01, np.nan, np.inf])
def test_an_intensity_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match=r"AU12 must be within 0\.\.5"):
        facial_actions({12: 3.0}, {12: value})


def test_an_unknown_au_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"AU3 is not in the rendered benchmark.* 1, 2, 4, 5"):
        facial_actions({3: 1.0})
