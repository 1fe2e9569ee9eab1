"""Errors that a user can act on; the command line prints them as one sentence and exits with 1."""

from collections.abc import Iterator
from contextlib import contextmanager


class NorfaceError(Exception):
    """Base of all errors whose message names what was wrong, where, and the cure."""


class DataError(NorfaceError):
    """A file, folder or table is missing, unreadable or not what it should be."""


class CheckpointError(NorfaceError):
    """Weights or a checkpoint do not fit the network or its card."""


class StoppedError(NorfaceError):
    """Something passing stopped a command, such as a full disk; the same command goes on."""


class MissingExtraError(NorfaceError):
    """A package is not installed that only some parts of norface need."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Imports within the block need an extra (``photos``, ``parquet``, ``render`` or
    ``notebooks``); raises :class:`MissingExtraError` with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'the package {error.name} is not installed: pip install "norface[{extra}]"'
        ) from error
