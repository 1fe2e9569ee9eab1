"""Losses of both networks, as plain functions on tensors; each names the source of its formula.

Rows are images (N), columns are labels (L), experts are the last axis (m). As in `norface_lib.metrics`, a label that is NaN or
9 is unknown and is left out.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from norface_lib.metrics import UNKNOWN


def au_weights(rates: Tensor | Sequence[float]) -> Tensor:
    """Weights w_i = n (1 / r_i) / sum_j (1 / r_j) of AUs that occur at rates r (L,) in (0, 1] -> (L,) of mean 1.

    JAA-Net and ME-GraphAU (PAPER.md 4); the rates are those of the training folds. Raises ``ValueError`` for a rate outside
    (0, 1]: an AU that never occurs in training cannot be learned.
    """
    rates = torch.as_tensor(rates, dtype=torch.float32)
    if not ((rates > 0) & (rates <= 1)).all():
        raise ValueError(f"occurrence rates must be within (0, 1], got {rates.tolist()}")
    return rates.reciprocal() / rates.reciprocal().mean()


def weighted_bce(logits: Tensor, labels: Tensor, weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of w_i BCE (PAPER.md 4): logits (N, L), labels (N, L) in [0, 1], weights (L,) -> scalar.

    The mean is over known labels, and 0 if there is none. ``mask`` (N, L) of bool leaves out more where it is False. Raises
    ``ValueError`` if shapes differ.
    """
    known, labels = _known(logits, labels, mask)
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
    return _weighted_mean(loss, weights, known)


def weighted_asymmetric(logits: Tensor, labels: Tensor, weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of -w_i [y log p + (1 - y) p log(1 - p)] with no gradient through the factor p: ME-GraphAU (PAPER.md 4).

    An absent AU counts only as far as the network believes in it, so the many easy negatives do not drown the few positives.
    Arguments, mask and errors are those of `weighted_bce`.
    """
    known, labels = _known(logits, labels, mask)
    logits = logits.float()
    # log p and log(1 - p) from the logits, so that neither ends in log 0
    loss = -labels * F.logsigmoid(logits) - (1 - labels) * logits.sigmoid().detach() * F.logsigmoid(-logits)
    return _weighted_mean(loss, weights, known)


def weighted_dice(logits: Tensor, labels: Tensor, weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over labels of w_i [1 - (2 sum p y + 1) / (sum p^2 + sum y^2 + 1)], sums over the batch: JAA-Net (PAPER.md 4).

    A soft F1: an AU that is never called costs nearly all of its weight, however rare it is, so a threshold of 0.5 suits F1 as
    it does not after cross entropy. Needs batches that hold some of each AU. JAA-Net's code divides by the batch size once
    more, which is not copied. Arguments, mask and errors are those of `weighted_bce`.
    """
    known, labels = _known(logits, labels, mask)
    p = logits.float().sigmoid() * known
    overlap, sizes = (p * labels).sum(dim=0), (p.square() + labels.square()).sum(dim=0)
    return _weighted_mean(1 - (2 * overlap + 1) / (sizes + 1)[None], weights, known.any(dim=0, keepdim=True))


DETECTION_LOSSES = {"bce": weighted_bce, "asymmetric": weighted_asymmetric, "dice": weighted_dice}
"""Losses of AU detection by name."""


def squared_error(predictions: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of intensities: predictions (N, L), labels (N, L) in 0..5 -> scalar, over known labels."""
    known, labels = _known(predictions, labels, None)
    return _mean((predictions.float() - labels).square(), known)


def smooth_l1(predictions: Tensor, labels: Tensor) -> Tensor:
    """Squared below a difference of one level, linear above (Huber 1964): predictions and labels (N, L) -> scalar."""
    known, labels = _known(predictions, labels, None)
    return _mean(F.smooth_l1_loss(predictions.float(), labels, reduction="none"), known)


def concordance(predictions: Tensor, labels: Tensor) -> Tensor:
    """1 - CCC over the batch (Lin 1989), the mean over labels that vary: predictions and labels (N, L) -> scalar.

    It sees agreement in scale and offset, which ICC rewards, and needs batches that hold some of each AU. 0 if no label varies.
    """
    known, labels = _known(predictions, labels, None)
    count = known.sum(dim=0).clamp(min=1)
    values = torch.where(known, predictions.float(), 0)
    x, y = values.sum(dim=0) / count, labels.sum(dim=0) / count
    dx, dy = (values - x) * known, (labels - y) * known
    spread = dy.square().sum(dim=0)
    whole = dx.square().sum(dim=0) + spread + count * (x - y).square()
    varies = spread > 1e-6
    ccc = 2 * (dx * dy).sum(dim=0) / whole.clamp(min=1e-6)
    return _mean(1 - ccc, varies)


def all_threshold(predictions: Tensor, labels: Tensor, steepness: float = 2.0) -> Tensor:
    """Ordinal regression: a logistic loss at each border between two levels (all-threshold, Rennie and Srebro 2005).

    predictions x and labels y (N, L) in 0..5 -> scalar. The borders stand at 0.5, 1.5, .. 4.5, so that x is an intensity: level
    k is reached with probability sigmoid(steepness (x - k + 1/2)).
    """
    known, labels = _known(predictions, labels, None)
    levels = torch.arange(1, 6, device=labels.device)
    side = torch.where(labels[..., None] >= levels - 0.5, 1.0, -1.0)
    loss = F.softplus(-side * steepness * (predictions.float()[..., None] - levels + 0.5))
    return _mean(loss.mean(dim=-1), known)


INTENSITY_LOSSES = {"mse": squared_error, "smooth_l1": smooth_l1, "ccc": concordance, "ordinal": all_threshold}
"""Losses of AU intensity by name."""


def smoothed_cross_entropy(logits: Tensor, classes: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross entropy against labels that give ``smoothing`` to all classes alike (Szegedy et al. 2016): (N, C), (N,) -> scalar.

    Classes are numbers 0..C-1, or NaN or 9 where unknown, which are left out; 0 if none is known.
    """
    known = ~classes.isnan() & (classes != UNKNOWN)
    wanted = torch.where(known, classes, 0).long()
    return _mean(F.cross_entropy(logits.float(), wanted, reduction="none", label_smoothing=smoothing), known)


EMOTION_LOSSES = {"ce": smoothed_cross_entropy}
"""Losses of emotion recognition by name."""


def parts_of(name: str, known: Mapping[str, Callable[..., Tensor]]) -> list[str]:
    """The parts of a sum of losses, ``bce+dice``. Raises ``ValueError`` for one that is not in ``known``."""
    parts = name.split("+")
    if unknown := [part for part in parts if part not in known]:
        raise ValueError(f"no loss {', '.join(map(repr, unknown))}; there are {', '.join(known)}, and sums with +")
    return parts


def summed(name: str, known: Mapping[str, Callable[..., Tensor]]) -> Callable[..., Tensor]:
    """The loss of a name of ``known``, or the sum of several, as ``bce+dice`` (JAA-Net). Errors as of `parts_of`."""
    parts = parts_of(name, known)
    return lambda *arguments: sum(known[part](*arguments) for part in parts)


def _mean(loss: Tensor, known: Tensor) -> Tensor:
    """Mean where known, 0 if nowhere."""
    return (loss * known).sum() / known.sum().clamp(min=1)


def _known(logits: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where labels count (N, L), and the labels with 0 elsewhere: NaN times 0 would still be NaN."""
    if logits.ndim != 2 or any(tensor.shape != logits.shape for tensor in (labels, mask) if tensor is not None):
        shapes = [tuple(tensor.shape) for tensor in (logits, labels, mask) if tensor is not None]
        raise ValueError(f"logits, labels and mask must share one shape (N, L), got {shapes}")
    known = ~labels.isnan() & (labels != UNKNOWN)
    known = known if mask is None else known & mask.bool()
    return known, torch.where(known, labels, 0).float()


def _weighted_mean(loss: Tensor, weights: Tensor, known: Tensor) -> Tensor:
    if weights.shape != loss.shape[1:]:
        raise ValueError(f"weights must have shape {tuple(loss.shape[1:])}, one for each label, got {tuple(weights.shape)}")
    return (loss * weights * known).sum() / known.sum().clamp(min=1)


def importance(gates: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' summed gates (Shazeer et al. 2017, eq. 6-7): gates (N, m) -> scalar.

    0 if all experts weigh the same over the batch, m - 1 if one takes all. Gates per label (N, L, m) give the mean over labels.
    """
    return _squared_variation(gates.sum(dim=0))


def load(probabilities: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' load (Shazeer et al. 2017, eq. 10-11), else as `importance`.

    probabilities (N, m) or (N, L, m) of each expert to be chosen: `selection_probability`, which has a gradient as a count of
    samples has not.
    """
    return _squared_variation(probabilities.sum(dim=0))


def _squared_variation(sums: Tensor) -> Tensor:
    """Variance over squared mean along the last axis (..., m), then the mean of all."""
    return (sums.var(dim=-1, correction=0) / (sums.mean(dim=-1).square() + 1e-10)).mean()


def selection_probability(clean: Tensor, noisy: Tensor, noise: Tensor, top_k: int) -> Tensor:
    """Chance of each expert to be among the k best if its own noise were drawn anew (Shazeer et al. 2017, eq. 8-9).

    P_i = Phi((clean_i - k-th largest of the other noisy logits) / noise_i), with logits ``clean`` and ``noisy`` and the
    standard deviation ``noise`` > 0, all (..., m) -> (..., m) in [0, 1]. All 1 for k = m.
    """
    if top_k == clean.shape[-1]:
        return torch.ones_like(clean)
    best = noisy.topk(top_k + 1, dim=-1).values
    last_in, first_out = best[..., -2:].split(1, dim=-1)
    # the k-th largest of the others: who is in must stay above the first that is out, who is out must pass the last that is in
    return torch.special.ndtr((clean - torch.where(noisy > first_out, first_out, last_in)) / noise)


def weighted_l1(prediction: Tensor, target: Tensor, weight_map: Tensor, softness: float = 0.0) -> Tensor:
    """Weighted mean of |prediction - target|: images (N, C, H, W), weight map (1 or N, 1, H, W) >= 0 -> scalar.

    Divided by the sum of weights, so only their ratios count (our choice). ``softness`` s makes it sqrt(d^2 + s^2) - s
    (Charbonnier et al. 1994): squared for differences below s, so that what is in doubt is drawn half-way and not left out.
    Raises ``ValueError`` if shapes differ.
    """
    _same_images(prediction, target)
    if weight_map.shape[1:] != (1, *target.shape[2:]) or weight_map.shape[0] not in (1, len(target)):
        raise ValueError(f"no weight map for images {tuple(target.shape)}: {tuple(weight_map.shape)}")
    weights = weight_map.expand_as(target)
    error = prediction - target
    error = (error.square() + softness**2).sqrt() - softness if softness else error.abs()
    return (weights * error).sum() / weights.sum().clamp(min=1e-8)


def gradient_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of neighboring-pixel differences, across plus down: images (N, C, H, W) -> scalar.

    Asks for edges where the target has them (gradient difference loss, Mathieu et al. 2016, with the sign kept: our choice).
    Raises ``ValueError`` if shapes differ.
    """
    _same_images(prediction, target)
    error = prediction - target
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def _same_images(prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim != 4 or prediction.shape != target.shape:
        raise ValueError(f"images must share one shape (N, C, H, W), got {tuple(prediction.shape)} and {tuple(target.shape)}")


def perceptual_loss(features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
    """Distance of what a frozen network sees in two sets of images: maps (N, C, H, W) of some layers -> scalar >= 0.

    The maps of Johnson et al. 2016, compared as LPIPS does (Zhang et al. 2018) without its learned weights: the channels of
    each place are scaled to length 1, and their squared differences are summed. 0 if they point alike, 2 if they are
    orthogonal. The mean over layers, where LPIPS sums, keeps its size from growing with their number: our choice. Raises
    ``ValueError`` if there is no map or if shapes differ.
    """
    shapes = [[tuple(maps.shape) for maps in features] for features in (features_a, features_b)]
    if not shapes[0] or shapes[0] != shapes[1]:
        raise ValueError(f"two lists of maps (N, C, H, W) of the same shapes are needed, got {shapes[0]} and {shapes[1]}")
    layers = [
        (F.normalize(a.float(), dim=1, eps=1e-8) - F.normalize(b.float(), dim=1, eps=1e-8)).square().sum(dim=1).mean()
        for a, b in zip(features_a, features_b, strict=True)
    ]
    return torch.stack(layers).mean()


def embedding_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean of 1 - cosine of embeddings (N, D) and (N or 1, D) -> scalar in [0, 2].

    The identity loss of face swapping with ArcFace embeddings (FaceShifter, Li et al. 2020); used for expressions as well, our
    choice. Raises ``ValueError`` if shapes differ.
    """
    if a.ndim != 2 or b.shape not in (a.shape, (1, *a.shape[1:])):
        raise ValueError(f"embeddings must have shapes (N, D) and (N or 1, D), got {tuple(a.shape)} and {tuple(b.shape)}")
    return (1 - F.cosine_similarity(a.float(), b.float(), dim=1)).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean of max(0, 1 - D(real)) plus mean of max(0, 1 + D(fake)) (Lim and Ye 2017): logits of any shape -> scalar >= 0."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Mean of -D(fake) (Lim and Ye 2017): logits of any shape -> scalar, which a generator minimizes."""
    return -fake.mean()


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """Half the mean squared length of the gradient of D at real images (Mescheder et al. 2018, R1 with gamma = 1) -> scalar.

    ``real_logits`` (N, ...) were computed from ``real_images`` (N, C, H, W), which need ``requires_grad``. D of an image is the
    mean of its patches' logits, so that the penalty does not depend on their number: our choice. No image may reach another's
    logits, as batch normalization would let it. Raises ``ValueError`` for images without a gradient.
    """
    if not real_images.requires_grad:
        raise ValueError("the real images need requires_grad before the discriminator sees them")
    scores = real_logits.float().flatten(1).mean(dim=1).sum()
    (gradient,) = torch.autograd.grad(scores, real_images, create_graph=True)
    return 0.5 * gradient.flatten(1).square().sum(dim=1).mean()
