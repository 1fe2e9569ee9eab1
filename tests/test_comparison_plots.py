"""Charts of results draw what they are given."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter

from norface_lib.viz import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_an_effect_is_sure_where_every_interval_leaves_out_zero():
    assert plots.Effect("a", 0.1, (0.05, 0.2), (0.01, 0.3)).sure
    assert plots.Effect("a", -0.1, (-0.2, -0.05), None).sure
    assert not plots.Effect("a", 0.1, (0.05, 0.2), (-0.01, 0.3)).sure
    assert not plots.Effect("a", 0.1, None, None).sure


def test_a_forest_has_a_panel_for_each_group_and_a_line_for_each_name():
    one = [plots.Effect("x", 0.1, (0.0, 0.2), None), plots.Effect("y", 0.2, None, (0.1, 0.3))]
    figure = plots.forest({"first": one, "second": one[1:]}, "F1")
    first, second = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["y", "x"]
    # zero line; of each effect its point and the interval that is there
    assert len(first.lines) == 1 + 2 + 2 and len(second.lines) == 1 + 2
    assert (second.get_title(), figure.get_supxlabel()) == ("second", "F1")


def test_bars_of_another_kind_of_data_are_hatched():
    methods = {"paper": [50.0, np.nan], "ours": [40.0, 60.0]}
    (axis,) = plots.method_bars(["AU01", "AU02"], methods, "ours", "F1 (percent)").axes
    paper, ours = axis.containers
    assert [bar.get_hatch() for bar in ours] == ["///", "///"]
    assert [bar.get_hatch() for bar in paper] == [None, None]
    assert [bar.get_height() for bar in ours] == [40, 60] and axis.get_ylabel() == "F1 (percent)"


def test_gaps_join_the_score_across_with_that_of_its_own_domain():
    def row(score, interval):
        return {"headline": score, "interval": interval}

    inputs = {"original": (row(0.6, (0.5, 0.7)), row(0.4, None))}
    figure = plots.gaps({"lab -> wild": inputs}, "mean F1")
    (axis,) = figure.axes
    assert [line.get_xdata().tolist() for line in axis.lines if len(line.get_xdata()) == 2] == [
        [0.4, 0.6],
        [0.5, 0.7],
    ]
    assert axis.get_xlabel() == "mean F1" and axis.get_title() == "lab -> wild"


def test_curves_over_people_are_logarithmic_with_a_band():
    curves = {
        "both": {5: (0.3, (0.2, 0.4)), 20: (0.5, (0.4, 0.6))},
        "original twice": {5: (0.2, None)},
    }
    (axis,) = plots.people_curves(curves, "mean F1").axes
    assert axis.get_xscale() == "log" and list(axis.get_xticks()) == [5, 20]
    assert len(axis.collections) == 1, "a band where there is an interval"
    assert axis.lines[0].get_ydata().tolist() == [0.3, 0.5]


def test_a_figure_is_shown_with_its_text_kept_and_closed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "norface_lib.viz.plots.showing.display", lambda *a, metadata: seen.append((*a, metadata))
    )
    figure = plots.strip({"a": np.zeros((1, 8, 8, 3), np.uint8)})
    assert plots.show(figure, "a black face", tmp_path / "face.png") is None
    assert seen == [(figure, {"image/png": {"alt": "a black face"}})]
    assert (tmp_path / "face.png").stat().st_size > 100
    assert figure.number not in plt.get_fignums()


def test_in_a_notebook_the_text_is_also_the_plain_text(monkeypatch):
    """VS Code reads that to those who cannot see the picture."""
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(
        plt.Figure, lambda figure: (b"a picture", {"width": 300})
    )
    seen = {}
    monkeypatch.setattr(
        "norface_lib.viz.plots.showing.get_ipython",
        lambda: SimpleNamespace(display_formatter=formatter),
    )
    monkeypatch.setattr(
        "norface_lib.viz.plots.showing.display", lambda data, **others: seen.update(data, **others)
    )
    plots.show(plots.strip({"a": np.zeros((1, 8, 8, 3), np.uint8)}), "a black face")
    assert seen["text/plain"] == "a black face" and seen["image/png"] == b"a picture"
    assert seen["metadata"] == {"image/png": {"alt": "a black face", "width": 300}} and seen["raw"]
