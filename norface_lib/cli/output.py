"""What all commands share: results on stdout and everything else on stderr, ``--json`` and
``--quiet``, and the end by Ctrl-C."""

import inspect
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from norface_lib.common.processes import (
    SENTENCE,
    Terminated,
    end_all_workers,
    forget_interrupt,
    is_first,
    stops_raised,
)

REFUSED = 1
UNFORESEEN = 70
STOPPED = 130
TERMINATED = 143


@dataclass(kw_only=True)
class Output:
    """Where the results of a command go: as text to stdout, or into one JSON object."""

    stdout: TextIO
    as_json: bool = False
    values: dict[str, Any] = field(default_factory=dict)


_OUTPUT: ContextVar[Output | None] = ContextVar("output", default=None)


def show(
    text: object,
    *,
    counts: Mapping[str, int] | None = None,
    files: Sequence[Path | str] = (),
    **values: Any,
) -> None:
    """Shows a result of a command: ``text`` on stdout, or with ``--json`` the rest in its object.

    ``counts``: how many have which status; ``files``: what was written and where to look;
    ``values``: more entries. Of several calls the later one wins for an entry that both name.
    """
    output = _OUTPUT.get() or Output(stdout=sys.stdout)
    output.values |= values
    if counts is not None:
        output.values["counts"] = dict(counts)
    if files:
        output.values["files"] = [str(file) for file in files]
    if not output.as_json and is_first():
        print(text, file=output.stdout, flush=True)


JsonOption = Annotated[
    bool, typer.Option("--json", help="print one JSON object in place of the text")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="no progress and no messages, only results and errors")
]


def with_shared_options(function: Callable[..., None]) -> Callable[..., None]:
    """The function of a command, with the options ``--json`` and ``--quiet`` after its own."""
    signature = inspect.signature(function)
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = {"as_json": JsonOption, "quiet": QuietOption}
    added = [
        inspect.Parameter(name, keyword, default=False, annotation=annotation)
        for name, annotation in shared.items()
    ]

    @wraps(function)
    def command(*, as_json: bool, quiet: bool, **arguments: Any) -> None:
        with _command(function.__name__, as_json=as_json, quiet=quiet):
            function(**arguments)

    command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])
    command.__annotations__ = function.__annotations__ | shared
    return command


@contextmanager
def _command(name: str, *, as_json: bool, quiet: bool) -> Iterator[None]:
    """Runs a command: what the library prints goes to stderr, or nowhere if quiet; a stop is said
    in a sentence; the JSON object is printed at the end."""
    output = Output(stdout=sys.stdout, as_json=as_json)
    token = _OUTPUT.set(output)
    started = time.monotonic()
    exit_code = 0
    try:
        with stops_raised(), _messages(quiet or not is_first()):
            yield
    except typer.Exit as end:
        exit_code = end.exit_code
    except KeyboardInterrupt as stop:
        end_all_workers()
        forget_interrupt()
        print(SENTENCE, file=sys.stderr)
        raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else STOPPED) from None
    finally:
        _OUTPUT.reset(token)

    if as_json and is_first():
        seconds = round(time.monotonic() - started, 3)
        about = {"command": name.replace("_", "-"), "exit_code": exit_code, "seconds": seconds}
        print(json.dumps(_plain(about | output.values)), flush=True)
    if exit_code:
        raise typer.Exit(exit_code)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):  # an array or a number of numpy
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


@contextmanager
def _messages(quiet: bool) -> Iterator[None]:
    """Sends what is printed within the block to stderr, or to nowhere."""
    with ExitStack() as stack:
        stream = sys.stderr
        if quiet:
            stream = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stderr(stream))
        stack.enter_context(redirect_stdout(stream))
        yield
