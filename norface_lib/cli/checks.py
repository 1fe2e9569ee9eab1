"""Checks of options whose values are neither a choice nor a number: each refuses what it does not
know when the command line is read, before a long run begins.

Names are written out here, since `--help` should not wait for torch; a test compares them with the
library's own.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from typer import BadParameter

from norface_lib.common.paths import no_file

LARGEST_SEED = 2**31 - 1
MOST_STEPS = 100_000_000

LOSSES = {
    "au_detection": ("bce", "asymmetric", "dice"),
    "au_intensity": ("mse", "smooth_l1", "ccc", "ordinal"),
    "emotion": ("ce",),
}
"""Losses of each task."""

TERMS = (
    *("reconstruction", "edge", "reading", "perceptual", "expression", "identity"),
    *("self_reconstruction", "adversarial", "r1"),
)
"""Terms of the normalizer's loss."""

NETWORKS = ("perceptual", "expression", "identity")
"""Terms that need a frozen network."""

TARGETS = ("noor", "emil", "ada", "mira")
"""Target identities of the rendered benchmark."""

TOKEN_READERS = ("tiny-photo-reader",)
"""Shipped token readers."""

LOADER = {
    "camera": ("left", "right", "both"),
    "classes": ("7", "8"),
    "crop": ("true", "false"),
    "aligned": ("true", "false"),
    "first_frame": ("0", "1"),
    "first_label": ("0", "1"),
    "first_class": ("0", "1"),
}
"""Options of the datasets' loaders, and their values."""

FORMATS = ("markdown", "csv", "latex")
"""What a table can be written as."""

BACKBONES = ("frozen", "tuned", "scratch", "mini")


def device(name: str) -> str:
    """A device that this machine has."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise BadParameter(f"no device {name!r}; there are auto, cpu, cuda, cuda:1... and mps")
    if name not in ("auto", "cpu"):
        from norface_lib.common.devices import device_of

        device_of(name)
    return name


def loader(texts: Sequence[str] | None) -> Sequence[str] | None:
    """``NAME=VALUE`` each, of ``LOADER``."""
    for text in texts or ():
        name, _, value = text.partition("=")
        if value not in LOADER.get(name, ()):
            known = "; ".join(f"{option}={'|'.join(values)}" for option, values in LOADER.items())
            raise BadParameter(f"no option {text!r} of a dataset; there are {known}")
    return texts


def formats(text: str | None) -> str | None:
    """Formats of tables joined by commas, each once."""
    names = [] if text is None else text.split(",")
    if not set(names) <= set(FORMATS) or len(set(names)) < len(names):
        raise BadParameter(f"no format {text!r}; there are {', '.join(FORMATS)}, or csv,latex")
    return text


def seconds(number: float | None) -> float | None:
    """A time in a video."""
    if number is not None and not math.isfinite(number):
        raise BadParameter(f"{number} is no number of seconds")
    return number


def seeds(text: str) -> str:
    """Whole numbers joined by commas, as in ``0,1,2``."""
    parts = text.split(",")
    if not all(re.fullmatch(r"\s*\d{1,10}\s*", part) for part in parts):
        raise BadParameter(f"{text!r} must be whole numbers joined by commas, as in 0,1,2")
    numbers = [int(part) for part in parts]
    if max(numbers) > LARGEST_SEED:
        raise BadParameter(f"{max(numbers)} is too large a seed; the largest is {LARGEST_SEED}")
    if len(set(numbers)) < len(numbers):
        raise BadParameter(f"{text!r} names a seed twice")
    return text


def some_seeds(text: str | None) -> str | None:
    """`seeds`, or none."""
    return text if text is None else seeds(text)


def loss(text: str) -> str:
    """A loss of some task, or a sum of several of one task."""
    if text and not any(set(text.split("+")) <= set(known) for known in LOSSES.values()):
        known = "; ".join(f"{task}: {', '.join(names)}" for task, names in LOSSES.items())
        raise BadParameter(f"no loss {text!r}; there are {known}; or sums of one task, as bce+dice")
    return text


def address(text: str | None) -> str | None:
    """A repository on GitHub, without what may follow its name."""
    if text is not None and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", text):
        raise BadParameter(f"{text!r} must be https://github.com/OWNER/NAME")
    return text


def protocol(text: str) -> str:
    """``dataset/split`` or ``source->target/split``. Whether there is that split, the library
    says when it reads it."""
    if text and not re.fullmatch(r"([a-z0-9_]+->)?[a-z0-9_]+/[a-z0-9-]+", text):
        raise BadParameter(
            f"{text!r} must be DATASET/SPLIT, as in disfa/3fold, or across datasets "
            "bp4d->disfa/3fold"
        )
    return text


def backbone(text: str | None) -> str | None:
    """A kind of backbone, or ``timm:NAME``."""
    if text is not None and text not in BACKBONES and not re.fullmatch(r"timm:[\w./-]+", text):
        raise BadParameter(f"no backbone {text!r}; there are {', '.join(BACKBONES)} and timm:NAME")
    return text


def encoder(text: str | None) -> str | None:
    """A file of weights, the name of a shipped token reader, or ``timm:NAME``."""
    known = text in TOKEN_READERS or re.fullmatch(r"timm:[\w./-]+", text or "")
    if text and not known and not Path(text).is_file():
        raise BadParameter(
            f"{text}: {no_file(Path(text))}; give a file of weights, timm:NAME, or "
            f"{', '.join(TOKEN_READERS)}"
        )
    return text


def targets(text: str) -> str:
    """Target identities joined by ``+``, each once."""
    names = text.split("+")
    if not set(names) <= set(TARGETS) or len(set(names)) < len(names):
        known = ", ".join(TARGETS)
        raise BadParameter(f"no target {text!r}; there are {known}, or several, as noor+ada")
    return text


def target(text: str) -> str:
    """One target identity."""
    if text not in TARGETS:
        raise BadParameter(f"no target {text!r}; there are {', '.join(TARGETS)}")
    return text


def file_name(text: str | None) -> str | None:
    """A name for files to write, which cannot lead to another folder."""
    if text is not None and not re.fullmatch(r"\w[\w.-]*", text):
        raise BadParameter(f"{text!r} is no name for a file: use letters, digits, '-' and '_'")
    return text


def identities(text: str | None) -> str | None:
    """Names of folders with + between them."""
    if text is not None and not re.fullmatch(r"[^+/\\]+(\+[^+/\\]+)*", text):
        raise BadParameter(f"{text!r} must be names of folders with + between them, or all")
    return text


def repository(text: str) -> str:
    """A repository of the Hugging Face Hub."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text):
        raise BadParameter(f"{text!r} must be OWNER/NAME, as on the Hugging Face Hub")
    return text


def terms(texts: Sequence[str] | None) -> Sequence[str] | None:
    """``TERM=NUMBER`` each."""
    for text in texts or ():
        name, _, value = text.partition("=")
        if name not in TERMS or not re.fullmatch(r"\d+\.?\d*([eE]-?\d+)?|\.\d+", value):
            raise BadParameter(
                f"{text!r} must be TERM=NUMBER, as in perceptual=0.1, with a number of at least 0 "
                f"and a term of {', '.join(TERMS)}"
            )
    return texts


def networks(texts: Sequence[str] | None) -> Sequence[str] | None:
    """``TERM=NETWORK`` each."""
    for text in texts or ():
        name, _, value = text.partition("=")
        if name not in NETWORKS:
            raise BadParameter(
                f"{text!r} must be TERM=NETWORK, as in identity=arcface:PATH.onnx, with a term of "
                f"{', '.join(NETWORKS)}"
            )
        network(value)
    return texts


def network(text: str) -> str:
    """A frozen network, and its file if it names one."""
    kind, _, place = text.partition(":")
    if kind not in _FROZEN or (not place and kind in _WITH_PLACE):
        raise BadParameter(
            f"no frozen network {text!r}; there are arcface, arcface:PATH, onnx:PATH, timm:NAME, "
            "evaluator and reader"
        )
    if kind in ("arcface", "onnx") and place and not Path(place).is_file():
        raise BadParameter(f"{place}: {no_file(Path(place))}")
    return text


def recognizer(text: str | None) -> str | None:
    """A frozen network that tells people apart."""
    return text if text is None else network(text)


_FROZEN = ("arcface", "onnx", "timm", "evaluator", "reader")

_WITH_PLACE = ("onnx", "timm")


def words(texts: Sequence[str] | None) -> Sequence[str] | None:
    """Texts that are not empty."""
    if any(not text.strip() for text in texts or ()):
        raise BadParameter("an empty text")
    return texts
