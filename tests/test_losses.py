"""Losses against their formulas written out, against published weights, and at extreme logits."""

import numpy as np
import pytest
import torch

from norface_lib.networks import mixtures
from norface_lib.tasks import losses
from norface_lib.training import image_losses

# PAPER.md 2.1: occurrence rates (%) of the folds P1, P2, P3 and their numbers of frames; section 4:
# the weights of ME-GraphAU
RATES = np.array(
    [
        [16.4, 16.1, 19.9, 41.5, 59.0, 57.7, 55.9, 40.0, 15.1, 31.8, 15.9, 14.0],
        [20.3, 13.1, 19.6, 46.4, 55.1, 55.7, 52.2, 51.3, 20.0, 36.6, 17.3, 15.7],
        [27.1, 22.4, 21.3, 50.8, 50.3, 65.3, 60.9, 48.8, 15.6, 34.8, 16.5, 15.9],
    ]
)
FRAMES = np.array([50_631, 50_182, 46_034])
PUBLISHED = [
    [1.133, 1.520, 1.309, 0.552, 0.507, 0.443, 0.474, 0.535, 1.496, 0.750, 1.583, 1.699],
    [1.191, 1.337, 1.247, 0.559, 0.468, 0.418, 0.440, 0.582, 1.670, 0.774, 1.586, 1.727],
    [1.343, 1.690, 1.248, 0.561, 0.433, 0.436, 0.457, 0.541, 1.408, 0.723, 1.493, 1.667],
]


@pytest.mark.parametrize("tested", [0, 1, 2])
def test_au_weights_are_the_published_ones(tested):
    trained = [fold for fold in range(3) if fold != tested]
    weights = losses.au_weights(np.average(RATES[trained], axis=0, weights=FRAMES[trained]) / 100)
    np.testing.assert_allclose(weights, PUBLISHED[tested], atol=0.02)
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_au_weights_refuse_a_rate_that_cannot_be(rate):
    with pytest.raises(ValueError, match="occurrence rates"):
        losses.au_weights([0.5, rate])


@pytest.fixture
def batch():
    """Logits (6, 3), labels, weights (3,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (6, 3), generator=generator).float()
    return (
        torch.randn(6, 3, generator=generator, requires_grad=True),
        labels,
        torch.tensor([0.5, 1.0, 1.5]),
    )


def written_out(logits, labels, weights, factor):
    """-w [y log p + (1 - y) factor log(1 - p)], without regard to stability."""
    p = logits.sigmoid()
    return -weights * (labels * p.log() + (1 - labels) * factor * (1 - p).log())


def factor_of(loss, logits):
    """What stands before log(1 - p) in each of the two losses."""
    return logits.sigmoid().detach() if loss is losses.weighted_asymmetric else torch.ones(())


both = pytest.mark.parametrize("loss", [losses.weighted_bce, losses.weighted_asymmetric])


@both
def test_label_losses_and_their_gradients_are_their_formulas(loss, batch):
    logits, labels, weights = batch
    expected = written_out(logits, labels, weights, factor_of(loss, logits)).mean()
    torch.testing.assert_close(loss(*batch), expected)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss(*batch), expected)]
    torch.testing.assert_close(*gradients)


@both
def test_label_losses_leave_out_the_unknown(loss, batch):
    logits, labels, weights = batch
    mask = torch.ones_like(labels, dtype=torch.bool)
    mask[2, 1] = False
    unknown = labels.clone()
    unknown[0, 0], unknown[5, 2] = 9, float("nan")
    kept = mask.clone()
    kept[0, 0] = kept[5, 2] = False
    value = loss(logits, unknown, weights, mask)
    torch.testing.assert_close(
        value, written_out(logits, labels, weights, factor_of(loss, logits))[kept].mean()
    )
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.equal(gradient != 0, kept)


@both
def test_label_losses_are_finite_at_extreme_logits_and_zero_if_all_is_unknown(loss):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    value = loss(logits, torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.ones(2))
    torch.testing.assert_close(value, torch.tensor(5000.0))
    assert torch.autograd.grad(value, logits)[0].isfinite().all()
    assert loss(logits, torch.full((2, 2), float("nan")), torch.ones(2)) == 0


def test_dice_is_its_formula_over_the_batch(batch):
    logits, labels, weights = batch
    p = logits.sigmoid()
    dice = (2 * (p * labels).sum(0) + 1) / ((p**2).sum(0) + (labels**2).sum(0) + 1)
    torch.testing.assert_close(losses.weighted_dice(*batch), (weights * (1 - dice)).mean())


def test_dice_leaves_out_the_unknown_and_labels_without_a_known_row(batch):
    logits, labels, weights = batch
    unknown = labels.clone()
    unknown[2, 0], unknown[:, 1] = 9, float("nan")
    kept = torch.tensor([True, True, False, True, True, True])
    first = losses.weighted_dice(logits[kept][:, :1], labels[kept][:, :1], weights[:1])
    last = losses.weighted_dice(logits[:, 2:], labels[:, 2:], weights[2:])
    value = losses.weighted_dice(logits, unknown, weights)
    torch.testing.assert_close(value, (first + last) / 2)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.equal(
        gradient != 0, torch.stack([kept, torch.zeros(6).bool(), torch.ones(6).bool()], dim=1)
    )
    assert losses.weighted_dice(logits, torch.full_like(labels, 9.0), weights) == 0


def test_dice_puts_a_rare_label_above_one_half_where_cross_entropy_does_not():
    """A label that is there in every third face, and nothing to see: calling all is the best F1,
    the rate the best BCE."""
    labels = (torch.arange(300) % 3 == 0).float()[:, None]
    for name, above in (("dice", True), ("bce", False)):
        logit = torch.zeros(1, 1, requires_grad=True)
        losses.summed(name, losses.DETECTION_LOSSES)(
            logit.expand(300, 1), labels, torch.ones(1)
        ).backward()
        assert (logit.grad.item() < 0) == above


def test_losses_are_found_by_name_and_added(batch):
    parts = losses.weighted_bce(*batch) + losses.weighted_dice(*batch)
    torch.testing.assert_close(losses.summed("bce+dice", losses.DETECTION_LOSSES)(*batch), parts)
    assert losses.summed("asymmetric", losses.DETECTION_LOSSES)(
        *batch
    ) == losses.weighted_asymmetric(*batch)
    with pytest.raises(ValueError, match="no loss 'focal'; there are bce, asymmetric, dice"):
        losses.summed("bce+focal", losses.DETECTION_LOSSES)


@pytest.mark.parametrize("loss", losses.DETECTION_LOSSES.values())
def test_label_losses_refuse_unlike_shapes(loss, batch):
    logits, labels, weights = batch
    with pytest.raises(ValueError, match="share one shape"):
        loss(logits, labels[:3], weights)
    with pytest.raises(ValueError, match="share one shape"):
        loss(logits, labels, weights, torch.ones(6, 1))
    with pytest.raises(ValueError, match="weights"):
        loss(logits, labels, weights[:2])


@pytest.mark.parametrize("balance", [mixtures.importance, mixtures.load])
def test_balance_is_zero_if_even_and_grows_to_experts_minus_one(balance):
    even, collapsed = torch.full((8, 4), 0.25), torch.eye(4)[[1] * 8]
    values = [balance(torch.lerp(even, collapsed, amount)).item() for amount in (0, 0.3, 0.6, 1)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values == sorted(values)
    assert values[-1] == pytest.approx(3)
    # each sample chooses, the batch is even
    assert balance(torch.eye(4).repeat(2, 1)) == pytest.approx(0)
    assert balance(torch.stack([even, collapsed], dim=1)) == pytest.approx(1.5)  # mean over labels


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_selection_probability_is_how_often_new_noise_selects(top_k):
    torch.manual_seed(0)
    clean, noise = torch.randn(4), torch.rand(4) + 0.3
    noisy = clean + noise * torch.randn(4)
    redrawn = noisy.repeat(4, 20_000, 1)  # expert, draw, logit
    for expert in range(4):
        redrawn[expert, :, expert] = clean[expert] + noise[expert] * torch.randn(20_000)
    chosen = (
        torch.zeros_like(redrawn)
        .scatter(-1, redrawn.topk(top_k).indices, 1.0)
        .mean(dim=1)
        .diagonal()
    )
    torch.testing.assert_close(
        mixtures.selection_probability(clean, noisy, noise, top_k), chosen, atol=0.015, rtol=0
    )


def test_selection_is_certain_if_all_are_kept():
    assert torch.equal(
        mixtures.selection_probability(torch.randn(5, 3), torch.randn(5, 3), torch.ones(5, 3), 3),
        torch.ones(5, 3),
    )


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 8, 8, generator=generator)


def test_weighted_l1_is_the_weighted_mean(images):
    prediction, target = images
    error = (prediction - target).abs()
    torch.testing.assert_close(
        image_losses.weighted_l1(*images, torch.full((1, 1, 8, 8), 7.0)), error.mean()
    )
    half = torch.zeros(2, 1, 8, 8)
    half[1, :, :4] = 2
    torch.testing.assert_close(image_losses.weighted_l1(*images, half), error[1, :, :4].mean())
    assert image_losses.weighted_l1(*images, torch.zeros(1, 1, 8, 8)) == 0


def test_a_soft_l1_squares_small_differences_and_keeps_large_ones():
    even, zero = torch.ones(1, 1, 4, 4), torch.zeros(1, 3, 4, 4)
    small, large = (
        float(image_losses.weighted_l1(zero + size, zero, even, softness=0.05))
        for size in (0.001, 1.0)
    )
    assert small == pytest.approx(0.001**2 / (2 * 0.05), rel=1e-2)
    assert large == pytest.approx(1.0 - 0.05, abs=2e-3)


def test_gradient_l1_sees_edges_and_no_offset(images):
    prediction, target = images
    assert image_losses.gradient_l1(target + 0.3, target) == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 3, 8, 8)
    step[..., 4:] = 1  # one edge among 7 columns of differences
    assert image_losses.gradient_l1(step, torch.zeros_like(step)) == pytest.approx(1 / 7)
    torch.testing.assert_close(
        image_losses.gradient_l1(prediction, target),
        image_losses.gradient_l1(prediction.mT, target.mT),
    )


def test_image_losses_refuse_unlike_shapes(images):
    prediction, target = images
    with pytest.raises(ValueError, match="one shape"):
        image_losses.gradient_l1(prediction, target[:1])
    with pytest.raises(ValueError, match="one shape"):
        image_losses.weighted_l1(prediction[:1], target, torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match="weight map"):
        image_losses.weighted_l1(prediction, target, torch.ones(1, 3, 8, 8))


@pytest.fixture
def maps():
    """Maps of two layers of two images, twice."""
    generator = torch.Generator().manual_seed(0)
    return [
        [torch.randn(2, 5, side, side, generator=generator) for side in (4, 2)] for _ in range(2)
    ]


def test_perceptual_loss_is_its_formula_written_out(maps):
    layers = []
    for a, b in zip(*maps, strict=True):
        places = [
            sum((a[n, :, y, x] / a[n, :, y, x].norm() - b[n, :, y, x] / b[n, :, y, x].norm()) ** 2)
            for n in range(2)
            for y in range(a.shape[2])
            for x in range(a.shape[3])
        ]
        layers.append(sum(places) / len(places))
    torch.testing.assert_close(image_losses.perceptual_loss(*maps), sum(layers) / 2)


def test_perceptual_loss_knows_directions_alone():
    one, other = torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 3, 3)
    one[:, 0], other[:, 1] = 3.0, 0.2
    assert image_losses.perceptual_loss([one], [7 * one]) == pytest.approx(0, abs=1e-6)
    assert image_losses.perceptual_loss([one], [other]) == pytest.approx(2)
    # 4 in one layer, 0 in the other
    assert image_losses.perceptual_loss([one, one], [-one, one]) == pytest.approx(2)
    # where a network sees nothing there is no direction, and no NaN
    dark = torch.zeros(1, 4, 3, 3, requires_grad=True)
    image_losses.perceptual_loss([dark], [other]).backward()
    assert dark.grad.isfinite().all()


def test_perceptual_loss_refuses_unlike_maps(maps):
    for unlike in ([], maps[1][:1], maps[1][::-1]):
        with pytest.raises(ValueError, match="same shapes"):
            image_losses.perceptual_loss(maps[0], unlike)
    with pytest.raises(ValueError, match="same shapes"):
        image_losses.perceptual_loss([], [])


def test_embedding_distance_is_one_minus_cosine():
    a = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert image_losses.embedding_distance(a, 5 * a) == pytest.approx(0, abs=1e-6)
    assert image_losses.embedding_distance(a, -a) == pytest.approx(2)
    target = torch.tensor([[1.0, 0.0]])  # one target for all: cosines 1, 0 and 1 / sqrt 2
    assert image_losses.embedding_distance(a, target) == pytest.approx(1 - (1 + 0.5**0.5) / 3)
    for unlike in (a[:2], a[:, :1], a[0]):
        with pytest.raises(ValueError, match=r"\(N or 1, D\)"):
            image_losses.embedding_distance(a, unlike)


def test_hinge_losses_at_logits_computed_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0, 1.0]), torch.tensor([-3.0, 0.5])
    assert image_losses.hinge_discriminator(real, fake) == pytest.approx(
        (0 + 0.5 + 2 + 0) / 4 + (0 + 1.5) / 2
    )
    assert image_losses.hinge_generator(fake) == pytest.approx(1.25)


def test_r1_is_the_gradients_length_and_can_be_minimized(images):
    """D(x) = <a, x> and patches b_p <a, x>: the gradient is a times the mean of b, whatever the
    image."""
    a, b = torch.randn(3, 8, 8, requires_grad=True), torch.tensor([1.0, 3.0])
    real = images[0].requires_grad_()
    logits = (real * a).sum(dim=(1, 2, 3))[:, None] * b
    penalty = image_losses.r1_penalty(logits, real)
    torch.testing.assert_close(penalty, 0.5 * 4 * a.square().sum())
    torch.testing.assert_close(torch.autograd.grad(penalty, a)[0], 4 * a)
    with pytest.raises(ValueError, match="requires_grad"):
        image_losses.r1_penalty(logits, images[1])
