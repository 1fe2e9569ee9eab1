"""A real browser for tests: Chromium of the system, driven by Playwright."""

import shutil
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
SWITCHES = (
    *(
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a camera
)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
)


@contextmanager
def open_page(width=1500, height=1000, **settings):
    """An empty page of a browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        try:
            page = browser.new_page(viewport={"width": width, "height": height}, **settings)
            page.set_default_timeout(60_000)
            yield page
        finally:
            browser.close()


def seen(part):
    """What a part of the page looks like: (H, W, 3) RGB."""
    return cv2.imdecode(np.frombuffer(part.screenshot(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def becomes_other(part, before, seconds=30):
    """What a part of the page looks like once it has changed."""
    from playwright.sync_api import Error

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            now = seen(part)
        except Error:  # it is being replaced right now
            continue
        if now.shape != before.shape or (now != before).any():
            return now
        time.sleep(0.2)
    raise AssertionError("the page shows no change")


def drag(page, part, start, end):
    """Presses the mouse on a part of the page, at a share 0..1 of its width, and lets it go at
    another."""
    part.hover()  # waits until it is drawn and takes the pointer
    box = part.bounding_box()
    height = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + start * box["width"], height)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], height, steps=8)
    page.mouse.up()
