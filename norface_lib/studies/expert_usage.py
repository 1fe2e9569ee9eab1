"""What the experts of a trained classifier are used for: how evenly, how decidedly, and whether for
different faces.

Shapes: N faces, L labels, m experts.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from norface_lib.common.devices import evaluation_precision
from norface_lib.common.sharing import of_all, share_of
from norface_lib.datasets.pairs import AnyPairs, EmbeddedPairs, Pairs, versions_of
from norface_lib.networks.classifier import Classifier
from norface_lib.training.classifier import inputs_of
from norface_lib.training.loader import in_order


@torch.inference_mode()
def gates_of(
    model: Classifier, pairs: Pairs | EmbeddedPairs, rows: NDArray[np.intp], batch_size: int = 128
) -> dict[str, NDArray[np.float32]]:
    """Gates of some rows for each mixture that is on: ``input`` (N, m), ``output`` (N, L, m).
    Processes share the batches, and each gets all gates."""
    device = next(model.parameters()).device
    learner = pairs.learner(model)
    gates: list[dict[str, NDArray[np.float32]]] = []
    for batch in share_of(in_order(len(rows), batch_size)):
        with evaluation_precision(device):
            output = learner(*inputs_of(pairs[rows[batch]], device))
        gatings = {"input": output.input_gating, "output": output.output_gating}
        mixtures = {name: gating for name, gating in gatings.items() if gating is not None}
        gates.append({name: of.gates.float().cpu().numpy() for name, of in mixtures.items()})
    gates = of_all(gates)
    return {name: np.concatenate([part[name] for part in gates]) for name in gates[0]}


def usage(gates: NDArray[np.float32], labels: NDArray[np.float32], seed: int = 0) -> dict[str, Any]:
    """How the experts are used, from gates (N, m) and labels (N, L), for a result file. Gates count
    as shares of a face's sum; faces without an expert are left out.

    ``shares``: mean gate of each expert. ``experts_in_use``: exp of the entropy of these, from 1
    (one expert does all) to m (all do alike). ``experts_of_a_face``: the same within a face, its
    mean. ``specialization``: what a face tells of its expert (mutual information), as a share of
    log m: 0 if all faces are treated alike. ``label_correlation``: the largest correlation of a
    gate with a label; ``chance``: the same where labels are shuffled.
    """
    gates = gates.astype(float)
    total = gates.sum(axis=1, keepdims=True)
    if total.any():  # where experts choose, a face may have none
        served = total[:, 0] > 0
        gates, labels = gates[served] / total[served], labels[served]
    shares = gates.mean(axis=0)
    within = float(np.mean(_entropy(gates)))
    all_in_all = float(_entropy(shares))
    most = np.log(gates.shape[1]) or 1.0
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return {
        "shares": shares.round(4).tolist(),
        "experts_in_use": float(np.exp(all_in_all)),
        "experts_of_a_face": float(np.exp(within)),
        "specialization": max(0.0, all_in_all - within) / most,
        "label_correlation": _largest_correlation(gates, labels),
        "chance": _largest_correlation(gates, labels[shuffled]),
    }


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in nats of shares (..., m) that sum to 1."""
    safe = np.where(shares > 0, shares, 1.0)
    return -(shares * np.log(safe)).sum(axis=-1)


def _largest_correlation(gates: NDArray[np.float64], labels: NDArray[np.float32]) -> float:
    """The largest absolute correlation of a gate (N, m) with a label (N, L); what is constant has
    none."""
    correlations = _centered_to_length_1(gates).T @ _centered_to_length_1(labels.astype(float))
    return float(np.abs(correlations).max())


def _centered_to_length_1(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns (N, C) less their means, over their lengths; 0 for constant ones and for NaN."""
    centered = columns - np.nanmean(columns, axis=0)
    length = np.sqrt(np.nansum(centered**2, axis=0))
    return np.nan_to_num(centered / np.where(length > 1e-9, length, np.inf))


def usage_of(model: Classifier, pairs: AnyPairs, rows: NDArray[np.intp]) -> dict[str, Any]:
    """`usage` of each mixture of a classifier that is on: of the output mixture the mean over its
    labels, each with its own gate; of several identities, beside the first."""
    pairs = versions_of(pairs)[0]
    labels = pairs.labels[rows]
    if labels.shape[1] == 1:  # a class, as emotions are
        labels = (labels == np.unique(labels)).astype(np.float32)
    usage_by_mixture = {}
    for name, gates in gates_of(model, pairs, rows).items():
        gates = gates[:, None] if gates.ndim == 2 else gates
        usages = [usage(gates[:, number], labels) for number in range(gates.shape[1])]
        usage_by_mixture[name] = {key: _mean([one[key] for one in usages]) for key in usages[0]}
    return usage_by_mixture


def _mean(values: list[Any]) -> Any:
    return np.mean(values, axis=0).round(4).tolist()
