"""Commands that hand weights on to others: ONNX files, and the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli import checks
from norface_lib.cli.options import TargetOption
from norface_lib.cli.output import show

app = typer.Typer()
_PANEL = "Weights"


@app.command(rich_help_panel=_PANEL)
def export(
    weights: Annotated[
        list[str],
        typer.Argument(
            help="shipped names or paths: a normalizer, classifiers, or a normalizer with "
            "classifiers that belong to it"
        ),
    ],
    out: Annotated[Path, typer.Argument(help="the ONNX file to write")],
    target: TargetOption = None,
    opset: Annotated[
        int, typer.Option(help="version of the ONNX operations, 17 to 20", min=17, max=20)
    ] = 20,
) -> None:
    """Write networks as an ONNX file, after a comparison with PyTorch.

    Inputs are aligned faces (N, 3, S, S), RGB in 0..1; a normalizer's target is part of the file.
    Outputs: `normalized`, and for each classifier probabilities or intensities, by its name.
    Labels, crop and color order stand in the file's metadata.
    """
    from norface_lib.networks.export_onnx import TOLERANCE, export_onnx

    metadata = export_onnx(weights, out, target=target, opset=opset)
    show(
        f"{out}: {' and '.join(metadata['inputs'])} to {', '.join(metadata['outputs'])}; "
        f"within {TOLERANCE:g} of PyTorch",
        files=[out],
        inputs=list(metadata["inputs"]),
        outputs=list(metadata["outputs"]),
    )


@app.command(rich_help_panel=_PANEL)
def push(
    weights: Annotated[
        list[str],
        typer.Argument(help="shipped names or paths; their normalizers are sent with them"),
    ],
    repository: Annotated[
        str,
        typer.Argument(help="owner/name on the Hugging Face Hub", callback=checks.repository),
    ],
    private: Annotated[bool, typer.Option("--private", help="a new repository is private")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the files and send nothing")
    ] = False,
) -> None:
    """Send weights to the Hugging Face Hub, with cards, target pictures and a README.

    Needs the account of `hf auth login`. Commands take them as hf://owner/name, or with a revision
    as hf://owner/name@revision.
    """
    from norface_lib.networks.hub import push_to_hub

    files, revision = push_to_hub(weights, repository, private=private, dry_run=dry_run)
    sizes = {}
    for name, content in files.items():
        sizes[name] = len(content) if isinstance(content, bytes) else content.stat().st_size
    lines = [f"{size:>12,} bytes  {name}" for name, size in sizes.items()]
    lines.append("nothing was sent" if revision is None else f"hf://{repository}@{revision}")
    show("\n".join(lines), sizes=sizes, revision=revision)
