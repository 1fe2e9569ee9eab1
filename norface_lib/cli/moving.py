"""The command that makes a moving picture of originals and normalized faces."""

from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli.output import show

app = typer.Typer()


@app.command(rich_help_panel="Photographs and videos")
def wipe(
    originals: Annotated[
        Path, typer.Argument(help="folder of aligned faces, as OUT/aligned of `predict`")
    ],
    normalized: Annotated[
        list[Path],
        typer.Argument(
            help="folders of the same faces normalized, as OUT/normalized/noor; a row for each"
        ),
    ],
    out: Annotated[Path, typer.Argument(help="the picture to write: .webp, .gif or .mp4")],
    faces: Annotated[int, typer.Option(min=1, max=100, help="how many, the first ones")] = 4,
    size: Annotated[int, typer.Option(min=48, max=1024, help="pixels of a face")] = 192,
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="of one round")] = 4.0,
    frames: Annotated[int, typer.Option(min=2, max=500, help="pictures of one round")] = 32,
) -> None:
    """Write a moving picture in which a border runs over each face: normalized on the left of it,
    original on the right."""
    from norface_lib.viz.moving import faces_of, moving_wipe, write_moving

    shown, rows = faces_of(originals, normalized, faces, size)
    path = write_moving(out, moving_wipe(shown, rows, frames), seconds)
    show(f"{path}: {len(shown)} faces, {len(rows)} rows", files=[path], faces=len(shown))
