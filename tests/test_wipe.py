"""The wipe, galleries and the page of predictions: in a browser without a kernel, and as text."""

import json
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import drag, needs_chromium, open_page, seen
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.common.paths import runs
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import write_png
from norface_lib.networks.cards import FOLDER
from norface_lib.viz import page as page_of_faces
from norface_lib.viz.page import PAGE, write_page
from norface_lib.viz.widgets import compare
from norface_lib.viz.wipe import Item, data_uri, gallery_as_html, links_as_html, wipe_as_html

RED, BLUE, GREEN, WHITE = (200, 30, 40), (30, 40, 200), (30, 160, 60), (255, 255, 255)
SIZE = 200
RING = 5 / SIZE
"""Width of the ring of focus at a side, as a share."""


def plain(color, size=64):
    return np.full((size, size, 3), color, np.uint8)


ME = Item("me", original=data_uri(plain(BLUE)), normalized=data_uri(plain(RED)))


def share(page, color, part=".norface-wipe:visible"):
    """Share of the wipe's width that has a color, a third of its height down."""
    image = seen(page.locator(part))
    line = image[len(image) // 3].astype(int)
    return float((np.abs(line - color).max(axis=1) < 25).mean())


@pytest.fixture(scope="module")
def browser_page():
    with open_page(900, 700, has_touch=True) as page:
        yield page


@pytest.fixture
def page(browser_page):
    """An empty page. Without a new document, Chromium lets no second slider be dragged after
    ``set_content``."""
    browser_page.goto("about:blank")
    return browser_page


@pytest.fixture
def wipe(page):
    """A page with a wipe: red is left, blue is right."""
    page.set_content(wipe_as_html(ME, SIZE))
    return page.locator(".norface-wipe")


# --- the wipe -------------------------------------------------------------------------------------


@needs_chromium
def test_the_border_follows_the_pointer(page, wipe):
    assert share(page, RED) == pytest.approx(0.5, abs=0.02)
    drag(page, wipe, 0.5, 0.8)
    assert share(page, RED) == pytest.approx(0.8, abs=0.02)
    assert share(page, BLUE) == pytest.approx(0.2, abs=0.02)
    drag(page, wipe, 0.1, 0.25)  # from anywhere, not from the border alone
    assert share(page, RED) == pytest.approx(0.25, abs=0.02)
    page.screenshot(path=runs() / "browser" / "wipe.png")


@needs_chromium
def test_the_border_follows_a_finger(page, wipe):
    box = wipe.bounding_box()
    page.touchscreen.tap(box["x"] + 0.7 * SIZE, box["y"] + SIZE / 3)
    assert share(page, RED) == pytest.approx(0.7, abs=0.02)


@needs_chromium
def test_the_border_follows_the_keys(page, wipe):
    page.keyboard.press("Tab")
    for key, left in (("End", 1.0), ("Home", 0.0), ("PageUp", 0.1)):
        page.keyboard.press(key)
        assert share(page, RED) == pytest.approx(left, abs=0.06), key
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert share(page, RED) == pytest.approx(0.25 - RING, abs=0.02)


@needs_chromium
def test_a_screen_reader_is_told_what_it_is_and_where_it_stands(page, wipe):
    slider = page.get_by_role("slider", name="me: border between normalized (left) and original")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "51 % normalized"
    for side in ("normalized", "original"):
        assert page.get_by_role("img", name=f"me, {side}").count() == 1
    page.get_by_role("radio", name="difference").check()
    slider.focus()
    assert slider.get_attribute("aria-valuetext") == "51 % difference"


@needs_chromium
def test_a_screen_reader_is_told_what_a_face_shows_whose_attention_is_not_known(page):
    known = Item("known", ME.original, ME.normalized, attention=data_uri(plain(GREEN)))
    page.set_content(gallery_as_html([known, ME._replace(name="unknown")], SIZE))
    page.get_by_role("radio", name="attention").check()
    for name, view in (("known", "attention"), ("unknown", "normalized")):
        page.locator(".norface-choice label", has_text=re.compile(f"^{name}$")).click()
        slider = page.get_by_role("slider", name=f"{name}:")
        slider.focus()
        assert slider.get_attribute("aria-valuetext") == f"50 % {view}"


@needs_chromium
def test_focus_by_key_is_seen_and_by_pointer_is_not(page, wipe):
    def ring():
        return (np.abs(seen(wipe)[1].astype(int) - (26, 115, 232)).max(axis=1) < 25).mean()

    drag(page, wipe, 0.5, 0.4)
    assert ring() < 0.1
    page.keyboard.press("ArrowRight")
    assert ring() > 0.9


@needs_chromium
def test_it_moves_where_scripts_do_not_run(page):
    """The value of an ``ipywidgets.HTML`` is set as here."""
    page.set_content("<main></main>")
    text = wipe_as_html(ME, SIZE)
    page.evaluate(f"document.querySelector('main').innerHTML = {json.dumps(text)}")
    drag(page, page.locator(".norface-wipe"), 0.5, 0.9)
    assert share(page, RED) == pytest.approx(0.9, abs=0.02)


DIFFERENCE = tuple(abs(one - other) for one, other in zip(RED, BLUE, strict=True))


@needs_chromium
def test_what_is_left_of_the_border_can_be_chosen(page):
    page.set_content(wipe_as_html(ME._replace(attention=data_uri(plain(GREEN))), SIZE))
    names = page.locator(".norface-wipe b:visible")
    for view, color in (("difference", DIFFERENCE), ("attention", GREEN), ("normalized", RED)):
        page.get_by_role("radio", name=view).check()
        assert share(page, color) == pytest.approx(0.5, abs=0.02), view
        assert share(page, BLUE) == pytest.approx(0.5, abs=0.02)
        assert names.all_inner_texts() == [view, "original"]
    page.get_by_role("radio", name="difference").check()
    drag(page, page.locator(".norface-wipe"), 0.5, 0.75)
    assert share(page, DIFFERENCE) == pytest.approx(0.75, abs=0.02)
    slider = page.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "75 % difference"
    page.screenshot(path=runs() / "browser" / "difference.png")


@needs_chromium
def test_two_wipes_of_a_page_are_chosen_apart(page):
    page.set_content(2 * wipe_as_html(ME, SIZE))
    assert page.get_by_role("radio", name="attention").count() == 0, "hidden: it is not known"
    page.get_by_role("radio", name="difference").first.check()
    first, second = (f".norface-wipe >> nth={number}" for number in range(2))
    assert share(page, DIFFERENCE, first) == pytest.approx(0.5, abs=0.02)
    assert share(page, RED, second) == pytest.approx(0.5, abs=0.02)


# --- galleries ------------------------------------------------------------------------------------


@needs_chromium
def test_a_gallery_in_an_exported_notebook_shows_the_chosen_face(page, tmp_path):
    from nbconvert import HTMLExporter

    originals = np.stack([plain(BLUE), plain(GREEN), plain(WHITE)])
    shown = compare(originals, originals // 3, ["a", "b", "c"], size=SIZE)
    cell = nbformat.v4.new_code_cell("compare(...)")
    data = {"text/html": shown.data, "text/plain": "..."}
    cell.outputs = [nbformat.v4.new_output("execute_result", data)]
    text, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / "a.html").write_text(text)

    page.goto(f"file://{tmp_path / 'a.html'}", wait_until="domcontentloaded")
    assert page.locator(".norface-wipe:visible").count() == 1
    assert share(page, BLUE) == pytest.approx(0.5, abs=0.02)
    page.get_by_role("radio", name="b").click(force=True)
    assert share(page, GREEN) == pytest.approx(0.5, abs=0.02)
    drag(page, page.locator(".norface-wipe:visible"), 0.5, 0.2)
    assert share(page, GREEN) == pytest.approx(0.8, abs=0.02)
    page.keyboard.press("Shift+Tab")  # what is left of the border
    page.keyboard.press("ArrowRight")
    assert share(page, tuple(value - value // 3 for value in GREEN)) == pytest.approx(0.2, abs=0.02)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    assert share(page, WHITE) == pytest.approx(0.5, abs=0.02), "the next one, by key"


@needs_chromium
def test_a_gallery_shows_where_the_normalizer_looked(page):
    originals = np.stack([plain(BLUE), plain(GREEN)])
    looked = np.stack([plain(RED), plain(WHITE)])
    page.set_content(compare(originals, originals // 3, ["a", "b"], SIZE, looked).data)
    page.get_by_role("radio", name="attention").check()
    assert share(page, RED) == pytest.approx(0.5, abs=0.02)
    page.get_by_role("radio", name="b", exact=True).click(force=True)
    assert share(page, WHITE) == pytest.approx(0.5, abs=0.02)
    assert share(page, GREEN) == pytest.approx(0.5, abs=0.02)


@needs_chromium
def test_a_link_saves_a_file(page, tmp_path):
    page.set_content(links_as_html({"a.csv": b"x\n1\n"}))
    with page.expect_download() as download:
        page.get_by_role("link", name="save a.csv").click()
    assert download.value.suggested_filename == "a.csv"
    download.value.save_as(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == b"x\n1\n"


class Attributes(HTMLParser):
    """Tags and attributes of a text, and what stands between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)


def test_names_cannot_be_markup():
    name = '<img src=x onerror="alert(1)">\'"&'
    read = Attributes(gallery_as_html([Item(name, "a.png", "b.png"), Item(name, 'c".png')]))
    pictures = [attributes for tag, attributes in read.tags if tag == "img"]
    assert [picture["src"] for picture in pictures] == [
        "a.png",
        'c".png',
        "a.png",
        "b.png",
        'c".png',
    ]
    assert not any("onerror" in attributes for _, attributes in read.tags)
    assert read.words.count(name) == 2 and pictures[2]["alt"] == f"{name}, original"


# --- the page of a folder of predictions ----------------------------------------------------------

ROWS = [("b a#.jpg", "", 0), ("b a#.jpg", "", 1), ("c.avi", 7, 0), ("empty.jpg", "", "")]


def write_predictions(out, rows, *, normalized=True):
    """What `predict` leaves: a blue face for each row with one, whose normalized image is red."""
    faces = pd.DataFrame(rows, columns=["source", "frame", "face"]).assign(track="")
    found = faces["face"] != ""
    faces["status"] = np.where(found, ALIGNED, "no face")
    faces["output"] = [
        f"{source}-{frame}-{face}.png" if face != "" else "" for source, frame, face in rows
    ]
    for name in faces.loc[found, "output"]:
        write_png(out / "aligned" / name, plain(BLUE))
        if normalized:
            write_png(out / "normalized" / name, plain(RED))
    faces.to_csv(out / "aligned/faces.csv", index=False)
    table = faces.drop(columns=["status", "output"])
    table = table.assign(AU12=0.9, AU12_intensity=np.arange(len(rows)) + 0.25)
    table.assign(emotion="happy", happy=0.8).to_csv(out / "predictions.csv", index=False)


@needs_chromium
def test_a_page_shows_each_face_with_its_wipe_bars_and_values(page, tmp_path):
    write_predictions(tmp_path, ROWS)
    assert write_page(tmp_path, size=SIZE) == 3
    page.goto(f"file://{tmp_path / PAGE}")
    assert page.locator(".norface-choice").get_by_role("radio").count() == 3
    assert "3 aligned, 1 no face" in page.locator("p").inner_text()
    page.get_by_role("radio", name="c.avi frame 7").click(force=True)
    shown = page.locator(".norface-shown > div:visible")
    assert shown.count() == 1 and "AU12 lip corner puller" in shown.inner_text()
    assert "2.25" in shown.inner_text() and "emotion: happy" in shown.inner_text()
    drag(page, page.locator(".norface-wipe:visible"), 0.5, 0.75)
    assert share(page, RED) == pytest.approx(0.75, abs=0.02)
    assert share(page, BLUE) == pytest.approx(0.25, abs=0.02)
    page.get_by_role("radio", name="difference").check()
    page.get_by_role("radio", name="b a#.jpg face 1").click(force=True)
    assert share(page, DIFFERENCE) == pytest.approx(0.5, abs=0.02), "of all faces"
    page.locator("summary:visible").click()
    assert "b a#.jpg" in page.locator("table:visible").inner_text()
    page.screenshot(path=runs() / "browser" / "page.png")


@needs_chromium
def test_border_and_slider_agree_when_a_page_is_returned_to(page, tmp_path):
    """Browsers restore controls then; Firefox does it when a page is loaded again, too."""
    write_predictions(tmp_path, ROWS)
    write_page(tmp_path, size=SIZE)
    page.goto(f"file://{tmp_path / PAGE}")
    page.get_by_role("radio", name="c.avi frame 7").click(force=True)
    page.get_by_role("radio", name="difference").check()
    drag(page, page.locator(".norface-wipe:visible"), 0.5, 0.8)
    page.goto("about:blank")
    page.go_back()
    assert page.get_by_role("radio", name="c.avi frame 7").is_checked(), "controls are restored"
    slider = page.get_by_role("slider")
    left = float(slider.input_value())
    assert share(page, RED) == pytest.approx(left / 100, abs=0.02)
    assert slider.get_attribute("aria-valuetext") == f"{left:.0f} % normalized"


@pytest.mark.slow
def test_predict_writes_a_page(tmp_path):
    call = ["predict", str(FOLDER / "tiny.png"), str(tmp_path), "--detector", "none", "--page"]
    done = CliRunner().invoke(app, [*call, "--json", "--quiet"])
    assert done.exit_code == 0 and json.loads(done.stdout)["page"] == 1
    text = (tmp_path / PAGE).read_text()
    assert 'type="range"' in text and "AU12 lip corner puller" in text and "emotion: " in text
    for address in re.findall(r'src="([^"]+)"', text):
        assert (tmp_path / address).is_file()


def test_a_page_of_many_faces_says_how_many_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr(page_of_faces, "MOST", 4)
    write_predictions(tmp_path, [("c.avi", frame, 0) for frame in range(11)])
    assert write_page(tmp_path) == 4
    text = (tmp_path / PAGE).read_text()
    assert "11 aligned; 7 of them, evenly spread, are not on this page" in text
    assert re.findall(r"c\.avi frame (\d+)</label>", text) == ["0", "3", "6", "10"]


def test_a_face_without_a_normalized_image_is_shown_alone(tmp_path):
    write_predictions(tmp_path, ROWS, normalized=False)
    write_page(tmp_path)
    text = (tmp_path / PAGE).read_text()
    assert 'type="range"' not in text and 'src="aligned/b%20a%23.jpg--0.png"' in text


def test_a_page_needs_predictions(tmp_path):
    with pytest.raises(DataError, match=r"faces\.csv: no such table; run `predict`"):
        write_page(tmp_path)
    write_predictions(tmp_path, ROWS)
    table = pd.read_csv(tmp_path / "aligned/faces.csv")
    table.assign(output="../../x.png").to_csv(tmp_path / "aligned/faces.csv", index=False)
    with pytest.raises(DataError, match="leads out of this folder"):
        write_page(tmp_path)
