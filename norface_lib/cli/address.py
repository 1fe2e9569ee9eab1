"""The public address of the repository, which pyproject.toml names, put where readers meet it: the
quick start's cell that installs, and the badges of the README."""

import json
import re
from pathlib import Path

from norface_lib.common.files import write_atomically

_SOURCE = re.compile(r'^(SOURCE = os\.environ\.get\("NORFACE_SOURCE"\) or )".*"', re.MULTILINE)
_BADGES = re.compile(r" <!-- try -->.*?<!-- /try -->|$", re.DOTALL)

NOTEBOOK = "notebooks/00_quickstart.ipynb"
"""The notebook that can be tried without a copy of the repository."""


def write_address(root: Path, address: str) -> list[Path]:
    """Writes an address, ``https://github.com/OWNER/NAME``, into pyproject.toml, the quick start's
    cell and the README's badges of a checkout; returns these files. What an earlier call wrote is
    replaced."""
    name = address.removeprefix("https://github.com/")
    texts = {
        root / "pyproject.toml": lambda text: _with_url(text, address),
        root / NOTEBOOK: lambda text: _with_source(text, f"git+{address}"),
        root / "README.md": lambda text: _with_badges(text, name),
    }
    for path, changed in texts.items():
        text = changed(path.read_text(encoding="utf-8"))
        write_atomically(path, lambda part, text=text: part.write_text(text, "utf-8"))
    return list(texts)


def _with_url(text: str, address: str) -> str:
    text = re.sub(r"\[project\.urls\]\n.*?\n\n", "", text, flags=re.DOTALL)
    urls = f'[project.urls]\nRepository = "{address}"\n\n'
    return text.replace("[project.scripts]\n", f"{urls}[project.scripts]\n")


def _with_source(text: str, source: str) -> str:
    notebook = json.loads(text)
    (cell,) = (cell for cell in notebook["cells"] if "install" in cell["metadata"].get("tags", ()))
    code = _SOURCE.sub(rf'\1"{source}"', "".join(cell["source"]))
    cell["source"] = code.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _with_badges(text: str, name: str) -> str:
    """The README with two more badges at the end of its line of badges."""
    badges = (
        "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github/{name}/blob/HEAD/{NOTEBOOK}) "
        "[![Binder](https://mybinder.org/badge_logo.svg)]"
        f"(https://mybinder.org/v2/gh/{name}/HEAD?labpath={NOTEBOOK})"
    )
    lines = text.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("![Python"))
    line = _BADGES.sub("", lines[at].rstrip("\n"))
    lines[at] = f"{line} <!-- try -->{badges}<!-- /try -->\n"
    return "".join(lines)
