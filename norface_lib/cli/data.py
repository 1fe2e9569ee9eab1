"""Commands that make and show datasets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from norface_lib.cli import checks
from norface_lib.cli.options import (
    FramesOption,
    GatedDataset,
    Layout,
    LoaderOption,
    PhotoSource,
    Pool,
    SeedOption,
    SubjectsOption,
    Task,
    Variant,
)
from norface_lib.cli.output import show

if TYPE_CHECKING:
    from norface_lib.datasets.report import Report
    from norface_lib.photos.read_and_render import ReadAndRender
    from norface_lib.photos.teacher import Teacher

app = typer.Typer()
_PANEL = "Datasets"


@app.command(rich_help_panel=_PANEL)
def render(
    out: Annotated[Path, typer.Argument(help="folder to write")],
    pool: Annotated[
        Pool, typer.Option(help="which people to render; no two pools share any")
    ] = "lab",
    subjects: SubjectsOption = 30,
    frames: FramesOption = 30,
    size: Annotated[int, typer.Option(min=32, max=1024, help="width of an image in pixels")] = 112,
    seed: SeedOption = 0,
    sequence: Annotated[
        int,
        typer.Option(
            min=1, max=10_000, help="frames of a sequence from onset to offset; 1: single images"
        ),
    ] = 1,
    target: Annotated[
        str,
        typer.Option(
            help="identity of the true normalized images: noor, emil, ada, mira, or several in "
            "turn: noor+ada",
            callback=checks.targets,
        ),
    ] = "noor",
    strength: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1,
            help="strength of expressions: 1 reaches intensity E (5), 0.5 intensity C (3)",
        ),
    ] = 1.0,
    one_sided: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="share of the frames in which most AUs show on one side of the face only",
        ),
    ] = 0.0,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="processes; default: one per core")
    ] = None,
) -> None:
    """Render a benchmark: faces with AU labels and their true normalized images."""
    from norface_lib.faces.benchmark import BenchmarkSpec
    from norface_lib.faces.writing import write_benchmark

    spec = BenchmarkSpec(
        pool=pool,
        subjects=subjects,
        frames=frames,
        size=size,
        seed=seed,
        target=target,
        sequence=sequence,
        strength=strength,
        one_sided=one_sided,
    )
    write_benchmark(spec, out, workers=workers)
    table = out / "labels.csv"
    counts = {"subjects": subjects, "images": subjects * frames}
    text = ", ".join(f"{count} {what}" for what, count in counts.items())
    show(f"{text} (see {table})", counts=counts, files=[table])


@app.command(rich_help_panel=_PANEL)
def fetch(
    name: Annotated[PhotoSource, typer.Argument(help="which photographs")],
    out: Annotated[Path, typer.Argument(help="folder to download into")],
) -> None:
    """Download public photographs, to `align` and to train on."""
    from norface_lib.photos.sources import PEOPLE
    from norface_lib.photos.sources import fetch as run

    folder = run(name, out)
    people = out / PEOPLE
    show(f"{folder} (people: {people})", files=[folder, people])


@app.command(rich_help_panel=_PANEL)
def pseudo_pairs(
    aligned: Annotated[Path, typer.Argument(help="a folder that `align` made with mediapipe")],
    out: Annotated[Path, typer.Argument(help="folder for the benchmarks train and test")],
    table: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns image and, if known, subject and emotion"),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="identity of the rendered faces: noor, emil, ada or mira, or several in turn, as "
            "noor+ada",
            callback=checks.targets,
        ),
    ] = "noor",
    size: Annotated[
        int, typer.Option(min=32, max=1024, help="width of the rendered faces in pixels")
    ] = 112,
    held_out: Annotated[
        float, typer.Option(min=0, max=1, help="share of the people for the test benchmark")
    ] = 0.15,
    calibrate: Annotated[
        bool,
        typer.Option(
            help="fit the calibration of the landmarker's scores to these photographs, or use the "
            "shipped one"
        ),
    ] = False,
    mirrored: Annotated[
        bool, typer.Option(help="also write OUT/mirrored: the photographs of train, mirrored")
    ] = False,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="a rendered benchmark; AUs are then named by all scores and points of the "
            "landmarker, as learned from it, and by the emotions of the table"
        ),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(help="weights of a token reader that names the AUs in place of the scores"),
    ] = None,
    truths: Annotated[
        bool, typer.Option(help="render the normalized images, which a token reader does not need")
    ] = True,
    model: Annotated[
        Path | None, typer.Option(help="MediaPipe's .task file, for --teacher")
    ] = None,
) -> None:
    """Pair photographs with rendered normalized images: the target's head with the facial actions
    that MediaPipe's landmarker estimates."""
    from norface_lib.photos.calibration import calibration_of
    from norface_lib.photos.pseudo_pairs import write_pseudo_pairs

    if teacher is not None and reader is not None:
        raise typer.BadParameter("--teacher and --reader both name AUs; give one of them")
    counts = write_pseudo_pairs(
        aligned,
        out,
        table=table,
        calibration=None if calibrate else calibration_of(),
        target=target,
        size=size,
        held_out=held_out,
        mirrored=mirrored,
        teacher=_teacher(teacher, reader, model),
        truths=truths,
    )
    text = ", ".join(f"{count} {status}" for status, count in counts.items())
    show(text, counts=counts, files=[out])


def _teacher(
    rendered: Path | None, reader: str | None, model: Path | None
) -> "Teacher | ReadAndRender | None":
    from norface_lib.datasets.rendered import Rendered
    from norface_lib.photos.detection import landmarker_file
    from norface_lib.photos.landmarker import Landmarker
    from norface_lib.photos.read_and_render import ReadAndRender
    from norface_lib.photos.teacher import Teacher

    if reader is not None:
        return ReadAndRender(reader)
    if rendered is None:
        return None
    faces = Rendered(rendered, progress=True)
    return Teacher(faces, Landmarker(landmarker_file(model), levels=0))


@app.command(rich_help_panel=_PANEL)
def join(
    out: Annotated[Path, typer.Argument(help="folder to write")],
    parts: Annotated[
        list[Path],
        typer.Argument(help="benchmarks with the same target: rendered, or pseudo-pairs"),
    ],
) -> None:
    """Join several benchmarks into one, to train on rendered faces and photographs together."""
    from norface_lib.datasets.joined import join_benchmarks

    count = join_benchmarks(parts, out)
    show(f"{count} faces", counts={"faces": count}, files=[out])


@app.command(rich_help_panel=_PANEL)
def write_as(
    layout: Annotated[GatedDataset, typer.Argument(help="the dataset whose layout to write")],
    benchmark: Annotated[Path, typer.Argument(help="a rendered benchmark")],
    out: Annotated[Path, typer.Argument(help="folder to write, which must not exist")],
    variant: Annotated[
        Variant | None,
        typer.Option(
            help="bp4d, bp4d_plus, disfa: images, video, or zip (not disfa); affectnet: old, new, "
            "folders; rafdb: aligned, original, folders"
        ),
    ] = None,
    quirks: Annotated[
        bool,
        typer.Option(help="with the faults of real data: code 9, missing labels, a broken image"),
    ] = True,
    seed: SeedOption = 0,
) -> None:
    """Write a rendered benchmark in the layout of a gated dataset, to try that dataset's loader."""
    from norface_lib.datasets.layout_writer import Quirks
    from norface_lib.datasets.write_as import CLEAN
    from norface_lib.datasets.write_as import write_as as run

    report = run(
        layout, benchmark, out, variant=variant, quirks=Quirks() if quirks else CLEAN, seed=seed
    )
    show(report, files=[out], **_counts_of(report))


@app.command(rich_help_panel=_PANEL)
def inspect(
    name: Annotated[Layout, typer.Argument(help="the dataset, or folder for a folder of images")],
    root: Annotated[Path, typer.Argument(help="folder of the dataset")],
    task: Annotated[
        Task | None, typer.Option(help="task whose labels to show, for a dataset that has several")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="read every frame, and drop those that cannot be read")
    ] = False,
    option: LoaderOption = None,
    save_index: Annotated[
        Path | None,
        typer.Option(help="CSV file to save the index to, so that the next call need not scan"),
    ] = None,
) -> None:
    """Show what a dataset's folder holds, which frames were dropped and why, and how often each
    label occurs."""
    from norface_lib.datasets import open_dataset
    from norface_lib.datasets.options import read_options

    options = read_options(name, option or ()) | ({} if task is None else {"task": task})
    data = open_dataset(name, root, **options)
    report = data.check() if check else data.report
    rates = {label: float(rate) for label, rate in data.base_rates().items()}
    if save_index:
        data.save_index(save_index)

    lines = [str(report)]
    if data.published:
        lines.append(f"published: {data.published}")
    lines += [f"  {label:<10}{rate:7.1%}" for label, rate in rates.items()]
    show(
        "\n".join(lines),
        files=[save_index] if save_index else [],
        base_rates=rates,
        **_counts_of(report),
    )


def _counts_of(report: "Report") -> dict[str, dict[str, int]]:
    """How many there are, and how many were dropped or noted for which reason."""
    return {
        "counts": report.found,
        "dropped": report.dropped,
        "noted": report.noted,
        "unused": report.unused,
    }
