"""An experiment on the normalizer itself: small networks are trained, each with or without a part,
and measured on people whom none of them has met.

Nothing is chosen on the tested people: all settings are fields, set before.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from norface_lib.common.paths import cache
from norface_lib.common.records import write_result
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.writing import write_benchmark
from norface_lib.images.arrays import Faces, resized, to_tensor
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.photos.read_and_render import ReadAndRender
from norface_lib.studies.leakage_probes import Probes, identity_leakage
from norface_lib.studies.person_distances import Distances, distances_by_person, with_ratios
from norface_lib.training.loop import logged_seconds
from norface_lib.training.normalizer import NormalizerTraining, train_normalizer
from norface_lib.training.normalizer_terms import SynthesisTerms

TRUTHS: Mapping[str, str] = {
    "rendered": "the target's head with the AUs that the original was rendered with",
    "read": "pseudo-pairs: the target's head with the AUs that a token reader sees in the original",
}
"""What a normalizer can learn from as the true I_n."""

TESTED = ("lab", "wild")
"""Pools of the tested people."""


@dataclass(frozen=True, kw_only=True)
class NormalizerData:
    """Faces to learn from and, by pool, faces to test on, at the size of the network; and how well
    a probe names the tested people by their originals and by the true I_n."""

    learned: Rendered
    tested: Mapping[str, Rendered]
    identity: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class NormalizerExperiment:
    """A normalizer, what it learns from, and whom it is tested on.

    Faces are rendered at the size of ``data`` and shrunk to that of the network. Raises
    ``ValueError`` for settings that do not fit together.
    """

    data: BenchmarkSpec  # people to learn from
    people: int = 0  # of these, the first ones, with a true I_n; 0: all that are not unpaired
    unpaired_people: int = 0  # and the next ones, without a true I_n
    truths: str = "rendered"  # one of TRUTHS
    network: NormalizerConfig = field(default_factory=NormalizerConfig)
    expression_steps: int = 1000  # of the first stage; 0 leaves it out
    synthesis_steps: int = 1000
    batch_size: int = 32
    rate: float = 1.0  # factor of the recipe's learning rates
    terms: SynthesisTerms = field(default_factory=SynthesisTerms)
    tested_people: int = 60  # of each pool of TESTED
    tested_frames: int = 10  # of each person
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self):
        if self.data.pool in TESTED:
            raise ValueError(f"people of {', '.join(TESTED)} are tested: learn from another pool")
        if self.truths not in TRUTHS:
            raise ValueError(f"truths must be one of {', '.join(TRUTHS)}, got {self.truths!r}")
        if self.truths == "read" and len(self.data.targets) > 1:
            raise ValueError("truths that are read are of one target")
        used = (self.people or 1) + self.unpaired_people
        if min(self.people, self.unpaired_people) < 0 or used > self.data.subjects:
            raise ValueError(
                f"data has {self.data.subjects} people: people {self.people} and unpaired_people "
                f"{self.unpaired_people} cannot be chosen from them"
            )
        if self.unpaired_people and not self.terms.weights.unpaired:
            raise ValueError("unpaired people teach nothing without a term that needs no true I_n")
        if min(self.tested_people, self.tested_frames) < 2:
            raise ValueError("at least two people with two frames each must be tested")
        if not 0 < self.rate < 100:
            raise ValueError(f"rate must be within (0, 100), got {self.rate}")
        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"there must be seeds of at least 0, got {self.seeds}")
        self.training(0)

    def training(self, seed: int) -> NormalizerTraining:
        """How it is trained from a seed."""
        training = NormalizerTraining.of_steps(
            self.expression_steps,
            self.synthesis_steps,
            seed,
            batch_size=self.batch_size,
            terms=self.terms,
        )
        stages = {
            name: replace(stage, learning_rate=self.rate * stage.learning_rate)
            for name, stage in training.stages.items()
        }
        return replace(training, **stages)

    def settings(self) -> dict[str, Any]:
        """For a result file."""
        return asdict(self)

    @property
    def data_key(self) -> str:
        """A text that is the same for experiments that `prepare` prepares alike."""
        size = self.network.size
        return repr((self.data, size, self.truths, self.tested_people, self.tested_frames))

    @property
    def work(self) -> float:
        """Faces that it trains on: only the share of the whole matters."""
        steps = self.expression_steps + self.synthesis_steps
        return float(steps * self.batch_size * len(self.seeds))

    def prepare(self, device: str = "auto", progress: bool = True) -> NormalizerData:
        """Renders the faces, in the cache, and reads them into memory at the network's size."""
        learned = _faces(self.data, self.network.size, progress)
        if self.truths == "read":
            learned.truths = _read_truths(self.data, self.network.size, device)
        tested = {}
        identity = {}
        for pool in TESTED:
            spec = BenchmarkSpec(
                pool=pool,
                subjects=self.tested_people,
                frames=self.tested_frames,
                size=self.data.size,
                target=self.data.targets[0],
            )
            faces = tested[pool] = _faces(spec, self.network.size, progress)
            images = {"original": faces.originals, "truth": faces.truths}
            identity[pool] = _identity(images, faces)
        return NormalizerData(learned=learned, tested=tested, identity=identity)

    def run(
        self,
        *,
        prepared: NormalizerData | None = None,
        device: str = "auto",
        progress: bool = True,
    ) -> "NormalizerResult":
        """Trains the network from each seed and measures it; an interrupted training goes on."""
        started = time.monotonic()
        prepared = prepared or self.prepare(device, progress)
        paired, unpaired = self._people(prepared.learned)
        trained = []
        for seed in self.seeds:
            folder = self._folder(seed)
            model = train_normalizer(
                paired,
                self.network,
                self.training(seed),
                folder=folder,
                device=device,
                progress=progress,
                faces=None if unpaired is None else unpaired.originals,
            )
            seconds = sum(
                logged_seconds(folder / f"{stage}.jsonl") for stage in self.training(seed).stages
            )
            trained.append({"seconds": seconds} | _measured(model, prepared.tested))
        counts = {"faces": len(paired), "unpaired_faces": 0 if unpaired is None else len(unpaired)}
        counts |= {f"tested_{pool}": len(faces) for pool, faces in prepared.tested.items()}
        counts["parameters"] = sum(one.numel() for one in model.parameters())
        return NormalizerResult(
            experiment=self,
            measured={
                pool: _over_seeds([one[pool] for one in trained]) | {"probes": dict(identity)}
                for pool, identity in prepared.identity.items()
            },
            seconds=[round(one["seconds"], 1) for one in trained],
            counts=counts,
            started=started,
        )

    def _people(self, learned: Rendered) -> tuple[Rendered, Rendered | None]:
        """Faces with and without a true I_n."""
        names = np.unique(learned.subjects)
        paired = self.people or len(names) - self.unpaired_people
        part = learned.select(np.isin(learned.subjects, names[:paired]))
        if not self.unpaired_people:
            return part, None
        others = names[paired : paired + self.unpaired_people]
        return part, learned.select(np.isin(learned.subjects, others))

    def _folder(self, seed: int) -> Path:
        """Of a training, in the cache."""
        others = ("seeds", "tested_people", "tested_frames")
        settings = {name: value for name, value in self.settings().items() if name not in others}
        return cache("normalizer-experiment", **settings, seed=seed)


@dataclass(frozen=True, kw_only=True)
class NormalizerResult:
    """What was measured of the networks of an experiment, by pool of the tested people."""

    experiment: NormalizerExperiment
    measured: Mapping[str, Mapping[str, Any]]
    seconds: list[float]  # of each training
    counts: dict[str, int]
    started: float  # time.monotonic()

    def write(self, path: Path) -> "NormalizerResult":
        """Writes the result file, with seeds, counts, settings, machine and versions."""
        write_result(
            path,
            {"normalizer": dict(self.measured), "training_seconds": self.seconds},
            seed=list(self.experiment.seeds),
            started=self.started,
            counts=self.counts,
            leakage="pretrained",
            settings={"experiment": self.experiment.settings()},
        )
        return self


def _faces(spec: BenchmarkSpec, size: int, progress: bool) -> Rendered:
    """A rendered benchmark in memory, shrunk to a size."""
    data = Rendered(write_benchmark(spec, cache(spec.pool, spec=spec), progress=progress))
    return Rendered.from_arrays(
        data.table.assign(subject=data.subjects),
        originals=resized(data.originals, size),
        truths=resized(data.truths, size),
        targets=resized(data.targets, size),
        names=data.names,
    )


def _read_truths(spec: BenchmarkSpec, size: int, device: str) -> Faces:
    """What a token reader makes of the originals, rendered with the target's head."""
    folder = write_benchmark(spec, cache(spec.pool, spec=spec), progress=False)
    drawing = ReadAndRender(target=spec.target, size=spec.size, device=device)
    originals = Rendered(folder).originals
    batches = np.array_split(originals, max(1, len(originals) // 256))
    return np.concatenate([resized(drawing.draw(batch), size) for batch in batches])


def _measured(model: Normalizer, tested: Mapping[str, Rendered]) -> dict[str, Any]:
    """Distances by person of each pool, and how well a probe names people by I_n."""
    measured = {}
    for pool, faces in tested.items():
        normalized = normalize_faces(model, to_tensor(faces.target), faces.originals)
        measured[pool] = {
            "distances": distances_by_person(faces, normalized),
            "identity": _identity({"normalized": normalized}, faces)["normalized"],
        }
    return measured


def _identity(images: dict[str, Faces], faces: Rendered) -> dict[str, float]:
    """How many times more often than by chance the better of two probes names the person, for each
    kind of images."""
    probes = Probes(side=faces.originals.shape[1])
    leakage = identity_leakage(images, faces.subjects, probes)
    return {
        name: max(leakage[name][f"{probe}_times_chance"] for probe in ("linear", "nonlinear"))
        for name in images
    }


def _over_seeds(trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean measures of the trainings of a pool, with the ratio and the distances of each person."""
    distances: list[Distances] = [one["distances"] for one in trained]
    mean = {name: np.mean([one[name] for one in distances], axis=0) for name in distances[0]}
    return {
        **with_ratios(mean),
        "each_training": [float(np.divide(*one["face"].sum(axis=0))) for one in distances],
        "identity": float(np.mean([one["identity"] for one in trained])),
        "by_person": mean["face"].round(6).tolist(),
    }
