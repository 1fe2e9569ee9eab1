"""Losses of both networks, as plain functions on tensors; each names the source of its formula.

Rows are images (N), columns are labels (L), experts are the last axis (m). As in
`norface_lib.tasks.metrics`, a label that is NaN or 9 is unknown and is left out.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from norface_lib.labels import UNKNOWN


def au_weights(rates: Tensor | Sequence[float]) -> Tensor:
    """Weights w_i = n (1 / r_i) / sum_j (1 / r_j) of AUs that occur at rates r (L,) in (0, 1] ->
    (L,) of mean 1.

    JAA-Net and ME-GraphAU (PAPER.md 4); the rates are those of the training folds. Raises
    ``ValueError`` for a rate outside (0, 1]: an AU that never occurs in training cannot be learned.
    """
    rates = torch.as_tensor(rates, dtype=torch.float32)
    if not ((rates > 0) & (rates <= 1)).all():
        raise ValueError(f"occurrence rates must be within (0, 1], got {rates.tolist()}")
    return rates.reciprocal() / rates.reciprocal().mean()


def weighted_bce(
    logits: Tensor, labels: Tensor, weights: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean of w_i BCE (PAPER.md 4): logits (N, L), labels (N, L) in [0, 1], weights (L,) -> scalar.

    The mean is over known labels, and 0 if there is none. ``mask`` (N, L) of bool leaves out more
    where it is False. Raises ``ValueError`` if shapes differ.
    """
    known, labels = _known(logits, labels, mask)
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
    return _weighted_mean(loss, weights, known)


def weighted_asymmetric(
    logits: Tensor, labels: Tensor, weights: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean of -w_i [y log p + (1 - y) p log(1 - p)] with no gradient through the factor p:
    ME-GraphAU (PAPER.md 4).

    An absent AU counts only as far as the network believes in it, so the many easy negatives do not
    dominate the few positives. Arguments, mask and errors are those of `weighted_bce`.
    """
    known, labels = _known(logits, labels, mask)
    logits = logits.float()
    # log p and log(1 - p) from the logits, so that neither ends in log 0
    present = labels * F.logsigmoid(logits)
    absent = (1 - labels) * logits.sigmoid().detach() * F.logsigmoid(-logits)
    return _weighted_mean(-present - absent, weights, known)


def weighted_dice(
    logits: Tensor, labels: Tensor, weights: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean over labels of w_i [1 - (2 sum p y + 1) / (sum p^2 + sum y^2 + 1)], sums over the batch:
    JAA-Net (PAPER.md 4).

    A soft F1: an AU that is never predicted costs nearly all of its weight, however rare it is, so
    a threshold of 0.5 suits F1, which it does not after cross entropy. Needs batches that hold some
    of each AU. JAA-Net's code divides by the batch size once more, which is not copied. Arguments,
    mask and errors are those of `weighted_bce`.
    """
    known, labels = _known(logits, labels, mask)
    p = logits.float().sigmoid() * known
    overlap = (p * labels).sum(dim=0)
    sizes = (p.square() + labels.square()).sum(dim=0)
    loss = 1 - (2 * overlap + 1) / (sizes + 1)
    return _weighted_mean(loss[None], weights, known.any(dim=0, keepdim=True))


DETECTION_LOSSES = {"bce": weighted_bce, "asymmetric": weighted_asymmetric, "dice": weighted_dice}
"""Losses of AU detection by name."""


def squared_error(predictions: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of intensities: predictions (N, L), labels (N, L) in 0..5 -> scalar, over
    known labels."""
    known, labels = _known(predictions, labels, None)
    return _mean((predictions.float() - labels).square(), known)


def smooth_l1(predictions: Tensor, labels: Tensor) -> Tensor:
    """Squared below a difference of one level, linear above (Huber 1964): predictions and labels
    (N, L) -> scalar."""
    known, labels = _known(predictions, labels, None)
    return _mean(F.smooth_l1_loss(predictions.float(), labels, reduction="none"), known)


def concordance(predictions: Tensor, labels: Tensor) -> Tensor:
    """1 - CCC over the batch (Lin 1989), the mean over labels that vary: predictions and labels (N,
    L) -> scalar.

    It measures agreement in scale and offset, which ICC rewards, and needs batches that hold some
    of each AU. 0 if no label varies.
    """
    known, labels = _known(predictions, labels, None)
    count = known.sum(dim=0).clamp(min=1)
    values = torch.where(known, predictions.float(), 0)
    x = values.sum(dim=0) / count
    y = labels.sum(dim=0) / count
    dx = (values - x) * known
    dy = (labels - y) * known
    spread = dy.square().sum(dim=0)
    whole = dx.square().sum(dim=0) + spread + count * (x - y).square()
    varies = spread > 1e-6
    ccc = 2 * (dx * dy).sum(dim=0) / whole.clamp(min=1e-6)
    return _mean(1 - ccc, varies)


def all_threshold(predictions: Tensor, labels: Tensor, steepness: float = 2.0) -> Tensor:
    """Ordinal regression: a logistic loss at each border between two levels (all-threshold, Rennie
    and Srebro 2005).

    predictions x and labels y (N, L) in 0..5 -> scalar. The borders stand at 0.5, 1.5, .. 4.5, so
    that x is an intensity: level k is reached with probability sigmoid(steepness (x - k + 1/2)).
    """
    known, labels = _known(predictions, labels, None)
    levels = torch.arange(1, 6, device=labels.device)
    side = torch.where(labels[..., None] >= levels - 0.5, 1.0, -1.0)
    loss = F.softplus(-side * steepness * (predictions.float()[..., None] - levels + 0.5))
    return _mean(loss.mean(dim=-1), known)


INTENSITY_LOSSES = {
    "mse": squared_error,
    "smooth_l1": smooth_l1,
    "ccc": concordance,
    "ordinal": all_threshold,
}
"""Losses of AU intensity by name."""


def smoothed_cross_entropy(logits: Tensor, classes: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross entropy against labels that give ``smoothing`` to all classes alike (Szegedy et al.
    2016): (N, C), (N,) -> scalar.

    Classes are numbers 0..C-1, or NaN or 9 where unknown, which are left out; 0 if none is known.
    """
    known = ~classes.isnan() & (classes != UNKNOWN)
    targets = torch.where(known, classes, 0).long()
    loss = F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)
    return _mean(loss, known)


EMOTION_LOSSES = {"ce": smoothed_cross_entropy}
"""Losses of emotion recognition by name."""


def parts_of(name: str, known: Mapping[str, Callable[..., Tensor]]) -> list[str]:
    """The parts of a sum of losses, ``bce+dice``. Raises ``ValueError`` for one that is not in
    ``known``."""
    parts = name.split("+")
    if unknown := [part for part in parts if part not in known]:
        raise ValueError(
            f"no loss {', '.join(map(repr, unknown))}; there are {', '.join(known)}, and sums with "
            "+"
        )
    return parts


def summed(name: str, known: Mapping[str, Callable[..., Tensor]]) -> Callable[..., Tensor]:
    """The loss of a name of ``known``, or the sum of several, as ``bce+dice`` (JAA-Net). Errors as
    of `parts_of`."""
    parts = parts_of(name, known)
    return lambda *arguments: sum(known[part](*arguments) for part in parts)


def _mean(loss: Tensor, known: Tensor) -> Tensor:
    """Mean where known, 0 if nowhere."""
    return (loss * known).sum() / known.sum().clamp(min=1)


def _known(logits: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mask of labels that count (N, L), and the labels with 0 elsewhere: NaN times 0 would still be
    NaN."""
    shapes = [tuple(tensor.shape) for tensor in (logits, labels, mask) if tensor is not None]
    if logits.ndim != 2 or len(set(shapes)) > 1:
        raise ValueError(f"logits, labels and mask must share one shape (N, L), got {shapes}")
    known = ~labels.isnan() & (labels != UNKNOWN)
    known = known if mask is None else known & mask.bool()
    return known, torch.where(known, labels, 0).float()


def _weighted_mean(loss: Tensor, weights: Tensor, known: Tensor) -> Tensor:
    if weights.shape != loss.shape[1:]:
        raise ValueError(
            f"weights must have shape {tuple(loss.shape[1:])}, one for each label, got "
            f"{tuple(weights.shape)}"
        )
    return (loss * weights * known).sum() / known.sum().clamp(min=1)
