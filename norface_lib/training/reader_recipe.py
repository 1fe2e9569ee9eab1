"""The whole recipes of a token reader's weights, and of its head for sides: training, and the
card."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from norface_lib.common.devices import device_of
from norface_lib.common.errors import DataError
from norface_lib.common.records import versions
from norface_lib.datasets.label_table import read_spec
from norface_lib.datasets.rendered import Rendered
from norface_lib.networks.cards import read_card
from norface_lib.networks.places import find_weights
from norface_lib.networks.token_reader import TokenReader, TokenReaderConfig
from norface_lib.networks.weights import load_normalizer, load_token_reader, save_token_reader
from norface_lib.training.beginning import lineage
from norface_lib.training.learned_faces import check_learned
from norface_lib.training.loop import logged_seconds
from norface_lib.training.reader_calibration import set_thresholds, thresholds_of
from norface_lib.training.reader_sides import SIDES_FIT, calibrate_sides, train_sides
from norface_lib.training.token_reader import ReaderSource, ReaderTraining, train_token_reader


def train_and_save(
    roots: Sequence[Path],
    out: Path,
    *,
    shares: Sequence[float],
    training: ReaderTraining,
    calibration: Path | None = None,
    start: str = "tiny-photo",
    name: str = "reader",
    terms: str = "MIT",
    device: str = "auto",
) -> Path:
    """The whole recipe: trains a token reader on benchmarks and writes weights and card.

    ``start``: name or path of the token reader, or of the normalizer whose encoder it begins with;
    ``shares``: of a batch that come from each of ``roots``; ``calibration``: a rendered benchmark
    of other people, which sets the thresholds of AUs together with the neutral photographs of
    ``roots``; ``terms``: the card's entry license.
    """
    if len(shares) != len(roots):
        raise DataError(f"{len(roots)} benchmarks need as many shares, got {len(shares)}")
    first = read_card(find_weights(start))
    begin = load_token_reader(start)[0] if first["kind"] == "reader" else load_normalizer(start)[0]
    config = TokenReaderConfig(encoder=begin.encoder.config)
    sources = [
        ReaderSource.of(root, config, share) for root, share in zip(roots, shares, strict=True)
    ]
    begun = lineage(start, first)
    check_learned(out, *(source.images for source in sources), start=begun)
    model = train_token_reader(
        sources,
        config,
        training,
        start=begin if isinstance(begin, TokenReader) else begin.encoder,
        folder=out,
        device=device,
    )
    calibrated = None
    if calibration is not None:
        others = Rendered(calibration, aus=config.aus, progress=True)
        thresholds = thresholds_of(model, others, [s for s in sources if s.truths is None])
        set_thresholds(model, thresholds)
        calibrated = thresholds.card(config.aus)
    seconds = logged_seconds(Path(out) / "reader.jsonl")
    card = {
        "start": begun,
        "data": {
            "parts": [
                source.spec | {"name": source.name, "share": source.share} for source in sources
            ]
        },
        "training": asdict(training) | {"seconds": seconds, "device": str(device_of(device))},
        "calibration": calibrated,
        "license": terms,
        "versions": versions(),
    }
    return save_token_reader(model.cpu(), Path(out) / f"{name}.safetensors", card)


_KEPT = ("start", "data", "training", "calibration", "license")
"""Entries of the card of a reader that are true of it with a head for sides, too."""


def train_sides_and_save(
    root: Path,
    out: Path,
    *,
    calibration: Path,
    steps: int = SIDES_FIT.steps,
    seed: int = 0,
    start: str = "tiny-photo-reader",
    name: str = "reader",
    device: str = "auto",
) -> Path:
    """Gives a token reader a head that tells left from right, or another one; writes weights and
    card.

    ``root``: a rendered benchmark many of whose faces move one side alone, to learn from;
    ``calibration``: one of other people, of which some do; ``start``: name or path of the reader.
    Raises :class:`DataError` if no face of ``root`` was rendered so.
    """
    reader, first = load_token_reader(start)
    aus = reader.config.aus
    faces, others = (Rendered(each, aus=aus, progress=True) for each in (root, calibration))
    begun = {"weights": Path(start).stem, "sha256": first["sha256"]}
    check_learned(out, faces.originals, start=begun)
    if not read_spec(root).get("one_sided"):
        raise DataError(f"{root}: its faces move both sides alike; render some with --one-sided 1")
    fit = SIDES_FIT.of_length(steps, seed)
    model = train_sides(reader, faces, fit, folder=out, device=device)
    calibrate_sides(model, others)
    sides = {
        "reader": begun,
        "data": read_spec(root) | {"faces": len(faces)},
        "calibration": read_spec(calibration) | {"faces": len(others)},
        "training": asdict(fit) | {"seconds": logged_seconds(Path(out) / "sides.jsonl")},
    }
    kept = {entry: first[entry] for entry in _KEPT if entry in first}
    card = kept | {"sides": sides, "versions": versions()}
    return save_token_reader(model.cpu(), Path(out) / f"{name}.safetensors", card)
