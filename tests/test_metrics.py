"""Metrics against scikit-learn, against an ANOVA by least squares, and at their edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, roc_auc_score

from norface_lib import metrics
from norface_lib.metrics import F1Counter, f1_per_label, icc3_1

SHAPE = (40, 3)


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


def of_known_frames(metric, predictions, labels):
    """A reference metric(labels, predictions), column by column without the unknown frames."""
    columns = zip(predictions.T, labels.T, metrics.known(labels).T, strict=True)
    return [metric(label[mask], prediction[mask]) for prediction, label, mask in columns]


def anova_icc(labels, predictions):
    """ICC(3,1) from a two-way analysis of variance: residuals of least-squares fits, none of the formula under test."""
    frames = len(labels)
    values = np.concatenate([labels, predictions])
    frame, rater = np.tile(np.eye(frames), (2, 1)), np.repeat(np.eye(2), frames, axis=0)

    def residual(design):
        return ((values - design @ np.linalg.lstsq(design, values)[0]) ** 2).sum()

    error = residual(np.hstack([frame, rater]))
    between, error = (residual(rater) - error) / (frames - 1), error / (frames - 1)
    return (between - error) / (between + error)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_f1_is_that_of_sklearn_on_known_frames(detection, threshold):
    expected = of_known_frames(lambda label, p: f1_score(label, p >= threshold), *detection)
    np.testing.assert_allclose(f1_per_label(*detection, threshold), expected)


def test_f1_counts_a_probability_at_the_threshold_as_positive():
    assert f1_per_label([[0.5]], [[1]]) == 1


@given(st.lists(st.integers(0, 300), max_size=5))
@settings(max_examples=25, deadline=None)
def test_f1_of_streamed_batches_is_that_of_the_whole(cuts):
    rng = np.random.default_rng(1)
    probabilities, labels = rng.random((300, 4)), rng.choice([0, 1, 9, np.nan], (300, 4))
    counter = F1Counter(4)
    for batch in zip(np.split(probabilities, sorted(cuts)), np.split(labels, sorted(cuts)), strict=True):
        counter.update(*batch)
    np.testing.assert_array_equal(counter.compute(), f1_per_label(probabilities, labels))
    assert counter.counts.sum() <= metrics.known(labels).sum()


@given(arrays(float, SHAPE, elements=st.floats(0, 1)), st.sampled_from([0, 9, np.nan]))
@settings(deadline=None)
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
        ([[0.5, 0.5]], [[1, 1]], "holds 1 labels"),
    ],
)
def test_f1_refuses_what_it_cannot_count(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        F1Counter(1).update(probabilities, labels)


def test_constant_predictor_is_the_published_floor_and_the_f1_of_ones(rng):
    folds = [[16.4, 16.1, 59.0], [20.3, 13.1, 55.1], [27.1, 22.4, 50.3]]  # AU 1, 2 and 7 of BP4D in %, PAPER.md 2.1
    floor, _ = metrics.mean_over_folds([metrics.constant_predictor_f1(np.divide(rates, 100)) for rates in folds])
    np.testing.assert_allclose(100 * floor, [34.8, 29.2, 70.7], atol=0.06)
    labels = rng.integers(0, 2, SHAPE)
    np.testing.assert_allclose(metrics.constant_predictor_f1(labels.mean(axis=0)), f1_per_label(np.ones(SHAPE), labels))


@pytest.fixture
def intensity(rng):
    """Predictions and labels (200, 4) on 0..5, with a few frames unknown."""
    labels = rng.integers(0, 6, (200, 4)).astype(float)
    predictions = np.clip(labels * [1, 0.5, 0.1, -0.3] + rng.normal(0, 1, labels.shape), 0, 5)
    labels[rng.random(labels.shape) < 0.1] = 9
    return predictions, labels


def test_icc_is_that_of_an_analysis_of_variance(intensity):
    np.testing.assert_allclose(icc3_1(*intensity), of_known_frames(anova_icc, *intensity), atol=1e-10)


def test_icc_ignores_an_offset_but_not_a_scale(intensity):
    labels = intensity[0]
    np.testing.assert_allclose(icc3_1(labels + 1.5, labels), 1)
    assert (icc3_1(0.5 * labels, labels) < 0.9).all()


ratings = arrays(float, SHAPE, elements=st.floats(0, 5, width=16))


@given(ratings, ratings)
@settings(deadline=None)
def test_icc_is_within_its_range_and_symmetric(predictions, labels):
    result = icc3_1(predictions, labels)
    assert (np.abs(result) <= 1 + 1e-9).all()
    np.testing.assert_allclose(result, icc3_1(labels, predictions), atol=1e-9)


@pytest.mark.parametrize("label", [0.1, 9, np.nan])
@given(constant=st.floats(0, 5))
@settings(deadline=None)
def test_icc_is_zero_of_constant_raters_and_of_unknown_frames(label, constant):
    np.testing.assert_array_equal(icc3_1(np.full(SHAPE, constant), np.full(SHAPE, label)), 0)


def test_errors_are_means_over_known_frames(intensity):
    predictions, labels = intensity
    squared = of_known_frames(lambda label, prediction: np.mean((label - prediction) ** 2), *intensity)
    absolute = of_known_frames(lambda label, prediction: np.mean(abs(label - prediction)), *intensity)
    np.testing.assert_allclose(metrics.mse(predictions, labels), squared)
    np.testing.assert_allclose(metrics.mae(predictions, labels), absolute)


def test_errors_of_a_label_without_known_frames_are_nan():
    labels = np.array([[9.0, 1.0], [np.nan, 2.0]])
    np.testing.assert_array_equal(metrics.mse(np.zeros((2, 2)), labels), [np.nan, 2.5])
    np.testing.assert_array_equal(metrics.mae(np.zeros((2, 2)), labels), [np.nan, 1.5])


@pytest.mark.parametrize("metric", [icc3_1, metrics.mse, metrics.mae])
def test_intensity_metrics_refuse_nan_predictions_and_unlike_shapes(metric):
    with pytest.raises(ValueError, match="NaN"):
        metric([[np.nan], [1]], [[1], [1]])
    with pytest.raises(ValueError, match="shape"):
        metric([[1], [1]], [[1]])


@pytest.mark.parametrize("values", [3, 1000])  # with ties and without
def test_auc_is_that_of_sklearn(rng, values):
    scores, positives = rng.integers(0, values, 200), rng.random(200) < 0.3
    assert metrics.auc(scores, positives) == pytest.approx(roc_auc_score(positives, scores))


@pytest.mark.parametrize(
    ("scores", "positives", "message"),
    [([1, 2], [1, 1], "both classes"), ([1, 2], [0, 0], "both classes"), ([1], [1, 0], "shape"), ([np.nan, 1], [0, 1], "NaN"),
     ([1, 2], [0, 9], "unknown")],
)  # fmt: skip
def test_auc_refuses_what_has_no_area(scores, positives, message):
    with pytest.raises(ValueError, match=message):
        metrics.auc(scores, positives)


def test_mean_over_folds_weighs_folds_alike():
    per_label, mean = metrics.mean_over_folds([[0.2, 0.4], [0.4, 0.8], [0.6, 0.6]])
    np.testing.assert_allclose(per_label, [0.4, 0.6])
    assert mean == pytest.approx(0.5)
    for folds in ([], [[0.1], [0.1, 0.2]], [0.1, 0.2]):
        with pytest.raises(ValueError, match="folds"):
            metrics.mean_over_folds(folds)


def test_bootstrap_of_a_mean_is_the_normal_interval(rng):
    values = rng.normal(3, 2, 400)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(metrics.bootstrap_interval(values), [values.mean() - half, values.mean() + half], atol=0.04)
    assert metrics.bootstrap_interval(values, seed=1) == metrics.bootstrap_interval(values, seed=1)
    assert metrics.bootstrap_interval(values, seed=1) != metrics.bootstrap_interval(values, seed=2)


def test_bootstrap_of_f1_adds_the_counts_of_the_drawn_subjects():
    def f1(rows):
        return metrics.f1_from_counts(rows.sum(axis=0)).mean()

    good, bad = [[9], [1], [0]], [[0], [2], [8]]
    low, high = metrics.bootstrap_interval([good, bad], f1)
    assert low == 0
    assert high == pytest.approx(18 / 19)
    assert metrics.bootstrap_interval([good] * 5, f1) == pytest.approx((18 / 19, 18 / 19))


def test_bootstrap_needs_two_subjects():
    with pytest.raises(ValueError, match="two subjects"):
        metrics.bootstrap_interval([0.5])
