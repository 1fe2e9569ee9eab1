"""What a run made, put where readers see it: outputs into the committed notebooks, result files and
figures into the tracked folders. Nothing else writes there."""

import base64
import copy
import re
import shutil
from pathlib import Path

import cv2
import numpy as np

from norface_lib.common.errors import DataError, needs
from norface_lib.common.paths import NOTEBOOKS, ROOT, runs, shown

with needs("notebooks"):
    import nbformat

_RUN_LINE = re.compile(
    r".*(used as it is|used as they are|goes on from step)"  # what came from the cache
    r"|\d\d\.[\w.]+ = .*(expected|not compared)"  # comparisons of `check_expected`
)
"""Lines of an output that a reader of the committed notebook has no use for."""

_LARGEST = 1_900_000
"""Bytes of a committed notebook."""

_SIZES = ((2_000_000, 80), (1_400_000, 75), (1_000_000, 70), (700_000, 62), (350_000, 54))
"""Pixels and JPEG quality of a picture: the first with which the notebook stays under its limit."""


def notebook_names() -> list[str]:
    """The notebooks in reading order, without their ending."""
    return sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb"))


SHOWN = "quick"
"""The profile whose outputs the committed notebooks show, and whose figures the README shows."""


def publish(profile: str = SHOWN) -> list[Path]:
    """Copies result files of a profile's run to ``results/<profile>``. Of the profile ``quick``,
    also figures to ``figures`` and outputs into ``notebooks``, without traces of the run.

    Returns what was written. Raises :class:`DataError` if the run is not there, or was run from
    other notebooks.
    """
    folder = runs() / profile
    executed = _executed(folder) if profile == SHOWN else {}
    written = _copied(folder / "results", ROOT / "results" / profile, "*.json")
    if not written:
        raise DataError(
            f"{shown(folder / 'results')}: no result file there; run the profile {profile} first"
        )
    if profile == SHOWN:
        written += _copied(folder, ROOT / "results" / profile, "summary.json")
        written += _copied(folder / "figures", ROOT / "figures", "*.*")
        notebooks = [_publish_notebook(name, cells) for name, cells in executed.items()]
        written += [*notebooks, *filter(None, map(_write_thumbnail, notebooks))]
    return written


def _copied(source: Path, target: Path, pattern: str) -> list[Path]:
    """Copies the files of a folder that match a pattern, and returns the copies."""
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, target / path.name)) for path in sorted(source.glob(pattern))]


def _executed(folder: Path) -> dict[str, list[nbformat.NotebookNode]]:
    """The cells of all executed notebooks, which are checked before anything is written."""
    executed = {}
    for name in notebook_names():
        path = folder / f"{name}.ipynb"
        if not path.exists():
            raise DataError(f"{shown(path)}: not there; run the profile {folder.name} first")
        cells = [
            cell
            for cell in nbformat.read(path, as_version=4).cells
            if not has_tag(cell, "injected-parameters")
        ]
        committed = nbformat.read(NOTEBOOKS / path.name, as_version=4)
        if [cell.source for cell in cells] != [cell.source for cell in committed.cells]:
            raise DataError(
                f"{shown(path)}: was run from another version of the notebook; run it again"
            )
        executed[name] = cells
    return executed


def _publish_notebook(name: str, cells: list[nbformat.NotebookNode]) -> Path:
    """Puts the outputs of executed cells into a committed notebook, and returns its path."""
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata.language_info = {"name": "python"}
    for pixels, quality in _SIZES:
        _take_outputs(notebook, cells, pixels=pixels, quality=quality)
        if len(nbformat.writes(notebook)) < _LARGEST:
            break
    nbformat.write(notebook, path)
    return path


_THUMBNAIL = (180, 108)
"""Width and height of a notebook's picture in the README's table."""


def _write_thumbnail(path: Path) -> Path | None:
    """Writes ``figures/thumbnails/<number>.jpg``: the middle of a published notebook's picture,
    the first of the cell with the tag ``thumbnail``, or of all; None if it has none."""
    cells = nbformat.read(path, as_version=4).cells
    tagged = [cell for cell in cells if has_tag(cell, "thumbnail")]
    pictures = [picture for cell in tagged or cells for picture in _pictures(cell)]
    if not pictures:
        return None
    image = cv2.imdecode(np.frombuffer(pictures[0], np.uint8), cv2.IMREAD_COLOR)
    width, height = _THUMBNAIL
    scale = max(width / image.shape[1], height / image.shape[0])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    left, top = (image.shape[1] - width) // 2, (image.shape[0] - height) // 2
    target = ROOT / "figures" / "thumbnails" / f"{path.stem[:2]}.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(cv2.imencode(".jpg", image[top : top + height, left : left + width])[1])
    return target


def _pictures(cell: nbformat.NotebookNode) -> list[bytes]:
    """The pictures among a cell's outputs, encoded."""
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    kinds = ("image/png", "image/jpeg")
    return [base64.b64decode(each[kind]) for each in data for kind in kinds if kind in each]


def has_tag(cell: nbformat.NotebookNode, tag: str) -> bool:
    """True if a cell of a notebook has a tag."""
    return tag in cell.metadata.get("tags", [])


def _take_outputs(
    notebook: nbformat.NotebookNode,
    executed: list[nbformat.NotebookNode],
    *,
    pixels: int,
    quality: int,
) -> None:
    """Gives cells the outputs of executed ones, and numbers as a reader gets them who runs all: of
    the run itself, papermill's cell of parameters took one."""
    count = 0
    for cell, source in zip(notebook.cells, executed, strict=True):
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        kept = [output for output in source.outputs if _WIDGET not in output.get("data", {})]
        cell.outputs = _smaller(kept, pixels=pixels, quality=quality)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count


_WIDGET = "application/vnd.jupyter.widget-view+json"
"""Of outputs that need a kernel; a reader without one would see an empty place."""


def _smaller(
    outputs: list[nbformat.NotebookNode], *, pixels: int, quality: int, largest: int = 25_000
) -> list[nbformat.NotebookNode]:
    """A copy of outputs, with pictures of more than ``largest`` bytes, which are rows of faces, as
    JPEG of no more than some pixels.

    Without what went to stderr, for warnings name the files of this machine, and progress bars are
    over; and without lines that are about the run and not about its subject (`_RUN_LINE`).
    """
    outputs = [copy.deepcopy(output) for output in outputs if output.get("name") != "stderr"]
    for output in outputs:
        if "text" in output:
            lines = output.text.splitlines(keepends=True)
            output.text = "".join(line for line in lines if not _RUN_LINE.match(line))
    outputs = [output for output in outputs if output.get("text") != ""]
    for output in outputs:
        picture = base64.b64decode(output.get("data", {}).get("image/png", ""))
        if len(picture) > largest:
            del output.data["image/png"]
            output.data["image/jpeg"] = _as_jpeg(picture, pixels=pixels, quality=quality)
            if "image/png" in output.metadata:  # the text for readers who cannot see it
                output.metadata["image/jpeg"] = output.metadata.pop("image/png")
    return outputs


def _as_jpeg(png: bytes, *, pixels: int, quality: int) -> str:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    scale = min(1.0, (pixels / image[..., 0].size) ** 0.5)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return base64.b64encode(jpeg).decode()
