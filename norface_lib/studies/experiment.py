"""An experiment: faces of a dataset are normalized, classifiers cross-validated, rows compared.

The command line and the notebooks take the same steps: `Experiment.prepare` makes the pairs and the
folds, `Experiment.run` trains and tests, and the `Result` holds tables, differences and the file.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from norface_lib.common.files import sha256_of
from norface_lib.common.paths import cache
from norface_lib.common.records import check_leakage
from norface_lib.datasets import dataset_class, open_dataset
from norface_lib.datasets.base import FaceDataset
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.writing import write_benchmark
from norface_lib.networks.classifier import INPUTS, MINI_BACKBONE
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import find_weights, save_classifier
from norface_lib.studies.cross_validation import cross_validate
from norface_lib.studies.preparation import Prepared, prepare
from norface_lib.studies.recipes import (
    BACKBONES,
    ROWS,
    SECOND_FACES,
    input_size,
    recipe_for,
)
from norface_lib.studies.result import Result
from norface_lib.studies.second_faces import views_with
from norface_lib.studies.settings import OF_BACKBONE, TrainingSettings
from norface_lib.tasks.tasks import Task, task_of
from norface_lib.training.classifier import Recipe, train_classifier
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_losses import terms_of

DEFAULT_PROTOCOLS: Mapping[str, str] = {
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
"""Weights of the losses that fine-tune a normalizer on faces without a true I_n: the evaluator must
find the original's expression in I_n, and the target must come out unchanged. An identity term can
be added where an encoder's file is at hand (``--term``, ``--network``)."""


def _unpaired_tuning() -> NormalizerTraining:
    return NormalizerTraining.of_steps(0, 200, terms=terms_of(UNPAIRED_WEIGHTS, []))


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Settings of an experiment. Raises ``ValueError`` for those that do not fit each other, and
    :class:`norface_lib.common.errors.CheckpointError` for weights that are not there.

    ``data``: the name of a dataset, or the specification of a rendered benchmark, which is rendered
    where it is missing. ``root``: folder of the dataset; of a benchmark, default in the cache.
    """

    task: str  # au_detection, au_intensity or emotion
    data: str | BenchmarkSpec
    root: Path | None = None
    # a table of `norface_lib.photos.dataset_points.find_points`, by which whole frames are cropped
    points: Path | None = None
    aus: tuple[int, ...] = ()  # default: those of the dataset
    # share of labels that simulated coders get wrong, of rendered faces; None: exact labels
    coder_errors: float | None = None
    protocol: str = ""  # default: that of DEFAULT_PROTOCOLS
    weights: str = "tiny"  # of the normalizer: a shipped name or a path
    leakage: str = "pretrained"  # which faces the normalizer may have learned from before
    tuning: NormalizerTraining = field(default_factory=_unpaired_tuning)  # for another leakage
    backbone: str = "frozen"  # one of BACKBONES
    # weights of a backbone that is trained, as `load_encoder_weights` takes them
    encoder: str = ""
    rows: tuple[str, ...] = INPUTS  # of the table, names of ROWS
    loss: str = ""  # default: the task's own
    steps: int = 0  # in short for those of ``training``
    # what differs from `recipe_for`
    training: TrainingSettings = field(default_factory=TrainingSettings)
    seeds: tuple[int, ...] = (0,)
    people: int = 0  # labeled people that each fold trains on, chosen by seed and fold; 0: all
    balanced: bool = False  # rare classes are sampled as often as common ones
    # one more classifier for each row is trained on all faces, to be used
    final: bool = False

    def __post_init__(self):
        tasks = dataset_class(self.dataset).tasks if self.dataset in DEFAULT_PROTOCOLS else ()
        if self.task not in tasks:
            known = "; ".join(
                f"{name}: {', '.join(dataset_class(name).tasks)}" for name in DEFAULT_PROTOCOLS
            )
            raise ValueError(f"no {self.task!r} on {self.dataset!r}; there are {known}")
        if isinstance(self.data, str) and self.root is None:
            raise ValueError(f"{self.data} needs root, the folder where it lies")
        if self.coder_errors is not None and self.dataset != "rendered":
            raise ValueError(f"coder_errors are simulated on rendered faces, not on {self.data}")
        if self.backbone not in BACKBONES and not self.backbone.startswith("timm:"):
            raise ValueError(
                f"backbone must be one of {', '.join(BACKBONES)}, got {self.backbone!r}"
            )
        if unknown := sorted(set(self.rows) - set(ROWS)):
            raise ValueError(f"rows must be of {'; '.join(ROWS)}; got {'; '.join(unknown)}")
        if self.encoder and self.backbone == MINI_BACKBONE:
            raise ValueError("the backbone mini takes no weights; leave out encoder")
        if check_leakage(self.leakage) == "per-fold" and self.final:
            raise ValueError(
                "per-fold has a normalizer for each fold, and none for a final classifier"
            )
        task_of(self.task, (), self.loss)
        find_weights(self.weights)
        if min(self.steps, self.people, *self.seeds) < 0 or not self.seeds:
            raise ValueError(
                "steps, people and seeds must be at least 0, and there must be a seed; got "
                f"{self.steps}, {self.people} and {self.seeds}"
            )
        self._check_training()
        if not self.protocol:
            object.__setattr__(self, "protocol", DEFAULT_PROTOCOLS[self.dataset])

    def _check_training(self) -> None:
        given = self.training.given()
        if self.steps and {"steps", "epochs"} & set(given):
            raise ValueError("give the length of a training once: steps, or those of training")
        if self.backbone == "frozen" and (wrong := [name for name in OF_BACKBONE if name in given]):
            raise ValueError(
                f"{', '.join(wrong)}: a frozen backbone has none; train it with tuned, scratch or "
                "timm:NAME"
            )
        for mixture in ("input_mixture", "output_mixture"):
            compared = [name for name in self.rows if mixture in ROWS[name]]
            if mixture in given and compared:
                raise ValueError(
                    f"{mixture} is what the row {compared[0]!r} decides; leave it out of training"
                )

    def recipe(self, task: Task, normalizer: Normalizer) -> Recipe:
        """How each row is trained, but for what `ROWS` changes."""
        recipe = recipe_for(task, normalizer, self.backbone, self.steps)
        recipe = self.training.applied_to(recipe)
        return replace(recipe, balanced=self.balanced, encoder=self.encoder)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.data if isinstance(self.data, str) else "rendered"

    def settings(self) -> dict[str, Any]:
        """For a result file: all but the folders of this machine."""
        settings = asdict(self)
        del settings["root"], settings["points"]
        return settings

    def prepare(
        self, out: Path | None = None, device: str = "auto", progress: bool = True
    ) -> Prepared:
        """Normalizes the faces, splits them by the protocol, and embeds them for a frozen backbone.

        ``out``: folder for all that is made, default in the cache; what is there is used. The
        normalized faces, in ``out/normalized``, serve all tasks whose frames are the same. Faces
        are mapped from files, so a dataset may be larger than memory. Raises :class:`DataError` if
        the dataset, its crop or its protocol does not fit.
        """
        data = self._open()
        if progress:
            print(data.report)
        if out is None:
            weights = sha256_of(find_weights(self.weights))
            out = cache("experiment", data=self.data, root=self.root, weights=weights)
        return prepare(
            data,
            out=out,
            task=self.task,
            protocol_name=self.protocol,
            weights=self.weights,
            leakage=self.leakage,
            tuning=self.tuning,
            frozen=self.backbone == "frozen",
            size=input_size(self.backbone),
            device=device,
            progress=progress,
        )

    def _open(self) -> FaceDataset:
        """The dataset with the labels of the task."""
        root = self.root
        if isinstance(self.data, BenchmarkSpec):
            root = root or cache(self.data.pool, spec=self.data)
            write_benchmark(self.data, root, progress=False)
        options = {
            "task": self.task,
            "aus": self.aus or None,
            "coder_errors": self.coder_errors,
        }
        options = {name: value for name, value in options.items() if value is not None}
        data = open_dataset(self.dataset, root, **options)
        return data if self.points is None else data.aligned_by(self.points)

    def run(
        self,
        out: Path | None = None,
        *,
        prepared: Prepared | None = None,
        device: str = "auto",
        progress: bool = True,
    ) -> Result:
        """Cross-validates each row on the same folds and seeds; an interrupted call goes on.

        ``prepared``: default what `prepare` makes. With ``out``, it also writes
        ``out/<task>/result.json`` and the classifiers, ``out/<task>/weights``.
        """
        started = time.monotonic()
        prepared = prepared or self.prepare(out, device, progress)
        task = task_of(self.task, prepared.outputs, self.loss)
        recipe = self.recipe(task, prepared.normalizer)
        start = prepared.normalizer if self.backbone == "tuned" else None

        rows = {}
        bar = tqdm(self.rows, desc=task.name, unit="row", disable=not progress, leave=False)
        for name in bar:
            second = SECOND_FACES.get(name, "normalized")
            row = replace(recipe.with_config(**ROWS[name]), two_views=second == "original")
            rows[name] = cross_validate(
                views_with(second, prepared),
                prepared.folds,
                task,
                row,
                seeds=self.seeds,
                people=self.people,
                start=start,
                folder=prepared.training_folder(name, self.backbone, task, row, self.people),
                device=device,
                progress=progress,
            )
        result = Result(
            rows=rows,
            task=task.name,
            dataset=self.dataset,
            splits=[split.name for split in prepared.splits],
            seeds=tuple(self.seeds),
            leakage=self.leakage,
            counts=prepared.counts | {"train_and_test": prepared.fold_sizes(self.people)},
            settings={
                "experiment": self.settings(),
                "recipe": asdict(recipe),
                "weights": prepared.card["sha256"],
            },
            started=started,
        )
        if out is None:
            return result
        result.save_classifiers(prepared.folder / "weights")
        if self.final:
            _train_final(self, prepared, result, device, progress)
        return result.write(prepared.folder / "result.json")


def _train_final(
    experiment: Experiment, prepared: Prepared, result: Result, device: str, progress: bool
) -> None:
    """Trains and saves a classifier of each row on all faces."""
    everything = np.arange(len(prepared.data))
    start = prepared.normalizer if experiment.backbone == "tuned" else None
    for name, row in result.rows.items():
        recipe = row.recipe.seeded(experiment.seeds[0])
        folder = prepared.training_folder(name, experiment.backbone, row.task, row.recipe)
        model = train_classifier(
            views_with(SECOND_FACES.get(name, "normalized"), prepared)[0],
            everything,
            row.task,
            recipe,
            start=start,
            folder=folder,
            name="final",
            device=device,
            progress=progress,
        )
        about = {
            "trained_on": "all of the data",
            "cross_validated": row.as_dict(),
            "recipe": asdict(recipe),
        }
        path = prepared.folder / "weights" / f"{name}-final.safetensors"
        save_classifier(model, path, result.card() | about)
