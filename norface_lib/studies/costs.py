"""What the paper's runs cost: hours of GPUs from counted operations at an assumed speed, and bytes
from numbers of faces. Estimates, none of them measured."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from norface_lib.networks.flops import flops_of
from norface_lib.networks.normalizer import PRESETS, Normalizer
from norface_lib.studies.result_files import ResultFiles
from norface_lib.studies.text_table import TextTable

FLOPS_PER_SECOND = 250e12
"""Assumed of one H100 in bfloat16, about a quarter of what its matrix units could do at most; not
measured."""

EPOCHS = 40
"""Of the paper's trainings (PAPER.md 1.2)."""

BACKWARD = 2
"""Operations of the backward pass, in forward passes."""

PRESET = "base"
"""The normalizer, whose encoder is the classifier's backbone: the paper's size, as far as it is
known."""


@dataclass(frozen=True)
class Run:
    """Training and testing on one dataset once: numbers of frames that are normalized, and of those
    that an epoch trains on and a test reads, over all folds."""

    name: str
    frames: int
    trained: int
    tested: int

    @classmethod
    def of_folds(cls, name: str, frames: int, folds: int) -> "Run":
        """Each frame is tested in one fold and trained on in all others."""
        return cls(name, frames, (folds - 1) * frames, frames)

    @classmethod
    def of_split(cls, name: str, train: int, test: int) -> "Run":
        """One training and one test."""
        return cls(name, train + test, train, test)


RUNS = (
    Run.of_folds("BP4D, 12 AUs, 3 folds", 146_847, 3),
    Run.of_folds("BP4D+, 12 AUs, 4 folds", 197_756, 4),
    Run.of_folds("DISFA, 8 or 12 AUs, 3 folds", 130_814, 3),
    Run.of_split("AffectNet, 8 classes", 287_651, 4_000),
    Run.of_split("AffectNet, 7 classes", 283_901, 3_500),
    Run.of_split("RAF-DB", 12_271, 3_068),
)
"""The paper's runs, by the counts of PAPER.md 2; AU intensity of BP4D takes as many frames as its
detection, or fewer."""


@lru_cache
def flops_per_face(preset: str = PRESET) -> tuple[int, int]:
    """Operations of one face through the backbone, and through the whole normalizer for a target
    whose features are known."""
    config = PRESETS[preset]
    with torch.device("meta"), torch.no_grad():
        model = Normalizer(config).eval()
        size = config.encoder.image_size
        image = torch.empty(1, 3, size, size)
        target = model.target(torch.empty(1, 3, config.size, config.size))
        backbone = flops_of(lambda face: model.expression(model.encoder(face)), image)
        whole = flops_of(lambda face: model.synthesize(model.encoder(face), target), image)
    return backbone, whole


def hours(run: Run) -> tuple[float, float]:
    """Hours of one GPU to normalize, and to train for ``EPOCHS`` on both inputs and test: the
    backbone alone, beside which all else of the classifier is 1 to 2 % (`bench classify`)."""
    backbone, whole = flops_per_face()
    training = 2 * backbone * (EPOCHS * (1 + BACKWARD) * run.trained + run.tested)
    return whole * run.frames / FLOPS_PER_SECOND / 3600, training / FLOPS_PER_SECOND / 3600


def gigabytes(faces: int) -> float:
    """Of so many faces of 8 bits as the network reads them."""
    return faces * 3 * PRESETS[PRESET].encoder.image_size ** 2 / 1e9


def costs_table(_: ResultFiles) -> TextTable:
    """A line for each of the paper's runs. Takes no result file: nothing of it was measured."""
    rows = []
    for run in RUNS:
        normalizing, training = hours(run)
        rows.append(
            (
                run.name,
                f"{run.trained * EPOCHS / 1e6:,.1f}",
                f"{60 * normalizing:.1f}",
                f"{training:.2g}",
                f"{(normalizing + training) / 8:.2g}",
                f"{gigabytes(3 * run.frames):,.0f}",
                f"{gigabytes(2 * run.frames):,.0f}",
            )
        )
    backbone, whole = flops_per_face()
    header = (
        *("", "million pairs in training", "minutes to normalize, one H100"),
        *("hours to train and test, one H100", "hours in all, eight H100", "disk, GB, at most"),
        "RAM that holds all faces, GB",
    )
    return TextTable(
        name="costs",
        title="What the paper's runs cost, estimated",
        header=header,
        rows=tuple(rows),
        notes=(
            f"Estimates, not measured: `{PRESET}` takes {backbone / 1e9:.1f} GFLOPs for a face "
            f"through the backbone and {whole / 1e9:.1f} through the whole normalizer (counted), "
            f"at an assumed {FLOPS_PER_SECOND / 1e12:.0f} TFLOP/s of an H100 in bfloat16; both "
            f"inputs, {EPOCHS} epochs, one seed, one row of a result, a backward pass as "
            f"{BACKWARD} forward ones. Eight GPUs are taken to be eight times as fast, and hours "
            "on one are hours of a GPU. Finding, reading and decoding faces are not counted.",
            "Disk: originals and normalized faces as arrays, and PNG files as if they did not "
            "shrink; `--leakage per-fold` adds a third of that for each fold, `all` once. RAM: "
            "less will do, as faces are mapped from files; then they are read from the disk in "
            "each epoch.",
        ),
    )
