"""Commands that measure normalizers and readers."""

from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli import checks
from norface_lib.cli.options import (
    Domain,
    FramesOption,
    NormalizerOption,
    SeedOption,
    SubjectsOption,
    TargetOption,
    TokenReaderOption,
)
from norface_lib.cli.output import show

OutOption = Annotated[Path | None, typer.Option(help="result file to write")]

app = typer.Typer(
    no_args_is_help=True,
    help="Measure normalizers and readers on people that no network was trained on.",
)


@app.command("normalizer")
def evaluate_normalizer(
    weights: NormalizerOption = "tiny",
    domain: Annotated[Domain, typer.Option(help="how the people are photographed")] = "lab",
    subjects: SubjectsOption = 60,
    frames: FramesOption = 20,
    seed: SeedOption = 0,
    evaluator: Annotated[
        str, typer.Option(help="weights of the evaluator: a shipped name or a path")
    ] = "evaluator",
    target: TargetOption = None,
    token_reader: Annotated[
        str | None,
        typer.Option(help="measure read and render by these weights in place of the network"),
    ] = None,
) -> None:
    """Measure, on rendered faces: the distance to the true normalized image, the AUs that the
    evaluator predicts from it, and what is left of person, pose, light and background."""
    from norface_lib.studies.normalizer_measures import as_text
    from norface_lib.studies.normalizer_measures import evaluate_normalizer as run

    result = run(
        weights,
        domain=domain,
        subjects=subjects,
        frames=frames,
        seed=seed,
        evaluator=evaluator,
        target=target,
        token_reader=token_reader,
    )
    show(as_text(result), **result)


@app.command("photographs")
def evaluate_photographs(
    root: Annotated[
        Path,
        typer.Argument(
            help="pseudo-pairs of people that no network was trained on, made by `pseudo-pairs`"
        ),
    ],
    weights: NormalizerOption = "tiny-photo",
    reader: Annotated[
        str, typer.Option(help="weights of an AU detector: a shipped name or a path")
    ] = "tiny-photo-au",
    token_reader: TokenReaderOption = "tiny-photo-reader",
    train: Annotated[
        Path | None,
        typer.Option(
            help="pseudo-pairs of other people, with emotions, to train emotion classifiers on"
        ),
    ] = None,
    embedding: Annotated[
        str,
        typer.Option(help="a face recognizer, as in arcface:PATH.onnx", callback=checks.network),
    ] = "arcface",
    model: Annotated[
        Path | None, typer.Option(help="MediaPipe's .task file, downloaded if missing")
    ] = None,
    out: OutOption = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="picture to write: originals, normalized and rendered faces"),
    ] = None,
) -> None:
    """Measure, on photographs: smiles, expressions in the normalized image, how well it hides who
    the person is, and emotions."""
    from norface_lib.photos.detection import landmarker_file
    from norface_lib.studies.photo_evaluation import as_text
    from norface_lib.studies.photo_evaluation import evaluate_photographs as run

    result = run(
        root,
        weights=weights,
        reader=reader,
        token_reader=token_reader,
        landmarker=landmarker_file(model),
        embedding=embedding,
        train=train,
        out=out,
        sheet=sheet,
    )
    files = [file for file in (out, sheet) if file]
    show(as_text(result), result=result, files=files)


@app.command("readers")
def evaluate_readers(
    root: Annotated[
        Path,
        typer.Argument(
            help="faces of people that no reader met: a rendered benchmark, or photographs that "
            "`pseudo-pairs` wrote"
        ),
    ],
    reader: Annotated[
        list[str],
        typer.Option(
            help="a token reader, or classifiers joined by +, as in tiny-photo-au+tiny-photo-"
            "emotion: shipped names or paths; may be repeated",
            callback=checks.words,
        ),
    ],
    weights: NormalizerOption = "tiny-photo",
    out: OutOption = None,
) -> None:
    """Measure readers side by side: emotions, AUs that go along with them, false alarms on neutral
    faces, smiles, and on rendered faces the true AUs."""
    from norface_lib.studies.reader_evaluation import evaluate_readers as run
    from norface_lib.studies.reader_evaluation import measures_as_text

    result = run(root, reader, weights=weights, out=out)
    show(measures_as_text(result["readers"]), result=result, files=[out] if out else [])


@app.command("groups")
def evaluate_groups(
    root: Annotated[
        Path,
        typer.Argument(
            help="faces of people that the reader never met: a rendered benchmark, or photographs "
            "that `pseudo-pairs` wrote"
        ),
    ],
    reader: Annotated[
        str,
        typer.Option(help="a token reader, or classifiers joined by +: shipped names or paths"),
    ] = "tiny-photo-reader",
    groups: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the column subject and one for each way to group people; default: sex, "
            "age and skin of rendered people, skin color as it is measured on photographs"
        ),
    ] = None,
    weights: NormalizerOption = "tiny-photo",
    out: OutOption = None,
) -> None:
    """Measure whether a reader errs more on some people than on others, by sex, age, skin, or by a
    table of yours."""
    from norface_lib.studies.group_evaluation import as_text
    from norface_lib.studies.group_evaluation import evaluate_groups as run

    result = run(root, reader, groups=groups, weights=weights, out=out)
    show(as_text(result), result=result, files=[out] if out else [])


@app.command("transfer")
def evaluate_transfer(
    root: Annotated[
        Path,
        typer.Argument(help="photographs that `pseudo-pairs` wrote, or a rendered benchmark"),
    ],
    train: Annotated[
        Path,
        typer.Option(help="a rendered benchmark of other people, to learn from"),
    ],
    weights: NormalizerOption = "tiny-photo",
    token_reader: Annotated[
        str | None,
        typer.Option(help="also draw by read and render, with these weights of a token reader"),
    ] = None,
    out: OutOption = None,
) -> None:
    """Measure whether what rendered faces teach carries over to photographs: a linear reader of AUs
    over the frozen encoder, from originals and from normalized faces."""
    from norface_lib.studies.transfer import as_text
    from norface_lib.studies.transfer import evaluate_transfer as run

    result = run(root, train=train, weights=weights, token_reader=token_reader, out=out)
    show(as_text(result), result=result, files=[out] if out else [])
