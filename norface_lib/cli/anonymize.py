"""The command that replaces the faces of a video or a picture."""

from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli import checks
from norface_lib.cli.options import (
    DetectorOption,
    DeviceOption,
    Draw,
    FaceLayout,
    LandmarkerOption,
    LevelsOption,
    TokenReaderOption,
)
from norface_lib.cli.output import show

app = typer.Typer()


@app.command(rich_help_panel="Photographs and videos")
def anonymize(
    source: Annotated[Path, typer.Argument(help="a video, or a picture")],
    out: Annotated[Path, typer.Argument(help="the video to write, .mp4; a picture: .png or .jpg")],
    layout: Annotated[
        FaceLayout,
        typer.Option(
            help="paste: drawn faces in place of the original ones; normalized: the drawn face of "
            "the largest alone"
        ),
    ] = "paste",
    draw: Annotated[
        Draw,
        typer.Option(
            help="who draws: the renderer, by the AUs that a token reader reads, or the "
            "normalizer's network"
        ),
    ] = "render",
    target: Annotated[
        str | None,
        typer.Option(
            help="noor, emil, ada or mira; of a network, one of its own; default: the first"
        ),
    ] = None,
    token_reader: TokenReaderOption = "tiny-photo-reader",
    weights: Annotated[
        str, typer.Option(help="for --draw network: weights of the normalizer")
    ] = "tiny-photo-224",
    detector: DetectorOption = "mediapipe",
    model: LandmarkerOption = None,
    levels: LevelsOption = None,
    min_cutoff: Annotated[
        float,
        typer.Option(min=0.01, max=1000, help="Hz; less: AU intensities at rest are smoother"),
    ] = 0.5,
    beta: Annotated[
        float,
        typer.Option(
            min=0, max=1000, help="Hz for each intensity a second; more: fast AUs are less late"
        ),
    ] = 1.0,
    keep_audio: Annotated[
        bool,
        typer.Option("--keep-audio", help="keep the sound; a voice tells who speaks"),
    ] = False,
    embedding: Annotated[
        str | None,
        typer.Option(
            help="a face recognizer to measure what it still tells, as in arcface:PATH.onnx",
            callback=checks.recognizer,
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Replace each face of a video or a picture by one target's, with the same expression.

    Faces that the detector never finds stay visible: look at the result, and at the frames without
    a face that the report counts. Body, clothes, voice and place may still tell who somebody is.
    """
    from norface_lib.photos.anonymizing import anonymize as run
    from norface_lib.photos.anonymizing import as_text
    from norface_lib.photos.detection import open_detector
    from norface_lib.photos.smoothing import OneEuro

    report = run(
        source,
        out,
        layout=layout,
        draw=draw,
        target=target,
        token_reader=token_reader,
        weights=weights,
        detector=open_detector(detector, model, levels=levels),
        smoothing=OneEuro(min_cutoff=min_cutoff, beta=beta),
        keep_audio=keep_audio,
        embedding=embedding,
        device=device,
    )
    files = [out, out.with_suffix(".json")]
    show(as_text(report, out), files=files, report=report)
