"""What the tasks make of logits and labels, and the losses of intensity and emotion against their
formulas."""

import numpy as np
import pytest
import torch

from norface_lib.tasks import losses
from norface_lib.tasks.metrics import ccc
from norface_lib.tasks.tasks import TASKS, Detection, Emotion, Intensity, balancing_weights, task_of

NAN = float("nan")


def test_tasks_are_found_by_name_and_refuse_unknown_losses():
    assert set(TASKS) == {"au_detection", "au_intensity", "emotion"}
    assert task_of("au_intensity", ("AU12",)).loss == "mse+ccc"
    assert task_of("emotion", ("a", "b"), "ce") == Emotion(("a", "b"))
    with pytest.raises(ValueError, match="task must be one of"):
        task_of("valence", ("v",))
    with pytest.raises(ValueError, match="no loss 'dice'"):
        task_of("au_intensity", ("AU12",), "mse+dice")


def test_predictions_are_in_their_range():
    logits = torch.tensor([[-9.0, 0.0, 9.0]])
    names = ("a", "b", "c")
    np.testing.assert_allclose(
        Detection(names).predictions(logits), [[0.000123, 0.5, 0.999877]], atol=1e-5
    )
    np.testing.assert_array_equal(Intensity(names).predictions(logits), [[0, 0, 5]])
    assert Emotion(names).predictions(logits).sum() == pytest.approx(1)


def test_scores_and_floors_by_hand():
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, NAN]], np.float32)
    task = Detection(("a", "b"))
    sums = task.sums(np.array([[0.9, 0.1], [0.1, 0.2], [0.1, 0.9], [0.2, 0.9]]), labels)
    np.testing.assert_allclose(task.per_label(sums), [2 / 3, 1])
    assert task.score(sums) == pytest.approx(5 / 6)
    assert task.constant_baseline(labels, labels) == pytest.approx((2 / 3 + 0.5) / 2)
    emotion = Emotion(("a", "b", "c"))
    classes = np.array([[0], [0], [0], [1], [NAN]], np.float32)
    sums = emotion.sums(np.eye(3)[[0, 0, 1, 1, 2]], classes)
    assert emotion.score(sums) == pytest.approx(3 / 4)
    np.testing.assert_allclose(emotion.per_label(sums), [2 / 3, 1, 0])
    assert emotion.further(sums)["class_mean_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert emotion.constant_baseline(classes, classes) == pytest.approx(3 / 4)


def test_balanced_sampling_draws_rare_classes_as_often():
    classes = np.repeat([0.0, 1.0, 2.0], [80, 15, 5])[:, None].astype(np.float32)
    weights = balancing_weights(Emotion(("a", "b", "c")), classes).numpy()
    shares = [weights[classes[:, 0] == k].sum() for k in range(3)]
    np.testing.assert_allclose(shares, 1 / 3)
    occurrences = np.zeros((100, 2), np.float32)
    occurrences[:40, 0], occurrences[:2, 1] = 1, 1
    weights = balancing_weights(Detection(("common", "rare")), occurrences).numpy()
    assert weights[:2].sum() > 0.3 and weights.sum() == pytest.approx(1)
    assert weights[0] == weights.max()


@pytest.fixture
def intensities():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, (40, 3)).astype(np.float32)
    predictions = labels + rng.normal(0.3, 1.0, labels.shape).astype(np.float32)
    labels[::7, 1] = NAN
    return torch.from_numpy(predictions), torch.from_numpy(labels)


def test_intensity_losses_are_their_formulas(intensities):
    x, y = intensities
    known = ~y.isnan()
    torch.testing.assert_close(losses.squared_error(x, y), (x - y)[known].square().mean())
    torch.testing.assert_close(
        losses.smooth_l1(x, y), torch.nn.functional.smooth_l1_loss(x[known], y[known])
    )
    assert losses.concordance(x, y).item() == pytest.approx(
        1 - ccc(x.numpy(), y.numpy()).mean(), abs=1e-5
    )
    written_out = [
        np.log1p(np.exp((-1 if level >= k - 0.5 else 1) * 2.0 * (value - (k - 0.5))))
        for value, level in zip(x[known].tolist(), y[known].tolist(), strict=True)
        for k in range(1, 6)
    ]
    assert losses.all_threshold(x, y).item() == pytest.approx(np.mean(written_out), rel=1e-5)


@pytest.mark.parametrize("name", losses.INTENSITY_LOSSES)
def test_intensity_losses_are_least_at_the_labels_and_leave_out_the_unknown(name, intensities):
    loss = losses.INTENSITY_LOSSES[name]
    x, y = intensities
    perfect = torch.where(y.isnan(), 2.0, y)
    assert loss(perfect, y) < loss(x, y)
    assert loss(perfect, y) < min(loss(perfect + off, y) for off in (-0.7, 0.7))
    changed = torch.where(y.isnan(), 1e6, x)
    torch.testing.assert_close(loss(changed, y), loss(torch.where(y.isnan(), 0.0, x), y))
    nothing = x.clone().requires_grad_()
    loss(nothing, torch.full_like(y, NAN)).backward()
    assert nothing.grad.abs().sum() == 0
    with pytest.raises(ValueError, match="one shape"):
        loss(x[:, :2], y)


def test_concordance_leaves_out_a_constant_label():
    y = torch.tensor([[0.0, 2.0], [0.0, 4.0]])
    x = torch.tensor([[5.0, 2.0], [3.0, 4.0]])
    assert losses.concordance(x, y).item() == pytest.approx(0, abs=1e-6)


def test_cross_entropy_is_smoothed_and_leaves_out_the_unknown():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0.0, 2.0, NAN, 9.0])
    wanted = torch.nn.functional.cross_entropy(
        logits[:2], torch.tensor([0, 2]), label_smoothing=0.1
    )
    torch.testing.assert_close(losses.smoothed_cross_entropy(logits, classes, 0.1), wanted)
    assert losses.smoothed_cross_entropy(logits, torch.full((4,), NAN)) == 0
