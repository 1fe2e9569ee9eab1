"""The documentation of the command line names what there is, and nothing else."""

import re
import tomllib
from importlib.util import find_spec

import pytest
from test_cli import COMMANDS
from typer.main import get_command

from norface_lib.cli.app import EXIT_CODES, app
from norface_lib.cli.output import REFUSED, STOPPED, TERMINATED, UNFORESEEN
from norface_lib.cli.requirements import CORE, EXTRAS
from norface_lib.common.paths import ROOT
from norface_lib.images.crop import ALIGNED
from norface_lib.labels import EMOTIONS
from norface_lib.photos import statuses
from norface_lib.photos.readings import FORMATS, PLACES

TEXT = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

SHARED = {"--help", "--install-completion", "--show-completion"}

OPTIONS = {
    flag
    for command in (get_command(app), *COMMANDS.values())
    for option in command.params
    for flag in (*option.opts, *option.secondary_opts)
    if flag.startswith("--")
}


def first_cells(heading):
    """The first column of the table below a header, without backquotes."""
    rows = TEXT.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip() for row in rows]


def test_every_command_has_one_line_and_no_other_is_named():
    calls = [cell.strip("`").removeprefix("norface ") for cell in first_cells("command")]
    named = [re.match(r"[a-z-]+( [a-z]+)?", call)[0] for call in calls]
    assert sorted(named) == sorted(COMMANDS)


def test_a_call_names_the_arguments_that_the_command_needs():
    for cell in first_cells("command"):
        call = cell.strip("`").removeprefix("norface ")
        name = next(name for name in COMMANDS if re.match(rf"{name}( [A-Z]|$)", call))
        arguments = [word for word in call.split() if word.isupper() or "/" in word]
        required = [
            option
            for option in COMMANDS[name].params
            if option.param_type_name == "argument" and option.required
        ]
        assert len(arguments) == len(required), call


def test_every_exit_code_is_explained():
    codes = {int(cell) for cell in first_cells("exit code")}
    assert codes == EXIT_CODES.keys() | {REFUSED, UNFORESEEN, STOPPED, TERMINATED}


@pytest.mark.parametrize("text", [TEXT, README], ids=["command_line.md", "README.md"])
def test_every_command_and_option_that_is_named_exists(text):
    called = re.findall(r"(?:python -m norface_lib|`norface) ([a-z][a-z-]+)", text)
    assert len(called) > 5 and {*called} <= {name.split()[0] for name in COMMANDS}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    assert named - SHARED <= OPTIONS


def test_new_commands_are_in_the_readme():
    assert "(docs/command_line.md)" in README
    assert all(f"`{name} " in README for name in ("export", "push")) and "lib doctor`" in README


def test_every_column_status_and_format_is_explained():
    cells = " ".join(first_cells("columns"))
    columns = [name for name in PLACES if not name.endswith(("_x", "_y"))]
    assert all(f"`{name}`" in cells for name in columns)
    named = re.findall(r"`(\w+_[xy]|emotion|happy)`", cells)
    assert set(named) <= {*PLACES, "emotion", *EMOTIONS}
    known = {
        value for name, value in vars(statuses).items() if name.isupper() and name != "TRIED_AGAIN"
    }
    assert {cell.strip("`") for cell in first_cells("status")} == known | {ALIGNED}
    again = {cell.split("|")[1].strip(" `") for cell in TEXT.splitlines() if "tries again" in cell}
    assert again == set(statuses.TRIED_AGAIN)
    assert all(kind == "csv" or f"--format {kind}" in TEXT for kind in FORMATS)


def test_doctor_looks_for_the_packages_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(lines):
        return {re.match(r"[\w-]+", line)[0] for line in lines}

    assert set(CORE.values()) == names(project["dependencies"])
    extras = {extra: names(lines) for extra, lines in project["optional-dependencies"].items()}
    extras.pop("test")
    assert {extra: set(packages.values()) for extra, packages in EXTRAS.items()} == extras
    modules = {module for packages in (CORE, *EXTRAS.values()) for module in packages}
    assert all(find_spec(module) for module in modules)
