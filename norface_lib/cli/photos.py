"""Commands for photographs and videos: align, normalize, predict."""

from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli.options import (
    AllFacesOption,
    BatchOption,
    DetectorOption,
    DeviceOption,
    DrawnSizeOption,
    DrawOption,
    EndSecondsOption,
    EngineOption,
    EveryOption,
    LandmarkerOption,
    Layout,
    LevelsOption,
    LoaderOption,
    NormalizerOption,
    OverwriteOption,
    PointsOption,
    StartSecondsOption,
    TableFormat,
    TargetOption,
    Task,
    TokenReaderOption,
    WorkersOption,
    print_counts,
)
from norface_lib.cli.output import show

app = typer.Typer()
_PANEL = "Photographs and videos"


@app.command(rich_help_panel=_PANEL)
def predict(
    source: Annotated[
        list[Path],
        typer.Argument(
            help="images, videos, folders of both with their subfolders, or patterns such as "
            "'photos/*.jpg'; one or several"
        ),
    ],
    out: Annotated[
        Path, typer.Argument(help="folder for predictions.csv, aligned and normalized faces")
    ],
    detector: DetectorOption = "mediapipe",
    reader: Annotated[
        list[str] | None,
        typer.Option(
            help="weights of a token reader or a classifier: a shipped name or a path; may be "
            "repeated; default: tiny-photo-reader"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="weights of the normalizer, a shipped name or a path; default: tiny-photo-224, or "
            "the one that a classifier belongs to"
        ),
    ] = None,
    target: TargetOption = None,
    every: EveryOption = 1,
    start: StartSecondsOption = 0.0,
    end: EndSecondsOption = None,
    all_faces: AllFacesOption = False,
    model: LandmarkerOption = None,
    levels: LevelsOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    table_format: Annotated[
        TableFormat,
        typer.Option("--format", help="also writes it as parquet, or as a json list of records"),
    ] = "csv",
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay",
            help="also write OUT/overlay: pictures and videos with boxes, bars and normalized "
            "faces",
        ),
    ] = False,
    page: Annotated[
        bool,
        typer.Option(
            "--page",
            help="also write OUT/index.html: the faces to click through in a browser, each with a "
            "wipe between original and normalized, bars and values",
        ),
    ] = False,
    engine: EngineOption = "torch",
    draw: DrawOption = "network",
    token_reader: TokenReaderOption = "tiny-photo-reader",
    size: DrawnSizeOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Predict AUs, their intensities and emotions from photographs and videos; write one table with
    a row for each face, and for each file and frame without one.

    To resume after a stop, run the same command again. With --draw render, OUT/normalized holds
    rendered faces; the classifiers go on reading those of the network.
    """
    from norface_lib.images.crop import ALIGNED
    from norface_lib.photos.detection import open_detector
    from norface_lib.photos.prediction import predict_tree
    from norface_lib.photos.read_and_render import open_rendering
    from norface_lib.photos.readers import READERS
    from norface_lib.photos.readings import PREDICTIONS

    drawing = open_rendering(
        draw, token_reader=token_reader, target=target, size=size, device=device
    )
    counts = predict_tree(
        source,
        out,
        detector=open_detector(detector, model, levels=levels),
        readers=tuple(reader or READERS),
        weights=weights,
        target=None if drawing else target,
        every=every,
        start=start,
        end=end,
        all_faces=all_faces,
        batch_size=batch_size,
        device=device,
        table_format=table_format,
        engine=engine,
        drawing=drawing,
        overwrite=overwrite,
    )
    if overlay:
        from norface_lib.viz.overlay_files import OVERLAY, write_overlays

        made = write_overlays(source, out)
        text = ", ".join(f"{made[kind]} {kind}" for kind in made)
        show(f"{text} (see {out / OVERLAY})", overlays=made)
    if page:
        from norface_lib.viz.page import PAGE, write_page

        faces = write_page(out)
        show(f"{faces} faces to look at (see {out / PAGE})", page=faces)
    print_counts(counts, out / PREDICTIONS, ALIGNED)


@app.command(rich_help_panel=_PANEL)
def normalize(
    source: Annotated[
        list[Path],
        typer.Argument(
            help="a folder of faces, with its subfolders, or the root of a dataset; with a "
            "detector also files, patterns, or several of them"
        ),
    ],
    out: Annotated[
        Path, typer.Argument(help="folder for the normalized faces, in subfolders as in SOURCE")
    ],
    detector: DetectorOption = "none",
    layout: Annotated[
        Layout, typer.Option(help="SOURCE is a folder of images, or a dataset of this layout")
    ] = "folder",
    weights: NormalizerOption = "tiny",
    target: TargetOption = None,
    points: PointsOption = None,
    levels: LevelsOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    draw: DrawOption = "network",
    token_reader: TokenReaderOption = "tiny-photo-reader",
    size: DrawnSizeOption = None,
    overwrite: OverwriteOption = False,
    option: LoaderOption = None,
    workers: WorkersOption = None,
) -> None:
    """Normalize every face of a folder. To resume after a stop, run the same command again.

    Faces that are aligned already need no detector. With one, the faces of ordinary photographs and
    videos are detected and cropped first, into OUT/aligned. --draw render draws without a
    normalizer: sharp at any size, for any of the rendered target identities.
    """
    from norface_lib.datasets.normalized import MANIFEST
    from norface_lib.datasets.options import read_options
    from norface_lib.photos.whole_folders import normalize as run

    counts = run(
        source,
        out,
        detector=detector,
        levels=levels,
        layout=layout,
        options=read_options(layout, option or ()),
        weights=weights,
        target=target,
        points=points,
        batch_size=batch_size,
        device=device,
        draw=draw,
        token_reader=token_reader,
        size=size,
        overwrite=overwrite,
        workers=workers,
    )
    files = sorted(out.glob(f"*/{MANIFEST}"))
    print_counts(counts, MANIFEST, "normalized", "there already", files=files)


@app.command(rich_help_panel=_PANEL)
def align(
    source: Annotated[
        list[Path],
        typer.Argument(
            help="photographs, videos, folders of both with their subfolders, or patterns such as "
            "'photos/*.jpg'; one or several"
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="folder for faces.csv and the aligned faces, in subfolders as in SOURCE"
        ),
    ],
    detector: DetectorOption = "mediapipe",
    size: Annotated[
        int, typer.Option(min=48, max=1024, help="width of an aligned face in pixels")
    ] = 112,
    every: EveryOption = 1,
    start: StartSecondsOption = 0.0,
    end: EndSecondsOption = None,
    all_faces: AllFacesOption = False,
    model: LandmarkerOption = None,
    levels: LevelsOption = None,
    overwrite: OverwriteOption = False,
    layout: Annotated[
        Layout,
        typer.Option(
            help="SOURCE is a folder of images, or a dataset: then only points.csv is made"
        ),
    ] = "folder",
    task: Annotated[
        Task | None, typer.Option(help="for a dataset: only the frames with labels of this task")
    ] = None,
    option: LoaderOption = None,
) -> None:
    """Detect the faces of photographs and videos and crop them as the networks need them. To resume
    after a stop, run the same command again.

    The frames of a dataset are not copied: OUT/points.csv tells `normalize` and `train` (--points)
    where their faces are.
    """
    from norface_lib.datasets import open_dataset
    from norface_lib.datasets.options import read_options
    from norface_lib.images.crop import ALIGNED
    from norface_lib.photos.dataset_points import find_points
    from norface_lib.photos.detection import open_detector
    from norface_lib.photos.folders import align_tree
    from norface_lib.photos.listing import one_folder
    from norface_lib.photos.tables import FACES

    options = read_options(layout, option or ())
    faces = open_detector(detector, model, levels=levels)
    if layout == "folder":
        counts = align_tree(
            source,
            out,
            faces,
            size=size,
            every=every,
            start=start,
            end=end,
            all_faces=all_faces,
            overwrite=overwrite,
        )
        print_counts(counts, FACES, ALIGNED, files=[out / FACES])
        return

    options |= {} if task is None else {"task": task}
    points = out / "points.csv"
    if overwrite:
        points.unlink(missing_ok=True)
    counts = find_points(open_dataset(layout, one_folder(source), **options), points, faces)
    print_counts(counts, points, ALIGNED)
