"""The rendered benchmark: heads, their parts, skin and wrinkles, the renderer, and the faces."""

import os

from norface_lib.common.errors import needs

with needs("render"):
    import warp


def _start_warp() -> None:
    """Starts Warp without its banner and its warning, on every machine without a GPU, that there is
    no driver."""
    warp.config.quiet = True
    warp.config.log_level = warp.LOG_ERROR
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # the warning comes from C++, past Python's own stderr
        os.dup2(nowhere.fileno(), 2)
        try:
            warp.init()
        finally:
            os.dup2(kept, 2)
            os.close(kept)


_start_warp()
