"""The command line: ``python -m norface_lib --help``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from norface_lib.common.errors import NorfaceError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Norface: faces normalized to one identity, and read for action units.",
)

# Commands import what they need themselves: `--help` should not wait for torch.

_Detector = Annotated[
    str, typer.Option(help="mediapipe, insightface, or none for crops that are aligned already")
]
_Every = Annotated[int, typer.Option(help="take each k-th frame of a video")]
_AllFaces = Annotated[bool, typer.Option(help="every face of an image, else the largest")]
_Points = Annotated[
    Path | None, typer.Option(help="table of `align --layout`, by which whole frames are cropped")
]
_Model = Annotated[
    Path | None, typer.Option(help="the landmarker's .task file, or a folder of insightface")
]


def _tell(counts: Mapping[str, int], file: Path | str, needed: str) -> None:
    """Says how many have which status and where the list is; exit code 1 if none is as ``needed``."""
    print(", ".join(f"{count} {status}" for status, count in counts.items()) + f" (see {file})")
    if not counts.get(needed):
        raise typer.Exit(1)


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help="smoke, quick or full")] = "quick",
    photos: Annotated[
        Path | None, typer.Option(help="a folder of aligned faces for the last step")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="run only notebooks whose name starts so; may be repeated"),
    ] = None,
) -> None:
    """Run the notebooks in order, then a folder of faces, and print the table."""
    from norface_lib.cli.reproduce import reproduce as run

    run(profile, photos, only)


@app.command()
def publish(
    profile: Annotated[str, typer.Option(help="the run to take outputs from")] = "quick",
) -> None:
    """Put the outputs of a finished run into the notebooks, for readers."""
    from norface_lib.cli.reproduce import publish as run

    run(profile)


@app.command()
def render(
    out: Annotated[Path, typer.Argument(help="folder to write")],
    pool: Annotated[str, typer.Option(help="pretrain, lab, wild or evaluator")] = "lab",
    subjects: int = 30,
    frames: Annotated[int, typer.Option(help="per subject")] = 30,
    size: Annotated[int, typer.Option(help="pixels")] = 112,
    seed: int = 0,
    sequence: Annotated[
        int, typer.Option(help="frames of a sequence, onset to offset; 1: each on its own")
    ] = 1,
    target: Annotated[
        str,
        typer.Option(help="identity of the true images; frames take turns at several: noor+ada"),
    ] = "noor",
    strength: Annotated[
        float, typer.Option(help="of expressions: 1 up to intensity E, 0.5 up to C")
    ] = 1.0,
    workers: Annotated[int | None, typer.Option(help="processes; default one per core")] = None,
) -> None:
    """Render a benchmark: faces with AU labels and their true normalized images."""
    from norface_lib.faces.benchmark import BenchmarkSpec, write_benchmark

    write_benchmark(
        BenchmarkSpec(pool, subjects, frames, size, seed, target, sequence, strength), out, workers
    )


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="lfw or celeba")],
    out: Annotated[Path, typer.Argument(help="folder to download into")],
) -> None:
    """Download photographs that anyone can get, to `align` and to learn from."""
    from norface_lib.photos.sources import PEOPLE
    from norface_lib.photos.sources import fetch as run

    print(f"{run(name, out)} (people: {out / PEOPLE})")


@app.command()
def pseudo_pairs(
    aligned: Annotated[Path, typer.Argument(help="a folder that `align` made with mediapipe")],
    out: Annotated[Path, typer.Argument(help="folder for the benchmarks train and test")],
    table: Annotated[
        Path | None, typer.Option(help="CSV with image and, if known, subject and emotion")
    ] = None,
    target: Annotated[str, typer.Option(help="identity of the drawn faces")] = "noor",
    held_out: Annotated[float, typer.Option(help="share of people that go to test")] = 0.15,
    calibrate: Annotated[
        bool, typer.Option(help="on these photographs; else the scores mean what they mean to ours")
    ] = False,
    mirrored: Annotated[
        bool, typer.Option(help="also OUT/mirrored, those of train left for right")
    ] = False,
) -> None:
    """Give photographs a pseudo-true normalized image: the target head with the facial actions that
    a landmarker sees."""
    from norface_lib.photos.pseudo_pairs import calibration_of, write_pseudo_pairs

    calibration = None if calibrate else calibration_of()
    counts = write_pseudo_pairs(
        aligned, out, table, calibration, target, held_out=held_out, mirrored=mirrored
    )
    print(", ".join(f"{count} {what}" for what, count in counts.items()))


@app.command()
def join(
    out: Annotated[Path, typer.Argument(help="folder to write")],
    parts: Annotated[
        list[Path],
        typer.Argument(help="benchmarks with the same target: rendered, or pseudo-pairs"),
    ],
) -> None:
    """Make one benchmark of several, to train on rendered faces and photographs together."""
    from norface_lib.datasets.rendered import join_benchmarks

    print(f"{join_benchmarks(parts, out)} faces")


@app.command()
def train_normalizer(
    data: Annotated[Path, typer.Argument(help="a rendered benchmark, pool pretrain")],
    out: Annotated[Path, typer.Argument(help="folder for checkpoints, logs and the weights")],
    preset: Annotated[str, typer.Option(help="tiny, small or base")] = "tiny",
    masked_steps: Annotated[
        int, typer.Option(help="of masked autoencoding; 0 leaves a stage out")
    ] = 0,
    expression_steps: int = 2000,
    synthesis_steps: int = 3500,
    seed: int = 0,
    device: str = "auto",
    start: Annotated[
        str | None, typer.Option(help="weights to begin with: a shipped name or a path")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="weights of a ViT for the encoder: a file, or timm:NAME")
    ] = None,
    faces: Annotated[
        Path | None,
        typer.Option(help="a folder of aligned faces without a true image, to learn from too"),
    ] = None,
    degraded: Annotated[
        float, typer.Option(help="share of originals made gray, soft, noisy, partly hidden...")
    ] = 0.0,
    name: Annotated[str | None, typer.Option(help="of the weights; default: the preset's")] = None,
    term: Annotated[
        list[str] | None, typer.Option(help="weight of a term of the loss, as in perceptual=0.1")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="a frozen network, as in identity=arcface:PATH.onnx")
    ] = None,
) -> None:
    """Train a normalizer on rendered pairs, and on photographs if wanted; stop it at will, the same
    command goes on."""
    from dataclasses import replace

    from norface_lib.training.normalizer import NormalizerTraining, train_and_save
    from norface_lib.training.normalizer_losses import terms_of

    terms = replace(terms_of(term or [], network or []), degraded_share=degraded)
    training = NormalizerTraining.of_steps(
        expression_steps, synthesis_steps, seed, masked_steps, terms=terms
    )
    train_and_save(data, out, preset, training, device, start, encoder, faces, name)


@app.command()
def train_evaluator(
    data: Annotated[Path, typer.Argument(help="a rendered benchmark, pool evaluator")],
    out: Annotated[Path, typer.Argument(help="folder for the checkpoint, the log and the weights")],
    steps: int = 1500,
    seed: int = 0,
    device: str = "auto",
    start: Annotated[
        str | None, typer.Option(help="weights to begin with: a shipped name or a path")
    ] = None,
) -> None:
    """Train the network that measures normalizers; stop it at will, the same command goes on."""
    from norface_lib.training.evaluator import train_and_save

    train_and_save(data, out, steps, seed, device, start)


@app.command()
def train(
    root: Annotated[
        Path, typer.Argument(help="folder of a dataset whose frames are aligned faces")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="folder for normalized faces and, for each task, logs, weights and result.json"
        ),
    ],
    task: Annotated[
        str, typer.Option(help="au_detection, au_intensity or emotion")
    ] = "au_detection",
    dataset: Annotated[
        str, typer.Option(help="bp4d, bp4d_plus, disfa, affectnet, rafdb or rendered")
    ] = "rendered",
    protocol: Annotated[
        str, typer.Option(help="such as disfa/3fold; default: the dataset's usual one")
    ] = "",
    weights: Annotated[
        str, typer.Option(help="of the normalizer: a shipped name or a path")
    ] = "tiny",
    backbone: Annotated[str, typer.Option(help="frozen, tuned, scratch, or timm:NAME")] = "frozen",
    encoder: Annotated[
        str, typer.Option(help="weights of a backbone that is trained: a file, or timm:NAME")
    ] = "",
    inputs: Annotated[
        list[str] | None,
        typer.Option(help="original, normalized or both; may be repeated; default all"),
    ] = None,
    loss: Annotated[
        str, typer.Option(help="such as bce+dice, mse+ccc, ordinal, ce; default: the task's own")
    ] = "",
    steps: Annotated[int, typer.Option(help="of each training; 0: what suits the backbone")] = 0,
    seeds: Annotated[str, typer.Option(help="a training for each, as in 0,1,2")] = "0",
    balanced: Annotated[
        bool, typer.Option(help="draw rare classes as often as common ones")
    ] = False,
    leakage: Annotated[str, typer.Option(help="pretrained, per-fold or all")] = "pretrained",
    final: Annotated[
        bool, typer.Option(help="at last, train a classifier on all faces, to be used")
    ] = False,
    tuning_steps: Annotated[
        int, typer.Option(help="of the normalizer's fine-tuning for per-fold and all")
    ] = 200,
    term: Annotated[
        list[str] | None,
        typer.Option(help="weight of a term of the fine-tuning's loss, as identity=0.2"),
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="a frozen network, as in identity=arcface:PATH.onnx")
    ] = None,
    points: _Points = None,
    device: str = "auto",
) -> None:
    """Cross-validate a classifier by a dataset's protocol and print the table; stop it at will, the
    same command goes on."""
    from norface_lib.networks.classifier import INPUTS
    from norface_lib.studies.experiments import UNPAIRED_WEIGHTS, Experiment, report, run
    from norface_lib.training.normalizer import NormalizerTraining
    from norface_lib.training.normalizer_losses import terms_of

    terms = terms_of([*UNPAIRED_WEIGHTS, *(term or [])], network or [])
    tuning = NormalizerTraining.of_steps(0, tuning_steps, terms=terms)
    numbers = tuple(int(seed) for seed in seeds.split(","))
    rows = tuple(inputs or INPUTS)
    settings = (
        task,
        dataset,
        protocol,
        weights,
        backbone,
        encoder,
        rows,
        loss,
        steps,
        numbers,
        balanced,
        leakage,
    )
    experiment = Experiment(*settings, final=final, tuning=tuning)
    print(report(*run(experiment, root, out, device, points), dataset))


@app.command()
def predict(
    source: Annotated[
        Path, typer.Argument(help="an image, a video, or a folder of both, of any depth")
    ],
    out: Annotated[
        Path, typer.Argument(help="folder for predictions.csv, aligned and normalized faces")
    ],
    detector: _Detector = "mediapipe",
    reader: Annotated[
        list[str] | None, typer.Option(help="weights of a classifier: a shipped name or a path")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="of the normalizer: a shipped name or a path")
    ] = "tiny-photo",
    target: Annotated[
        str | None, typer.Option(help="one of the identities that the weights draw")
    ] = None,
    every: _Every = 1,
    all_faces: _AllFaces = False,
    model: _Model = None,
    batch_size: int = 64,
    device: str = "auto",
) -> None:
    """Read AUs, their intensities and emotions from photographs and videos into one table."""
    from norface_lib.photos.detection import open_detector
    from norface_lib.photos.folders import ALIGNED
    from norface_lib.photos.prediction import PREDICTIONS, READERS, predict_tree

    finder, networks = open_detector(detector, model), tuple(reader or READERS)
    counts = predict_tree(
        source, out, finder, networks, weights, target, every, all_faces, batch_size, device
    )
    _tell(counts, out / PREDICTIONS, ALIGNED)


@app.command()
def align(
    source: Annotated[
        Path, typer.Argument(help="a folder of photographs and videos, of any depth")
    ],
    out: Annotated[
        Path, typer.Argument(help="folder for the mirror tree of aligned faces, and for faces.csv")
    ],
    detector: _Detector = "mediapipe",
    size: Annotated[int, typer.Option(help="pixels of a crop")] = 112,
    every: _Every = 1,
    all_faces: _AllFaces = False,
    model: _Model = None,
    levels: Annotated[
        int, typer.Option(help="0 to 3: how far mediapipe searches for small faces")
    ] = 1,
    layout: Annotated[
        str,
        typer.Option(
            help="folder; or how a dataset lies there, such as bp4d: then only a table is written"
        ),
    ] = ("folder"),
    task: Annotated[
        str | None,
        typer.Option(help="of a dataset, whose frames are looked at: au_detection, au_intensity, ..."),
    ] = None,
) -> None:
    """Find the faces of photographs and videos and crop them as the networks take them; the same
    command goes on.

    The frames of a dataset are not copied: OUT/points.csv tells `normalize` and `train` (--points)
    where their faces are.
    """
    from norface_lib.datasets import open_dataset
    from norface_lib.photos.dataset_points import find_points
    from norface_lib.photos.detection import open_detector
    from norface_lib.photos.folders import ALIGNED, FACES, align_tree

    if layout != "folder":
        data = open_dataset(layout, source, **({"task": task} if task else {}))
        _tell(
            find_points(data, out / "points.csv", open_detector(detector, model, levels)),
            out / "points.csv",
            ALIGNED,
        )
        return
    counts = align_tree(source, out, open_detector(detector, model, levels), size, every, all_faces)
    _tell(counts, FACES, ALIGNED)


@app.command()
def normalize(
    source: Annotated[
        Path, typer.Argument(help="a folder of faces, of any depth, or the root of a dataset")
    ],
    out: Annotated[
        Path, typer.Argument(help="folder for the mirror tree, inside it one for the target")
    ],
    detector: _Detector = "none",
    layout: Annotated[
        str, typer.Option(help="folder, or how a dataset lies there: bp4d, disfa, ...")
    ] = "folder",
    weights: Annotated[str, typer.Option(help="a shipped name or a path")] = "tiny",
    target: Annotated[
        str | None,
        typer.Option(help="one of the identities that the weights draw; default: the first"),
    ] = None,
    points: _Points = None,
    batch_size: int = 64,
    device: str = "auto",
) -> None:
    """Redraw every face of a folder as the target; stop it at will, the same command goes on.

    Faces that are aligned already need no detector. With one, those of ordinary photographs and
    videos are found first, and their crops kept in OUT/aligned.
    """
    from norface_lib.datasets import open_dataset
    from norface_lib.datasets.normalized import MANIFEST, normalize_dataset
    from norface_lib.photos.detection import open_detector
    from norface_lib.photos.folders import ALIGNED, FACES, align_tree

    if detector != "none":
        if layout != "folder":
            raise ValueError(
                "a dataset is aligned by `align --layout` and --points, not by --detector"
            )
        _tell(
            align_tree(source, out / "aligned", open_detector(detector)),
            out / "aligned" / FACES,
            ALIGNED,
        )
        source = out / "aligned"
    data = open_dataset(layout, source)
    data = data if points is None else data.aligned_by(points)
    counts = normalize_dataset(data, out, weights, target, batch_size, device)
    print(", ".join(f"{count} {status}" for status, count in counts.items()) + f" (see {MANIFEST})")
    if set(counts) == {"unreadable"}:
        raise typer.Exit(1)


@app.command()
def write_as(
    layout: Annotated[str, typer.Argument(help="bp4d, bp4d+, disfa, affectnet or rafdb")],
    benchmark: Annotated[Path, typer.Argument(help="a rendered benchmark")],
    out: Annotated[Path, typer.Argument(help="folder to write, which must not exist")],
    variant: Annotated[
        str | None, typer.Option(help="such as images, zip, video, old, new, folders, original")
    ] = None,
    quirks: Annotated[
        bool,
        typer.Option(help="with what makes real data awkward: 9s, missing labels, a broken image"),
    ] = True,
    seed: int = 0,
) -> None:
    """Write a rendered benchmark in the layout of a gated dataset, so that its loader runs on it."""
    from norface_lib.datasets.write_as import CLEAN, Quirks
    from norface_lib.datasets.write_as import write_as as run

    print(run(layout, benchmark, out, variant, Quirks() if quirks else CLEAN, seed))


@app.command()
def inspect(
    name: Annotated[
        str, typer.Argument(help="bp4d, bp4d+, disfa, affectnet, rafdb, rendered or folder")
    ],
    root: Annotated[Path, typer.Argument(help="folder of the dataset")],
    task: Annotated[
        str | None, typer.Option(help="such as au_detection, au_intensity, emotion")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="read every frame, and drop those that cannot be read")
    ] = False,
    save_index: Annotated[
        Path | None, typer.Option(help="a CSV file for the index, which spares the next scan")
    ] = None,
) -> None:
    """Show what a dataset's folder holds, what was dropped and why, and how often each label
    occurs."""
    from norface_lib.datasets import open_dataset

    data = open_dataset(name, root, **({"task": task} if task else {}))
    print(data.check() if check else data.report)
    if data.published:
        print(f"published: {data.published}")
    for label, rate in data.base_rates().items():
        print(f"  {label:<10}{rate:7.1%}")
    if save_index:
        data.save_index(save_index)


evaluate = typer.Typer(
    no_args_is_help=True, help="Measure a network on rendered people whom it never met."
)
app.add_typer(evaluate, name="evaluate")


@evaluate.callback()
def _group() -> None:  # with a single command and no callback, typer would drop the command's name
    pass


@evaluate.command("normalizer")
def evaluate_normalizer(
    weights: Annotated[str, typer.Option(help="a shipped name or a path")] = "tiny",
    domain: Annotated[str, typer.Option(help="lab or wild")] = "lab",
    subjects: int = 60,
    frames: Annotated[int, typer.Option(help="per subject")] = 20,
    seed: int = 0,
    evaluator: Annotated[
        str, typer.Option(help="weights of the evaluator: a shipped name or a path")
    ] = "evaluator",
    target: Annotated[
        str | None,
        typer.Option(help="one of the identities that the weights draw; default: the first"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="the result alone, as JSON")] = False,
) -> None:
    """Measure distance to the true I_n, what an evaluator reads in it, and what is left of person, pose,
    light and background."""
    from json import dumps

    from norface_lib.studies.normalizer_measures import as_text
    from norface_lib.studies.normalizer_measures import evaluate_normalizer as run

    found = run(weights, domain, subjects, frames, seed, evaluator, target)
    print(dumps(found, indent=2) if json else as_text(found))


@evaluate.command("photographs")
def evaluate_photographs(
    root: Annotated[
        Path,
        typer.Argument(
            help="pseudo-pairs of people whom no network met, as `pseudo-pairs` writes them"
        ),
    ],
    weights: Annotated[
        str, typer.Option(help="of the normalizer: a shipped name or a path")
    ] = "tiny-photo",
    reader: Annotated[
        str, typer.Option(help="AU detector: a shipped name or a path")
    ] = "tiny-photo-au",
    train: Annotated[
        Path | None,
        typer.Option(help="pseudo-pairs of others, with emotions, for heads to learn on"),
    ] = None,
    embedding: Annotated[
        str, typer.Option(help="a face recognizer, as in arcface:PATH.onnx")
    ] = "arcface",
    model: _Model = None,
    out: Annotated[Path | None, typer.Option(help="result file to write")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="picture of originals, drawn and rendered faces to write")
    ] = None,
) -> None:
    """Measure a normalizer on photographs: smiles, expressions in I_n, whether people can be told
    by it, emotions."""
    from norface_lib.photos.detection import landmarker_file
    from norface_lib.studies.photo_measures import as_text
    from norface_lib.studies.photo_measures import evaluate_photographs as run

    print(as_text(run(root, weights, reader, landmarker_file(model), embedding, train, out, sheet)))


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="render, normalize, classify, align, end-to-end; default all"),
    ] = None,
) -> None:
    """Measure speed: one JSON line per figure."""
    from norface_lib.cli.bench import run

    run(names or [])


def main() -> int:
    """Runs a command; an error that a user can act on is one sentence on stderr, with exit code 1."""
    try:
        app()
    except (NorfaceError, OSError, ValueError) as error:
        print(f"norface: {error}", file=sys.stderr)
    return 1  # after a command that succeeded, typer has ended the process already


if __name__ == "__main__":
    sys.exit(main())
