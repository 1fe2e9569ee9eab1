"""Faces of videos and pictures replaced: nothing of the original face shows, times stay, nothing
else comes along, and a stop leaves no file."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

av = pytest.importorskip("av", reason='pip install "norface[photos]"')

from norface_lib.common.errors import DataError  # noqa: E402
from norface_lib.images.crop import NORFACE_CROP  # noqa: E402
from norface_lib.images.files import decode, write_png  # noqa: E402
from norface_lib.networks.encoder import EncoderConfig  # noqa: E402
from norface_lib.networks.token_reader import TokenReader, TokenReaderConfig  # noqa: E402
from norface_lib.networks.weights import save_token_reader  # noqa: E402
from norface_lib.photos import anonymizing, recognition  # noqa: E402
from norface_lib.photos.anonymizing import anonymize, as_text  # noqa: E402
from norface_lib.photos.detection import Face  # noqa: E402
from norface_lib.photos.face_tracks import HOLD, follow, rising  # noqa: E402
from norface_lib.photos.film import write_film  # noqa: E402
from norface_lib.photos.pasting import Patch, oval, paste  # noqa: E402
from norface_lib.photos.smoothing import OneEuro  # noqa: E402
from norface_lib.photos.videos import VideoFrame, read_sound, read_video  # noqa: E402

NO_FILTER = OneEuro(min_cutoff=1e6, beta=0.0)
MAGENTA = (230, 20, 230)
SKIN = (200, 150, 120)
SIDE = 80


def face_at(x, y, side=SIDE):
    """A face as a detector finds it, whose crop has its corner at (x, y)."""
    box = np.array([x + 0.15 * side, y + 0.1 * side, x + 0.85 * side, y + 0.95 * side])
    return Face(box, np.array([x, y]) + NORFACE_CROP.pixels(side), 0.9)


class Scripted:
    """A detector that finds what a list says, picture by picture."""

    name = "scripted"
    blendshapes = ()

    def __init__(self, *found):
        self.found = iter(found)

    def detect(self, image):
        return list(next(self.found))


def scene(*corners, size=(240, 320)):
    """A gray picture with a face at each corner of a crop: skin in its ellipse, magenta inside."""
    image = np.full((*size, 3), 120, np.uint8)
    for x, y in corners:
        middle = (int(x + SIDE / 2), int(y + 0.52 * SIDE))
        cv2.ellipse(image, middle, (int(0.34 * SIDE), int(0.42 * SIDE)), 0, 0, 360, SKIN, -1)
        cv2.circle(image, middle, 14, MAGENTA, -1)
    return image


def has_magenta(image):
    """True where the color of no drawn face is left, also after a codec."""
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    return bool(((red - green > 60) & (blue - green > 60)).any())


def frames_of(images, times=None):
    return [
        VideoFrame(number, number / 25 if times is None else times[number], image)
        for number, image in enumerate(images)
    ]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Untrained weights of a token reader."""
    torch.manual_seed(0)
    encoder = EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16))
    path = tmp_path_factory.mktemp("reader") / "reader.safetensors"
    return str(save_token_reader(TokenReader(TokenReaderConfig(encoder=encoder)), path, {}))


@pytest.fixture
def settings(reader):
    return {"token_reader": reader, "device": "cpu", "progress": False}


CORNERS = [(30 + 2 * number, 60) for number in range(12)]
"""Of the crop of a face that moves to the right."""


@pytest.fixture
def film(tmp_path):
    """A video of a magenta face that moves, with sound and metadata."""
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "whose face this is"
        pictures = file.add_stream("libx264", rate=25, width=320, height=240, pix_fmt="yuv444p")
        sound = file.add_stream("aac", rate=16000, layout="mono")
        for number, corner in enumerate(CORNERS):
            frame = av.VideoFrame.from_ndarray(scene(corner), format="rgb24")
            frame.pts = number
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode(None))
        tone = np.sin(np.arange(7 * 1024) / 5).astype(np.float32)
        for number in range(7):
            piece = tone[None, 1024 * number : 1024 * (number + 1)]
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * number
            file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    return path


# --- following ------------------------------------------------------------------------------------


def followed(detections, **more):
    images = [np.full((240, 320, 3), 99, np.uint8)] * len(detections)
    codes = iter(np.arange(100.0))
    return follow(
        frames_of(images, **more),
        Scripted(*detections),
        lambda crop: np.full((2, 2), next(codes)),
        np.full((2, 2), -1.0),
        NO_FILTER,
    )


def test_a_face_is_placed_in_frames_between_and_around_those_it_was_found_in():
    found = [[]] * 7 + [[face_at(20, 60)]] + [[]] * 3 + [[face_at(28, 60)]] + [[]] * 8
    result = followed(found)
    assert result.tracks == 1 and sum(result.found) == 2
    assert sorted(result.faces) == list(range(7 - HOLD, 11 + HOLD + 1))
    corners = {n: faces[0].points[0, 0] for n, faces in result.faces.items()}
    first = face_at(20, 60).points[0, 0]
    moves = [corners[n] - first for n in (4, 7, 8, 9, 10, 11, 14)]
    np.testing.assert_allclose(moves, [0, 0, 2, 4, 6, 8, 8])
    assert [n for n, faces in result.faces.items() if faces[0].found] == [7, 11]
    assert result.faces[9][0].code[0, 0] == pytest.approx(0.5, abs=1e-4)  # between 0 and 1


def test_two_faces_keep_their_tracks_and_the_largest_is_first():
    both = [face_at(10, 40), face_at(150, 40, side=120)]
    result = followed([both, both[::-1], both])
    assert result.tracks == 2
    for faces in result.faces.values():
        assert faces[0].box[0] > 150 and len({face.track for face in faces}) == 2
    assert len({faces[0].track for faces in result.faces.values()}) == 1


def test_small_faces_and_unusable_points_are_covered_all_the_same():
    small = face_at(20, 60, side=30)
    broken = Face(np.array([100.0, 60, 180, 160]), np.full((5, 2), 7.0), 0.9)
    result = followed([[small, broken]])
    assert result.small == 1
    codes = {face.box[0] > 90: face.code[0, 0] for face in result.faces[0]}
    assert codes == {False: -1.0, True: 0.0}
    placed = next(face for face in result.faces[0] if face.box[0] > 90)
    assert placed.points.min(0).min() > 60 and np.isfinite(placed.at).all()


def test_points_are_smoothed_and_the_covered_place_is_not():
    rng = np.random.default_rng(0)
    found = [[face_at(50 + rng.normal(), 60 + rng.normal())] for _ in range(40)]
    faces = [each[0] for each in followed(found).faces.values()]
    trembles = [np.abs(np.diff([f.points for f in faces], 2, 0)).mean()]
    trembles.append(np.abs(np.diff([f.at for f in faces], 2, 0)).mean())
    assert trembles[1] < 0.6 * trembles[0]
    np.testing.assert_allclose(faces[10].points, found[10][0].points)


def test_times_always_rise():
    assert rising([0.0, 0.1, 0.4]).tolist() == [0.0, 0.1, 0.4]
    assert rising([0.0, None, 0.4]).tolist() == [0.0, 0.04, 0.08]
    assert (np.diff(rising([0.0, 0.5, 0.2, 0.2, 1.0])) > 0).all()


# --- pasting --------------------------------------------------------------------------------------


def patch_at(face, color=(10, 200, 10), room=1.5):
    """A drawn head of one color, in the middle of its picture."""
    drawn = np.zeros((120, 120, 4), np.uint8)
    drawn[..., :3] = color
    drawn[30:90, 40:80, 3] = 255
    points = face.points
    return Patch(drawn=drawn, room=room, at=points, points=points, box=face.box)


def test_no_pixel_of_an_original_face_has_any_influence():
    faces = [face_at(40, 60), face_at(95, 70), face_at(-30, 150), face_at(150, 100, side=140)]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (240, 320, 3), np.uint8)
    other = image.copy()
    y, x = np.mgrid[:240, :320] + 0.5
    for face in faces:
        middle = (face.box[:2] + face.box[2:]) / 2
        halves = (face.box[2:] - face.box[:2]) / 2
        inside = np.hypot((x - middle[0]) / halves[0], (y - middle[1]) / halves[1]) < 1.1
        other[inside] = rng.integers(0, 256, (inside.sum(), 3))
    assert (other != image).any()
    patches = [patch_at(face) for face in faces]
    np.testing.assert_array_equal(paste(image, patches), paste(other, patches))


def test_what_is_far_from_a_face_stays():
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    before = image.copy()
    result = paste(image, [patch_at(face_at(20, 40))])
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(result[:, 150:], image[:, 150:])
    assert (result[60:110, 40:80] != image[60:110, 40:80]).mean() > 0.9


def test_the_head_stands_at_the_place_size_and_turn_of_the_face():
    image = np.full((240, 320, 3), 120, np.uint8)
    face = face_at(100, 60)
    upright = paste(image, [patch_at(face)])
    green = np.argwhere((upright[..., 1] > 180) & (upright[..., 0] < 60))
    middle = np.array([60 + SIDE / 2, 100 + SIDE / 2])
    np.testing.assert_allclose(green.mean(0) + 0.5, middle, atol=0.6)
    extent = np.ptp(green, axis=0) + 1
    np.testing.assert_allclose(extent, [SIDE * 1.5 * 60 / 120, SIDE * 1.5 * 40 / 120], atol=2)

    corner = np.array([320, 240])
    box = np.concatenate([corner - face.box[2:], corner - face.box[:2]])
    turned = paste(image, [patch_at(Face(box, corner - face.points, 0.9))])
    assert np.abs(turned[::-1, ::-1].astype(int) - upright).max() <= 2


@pytest.mark.parametrize(
    "corner", [(-200, 60), (290, 200), (-40, -40), (5000, 5000)], ids=["left", "edge", "top", "out"]
)
def test_faces_beyond_the_border(corner):
    image = np.full((240, 320, 3), 120, np.uint8)
    assert paste(image, [patch_at(face_at(*corner))]).shape == image.shape


def test_a_face_that_fills_the_picture_is_covered_with_gray():
    image = np.full((80, 80, 3), MAGENTA, np.uint8)
    whole = Face(np.array([0.0, 0, 80, 80]), NORFACE_CROP.pixels(80), 1.0)
    big = Patch(**patch_at(whole).__dict__ | {"box": np.array([-40.0, -40, 120, 120])})
    result = paste(image, [big])
    assert not has_magenta(result) and tuple(result[2, 2]) == (128, 128, 128)


def test_the_oval_of_a_crop_ends_within_it():
    mask = oval(112)
    assert mask[58, 56] == 1 and mask[0].max() < 0.05 and mask[:, 0].max() == 0
    assert mask[40:80, 30:82].min() == 1


# --- writing --------------------------------------------------------------------------------------


def test_frames_keep_their_times_and_odd_sizes_are_written(tmp_path):
    times = [0.0, 0.04, 0.3, 0.31, 1.0]
    images = [np.full((51, 63, 3), 40 * number, np.uint8) for number in range(5)]
    path = write_film(tmp_path / "a.mp4", zip(times, images, strict=True))
    frames = list(read_video(path))
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=1e-3)
    assert {frame.image.shape for frame in frames} == {(52, 64, 3)}
    for frame, image in zip(frames, images, strict=True):
        assert abs(int(frame.image.mean()) - int(image[0, 0, 0])) < 6


def test_sound_is_read_and_written_at_its_time(film, tmp_path):
    images = ((number / 25, scene(corner)) for number, corner in enumerate(CORNERS))
    path = write_film(tmp_path / "b.mp4", images, read_sound(film))
    for source in (film, path):
        pieces = list(read_sound(source))
        length = sum(piece.samples / piece.sample_rate for _, piece in pieces)
        assert abs(pieces[0][0]) < 0.1 and length == pytest.approx(7 * 1024 / 16000, abs=0.15)
    assert len(list(read_video(path))) == 12


# --- all of it ------------------------------------------------------------------------------------


def test_a_video_shows_no_original_face_and_brings_nothing_along(film, settings, tmp_path):
    found = [[face_at(*corner)] for corner in CORNERS]
    found[4] = found[5] = []  # missed
    assert all(has_magenta(frame.image) for frame in read_video(film))
    out = tmp_path / "out.mp4"
    report = anonymize(film, out, detector=Scripted(*found), **settings)
    frames = list(read_video(out))
    assert len(frames) == 12 and not any(has_magenta(frame.image) for frame in frames)
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(12) / 25, atol=1e-3)
    with av.open(str(out)) as file:
        assert "title" not in file.metadata and [s.type for s in file.streams] == ["video"]

    assert report["faces"] == 12 and report["between_detections"] == 2
    assert report["frames_without_a_face"] == 0 and report["tracks"] == 1
    assert report["sound"] is False and report["recognition"] is None
    assert json.loads(out.with_suffix(".json").read_text()) == report
    assert "2 of these faces stand where the detector found none" in as_text(report, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "out.json", "out.mp4"]


def test_frames_without_a_face_are_counted_and_stay_as_they_are(film, settings, tmp_path):
    found = [[face_at(*CORNERS[0])]] + [[]] * 11
    report = anonymize(film, tmp_path / "out.mp4", detector=Scripted(*found), **settings)
    assert report["frames_without_a_face"] == 11 - HOLD
    visible = [has_magenta(frame.image) for frame in read_video(tmp_path / "out.mp4")]
    assert visible == [False] * (1 + HOLD) + [True] * (11 - HOLD)
    assert f"{11 - HOLD} frames have no face" in as_text(report, tmp_path / "out.mp4")


def test_sound_is_kept_only_if_it_is_asked_for(film, settings, tmp_path):
    found = [[face_at(*corner)] for corner in CORNERS]
    out = tmp_path / "out.mp4"
    report = anonymize(film, out, detector=Scripted(*found), keep_audio=True, **settings)
    assert report["sound"] is True and list(read_sound(out))


@pytest.mark.parametrize("draw", ["render", "network"])
def test_the_normalized_face_alone(film, settings, tmp_path, draw):
    found = [[face_at(*corner)] for corner in CORNERS[:3]] + [[]] * 9
    out = tmp_path / "out.mp4"
    report = anonymize(
        film, out, layout="normalized", draw=draw, detector=Scripted(*found), **settings
    )
    frames = [frame.image for frame in read_video(out)]
    side = 512 if draw == "render" else 224
    assert report["draw"] == draw and report["faces"] == 3 + HOLD
    assert {image.shape for image in frames} == {(side, side, 3)}
    assert frames[0].std() > 20 and frames[-1].std() < 2  # a face, and nobody


@pytest.mark.parametrize("draw", ["render", "network"])
def test_a_picture_becomes_a_picture(settings, tmp_path, draw):
    write_png(tmp_path / "a.png", scene((100, 80), (200, 20)))
    faces = [face_at(100, 80), face_at(200, 20)]
    for name in ("b.png", "b.jpg"):
        report = anonymize(
            tmp_path / "a.png", tmp_path / name, draw=draw, detector=Scripted(faces), **settings
        )
        image = decode((tmp_path / name).read_bytes(), name)
        assert image.shape == (240, 320, 3) and not has_magenta(image)
        assert report["frames"] == 1 and report["faces"] == 2 and report["smoothing"] is None


def test_the_target_and_the_filter_decide_what_is_drawn(film, settings, tmp_path):
    def drawn(name, **more):
        found = [[face_at(*corner)] for corner in CORNERS]
        out = tmp_path / name
        more = {"layout": "normalized"} | more
        anonymize(film, out, detector=Scripted(*found), **settings | more)
        return np.stack([frame.image for frame in read_video(out)]).astype(int)

    first = drawn("a.mp4")
    assert np.abs(first - drawn("b.mp4", target="ada")).mean() > 10
    assert (first != drawn("c.mp4", smoothing=OneEuro(min_cutoff=0.01, beta=0.0))).any()


def test_a_stop_leaves_no_file(film, settings, tmp_path, monkeypatch):
    def stop(image, patches):
        raise KeyboardInterrupt

    monkeypatch.setattr(anonymizing, "paste", stop)
    found = [[face_at(*corner)] for corner in CORNERS]
    with pytest.raises(KeyboardInterrupt):
        anonymize(film, tmp_path / "out.mp4", detector=Scripted(*found), **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_what_cannot_be_is_refused_in_a_sentence(film, settings, tmp_path):
    def refused(words, source=film, out="out.mp4", **more):
        detector = Scripted(*[[]] * 12)
        with pytest.raises(DataError, match=words):
            anonymize(source, tmp_path / out, detector=detector, **settings, **more)

    refused("no face was found in 12 frames, so nothing is written")
    refused("a video is written as .mp4; name it so", out="out.avi")
    refused("is the source itself", out="film.mp4")
    refused("no layout 'beside'; there are paste, normalized", layout="beside")
    refused("no way of drawing 'paint'", draw="paint")
    refused("no such file", source=tmp_path / "nothing.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    refused("not a readable video", source=tmp_path / "text.mp4")
    shutil.copy(film, tmp_path / "a.png")
    refused("not a readable image", source=tmp_path / "a.png", out="b.png")
    refused("a picture is written as .png or .jpg", source=tmp_path / "a.png", out="b.mp4")
    assert not list(tmp_path.glob("out*"))


# --- recognition ----------------------------------------------------------------------------------


class MeanColor(torch.nn.Module):
    """A recognizer that knows people by their mean color, less gray."""

    def embed(self, images):
        return images.mean((2, 3)) - images.mean((1, 2, 3))[:, None] + 1e-3


def test_what_a_recognizer_tells_is_measured(film, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(recognition, "frozen_network", lambda name: MeanColor())
    found = [[face_at(*corner)] for corner in CORNERS]
    out = tmp_path / "out.mp4"
    report = anonymize(film, out, detector=Scripted(*found), embedding="onnx:/a/b.onnx", **settings)
    told = report["recognition"]
    assert told["network"] == "onnx:b.onnx"
    assert told["replaced"]["pairs"] == 12 and told["same_person"]["pairs"] == 66
    assert told["strangers"]["pairs"] == 12 * recognition.STRANGERS
    assert told["different_people"] == {"cosine": None, "pairs": 0}
    assert told["same_person"]["cosine"] > 0.99
    assert told["replaced"]["cosine"] < 0.9  # magenta before, skin after
    assert "different people of one frame -" in as_text(report, out)


def test_people_of_one_frame_are_compared(monkeypatch):
    monkeypatch.setattr(recognition, "frozen_network", lambda name: MeanColor())
    measured = recognition.Recognition("arcface", device="cpu")
    for frame in range(5):
        for track, color in enumerate([(250, 20, 20), (20, 20, 250)]):
            face = np.full((112, 112, 3), color, np.uint8)
            measured.offer(face, face, frame=frame, track=track)
    report = measured.report()
    assert report["different_people"]["pairs"] == 5 and report["different_people"]["cosine"] < 0
    assert report["same_person"] == {"cosine": 1.0, "pairs": 20}


def test_many_faces_are_thinned_out(monkeypatch):
    monkeypatch.setattr(recognition, "frozen_network", lambda name: MeanColor())
    measured = recognition.Recognition("arcface", device="cpu")
    measured.expect(1000)
    face = np.full((112, 112, 3), (250, 20, 20), np.uint8)
    for frame in range(1000):
        measured.offer(face, face, frame=frame, track=0)
    assert measured.report()["replaced"] == {"cosine": 1.0, "pairs": recognition.MOST_FACES}
