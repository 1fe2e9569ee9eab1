"""The one-euro filter: against its authors' pseudocode, and its two settings do what they say."""

import inspect
import json
import math

import numpy as np
import pytest

from norface_lib.cli.anonymize import anonymize
from norface_lib.cli.bench import smoothing as bench
from norface_lib.common.errors import DataError
from norface_lib.common.paths import ROOT
from norface_lib.photos.smoothing import INTENSITIES, OneEuro

TIMES = np.arange(100) / 25


def one_number_at_a_time(times, values, min_cutoff, beta):
    """Algorithm 1 of Casiez et al. (2012), for one number."""

    def alpha(rate, cutoff):
        tau = 1.0 / (2 * math.pi * cutoff)
        return 1.0 / (1.0 + tau * rate)

    filtered = [values[0]]
    slope = 0.0
    for i in range(1, len(values)):
        rate = 1.0 / (times[i] - times[i - 1])
        change = (values[i] - filtered[-1]) * rate
        share = alpha(rate, 1.0)
        slope = share * change + (1 - share) * slope
        share = alpha(rate, min_cutoff + beta * abs(slope))
        filtered.append(share * values[i] + (1 - share) * filtered[-1])
    return filtered


@pytest.mark.parametrize(("min_cutoff", "beta"), [(1.0, 0.0), (0.3, 2.0)])
def test_it_is_the_published_filter_for_each_number(min_cutoff, beta):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.1, 60))
    values = rng.normal(size=(60, 3, 2)).cumsum(0)
    smoothed = OneEuro(min_cutoff=min_cutoff, beta=beta).smooth(times, values)
    assert smoothed.shape == values.shape
    for row, column in np.ndindex(3, 2):
        expected = one_number_at_a_time(times, values[:, row, column], min_cutoff, beta)
        np.testing.assert_allclose(smoothed[:, row, column], expected)


def test_a_constant_stays_and_one_frame_is_enough():
    filter_ = OneEuro(min_cutoff=0.5, beta=1.0)
    np.testing.assert_allclose(filter_.smooth(TIMES, np.full(100, 3.0)), 3.0)
    assert filter_.smooth(TIMES[:1], np.array([[2.0]])).tolist() == [[2.0]]


def test_a_lower_cutoff_is_smoother_and_a_higher_beta_less_late():
    noise = np.random.default_rng(0).normal(0, 0.2, 100)

    def left(**settings):
        return np.abs(np.diff(OneEuro(**settings).smooth(TIMES, noise), n=2)).mean()

    assert left(min_cutoff=0.3, beta=0) < 0.5 * left(min_cutoff=2, beta=0)
    step = 4.0 * (TIMES > 1)

    def reached(beta):
        return OneEuro(min_cutoff=0.3, beta=beta).smooth(TIMES, step)[30]

    assert reached(0.0) < 2 < 3.5 < reached(2.0)


@pytest.mark.parametrize("settings", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(DataError, match="min_cutoff must be above 0"):
        OneEuro(min_cutoff=settings[0], beta=settings[1])


# --- the measure ----------------------------------------------------------------------------------


def test_lag_is_counted_in_frames():
    curve = bench.levels()
    for shift in (0, 1, 3):
        assert bench.lag(curve, np.roll(curve, shift)) == pytest.approx(shift, abs=0.02)
    between = 0.5 * (np.roll(curve, 1) + np.roll(curve, 2))
    assert bench.lag(curve, between) == pytest.approx(1.5, abs=0.02)


def test_jitter_is_that_of_the_still_face():
    level = bench.levels()
    still = np.zeros((len(level), 1))
    assert bench.jitter(level[:, None]) == pytest.approx(0, abs=1e-12)
    still[::2] = 1.0
    assert bench.jitter(still) == pytest.approx(2.0)


def test_only_what_moves_has_a_lag():
    level = bench.levels()
    values = np.stack([4 * level, 0.5 * level, np.full_like(level, 3.0)], axis=1)
    curves = bench.moving(values)
    assert len(curves) == 1 and curves[0].max() == pytest.approx(4)


def test_the_defaults_are_in_the_table_and_chosen_by_it():
    lines = (ROOT / "results" / "bench-smoothing.jsonl").read_text().splitlines()
    figures = [json.loads(line) for line in lines]
    assert len(figures) == 1 + len(bench.MIN_CUTOFFS) * len(bench.BETAS)
    prompt = [each for each in figures[1:] if each["lag_frames"] <= bench.MOST_LAG]
    best = min(prompt, key=lambda each: each["value"])
    assert (best["min_cutoff"], best["beta"]) == (INTENSITIES.min_cutoff, INTENSITIES.beta)
    options = inspect.signature(anonymize).parameters
    assert all(options[name].default == best[name] for name in ("min_cutoff", "beta"))
