"""Settings of a training that differ from its recipe: in Python, in a YAML file, by a profile."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import yaml

from norface_lib.common.errors import DataError
from norface_lib.networks.classifier import FUSIONS, ClassifierConfig
from norface_lib.networks.mixtures import check_top_k
from norface_lib.networks.routing import ROUTINGS
from norface_lib.studies.recipes import ROWS
from norface_lib.training.classifier import Recipe
from norface_lib.training.optimizer import base_rate

_COUNT = pd.Interval(1, 100_000_000, closed="both")
_POSITIVE = pd.Interval(0, 1_000_000, closed="neither")
_WEIGHT = pd.Interval(0, 1_000_000, closed="left")
_SHARE = pd.Interval(0, 1, closed="left")

_ALLOWED: Mapping[str, pd.Interval] = {
    **dict.fromkeys(("steps", "batch_size", "accumulate", "experts", "top_k", "hidden"), _COUNT),
    **dict.fromkeys(("epochs", "lr", "base_lr"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "importance", "load"), _WEIGHT),
    **dict.fromkeys(("drop_path", "warmup", "dropout"), _SHARE),
    "layer_decay": pd.Interval(0, 1, closed="right"),
}
"""Values of the settings that are numbers."""

_NAMES = {"fusion": FUSIONS, "routing": ROUTINGS}
"""Values of the settings that are texts."""

_EXCLUDING = {"steps": "epochs", "epochs": "steps", "lr": "base_lr", "base_lr": "lr"}
"""Of these pairs a training has one."""

OF_BACKBONE = ("layer_decay", "drop_path", "compile")
"""Settings of a backbone that is trained: a frozen one has none of them."""

BASE_RATES = {"au_detection": 1e-4, "au_intensity": 1e-3, "emotion": 2e-5}
"""The paper's base learning rates (PAPER.md 1.2)."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What differs from a recipe; None leaves it to `norface_lib.studies.recipes.recipe_for`.

    Raises ``ValueError`` for a value out of range, for steps beside epochs, and for ``lr`` beside
    ``base_lr``. Where neither of the latter is given, the recipe's rate goes with the batch.
    """

    steps: int | None = None  # of the optimizer
    epochs: float | None = None  # of the training rows, in place of steps
    batch_size: int | None = None  # of a pass, over all processes together
    accumulate: int | None = None  # passes of a step: the effective batch is batch_size times that
    lr: float | None = None  # the peak of the learning rate
    base_lr: float | None = None  # lr is base_lr x effective batch / 256
    layer_decay: float | None = None  # the rate of a layer, as a share of that behind it
    drop_path: float | None = None  # stochastic depth of the backbone
    warmup: float | None = None  # share of the training
    weight_decay: float | None = None
    experts: int | None = None  # m
    top_k: int | None = None  # k, at most m
    input_mixture: bool | None = None
    output_mixture: bool | None = None
    fusion: str | None = None  # one of FUSIONS
    hidden: int | None = None  # width inside an expert
    dropout: float | None = None  # of the embeddings
    importance: float | None = None  # weight of the importance loss of the gates
    load: float | None = None  # weight of their load loss
    routing: str | None = None  # one of ROUTINGS
    shared_expert: bool | None = None  # one more expert, for all samples
    compile: bool | None = None  # the backbone, by torch.compile
    # bfloat16; None: for a backbone that is trained, where the hardware multiplies it
    amp: bool | None = None
    watch: bool | None = None  # test rows are scored once an epoch, for the oracle alone

    def __post_init__(self):
        for name, value in self.given().items():
            if refusal := _refusal(name, value):
                raise ValueError(refusal)
            if _EXCLUDING.get(name) in self.given():
                raise ValueError(f"give {name} or {_EXCLUDING[name]}, not both")
        experts = self.experts or ClassifierConfig.experts
        check_top_k(experts, self.top_k or min(ClassifierConfig.top_k, experts))

    def check(self, backbone: str, rows: Sequence[str], steps: int) -> None:
        """Raises ``ValueError`` for settings that do not fit a backbone, the rows of a table or the
        ``steps`` of an experiment."""
        given = self.given()
        if steps and {"steps", "epochs"} & set(given):
            raise ValueError("give the length of a training once: steps, or those of training")
        if backbone == "frozen" and (wrong := [name for name in OF_BACKBONE if name in given]):
            raise ValueError(
                f"{', '.join(wrong)}: a frozen backbone has none; train it with tuned, scratch or "
                "timm:NAME"
            )
        for mixture in ("input_mixture", "output_mixture"):
            compared = [name for name in rows if mixture in ROWS[name]]
            if mixture in given and compared:
                raise ValueError(
                    f"{mixture} is what the row {compared[0]!r} decides; leave it out of training"
                )

    def given(self) -> dict[str, Any]:
        """The settings that are not left to the recipe."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def changed_by(self, other: "TrainingSettings") -> "TrainingSettings":
        """These settings, but for those that ``other`` gives; its steps replace epochs, and its lr
        a base_lr."""
        given = other.given()
        dropped = {_EXCLUDING[name]: None for name in given if name in _EXCLUDING}
        return replace(self, **(dropped | given))

    def applied_to(self, recipe: Recipe) -> Recipe:
        """The recipe with these settings."""
        given = self.given()
        config = _renamed(given, _OF_CONFIG)
        if self.experts is not None and self.top_k is None:
            config["top_k"] = min(recipe.config.top_k, self.experts)
        before = recipe.training
        training = replace(before, **_renamed(given, _OF_TRAINING))
        if self.lr is None:
            base = self.base_lr or before.learning_rate * 256 / before.effective_batch
            training = replace(training, learning_rate=base_rate(base, training.effective_batch))
        return replace(
            recipe,
            config=replace(recipe.config, **config),
            training=training,
            **_renamed(given, _OF_RECIPE),
        )

    @classmethod
    def from_file(cls, path: Path) -> "TrainingSettings":
        """The settings of a YAML file, by the names above.

        Raises :class:`DataError` if it cannot be read, for an unknown name and for a wrong value.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: no readable YAML file ({reason})") from error
        if not isinstance(content, dict):
            raise DataError(f"{path}: must hold settings of a training, as in epochs: 40")
        names = [field.name for field in fields(cls)]
        if unknown := [str(name) for name in content if name not in names]:
            raise DataError(
                f"{path}: no setting {', '.join(unknown)}; there are {', '.join(names)}"
            )
        try:
            return cls(**{name: _number(name, value) for name, value in content.items()})
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error


_OF_CONFIG = {
    name: name
    for name in (
        *("experts", "top_k", "input_mixture", "output_mixture", "fusion", "hidden"),
        *("dropout", "routing", "shared_expert"),
    )
} | {"drop_path": "drop_path_rate"}

_OF_TRAINING = {
    name: name
    for name in (
        *("steps", "batch_size", "accumulate", "layer_decay", "warmup", "weight_decay"),
        "amp",
    )
} | {"lr": "learning_rate"}

_OF_RECIPE = {name: name for name in ("epochs", "importance", "load", "compile", "watch")}


def paper_settings(task: str) -> TrainingSettings:
    """What is established of the paper's training of F_cla (PAPER.md 1.2): 40 epochs, base rates,
    m = 4, k = 2 and weights of 0.001. All else is left to the recipe, and our choice."""
    return TrainingSettings(
        epochs=40,
        base_lr=BASE_RATES[task],
        experts=4,
        top_k=2,
        importance=1e-3,
        load=1e-3,
    )


def _renamed(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in given.items() if name in names}


def _kind(name: str) -> type:
    """Type of a setting: int, float, bool or str."""
    return get_args(TrainingSettings.__dataclass_fields__[name].type)[0]


def _number(name: str, value: Any) -> Any:
    """A value of a YAML file, for which 1e-4 is a text and only 1.0e-4 a number."""
    if _kind(name) is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _refusal(name: str, value: Any) -> str:
    """What is wrong with the value of a setting, or an empty text."""
    kind = _kind(name)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if type(value) is not kind and not (kind is float and type(value) is int):
        return f"{name} must be {words[kind]}, got {value!r}"
    if name in _ALLOWED and value not in _ALLOWED[name]:
        return f"{name} must be within {_ALLOWED[name]}, got {value}"
    if name in _NAMES and value not in _NAMES[name]:
        return f"{name} must be one of {', '.join(_NAMES[name])}, got {value!r}"
    return ""
