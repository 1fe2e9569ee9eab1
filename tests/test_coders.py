"""Simulated coder errors, subtle expressions, and figures of confusions."""

import numpy as np
import pandas as pd
import pytest

from norface_lib import labels
from norface_lib.datasets.label_table import coded_table
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.sampling import sample_emotion, sample_intensities
from norface_lib.labels import EMOTIONS
from norface_lib.viz import plots


@pytest.fixture(scope="module")
def faces():
    """A benchmark without pictures: the labels of 4,000 frames."""
    rng = np.random.default_rng(0)
    frames = [sample_intensities(rng, 0.6) for _ in range(4000)]
    rows = [
        {labels.au_column(au): max(left.get(au, 0.0), right.get(au, 0.0)) for au in labels.AUS}
        for left, right in frames
    ]
    table = pd.DataFrame(rows)
    table["AU12L"] = table["AU12"]
    table["emotion"] = np.resize([*EMOTIONS, ""], len(table))
    return Rendered.from_arrays(table)


def coded(data, errors, seed=0):
    return Rendered.from_arrays(coded_table(data.table, errors, seed))


def test_strength_keeps_what_shows_subtle():
    rng = np.random.default_rng(0)
    for draw in (lambda s: sample_intensities(rng, s), lambda s: sample_emotion(rng, "happy", s)):
        strong, subtle = (
            np.concatenate([list(draw(s)[0].values()) for _ in range(300)]) for s in (1.0, 0.5)
        )
        assert subtle.max() < strong.max() and np.mean(subtle) < np.mean(strong) - 0.4
    with pytest.raises(ValueError, match="strength must be within"):
        BenchmarkSpec(strength=0.0)


def test_coders_give_whole_levels_and_keep_the_rates(faces):
    coded_data = coded(faces, errors=0.04, seed=1)
    before, after = faces.occurrences(), coded_data.occurrences()
    np.testing.assert_array_equal(coded_data.intensities() % 1, 0)
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-9)
    wrong = (before != after).mean(0)
    assert 0.02 < wrong.mean() < 0.05
    missed = faces.intensities()[(before == 1) & (after == 0)]
    assert missed.mean() < faces.intensities()[before == 1].mean()
    np.testing.assert_array_equal(coded_data.table["AU12L"], faces.table["AU12L"])
    other = coded_data.table["emotion"] != faces.table["emotion"]
    assert (
        0.02 < other.mean() < 0.05
        and (coded_data.table.loc[faces.table["emotion"] == "", "emotion"] == "").all()
    )


def test_coding_is_by_seed_and_can_be_free_of_errors(faces):
    assert coded(faces, 0.03, 5).table.equals(coded(faces, 0.03, 5).table)
    assert not coded(faces, 0.03, 5).table.equals(coded(faces, 0.03, 6).table)
    exact = coded(faces, 0.0)
    np.testing.assert_array_equal(exact.occurrences(), faces.occurrences())
    np.testing.assert_array_equal(exact.table["emotion"], faces.table["emotion"])


def test_confusions_are_drawn_in_shares_of_a_label():
    axis = plots.confusion(["a", "b"], np.array([[3, 1], [0, 5]])).axes[0]
    assert [text.get_text() for text in axis.texts] == ["0.75", "0.25", "0.00", "1.00"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a (4)", "b (5)"]
