"""The main job: the notebooks in order by papermill, then a folder of faces, then one table."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from norface_lib.cli.publish import notebook_names
from norface_lib.common.errors import DataError, NorfaceError, needs
from norface_lib.common.files import write_json
from norface_lib.common.paths import NOTEBOOKS, ROOT, cache, no_folder, runs, shown
from norface_lib.common.records import machine, versions
from norface_lib.faces.benchmark import VERSION
from norface_lib.networks.classifier import INPUTS
from norface_lib.studies.smiles import read_smiles, write_smiles

with needs("notebooks"):
    import nbformat
    import papermill
    import yaml
    from papermill.exceptions import PapermillExecutionError


def profiles() -> dict[str, dict[str, dict[str, Any]]]:
    """Parameters of each notebook for each profile, from ``profiles.yaml``."""
    return yaml.safe_load((Path(__file__).parent / "profiles.yaml").read_text())


def parameters_of(notebook: str, profile: str) -> dict[str, Any]:
    """Parameters that a profile gives to a notebook. Raises :class:`DataError` for an unknown
    profile."""
    known = profiles()
    if profile not in known:
        raise DataError(f"no profile {profile!r}; there are {', '.join(known)}")
    return known[profile].get(notebook, {}) | {"profile": profile}


def reproduce(
    profile: str, *, photos: Path | None = None, only: list[str] | None = None
) -> dict[str, Any]:
    """Runs the notebooks of a profile into ``runs/<profile>/`` and returns the summary, which is
    also written there.

    ``photos``: a folder of aligned faces for the last step, beside the faces it renders itself.
    ``only``: the beginnings of the names of the notebooks to run; the last step is then left out.
    Raises :class:`NorfaceError` naming the notebook that failed; what ran before is kept, and the
    next call takes rendered faces and trained networks from the cache.
    """
    parameters_of("", profile)
    if photos is not None and not Path(photos).is_dir():
        raise DataError(f"{photos}: {no_folder(photos)}; check the path")
    names = _chosen(only)
    folder = runs() / profile
    before = _seconds_of_last_run(folder)
    everything = not only
    steps = len(names) + everything
    started = time.monotonic()

    seconds: dict[str, float] = {}
    for number, name in enumerate(names, 1):
        print(f"[{number}/{steps}] {name}{_estimate(before, names[number - 1 :])}", flush=True)
        seconds[name] = _run(name, profile, folder)

    summary: dict[str, Any] = {"profile": profile, "seconds": seconds}
    if everything:
        print(f"[{steps}/{steps}] faces of a folder", flush=True)
        faces_started = time.monotonic()
        summary["faces"] = _read_faces(profile, folder, photos)
        seconds["faces"] = round(time.monotonic() - faces_started, 1)
    seconds["all"] = round(time.monotonic() - started, 1)
    summary["au_detection"] = _detection(folder)
    summary["machine"] = machine()
    summary["versions"] = versions()

    write_json(summary, folder / "summary.json")
    return summary


def _chosen(only: list[str] | None) -> list[str]:
    """Names of the notebooks that start with one of some words, or of all."""
    if not only:
        return notebook_names()
    names = notebook_names()
    for word in only:
        if not word or not any(name.startswith(word) for name in names):
            raise DataError(f"no notebook starts with {word!r}; there are {', '.join(names)}")
    return [name for name in names if name.startswith(tuple(only))]


def _run(name: str, profile: str, folder: Path) -> float:
    """Executes one notebook and returns its seconds."""
    started = time.monotonic()
    output = folder / f"{name}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    )
    try:
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{name}.ipynb"),
            str(output),
            parameters=parameters_of(name, profile),
            kernel_name="python3",
            cwd=str(NOTEBOOKS),
            progress_bar={"desc": "    cells", "file": sys.stderr, "mininterval": 5.0},
            # its warning that local sockets are not encrypted
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
    except PapermillExecutionError as error:
        reason = error.evalue or error.source.strip().splitlines()[-1]
        raise NorfaceError(
            f"{name}: cell {error.exec_count} failed: {error.ename}: {reason} (see {shown(output)})"
        ) from error

    for line in _reused(output):
        print(f"    {line}")
    return round(time.monotonic() - started, 1)


def _reused(notebook: Path) -> list[str]:
    """Lines in which an executed notebook says that it took something from the cache."""
    lines = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            lines += output.get("text", "").splitlines()
    return [line.strip() for line in lines if "used as" in line]


def _seconds_of_last_run(folder: Path) -> dict[str, float]:
    try:
        return json.loads((folder / "summary.json").read_text())["seconds"]
    except (OSError, ValueError, KeyError):
        return {}


def _estimate(before: dict[str, float], names: list[str]) -> str:
    """A remark on how long the rest took the last time."""
    known = [before[name] for name in (*names, "faces") if name in before]
    return f"  (about {sum(known) / 60:.0f} min left, by the last run)" if known else ""


def _detection(folder: Path) -> dict[str, float]:
    """Mean F1 of each input on ``lab`` from the result file of notebook 05 in the folder of a run,
    or nothing if it has not run."""
    path = folder / "results" / "au_detection.json"
    if not path.exists():
        return {}
    rows = json.loads(path.read_text())["result"]["lab"]["rows"]
    return {name: rows[name]["headline"] for name in INPUTS}


def _read_faces(profile: str, folder: Path, photos: Path | None) -> dict[str, Any]:
    """The last step: rendered faces, and the photographs if there are any, read by the AU detectors
    of notebook 05."""
    readers = sorted((folder / "detectors").glob("both-*.safetensors"))
    if not readers:
        raise DataError(f"{shown(folder)}: no AU detector there; notebook 05 writes it")
    count = profiles()[profile]["photos"]["subjects"]
    sources = {"rendered": write_smiles(cache("smiles", version=VERSION, subjects=count), count)}
    if photos is not None:
        sources[Path(photos).resolve().name] = Path(photos)
    results = {}
    for name, source in sources.items():
        out = folder / f"faces-{name}"
        sheet = out.with_suffix(".png")
        names = [str(path) for path in readers]
        faces = read_smiles(source, out, sheet=sheet, readers=names)
        results[name] = faces | {"sheet": shown(sheet)}
    return results


def table(summary: dict[str, Any]) -> str:
    """The summary as a text table."""
    lines = [
        "",
        f"AU detection, rendered faces, profile {summary['profile']}: mean F1 over 3 "
        "subject-exclusive folds",
        "",
    ]
    lines += [f"  {name:<12} {value:.3f}" for name, value in summary["au_detection"].items()]
    for name, row in summary.get("faces", {}).items():
        score = "none" if row["smile_auc"] is None else f"AUC {row['smile_auc']:.3f}"
        # summaries of earlier versions do not say what is known of the labels
        score += f" ({row['smile_labels']})" if "smile_labels" in row else ""
        lines += [
            "",
            f"AU12 output, smiling against neutral, {row['faces']} {name} faces: {score}  (sheet: "
            f"{row['sheet']})",
        ]
    return "\n".join([*lines, "", f"{summary['seconds']['all'] / 60:.1f} minutes"])
