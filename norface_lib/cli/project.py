"""Commands for work on this project: all notebooks, their outputs, and speed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli import checks
from norface_lib.cli.options import Profile, Stage
from norface_lib.cli.output import show
from norface_lib.common.paths import ROOT, require_checkout, runs

app = typer.Typer()
_PANEL = "This project"


@app.command(rich_help_panel=_PANEL)
def reproduce(
    profile: Annotated[Profile, typer.Option(help="how much to compute")] = "quick",
    photos: Annotated[
        Path | None, typer.Option(help="a folder of aligned faces to normalize in the last step")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="run only the notebooks whose names start with this; may be repeated",
            callback=checks.words,
        ),
    ] = None,
) -> None:
    """Run the notebooks in order, normalize a folder of faces, and print the table of results."""
    require_checkout("reproduce")
    from norface_lib.cli.reproduce import reproduce as run
    from norface_lib.cli.reproduce import table

    summary = run(profile, photos=photos, only=only)
    folder = runs() / profile
    files = [folder / "summary.json"]
    show(table(summary), files=files, summary=summary)


@app.command(rich_help_panel=_PANEL)
def publish(
    profile: Annotated[
        Profile, typer.Option(help="profile of the run to take outputs from")
    ] = "quick",
    address: Annotated[
        str | None,
        typer.Option(
            callback=checks.address,
            help="https://github.com/OWNER/NAME, where the repository is public: written into "
            "pyproject.toml, the quick start's install cell and the README's badges; nothing else",
        ),
    ] = None,
) -> None:
    """Copy the result files of a finished run of `reproduce` to results/PROFILE; of quick also its
    figures to figures/, and its outputs into the notebooks."""
    require_checkout("publish")
    if address:
        from norface_lib.cli.address import write_address

        written = write_address(ROOT, address)
        show(f"{address} is written into {len(written)} files", files=written)
        return

    from norface_lib.cli.publish import publish as run

    files = run(profile)
    show(f"{len(files)} files of {profile} are published", files=files)


@app.command(rich_help_panel=_PANEL)
def bench(
    stages: Annotated[
        list[Stage] | None, typer.Argument(help="what to measure; default: the speed of all stages")
    ] = None,
) -> None:
    """Measure the speed of each stage on this machine; print one JSON line per number.

    `loader` measures how fast faces are read and written for the networks, by the number of worker
    processes. `small-faces` measures how many small faces are found in large pictures; it needs the
    London Set below NORFACE_PHOTOS. `smoothing` measures jitter against lag of AU intensities over
    time.
    """
    from norface_lib.cli.bench import run

    figures = []
    apart = (Stage.LOADER, Stage.SMALL_FACES, Stage.SMOOTHING)
    speed = [stage for stage in Stage if stage not in apart]
    for figure in run(stages or speed):
        figures.append(figure)
        show(json.dumps(figure), figures=figures)
