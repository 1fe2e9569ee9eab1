"""First use on a machine: what takes long is made once, behind a lock, and says so."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from norface_lib.common.errors import needs


def once(path: Path, make: Callable[[], object], message: str) -> None:
    """Calls ``make``, which leaves a file at ``path``, unless that file is there already.

    Of several processes that ask at the same time one makes it and the others wait. ``message``
    says on stderr what is made and how long that takes.
    """
    if path.exists():
        return
    print(f"norface: {message}", file=sys.stderr, flush=True)

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            make()


@lru_cache(maxsize=1)
def start_warp() -> ModuleType:
    """Imports and starts Warp, without its banner and its warning that there is no GPU driver."""
    with needs("render"):
        import warp

    warp.config.quiet = True
    warp.config.log_level = warp.LOG_ERROR
    with _silent_stderr():
        warp.init()
    return warp


def compile_once(
    name: str, sources: tuple[ModuleType, ...], device: str, load: Callable[[], object]
) -> None:
    """Calls ``load``, which makes Warp compile the kernels of ``sources``, if it has not done so.

    The mark that it has lies in Warp's own cache, in a folder that `warp.clear_kernel_cache`
    removes together with the kernels.
    """
    warp = start_warp()
    processor = warp.get_device(device)
    kind = "cpu" if processor.is_cpu else f"sm_{processor.arch}"
    content = b"".join(Path(module.__file__).read_bytes() for module in sources)
    folder = f"wp_norface_{name}_{kind}_{hashlib.sha256(content).hexdigest()[:8]}"
    mark = Path(warp.config.kernel_cache_dir, folder, "compiled")

    def make() -> None:
        load()
        mark.touch()

    once(mark, make, f"compiling the {name} kernels for {kind}: about 5 seconds, once on a machine")


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Lets one process of this user at a time do a thing that runs on several threads.

    Threads of eight processes that start together wait for each other by spinning, ten times as
    long as the thing takes.
    """
    with FileLock(Path(start_warp().config.kernel_cache_dir, f"norface_{name}.lock")):
        yield


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silences stderr by its descriptor: Warp's warnings come from C++, past Python's stream."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
