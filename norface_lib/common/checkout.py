"""The checkout that a running notebook lies in, which may be another one than is installed."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_PACKAGE = __name__.partition(".")[0]

_HERE = Path(__file__).resolve().parents[2]
"""The folder that the running package lies in."""


def use_own_checkout(namespace: Mapping[str, Any]) -> bool:
    """Makes later imports of a notebook take the package of the checkout that the notebook lies in.

    ``namespace``: the notebook's ``globals()``. Returns False if that is the running package
    already, or if the notebook lies in no checkout or does not tell where it lies. Otherwise the
    running package is forgotten, and processes that the notebook starts take the other one, too.
    """
    checkout = _checkout_of(_notebook(namespace))
    if checkout is None or checkout == _HERE:
        return False

    for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(checkout), others)))
    return True


def _notebook(namespace: Mapping[str, Any]) -> Path:
    """The running notebook's file, as far as the program that runs it tells. If it does not, a file
    in the present folder, where Jupyter, nbconvert and nbval start a notebook."""
    told = namespace.get("PAPERMILL_INPUT_PATH") or namespace.get("__vsc_ipynb_file__")
    if told:
        return Path(told)
    return _notebook_of_papermill() or Path(os.environ.get("JPY_SESSION_NAME", "notebook.ipynb"))


def _notebook_of_papermill() -> Path | None:
    """The notebook in the command line of the papermill that started this kernel, if one did.

    Without its option ``--inject-paths``, papermill tells the kernel nothing else.
    """
    try:
        parent = psutil.Process().parent()
        command, folder = (parent.cmdline(), Path(parent.cwd())) if parent else ([], Path())
    except psutil.Error:
        return None  # of another user, or gone

    if not any(Path(word).stem == "papermill" for word in command[:3]):
        return None
    files = [folder / word for word in command if word.endswith(".ipynb")]
    return next((path for path in files if path.is_file()), None)


def _checkout_of(notebook: Path) -> Path | None:
    """The checkout in whose ``notebooks`` a file lies, or None."""
    folder = notebook.resolve().parent
    root = folder.parent
    marks = (root / "pyproject.toml", root / _PACKAGE / "__init__.py")
    return root if folder.name == "notebooks" and all(map(Path.is_file, marks)) else None
