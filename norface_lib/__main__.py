"""``norface`` and ``python -m norface_lib``: the command line of `norface_lib.cli.app`."""

import sys

from norface_lib.common.processes import stop_at_once


def main() -> int:
    """Runs a command and returns its exit code; a Ctrl-C during the imports, too, is said in a
    sentence."""
    stop_at_once()
    from norface_lib.cli.app import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
