"""The log of a training: one line of JSON for each step that is logged, and TensorBoard's on
request."""

import json
import os
from functools import lru_cache
from pathlib import Path

from norface_lib.common.errors import NorfaceError
from norface_lib.common.failures import writing
from norface_lib.common.files import write_atomically


def log_step(path: Path, step: int, figures: dict[str, float], seconds: float) -> None:
    """Appends one line; a line is short enough to be written as a whole."""
    with writing(path), path.open("a") as file:
        file.write(json.dumps({"step": step, **figures, "seconds": round(seconds, 1)}) + os.linesep)
    if os.environ.get("NORFACE_TENSORBOARD") == "1":
        board = _tensorboard(path.parent / "tensorboard" / path.stem)
        for name, value in figures.items():
            board.add_scalar(name, value, step)
        board.flush()


def rewind(log: Path, step: int) -> None:
    """Deletes the lines after a step, which is trained again since no checkpoint followed it, and
    the half line of a process that was killed."""
    if not log.exists():
        return
    lines = log.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        write_atomically(log, lambda part: part.write_text("".join(kept)))


@lru_cache
def _tensorboard(folder: Path):
    """One writer for each folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise NorfaceError(
            "NORFACE_TENSORBOARD=1 needs tensorboard: pip install tensorboard, or unset it"
        ) from error
    return SummaryWriter(folder)
