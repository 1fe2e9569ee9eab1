"""Processes that are stopped or killed: workers end with their parent, and nothing is left over."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from norface_lib.common.errors import DataError
from norface_lib.common.locks import only_writer, whole_folder
from norface_lib.common.paths import ROOT
from norface_lib.datasets.joined import join_benchmarks
from norface_lib.datasets.write_as import write_as

SENTENCE = "norface: stopped; the same command goes on\n"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def start(*call):
    """A process that leads a session, which its workers share."""
    return subprocess.Popen(
        call,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def living(session):
    """Ids of the processes of a session that have not ended."""
    result = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # ended meanwhile
            continue
        if int(its_session) == session and state not in "ZX":
            result.append(int(path.parent.name))
    return result


def wait_for(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# --- rendering ------------------------------------------------------------------------------------


def rendering(out, subjects=3):
    call = [sys.executable, "-m", "norface_lib", "render", out, "--subjects", subjects]
    return start(*map(str, call), "--frames", "12", "--size", "64", "--workers", "2")


def wait_for_images(out):
    """Returns once some worker is in the middle of a subject."""
    wait_for(lambda: list(out.glob("parts/*.*/images/*/*.jpg")), seconds=120)


@pytest.mark.slow
def test_rendering_workers_end_with_their_parent_and_the_same_command_goes_on(tmp_path):
    out = tmp_path / "lab"
    killed = rendering(out)
    wait_for_images(out)
    assert len(living(killed.pid)) >= 3  # with Python's tracker of resources
    killed.kill()
    killed.communicate()
    wait_for(lambda: not living(killed.pid), seconds=10)

    again = rendering(out)
    assert again.wait(120) == 0, again.stderr.read()
    assert not list(out.rglob("*.part")) and not (out / "parts").exists()
    assert len(list(out.glob("images/*/*.jpg"))) == 36


@pytest.mark.slow
def test_ctrl_c_ends_rendering_with_all_its_workers_in_one_sentence(tmp_path):
    out = tmp_path / "lab"
    process = rendering(out, subjects=40)
    wait_for_images(out)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    results, messages = process.communicate(timeout=30)
    assert process.returncode == 130 and results == ""
    lines = [line for line in messages.splitlines(keepends=True) if line.strip()]
    assert [line for line in lines if not line.startswith("render lab:")] == [SENTENCE]
    wait_for(lambda: not living(process.pid), seconds=10)


# --- reading --------------------------------------------------------------------------------------

READ = """
import time
import torch
from norface_lib.cli import app as line
from norface_lib.training.loader import in_order, make_loader

class Slow(torch.utils.data.Dataset):
    def __getitem__(self, rows):
        if rows[0] > 0:
            time.sleep(60)
        return torch.zeros(1)

def read() -> None:
    loader = make_loader(Slow(), in_order(8, 1), torch.device("cpu"), workers=2)
    for batch in loader:
        print("reads", file=__import__("sys").__stdout__, flush=True)
        time.sleep(SECONDS)

import sys
line.app.command()(line.with_shared_options(read))
sys.argv = ["norface", "read"]
sys.exit(line.main())
"""


@pytest.mark.parametrize("seconds", [0, 60], ids=["waits for a batch", "uses a batch"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_reading_workers_end_with_their_parent(number, seconds):
    process = start(sys.executable, "-c", READ.replace("SECONDS", str(seconds)))
    assert process.stdout.readline() == "reads\n"
    assert len(living(process.pid)) == 3
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    wait_for(lambda: not living(process.pid), seconds=5)
    _, messages = process.communicate()
    codes = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
    assert process.returncode == codes[number]
    assert messages == ("" if number == signal.SIGKILL else SENTENCE)


# --- normalizing with workers ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_that_normalize_end_with_their_parent_and_the_same_command_goes_on(
    number, tiny_benchmark, tmp_path
):
    faces = tmp_path / "faces"
    faces.mkdir()
    images = sorted((tiny_benchmark / "images").rglob("*.jpg"))
    for copy in range(300):
        (faces / f"{copy:03d}.jpg").hardlink_to(images[copy % len(images)])
    out = tmp_path / "out"
    call = [sys.executable, "-m", "norface_lib", "normalize", str(faces), str(out), "--quiet"]
    call += ["--workers", "2", "--batch-size", "4"]

    stopped = start(*call)
    wait_for(lambda: list(out.rglob("*.png")), seconds=300)
    assert len(living(stopped.pid)) >= 3
    if number == signal.SIGINT:
        os.killpg(stopped.pid, number)  # as a terminal does
    else:
        stopped.kill()
    results, messages = stopped.communicate(timeout=60)
    wait_for(lambda: not living(stopped.pid), seconds=20)
    assert stopped.returncode == (130 if number == signal.SIGINT else -9) and results == ""
    if number == signal.SIGINT:
        assert messages == SENTENCE

    again = start(*call)
    results, messages = again.communicate(timeout=300)
    assert again.returncode == 0, messages
    assert len(list(out.rglob("*.png"))) == 300 and not list(out.rglob("*.part"))


# --- moments at which nothing runs yet, and odd ones ----------------------------------------------

WHILE_IMPORTING = """
import os, signal, sys
from norface_lib.__main__ import main

class Interrupts:
    def find_spec(self, name, *_):
        if name == "norface_lib.cli.app":
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Interrupts())
sys.exit(main())
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stop_during_the_imports_is_one_sentence(name, code):
    process = start(sys.executable, "-c", WHILE_IMPORTING.format(signal=name))
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (code, SENTENCE)


def test_a_stop_within_an_exec_keeps_the_exit_code(tmp_path):
    """CPython ends a process by SIGINT if a KeyboardInterrupt passed an ``exec`` of a text."""
    (tmp_path / "sitecustomize.py").write_text(
        "import norface_lib.cli.examination as examination\n"
        "examination.examine = lambda: exec('raise KeyboardInterrupt')\n"
        "import norface_lib.cli.doctor as doctor\n"
        "doctor.examine = examination.examine\n"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    call = [sys.executable, "-m", "norface_lib", "doctor"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, SENTENCE)


# --- what a killed process leaves -----------------------------------------------------------------


def test_leftovers_of_one_name_are_deleted_and_no_others(tmp_path):
    leftovers = [".both.7.part", ".both.ckpt.7.part", ".both.safetensors.12.part"]
    others = [".both-f1.ckpt.7.part", ".bo.7.part", "both.part", ".both.lock"]
    for name in leftovers + others:
        (tmp_path / name).write_text("")
    with only_writer(tmp_path / "both"):
        assert not any((tmp_path / name).exists() for name in leftovers)
        assert all((tmp_path / name).exists() for name in others)


def test_a_whole_folder_is_there_at_the_end_or_not_at_all(tmp_path):
    (tmp_path / ".out.7.part/images").mkdir(parents=True)

    def fail():
        with whole_folder(tmp_path / "out") as part:
            (part / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.part"))
    with whole_folder(tmp_path / "out") as part:
        (part / "a").write_text("whole")
    assert (tmp_path / "out/a").read_text() == "whole" and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("name", ["write_as", "join"])
def test_two_processes_never_write_one_folder(name, tiny_benchmark, tmp_path):
    def write():
        if name == "join":
            join_benchmarks([tiny_benchmark, tiny_benchmark], tmp_path / "out")
        else:
            write_as("disfa", tiny_benchmark, tmp_path / "out", variant="images")

    with (
        only_writer(tmp_path / "out"),
        pytest.raises(DataError, match="is writing here"),
    ):
        write()
    assert not (tmp_path / "out").exists()

    (tmp_path / ".out.7.part").mkdir()
    write()
    assert (tmp_path / "out").is_dir() and not list(tmp_path.glob(".*.part"))
