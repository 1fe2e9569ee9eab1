"""From photographs and videos to aligned faces: with a detector that is told what to find, and with
MediaPipe's landmarker."""

import csv
import urllib.error
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.images.crop import (
    NORFACE_CROP,
    Crop,
    align_face,
    crop_of,
    mark_crop,
    overlap,
    similarity,
    warp,
)
from norface_lib.images.files import decode, list_images
from norface_lib.photos.detection import (
    LANDMARKER_FILE,
    Face,
    WholeImage,
    download_landmarker,
    five_of,
    open_detector,
)
from norface_lib.photos.folders import align_tree
from norface_lib.photos.journal import JOURNAL
from norface_lib.photos.tables import BLENDSHAPES, COLUMNS, FACES
from norface_lib.photos.tracking import Tracker
from norface_lib.photos.views import views_of

FIVE = NORFACE_CROP.pixels(100)


class Fake:
    """Finds a face wherever there is a red square of at least ten pixels; its five points stand in
    it as in our crop."""

    name, blendshapes = "fake", ("jawOpen", "smile")

    def __init__(self):
        self.seen = 0

    def detect(self, image):
        self.seen += 1
        red = ((image[..., 0] > 180) & (image[..., 1] < 90) & (image[..., 2] < 90)).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(red)
        boxes = [stats[i, :4].astype(float) for i in range(1, count) if min(stats[i, 2:4]) >= 10]
        faces = [
            Face(
                np.array([x, y, x + w, y + h]),
                NORFACE_CROP.pixels(1) * (w, h) + (x, y),
                0.9,
                {"jawOpen": 0.1, "smile": 0.2},
            )
            for x, y, w, h in boxes
        ]
        return sorted(faces, key=lambda face: -face.area)


def scene(*squares, width=300, height=200):
    """A gray image with red squares (x, y, side), each with a blue quarter at its lower right."""
    image = np.full((height, width, 3), 128, np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = (230, 20, 20)
        image[y + side // 2 : y + side - 4, x + side // 2 : x + side - 4] = (20, 20, 230)
    return image


def save(path, image, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **more)
    return path


def film(path, frames):
    """A video of frames (H, W, 3) RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, frames[0].shape[1::-1])
    for frame in frames:
        video.write(np.ascontiguousarray(frame[..., ::-1]))
    video.release()
    return path


def run(source, out, detector=None, **more):
    """`align_tree` and the table it wrote, all texts."""
    counts = align_tree(source, out, detector or Fake(), progress=False, **more)
    return counts, pd.read_csv(out / FACES, dtype=str, keep_default_na=False)


def is_upright(face):
    """The crop of a square: red, with blue at the lower right."""
    size = len(face)
    corner, first = (
        face[int(0.7 * size), int(0.7 * size)].astype(int),
        face[int(0.2 * size), int(0.2 * size)].astype(int),
    )
    return corner[2] > 150 > corner[0] and first[0] > 150 > first[2]


def read(path):
    return np.array(Image.open(path))


# --- the crop -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "angle"), [(0.12, 0.0), (0.3, 0.4), (0.8, -0.3), (2.5, 2.0)])
def test_points_come_to_stand_where_the_crop_says(scale, angle):
    """A soft dot around each of the five points, in an image of any size, is found in the crop
    within a tenth of a pixel."""
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))]) / scale
    points = (NORFACE_CROP.pixels(112) - 56) @ turn.T + 90 / scale
    size = int(180 / scale)
    y, x = np.mgrid[:size, :size] + 0.5
    dots = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) * scale**2 / 8) for px, py in points)
    image = np.repeat((255 * dots).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    face = align_face(image, points)[..., 0].astype(float)
    y, x = np.mgrid[:112, :112] + 0.5
    for px, py in NORFACE_CROP.pixels(112):
        near = face * (np.hypot(x - px, y - py) < 6)
        assert (
            abs((near * x).sum() / near.sum() - px) < 0.1
            and abs((near * y).sum() / near.sum() - py) < 0.1
        )


def test_fine_stripes_become_gray_when_shrunk_and_stay_when_not():
    image = np.zeros((1200, 1200, 3), np.uint8)
    image[:, ::2] = 255
    inside = warp(image, np.array([(0.1, 0, 0), (0, 0.1, 0)]), 112)[10:-10, 10:-10].astype(int)
    assert np.abs(inside - 128).max() < 8
    assert (warp(image, np.array([(1.0, 0, 0), (0, 1.0, 0)]), 112) == image[:112, :112]).all()


def test_what_lies_beyond_the_image_repeats_its_border():
    image = np.full((40, 40, 3), 77, np.uint8)
    assert (align_face(image, NORFACE_CROP.pixels(200) - 60) == 77).all()


def test_a_marked_folder_has_its_crop(tmp_path):
    mark_crop(tmp_path, NORFACE_CROP)
    assert crop_of(tmp_path) == NORFACE_CROP  # the very one: no image is warped that need not be
    other = Crop("mine", tuple(map(tuple, (0.5 + 0.5 * (NORFACE_CROP.pixels(1) - 0.5)).tolist())))
    mark_crop(tmp_path, other)
    assert crop_of(tmp_path).points == other.points


def test_overlap_is_intersection_over_union():
    boxes = np.array([(0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (2, 2, 2, 2)], float)
    np.testing.assert_allclose(overlap(boxes[0], boxes), [1, 1 / 3, 0, 0])


# --- reading --------------------------------------------------------------------------------------


def encoded(image, kind, **more):
    import io

    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def test_sixteen_bits_gray_palette_and_transparency_are_read_as_seen():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        read_ = decode(encoded(Image.fromarray(ramp), kind), "a")
        assert (
            read_.shape == (16, 16, 3)
            and (read_[..., 0] == ramp >> 8).all()
            and (read_[..., 2] == read_[..., 0]).all()
        )
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (decode(encoded(Image.fromarray(gray), "PNG"), "a") == gray[..., None]).all()
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = (10, 20, 30, 255)
    read_ = decode(encoded(Image.fromarray(clear), "PNG"), "a")
    assert (read_[:4] == (10, 20, 30)).all() and (read_[4:] == 255).all()
    palette = Image.fromarray(np.repeat(gray[..., None], 3, 2)).convert("P")
    assert decode(encoded(palette, "PNG", transparency=0), "a").shape == (16, 16, 3)


def test_floats_and_broken_files_are_errors_with_a_name():
    with pytest.raises(DataError, match=r"x\.tif: .*floating point"):
        decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "x.tif")
    whole = encoded(Image.fromarray(scene()), "JPEG")
    for data in (whole[: len(whole) // 2], b"", b"no image"):
        with pytest.raises(DataError, match=r"y\.jpg: not a readable image"):
            decode(data, "y.jpg")


def test_an_image_that_is_far_too_large_says_so(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="too large"):
        decode(encoded(Image.fromarray(scene()), "PNG"), "z.png")


# --- a tree ---------------------------------------------------------------------------------------


def test_images_of_all_kinds_become_upright_faces(tmp_path):
    source, square = tmp_path / "in", scene((80, 40, 100))
    save(source / "plain.jpg", square, quality=95)
    save(source / "deep/er/one.png", square)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera stood on its side: turn right to see it
    save(source / "turned.jpg", np.rot90(square).copy(), exif=exif, quality=95)
    save(source / "clear.png", np.dstack([square, np.full(square.shape[:2], 255, np.uint8)]))
    save(
        source / "huge.jpg", cv2.resize(square, None, fx=12, fy=12, interpolation=cv2.INTER_NEAREST)
    )
    counts, table = run(source, tmp_path / "out")
    assert counts == {"aligned": 5} and (table["status"] == "aligned").all()
    for name in ("plain.png", "deep/er/one.png", "turned.png", "clear.png", "huge.png"):
        face = read(tmp_path / "out" / name)
        assert face.shape == (112, 112, 3) and is_upright(face)
    assert crop_of(tmp_path / "out") == NORFACE_CROP and len(list_images(tmp_path / "out")) == 5
    huge = table.set_index("source").loc["huge.jpg"]
    assert float(huge["x0"]) == pytest.approx(80 * 12, abs=12) and huge["output"] == "huge.png"


def test_every_image_and_every_face_is_accounted_for(tmp_path):
    source = tmp_path / "in"
    save(source / "two.png", scene((10, 10, 60), (150, 20, 120)))
    save(source / "none.png", scene())
    save(source / "tiny.png", scene((50, 50, 20)))
    (source / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    (source / "notes.txt").write_text("hello")
    (source / ".hidden.png").write_bytes(b"")
    counts, table = run(source, tmp_path / "out")
    assert counts == {
        "aligned": 1,
        "not the largest": 1,
        "no face": 1,
        "too small": 1,
        "unreadable": 1,
        "left out": 2,
    }
    assert dict(zip(table["source"] + table["face"], table["status"], strict=True)) == {
        "broken.jpg": "unreadable", "none.png": "no face", "tiny.png0": "too small",
        "two.png0": "aligned", "two.png1": "not the largest",
        "notes.txt": "left out", ".hidden.png": "left out",
    }  # fmt: skip
    assert "not a readable image" in table["error"][0] and str(tmp_path) not in table["error"][0]
    assert [path.name for path in list_images(tmp_path / "out")] == ["two.png"]
    assert float(table["x0"][3]) == 150 and float(table["mouth_left_x"][3]) == pytest.approx(
        150 + 120 * 0.3813, abs=0.01
    )


def test_all_faces_are_written_the_largest_first(tmp_path):
    save(tmp_path / "in/two.png", scene((10, 10, 60), (150, 20, 120)))
    counts, table = run(tmp_path / "in", tmp_path / "out", all_faces=True)
    assert counts == {"aligned": 2} and table["output"].tolist() == ["two.png", "two_1.png"]
    assert all(is_upright(read(tmp_path / "out" / name)) for name in table["output"])


def test_names_that_would_clash_keep_their_suffix(tmp_path):
    two = scene((10, 10, 60), (150, 20, 120))
    for name in ("a.png", "a.jpg", "b.png", "b_1.png", "IMG_1.png", "IMG_2.png"):
        save(tmp_path / "in" / name, two)
    counts, table = run(tmp_path / "in", tmp_path / "out", all_faces=True)
    assert counts == {"aligned": 12} and table["output"].is_unique
    first = dict(zip(table["source"], table["output"], strict=True))
    assert first["b_1.png"] == "b_1_1.png" and first["IMG_2.png"] == "IMG_2_1.png"
    assert set(table["output"][table["source"].isin(["a.png", "a.jpg"])]) == {
        "a.png.png", "a.png_1.png", "a.jpg.png", "a.jpg_1.png",
    }  # fmt: skip
    assert {"b.png.png", "b.png_1.png"} <= set(table["output"])


def test_blendshapes_have_a_table_of_their_own(tmp_path):
    save(tmp_path / "in/one.png", scene((80, 40, 100)))
    run(tmp_path / "in", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / BLENDSHAPES)
    assert table.columns.tolist() == ["source", "frame", "face", "track", "jawOpen", "smile"]
    assert table["smile"].tolist() == [0.2]


# --- videos ---------------------------------------------------------------------------------------


def walk_past(frames=12):
    """Two faces; the larger one walks left to right, the other comes in the fourth frame."""
    return [
        scene((10 + 10 * i, 20, 100), *([(220, 130, 60)] if i >= 3 else [])) for i in range(frames)
    ]


def test_a_video_becomes_a_folder_of_frames_with_tracks(tmp_path):
    film(tmp_path / "in/day/walk.avi", walk_past())
    counts, table = run(tmp_path / "in", tmp_path / "out", all_faces=True)
    assert counts == {"aligned": 12 + 9}
    larger = table[table["face"] == "0"]
    assert larger["track"].unique().tolist() == ["0"] and table[table["face"] == "1"][
        "track"
    ].unique().tolist() == ["1"]
    assert larger["output"].tolist() == [f"day/walk.avi/{i:06d}.png" for i in range(12)]
    assert all((tmp_path / "out" / path).is_file() for path in table["output"])


def test_every_third_frame(tmp_path):
    film(tmp_path / "in/walk.avi", walk_past())
    counts, table = run(tmp_path / "in", tmp_path / "out", every=3)
    assert (
        table[table["status"] == "aligned"]["frame"].tolist() == ["0", "3", "6", "9"]
        and counts["not the largest"] == 3
    )


def test_a_video_that_breaks_off_or_is_none_is_listed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/none.mp4").write_bytes(b"no video")
    path = film(tmp_path / "in/half.avi", walk_past(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    counts, table = run(tmp_path / "in", tmp_path / "out")
    failures = table[table["status"] == "unreadable"]
    assert counts["unreadable"] == len(failures)
    assert set(failures["source"]) == {"none.mp4", "half.avi"}
    (sentence,) = failures["error"][failures["source"] == "half.avi"].dropna()
    assert "breaks off after frame" in sentence


def test_tracks_go_by_overlap_and_survive_a_gap():
    tracker, box = Tracker(least=0.3, patience=3), np.array([0.0, 0, 10, 10])
    assert tracker.number([box, box + 50]) == [0, 1]
    assert tracker.number([box + 51, box + 1]) == [1, 0]  # the order in a frame means nothing
    assert tracker.number([]) == [] and tracker.number([box + 2]) == [0]
    assert tracker.number([box + 52]) == [1]
    for _ in range(4):
        tracker.number([])
    assert tracker.number([box + 2]) == [2]  # away for too long: a new face


# --- stopping and going on ------------------------------------------------------------------------


class Stops(Fake):
    """Is interrupted at its n-th image."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def detect(self, image):
        if self.seen == self.at:
            raise KeyboardInterrupt
        return super().detect(image)


def some_sources(folder):
    save(folder / "a.png", scene((80, 40, 100)))
    film(folder / "b.avi", walk_past())
    save(folder / "c.png", scene())


@pytest.mark.parametrize("at", [1, 2, 6, 13])
def test_a_run_that_was_stopped_goes_on_and_ends_like_one_that_was_not(tmp_path, at):
    some_sources(tmp_path / "in")
    counts, whole = run(tmp_path / "in", tmp_path / "whole", all_faces=True)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out", Stops(at), all_faces=True)
    assert len(pd.read_csv(tmp_path / "out" / FACES)) >= at  # the tables of what is done are there
    with (tmp_path / "out" / JOURNAL).open("a") as file:
        file.write('{"source": "b.av')  # killed in the middle of a line
    rest = Fake()
    assert run(tmp_path / "in", tmp_path / "out", rest, all_faces=True)[0] == counts
    assert rest.seen == 14 - at  # nothing twice
    for name in (FACES, BLENDSHAPES):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert len(whole) == counts.total()


def test_only_what_changed_or_is_missing_is_done_anew(tmp_path):
    some_sources(tmp_path / "in")
    first, _ = run(tmp_path / "in", tmp_path / "out")
    again = Fake()
    assert run(tmp_path / "in", tmp_path / "out", again)[0] == first and again.seen == 0
    (tmp_path / "out/b.avi/000003.png").unlink()
    run(tmp_path / "in", tmp_path / "out", again)
    assert again.seen == 12 and (tmp_path / "out/b.avi/000003.png").is_file()
    save(tmp_path / "in/a.png", scene())
    counts, table = run(tmp_path / "in", tmp_path / "out", again)
    assert again.seen == 13 and counts["no face"] == 2 and len(table) == counts.total()
    assert not (tmp_path / "out/a.png").exists()  # no crop of what is no longer there


def test_other_settings_need_another_folder(tmp_path):
    save(tmp_path / "in/a.png", scene((80, 40, 100)))
    run(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="size 112, not 96"):
        run(tmp_path / "in", tmp_path / "out", size=96)


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        run(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"no image .* and no video"):
        run(tmp_path / "in", tmp_path / "out")
    save(tmp_path / "in/a.png", scene())
    with pytest.raises(DataError, match="lies inside"):
        run(tmp_path / "in", tmp_path / "in/out")
    with pytest.raises(DataError, match="at least"):
        run(tmp_path / "in", tmp_path / "out", every=0)


# --- detectors ------------------------------------------------------------------------------------


def test_aligned_crops_pass_unchanged(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    save(tmp_path / "in/a.png", image)
    save(tmp_path / "in/wide.png", scene())
    counts, table = run(tmp_path / "in", tmp_path / "out", WholeImage())
    assert counts == {"aligned": 1, "unreadable": 1} and "no face crop" in table["error"][1]
    assert (read(tmp_path / "out/a.png") == image).all()
    assert not (tmp_path / "out" / BLENDSHAPES).exists()


def test_unknown_detectors_and_missing_networks_are_errors_with_a_cure(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"there are mediapipe, insightface, none"):
        open_detector("viola")
    with pytest.raises(CheckpointError, match="holds no ONNX file"):
        open_detector("insightface", tmp_path)

    def refused(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    with pytest.raises(CheckpointError, match=r"download failed .*NORFACE_MODELS"):
        download_landmarker(tmp_path / "models" / LANDMARKER_FILE)
    assert not list((tmp_path / "models").iterdir())


def test_a_download_of_other_networks_is_not_kept(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="pip install ai-edge-litert")
    (tmp_path / "other").write_bytes(b"no bundle")
    with pytest.raises(CheckpointError, match="no bundle"):
        download_landmarker(tmp_path / "kept", (tmp_path / "other").as_uri())
    assert not (tmp_path / "kept").exists()


def test_insightface_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    import requests

    def refused(*_, **__):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "get", refused)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NORFACE_MODELS", raising=False)
    with pytest.raises(CheckpointError, match=r"download failed \(no network\).*buffalo_l\.zip"):
        open_detector("insightface")


def test_the_five_points_turn_with_the_face():
    rng = np.random.default_rng(0)
    landmarks = rng.normal(0, 50, (478, 2))
    turn = np.array([(0.6, -0.8), (0.8, 0.6)]) * 2
    np.testing.assert_allclose(five_of(landmarks @ turn.T + 7), five_of(landmarks) @ turn.T + 7)


# --- MediaPipe's landmarker -----------------------------------------------------------------------


def test_views_cover_the_image_and_overlap_by_half():
    assert views_of(300, 200, levels=3) == [(0, -50, 300)]  # no view is smaller than 256 px
    views = np.array(views_of(1280, 700, levels=2))
    assert (views[0] == (0, -290, 1280)).all() and set(views[:, 2]) == {1280, 640, 320}
    for x, y in np.random.default_rng(0).uniform((0, 0), (1280 - 150, 700 - 150), (200, 2)):
        small = views[views[:, 2] == 320]  # a face of 150 px lies whole in one of them
        assert (
            (small[:, 0] <= x)
            & (x + 150 <= small[:, 0] + 320)
            & (small[:, 1] <= y)
            & (y + 150 <= small[:, 1] + 320)
        ).any()


def test_the_landmarker_finds_a_face_however_large_and_turned(landmarker, portrait):
    face = landmarker.detect(portrait)[0]
    assert (
        face.blendshapes["mouthSmileLeft"] > 0.3 > face.blendshapes["jawOpen"] and face.score > 0.9
    )
    np.testing.assert_allclose(
        face.points, [(203, 101), (247, 102), (223, 130), (203, 140), (244, 141)], atol=3
    )
    crop = align_face(portrait, face.points)
    for factor in (0.5, 6):
        other = cv2.resize(
            portrait,
            None,
            fx=factor,
            fy=factor,
            interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC,
        )
        np.testing.assert_allclose(landmarker.detect(other)[0].points / factor, face.points, atol=2)
    wide = cv2.copyMakeBorder(portrait, 0, 300, 0, 700, cv2.BORDER_CONSTANT)
    np.testing.assert_allclose(landmarker.detect(wide)[0].points, face.points, atol=2)
    middle = cv2.getRotationMatrix2D((224, 130), 25, 1)
    turned = landmarker.detect(cv2.warpAffine(portrait, middle, (512, 512)))[0]
    again = align_face(cv2.warpAffine(portrait, middle, (512, 512)), turned.points)
    assert np.abs(again[20:100, 20:100].astype(float) - crop[20:100, 20:100]).mean() < 12


def test_the_landmarker_finds_several_faces_and_none(landmarker, portrait):
    face = portrait[20:220, 120:320]
    crowd = np.full((600, 900, 3), 100, np.uint8)
    for x, y in ((20, 30), (350, 300), (680, 60)):
        crowd[y : y + 200, x : x + 200] = face
    boxes = np.array([found.box for found in landmarker.detect(crowd)])
    assert len(boxes) == 3
    assert sorted(boxes[:, 0] // 300) == [0, 1, 2]
    assert landmarker.detect(np.full((200, 300, 3), 90, np.uint8)) == []


def test_the_landmarker_crops_rendered_faces_as_they_are(landmarker, studio):
    """The five points mean the same: on average no point of rendered people is off by a pixel of
    112."""
    from test_align import in_pixels

    from norface_lib.faces.sampling import sample_face, sample_frame
    from norface_lib.faces.studio import shot_of

    errors = []
    for number in range(12):
        rng = np.random.default_rng([31, number])
        person, frame = sample_face(rng), sample_frame(rng)
        found = landmarker.detect(studio.original(person, frame, rng))
        truth = in_pixels(shot_of(person, frame).anchor, frame.camera, 112)
        errors += [found[0].points - truth] if found else []
    assert len(errors) >= 11
    assert np.abs(np.mean(errors, axis=0)).max() < 1.2
    assert np.linalg.norm(np.mean(errors, axis=(0, 1))) < 0.6


def test_a_folder_of_photographs(landmarker, portrait, tmp_path):
    save(tmp_path / "in/ada.jpg", portrait)
    film(tmp_path / "in/ada.avi", [np.roll(portrait, 3 * i, axis=1) for i in range(3)])
    counts, table = run(tmp_path / "in", tmp_path / "out", landmarker)
    assert counts == Counter(aligned=4) and table["track"].tolist() == ["0", "0", "0", ""]
    with (tmp_path / "out" / BLENDSHAPES).open() as file:
        assert len(next(csv.reader(file))) == 4 + 52
    scale = np.hypot(
        *similarity(
            table.loc[3].filter(regex="(eye|nose|mouth)").astype(float).to_numpy().reshape(5, 2),
            FIVE,
        )[0, :2]
    )
    assert 0.5 < scale < 1.2


def test_the_tables_of_a_folder_name_every_column():
    assert len(COLUMNS) == len(set(COLUMNS)) == 27


def test_normalize_finds_the_faces_of_ordinary_photographs_first(tmp_path, monkeypatch):
    monkeypatch.setattr("norface_lib.photos.whole_folders.open_detector", lambda *_, **__: Fake())
    for name, image in (("a/one.png", scene((50, 20, 120))), ("none.png", scene())):
        save(tmp_path / "photos" / name, image)
    call = [
        "normalize",
        str(tmp_path / "photos"),
        str(tmp_path / "out"),
        "--detector",
        "mediapipe",
        "--weights",
        "tiny",
    ]
    done = CliRunner().invoke(app, call)
    assert (
        done.exit_code == 0
        and "1 aligned, 1 no face" in done.output
        and "1 normalized" in done.output
    )
    assert (tmp_path / "out/noor/a/one.png").is_file() and (
        tmp_path / "out/aligned/a/one.png"
    ).is_file()
    assert CliRunner().invoke(app, [*call, "--layout", "bp4d"]).exit_code == 1
