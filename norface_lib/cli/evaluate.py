"""Commands that measure a normalizer."""

from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli.options import Domain, LandmarkerOption, NormalizerOption, TargetOption

app = typer.Typer(
    no_args_is_help=True, help="Measure a normalizer on people that no network was trained on."
)


@app.command("normalizer")
def evaluate_normalizer(
    weights: NormalizerOption = "tiny",
    domain: Annotated[Domain, typer.Option(help="how the people are photographed")] = "lab",
    subjects: int = 60,
    frames: Annotated[int, typer.Option(help="per subject")] = 20,
    seed: int = 0,
    evaluator: Annotated[
        str, typer.Option(help="weights of the evaluator: a shipped name or a path")
    ] = "evaluator",
    target: TargetOption = None,
    json: Annotated[bool, typer.Option("--json", help="the result alone, as JSON")] = False,
) -> None:
    """Measure, on rendered faces, the distance to the true I_n, the AUs that an evaluator reads in
    it, and what is left of person, pose, light and background."""
    from json import dumps

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
    )
    print(dumps(result, indent=2) if json else as_text(result))


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
        str, typer.Option(help="AU detector: a shipped name or a path")
    ] = "tiny-photo-au",
    train: Annotated[
        Path | None,
        typer.Option(help="pseudo-pairs of others, with emotions, for heads to learn on"),
    ] = None,
    embedding: Annotated[
        str, typer.Option(help="a face recognizer, as in arcface:PATH.onnx")
    ] = "arcface",
    model: LandmarkerOption = None,
    out: Annotated[Path | None, typer.Option(help="result file to write")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="picture to write: originals, normalized and rendered faces"),
    ] = None,
) -> None:
    """Measure a normalizer on photographs: smiles, expressions in I_n, how well it hides who a
    person is, emotions."""
    from norface_lib.photos.detection import landmarker_file
    from norface_lib.studies.photo_evaluation import as_text
    from norface_lib.studies.photo_evaluation import evaluate_photographs as run

    result = run(
        root,
        weights=weights,
        reader=reader,
        landmarker=landmarker_file(model),
        embedding=embedding,
        train=train,
        out=out,
        sheet=sheet,
    )
    print(as_text(result))
