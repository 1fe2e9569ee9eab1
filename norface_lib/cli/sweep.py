"""The command that runs many experiments."""

from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli import checks
from norface_lib.cli.options import DeviceOption
from norface_lib.cli.output import REFUSED, show

app = typer.Typer()


@app.command(rich_help_panel="Training")
def sweep(
    file: Annotated[
        str,
        typer.Argument(help="a YAML file of experiments, or the name of one of this package"),
    ],
    out: Annotated[Path, typer.Argument(help="folder for a result file of each experiment")],
    seeds: Annotated[
        str | None,
        typer.Option(help="seeds in place of the file's, as in 0,1", callback=checks.some_seeds),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="experiments that run side by side")
    ] = 1,
    device: DeviceOption = "auto",
) -> None:
    """Run a list of experiments. What is done is skipped; what fails is counted, and tried again by
    the next call. A result of fewer seeds is extended.
    """
    from norface_lib.studies.sweep import find_sweep, read_sweep
    from norface_lib.studies.sweep_runner import run_sweep

    chosen = [int(seed) for seed in seeds.split(",")] if seeds else []
    configurations = read_sweep(find_sweep(file), chosen)
    report = run_sweep(configurations, out, workers=workers, device=device)
    lines = [", ".join(f"{count} {name}" for name, count in report.counts.items() if count)]
    lines += [
        f"failed: {one.name}: {one.error} (see {out / one.name}.error.txt)" for one in report.failed
    ]
    files = [path for one in configurations if (path := one.path(out)).exists()]
    show("\n".join(lines), counts=report.counts, files=files)
    if report.failed:
        raise typer.Exit(REFUSED)
