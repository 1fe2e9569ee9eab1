"""The whole recipe of an encoder that learns from faces without labels: masked autoencoding, the
weights as a file that ``--encoder`` takes, and pictures of what it reconstructs."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from norface_lib.common.devices import processes
from norface_lib.common.errors import DataError
from norface_lib.common.files import write_atomically
from norface_lib.common.records import write_result
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.streamed import StreamedFaces
from norface_lib.images.arrays import to_tensor, to_uint8
from norface_lib.images.files import write_png
from norface_lib.images.sheets import contact_sheet
from norface_lib.networks.encoder import FaceEncoder
from norface_lib.networks.masked import MaskedAutoencoder, reconstruct
from norface_lib.networks.normalizer import PRESETS
from norface_lib.training.learned_faces import check_learned
from norface_lib.training.loop import logged_seconds
from norface_lib.training.masked import masked_pretraining
from norface_lib.training.normalizer import MASKED

_SHOWN = 8
"""Faces of the picture of reconstructions."""


def pretrain_and_save(
    faces: FaceDataset,
    out: Path,
    *,
    preset: str = "tiny",
    steps: int = MASKED.steps,
    batch_size: int = MASKED.batch_size,
    seed: int = 0,
    device: str = "auto",
    name: str = "encoder",
    terms: str = "MIT",
) -> Path:
    """Trains the encoder of a preset on aligned faces, whose labels are not looked at, and returns
    the path of its weights.

    Writes ``NAME.safetensors``, named like a ViT of timm; ``NAME.json`` with settings, counts, time
    and the last error (of standardized pixels of masked patches; 1 knows each patch's mean alone);
    ``NAME.png``: originals, what is left of them, and what is reconstructed, of eight faces it
    learned from. ``terms``: the license, which the faces decide. Resumed from ``out``. Raises
    :class:`DataError` for an unknown preset, for a dataset without faces and for an ``out`` of
    other faces, and what `masked_pretraining` raises.
    """
    if preset not in PRESETS:
        raise DataError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    started = time.monotonic()
    config = PRESETS[preset].encoder
    streamed = StreamedFaces(faces, config.image_size)
    if not len(streamed):
        raise DataError(f"{faces.title}: no faces to learn from")
    check_learned(out, streamed)
    training = replace(MASKED.of_length(steps, seed), batch_size=batch_size)
    torch.manual_seed(seed)
    model = masked_pretraining(
        FaceEncoder(config), streamed, training, folder=Path(out), device=device
    )
    path, log = Path(out) / f"{name}.safetensors", Path(out) / "masked.jsonl"
    if not processes().is_main_process:
        return path

    model = model.cpu().eval()
    _draw(model, streamed, path.with_suffix(".png"))
    write_result(
        path.with_suffix(".json"),
        {
            "unexplained": _last_error(log),
            "training_seconds": logged_seconds(log),
            "license": terms,
        },
        seed=seed,
        started=started,
        counts={"faces": len(streamed)} | faces.report.dropped,
        leakage="pretrained",
        settings={"preset": preset, "encoder": asdict(config), "faces": faces.title}
        | asdict(training),
    )
    weights = {part: value.contiguous() for part, value in model.encoder.vit.state_dict().items()}
    return write_atomically(path, lambda part: save_file(weights, part))


def _draw(model: MaskedAutoencoder, faces: StreamedFaces, path: Path) -> None:
    """Originals, what is left of them, and what is reconstructed of that."""
    rows = np.linspace(0, len(faces) - 1, min(_SHOWN, len(faces))).astype(int)
    torch.manual_seed(0)  # of the masks
    shown = reconstruct(model, to_tensor(faces[rows]))
    write_png(path, contact_sheet([to_uint8(images) for images in shown], _SHOWN))


def _last_error(log: Path) -> float:
    """Of the last line of a log."""
    return json.loads(log.read_text().splitlines()[-1])["unexplained"]
