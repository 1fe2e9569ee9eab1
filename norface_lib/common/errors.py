"""Errors that a user can act on. The command line prints them as one sentence and exits with 1."""


class NorfaceError(Exception):
    """Base of all errors whose message names what was wrong, where, and the cure."""


class DataError(NorfaceError):
    """A file, folder or table is missing, unreadable or not what it should be."""


class CheckpointError(NorfaceError):
    """Weights or a checkpoint do not fit the network or its card."""
