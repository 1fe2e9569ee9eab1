"""The documentation site: README, the pages of `docs` and the notebooks as they are committed,
which are not run again. `make site` builds it; a link that leads nowhere stops the build."""

import json
from pathlib import Path

from docutils import nodes

project = "norface"
author = copyright = "The norface authors"
language = "en"

extensions = ["myst_nb"]
root_doc = "README"
include_patterns = [
    "README.md",
    "DATASET.md",
    "docs/*.md",
    "norface_lib/PAPER.md",
    "notebooks/[0-9]*.ipynb",
]
# folders that are not even searched
exclude_patterns = [".*", "build", "runs", "tests", "results", "figures", "venv"]

nb_execution_mode = "off"
myst_heading_anchors = 4  # as GitHub makes them
myst_enable_extensions = ["dollarmath", "html_image"]
suppress_warnings = [
    "myst.header",  # a page may begin with a smaller heading
    "mystnb.unknown_mime_type",  # widgets, which need a kernel: a figure is their static twin
]

html_theme = "furo"
html_title = "norface"
html_extra_path = ["site"]  # index.html, which leads to the README
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_copy_source = False

_CONTENTS = """

```{toctree}
:hidden:
:caption: Notebooks
:titlesonly:
:glob:

notebooks/*
```

```{toctree}
:hidden:
:caption: Documentation
:glob:

docs/*
DATASET
norface_lib/PAPER
```
"""


def add_contents(app, name, source):
    """The README becomes the start of the site: all other pages are listed beside it."""
    if name == root_doc:
        source[0] += _CONTENTS


def add_texts(app, doctree):
    """Pictures of a notebook's outputs get the texts that `plots.show` gave them: myst-nb does not
    read these."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    outputs = [
        output.get("metadata", {}).get(kind, {}).get("alt", "")
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
        for kind in ("image/png", "image/jpeg")
        if kind in output.get("data", {})
    ]
    pictures = [node for node in doctree.findall(nodes.image) if "alt" not in node]
    for picture, text in zip(pictures, outputs, strict=True):
        picture["alt"] = text


def setup(app):
    app.connect("source-read", add_contents)
    app.connect("doctree-read", add_texts)
