"""The command line: options that refuse nonsense, results apart from messages, exit codes, help."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from norface_lib.cli import checks, options
from norface_lib.cli.app import EXIT_CODES, app
from norface_lib.cli.examples import EXAMPLES
from norface_lib.cli.output import show, with_shared_options
from norface_lib.common.paths import ROOT


def commands(group=None, prefix=""):
    """Each command by its words, as in ``evaluate normalizer``."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands())


def norface(*arguments, **settings):
    """Runs a command in a process of its own; wide, so that no message is wrapped."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "250"} | settings
    call = [sys.executable, "-m", "norface_lib", *map(str, arguments)]
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300)


def invoke(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "250"})


# --- every option is checked ----------------------------------------------------------------------

FREE = {
    "reader": "a name or path of weights, which the library looks for first of all",
    "weights": "likewise",
    "token_reader": "likewise",
    "evaluator": "likewise",
    "start": "likewise",
    "target": "an identity that these weights know; the library lists them",
    "file": "a file or the name of a shipped sweep, which the library lists",
    "terms": "words for a card, which may say anything",
}
"""Options whose texts the command line cannot know; `test_the_library_refuses_*` try them."""

NONSENSE = {
    "int": ["-1", "-99", "seven", "1.5", "", "nan", "9" * 30],
    "float": ["-1", "seven", "", "nan", "inf", "1e9"],
    "str": ["gpu!", "../../x", "a,b", "", "=", "noor+", "-", "1,", "x=nan", "identity=", "0,0"],
}

ALLOWED = {
    "protocol": {""},  # the defaults, which stand for what suits
    "encoder": {""},
    "loss": {""},
    "identities": {"gpu!", "a,b", "=", "-", "1,", "x=nan", "identity=", "0,0"},
    "only": {"gpu!", "../../x", "a,b", "=", "noor+", "-", "1,", "x=nan", "identity=", "0,0"},
}
"""Texts that an option may take. ``--only`` compares them with the notebooks' names, and
``--identities`` with those of folders."""


def checked_options():
    """Options and arguments of each command that take a number or a text of their own."""
    for name, command in COMMANDS.items():
        for option in command.params:
            descriptor = option.type_descriptor
            kind = descriptor.annotation
            kind = getattr(kind, "__args__", (kind,))[0]  # of a list
            if descriptor.is_choice or kind not in (int, float, str) or option.name in FREE:
                continue
            if option.name == "target" and name not in ("render", "pseudo-pairs"):
                continue
            yield pytest.param(name, option, kind.__name__, id=f"{name} {option.name}")


def value_of(argument):
    """A value for a required argument that a command takes without looking for it."""
    descriptor = argument.type_descriptor
    return descriptor.choices[0] if descriptor.is_choice else "nowhere"


def call_of(name):
    call = name.split()
    for option in COMMANDS[name].params:
        if option.required:
            flag = option.opts[:1] if option.param_type_name == "option" else []
            call += [*flag, str(value_of(option))]
    return call


@pytest.mark.parametrize(("name", "option", "kind"), list(checked_options()))
def test_nonsense_is_refused_in_a_sentence_that_names_the_option(name, option, kind):
    call = call_of(name)
    for value in NONSENSE[kind]:
        if value in ALLOWED.get(option.name, ()):
            continue
        done = invoke(*call, f"{option.opts[0]}={value}")
        assert done.exit_code == 2, (value, done.output)
        assert option.opts[0] in done.stderr, (value, done.output)
        assert "Traceback" not in done.output and done.stdout == ""


def test_the_options_that_are_checked_are_many():
    names = {parameter.values[1].name for parameter in checked_options()}
    assert {"batch_size", "levels", "size", "seeds", "device", "every", "workers"} <= names
    assert {"held_out", "strength", "degraded", "loss", "term", "network", "name"} <= names


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("predict a b --batch-size -1", "greater than or equal to 1"),
        ("align a b --levels 9", "less than or equal to 6"),
        ("align a b --size 20000", "less than or equal to 1024"),
        ("train a b --seeds a", "'a' must be whole numbers joined by commas, as in 0,1,2"),
        ("train a b --seeds 0,0", "names a seed twice"),
        ("predict a b --device gpu", "no device 'gpu'; there are auto, cpu, cuda"),
        ("train a b --loss sum", "no loss 'sum'; there are au_detection: bce, asymmetric, dice;"),
        ("train a b --encoder gone.pth", "gone.pth: no such file; give a file of weights"),
        ("train-normalizer a b --name ../x", "'../x' is no name for a file"),
        ("train-normalizer a b --term edge=inf", "with a number of at least 0 and a term of"),
        ("render out --target noor+noor", "no target 'noor+noor'; there are noor, emil, ada"),
        ("write-as bp4d a b --variant 8mm", "'8mm' is not one of 'images', 'video', 'zip'"),
    ],
)
def test_a_refused_option_says_what_is_allowed(call, words):
    done = invoke(*call.split())
    assert done.exit_code == 2 and words in done.stderr


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("cuda", "cuda:3", "mps"):
        done = invoke("predict", "a", "b", "--device", name)
        assert f"no device '{name}' on this machine; there are cpu, and auto" in str(done.exception)


@pytest.mark.parametrize(
    "call",
    [
        "predict {photo} {out} --weights nobody --detector none",
        "predict {photo} {out} --reader nobody --detector none",
        "predict {photo} {out} --target nobody --detector none",
        "normalize {photo} {out} --weights nobody",
        "train {photo} {out} --weights nobody",
        "train {photo} {out} --task emotion --loss bce",
        "evaluate normalizer --weights nobody",
        "evaluate normalizer --target nobody",
        "evaluate normalizer --evaluator nobody",
        "evaluate readers {benchmark} --reader nobody --out {out}",
        "evaluate readers {benchmark} --reader tiny-au --weights nobody --out {out}",
        "evaluate transfer {benchmark} --train {benchmark} --weights nobody --out {out}",
    ],
)
def test_the_library_refuses_unknown_weights_before_it_writes(call, tmp_path, tiny_benchmark):
    (tmp_path / "photo").mkdir()
    (tmp_path / "photo/a.png").write_bytes(b"")
    places = {"photo": tmp_path / "photo", "out": tmp_path / "out", "benchmark": tiny_benchmark}
    arguments = call.format(**places).split()
    done = invoke(*arguments)
    assert done.exit_code == 1 and re.search("nobody|no loss 'bce'", str(done.exception))
    assert not (tmp_path / "out").exists()


def test_the_names_of_the_checks_are_those_of_the_library():
    from dataclasses import fields

    from norface_lib.datasets.write_as import VARIANTS
    from norface_lib.faces.benchmark import TARGETS
    from norface_lib.photos import statuses
    from norface_lib.studies.generated import TABLES
    from norface_lib.studies.recipes import BACKBONES
    from norface_lib.studies.text_table import FORMATS
    from norface_lib.tasks.tasks import TASKS
    from norface_lib.training.normalizer_terms import LossWeights, SynthesisTerms

    assert {name: tuple(TASKS[name].known_losses) for name in TASKS} == checks.LOSSES
    assert tuple(field.name for field in fields(LossWeights)) == checks.TERMS
    networks = [field.name for field in fields(SynthesisTerms) if "_network" in field.name]
    assert [name.removesuffix("_network") for name in networks] == list(checks.NETWORKS)
    assert tuple(TARGETS) == checks.TARGETS
    assert {*checks.BACKBONES, "timm:NAME"} == set(BACKBONES)
    assert list(options.ResultTable) == list(TABLES)
    assert options.TextFormat.__args__ == FORMATS
    assert set(options.Variant.__args__) == set(sum(VARIANTS.values(), ()))
    assert (statuses.UNREADABLE, *statuses.TRIED_AGAIN) == options._UNREADABLE
    assert options._LEFT_OUT == statuses.LEFT_OUT


# --- results, messages, JSON ----------------------------------------------------------------------


def small_app(function):
    """A command line with a command of the test."""
    small = typer.Typer()
    small.command()(with_shared_options(function))
    return small


def noisy() -> None:
    """Prints a message and shows a result."""
    print("a message")
    print("progress", file=sys.stderr)
    show("a result", counts={"aligned": 2}, files=[Path("a.csv")], score=float("nan"))


def test_results_are_on_stdout_and_messages_on_stderr():
    done = CliRunner().invoke(small_app(noisy), [])
    assert done.stdout == "a result\n"
    assert done.stderr == "a message\nprogress\n"


def test_quiet_leaves_the_result_alone():
    done = CliRunner().invoke(small_app(noisy), ["--quiet"])
    assert (done.stdout, done.stderr) == ("a result\n", "")


def test_json_is_one_object_and_nothing_else():
    done = CliRunner().invoke(small_app(noisy), ["--json"])
    content = json.loads(done.stdout)
    seconds = content.pop("seconds")
    assert 0 <= seconds < 60 and done.stderr == "a message\nprogress\n"
    assert content == {
        "command": "noisy",
        "exit_code": 0,
        "score": None,
        "counts": {"aligned": 2},
        "files": ["a.csv"],
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json_and_quiet(name):
    names = {flag for option in COMMANDS[name].params for flag in option.opts}
    assert {"--json", "--quiet"} <= names


@pytest.mark.parametrize(
    ("counts", "code", "words"),
    [
        ({"aligned": 2, "no face": 1}, 0, "2 aligned, 1 no face (see t.csv)"),
        ({"no face": 3}, 0, "3 no face (see t.csv): no face was found"),
        ({"no face": 1, "unreadable": 2}, 0, "no face was found"),
        ({"unreadable": 2, "left out": 1}, 1, "nothing could be read"),
    ],
)
def test_only_where_nothing_could_be_read_the_exit_code_is_1(counts, code, words):
    def count() -> None:
        options.print_counts(counts, "t.csv", "aligned")

    done = CliRunner().invoke(small_app(count), [])
    assert done.exit_code == code and words in done.stdout
    done = CliRunner().invoke(small_app(count), ["--json"])
    assert json.loads(done.stdout)["exit_code"] == done.exit_code == code


# --- errors ---------------------------------------------------------------------------------------

FAIL = """
import sys
from norface_lib.cli import app as line
from norface_lib.common.errors import DataError

def fail() -> None:
    \"\"\"Fails.\"\"\"
    {statement}

line.app.command()(line.with_shared_options(fail))
sys.argv = ["norface", "fail"]
sys.exit(line.main())
"""


def failing(statement, tmp_path, **settings):
    """A command that fails by a statement, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NORFACE_RUNS": str(tmp_path)} | settings
    call = [sys.executable, "-c", FAIL.format(statement=statement)]
    return subprocess.run(call, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("raise DataError('a.csv: lacks a column')", "a.csv: lacks a column"),
        ("raise DataError(f'no image {object()}')", "no image object"),
        ("open('nowhere/a')", "nowhere/a: No such file or directory; it is not there"),
        ("raise OSError(28, 'No space left on device', 'x.png')", "x.png: No space left on device"),
        ("raise MemoryError", "not enough memory; choose a smaller --batch-size"),
        (
            "from norface_lib.faces.benchmark import BenchmarkSpec; BenchmarkSpec(strength=7)",
            "strength must be within (0, 1], got 7",
        ),
    ],
)
def test_a_foreseeable_error_is_one_sentence(statement, sentence, tmp_path):
    done = failing(statement, tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"norface: {sentence}") and done.stderr.count("\n") == 1
    assert "0x" not in done.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("statement", ["{}['seed']", "int('x')", "1 / 0", "[].missing"])
def test_an_unforeseen_error_leaves_a_log_file(statement, tmp_path):
    done = failing(statement, tmp_path)
    assert done.returncode == 70 and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in done.stderr
    text = log.read_text()
    assert "command: norface fail" in text and "'torch':" in text and "Traceback" in text


def test_a_log_that_cannot_be_written_where_it_belongs_goes_elsewhere(tmp_path):
    (tmp_path / "file").write_text("")
    done = failing("1 / 0", tmp_path / "file", TMPDIR=str(tmp_path))
    (log,) = tmp_path.glob("norface-*.log")
    assert done.returncode == 70 and str(log) in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    for statement, code in (("1 / 0", 70), ("raise DataError('no')", 1)):
        done = failing(statement, tmp_path, NORFACE_DEBUG="1")
        assert done.returncode == code and "Traceback" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_says_that_the_same_command_goes_on(number, code, tmp_path):
    statement = "import time; print('ready', file=sys.__stdout__, flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", FAIL.format(statement=statement)]
    process = subprocess.Popen(
        call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, messages = process.communicate(timeout=30)
    assert process.returncode == code
    assert messages == "norface: stopped; the same command goes on\n"


def test_the_exit_codes_are_those_that_the_help_names(tmp_path):
    assert {0, 1, 2, 70, 130} == set(EXIT_CODES)
    text = invoke("--help").stdout
    assert all(f"{code}  {meaning}" in text for code, meaning in EXIT_CODES.items())


# --- help -----------------------------------------------------------------------------------------


def test_every_command_has_examples_and_every_example_is_read():
    assert EXAMPLES.keys() <= COMMANDS.keys() and COMMANDS.keys() - EXAMPLES.keys() == set()
    for name, lines in EXAMPLES.items():
        for line in lines:
            words = shlex.split(line)
            assert words[0] == "norface" and " ".join(words[1:]).startswith(name)
            rest = [word if word != "cuda" else "cpu" for word in words[1 + len(name.split()) :]]
            COMMANDS[name].make_context(name, rest)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_the_examples(name):
    text = invoke(*name.split(), "--help").stdout
    assert all(line in text for line in EXAMPLES[name])


def test_the_version_is_printed():
    done = norface("--version")
    assert done.returncode == 0 and re.fullmatch(r"norface( \d+\.\d+.*|, from .*)\n", done.stdout)


def test_the_program_name_is_that_of_the_call(tmp_path):
    script = tmp_path / "norface"
    script.write_text("import sys\nfrom norface_lib.cli.app import main\nsys.exit(main())\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), "fly"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and "Usage: norface [OPTIONS]" in done.stderr
    assert "Usage: python -m norface_lib [OPTIONS]" in norface("fly").stderr


def test_the_shell_completes_commands_and_choices():
    def completed(words):
        settings = {
            "_NORFACE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split())),
        }
        code = "from norface_lib.cli.app import app; app(prog_name='norface')"
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | settings
        call = [sys.executable, "-c", code]
        return subprocess.run(call, env=environment, capture_output=True, text=True).stdout.split()

    assert {"predict", "align", "doctor"} <= set(completed("norface "))
    assert set(completed("norface inspect ")) >= {"bp4d", "folder"}


def test_help_is_quick():
    """As quick as the libraries that it needs allow: a bare typer command takes most of it."""
    bare = "import typer, rich.console; typer.Typer()"
    seconds = {}
    for name, code in (("bare", bare), ("help", "import norface_lib.cli.app")):
        runs = []
        for _ in range(3):
            started = time.monotonic()
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
            runs.append(time.monotonic() - started)
        seconds[name] = min(runs)
    assert seconds["help"] < seconds["bare"] + 0.5
