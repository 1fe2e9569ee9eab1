"""``python -m norface_lib``: the command line of `norface_lib.cli.app`."""

import sys

from norface_lib.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
