"""A dataset, a protocol, a table: the runs that `python -m norface_lib train` starts, on rendered
or on real faces."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.paths import shown
from norface_lib.common.records import check_leakage, settings_of, write_result
from norface_lib.datasets import dataset_class, open_dataset
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.normalized import key_of, load_pairs, normalize_dataset
from norface_lib.datasets.pairs import EmbeddedPairs, Pairs, embed
from norface_lib.datasets.protocols import protocol
from norface_lib.images.arrays import LazyFaces, to_uint8
from norface_lib.networks.classifier import INPUTS, OWN_BACKBONE, ClassifierConfig
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import load_normalizer, save_classifier, target_names
from norface_lib.studies.cross_validation import CrossValidation, Fold, cross_validate
from norface_lib.studies.published import AVERAGE, published
from norface_lib.tasks.tasks import Task, task_of
from norface_lib.training.classifier import Recipe, train_classifier
from norface_lib.training.leakage import normalizers_of_folds
from norface_lib.training.loop import TrainConfig, base_rate
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_losses import Sources, terms_of

BACKBONES = {
    "frozen": "the normalizer's, as it is; what it sees in each face is computed once",
    "tuned": "the same, trained on, the layers next to the image least",
    "scratch": "the same, from chance",
    "timm:NAME": "any network of timm, with its published weights if they can be had, trained on",
}
"""Where a classifier's backbone comes from."""

DEFAULT_PROTOCOLS = {
    "bp4d": "bp4d/3fold",
    "bp4d_plus": "bp4d_plus/4fold-fmae",
    "disfa": "disfa/3fold",
    "affectnet": "affectnet/official",
    "rafdb": "rafdb/official",
    "rendered": "rendered/3fold-seed0",
}

UNPAIRED_WEIGHTS = (
    "reconstruction=0",
    "edge=0",
    "reading=0",
    "expression=1",
    "self_reconstruction=1",
)
"""How a normalizer is fine-tuned on faces without a true I_n: the evaluator must see the original's
expression in I_n, and the target must come out as it is. An identity term can be added where an
encoder's file is at hand (``--term``, ``--network``)."""


def _usual_tuning() -> NormalizerTraining:
    return NormalizerTraining.of_steps(0, 200, terms=terms_of(UNPAIRED_WEIGHTS, []))


@dataclass(frozen=True)
class Experiment:
    """What to train on what. ``protocol``: default that of ``DEFAULT_PROTOCOLS``."""

    task: str
    dataset: str
    protocol: str = ""
    weights: str = "tiny"  # of the normalizer
    backbone: str = "frozen"  # one of BACKBONES
    encoder: str = (
        # weights for a backbone that is trained, as
        # `norface_lib.networks.pretrained.load_encoder_weights` takes them
        ""
    )
    inputs: tuple[str, ...] = INPUTS  # a row of the table for each
    loss: str = ""  # default: the task's own
    steps: int = 0  # default: that of ``recipe_for``
    seeds: tuple[int, ...] = (0,)
    balanced: bool = False
    leakage: str = "pretrained"
    # at last, one classifier of each row of the table is trained on all faces, to be used
    final: bool = False
    tuning: NormalizerTraining = field(default_factory=_usual_tuning)

    def __post_init__(self):
        tasks = dataset_class(self.dataset).tasks if self.dataset in DEFAULT_PROTOCOLS else ()
        if self.task not in tasks:
            known = "; ".join(
                f"{name}: {', '.join(dataset_class(name).tasks)}" for name in DEFAULT_PROTOCOLS
            )
            raise ValueError(f"no {self.task!r} on {self.dataset!r}; there are {known}")
        if self.backbone not in BACKBONES and not self.backbone.startswith("timm:"):
            raise ValueError(
                f"backbone must be one of {', '.join(BACKBONES)}, got {self.backbone!r}"
            )
        if unknown := set(self.inputs) - set(INPUTS):
            raise ValueError(
                f"inputs must be of {', '.join(INPUTS)}, got {', '.join(sorted(unknown))}"
            )
        if not self.protocol:
            object.__setattr__(self, "protocol", DEFAULT_PROTOCOLS[self.dataset])
        if check_leakage(self.leakage) == "per-fold" and self.final:
            raise ValueError(
                "per-fold has a normalizer for each fold, and none for a final classifier"
            )


def recipe_for(
    task: Task, normalizer: Normalizer, backbone: str = "frozen", steps: int = 0
) -> Recipe:
    """The recipe of a backbone: a small head behind a strong dropout where only it learns, slower
    and gentler where all does.

    ``steps``: 0 for the number that suits a few thousand faces. Rates are base x batch / 256, as
    MAE's recipe has it.
    """
    config = ClassifierConfig(
        task.outputs, "both", normalizer.config.encoder, hidden=64, dropout=0.7
    )
    if backbone == "frozen":
        return Recipe(
            config,
            TrainConfig(
                steps=steps or 120, batch_size=128, learning_rate=2e-3, average=0.95, watch_every=20
            ),
        )
    own = OWN_BACKBONE if not backbone.startswith("timm:") else backbone
    config = replace(config, dropout=0.5, drop_path_rate=0.1, backbone=own)
    rate, decay = (
        (base_rate(4e-3, 64), None) if backbone == "scratch" else (base_rate(1e-3, 64), 0.75)
    )
    training = TrainConfig(
        steps=steps or 400,
        batch_size=64,
        learning_rate=rate,
        average=0.98,
        watch_every=100,
        layer_decay=decay,
    )
    return Recipe(config, training)


def run(
    experiment: Experiment, root: Path, out: Path, device: str = "auto", points: Path | None = None
) -> tuple[dict[str, CrossValidation], Path]:
    """Normalizes a dataset of aligned faces, cross-validates each input, and writes
    ``out/<task>/result.json`` and classifiers.

    ``points``: a table of `norface_lib.photos.dataset_points.find_points`, by which whole frames
    are cropped. The normalized faces, in ``out/normalized``, serve all tasks whose frames are the
    same. Faces are mapped from files, so a dataset may be larger than memory. An interrupted call
    goes on. Returns the rows and the result's path. Raises :class:`DataError` if the dataset, its
    crop or its protocol does not fit.
    """
    started, faces, out = time.monotonic(), Path(out) / "normalized", Path(out) / experiment.task
    data = open_dataset(experiment.dataset, root, task=experiment.task)
    data = data if points is None else data.aligned_by(points)
    print(data.report)
    task = task_of(experiment.task, tuple(data.classes or data.labels), experiment.loss)
    normalizer, target, card = load_normalizer(experiment.weights)
    counts = normalize_dataset(data, faces, experiment.weights, device=device)
    drawn = faces / target_names(card)[0]
    part, pairs = _pairs(data, drawn, normalizer, faces)
    keep = faces / f"embedded-{key_of(part, drawn, card['sha256'])}.safetensors"
    splits = protocol(experiment.protocol, part.index)
    folds = [(split.train, split.test) for split in splits]
    given, start = _as_seen(experiment, pairs, normalizer, target, folds, out, device, keep)
    recipe = recipe_for(task, normalizer, experiment.backbone, experiment.steps)
    recipe = replace(recipe, balanced=experiment.balanced, encoder=experiment.encoder)
    rows = {
        inputs: cross_validate(
            given,
            folds,
            task,
            recipe.with_config(inputs=inputs),
            experiment.seeds,
            start,
            out / "training",
            inputs,
            device,
        )
        for inputs in experiment.inputs
    }
    path = write_result(
        out / "result.json",
        {
            "experiment": experiment.task,
            "rows": {name: row.as_dict() for name, row in rows.items()},
        },
        seed=experiment.seeds,
        started=started,
        counts=_counts(data, part, counts, folds),
        leakage=experiment.leakage,
        settings=settings_of(experiment=experiment, recipe=recipe) | {"weights": card["sha256"]},
    )
    about = {
        "task": task.name,
        "data": experiment.dataset,
        "protocol": experiment.protocol,
        "normalizer": card["sha256"],
    }
    about |= {"seed": experiment.seeds[0], "counts": _counts(data, part, counts, folds)}
    for name, row in rows.items():
        for split, model in zip(splits, row.models, strict=True):
            save_classifier(
                model,
                out / "weights" / f"{name}-{split.name}.safetensors",
                about | {"split": split.name},
            )
        if experiment.final:
            everything = np.arange(len(part))
            training = row.recipe.seeded(experiment.seeds[0])
            model = train_classifier(
                given[0],
                everything,
                task,
                training,
                start,
                out / "training",
                f"{name}-final",
                device,
            )
            told = {
                "trained_on": "all of the data",
                "cross_validated": row.as_dict(),
                "recipe": asdict(training),
            }
            save_classifier(model, out / "weights" / f"{name}-final.safetensors", about | told)
    return rows, path


def _pairs(
    data: FaceDataset, folder: Path, normalizer: Normalizer, memory: Path
) -> tuple[FaceDataset, Pairs]:
    part, originals, normalized = load_pairs(
        data, folder, normalizer.config.encoder.image_size, memory, progress=True
    )
    return part, Pairs(originals, normalized, part.values(), part.index["subject"].to_numpy(str))


def _as_seen(
    experiment: Experiment,
    pairs: Pairs,
    normalizer: Normalizer,
    target: Any,
    folds: Sequence[Fold],
    out: Path,
    device: str,
    keep: Path,
) -> tuple[list[Pairs | EmbeddedPairs], Normalizer | None]:
    """The pairs of each fold, as the backbone of its own normalizer sees them if it is frozen, and
    where a training starts.

    ``keep``: a file for what the normalizer itself sees, which serves other tasks on the same
    faces, too.
    """
    targets = to_uint8(target)
    models = normalizers_of_folds(
        experiment.leakage,
        normalizer,
        folds,
        lambda rows: Sources(targets, faces=LazyFaces([pairs.originals], rows)),
        experiment.tuning,
        out / "normalizers",
        device,
    )
    seen: dict[int, Pairs | EmbeddedPairs] = {}
    for model in models:
        if id(model) not in seen:
            own, kept = pairs, keep
            if model is not normalizer:
                kept = None
                own = replace(
                    pairs, normalized=normalize_faces(model, target, pairs.originals, progress=True)
                )
            seen[id(model)] = (
                embed(own, model, progress=True, keep=kept)
                if experiment.backbone == "frozen"
                else own
            )
    return [
        seen[id(model)] for model in models
    ], normalizer if experiment.backbone == "tuned" else None


def _counts(
    data: FaceDataset, part: FaceDataset, drawn: dict[str, int], folds: Sequence[Fold]
) -> dict[str, Any]:
    """What the table counts: nothing that was dropped is silent."""
    return {
        "found": data.report.found,
        "dropped_by_the_loader": data.report.dropped,
        "normalized": dict(drawn),
        "frames": len(part),
        "not_normalized": len(data) - len(part),
        "subjects": int(part.index["subject"].nunique()),
        "train_and_test": [[len(train), len(test)] for train, test in folds],
    }


def table(rows: dict[str, CrossValidation]) -> pd.DataFrame:
    """The table that a paper prints: a row for each input, a column for each label, and their mean.
    In percent, but for ICC."""
    first = next(iter(rows.values()))
    scale = 1.0 if first.task.name == "au_intensity" else 100.0
    found = pd.DataFrame(
        {name: row.per_label * scale for name, row in rows.items()}, index=list(first.task.outputs)
    ).T
    found[first.task.headline] = [row.score * scale for row in rows.values()]
    return found.round(3 if scale == 1 else 1)


def report(rows: dict[str, CrossValidation], path: Path, dataset: str = "rendered") -> str:
    """The table as text, with what must be said beside it."""
    first = next(iter(rows.values()))
    said = f"{first.task.headline}, last step, mean over {len(first.folds)} split(s) and {len(first.scores)} seed(s)"
    threshold = ", threshold 0.5" if first.task.name == "au_detection" else ""
    lines = ["", said + threshold, "", table(rows).to_string(), ""]
    for name, row in rows.items():
        interval = (
            "[{:.3f}, {:.3f}] over subjects".format(*row.interval)
            if row.interval
            else "(too few subjects for an interval)"
        )
        lines.append(
            f"{name}: {row.score:.3f} {interval}; constant baseline {row.constant_baseline:.3f}"
        )
    return "\n".join([*lines, *_published(first.task.name, dataset), f"(see {shown(path)})"])


def _published(task: str, dataset: str) -> list[str]:
    """What the paper and others reached on a dataset, best first; nothing for one that nobody has
    published on."""
    try:
        numbers = published(task.removeprefix("au_"), dataset)
    except DataError:
        return []
    listed = ", ".join(
        f"{name} {value:g}" for name, value in numbers[AVERAGE].sort_values(ascending=False).items()
    )
    return [f"published ({numbers.attrs['metric']}, real faces): {listed}"]
