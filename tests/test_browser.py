"""The quick start and the explorer in a real browser: JupyterLab runs the notebooks, and their
widgets do what a reader makes them do."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import cv2
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from browser import becomes_other, drag, needs_chromium, open_page, seen
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from norface_lib.cli.reproduce import parameters_of
from norface_lib.common.paths import NOTEBOOKS, ROOT, runs
from norface_lib.networks.cards import FOLDER

NAME, TOKEN = "00_quickstart", "quickstart"
# of JupyterLab: no news from the web, and every cell is in the page, even where nobody looks
PREFERENCES = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
EXPLORER, CAMERA = "explorer", "camera"
"""Notebooks of one cell, beside the quick start."""

CELLS = {
    EXPLORER: "from norface_lib.viz import widgets\n\nwidgets.explore()",
    CAMERA: """
import ipywidgets
from io import BytesIO
from PIL import Image
from norface_lib.viz.camera import camera

def take(data):
    label.value = "took {} x {}".format(*Image.open(BytesIO(data)).size)

label = ipywidgets.Label()
ipywidgets.VBox([camera(take), label])""",
}


def write_notebooks(folder):
    """A copy of the quick start with the parameters of the smoke profile, but for pictures to
    upload that are aligned crops; and the notebooks of ``CELLS``."""
    folder.mkdir()
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, source in CELLS.items():
        notebook = new_notebook(cells=[new_code_cell(source)], metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / f"{name}.ipynb")
    values = parameters_of(NAME, "smoke") | {"detector": "none"}
    papermill.execute_notebook(
        str(NOTEBOOKS / f"{NAME}.ipynb"), str(folder / f"{NAME}.ipynb"), values, prepare_only=True
    )


def write_preferences(folder):
    for name, values in PREFERENCES.items():
        path = folder / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@contextmanager
def jupyterlab(folder):
    """Addresses of notebooks in JupyterLab, on a free port, with settings and runs of its own."""
    write_notebooks(folder / "root")
    write_preferences(folder / "config")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {
        f"JUPYTER_{name.upper()}_DIR": str(folder / name) for name in ("config", "data", "runtime")
    }
    environment = (
        os.environ | places | {"NORFACE_RUNS": str(folder / "runs"), "PYTHONPATH": str(ROOT)}
    )
    environment.pop("MPLBACKEND", None)  # that of the tests shows no figure
    options = {
        "port": port,
        "port_retries": 0,
        "ip": "127.0.0.1",
        "allow_root": True,
        "root_dir": folder / "root",
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--expose-app-in-browser",
        f"--IdentityProvider.token={TOKEN}",
    ]
    command += [f"--ServerApp.{name}={value}" for name, value in options.items()]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder
        )
        try:
            wait_for(port, server, 60)
            yield lambda name: (  # each in a workspace of its own, where no other notebook is open
                f"http://127.0.0.1:{port}/lab/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}"
            )
        finally:
            server.terminate()  # it ends its kernels
            server.wait(30)


def wait_for(port, server, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, "JupyterLab ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("JupyterLab does not answer")


def go_to(page, address):
    """Opens a notebook, and waits until its kernel is ready."""
    page.goto(address)
    page.wait_for_function(
        "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )


ERRORS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
    .flatMap(cell => cell.outputs?.toJSON() ?? [])
    .filter(output => output.output_type === 'error')
    .map(output => `${output.ename}: ${output.evalue}`)"""


def run_all(page, seconds):
    """Runs all cells as the menu does. Fails with what a failing cell said."""
    page.evaluate(
        "window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ended "
        "= true })"
    )
    page.wait_for_function("window.ended", timeout=1000 * seconds)
    assert page.evaluate(ERRORS) == []  # of the notebook: the page may show them later


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A browser's page, and addresses of notebooks in JupyterLab."""
    with jupyterlab(tmp_path_factory.mktemp("lab")) as address, open_page() as page:
        yield page, address


@pytest.mark.slow
@pytest.mark.timeout(400)
@needs_chromium
def test_the_quick_start_answers_its_reader(lab):
    page, address = lab
    go_to(page, address(NAME))
    run_all(page, seconds=150)
    picture = page.locator(".widget-html .norface-wipe")
    face = page.locator(".widget-dropdown select").first
    bars = page.locator(".widget-html").last
    picture.scroll_into_view_if_needed()

    half = seen(picture)
    drag(page, picture, 0.5, 0.8)
    further = becomes_other(picture, half)
    left, right = half.shape[1] // 4, half.shape[1] * 9 // 10  # beside both places of the border
    upper = half.shape[0] // 2  # the names stand below
    np.testing.assert_array_equal(further[:upper, :left], half[:upper, :left])
    np.testing.assert_array_equal(further[:upper, right:], half[:upper, right:])
    between = slice(int(0.55 * half.shape[1]), int(0.75 * half.shape[1]))
    assert np.abs(further[:, between].astype(int) - half[:, between]).mean() > 5
    page.keyboard.press("Home")
    original = becomes_other(picture, further)
    assert_alike(original[:upper, right:], half[:upper, right:])

    read = seen(bars)
    page.locator(".widget-dropdown select").nth(1).select_option("noor, rendered")
    rendered = becomes_other(picture, original)
    assert_alike(rendered[:upper, right:], original[:upper, right:])
    page.screenshot(path=runs() / "browser" / "quickstart.png")
    page.get_by_role("button", name="save ...").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="save comparison.png").click()
    assert cv2.imread(download.value.path()).shape == (112, 224, 3)
    with page.expect_download() as download:
        page.get_by_role("link", name="save wipe.gif").click()
    with Image.open(download.value.path()) as gif:
        assert gif.size == (112, 112) and gif.n_frames > 10

    identity = page.locator(".widget-dropdown select").nth(1)
    identity.select_option(index=0)  # the network's own
    page.get_by_role("radio", name="attention").check()
    page.keyboard.press("Tab")
    looked = becomes_other(picture, rendered)
    page.screenshot(path=runs() / "browser" / "attention.png")
    identity.select_option("noor, rendered")
    rendered = becomes_other(picture, looked)
    assert page.get_by_role("radio", name="attention").count() == 0, "it has none"
    identity.select_option(index=0)
    assert page.get_by_role("radio", name="attention").is_checked(), "the choice stays"
    identity.select_option("noor, rendered")
    becomes_other(picture, looked)

    with page.expect_file_chooser() as chooser:
        page.locator(".widget-upload").click()
    chooser.value.set_files(FOLDER / "tiny.png")
    becomes_other(picture, rendered)
    becomes_other(bars, read)
    assert face.locator("option:checked").inner_text() == "tiny.png"


@pytest.mark.slow
@needs_chromium
def test_the_camera_asks_takes_one_picture_and_is_closed(lab):
    page, address = lab
    go_to(page, address(CAMERA))
    run_all(page, seconds=60)
    page.get_by_text("your camera").click()
    start, snap = (page.get_by_role("button", name=name) for name in ("open the", "take the"))
    assert start.is_disabled() and snap.is_disabled()
    page.get_by_label("I am the one in front of the camera").check()
    start.click()
    video = page.locator(".norface-camera video")
    page.wait_for_function("document.querySelector('.norface-camera video').videoWidth > 0")
    assert seen(video).std() > 5
    page.screenshot(path=runs() / "browser" / "camera.png")
    snap.click()
    page.get_by_text("took 640 x 480").wait_for()
    assert video.is_hidden() and snap.is_disabled()
    assert page.evaluate("document.querySelector('.norface-camera video').srcObject") is None


def assert_alike(image, other):
    """Two parts look the same but for the ring of focus."""
    assert np.abs(image[8:, :-8].astype(int) - other[8:, :-8]).mean() < 2


WATCH = """picture => {
    window.latencies = [];
    document.addEventListener('keydown', () => { window.pressed = performance.now() }, true);
    picture.addEventListener('load', () => {
        window.latencies.push(performance.now() - window.pressed) });
}"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@needs_chromium
def test_the_explorer_does_what_its_controls_say(lab):
    page, address = lab
    go_to(page, address(EXPLORER))
    run_all(page, seconds=100)
    pictures = page.locator(".widget-image")
    rendered, truth, drawn = (pictures.nth(number) for number in range(3))
    expression = page.locator(".widget-dropdown select").first
    bars = page.locator(".widget-html", has_text="emotion:").last
    page.locator(".widget-slider").last.scroll_into_view_if_needed()
    neutral = [seen(picture) for picture in (rendered, truth, drawn)]
    assert "emotion: neutral" in bars.inner_text()

    expression.select_option("happy")
    smiles = [
        becomes_other(picture, before)
        for picture, before in zip((rendered, truth, drawn), neutral, strict=True)
    ]
    page.get_by_text("emotion: happy").wait_for()
    mouth = slice(len(neutral[1]) // 2, None)
    for before, after in zip(neutral, smiles, strict=True):
        moved = np.abs(after.astype(int) - before)
        assert moved[mouth].mean() > 1
    page.screenshot(path=runs() / "browser" / "explorer.png")

    page.get_by_role("button", name="reset").click()
    becomes_other(truth, smiles[1])
    np.testing.assert_array_equal(seen(truth), neutral[1])
    np.testing.assert_array_equal(seen(rendered), neutral[0])
    assert expression.input_value() == "neutral"

    rendered.evaluate(WATCH)
    jaw = page.locator(".widget-slider", has_text="AU26 jaw drop")
    jaw.locator(".noUi-handle").focus()
    for press in range(1, 11):
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"window.latencies.length >= {press}")
    opened = seen(truth)
    change = np.abs(opened.astype(int) - neutral[1]).mean(axis=(1, 2))
    assert change[mouth].mean() > 5 * change[: len(change) // 3].mean(), "the jaw, not the brows"
    assert expression.locator("option:checked").inner_text().split() == ["your", "own"]
    latency = float(np.median(page.evaluate("window.latencies")))
    print(f"explorer: {latency:.0f} ms from a key to the picture")
    assert latency < 5000

    page.get_by_role("button", name="save ...").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="save aus.csv").click()
    table = pd.read_csv(download.value.path()).set_index("AU")
    assert table.loc["AU26", "posed_left"] == 5 and table["posed_left"].sum() == 5
    with page.expect_download() as download:
        page.get_by_role("link", name="save comparison.png").click()
    assert cv2.imread(download.value.path()).shape == (224, 3 * 224, 3)

    page.get_by_role("button", name="random").click()
    becomes_other(truth, opened)
