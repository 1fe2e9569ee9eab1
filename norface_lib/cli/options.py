"""Choices and options that several commands share.

The choices are written out here, since `--help` should not wait for torch; a test compares them
with the library's own lists.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from norface_lib.cli import checks
from norface_lib.cli.output import REFUSED, show

Task = Literal["au_detection", "au_intensity", "emotion"]
Dataset = Literal["bp4d", "bp4d_plus", "disfa", "affectnet", "rafdb", "rendered"]
GatedDataset = Literal["bp4d", "bp4d_plus", "disfa", "affectnet", "rafdb"]
Layout = Literal["folder", "bp4d", "bp4d_plus", "disfa", "affectnet", "rafdb", "rendered"]
Detector = Literal["mediapipe", "insightface", "none"]
Engine = Literal["torch", "onnx"]
Draw = Literal["network", "render"]
FaceLayout = Literal["paste", "normalized"]
Pool = Literal["pretrain", "lab", "evaluator", "wild"]
Domain = Literal["lab", "wild"]
Missing = Literal["drop", "original"]
Preset = Literal["tiny", "tiny-224", "small", "base"]
Leakage = Literal["pretrained", "per-fold", "all"]
TableFormat = Literal["csv", "parquet", "json"]
TextFormat = Literal["markdown", "csv", "latex"]
Profile = Literal["smoke", "quick", "full", "gpu"]
PhotoSource = Literal["lfw", "celeba"]
Variant = Literal["images", "video", "zip", "old", "new", "folders", "aligned", "original"]


class Input(StrEnum):
    """Images that a classifier reads."""

    ORIGINAL = "original"
    NORMALIZED = "normalized"
    BOTH = "both"


class Stage(StrEnum):
    """Stages that `bench` measures: their speed, that of reading and writing alone, how well small
    faces are found, and jitter against lag of the smoothing over time."""

    RENDER = "render"
    NORMALIZE = "normalize"
    CLASSIFY = "classify"
    ALIGN = "align"
    END_TO_END = "end-to-end"
    LOADER = "loader"
    SMALL_FACES = "small-faces"
    SMOOTHING = "smoothing"


class ResultTable(StrEnum):
    """Tables that `results` makes."""

    AU_DETECTION_BP4D = "au_detection-bp4d"
    AU_DETECTION_BP4D_PLUS = "au_detection-bp4d_plus"
    AU_DETECTION_DISFA = "au_detection-disfa"
    AU_INTENSITY_BP4D = "au_intensity-bp4d"
    AU_INTENSITY_DISFA = "au_intensity-disfa"
    EMOTION = "emotion"
    CROSS_DATASET = "cross-dataset"
    SUMMARY = "summary"
    ROWS = "rows"
    ADDITIONS = "additions"
    ORIGINAL_TWICE = "original-twice"
    TRANSFER = "transfer"
    GROUPS = "groups"
    CROSS_DATASET_RENDERED = "cross-dataset-rendered"
    ACROSS = "across"
    ABLATIONS = "ablations"
    FEW_PEOPLE = "few-people"
    PEOPLE = "people"
    MIXTURES = "mixtures"
    NORMALIZER_PARTS = "normalizer-parts"
    COSTS = "costs"


DetectorOption = Annotated[
    Detector,
    typer.Option(help="what detects the faces; none: the images are aligned faces already"),
]
LandmarkerOption = Annotated[
    Path | None,
    typer.Option(help="MediaPipe's .task file, downloaded if missing, or insightface's folder"),
]
EveryOption = Annotated[
    int, typer.Option(min=1, max=1_000_000, help="use every k-th frame of a video")
]
StartSecondsOption = Annotated[
    float,
    typer.Option(
        "--start",
        min=0,
        max=1_000_000,
        help="seconds of a video at which it begins",
        callback=checks.seconds,
    ),
]
EndSecondsOption = Annotated[
    float | None,
    typer.Option(
        "--end",
        min=0,
        max=1_000_000,
        help="seconds of a video after which it ends",
        callback=checks.seconds,
    ),
]
LevelsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=6,
        help="0 to 6: how far mediapipe searches for small faces; default: as the size of an "
        "image asks for, so that faces of 60 px are found",
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="start anew: delete first what an earlier call made in OUT"),
]
AllFacesOption = Annotated[bool, typer.Option(help="all faces of an image, or only the largest")]
PointsOption = Annotated[
    Path | None,
    typer.Option(help="points.csv that `align --layout` wrote, to crop whole frames by"),
]
LoaderOption = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE of the dataset's loader: camera=left|right|both (DISFA), classes=7|8, "
        "crop=true|false and first_class=0|1 (AffectNet), aligned=true|false (RAF-DB), "
        "first_frame=0|1 and first_label=0|1 (BP4D, BP4D+, DISFA); may be repeated",
        callback=checks.loader,
    ),
]
NormalizerOption = Annotated[
    str, typer.Option(help="weights of the normalizer: tiny, tiny-photo, tiny-photo-224 or a path")
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        help="one of the target identities of the weights; with --draw render: noor, emil, ada or "
        "mira; "
        "default: the first"
    ),
]
DrawOption = Annotated[
    Draw,
    typer.Option(
        help="who draws the normalized faces: the normalizer's network, or the renderer, by the "
        "AUs that a token reader reads"
    ),
]
TokenReaderOption = Annotated[
    str, typer.Option(help="for --draw render: weights of the token reader, a shipped name or path")
]
DrawnSizeOption = Annotated[
    int | None,
    typer.Option(
        min=48,
        max=1024,
        help="for --draw render: width of a normalized face in pixels; default: 224",
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(help="weights to fine-tune from: a shipped name or a path; default: none"),
]
TermOption = Annotated[
    list[str] | None,
    typer.Option(
        help="weight of a term of the loss, as in perceptual=0.1; may be repeated",
        callback=checks.terms,
    ),
]
NetworkOption = Annotated[
    list[str] | None,
    typer.Option(
        help="a frozen network of the loss, as in identity=arcface:PATH.onnx; may be repeated",
        callback=checks.networks,
    ),
]
BatchOption = Annotated[int, typer.Option(min=1, max=65_536, help="faces per batch")]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1...", callback=checks.device)
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1024,
        help="processes that read and write images beside this one; default: none on a CPU, on a "
        "CUDA device as many as there are cores, up to 16",
    ),
]
EngineOption = Annotated[
    Engine,
    typer.Option(help="what computes the networks; onnx: on the CPU, exported at the first use"),
]
PresetOption = Annotated[Preset, typer.Option(help="size of the network")]
SeedOption = Annotated[
    int, typer.Option(min=0, max=checks.LARGEST_SEED, help="seed of the random numbers")
]
SubjectsOption = Annotated[int, typer.Option(min=1, max=1_000_000, help="number of people")]
FramesOption = Annotated[int, typer.Option(min=1, max=1_000_000, help="images of each person")]


def print_counts(
    counts: Mapping[str, int], file: Path | str, *needed: str, files: Sequence[Path] = ()
) -> None:
    """Shows how many have which status and the file that lists them.

    Says so if none has a needed status, which is no error: photographs may show no face. Exit code
    1 if everything was unreadable. ``files``: paths for ``--json``; default ``file``.
    """
    text = ", ".join(f"{count} {status}" for status, count in counts.items()) + f" (see {file})"
    failures = sum(counts.get(status, 0) for status in _UNREADABLE)
    unreadable = failures > 0 and sum(counts.values()) == failures + counts.get(_LEFT_OUT, 0)
    if unreadable:
        text += ": nothing could be read"
    elif not any(counts.get(status) for status in needed):
        text += ": no face was found"

    show(text, counts=counts, files=files or [file])
    if unreadable:
        raise typer.Exit(REFUSED)


_UNREADABLE = ("unreadable", "missing", "no permission", "failed")
_LEFT_OUT = "left out"
