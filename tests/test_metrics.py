"""Metrics against scikit-learn, scipy and pingouin, published baselines, and at their edges."""

import time

import numpy as np
import pandas as pd
import pingouin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn import metrics as sklearn_metrics

from norface_lib.studies import statistics
from norface_lib.tasks import metrics
from norface_lib.tasks.metrics import (
    f1_counts,
    f1_from_counts,
    f1_per_label,
    icc3_1,
    intensity_metrics,
    intensity_sums,
)

SHAPE = (40, 3)

few = settings(max_examples=20)

# PAPER.md 2.1: occurrence rates (%) and frames of BP4D's test parts P1, P2, P3
FOLD_RATES = np.array(
    [
        [16.4, 16.1, 19.9, 41.5, 59.0, 57.7, 55.9, 40.0, 15.1, 31.8, 15.9, 14.0],
        [20.3, 13.1, 19.6, 46.4, 55.1, 55.7, 52.2, 51.3, 20.0, 36.6, 17.3, 15.7],
        [27.1, 22.4, 21.3, 50.8, 50.3, 65.3, 60.9, 48.8, 15.6, 34.8, 16.5, 15.9],
    ]
)
FOLD_FRAMES = np.array([50_631, 50_182, 46_034])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def detection(rng):
    """Probabilities (300, 5), and labels of which a tenth is unknown, written as 9 and as NaN."""
    labels = rng.integers(0, 2, (300, 5)).astype(float)
    probabilities = np.clip(0.4 * labels + rng.uniform(0, 0.7, labels.shape), 0, 1)
    labels[rng.random(labels.shape) < 0.05] = 9
    labels[rng.random(labels.shape) < 0.05] = np.nan
    return probabilities, labels


@pytest.fixture
def intensity(rng):
    """Predictions and labels (200, 4) on 0..5, with a few frames unknown."""
    labels = rng.integers(0, 6, (200, 4)).astype(float)
    predictions = np.clip(labels * [1, 0.5, 0.1, -0.3] + rng.normal(0, 1, labels.shape), 0, 5)
    labels[rng.random(labels.shape) < 0.1] = 9
    return predictions, labels


def of_known_frames(metric, predictions, labels):
    """A reference metric(labels, predictions), column by column without the unknown frames."""
    columns = zip(predictions.T, labels.T, metrics.known(labels).T, strict=True)
    return [metric(label[mask], prediction[mask]) for prediction, label, mask in columns]


def mean_f1(counts):
    return f1_from_counts(counts).mean(axis=-1)


# --- detection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_f1_is_that_of_sklearn_on_known_frames(detection, threshold):
    expected = of_known_frames(
        lambda label, p: sklearn_metrics.f1_score(label, p >= threshold), *detection
    )
    np.testing.assert_allclose(f1_per_label(*detection, threshold), expected)


def test_f1_counts_a_probability_at_the_threshold_as_positive():
    assert f1_per_label([[0.5]], [[1]]) == 1


@few
@given(st.lists(st.integers(0, 300), max_size=5))
def test_f1_of_streamed_batches_is_that_of_the_whole(cuts):
    rng = np.random.default_rng(1)
    probabilities, labels = rng.random((300, 4)), rng.choice([0, 1, 9, np.nan], (300, 4))
    batches = zip(
        np.split(probabilities, sorted(cuts)), np.split(labels, sorted(cuts)), strict=True
    )
    counts = sum(f1_counts(*batch) for batch in batches)
    np.testing.assert_array_equal(f1_from_counts(counts), f1_per_label(probabilities, labels))
    assert counts.sum() <= metrics.known(labels).sum()


@few
@given(arrays(float, SHAPE, elements=st.floats(0, 1)), st.sampled_from([0, 9, np.nan]))
def test_f1_is_zero_without_a_known_positive(probabilities, label):
    np.testing.assert_array_equal(f1_per_label(probabilities, np.full(SHAPE, label)), 0)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[np.nan]], [[1]], "NaN"),
        ([[2.5]], [[1]], "sigmoid"),
        ([[0.5]], [[3]], "threshold"),
        ([[0.5, 0.5]], [[1]], "shape"),
        ([0.5], [1], "shape"),
    ],
)
def test_f1_refuses_what_it_cannot_count(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        f1_counts(probabilities, labels)


def test_the_constant_predictor_has_the_published_constant_baselines():
    per_label = 100 * metrics.constant_predictor_f1(FOLD_RATES / 100).mean(axis=0)
    np.testing.assert_allclose(
        per_label,
        [34.8, 29.2, 33.7, 63.2, 70.7, 74.6, 72.0, 63.5, 28.9, 51.2, 28.4, 26.3],
        atol=0.085,
    )
    assert per_label.mean() == pytest.approx(48.0, abs=0.05)
    disfa = 100 * metrics.constant_predictor_f1(
        np.divide([5.0, 4.0, 15.0, 7.9, 4.2, 12.9, 27.8, 8.9], 100)
    )
    np.testing.assert_allclose(disfa, [9.5, 7.6, 26.1, 14.6, 8.0, 22.8, 43.5, 16.2], atol=0.15)
    assert disfa.mean() == pytest.approx(18.5, abs=0.1)


def test_the_constant_predictor_has_the_f1_of_ones(rng):
    labels = rng.integers(0, 2, SHAPE)
    np.testing.assert_allclose(
        metrics.constant_predictor_f1(labels.mean(axis=0)), f1_per_label(np.ones(SHAPE), labels)
    )


def test_folds_averaged_and_pooled_are_the_published_ones():
    positives = FOLD_RATES / 100 * FOLD_FRAMES[:, None]
    # everything called present
    counts = np.stack([positives, FOLD_FRAMES[:, None] - positives, 0 * positives], axis=1)
    averaged = f1_from_counts(counts).mean(axis=0)
    pooled = f1_from_counts(counts.sum(axis=0))
    assert 100 * averaged.mean() == pytest.approx(48.03, abs=0.02)
    assert 100 * pooled.mean() == pytest.approx(48.04, abs=0.02)


def test_the_oracle_sweeps_one_threshold_for_all_labels(detection):
    threshold, f1 = metrics.oracle_f1(*detection)
    sweep = [f1_per_label(*detection, percent / 100).mean() for percent in range(1, 100)]
    assert f1.mean() == max(sweep) >= f1_per_label(*detection).mean()
    assert threshold == (1 + np.argmax(sweep)) / 100


@pytest.mark.parametrize("values", [3, 1000])  # with ties and without
def test_auc_is_the_share_of_pairs_in_order(rng, values):
    scores, positives = rng.integers(0, values, 200), rng.random(200) < 0.3
    pairs = scores[positives][:, None] - scores[~positives]
    assert metrics.auc(scores, positives) == pytest.approx((np.sign(pairs) / 2 + 0.5).mean())


@pytest.mark.parametrize(
    ("scores", "positives", "message"),
    [
        ([1, 2], [1, 1], "both classes"),
        ([1, 2], [0, 0], "both classes"),
        ([1], [1, 0], "shape"),
        ([np.nan, 1], [0, 1], "NaN"),
        ([1, 2], [0, 9], "unknown"),
    ],
)
def test_auc_refuses_what_has_no_area(scores, positives, message):
    with pytest.raises(ValueError, match=message):
        metrics.auc(scores, positives)


# --- intensity ------------------------------------------------------------------------------------


def pingouin_icc(labels, predictions):
    """ICC(3,1), which McGraw and Wong (1996) call ICC(C,1)."""
    frames = len(labels)
    table = {
        "frame": np.tile(np.arange(frames), 2),
        "rater": np.repeat([0, 1], frames),
        "value": [*labels, *predictions],
    }
    result = pingouin.intraclass_corr(
        pd.DataFrame(table), targets="frame", raters="rater", ratings="value"
    )
    return result.set_index("Type").loc["ICC(C,1)", "ICC"]


def lin_ccc(labels, predictions):
    covariance = np.cov(labels, predictions, bias=True)
    return 2 * covariance[0, 1] / (covariance.trace() + (labels.mean() - predictions.mean()) ** 2)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pingouin's way with pandas
@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (icc3_1, pingouin_icc),
        (metrics.pcc, lambda label, prediction: stats.pearsonr(label, prediction).statistic),
        (metrics.ccc, lin_ccc),
        (metrics.mse, sklearn_metrics.mean_squared_error),
        (metrics.mae, sklearn_metrics.mean_absolute_error),
    ],
)
def test_intensity_metrics_are_those_of_their_references(intensity, metric, reference):
    np.testing.assert_allclose(
        metric(*intensity), of_known_frames(reference, *intensity), atol=1e-10
    )


def test_icc_by_hand():
    """BMS = 2 (1.5^2 + 0.5^2 + 2^2) / 2 = 6.5 and EMS = (0.5 - 1/6) / 2 = 1/6, by the formula of
    PAPER.md 3."""
    assert icc3_1([[1], [2], [5]], [[1], [2], [4]]) == pytest.approx((6.5 - 1 / 6) / (6.5 + 1 / 6))


def test_an_offset_and_a_scale_lower_what_they_should(intensity):
    labels = intensity[0]
    for prediction, perfect in (
        (labels, "icc pcc ccc"),
        (labels + 1.5, "icc pcc"),
        (0.5 * labels, "pcc"),
    ):
        values = intensity_metrics(intensity_sums(prediction, labels))
        for name in ("icc", "pcc", "ccc"):
            assert np.allclose(values[name], 1) if name in perfect else (values[name] < 0.95).all()


ratings = arrays(float, SHAPE, elements=st.floats(0, 5, width=16))


@few
@given(ratings, ratings)
def test_correlations_are_within_their_range_and_symmetric(predictions, labels):
    there, back = (
        intensity_metrics(intensity_sums(*pair))
        for pair in ((predictions, labels), (labels, predictions))
    )
    for name in ("icc", "pcc", "ccc"):
        assert (np.abs(there[name]) <= 1 + 1e-12).all()
        np.testing.assert_allclose(there[name], back[name], atol=1e-9)
    assert (np.abs(there["ccc"]) <= np.abs(there["icc"]) + 1e-9).all()
    assert (np.abs(there["icc"]) <= np.abs(there["pcc"]) + 1e-9).all()


@pytest.mark.parametrize("label", [0.1, 9, np.nan])
@few
@given(constant=st.floats(0, 5))
def test_correlations_are_zero_of_constant_raters_and_of_unknown_frames(label, constant):
    for metric in (icc3_1, metrics.pcc, metrics.ccc):
        np.testing.assert_array_equal(metric(np.full(SHAPE, constant), np.full(SHAPE, label)), 0)


@few
@given(ratings, st.floats(0, 5))
def test_a_constant_prediction_has_no_correlation(labels, constant):
    values = intensity_metrics(intensity_sums(np.full(SHAPE, constant), labels))
    for name in ("icc", "pcc", "ccc"):
        np.testing.assert_array_equal(values[name], 0)
    np.testing.assert_allclose(values["mse"], ((labels - constant) ** 2).mean(axis=0), atol=1e-9)


def test_one_frame_has_errors_and_no_correlation():
    values = intensity_metrics(intensity_sums([[2.0]], [[5.0]]))
    assert {name: value.item() for name, value in values.items()} == {
        "icc": 0,
        "pcc": 0,
        "ccc": 0,
        "mse": 9,
        "mae": 3,
    }


def test_errors_of_a_label_without_known_frames_are_nan():
    labels = np.array([[9.0, 1.0], [np.nan, 2.0]])
    np.testing.assert_array_equal(metrics.mse(np.zeros((2, 2)), labels), [np.nan, 2.5])
    np.testing.assert_array_equal(metrics.mae(np.zeros((2, 2)), labels), [np.nan, 1.5])


@pytest.mark.parametrize("metric", [icc3_1, metrics.pcc, metrics.ccc, metrics.mse, metrics.mae])
def test_intensity_metrics_refuse_nan_predictions_and_unlike_shapes(metric):
    with pytest.raises(ValueError, match="NaN"):
        metric([[np.nan], [1]], [[1], [1]])
    with pytest.raises(ValueError, match="shape"):
        metric([[1], [1]], [[1]])


# --- emotions -------------------------------------------------------------------------------------


def test_accuracies_are_those_of_sklearn(rng):
    labels, predictions = rng.choice([0, 1, 2, 4, 9, np.nan], 400), rng.integers(0, 5, 400)
    mask = metrics.known(labels)
    counts = metrics.confusion(predictions, labels, 5)
    truth, said = labels[mask], predictions[mask]
    np.testing.assert_array_equal(
        counts, sklearn_metrics.confusion_matrix(truth, said, labels=range(5))
    )
    assert metrics.accuracy(counts) == pytest.approx(sklearn_metrics.accuracy_score(truth, said))
    # class 3 does not occur
    recalls = sklearn_metrics.recall_score(truth, said, labels=[0, 1, 2, 4], average="macro")
    assert metrics.class_mean_accuracy(counts) == pytest.approx(recalls)


@pytest.mark.parametrize(
    ("counts", "majority", "constant_baseline"),
    [([329, 74, 160, 1185, 478, 162, 680], 3, 0.386), ([500] * 8, 0, 0.125)],
)
def test_the_majority_class_has_the_published_constant_baselines(
    counts, majority, constant_baseline
):
    # RAF-DB's test set and AffectNet's, PAPER.md 2.4 and 2.5
    labels = np.repeat(np.arange(len(counts)), counts)
    confusion = metrics.confusion(np.full(len(labels), majority), labels, len(counts))
    assert metrics.accuracy(confusion) == pytest.approx(constant_baseline, abs=5e-4)
    assert metrics.class_mean_accuracy(confusion) == pytest.approx(1 / len(counts))


def test_accuracy_without_a_known_image_is_nan():
    nothing = metrics.confusion([0, 1], [9, np.nan], 3)
    assert nothing.sum() == 0
    assert np.isnan(metrics.accuracy(nothing)) and np.isnan(metrics.class_mean_accuracy(nothing))


@pytest.mark.parametrize(
    ("predictions", "labels", "classes", "message"),
    [
        ([3], [0], 3, "predictions.*0..2"),
        ([0], [-1], 3, "labels.*0..2"),
        ([0.5], [0], 3, "predictions"),
        ([0], [0, 1], 3, "shape"),
        ([[0]], [[0]], 3, "shape"),
        ([0], [0], 10, "at most 0..8"),
    ],
)
def test_confusion_refuses_what_is_no_class(predictions, labels, classes, message):
    with pytest.raises(ValueError, match=message):
        metrics.confusion(predictions, labels, classes)


# --- sums by subject ------------------------------------------------------------------------------


@few
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60))
def test_sums_by_subject_are_those_of_each_subject(people):
    rng, people = np.random.default_rng(2), np.array(people)
    values, labels = rng.random((len(people), 2)), rng.choice([0, 1, 9, np.nan], (len(people), 2))
    for sums in (
        lambda rows, **by: f1_counts(values[rows], labels[rows], **by),
        lambda rows, **by: intensity_sums(values[rows], labels[rows], **by),
        lambda rows, **by: metrics.confusion(values[rows, 0].round(), labels[rows, 0], 2, **by),
    ):
        expected = [sums(people == person) for person in sorted(set(people))]
        np.testing.assert_allclose(sums(slice(None), subjects=people), expected)


def test_subjects_must_name_every_frame():
    with pytest.raises(ValueError, match="each of the 2 frames"):
        f1_counts([[0.5], [0.5]], [[1], [1]], subjects=["a"])


# --- folds, intervals, differences ----------------------------------------------------------------


def test_bootstrap_of_a_mean_is_the_normal_interval(rng):
    values = rng.normal(3, 2, 400)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(
        statistics.bootstrap_interval(values),
        [values.mean() - half, values.mean() + half],
        atol=0.04,
    )
    assert statistics.bootstrap_interval(values, seed=1) == statistics.bootstrap_interval(
        values, seed=1
    )
    assert statistics.bootstrap_interval(values, seed=1) != statistics.bootstrap_interval(
        values, seed=2
    )


def test_bootstrap_of_f1_adds_the_counts_of_the_sampled_subjects():
    good, bad = [[9], [1], [0]], [[0], [2], [8]]
    low, high = statistics.bootstrap_interval([good, bad], mean_f1)
    assert low == 0
    assert high == pytest.approx(18 / 19)
    assert statistics.bootstrap_interval([good] * 5, mean_f1) == pytest.approx((18 / 19, 18 / 19))


def test_bootstrap_is_that_of_a_loop_over_resamples(rng):
    counts = rng.integers(0, 50, (12, 3, 4))
    draws = rng.integers(12, size=(3000, 12))
    expected = np.quantile([mean_f1(counts[draw].sum(axis=0)) for draw in draws], [0.05, 0.95])
    np.testing.assert_allclose(
        statistics.bootstrap_interval(counts, mean_f1, level=0.9, resamples=3000),
        expected,
        atol=0.006,
    )


def test_bootstrap_samples_within_folds_and_averages_over_them():
    values, folds = [1, 1, 5, 5, 5], [0, 0, 1, 1, 1]
    assert statistics.bootstrap_interval(values, folds=folds) == pytest.approx(
        (3, 3)
    )  # each fold is constant, whoever is sampled
    low, high = statistics.bootstrap_interval(values)
    assert low < 3.4 < high


def test_bootstrap_gives_an_interval_for_each_label(intensity, rng):
    sums = intensity_sums(*intensity, subjects=rng.integers(0, 10, 200))
    low, high = statistics.bootstrap_interval(sums, lambda drawn: intensity_metrics(drawn)["icc"])
    assert low.shape == high.shape == (4,)
    assert ((low < icc3_1(*intensity)) & (icc3_1(*intensity) < high)).all()


def test_two_thousand_resamples_of_bp4d_take_well_under_a_second(rng):
    counts = rng.integers(0, 2000, (41, 3, 12))
    started = time.perf_counter()
    statistics.bootstrap_interval(counts, mean_f1, folds=np.repeat([0, 1, 2], [14, 14, 13]))
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    ("values", "folds"),
    [([0.5], None), ([], None), (0.5, None), ([1, 2, 3], [0, 0, 1]), ([1, 2], [0])],
)
def test_bootstrap_needs_two_subjects_in_each_fold(values, folds):
    with pytest.raises(ValueError, match=r"two subjects|each of the"):
        statistics.bootstrap_interval(values, folds=folds)


def test_paired_bootstrap_cancels_what_both_methods_share(rng):
    hard = rng.normal(0, 5, 40)  # subjects differ far more than methods do
    first, second = hard + 0.5 + rng.normal(0, 0.1, 40), hard + rng.normal(0, 0.1, 40)
    paired = statistics.paired_bootstrap(first, second)
    assert paired.value == pytest.approx((first - second).mean())
    assert 0.4 < paired.low < paired.value < paired.high < 0.6
    np.testing.assert_allclose(paired[1:], statistics.bootstrap_interval(first - second))
    assert statistics.paired_bootstrap(first, first) == (0, 0, 0)


def test_paired_bootstrap_of_f1_over_folds(rng):
    first, second = rng.integers(1, 50, (2, 9, 3, 4))
    folds = np.repeat([0, 1, 2], 3)
    per_fold = [
        [mean_f1(counts[folds == fold].sum(axis=0)) for fold in range(3)]
        for counts in (first, second)
    ]
    paired = statistics.paired_bootstrap(first, second, mean_f1, folds=folds)
    assert paired.value == pytest.approx(np.mean(per_fold[0]) - np.mean(per_fold[1]))
    assert paired.low < paired.value < paired.high
    with pytest.raises(ValueError, match="same subjects"):
        statistics.paired_bootstrap(first, second[:-1])


def test_paired_t_interval_is_that_of_students_formula(rng):
    first, second = rng.normal(0.6, 0.1, 9), rng.normal(0.5, 0.1, 9)
    mean = (first - second).mean()
    half = stats.t(8).ppf(0.95) * (first - second).std(ddof=1) / 3
    paired = statistics.paired_t_interval(first, second, level=0.9)
    np.testing.assert_allclose(paired, [mean, mean - half, mean + half])
    # the same difference twice: no width
    np.testing.assert_allclose(statistics.paired_t_interval([0.6, 0.7], [0.5, 0.6]), 0.1)


# all signs, all signs, random signs
@pytest.mark.parametrize(("pairs", "tolerance"), [(3, 1e-12), (9, 1e-12), (17, 0.02)])
def test_sign_flips_count_the_signs_that_reach_the_difference(rng, pairs, tolerance):
    differences = rng.normal(0.05, 0.1, pairs)
    signs = 1 - 2 * (np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1)
    reached = np.abs(signs @ differences) >= np.abs(differences.sum()) - 1e-12
    p = statistics.sign_flip_test(differences, np.zeros(pairs))
    assert p == pytest.approx(reached.mean(), abs=tolerance)


def test_sign_flips_of_known_p_values():
    assert statistics.sign_flip_test([1, 2, 3], [0, 0, 0]) == 2 / 8  # three folds can show no more
    assert statistics.sign_flip_test([1.1] * 10, [1.0] * 10) == 2 / 1024
    assert statistics.sign_flip_test([1, 1], [1, 1]) == 1
    # none of 100,000 reached it, on either side
    assert statistics.sign_flip_test(np.ones(30), np.zeros(30)) == pytest.approx(2e-5, rel=0.01)


@pytest.mark.parametrize("test", [statistics.paired_t_interval, statistics.sign_flip_test])
def test_paired_tests_refuse_what_is_no_pair(test):
    for first, second in (
        ([1], [2]),
        ([1, 2], [1]),
        ([1, 2], [1, 2, 3]),
        ([[1, 2]], [[1, 2]]),
        ([1, np.nan], [1, 2]),
    ):
        with pytest.raises(ValueError, match="pair"):
            test(first, second)
