"""The explorer: what its controls say is what is drawn, normalized and read."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest

from norface_lib import labels
from norface_lib.viz import explorer as explorer_module
from norface_lib.viz.explorer import READ_BY, Explorer, Pose, _Controls, as_csv, portrait

pytestmark = pytest.mark.slow
SMILE = {6: 4.0, 12: 5.0}


@pytest.fixture(scope="module")
def explorer():
    return Explorer(size=112)


@pytest.fixture
def controls(explorer):
    return _Controls(explorer)


def changed(before, after):
    """Which of the three pictures differ."""
    return [bool((a != b).any()) for a, b in zip(before[:3], after[:3], strict=True)]


def test_a_pose_is_drawn_normalized_and_read(explorer):
    neutral, smile = explorer.look(Pose(2, {}, {})), explorer.look(Pose(2, SMILE, SMILE))
    assert changed(neutral, smile) == [True, True, True]
    assert neutral.row["emotion"] == "neutral" and smile.row["emotion"] == "happy"
    assert smile.row["AU12_intensity"] > 2 > 0.5 > neutral.row["AU12_intensity"]
    np.testing.assert_array_equal(smile.truth, explorer.studio.normalized(SMILE))
    error = np.abs(smile.normalized.astype(int) - smile.truth).mean()
    assert error < np.abs(neutral.normalized.astype(int) - smile.truth).mean()


def test_who_it_is_and_where_the_lamp_stands_does_not_change_the_truth(explorer):
    first = explorer.look(Pose(2, SMILE, SMILE))
    for other in (Pose(3, SMILE, SMILE), Pose(2, SMILE, SMILE, yaw=0.3, lamp=-1.0)):
        assert changed(first, explorer.look(other))[:2] == [True, False]


def test_each_kind_of_reader_reads(explorer):
    rows = [explorer.look(Pose(2, SMILE, SMILE), kind).row for kind in READ_BY]
    assert all(row["emotion"] == "happy" for row in rows)
    assert "AU26" in rows[0] and "AU26" not in rows[1], "the classifiers know the AUs of BP4D"


def test_sliders_are_named_and_grouped():
    assert sorted(au for numbers in labels.REGIONS.values() for au in numbers) == sorted(labels.AUS)


def test_presets_set_all_sliders_and_a_hand_makes_them_ones_own(controls):
    assert controls.aus[12].description == "AU12 lip corner puller"
    controls.aus[4].value = 3.0
    assert controls.preset.value == "your own" and controls.pose.left[4] == 3.0
    controls.preset.value = "happy"
    assert {au: slider.value for au, slider in controls.aus.items() if slider.value} == {
        6: 4.0,
        12: 5.0,
        25: 4.0,
    }
    assert "emotion: happy" in controls.bars.value
    before = controls.seen
    controls.preset.value = "contempt"
    assert controls.side.value == "left" and changed(before, controls.seen) == [True] * 3
    assert (controls.pose.left[14], controls.pose.right[14]) == (5.0, 0.0)


def test_an_au_whose_sides_cannot_move_apart_moves_on_both(controls):
    controls.aus[26].value = 4.0
    controls.side.value = "right"
    assert controls.pose.left[26] == controls.pose.right[26] == 4.0


def test_reset_and_random(controls):
    first = controls.seen
    controls.random(None)
    assert any(slider.value for slider in controls.aus.values())
    assert changed(first, controls.seen) == [True] * 3
    controls.scene["yaw"].value = 0.5
    controls.reset(None)
    assert changed(first, controls.seen) == [False] * 3 and controls.preset.value == "neutral"


def test_a_preset_is_looked_at_once(controls, monkeypatch):
    looks = []
    look = controls.explorer.look
    monkeypatch.setattr(controls.explorer, "look", lambda *given: looks.append(1) or look(*given))
    controls.preset.value = "surprise"
    controls.reset(None)
    assert len(looks) == 2


def test_what_is_saved_is_what_is_shown_and_goes_when_that_changes(controls):
    assert controls.links.value == ""
    controls.preset.value = "happy"
    controls.save(None)
    assert "comparison.png" in controls.links.value and "aus.csv" in controls.links.value
    table = pd.read_csv(StringIO(as_csv(controls.pose, controls.seen.row))).set_index("AU")
    assert len(table) == len(labels.AUS) and table.loc["AU12", "name"] == "lip corner puller"
    assert table.loc["AU12", "posed_right"] == 5
    assert table.loc["AU12", "read_intensity"] == controls.seen.row["AU12_intensity"]
    controls.person.value = 3
    assert controls.links.value == ""


def test_each_side_moves_as_it_is_told(explorer):
    neutral, left = explorer.look(Pose(2, {}, {})), explorer.look(Pose(2, SMILE, {}))
    half = len(neutral.truth) // 2
    moved = np.abs(left.truth.astype(int) - neutral.truth).mean(axis=(0, 2))
    assert moved[half:].sum() > 3 * moved[:half].sum(), "the subject's left is the image's right"
    right = portrait(explorer.studio, explorer.person(2), {}, right=SMILE)
    assert (left.rendered != right).any() and (right != neutral.rendered).any()


def test_the_widget_is_what_the_notebook_shows(monkeypatch, explorer):
    monkeypatch.setattr(explorer_module, "Explorer", lambda *_: explorer)
    assert len(explorer_module.explore().children) == 2
