"""The quick start's widget: what it shows follows the face, the identity and the upload that are
chosen; its figures."""

import base64
import re
from datetime import UTC, datetime
from io import BytesIO
from xml.etree import ElementTree

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from norface_lib import labels
from norface_lib.common.errors import CheckpointError, DataError, MissingExtraError
from norface_lib.images.crop import NORFACE_CROP, align_face
from norface_lib.photos.detection import Face
from norface_lib.viz import plots, widgets

SIZE = 56
AUS = ("AU06", "AU12")


def decoded(address):
    """The image that an address holds."""
    data = base64.b64decode(address.partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def assert_alike(image, other):
    """Images are the same but for what JPEG changes."""
    assert image.shape == other.shape and np.abs(image.astype(int) - other).mean() < 3


def png_of(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def read(originals, normalized):
    """A stand-in for the networks: brighter originals smile more, brighter normalized faces are
    happier."""
    smile, happy = originals.mean((1, 2, 3)) / 51, normalized.mean((1, 2, 3)) / 255
    table = pd.DataFrame(
        {"AU06": happy, "AU12": smile / 5, "AU06_intensity": 5 * happy, "AU12_intensity": smile}
    )
    return table.assign(emotion=np.where(happy > 0.5, "happy", "sad"), happy=happy, sad=1 - happy)


class Finder:
    """A detector of one face in the middle of an image, or of none; its points are those of an
    aligned crop of ``side`` px."""

    name, blendshapes = "finder", ()

    def __init__(self, side=64, finds=True):
        self.side, self.finds = side, finds

    def detect(self, image):
        corner = (np.array(image.shape[1::-1]) - self.side) / 2
        box = np.concatenate([corner, corner + self.side])
        return [Face(box, NORFACE_CROP.pixels(self.side) + corner, 1.0)] if self.finds else []


class Shown:
    """The widget's parts, by what they are for."""

    def __init__(self, detector=Finder, attention=None, **identities):
        ramp = np.linspace(0, 60, SIZE).astype(np.uint8)
        plain = np.stack(np.broadcast_arrays(ramp, ramp[:, None], ramp // 2), axis=2)
        self.faces = {"dark": plain, "bright": 255 - plain}
        identities = identities or {"noor": lambda faces: 255 - faces}
        box = widgets.quickstart(self.faces, identities, read, detector, SIZE, attention)
        controls, camera, self.message, pictures = box.children
        self.snapshot = camera.children[1]
        self.face, self.identity, self.button = controls.children
        self.picture, _, self.save, self.links = pictures.children[0].children
        self.bars = pictures.children[1]

    def upload(self, name, content):
        file = {
            "name": name,
            "type": "",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": datetime.now(UTC),
        }
        self.button.value = (file,)

    def ends(self):
        """Pictures of the wipe: the original, and the normalized face."""
        original, normalized = re.findall(r'<img src="([^"]+)"', self.picture.value)
        return decoded(original), decoded(normalized)

    def saved(self):
        """What the links save, by name, that the button offers."""
        self.save.click()
        links = re.findall(r'download="([^"]+)" href="data:[^"]*?base64,([^"]+)"', self.links.value)
        return {name: base64.b64decode(content) for name, content in links}


@pytest.fixture
def photograph():
    """A picture of 120 x 90 px."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)


def test_another_face_changes_pictures_and_bars():
    shown = Shown()
    bars = shown.bars.value
    assert_alike(shown.ends()[0], shown.faces["dark"])
    shown.face.label = "bright"
    original, normalized = shown.ends()
    assert_alike(original, shown.faces["bright"])
    assert_alike(normalized, 255 - shown.faces["bright"])
    assert shown.bars.value != bars and 'alt="bright, original"' in shown.picture.value
    shown.face.label = "dark"
    assert shown.bars.value == bars


def test_both_images_and_the_row_can_be_saved():
    shown = Shown()
    shown.face.label = "bright"
    assert shown.links.value == ""
    saved = shown.saved()
    assert saved.keys() == {"comparison.png", "wipe.gif", "wipe.mp4", "aus.csv"}
    both = cv2.imdecode(np.frombuffer(saved["comparison.png"], np.uint8), cv2.IMREAD_COLOR)
    bright = shown.faces["bright"]
    np.testing.assert_array_equal(both[..., ::-1], np.concatenate([bright, 255 - bright], axis=1))
    table = pd.read_csv(BytesIO(saved["aus.csv"]))
    assert len(table) == 1 and table["AU12_intensity"][0] == pytest.approx(bright.mean() / 51)
    shown.face.label = "dark"
    assert shown.links.value == "", "they were of another face"


def test_a_saved_picture_moves_from_the_original_to_the_normalized_face_and_back():
    shown = Shown()
    saved, dark = shown.saved(), shown.faces["dark"]
    with Image.open(BytesIO(saved["wipe.gif"])) as gif:
        assert gif.n_frames > 10 and gif.info["loop"] == 0
        for frame, face in ((0, dark), (gif.n_frames // 2, 255 - dark)):
            gif.seek(frame)
            assert_alike(np.asarray(gif.convert("RGB")), face)
    with av.open(BytesIO(saved["wipe.mp4"])) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert_alike(frames[0], dark)
    assert_alike(frames[len(frames) // 2], 255 - dark)


def test_without_the_package_for_films_a_sentence_says_so(monkeypatch):
    def missing(*_):
        raise MissingExtraError('the package av is not installed: pip install "norface[photos]"')

    monkeypatch.setattr("norface_lib.viz.exports.write_moving", missing)
    shown = Shown()
    shown.save.click()
    assert shown.links.value.startswith("the package av is not installed")


def test_attention_is_shown_of_the_identities_that_have_it():
    shown = Shown(
        attention={"noor": lambda faces: faces // 3},
        noor=lambda faces: 255 - faces,
        rendered=lambda faces: faces // 2,
    )
    looked = re.search(r'<img src="([^"]+)" data-view="attention"', shown.picture.value)[1]
    assert_alike(decoded(looked), shown.faces["dark"] // 3)
    shown.identity.value = "rendered"
    assert len(shown.ends()) == 2 and 'data-view="attention" alt' not in shown.picture.value


def test_the_identities_are_those_it_is_given_and_each_draws_its_own():
    shown = Shown(noor=lambda faces: 255 - faces, emil=lambda faces: faces // 2)
    assert shown.identity.options == ("noor", "emil")
    bars = shown.bars.value
    shown.identity.value = "emil"
    assert_alike(shown.ends()[1], shown.faces["dark"] // 2)
    assert shown.bars.value != bars


def test_each_face_is_drawn_and_read_once():
    calls = []
    shown = Shown(noor=lambda faces: calls.append(len(faces)) or faces)
    for label in ("bright", "dark", "bright"):
        shown.face.label = label
    assert calls == [1, 1]


def test_an_uploaded_picture_is_the_face_that_is_shown(photograph):
    opened = []
    shown = Shown(lambda: opened.append(1) or Finder())
    assert not opened, "no detector before there is a picture"
    shown.upload("me.png", png_of(photograph))
    assert shown.face.label == "me.png" and [name for name, _ in shown.face.options] == [
        "dark",
        "bright",
        "me.png",
    ]
    points = NORFACE_CROP.pixels(64) + ((120 - 64) / 2, (90 - 64) / 2)
    assert_alike(shown.ends()[0], align_face(photograph, points, size=SIZE))
    assert shown.message.value == "" and shown.button.value == ()
    shown.upload("me.png", png_of(255 - photograph))
    assert_alike(shown.ends()[0], align_face(255 - photograph, points, size=SIZE))
    assert len(opened) == 1


def test_a_snapshot_is_the_face_that_is_shown(photograph):
    shown = Shown()
    jpeg = cv2.imencode(".jpg", photograph[..., ::-1])[1].tobytes()
    shown.snapshot.value = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    assert shown.face.label == "snapshot" and shown.snapshot.value == ""
    points = NORFACE_CROP.pixels(64) + ((120 - 64) / 2, (90 - 64) / 2)
    assert_alike(shown.ends()[0], align_face(photograph, points, size=SIZE))
    shown.snapshot.value = "data:,"
    assert shown.message.value.startswith("snapshot: not a readable image")


@pytest.mark.parametrize(
    ("detector", "cut", "words"),
    [
        (lambda: Finder(finds=False), 1, "a&lt;b.png: no face was found"),
        (
            lambda: Finder(side=20),
            1,
            "a&lt;b.png: its face would be 20 px wide; action units show from 48 px on",
        ),
        (Finder, 2, "a&lt;b.png: not a readable image"),
    ],
)
def test_a_picture_that_cannot_be_taken_is_named_and_the_old_face_stays(
    detector, cut, words, photograph
):
    shown = Shown(detector)
    before, bars = shown.ends(), shown.bars.value
    content = png_of(photograph)
    shown.upload("a<b.png", content[: len(content) // cut])
    assert shown.message.value.startswith(words)
    assert len(shown.face.options) == 2 and shown.face.label == "dark" and shown.bars.value == bars
    np.testing.assert_array_equal(shown.ends(), before)
    shown.upload("good.png", content) if cut == 2 else None
    assert shown.message.value == "" or cut == 1


def test_a_detector_that_cannot_be_had_is_asked_for_again(photograph):
    tries = []

    def detector():
        tries.append(1)
        if len(tries) == 1:
            raise CheckpointError("landmarker.task: cannot be downloaded")
        return Finder()

    shown = Shown(detector)
    shown.upload("me.png", png_of(photograph))
    assert (
        shown.message.value == "landmarker.task: cannot be downloaded"
        and shown.face.label == "dark"
    )
    shown.upload("me.png", png_of(photograph))
    assert shown.message.value == "" and shown.face.label == "me.png"


def test_the_largest_face_is_taken(photograph):
    with pytest.raises(DataError, match="no face was found"):
        widgets.face_in(png_of(photograph), "me.png", Finder(finds=False), SIZE)

    class Two(Finder):
        def detect(self, image):
            return super().detect(image) + Finder(side=30).detect(image)

    assert widgets.face_in(png_of(photograph), "me.png", Two(), SIZE).shape == (SIZE, SIZE, 3)


# --- the figures that it and the notebook show ----------------------------------------------------


def lengths(axis):
    return [bar.get_width() for bar in axis.patches]


@pytest.fixture
def row():
    """A face that smiles at 4 of 5, and is sad nevertheless."""
    return read(np.full((1, 4, 4, 3), 204, np.uint8), np.full((1, 4, 4, 3), 51, np.uint8)).iloc[0]


def test_bars_say_what_was_read(row):
    for form in (row, row.to_dict()):
        aus, emotions = plots.bars_of(form)
        assert aus.names == [
            "AU06 cheek raiser",
            "AU12 lip corner puller",
        ] and aus.values == pytest.approx([1, 4])
        assert emotions.names == ["happy", "sad"] and emotions.values == pytest.approx([0.2, 0.8])
        assert list(aus.dark) == list(emotions.dark) == [False, True]
        assert (aus.limit, emotions.limit, emotions.title) == (
            labels.INTENSITY_MAX,
            1,
            "emotion: sad",
        )


def test_the_figure_draws_the_bars(row):
    aus, emotions = plots.reading(row).axes
    assert lengths(aus) == pytest.approx([1, 4]) and lengths(emotions) == pytest.approx([0.2, 0.8])
    assert [text.get_text() for text in emotions.get_yticklabels()] == ["happy", "sad"]
    dark = [bar.get_facecolor() for bar in (aus.patches[1], emotions.patches[1])]
    assert (
        dark[0] == dark[1] != aus.patches[0].get_facecolor() == emotions.patches[0].get_facecolor()
    )
    assert aus.get_xlim() == (0, labels.INTENSITY_MAX) and emotions.get_xlim() == (0, 1)


def test_the_widget_draws_the_same_bars(row):
    root = ElementTree.fromstring(plots.bars_as_html(row))
    spans = [span for block in root for span in block[1]]
    assert [span.text for span in spans[::3]] == [
        "AU06 cheek raiser",
        "AU12 lip corner puller",
        "happy",
        "sad",
    ]
    assert [span.text for span in spans[2::3]] == ["1.00", "4.00", "0.20", "0.80"]
    styles = [span[0].get("style") for span in spans[1::3]]
    assert [re.search(r"width: ([\d.]+)%", style)[1] for style in styles] == [
        "20.0",
        "80.0",
        "20.0",
        "80.0",
    ]
    colors = [style.rpartition(" ")[2] for style in styles]
    assert colors[0] == colors[2] != colors[1] == colors[3]


def test_a_face_stands_beside_its_bars(row):
    face = np.full((8, 8, 3), 7, np.uint8)
    picture, aus, _ = plots.reading(row, [face]).axes
    np.testing.assert_array_equal(picture.images[0].get_array(), face)
    assert picture.get_position().x1 < aus.get_position().x0


def test_bars_stand_below_their_faces():
    faces = np.zeros((3, 16, 16, 3), np.uint8)
    figure = plots.readings(
        {"original": faces}, {"AU06": [0.0, 0.5, 5.0], "AU12": [5.0, 1.0, 0.0]}, ["a", "b", "c"]
    )
    pictures, bars = figure.axes
    assert lengths(bars) == pytest.approx([0, 0.09, 0.9, 0.9, 0.18, 0])
    assert [bar.get_x() for bar in bars.patches[:3]] == pytest.approx([0.05, 1.05, 2.05])
    above, below = pictures.get_position(), bars.get_position()
    assert (below.x0, below.x1) == pytest.approx((above.x0, above.x1)) and below.y1 <= above.y0
    assert above.y1 <= 1 and bars.get_xlim() == (0, 3)
    colors = [bar.get_facecolor() for bar in bars.patches]
    assert colors[2] == colors[3] == colors[4] != colors[1]


def test_the_curve_of_a_film_runs_below_its_frames():
    faces = np.zeros((4, 16, 16, 3), np.uint8)
    figure = plots.film(
        {"original": faces, "normalized": faces},
        {"read": [0, 1, 2, 3], "posed": [0, 2, 4, 5]},
        "AU12",
    )
    pictures, curves = figure.axes
    read_line, posed = curves.get_lines()
    assert read_line.get_xdata().tolist() == [0.5, 1.5, 2.5, 3.5] and list(posed.get_ydata()) == [
        0,
        2,
        4,
        5,
    ]
    assert (
        posed.get_linestyle() == "--"
        and read_line.get_linestyle() == "-"
        and curves.get_xlim() == (0, 4)
    )
    width, height = figure.get_size_inches()
    place = pictures.get_position()
    assert place.width * width / 4 == pytest.approx(place.height * height / 2), "frames stay square"


def test_a_training_log_is_drawn_where_its_lines_hold_the_key():
    lines = [
        {"step": 20, "loss": 1.0},
        {"step": 40, "loss": 0.5, "others": 0.7},
        {"step": 60, "loss": 0.4, "others": 0.6},
    ]
    axis = plots.curve(lines, {"loss": "learned from", "others": "other people"}, "distance").axes[
        0
    ]
    all_steps, watched = axis.get_lines()
    assert list(all_steps.get_xdata()) == [20, 40, 60] and list(watched.get_xdata()) == [40, 60]
    assert list(watched.get_ydata()) == [0.7, 0.6] and axis.get_ylabel() == "distance"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "learned from",
        "other people",
    ]


def test_the_found_face_is_marked_where_it_is():
    picture, crop = np.zeros((40, 60, 3), np.uint8), np.ones((8, 8, 3), np.uint8)
    points = np.array([(20, 10), (30, 10), (25, 15), (21, 20), (29, 20)], float)
    marked, beside = plots.detected_face(picture, np.array([15.0, 5, 35, 30]), points, crop).axes
    box = marked.patches[0]
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (15, 5, 20, 25)
    np.testing.assert_array_equal(marked.collections[0].get_offsets(), points)
    np.testing.assert_array_equal(beside.images[0].get_array(), crop)
