"""The command line: ``norface --help``, or ``python -m norface_lib --help``.

Commands import what they need themselves, so that `--help` does not wait for torch.
"""

import sys
from typing import Annotated

import typer

from norface_lib.cli import (
    anonymize,
    data,
    doctor,
    evaluate,
    export,
    moving,
    network_training,
    photos,
    project,
    results,
    sweep,
    training,
)
from norface_lib.cli.examples import EXAMPLES
from norface_lib.cli.failures import report_failure
from norface_lib.cli.output import with_shared_options
from norface_lib.common.processes import end_all_workers, stop_at_once

EXIT_CODES = {
    0: "done, also when no face was found",
    1: "refused, with a sentence that says why; or nothing at all could be read",
    2: "a wrong option or argument",
    70: "an unforeseen error, with a log file",
    130: "stopped by Ctrl-C (143: by SIGTERM); the same command goes on",
}
"""Exit codes of every command, and their meaning."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Norface: normalize faces to one identity, and predict action units (AUs) and emotions.",
    epilog="\n".join(
        ["Exit codes:", *(f"{code}  {meaning}" for code, meaning in EXIT_CODES.items())]
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"norface {version('norface')}")
        except PackageNotFoundError:
            print("norface, from a copy of the repository")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


def _add(commands: typer.Typer, group: str = "") -> None:
    """Gives the commands of a file what all share: --json, --quiet, and examples in their help."""
    for info in commands.registered_commands:
        name = info.name or info.callback.__name__.replace("_", "-")
        info.callback = with_shared_options(info.callback)
        examples = EXAMPLES.get(f"{group} {name}".strip(), ())
        info.epilog = "\n".join(["Examples:", *examples]) if examples else None
    if group:
        app.add_typer(commands, name=group, rich_help_panel="Training")
    else:
        app.add_typer(commands)


for commands in (
    photos.app,
    anonymize.app,
    moving.app,
    training.app,
    network_training.app,
    sweep.app,
    export.app,
    data.app,
    doctor.app,
    project.app,
    results.app,
):
    _add(commands)
_add(evaluate.app, "evaluate")


def main() -> int:
    """Runs a command and ends the process with its exit code, one of `EXIT_CODES`."""
    stop_at_once()
    try:
        app()
    except Exception as error:
        return report_failure(error)
    finally:
        end_all_workers()
    return 0  # after a command, typer has ended the process already


if __name__ == "__main__":
    sys.exit(main())
