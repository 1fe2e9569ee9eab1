"""How frames are counted, from 0 or from 1, in label files and in the names of images.

Both are found in copies of the same dataset, and a wrong guess shifts every label by one frame.
What is certain is taken and said; what is ambiguous is refused, with the setting that decides it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from norface_lib.common.errors import DataError

FIRST_FRAME = "first_frame"
FIRST_LABEL = "first_label"
"""Options of the loaders: the number, 0 or 1, of a sequence's first image and of its first label
row."""


def checked_first(name: str, number: int | None) -> int | None:
    """The number, if it is 0, 1 or None (to be found out); else raises ``ValueError``."""
    if number not in (None, 0, 1):
        raise ValueError(f"{name} must be 0, 1, or None to find it out, got {number!r}")
    return number


def first_of_labels(
    labeled: Mapping[Any, Collection[int]], lengths: Mapping[Any, int], root: object
) -> tuple[int, str]:
    """The number of the first label row, 0 or 1, and why, from the label numbers of each sequence.

    ``lengths``: number of frames of those sequences that are videos. Raises :class:`DataError` if
    some sequences speak for 0 and others for 1.
    """
    zero = [key for key, numbers in labeled.items() if 0 in numbers]
    if not zero:
        return 1, "no label row has the number 0"

    # a sequence that begins with 1, or has as many as it has frames, counts from 1
    one = [key for key, numbers in labeled.items() if numbers and min(numbers) == 1]
    one += [key for key in labeled if key in lengths and lengths[key] in labeled[key]]
    if one:
        raise DataError(
            f"{root}: label rows count from 0 in {_name(zero[0])} and from 1 in {_name(one[0])}; "
            f"say which it is for all: {FIRST_LABEL}=0 or {FIRST_LABEL}=1 (with `--option`)"
        )
    return 0, f"{_name(zero[0])} has a label row 0"


def first_of_images(
    images: Mapping[Any, Collection[int]],
    labeled: Mapping[Any, Collection[int]],
    first_label: int,
    root: object,
) -> tuple[int, str]:
    """The number of the first image, 0 or 1, and why, from the numbers of images and of labels of
    each sequence.

    An image 0 says that images count from 0. If there is none, an image whose number is the count
    of labels says that they count from 1; a last image one less may mean that the last image is
    lost, or that image 0 is. Raises :class:`DataError` where more speaks for the one, and
    anything for the other.
    """
    zero = [key for key, numbers in images.items() if 0 in numbers]
    counts = {
        key: max(numbers) - first_label + 1 for key, numbers in labeled.items() if len(numbers)
    }
    others = [key for key in images if key in counts and 0 not in images[key] and images[key]]
    one = [key for key in others if counts[key] in images[key]]
    lost = [key for key in others if max(images[key]) == counts[key] - 1]

    if zero and not one:
        return 0, f"{_name(zero[0])} has an image 0"
    if one and not zero and len(one) > len(lost):
        return 1, (
            f"no image has the number 0, and the last of {_name(one[0])} has that of its last frame"
        )
    if zero:
        why = f"{_name(zero[0])} has an image 0, and {_name(one[0])} none but its last frame"
    else:
        example = (lost or others or list(images))[0]
        last = max(images[example], default=0)
        why = (
            f"no image has the number 0, and those of {_name(example)} end at {last} for "
            f"{counts.get(example, 0)} frames, as if the first were lost, or the last"
        )
    raise DataError(
        f"{root}: images may count from 0 or from 1 ({why}); say which it is: "
        f"{FIRST_FRAME}=0 or {FIRST_FRAME}=1 (with `--option`)"
    )


def shifted(
    images: Mapping[Any, Collection[int]], labeled: Mapping[Any, Collection[int]]
) -> tuple[int, int, Any] | None:
    """First numbers of images and of labels, and an example, of sequences whose images are matched
    by number although both ends say that they are counted in two ways; None if no majority of the
    sequences does."""
    pairs = [
        (key, images[key], labeled[key])
        for key in images.keys() & labeled.keys()
        if images[key] and len(labeled[key])
    ]
    for first_frame, first_label in ((0, 1), (1, 0)):
        other = [
            key
            for key, frames, rows in pairs
            if min(frames) == first_frame
            and min(rows) == first_label
            and max(rows) - max(frames) == first_label - first_frame
        ]
        if 2 * len(other) > len(pairs):
            return first_frame, first_label, min(other)
    return None


def _name(key: Any) -> str:
    return "/".join(filter(None, key)) if isinstance(key, tuple) else str(key)
