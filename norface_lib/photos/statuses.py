"""Statuses of files, frames and faces in the tables of photographs."""

from norface_lib.common.errors import DataError

NO_FACE = "no face"
TOO_SMALL = "too small"
NOT_CHOSEN = "not the largest"
UNREADABLE = "unreadable"
MISSING = "missing"
NOT_PERMITTED = "no permission"
FAILED = "failed"
LEFT_OUT = "left out"
"""Values of the column ``status``, beside `norface_lib.images.crop.ALIGNED`."""

TRIED_AGAIN = (MISSING, NOT_PERMITTED, FAILED)
"""Statuses that the next call tries again: they may be mended while the file stays as it is."""


def status_of(error: Exception) -> str:
    """Status of a file or frame whose reading or search ended with an error."""
    if isinstance(error, DataError):
        return UNREADABLE
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MISSING
    return NOT_PERMITTED if isinstance(error, PermissionError) else FAILED
