"""The whole recipe of a normalizer's weights: training, the figures that are watched meanwhile, and
measures on people whom it has not met."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from norface_lib.common.devices import device_of, processes
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.common.records import versions
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.label_table import read_spec
from norface_lib.datasets.rendered import Rendered
from norface_lib.datasets.streamed import StreamedFaces
from norface_lib.faces.benchmark import POOLS, BenchmarkSpec
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import Faces, resized, to_tensor
from norface_lib.images.distances import neutral_ratio, region_ratios
from norface_lib.images.files import write_png
from norface_lib.images.sheets import contact_sheet
from norface_lib.networks.evaluator import Evaluator
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import PRESETS, Normalizer
from norface_lib.networks.weights import (
    find_weights,
    load_evaluator,
    save_normalizer,
)
from norface_lib.training.beginning import beginning
from norface_lib.training.learned_faces import check_learned
from norface_lib.training.loop import logged_seconds
from norface_lib.training.normalizer import NormalizerTraining, train_normalizer
from norface_lib.training.normalizer_losses import SynthesisNetwork


class Watch:
    """Checks a normalizer in training on faces of people it does not learn from, (N, S, S, 3) with
    their true I_n.

    Writes a sheet of originals, normalized and true faces for each check into ``folder``, and
    returns the distance relative to the neutral target's and, with an evaluator, its mean absolute
    AU error on I_n, on the true I_n (the ceiling) and on the neutral target (where a network stays
    that has collapsed).
    """

    def __init__(self, faces: Rendered, folder: Path, evaluator: Evaluator | None):
        self.faces = faces
        self.folder = folder
        self.evaluator = evaluator
        self.targets = to_tensor(faces.targets)
        neutral = faces.targets[faces.target_of]
        self.bounds = (
            {
                "au_error_truth": self._au_error(faces.truths),
                "au_error_target": self._au_error(neutral),
            }
            if evaluator
            else {}
        )

    def __call__(self, model: SynthesisNetwork, step: int) -> dict[str, float]:
        faces = self.faces
        size = model.normalizer.config.encoder.image_size
        normalized = normalize_faces(
            model.normalizer,
            self.targets,
            resized(faces.originals, size),
            which=faces.target_of,
        )
        rows = [images[:12] for images in (faces.originals, normalized, faces.truths)]
        write_png(self.folder / f"{step:06d}.png", contact_sheet(rows))

        off = np.abs(normalized.astype(np.int16) - faces.truths).mean()
        neutral = np.abs(faces.targets[faces.target_of].astype(np.int16) - faces.truths).mean()
        figures = {"held_out_to_neutral": float(off / neutral)}
        if self.evaluator:
            figures |= {"au_error": self._au_error(normalized)} | self.bounds
        return figures

    @torch.inference_mode()
    def _au_error(self, faces: Faces) -> float:
        batches = np.array_split(faces, max(1, len(faces) // 64))
        size = self.evaluator.config.image_size
        read = [self.evaluator(to_tensor(resized(batch, size))).intensity for batch in batches]
        read = torch.cat(read)
        true = self.faces.intensities(self.evaluator.config.aus)
        return float(np.abs(read.numpy() - true).mean())


def train_and_save(
    data: Path,
    out: Path,
    preset: str,
    training: NormalizerTraining,
    device: str = "auto",
    start: str | None = None,
    encoder: str | None = None,
    faces: FaceDataset | None = None,
    name: str | None = None,
    terms: str = "MIT",
) -> Path:
    """The whole recipe: trains a preset on a rendered pool, measures it on other pools, writes
    weights and card.

    ``start`` and ``encoder``: weights to begin with, as
    `norface_lib.training.beginning.beginning` takes them; ``faces``: aligned faces without a true
    I_n, of any dataset, which are read as they are needed; ``name`` of the weights: default, that
    of the preset; ``terms``: the card's entry license.
    """
    if preset not in PRESETS:
        raise DataError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    out = Path(out)
    pairs = Rendered(data, progress=True)
    config = PRESETS[preset]
    if config.references:
        config = replace(config, targets=len(pairs.names))
    first, card = beginning(config, start, encoder)
    size = config.size
    more = None if faces is None else StreamedFaces(faces, size)
    sources = (pairs.originals, *(() if more is None else (more,)))
    check_learned(out, *sources, start=card["start"])
    spec = read_spec(Path(data))
    watch = _watch(spec, out)
    model = train_normalizer(
        pairs, config, training, folder=out, device=device, start=first, faces=more, watch=watch
    )
    path = out / f"{name or preset}.safetensors"
    if not processes().is_main_process:
        return path
    seconds = {stage: logged_seconds(out / f"{stage}.jsonl") for stage in training.stages}
    card |= {
        "data": spec
        | {"pairs": len(pairs), "faces": 0 if more is None else len(more)}
        | ({} if faces is None else {"faces_of": faces.title, "faces_left": faces.report.dropped}),
        "training": asdict(training) | {"seconds": seconds, "device": str(device_of(device))},
        "measured": measure(model, out / "held-out", target=pairs.names[0]),
        "license": terms,
        "versions": versions(),
    }
    return save_normalizer(model.cpu(), Path(data) / "target.png", path, card)


def _watch(spec: dict[str, Any], out: Path) -> Watch:
    """Faces of people like those of the training pool, but of another seed, and the evaluator if
    its weights are at hand."""
    watched = BenchmarkSpec(
        # photographs are of no pool: `wild` is the most like them
        pool=spec["pool"] if spec.get("pool") in POOLS else "wild",
        subjects=16,
        frames=4,
        size=spec["size"],
        seed=spec["seed"] + 1_000_000,
        target=spec["target"],
    )
    try:
        evaluator = load_evaluator()[0] if find_weights("evaluator") else None
    except CheckpointError as error:
        print(f"the log will hold no AU errors: {error}")
        evaluator = None
    with processes().main_process_first():
        faces = Rendered(write_benchmark(watched, out / "watched"))
    if not processes().is_main_process:
        return lambda model, step: {}  # the few faces are the first one's
    return Watch(faces, out / "samples", evaluator)


def measure(
    model: Normalizer, folder: Path, subjects: int = 60, frames: int = 4, target: str = "noor"
) -> dict[str, Any]:
    """Distance to the true I_n on rendered subjects of both domains, relative to the neutral
    target's, and by region."""
    seen = model.config.encoder.image_size
    measured = {}
    for pool in ("lab", "wild"):
        spec = BenchmarkSpec(
            pool=pool, subjects=subjects, frames=frames, size=model.config.size, target=target
        )
        held_out = Rendered(write_benchmark(spec, Path(folder) / pool))
        originals = resized(held_out.originals, seen)
        normalized = normalize_faces(model, to_tensor(held_out.target), originals)
        regions = region_ratios(held_out.truths, normalized, held_out.target)
        measured[pool] = {
            "subjects": subjects,
            "faces": len(held_out),
            "distance_ratio": neutral_ratio(held_out.truths, normalized, held_out.target),
            **{f"{region}_ratio": ratio for region, ratio in regions.items()},
        }
    return measured
