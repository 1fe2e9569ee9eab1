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


def shift_of_images(
    images: Mapping[Any, Collection[int]],
    labeled: Mapping[Any, Collection[int]],
    root: object,
    from_zero: bool,
) -> tuple[int, str]:
    """What is added to the number of an image to get that of its label row, and why, from the
    numbers of images and of labels of each sequence, which may be excerpts.

    Where images and labels of most sequences begin and end with numbers that differ by one, that is
    the difference. Else images from 0 beside labels that have no row 0 leave two rules: label row f
    is image f, or image f - 1, the f'th picture. Labels that reach one past the last image in most
    sequences say the latter; ``from_zero`` takes it where both rules fit. Raises
    :class:`DataError` where both fit otherwise, and where some sequences begin with 0 and others
    with 1.
    """
    ends = {
        key: (min(images[key]), max(images[key]), min(labeled[key]), max(labeled[key]))
        for key in sorted(images.keys() & labeled.keys())
        if images[key] and len(labeled[key])
    }
    if not ends:
        return 0, "no image has a label row of its sequence"
    example = min(ends, key=lambda key: ends[key][0])
    begins = f"the lowest number of an image is {ends[example][0]} ({_name(example)})"
    for shift, frame in ((1, "f - 1, the f'th picture"), (-1, "f + 1")):
        both = [
            key
            for key, (first, last, *rows) in ends.items()
            if rows == [first + shift, last + shift]
        ]
        if 2 * len(both) > len(ends):
            why = f"both ends say so, as those of {_name(both[0])}"
            return shift, f"label row f is image {frame}: {begins}, and {why}"

    zero = [key for key, (first, *_) in ends.items() if first == 0]
    zero_rows = [key for key, (_, _, row, _) in ends.items() if row == 0]
    if not zero or zero_rows:
        why = f", and {_name(zero_rows[0])} has a label row 0" if zero else ""
        return 0, f"label row f is image f: {begins}{why}"
    if one := [key for key, (first, *_) in ends.items() if first == 1]:
        raise _two_rules(
            root, f"images begin with 0 in {_name(zero[0])} and with 1 in {_name(one[0])}"
        )
    past_end = [key for key, (_, last, _, end) in ends.items() if end - last == 1]
    if from_zero or 2 * len(past_end) > len(ends):
        return 1, f"label row f is image f - 1, the f'th picture: {begins}, and no label row is 0"
    raise _two_rules(root, f"images begin with 0 and label rows with 1, as in {_name(zero[0])}")


def _two_rules(root: object, what: str) -> DataError:
    return DataError(
        f"{root}: {what}, so that label row f may be image f - 1 or image f; say which it is: "
        f"{FIRST_FRAME}=0 for f - 1, the f'th picture, or {FIRST_FRAME}=1 for f (with `--option`)"
    )


def _name(key: Any) -> str:
    return "/".join(filter(None, key)) if isinstance(key, tuple) else str(key)
