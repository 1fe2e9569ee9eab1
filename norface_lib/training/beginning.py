"""The network that the training of a normalizer begins with, and what its card says of that."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.networks.cards import read_card
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.pretrained import load_encoder_weights
from norface_lib.networks.weights import find_weights, load_normalizer, load_token_reader


def beginning(
    config: NormalizerConfig, start: str | None = None, encoder: str | None = None
) -> tuple[Normalizer | None, dict[str, Any]]:
    """The network to begin with, None if it is to be random, and the card's entry ``start``.

    ``start``: name or path of a normalizer with the same encoder. Of one with another decoder, all
    weights are taken whose names and shapes fit; what was left out is printed, and counted in the
    card. ``encoder``: name or path of a token reader whose encoder replaces that, or weights of a
    ViT as `norface_lib.networks.pretrained.load_encoder_weights` takes them. Raises
    :class:`DataError` for weights of another encoder, and the errors of the loaders of weights.
    """
    if not start and not encoder:
        return None, {"start": None}
    model = Normalizer(config)
    entry: dict[str, Any] = {}
    if start:
        entry |= _take_fitting(model, start)
    if encoder:
        entry["encoder"] = _take_encoder(model, encoder)
    return model, {"start": entry}


def _take_fitting(model: Normalizer, start: str) -> dict[str, Any]:
    other, _, card = load_normalizer(start)
    if other.config.encoder != model.config.encoder:
        raise DataError(
            f"{start}: its encoder is another one than that of the preset; begin with weights of "
            "the same preset, or with none"
        )
    ours = model.state_dict()
    theirs = other.state_dict()
    fitting = {
        name: value
        for name, value in theirs.items()
        if name in ours and ours[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    left = sorted(ours.keys() - fitting.keys())
    if left:
        print(f"{start}: {len(fitting)} weights fit; {len(left)} begin at random, as {left[0]}")
    return lineage(start, card) | {"taken": len(fitting), "random": len(left)}


def _take_encoder(model: Normalizer, encoder: str) -> dict[str, Any]:
    if not _is_reader(encoder):
        report = load_encoder_weights(model.encoder, encoder)
        source = encoder if encoder.startswith("timm:") else Path(encoder).name
        return asdict(report) | {"source": source}
    reader, card = load_token_reader(encoder)
    if reader.config.encoder != model.config.encoder:
        raise DataError(
            f"{encoder}: its encoder is another one than that of the preset; name another preset"
        )
    model.encoder.load_state_dict(reader.encoder.state_dict())
    return lineage(encoder, card)


def _is_reader(encoder: str) -> bool:
    """Tells whether a text names weights of a token reader, rather than those of a ViT."""
    if encoder.startswith("timm:"):
        return False
    try:
        return read_card(find_weights(encoder))["kind"] == "reader"
    except CheckpointError:  # a file of another program has no card
        return False


def lineage(weights: str, card: dict[str, Any]) -> dict[str, Any]:
    """All that weights (name or path) with this card ever learned of: an entry of the card of those
    that begin with them."""
    known = {name: card.get(name) for name in ("sha256", "start", "data", "training")}
    return {"weights": Path(weights).stem} | known
