"""The quick start in a real browser: JupyterLab runs the notebook, and its widget does what a
reader makes it do."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import cv2
import numpy as np
import papermill
import pytest

from norface_lib.cli.reproduce import parameters_of
from norface_lib.common.paths import NOTEBOOKS, ROOT, runs
from norface_lib.networks.cards import FOLDER

NAME, TOKEN = "00_quickstart", "quickstart"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
# of JupyterLab: no news from the web, and every cell is in the page, even where nobody looks
PREFERENCES = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
SWITCHES = (
    *(
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def write_notebook(folder):
    """A copy of the notebook with the parameters of the smoke profile, but for pictures to upload
    that are aligned crops."""
    folder.mkdir()
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
    """JupyterLab's address, on a free port, with settings and runs of its own."""
    write_notebook(folder / "root")
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
            yield f"http://127.0.0.1:{port}/lab/tree/{NAME}.ipynb?token={TOKEN}"
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


@contextmanager
def page_of(address):
    """The notebook in a browser of its own, whose kernel is ready."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        try:
            page = browser.new_page(viewport={"width": 1500, "height": 1000})
            page.set_default_timeout(60_000)
            page.goto(address)
            page.wait_for_function(
                "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status "
                "=== 'idle'"
            )
            yield page
        finally:
            browser.close()


def run_all(page, seconds):
    """Runs all cells as the menu does. Fails with what a failing cell said."""
    page.evaluate(
        "window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ended "
        "= true })"
    )
    page.wait_for_function("window.ended", timeout=1000 * seconds)
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    assert errors.count() == 0, errors.first.inner_text()


def seen(part):
    """What a part of the page looks like: (H, W, 3)."""
    return cv2.imdecode(np.frombuffer(part.screenshot(), np.uint8), cv2.IMREAD_COLOR)


def becomes_other(part, before, seconds=30):
    """What a part of the page looks like once it has changed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = seen(part)
        if now.shape != before.shape or (now != before).any():
            return now
        time.sleep(0.2)
    raise AssertionError("the page shows no change")


@pytest.mark.slow
@pytest.mark.timeout(235)
@pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
)
def test_the_quick_start_answers_its_reader(tmp_path):
    with jupyterlab(tmp_path) as address, page_of(address) as page:
        run_all(page, seconds=150)
        picture, slider = (
            page.locator(".widget-image:visible"),
            page.locator(".widget-slider .noUi-handle"),
        )
        face, bars = (
            page.locator(".widget-dropdown select").first,
            page.locator(".widget-html").last,
        )
        picture.scroll_into_view_if_needed()

        half = seen(picture)
        slider.focus()
        page.keyboard.press("ArrowRight")
        further = becomes_other(picture, half)
        edge = half.shape[1] // 4  # left of the line nothing moves
        np.testing.assert_array_equal(further[:, :edge], half[:, :edge])

        before = seen(bars)
        face.select_option("happy")
        happy = becomes_other(picture, further)
        becomes_other(bars, before)
        page.screenshot(path=runs() / "browser" / "quickstart.png")

        with page.expect_file_chooser() as chooser:
            page.locator(".widget-upload").click()
        chooser.value.set_files(FOLDER / "tiny.png")
        becomes_other(picture, happy)
        assert face.locator("option:checked").inner_text() == "tiny.png"
