"""An experiment: faces of a dataset are normalized, classifiers cross-validated, rows compared.

The command line and the notebooks take the same steps: `Experiment.prepare` makes the pairs and the
folds, `Experiment.run` trains and tests, and the `Result` holds tables, differences and the file.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from norface_lib.common.devices import processes
from norface_lib.common.files import sha256_of
from norface_lib.common.paths import cache
from norface_lib.common.records import check_leakage
from norface_lib.datasets.base import FaceDataset
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.networks.classifier import INPUTS, MINI_BACKBONE
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import find_weights
from norface_lib.studies.cross_preparation import prepare_across, sides_of
from norface_lib.studies.cross_result import CrossResult
from norface_lib.studies.cross_validation import CrossValidation, cross_validate
from norface_lib.studies.data_sources import DataSource, default_protocol
from norface_lib.studies.final_training import train_final
from norface_lib.studies.identities import prepare_identities
from norface_lib.studies.preparation import Prepared, normalized_pairs
from norface_lib.studies.recipes import BACKBONES, ROWS, SECOND_FACES, input_size, recipe_for
from norface_lib.studies.result import Result
from norface_lib.studies.second_faces import OF_ONE_DATASET, views_with
from norface_lib.studies.settings import TrainingSettings
from norface_lib.tasks.tasks import Task, task_of
from norface_lib.training.classifier import Recipe
from norface_lib.training.normalizer import NormalizerTraining
from norface_lib.training.normalizer_terms import terms_of

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
    ``test_data``, ``test_root``, ``test_points`` and ``test_options``: likewise, of another dataset
    to test on.
    """

    task: str  # au_detection, au_intensity or emotion
    data: str | BenchmarkSpec
    root: Path | None = None
    # a table of `norface_lib.photos.dataset_points.find_points`, by which whole frames are cropped
    points: Path | None = None
    # another dataset, which is tested in place of `data`, by the labels that both have
    test_data: str | BenchmarkSpec | None = None
    test_root: Path | None = None
    test_points: Path | None = None
    # of the loaders, such as {"camera": "right"}; see `loader_options`
    options: Mapping[str, Any] = field(default_factory=dict)
    test_options: Mapping[str, Any] = field(default_factory=dict)
    aus: tuple[int, ...] = ()  # default: those of the dataset
    # share of labels that simulated coders get wrong, of rendered faces; None: exact labels
    coder_errors: float | None = None
    protocol: str = ""  # default: `default_protocol`
    weights: str = "tiny"  # of the normalizer: a shipped name or a path
    # folder of normalized images that somebody else made, taken in place of the normalizer's
    given: Path | None = None
    missing: str = "drop"  # what becomes of frames without one, of `norface_lib.datasets.given`
    identities: tuple[str, ...] = ()  # folders in `given`, or ("all",); none: it is of one identity
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
        self._source.check(self.task)
        if self._tested is not None:
            self._tested.check(self.task, "test_root")
        elif self.test_root or self.test_points or self.test_options:
            raise ValueError("test_root, test_points and test_options need test_data")
        if self.coder_errors is not None and "rendered" not in (self.dataset, self.test_dataset):
            raise ValueError(f"coder_errors are simulated on rendered faces, not on {self.data}")
        if self.backbone not in BACKBONES and not self.backbone.startswith("timm:"):
            raise ValueError(
                f"backbone must be one of {', '.join(BACKBONES)}, got {self.backbone!r}"
            )
        if unknown := sorted(set(self.rows) - set(ROWS)):
            raise ValueError(f"rows must be of {'; '.join(ROWS)}; got {'; '.join(unknown)}")
        if self._tested is not None and (wrong := [r for r in self.rows if r in OF_ONE_DATASET]):
            raise ValueError(f"{'; '.join(wrong)}: no rows across datasets; leave them out")
        if self.encoder and self.backbone == MINI_BACKBONE:
            raise ValueError("the backbone mini takes no weights; leave out encoder")
        if check_leakage(self.leakage) == "per-fold" and self.final:
            raise ValueError(
                "per-fold has a normalizer for each fold, and none for a final classifier"
            )
        if self.given is not None and (self._tested is not None or self.leakage != "pretrained"):
            raise ValueError(
                "given normalized images are of one dataset and of a normalizer that is not ours: "
                "leave out test_data, and the leakage pretrained"
            )
        if self.identities and self.given is None:
            raise ValueError("identities are folders of given: name that, too")
        if wrong := [au for au in self.aus if type(au) is not int or au < 1]:
            raise ValueError(f"aus must be numbers of the FACS, as in 12, got {wrong[0]!r}")
        task_of(self.task, (), self.loss)
        find_weights(self.weights)
        if min(self.steps, self.people, *self.seeds) < 0 or not self.seeds:
            raise ValueError(
                "steps, people and seeds must be at least 0, and there must be a seed; got "
                f"{self.steps}, {self.people} and {self.seeds}"
            )
        self.training.check(self.backbone, self.rows, self.steps)
        if not self.protocol:
            object.__setattr__(self, "protocol", default_protocol(self.dataset, self.test_dataset))
        across = f"{self.dataset}->{self.test_dataset}/"
        if self._tested is not None and not self.protocol.startswith(across):
            raise ValueError(f"protocol must begin with {across}, got {self.protocol!r}")

    def recipe(self, task: Task, normalizer: Normalizer) -> Recipe:
        """How each row is trained, but for what `ROWS` changes."""
        recipe = recipe_for(task, normalizer, self.backbone, self.steps)
        recipe = self.training.applied_to(recipe)
        return replace(recipe, balanced=self.balanced, encoder=self.encoder)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self._source.name

    @property
    def test_dataset(self) -> str:
        """Name of another dataset that is tested, or an empty text."""
        return "" if self._tested is None else self._tested.name

    @property
    def _source(self) -> DataSource:
        return DataSource(self.data, self.root, self.points, self.options)

    @property
    def _tested(self) -> DataSource | None:
        if self.test_data is None:
            return None
        return DataSource(self.test_data, self.test_root, self.test_points, self.test_options)

    def settings(self) -> dict[str, Any]:
        """For a result file: all but the folders of this machine."""
        folders = ("root", "points", "test_root", "test_points", "given")
        settings = {name: value for name, value in asdict(self).items() if name not in folders}
        ours = {} if self.given is None else {"given": self.given.name}
        return settings | ours

    def prepare(
        self,
        out: Path | None = None,
        device: str = "auto",
        progress: bool = True,
        workers: int | None = None,
    ) -> Prepared:
        """Normalizes the faces, splits them by the protocol, and embeds them for a frozen backbone.

        ``out``: folder for all that is made, default in the cache; what is there is used. The
        normalized faces, in ``out/normalized``, serve all tasks whose frames are the same. Faces
        are mapped from files, so a dataset may be larger than memory. ``workers``: processes that
        read and write, 0 for this one, default those of
        `norface_lib.common.devices.default_workers`. Raises :class:`DataError` if the dataset, its
        crop or its protocol does not fit.
        """
        settings = {
            "task": self.task,
            "weights": self.weights,
            "leakage": self.leakage,
            "tuning": self.tuning,
            "frozen": self.backbone == "frozen",
            "size": input_size(self.backbone),
            "device": device,
            "progress": progress,
            "workers": workers,
        }
        if self._tested is not None:
            return self._prepare_across(self._tested, out, settings)
        return prepare_identities(
            self._open(self._source, progress),
            self.identities,
            out=out or self._cache(self._source),
            protocol_name=self.protocol,
            given=self.given,
            missing=self.missing,
            **settings,
        )

    def _prepare_across(
        self, tested: DataSource, out: Path | None, settings: dict[str, Any]
    ) -> Prepared:
        """Both datasets, normalized each for itself, so that what is there of either is used."""
        workers = settings.pop("workers")
        how = (settings["device"], settings["progress"], workers)
        faces = []
        for side, source in (("source", self._source), ("target", tested)):
            data = self._open(source, settings["progress"])
            place = Path(out) / side if out else self._cache(source)
            place = place / "normalized"
            faces.append(normalized_pairs(data, place, self.weights, *how))
        sides = sides_of(*faces, (self.dataset, tested.name), self.task, self.aus)
        folder = Path(out or self._cache(self._source, tested)) / self.task
        split = self.protocol.partition("/")[2]
        return prepare_across(*sides, folder=folder, split=split, **settings)

    def _cache(self, *sources: DataSource) -> Path:
        """Folder of what is made of some data with the normalizer."""
        names = ("", "test_")  # of the settings, as the experiment names them
        settings = {}
        for name, source in zip(names, sources, strict=False):
            settings |= {f"{name}data": source.data, f"{name}root": source.root}
            settings |= {f"{name}options": source.options} if source.options else {}
        return cache("experiment", **settings, weights=sha256_of(find_weights(self.weights)))

    def _open(self, source: DataSource, progress: bool) -> FaceDataset:
        """A dataset with the labels of the task."""
        options: dict[str, Any] = {"task": self.task, "aus": self.aus or None}
        options |= {"coder_errors": self.coder_errors}
        if self.test_data is not None and source.name != "rendered":
            options = {"task": self.task}  # the others are of the rendered side
        data = source.opened(**options)
        if progress:
            print(data.report)
        return data

    def run(
        self,
        out: Path | None = None,
        *,
        prepared: Prepared | None = None,
        device: str = "auto",
        progress: bool = True,
        workers: int | None = None,
    ) -> Result:
        """Cross-validates each row on the same folds and seeds; an interrupted call goes on.

        ``prepared``: default what `prepare` makes. ``workers``: as of `prepare`, and processes that
        read for a training. With ``out``, it also writes ``out/<task>/result.json`` and the
        classifiers, ``out/<task>/weights``.
        """
        started = time.monotonic()
        prepared = prepared or self.prepare(out, device, progress, workers)
        how = {"device": device, "progress": progress, "workers": workers}
        task = task_of(self.task, prepared.outputs, self.loss)
        recipe = self.recipe(task, prepared.normalizer)

        rows = self._rows_of(prepared, task, recipe, how)
        about: dict[str, Any] = {
            "rows": rows,
            "task": task.name,
            "dataset": self.dataset,
            "splits": [split.name for split in prepared.splits],
            "seeds": tuple(self.seeds),
            "leakage": self.leakage,
            "counts": prepared.counts | {"train_and_test": prepared.fold_sizes(self.people)},
            "settings": {
                "experiment": self.settings(),
                "recipe": asdict(recipe),
                "weights": prepared.card["sha256"],
            },
            "started": started,
        }
        result = Result(**about)
        if self._tested is not None:
            about["dataset"] = f"{self.dataset}->{self.test_dataset}"
            in_domain = {}
            if own := prepared.in_domain:
                in_domain = self._rows_of(own, task, recipe, how)
                about["counts"] |= {"in_domain_train_and_test": own.fold_sizes(self.people)}
            result = CrossResult(**about, in_domain=in_domain)
        if out is None:
            return result
        first = processes().is_main_process  # of several, it alone writes
        if first:
            result.save_classifiers(prepared.folder / "weights")
        if self.final:
            train_final(prepared, result, self.backbone, **how)
        return result.write(prepared.folder / "result.json") if first else result

    def _rows_of(
        self, prepared: Prepared, task: Task, recipe: Recipe, how: dict[str, Any]
    ) -> dict[str, CrossValidation]:
        """Each row of the table, cross-validated."""
        start = prepared.normalizer if self.backbone == "tuned" else None
        rows = {}
        quiet = not how["progress"]
        bar = tqdm(self.rows, desc=task.name, unit="row", disable=quiet, leave=False)
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
                **how,
            )
        return rows
