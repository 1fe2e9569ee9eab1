"""The command that trains and tests classifiers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from norface_lib.cli import checks
from norface_lib.cli.checks import MOST_STEPS
from norface_lib.cli.options import (
    Dataset,
    DeviceOption,
    Input,
    Leakage,
    LoaderOption,
    Missing,
    NetworkOption,
    NormalizerOption,
    PointsOption,
    Task,
    TermOption,
    WorkersOption,
)
from norface_lib.cli.output import show
from norface_lib.cli.training_settings import (
    ConfigOption,
    TrainingProfileOption,
    chosen_backbone,
    chosen_settings,
    with_training_settings,
)

if TYPE_CHECKING:
    from norface_lib.studies.result import Result

app = typer.Typer()
_PANEL = "Training"


@app.command(rich_help_panel=_PANEL)
@with_training_settings
def train(
    root: Annotated[
        Path, typer.Argument(help="folder of a dataset whose frames are aligned faces")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="folder for normalized faces and, for each task, logs, weights and result.json"
        ),
    ],
    task: Annotated[Task, typer.Option(help="what the classifier learns")] = "au_detection",
    dataset: Annotated[Dataset, typer.Option(help="the dataset at ROOT")] = "rendered",
    test_dataset: Annotated[
        Dataset | None,
        typer.Option(help="test on this dataset instead, by the labels that both have"),
    ] = None,
    test_root: Annotated[
        Path | None, typer.Option(help="for --test-dataset: its folder of aligned faces")
    ] = None,
    test_points: Annotated[
        Path | None, typer.Option(help="for --test-dataset: its points.csv, as --points")
    ] = None,
    test_option: Annotated[
        list[str] | None,
        typer.Option(
            help="for --test-dataset: NAME=VALUE of its loader, as --option",
            callback=checks.loader,
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="such as disfa/3fold, rendered/5fold-seed0 or bp4d->disfa/3fold; default: the "
            "dataset's usual one",
            callback=checks.protocol,
        ),
    ] = "",
    weights: NormalizerOption = "tiny",
    normalized: Annotated[
        Path | None,
        typer.Option(
            help="folder of normalized images that somebody else made, with the paths of the "
            "dataset's frames, in place of the normalizer's"
        ),
    ] = None,
    missing: Annotated[
        Missing,
        typer.Option(help="for --normalized: leave out frames without one, or show their original"),
    ] = "drop",
    identities: Annotated[
        str | None,
        typer.Option(
            help="for --normalized with a folder for each target identity: their names, as in a+b, "
            "or all; trained on one by chance for each sample, tested on the mean over them",
            callback=checks.identities,
        ),
    ] = None,
    option: LoaderOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="the normalizer's encoder, frozen or tuned (fine-tuned); scratch: from random "
            "initialization; mini: a small residual network, likewise; or timm:NAME; default: "
            "frozen, or tuned with --profile paper",
            callback=checks.backbone,
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="weights of a backbone that is trained: a file, or timm:NAME",
            callback=checks.encoder,
        ),
    ] = "",
    inputs: Annotated[
        list[Input] | None,
        typer.Option(help="images that the classifier gets; may be repeated; default: all three"),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            help="bce, dice, asymmetric; mse, smooth_l1, ccc, ordinal; ce; or a sum such as "
            "bce+dice; default: the task's own",
            callback=checks.loss,
        ),
    ] = "",
    seeds: Annotated[
        str,
        typer.Option(help="seeds, as in 0,1,2: one training for each", callback=checks.seeds),
    ] = "0",
    balanced: Annotated[
        bool, typer.Option(help="sample rare classes as often as common ones")
    ] = False,
    leakage: Annotated[
        Leakage,
        typer.Option(
            help="faces of the dataset that the normalizer is fine-tuned on: none, those of each "
            "training fold, or all (without labels)"
        ),
    ] = "pretrained",
    final: Annotated[
        bool, typer.Option(help="also train a classifier on all faces, to use it")
    ] = False,
    tuning_steps: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_STEPS,
            help="steps of the normalizer's fine-tuning, for --leakage per-fold and all",
        ),
    ] = 200,
    term: TermOption = None,
    network: NetworkOption = None,
    points: PointsOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    profile: TrainingProfileOption = None,
    config: ConfigOption = None,
    export: Annotated[
        str | None,
        typer.Option(
            help="also write the tables into OUT/<task>/tables, as csv, latex, markdown, or "
            "several: csv,latex",
            callback=checks.formats,
        ),
    ] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Cross-validate a classifier by a dataset's protocol and print the table. To resume after a
    stop, run the same command again.

    With --test-dataset it learns from the people of ROOT and is tested on those of the other
    dataset, beside the same rows trained on the other dataset's own people.

    --term and --network belong to the normalizer's fine-tuning.
    """
    from norface_lib.datasets.options import read_options
    from norface_lib.networks.classifier import INPUTS
    from norface_lib.studies.experiment import UNPAIRED_WEIGHTS, Experiment
    from norface_lib.studies.experiment_tables import export_tables
    from norface_lib.training.normalizer import NormalizerTraining
    from norface_lib.training.normalizer_terms import terms_of

    terms = terms_of([*UNPAIRED_WEIGHTS, *(term or [])], network or [])
    experiment = Experiment(
        task=task,
        data=dataset,
        root=root,
        points=points,
        test_data=test_dataset,
        test_root=test_root,
        test_points=test_points,
        options=read_options(dataset, option or ()),
        test_options=read_options(test_dataset, test_option or ()) if test_dataset else {},
        protocol=protocol,
        weights=weights,
        given=normalized,
        missing=missing,
        identities=tuple(identities.split("+")) if identities else (),
        leakage=leakage,
        tuning=NormalizerTraining.of_steps(0, tuning_steps, terms=terms),
        backbone=chosen_backbone(backbone, profile),
        encoder=encoder,
        rows=tuple(str(name) for name in inputs or INPUTS),
        loss=loss,
        training=chosen_settings(task, profile, config, given),
        seeds=tuple(int(seed) for seed in seeds.split(",")),
        balanced=balanced,
        final=final,
    )
    result = experiment.run(out, device=device, workers=workers)
    if result.path is None:  # the first of several processes writes
        return
    files = [result.path]
    if export:
        files += export_tables(result.tables(), out / task / "tables", export.split(","))
    show(result.report(), files=files, scores=_scores(result))


def _scores(result: "Result") -> dict[str, float]:
    """The one number of each row that is quoted."""
    return {name: float(row.score) for name, row in result.rows.items()}
