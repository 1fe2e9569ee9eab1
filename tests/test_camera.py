"""The camera of the quick start, where it does not open."""

import pytest
from browser import needs_chromium, open_page

from norface_lib.viz.camera import camera

REFUSE = """name => Object.defineProperty(navigator, 'mediaDevices', { value: {
    getUserMedia: () => Promise.reject(new DOMException('as a browser says it', name)) } })"""


@needs_chromium
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("NotFoundError", "none was found"),
        ("NotAllowedError", "the browser may not use it"),
        ("AbortError", "as a browser says it"),
    ],
)
def test_a_camera_that_does_not_open_says_why(error, reason):
    """In the same words in all browsers: what Firefox says without one does not name it."""
    with open_page() as page:
        page.set_content(f"<div class=norface-camera>{camera(print).children[0].value}</div>")
        page.evaluate(REFUSE, error)
        page.get_by_text("your camera").click()
        page.get_by_label("I am the one in front of the camera").check()
        page.get_by_role("button", name="open the").click()
        page.get_by_text(f"The camera cannot be opened: {reason}").wait_for()
