"""The layout of the library: few packages, one direction of imports, files of one idea."""

import ast

import pytest

from norface_lib.common.paths import ROOT

LIBRARY = ROOT / "norface_lib"
FILES = sorted(LIBRARY.rglob("*.py"))

ORDER = (
    "common",
    "labels",
    "images",
    "faces",
    "networks",
    "datasets",
    "tasks",
    "training",
    "photos",
    "studies",
    "viz",
    "cli",
)
"""Each may import those before it, and itself."""

FLAT = {"__init__.py", "__main__.py", "labels.py"}

LONGEST = 350
"""Lines of a file."""

LONGER = {
    "faces/kernels.py": "the kernels of the renderer, which share their helper functions",
}
"""Files that may be longer, and why."""


def name_of(path):
    return path.relative_to(LIBRARY).as_posix()


def package_of(path):
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports_of(path):
    """Packages of the library that a file imports, within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            library, _, rest = module.partition(".")
            if library == "norface_lib" and rest:
                yield rest.split(".")[0]


def test_the_packages_are_those_named_here():
    folders = {path.name for path in LIBRARY.iterdir() if any(path.rglob("*.py"))}
    assert folders | {"labels"} == set(ORDER)
    assert {path.name for path in LIBRARY.glob("*.py")} == FLAT


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path):
    if package_of(path) not in ORDER:
        return  # the public names and `python -m`
    allowed = ORDER[: ORDER.index(package_of(path)) + 1]
    assert set(imports_of(path)) <= set(allowed)


def test_no_file_is_long_but_those_named_here():
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name for name, count in lines.items() if count > LONGEST} <= set(LONGER)


@pytest.mark.parametrize("name", ORDER)
def test_every_package_says_in_a_sentence_what_it_holds(name):
    if name == "labels":
        return
    text = ast.get_docstring(ast.parse((LIBRARY / name / "__init__.py").read_text()))
    assert text.endswith(".") and 30 < len(text.splitlines()[0]) <= 97
