"""Errors that a user can act on; the command line prints them as one sentence and exits with 1."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_ADDRESS = re.compile(r"<(?:\w+\.)*(\w+)[^<>]* at 0x[0-9a-fA-F]+>| at 0x[0-9a-fA-F]+")


def without_addresses(text: str) -> str:
    """A text without addresses in memory: ``<_io.BytesIO object at 0x7f...>`` becomes
    ``BytesIO``."""
    return _ADDRESS.sub(lambda match: match[1] or "", text)


class NorfaceError(Exception):
    """Base of all errors whose message names what was wrong, where, and the cure."""

    def __str__(self) -> str:
        return without_addresses(super().__str__())


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
