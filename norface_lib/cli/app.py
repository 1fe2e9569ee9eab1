"""The command line: ``python -m norface_lib --help``, or ``norface --help`` once installed.

Commands import what they need themselves, so that `--help` does not wait for torch.
"""

import sys

import typer

from norface_lib.cli import data, evaluate, export, photos, project, training
from norface_lib.common.errors import NorfaceError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Norface: normalize faces to one identity, and predict action units (AUs) and emotions.",
)
for commands in (photos.app, training.app, export.app, data.app, project.app):
    app.add_typer(commands)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel="Training")


def main() -> int:
    """Runs a command; an error that a user can act on is one sentence on stderr and exit code 1."""
    try:
        app()
    except (NorfaceError, OSError, ValueError) as error:
        print(f"norface: {error}", file=sys.stderr)
    return 1  # after a command that succeeded, typer has ended the process already


if __name__ == "__main__":
    sys.exit(main())
