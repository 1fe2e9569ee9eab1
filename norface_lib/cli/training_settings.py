"""Options of `train` for the settings of a training, a YAML file of them, and the paper's."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from norface_lib.studies.settings import TrainingSettings

Fusion = Literal["concat", "sum", "gated"]
Routing = Literal["noisy", "bias", "expert-choice"]
TrainingProfile = Literal["paper"]

_PANEL = "Settings of the training (default: what suits the backbone)"
_MOST = 100_000_000


def _finite(number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is no finite number")
    return number


def _count(text: str) -> Any:
    option = typer.Option(min=1, max=_MOST, help=text, rich_help_panel=_PANEL)
    return Annotated[int | None, option]


def _number(text: str, most: float = 1_000_000) -> Any:
    option = typer.Option(
        min=0, max=most, help=text, callback=_finite, rich_help_panel=_PANEL, show_default=False
    )
    return Annotated[float | None, option]


def _switch(text: str) -> Any:
    return Annotated[bool | None, typer.Option(help=text, rich_help_panel=_PANEL)]


OPTIONS: Mapping[str, Any] = {
    "steps": _count("steps of each training"),
    "epochs": _number("epochs of the training rows, in place of --steps"),
    "batch_size": _count("samples of a pass, over all processes together"),
    "accumulate": _count("passes that make one step: the effective batch is as many batches"),
    "lr": _number("peak of the learning rate"),
    "base_lr": _number("in place of --lr, which is this x effective batch / 256"),
    "layer_decay": _number("rate of each layer, as a share of that of the layer behind it", 1),
    "drop_path": _number("stochastic depth of the backbone", 1),
    "warmup": _number("share of the training in which the rate rises", 1),
    "weight_decay": _number("decay of matrices and kernels"),
    "experts": _count("experts of each mixture (m)"),
    "top_k": _count("experts that a gate keeps (k)"),
    "input_mixture": _switch("a mixture of experts at the input, or a dense network"),
    "output_mixture": _switch("a mixture of experts at the output, or a dense network"),
    "fusion": Annotated[
        Fusion | None,
        typer.Option(help="how both faces become one feature", rich_help_panel=_PANEL),
    ],
    "hidden": _count("width inside an expert"),
    "dropout": _number("dropout of the embeddings", 1),
    "importance": _number("weight of the importance loss of the gates"),
    "load": _number("weight of the load loss of the gates"),
    "routing": Annotated[
        Routing | None,
        typer.Option(
            help="how samples and experts find each other: noisy gates with the two losses, a bias "
            "in their place, or experts that choose",
            rich_help_panel=_PANEL,
        ),
    ],
    "shared_expert": _switch("one more expert in each mixture, for all samples"),
    "compile": _switch("compile a backbone that is trained (torch.compile)"),
    "amp": _switch(
        "train in bfloat16; default: a backbone that is trained, where the hardware multiplies it"
    ),
    "watch": _switch("score the test fold at most once an epoch, for the oracle alone"),
}
"""An option for each field of `norface_lib.studies.settings.TrainingSettings`."""


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of these settings, as in epochs: 40; what the command line gives counts "
        "more",
        rich_help_panel=_PANEL,
    ),
]
TrainingProfileOption = Annotated[
    TrainingProfile | None,
    typer.Option(
        help="what is known of the paper's training: 40 epochs, base rate 1e-4 (detection), 1e-3 "
        "(intensity), 2e-5 (emotion), m = 4, k = 2, weights 0.001; whole network; --config and "
        "the command line count more",
        rich_help_panel=_PANEL,
    ),
]


def with_training_settings(function: Callable[..., None]) -> Callable[..., None]:
    """The function of a command, with ``OPTIONS`` in place of its parameter ``given``, a dictionary
    of their values."""
    signature = inspect.signature(function)
    own = [parameter for name, parameter in signature.parameters.items() if name != "given"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, default=None, annotation=annotation)
        for name, annotation in OPTIONS.items()
    ]

    @wraps(function)
    def command(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in OPTIONS}
        function(**arguments, given=given)

    command.__signature__ = signature.replace(parameters=[*own, *added])
    annotations = {name: each for name, each in function.__annotations__.items() if name != "given"}
    command.__annotations__ = annotations | dict(OPTIONS)
    return command


def chosen_settings(
    task: str, profile: str | None, config: Path | None, given: Mapping[str, Any]
) -> "TrainingSettings":
    """The settings of a profile, changed by those of a file, changed by those of the command line.
    Raises what `TrainingSettings` and its ``from_file`` do."""
    from norface_lib.studies.settings import TrainingSettings, paper_settings

    settings = paper_settings(task) if profile == "paper" else TrainingSettings()
    if config is not None:
        settings = settings.changed_by(TrainingSettings.from_file(config))
    return settings.changed_by(TrainingSettings(**given))


def chosen_backbone(backbone: str | None, profile: str | None) -> str:
    """The backbone that was asked for; by default frozen, and tuned as in the paper with its
    profile. The latter refuses a frozen one."""
    if profile == "paper" and backbone == "frozen":
        raise typer.BadParameter(
            "the paper trains the whole network: choose tuned, scratch or timm:NAME, or leave out "
            "--profile paper",
            param_hint="'--backbone'",
        )
    return backbone or ("tuned" if profile == "paper" else "frozen")
