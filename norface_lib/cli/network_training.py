"""Commands that train the normalizer, the token reader and the evaluator."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from norface_lib.cli import checks
from norface_lib.cli.checks import MOST_STEPS
from norface_lib.cli.options import (
    DeviceOption,
    Layout,
    LoaderOption,
    NetworkOption,
    NormalizerOption,
    PointsOption,
    PresetOption,
    SeedOption,
    StartOption,
    TermOption,
)
from norface_lib.cli.output import show

if TYPE_CHECKING:
    from norface_lib.datasets.base import FaceDataset

app = typer.Typer()
_PANEL = "Training"


@app.command(rich_help_panel=_PANEL)
def train_normalizer(
    data: Annotated[Path, typer.Argument(help="a rendered benchmark of the pool pretrain")],
    out: Annotated[Path, typer.Argument(help="folder for checkpoints, logs and the weights")],
    preset: PresetOption = "tiny",
    masked_steps: Annotated[
        int,
        typer.Option(min=0, max=MOST_STEPS, help="steps of masked autoencoding; 0 leaves it out"),
    ] = 0,
    expression_steps: Annotated[
        int,
        typer.Option(min=0, max=MOST_STEPS, help="steps of the expression stage; 0 leaves it out"),
    ] = 2000,
    drawing_steps: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_STEPS,
            help="steps in which the decoder alone learns to draw AU intensities, for a preset "
            "that can (tiny-224); 0 leaves it out",
        ),
    ] = 0,
    synthesis_steps: Annotated[
        int, typer.Option(min=1, max=MOST_STEPS, help="steps of the synthesis stage")
    ] = 3500,
    code_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="share of the faces that the synthesis stage goes on drawing from their AU "
            "intensities alone",
        ),
    ] = 0.0,
    frozen_encoder: Annotated[
        bool,
        typer.Option(
            "--frozen-encoder",
            help="leave the encoder as it was begun with, as by --encoder READER",
        ),
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_STEPS, help="faces of a step; default: each stage's own"),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    start: StartOption = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="weights for the encoder: of a token reader (shipped name or path), or of a ViT "
            "(a file, or timm:NAME)",
            callback=checks.encoder,
        ),
    ] = None,
    faces: Annotated[
        Path | None,
        typer.Option(
            help="faces without true normalized images, to train on too: a folder of aligned "
            "faces, or a dataset; with --term expression, identity or adversarial, or "
            "--masked-steps"
        ),
    ] = None,
    layout: Annotated[
        Layout, typer.Option(help="for --faces: a folder of images, or a dataset of this layout")
    ] = "folder",
    points: PointsOption = None,
    option: LoaderOption = None,
    unpaired_share: Annotated[
        float,
        typer.Option(min=0.01, max=0.99, help="share of a batch that --faces make up"),
    ] = 0.5,
    degraded: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="share of the originals that are degraded: gray, blurred, noisy, occluded...",
        ),
    ] = 0.0,
    name: Annotated[
        str | None,
        typer.Option(help="name of the weights; default: the preset's", callback=checks.file_name),
    ] = None,
    term: TermOption = None,
    network: NetworkOption = None,
    terms: Annotated[
        str,
        typer.Option("--license", help="license for the card, which the faces decide"),
    ] = "MIT; the target face is rendered from CC0 assets and is nobody",
) -> None:
    """Train a normalizer on rendered pairs, and on photographs too if --faces is set. To resume
    after a stop, run the same command again."""
    from dataclasses import replace

    from norface_lib.training.normalizer import NormalizerTraining
    from norface_lib.training.normalizer_recipe import train_and_save
    from norface_lib.training.normalizer_terms import terms_of

    losses = replace(
        terms_of(term or [], network or []),
        degraded_share=degraded,
        code_share=code_share,
        unpaired_share=unpaired_share,
    )
    more = None
    if faces is not None:
        if not masked_steps and not losses.weights.unpaired:
            raise typer.BadParameter(
                "--faces teach nothing without a term that needs no true image: --term "
                "expression=1, identity=1 or adversarial=0.1, or --masked-steps"
            )
        more = _opened(faces, layout, points, option)
    training = NormalizerTraining.of_steps(
        expression_steps,
        synthesis_steps,
        seed=seed,
        masked=masked_steps,
        drawing=drawing_steps,
        batch_size=batch_size,
        terms=losses,
        frozen_encoder=frozen_encoder,
    )
    path = train_and_save(
        data,
        out,
        preset=preset,
        training=training,
        device=device,
        start=start,
        encoder=encoder,
        faces=more,
        name=name,
        terms=terms,
    )
    show(f"the weights are in {path}", files=[path])


def _opened(
    faces: Path, layout: str, points: Path | None, option: list[str] | None
) -> "FaceDataset":
    """A folder of aligned faces, or a dataset whose frames are cropped by a table of points."""
    from norface_lib.datasets import open_dataset
    from norface_lib.datasets.options import read_options

    data = open_dataset(layout, faces, **read_options(layout, option or ()))
    return data if points is None else data.aligned_by(points)


@app.command(rich_help_panel=_PANEL)
def train_encoder(
    faces: Annotated[
        Path, typer.Argument(help="a folder of aligned faces, or a dataset; no labels are needed")
    ],
    out: Annotated[Path, typer.Argument(help="folder for the checkpoint, the log and the weights")],
    layout: Annotated[
        Layout, typer.Option(help="a folder of images, or a dataset of this layout")
    ] = "folder",
    points: PointsOption = None,
    option: LoaderOption = None,
    preset: PresetOption = "tiny",
    steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="steps of the training")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="faces of a step")] = 64,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    name: Annotated[
        str, typer.Option(help="name of the weights", callback=checks.file_name)
    ] = "encoder",
    terms: Annotated[
        str, typer.Option("--license", help="license for the card, which the faces decide")
    ] = "MIT",
) -> None:
    """Train an encoder on faces without labels, as a masked autoencoder: a start for --encoder of
    other trainings. To resume after a stop, run the same command again."""
    from norface_lib.training.encoder_recipe import pretrain_and_save

    path = pretrain_and_save(
        _opened(faces, layout, points, option),
        out,
        preset=preset,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        name=name,
        terms=terms,
    )
    show(f"the weights are in {path}", files=[path])


@app.command(rich_help_panel=_PANEL)
def train_evaluator(
    data: Annotated[Path, typer.Argument(help="a rendered benchmark of the pool evaluator")],
    out: Annotated[Path, typer.Argument(help="folder for the checkpoint, the log and the weights")],
    steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="steps of the training")] = 1500,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    start: StartOption = None,
) -> None:
    """Train the network that evaluates normalizers. To resume after a stop, run the same command
    again."""
    from norface_lib.training.evaluator import train_and_save

    path = train_and_save(data, out, steps=steps, seed=seed, device=device, start=start)
    show(f"the weights are in {path}", files=[path])


@app.command(rich_help_panel=_PANEL)
def train_reader(
    out: Annotated[Path, typer.Argument(help="folder for the checkpoint, the log and the weights")],
    data: Annotated[
        list[Path],
        typer.Argument(
            help="benchmarks to learn from: rendered, and pseudo-pairs made with --teacher"
        ),
    ],
    share: Annotated[
        list[float] | None,
        typer.Option(
            min=0, max=1, help="share of a batch, one for each of DATA in turn; default: all alike"
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="a rendered benchmark of other people, which sets the thresholds of AUs together "
            "with the neutral photographs of DATA"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="steps of the training")] = 5000,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    start: NormalizerOption = "tiny-photo",
    name: Annotated[
        str, typer.Option(help="name of the weights", callback=checks.file_name)
    ] = "reader",
    terms: Annotated[
        str,
        typer.Option("--license", help="license for the card, which the pictures of DATA decide"),
    ] = "MIT",
) -> None:
    """Train a token reader: AUs of either side, their occurrence and the emotion, from rendered
    faces and photographs. To resume after a stop, run the same command again."""
    from norface_lib.training.reader_recipe import train_and_save
    from norface_lib.training.token_reader import ReaderTraining

    path = train_and_save(
        data,
        out,
        shares=share or [1 / len(data)] * len(data),
        training=ReaderTraining.of_steps(steps, seed),
        calibration=calibrate,
        terms=terms,
        start=start,
        name=name,
        device=device,
    )
    show(f"the weights are in {path}", files=[path])


@app.command(rich_help_panel=_PANEL)
def train_sides(
    out: Annotated[Path, typer.Argument(help="folder for the checkpoint, the log and the weights")],
    data: Annotated[
        Path,
        typer.Argument(help="a rendered benchmark to learn from, made with --one-sided 1"),
    ],
    calibrate: Annotated[
        Path,
        typer.Option(
            help="a rendered benchmark of other people, made with --one-sided 0.5, which sets what "
            "counts as no difference"
        ),
    ],
    steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="steps of the training")] = 1500,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    start: Annotated[str, typer.Option(help="name or path of the token reader")] = (
        "tiny-photo-reader"
    ),
    name: Annotated[
        str, typer.Option(help="name of the weights", callback=checks.file_name)
    ] = "reader",
) -> None:
    """Teach a token reader to tell left from right, by rendered faces that move one side alone.
    To resume after a stop, run the same command again."""
    from norface_lib.training.reader_recipe import train_sides_and_save

    path = train_sides_and_save(
        data,
        out,
        calibration=calibrate,
        steps=steps,
        seed=seed,
        start=start,
        name=name,
        device=device,
    )
    show(f"the weights are in {path}", files=[path])
