"""Overlays: boxes, cards and text where they should be, videos with the times of their source,
whole files or none, and memory that does not grow."""

import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pandas as pd
import pytest

from norface_lib.common.errors import DataError
from norface_lib.images.crop import ALIGNED
from norface_lib.images.files import write_png
from norface_lib.labels import AUS
from norface_lib.viz import overlay_files
from norface_lib.viz.overlay import (
    CARD,
    COLORS,
    MOST_BARS,
    MOST_CARDS,
    Reading,
    layout_of,
    overlay,
)
from norface_lib.viz.overlay_files import write_overlays

ROW = {
    "face": 0,
    "x0": 40.0,
    "y0": 60.0,
    "x1": 140.0,
    "y1": 180.0,
    "emotion": "happy",
    "happy": 0.9,
    "neutral": 0.1,
    "AU12": 0.98,
    "AU12_intensity": 4.5,
    "AU04": 0.1,
    "AU04_intensity": 0.2,
}
GRAY = np.full((600, 800, 3), 128, np.uint8)
FACE = np.full((112, 112, 3), (200, 30, 40), np.uint8)


def has_color(image, color):
    return bool((np.abs(image.astype(int) - color).max(axis=-1) < 4).any())


# --- one image ------------------------------------------------------------------------------------


def test_the_box_stands_where_the_row_says():
    shown = overlay(GRAY, [Reading(ROW)])
    assert tuple(shown[120, 40]) == COLORS[0] and tuple(shown[180, 90]) == COLORS[0]
    assert (shown[100:120, 80:100] == 128).all(), "nothing over the face itself"
    assert (GRAY == 128).all(), "the image that was given stays as it was"


def test_a_small_image_is_enlarged_with_its_box():
    shown = overlay(GRAY[:270, :360], [Reading(ROW)])
    assert shown.shape == (540, 720 + CARD[0], 3)
    assert tuple(shown[240, 80]) == COLORS[0]


def test_the_normalized_face_and_the_bars_stand_beside_the_image():
    card = overlay(GRAY, [Reading(ROW, FACE)])[: CARD[1], 800:]
    without = overlay(GRAY, [Reading(ROW)])[: CARD[1], 800:]
    assert has_color(card, (200, 30, 40)) and not has_color(without, (200, 30, 40))
    weaker = overlay(GRAY, [Reading(ROW | {"AU12_intensity": 1.0}, FACE)])[: CARD[1], 800:]

    def colored(image):
        return (np.abs(image[38:, 318:384].astype(int) - COLORS[0]).max(axis=-1) < 4).sum()

    assert colored(card) > 3 * colored(weaker) > 0
    unsure = overlay(GRAY, [Reading(ROW | {"AU12": 0.2}, FACE)])[: CARD[1], 800:]
    assert colored(unsure) == 0


def test_of_many_aus_the_strongest_have_bars():
    image = np.full((240, 320, 3), 90, np.uint8)
    place = {"x0": 100, "y0": 60, "x1": 200, "y1": 180, "emotion": "happy"}
    strength = {au: 5 - 0.2 * number for number, au in enumerate(AUS)}
    values = {
        au: {f"AU{au:02d}": value / 5, f"AU{au:02d}_intensity": value}
        for au, value in strength.items()
    }
    every = {name: value for au in AUS for name, value in values[au].items()}
    few = {name: value for au in list(AUS)[:MOST_BARS] for name, value in values[au].items()}
    shown = overlay(image, [Reading(place | every)])
    np.testing.assert_array_equal(shown, overlay(image, [Reading(place | few)]))
    assert (shown != overlay(image, [Reading(place)])).any()


@pytest.mark.parametrize("count", [1, 2, 5, MOST_CARDS, MOST_CARDS + 9])
@pytest.mark.parametrize("size", [(112, 112), (600, 800), (400, 6000), (3000, 4000), (900, 300)])
def test_cards_of_several_faces_never_overlap_and_lie_inside(size, count):
    layout = layout_of(size[1], size[0], count)
    taken = np.zeros(layout.canvas[::-1], int)
    taken[: layout.size[1], : layout.size[0]] += 1
    for number in range(layout.cards):
        left, top = layout.card(number)
        area = taken[top : top + CARD[1], left : left + CARD[0]]
        assert area.shape == CARD[::-1]
        area += 1
    assert taken.max() == 1 and layout.cards == min(count, MOST_CARDS)
    assert layout.canvas[0] % 2 == 0 and layout.canvas[1] % 2 == 0
    image = np.zeros((*size, 3), np.uint8)
    assert overlay(image, [Reading(ROW, FACE)] * count).shape == (*layout.canvas[::-1], 3)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"x0": float("nan"), "emotion": float("nan")},
        {"x0": -500.0, "y0": -500.0, "x1": 5000.0, "y1": 9000.0, "track": 3.0},
        {"x0": 790.0, "y0": 590.0, "x1": 799.0, "y1": 599.0, "emotion": "neutral", "face": 17},
        {"AU12": 0.5},
        {"AU12_intensity": 2.0},
        {"emotion": "happy"},
    ],
)
def test_rows_with_missing_values_and_boxes_at_the_border_are_shown(row):
    assert overlay(GRAY, [Reading(row)]).shape == (600, 800 + CARD[0], 3)
    assert overlay(GRAY, []).shape == (600, 800 + CARD[0], 3)


def test_overlays_need_no_package_of_notebooks():
    code = "import sys, norface_lib.viz.overlay_files; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False"


# --- files ----------------------------------------------------------------------------------------


def write_tables(out, rows):
    """Tables as `predict` leaves them, of rows of source, frame, face and track."""
    faces = pd.DataFrame(rows, columns=["source", "frame", "face", "track"])
    faces["status"] = [ALIGNED if face != "" else "no face" for face in faces["face"]]
    faces["output"] = [f"{source}-{frame}.png" for source, frame, *_ in rows]
    for name in ("x0", "y0", "x1", "y1"):
        faces[name] = ROW[name]
    (out / "aligned").mkdir(parents=True, exist_ok=True)
    faces.to_csv(out / "aligned/faces.csv", index=False)
    found = faces[faces["status"] == ALIGNED].drop(columns=["status", "output"])
    found.assign(emotion="happy", happy=0.9, AU12=0.9).to_csv(out / "predictions.csv", index=False)
    for name in faces["output"]:
        write_png(out / "normalized" / name, FACE)


def write_video(path, count, rate=10, size=(320, 240)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, size)
    for number in range(count):
        writer.write(np.full((size[1], size[0], 3), 10 * (number % 20), np.uint8))
    writer.release()


def frames_of(path):
    video = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = video.read()
        if not good:
            return frames, video.get(cv2.CAP_PROP_FPS)
        frames.append(frame[..., ::-1])


def write_photographs(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), GRAY)


def test_each_source_with_a_face_gets_its_overlay(tmp_path):
    source = tmp_path / "source"
    write_photographs(source, "a.jpg", "b.png", "b.png.jpg", "empty.jpg")
    (source / "gone.jpg").write_bytes(b"no picture")
    write_video(source / "c.avi", 6)
    out = tmp_path / "out"
    names = ("a.jpg", "b.png", "b.png.jpg", "gone.jpg", "missing.jpg")
    rows = [(name, "", 0, "") for name in names]
    rows += [
        ("c.avi", 0, 0, 0),
        ("c.avi", 1, 0, 0),
        ("c.avi", 2, "", ""),
        ("empty.jpg", "", "", ""),
    ]
    write_tables(out, rows)
    (out / "overlay").mkdir()
    (out / "overlay/of_a_source_that_is_gone.jpg").write_bytes(b"")
    counts = write_overlays(source, out, progress=False)
    assert counts == {"pictures": 3, "videos": 1, "unreadable": 2, "without a face": 1}
    assert sorted(path.name for path in (out / "overlay").iterdir()) == [
        "a.jpg",
        "b.png.jpg",
        "b.png.jpg.jpg",
        "c.avi.mp4",
    ]


def test_one_file_is_a_source_too(tmp_path):
    write_photographs(tmp_path, "me.jpg")
    write_tables(tmp_path / "out", [("me.jpg", "", 0, "")])
    assert write_overlays(tmp_path / "me.jpg", tmp_path / "out", progress=False) == {"pictures": 1}


def test_a_video_keeps_its_length_and_shows_faces_where_they_are(tmp_path):
    write_video(tmp_path / "c.avi", 12)
    rows = [("c.avi", frame, 0, 0) for frame in (0, 1, 2, 8, 9)]
    write_tables(tmp_path / "out", rows)
    write_overlays(tmp_path / "c.avi", tmp_path / "out", progress=False)
    frames, rate = frames_of(tmp_path / "out/overlay/c.avi.mp4")
    assert len(frames) == 12 and rate == pytest.approx(10)
    shows = [int(frame[60:180, 720 + 18 : 720 + 140, 0].max()) > 150 for frame in frames]
    assert [number for number, shown in enumerate(shows) if shown] == [0, 1, 2, 8, 9]


def test_frames_that_were_left_out_keep_the_last_reading(tmp_path):
    write_video(tmp_path / "c.avi", 12)
    write_tables(tmp_path / "out", [("c.avi", frame, 0, 0) for frame in (0, 4, 8)])
    write_overlays(tmp_path / "c.avi", tmp_path / "out", progress=False)
    frames, _ = frames_of(tmp_path / "out/overlay/c.avi.mp4")
    assert all(frame[60:180, 720 + 18 : 720 + 140, 0].max() > 150 for frame in frames)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((0.0, 0.1, 0.2, 0.3), [0, 1, 2, 3]),
        ((0.0, 0.1, 0.5, 0.6), [0, 1, 1, 1, 1, 2, 3]),
        ((0.0, 0.02, 0.1, 0.11), [0, 2]),
        ((None, None, None), [0, 1, 2]),
        ((0.0, 0.0, 0.0), [0, 1, 2]),
    ],
)
def test_times_are_kept_where_the_rate_varies(tmp_path, times, expected):
    images = [np.full((64, 64, 3), 40 * number, np.uint8) for number in range(len(times))]
    path = tmp_path / "v.mp4"
    overlay_files._encode(path, iter(zip(times, images, strict=True)), 10.0)
    frames, _ = frames_of(path)
    assert [round(float(frame.mean()) / 40) for frame in frames] == expected


def test_an_overlay_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    write_video(tmp_path / "c.avi", 5)
    write_tables(tmp_path / "out", [("c.avi", 0, 0, 0)])
    write_overlays(tmp_path / "c.avi", tmp_path / "out", progress=False)
    before = (tmp_path / "out/overlay/c.avi.mp4").read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(overlay_files, "overlay", stop)
    with pytest.raises(KeyboardInterrupt):
        write_overlays(tmp_path / "c.avi", tmp_path / "out", progress=False)
    assert [path.name for path in (tmp_path / "out/overlay").iterdir()] == ["c.avi.mp4"]
    assert (tmp_path / "out/overlay/c.avi.mp4").read_bytes() == before


def test_without_predictions_there_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"faces\.csv: no such table; run `predict`"):
        write_overlays(tmp_path, tmp_path / "out", progress=False)


def test_memory_does_not_grow_with_the_frames(tmp_path):
    peaks = []
    for count in (20, 80):
        write_video(tmp_path / f"{count}.avi", count)
        write_tables(tmp_path / "out", [(f"{count}.avi", frame, 0, 0) for frame in range(count)])
        tracemalloc.start()
        write_overlays(tmp_path / f"{count}.avi", tmp_path / "out", progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2e6
