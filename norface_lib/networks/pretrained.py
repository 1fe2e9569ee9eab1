"""Weights of other people's encoders for ours: masked autoencoders of faces or of photographs, and
timm's ViTs.

The paper starts from a masked autoencoder of millions of faces (PAPER.md 1.2). Read are

- pre-training checkpoints of facebookresearch/mae and of MAE-Face (Ma et al. 2022): ``{"model":
  weights}`` with a decoder,
- fine-tuned ones, which have a classification head in its place, and plain ViT weights of timm, as
  .pth, .pt or .safetensors,
- ``timm:NAME``, pre-trained weights that timm fetches.

All name their parts alike. Weights that our encoder has no place for are on a list here, with the
reason; every other difference is an error, because half an encoder would train without complaint
and give worse numbers. A backbone that is timm's own network
(`norface_lib.networks.encoder.TimmEncoder`) gets its weights here too, as strictly; timm fits its
positions.
"""

import argparse
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from norface_lib.common.errors import CheckpointError
from norface_lib.common.paths import no_file
from norface_lib.networks.encoder import FaceEncoder, TimmEncoder, create_timm

Weights = dict[str, Tensor]

UNUSED = {
    "cls_token": "class token: our encoder has none, its tokens are the patches",
    "mask_token": "decoder of masked autoencoding, which ends with pre-training",
    "decoder_": "decoder of masked autoencoding, which ends with pre-training",
    "head.": "classification head",
    "fc_norm.": "normalization of the classification head",
}
"""Beginnings of the names of weights that are left out, and why."""


@dataclass(frozen=True)
class LoadReport:
    """Counts of loaded and dropped weights of a file, and the changes that were made to them."""

    source: str
    loaded: int  # weights that went into the encoder: all that it has
    dropped: dict[str, int]  # how many were left out, by reason
    changed: tuple[str, ...]  # weights that did not go in as they were, and how

    def __str__(self) -> str:
        lines = [
            f"{self.source}: {self.loaded} weights loaded, {sum(self.dropped.values())} left out"
        ]
        lines += [f"  {count} left out: {reason}" for reason, count in self.dropped.items()]
        return "\n".join([*lines, *(f"  changed: {change}" for change in self.changed)])


def load_encoder_weights(encoder: FaceEncoder | TimmEncoder, source: str | Path) -> LoadReport:
    """Puts weights into every part of an encoder, or raises :class:`CheckpointError` and leaves it
    as it was.

    ``source``: a file, or ``timm:NAME``. The class token's position is cut off, and positions are
    resampled to the encoder's grid (bicubic). A file does not tell how many heads its network had.
    A `TimmEncoder` keeps its class token, and takes ``timm:NAME`` of its own name alone, as mean
    and std belong to the name.
    """
    if isinstance(encoder, TimmEncoder):
        return _load_timm_encoder(encoder, str(source))
    if str(source).startswith("timm:"):
        weights = _of_timm(encoder, str(source))
    else:
        weights = _of_file(Path(source))
    changed = _normalize_tokens(weights)
    kept, dropped = _without_unused(weights)
    changed += _fit_positions(kept, encoder)
    _check(kept, encoder, str(source))
    encoder.vit.load_state_dict(kept)
    return LoadReport(str(source), len(kept), dict(dropped), tuple(changed))


def _of_file(path: Path) -> Weights:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: {no_file(path)}; give a .pth, .pt or .safetensors file, or timm:NAME"
        )
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path}: damaged, or holds more than weights ({reason}); fetch it again, or save its "
            "state dict alone"
        ) from error
    for name in ("model", "state_dict"):
        content = content.get(name, content) if isinstance(content, dict) else content
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise CheckpointError(
            f"{path}: holds no named weights, neither by themselves nor under model or state_dict"
        )
    return content


def _unpickle(path: Path) -> Any:
    """A file of ``torch.save`` without running code of it. MAE's own training also stores its
    command line."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _of_timm(encoder: FaceEncoder, source: str) -> Weights:
    model = _fetch(timm.create_model, source)
    theirs = {name: tuple(model.pretrained_cfg[name]) for name in ("mean", "std")}
    ours = {"mean": encoder.config.mean, "std": encoder.config.std}
    if theirs != ours:
        raise CheckpointError(
            f"{source}: was trained on images standardized by {theirs}, the encoder's config says "
            f"{ours}"
        )
    return model.state_dict()


def _fetch(build: Callable[..., nn.Module], source: str) -> nn.Module:
    """The network of ``timm:NAME`` as ``build(NAME, pretrained=True)`` makes it."""
    try:
        return build(source.removeprefix("timm:"), pretrained=True)
    # each release of the hub's client raises kinds of its own when there is no network
    except Exception as error:
        raise CheckpointError(
            f"{source}: timm cannot fetch these weights ({error}); download the file on a machine "
            "that can, and give its path"
        ) from error


def _load_timm_encoder(encoder: TimmEncoder, source: str) -> LoadReport:
    """As `load_encoder_weights`. Names must agree both ways, which timm itself does not ask of a
    network without a head."""
    shapes = {name: tuple(value.shape) for name, value in encoder.network.state_dict().items()}
    weights: Weights = {}
    dropped: Counter[str] = Counter()
    if source.startswith("timm:"):
        network = _fetched_network(encoder, source)
    else:
        weights, dropped = _without_unused(_of_file(Path(source)), _unused_by_timm(encoder))
        network = _network_of(encoder, weights, source)
    encoder.network.load_state_dict(network.state_dict())
    changed = [
        f"{name} from {tuple(value.shape)} to {shapes[name]}"
        for name, value in weights.items()
        if name in shapes and shapes[name] != value.shape
    ]
    return LoadReport(source, len(shapes), dict(dropped), tuple(changed))


def _with_head(encoder: TimmEncoder, name: str, **settings: Any) -> nn.Module:
    """Its network with the head that it was trained with."""
    return create_timm(
        name, encoder.image_size, num_classes=timm.get_pretrained_cfg(name).num_classes, **settings
    )


def _fetched_network(encoder: TimmEncoder, source: str) -> nn.Module:
    if source != f"timm:{encoder.name}":
        raise CheckpointError(
            f"{source}: these weights need backbone={source!r}, which here is 'timm:{encoder.name}'"
        )
    network = _fetch(partial(_with_head, encoder), source)
    network.reset_classifier(0)
    return network


def _unused_by_timm(encoder: TimmEncoder) -> dict[str, str]:
    """Names as in ``UNUSED`` that a network of timm has no place for once its head is gone."""
    with torch.device("meta"):
        whole = _with_head(encoder, encoder.name).state_dict()
    unused = {start: UNUSED[start] for start in ("mask_token", "decoder_")}
    for name in whole.keys() - encoder.network.state_dict().keys():
        unused[name] = UNUSED["head."]
    return unused


def _network_of(encoder: TimmEncoder, weights: Weights, source: str) -> nn.Module:
    """The network with these weights, which timm renames and resamples where it knows how."""
    # no head on either side: timm is strict
    settings = {"state_dict": dict(weights), "num_classes": 0, "label_offset": 0}
    try:
        return create_timm(
            encoder.name, encoder.image_size, pretrained=True, pretrained_cfg_overlay=settings
        )
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{source}: does not fit timm's {encoder.name}; name the backbone it is of. {reason}"
        ) from error


def _without_unused(
    weights: Weights, unused: dict[str, str] = UNUSED
) -> tuple[Weights, Counter[str]]:
    """The weights that are used, and how many of the others are left out for which reason."""
    kept = {}
    dropped: Counter[str] = Counter()
    for name, value in weights.items():
        reasons = [reason for start, reason in unused.items() if name.startswith(start)]
        if reasons:
            dropped[reasons[0]] += 1
        else:
            kept[name] = value
    return kept, dropped


def _normalize_tokens(weights: Weights) -> list[str]:
    """A ViT that was fine-tuned by the mean of its tokens normalizes that mean, where ours
    normalizes each token."""
    if "norm.weight" in weights or "fc_norm.weight" not in weights:
        return []
    for name in [name for name in weights if name.startswith("fc_norm.")]:
        weights[name.removeprefix("fc_")] = weights.pop(name)
    return ["fc_norm, which normalized the mean of all tokens, now normalizes each"]


def _fit_positions(kept: Weights, encoder: FaceEncoder) -> list[str]:
    """Cuts off the class token's position (1, 1 + L, D) and resamples a square grid of others to
    the encoder's."""
    grid = encoder.config.grid
    positions = kept.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return []

    changed = []
    if _is_square(positions.shape[1] - 1):
        positions = positions[:, 1:]
        changed.append("pos_embed without the class token's position")

    count = positions.shape[1]
    old = round(count**0.5)
    if _is_square(count) and old != grid:
        positions = resample_abs_pos_embed(positions, [grid, grid], [old, old], num_prefix_tokens=0)
        changed.append(f"pos_embed from a grid of {old} x {old} to {grid} x {grid}")
    kept["pos_embed"] = positions
    return changed


def _is_square(number: int) -> bool:
    return round(number**0.5) ** 2 == number


def _check(kept: Weights, encoder: FaceEncoder, source: str) -> None:
    """Every weight of the encoder must be there in its shape, and no other."""
    ours = {name: tuple(value.shape) for name, value in encoder.vit.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in kept.items()}
    wrong = {
        "missing": sorted(ours.keys() - theirs.keys()),
        "unexpected": sorted(theirs.keys() - ours.keys()),
        "of another shape": [
            f"{name} {theirs[name]}, not {shape}"
            for name, shape in ours.items()
            if theirs.get(name, shape) != shape
        ],
    }
    if not any(wrong.values()):
        return
    listed = "; ".join(
        f"{len(names)} {kind}: {', '.join(names)}" for kind, names in wrong.items() if names
    )
    config = encoder.config
    raise CheckpointError(
        f"{source}: does not fit an encoder of width {config.dim}, depth {config.depth}, patches "
        f"of {config.patch_size} px, "
        f"stem {config.stem} and layer scale {config.layer_scale}; choose the preset of its size "
        "(ViT-B/16: base) or set these "
        f"fields of EncoderConfig. {listed}"
    )
