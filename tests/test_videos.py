"""Frames of videos and moving pictures: every one, in time, upright, or a sentence."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason='pip install "norface[photos]"')

from norface_lib.common.errors import DataError  # noqa: E402
from norface_lib.photos.videos import VIDEO_SUFFIXES, frame_count, is_video, read_video  # noqa: E402

WIDTH = 160
HEIGHT = 96


def picture(number):
    """(96, 160, 3): gray, brighter from frame to frame, with a red square at the upper left."""
    image = np.full((HEIGHT, WIDTH, 3), 60 + 5 * (number % 30), np.uint8)
    image[:32, :32] = (220, 30, 30)
    return image


def film(path, *, codec="libx264", frames=12, times=None, sound=0.0, pixels="yuv420p", **more):
    """A video of ``frames`` pictures. ``times``: hundredths of a second of each; ``sound``: seconds
    of silence; ``more``: attributes of the video's stream."""
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    kind = {".mpg": "mpeg", ".m2ts": "mpegts", ".mts": "mpegts"}.get(path.suffix)
    with av.open(str(path), "w", format=kind, options=options) as file:
        turn = more.pop("turn", 0)
        aspect = more.pop("aspect", None)
        rate = 100 if times else 25
        stream = file.add_stream(codec, rate=rate, width=WIDTH, height=HEIGHT, pix_fmt=pixels)
        if codec == "libx264":
            stream.options = {"g": "4"}  # a key frame at each fourth
        if turn:
            stream.set_display_rotation(turn)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = file.add_stream("aac", rate=8000) if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = times[number] if times else number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if audio:
            silence = np.zeros((1, 1024), np.float32)
            for number in range(int(sound * 8000 / 1024)):
                frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                frame.sample_rate = 8000
                frame.pts = number * 1024
                file.mux(audio.encode(frame))
            file.mux(audio.encode(None))
    return path


def until_the_end(path, **more):
    """Frames that can be read, and the sentence that ends them."""
    frames = []
    with pytest.raises(DataError) as error:
        frames.extend(read_video(path, **more))
    return frames, str(error.value)


KINDS = {
    ".mp4": "libx264", ".m4v": "libx264", ".mov": "mjpeg", ".avi": "mpeg4", ".mkv": "libx264",
    ".webm": "libvpx-vp9", ".wmv": "wmv2", ".mpg": "mpeg2video", ".mpeg": "mpeg1video",
    ".mts": "libx264", ".m2ts": "libx264", ".ts": "mpeg2video", ".3gp": "mpeg4", ".3g2": "mpeg4",
    ".flv": "flv", ".ogv": "libvpx",
}  # fmt: skip


def test_every_kind_of_video_that_is_taken_is_tried():
    assert set(KINDS) == set(VIDEO_SUFFIXES)


@pytest.mark.parametrize(("suffix", "codec"), KINDS.items())
def test_each_kind_gives_all_frames_with_their_times(tmp_path, suffix, codec):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = film(tmp_path / f"a{suffix}", codec=codec, pixels=pixels)
    frames = list(read_video(path))
    assert is_video(path)
    assert [frame.position for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / 25, atol=0.002)
    for frame in frames:
        error = np.abs(frame.image.astype(int) - picture(frame.position))
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and error[40:, 40:].mean() < 4
        assert frame.image[16, 16, 0] > 150 > frame.image[16, 16, 2]  # red, not blue


def test_ten_bits_and_av1_are_decoded(tmp_path):
    for codec, pixels in (("libx265", "yuv420p10le"), ("libsvtav1", "yuv420p")):
        frames = list(read_video(film(tmp_path / "a.mp4", codec=codec, pixels=pixels)))
        assert len(frames) == 12 and abs(int(frames[5].image[60, 60, 0]) - 85) < 5


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    times = [0, 4, 8, 50, 51, 52, 200, 230, 231, 232, 300, 301]
    frames = list(read_video(film(tmp_path / "a.mp4", times=times)))
    np.testing.assert_allclose([f.time_s for f in frames], np.array(times) / 100, atol=0.001)
    path = film(tmp_path / "b.mkv", times=times)
    np.testing.assert_allclose([f.time_s for f in read_video(path)], np.array(times) / 100)


def test_every_first_start_and_end_choose_frames(tmp_path):
    path = film(tmp_path / "a.mp4", frames=25)

    def positions(**choice):
        return [frame.position for frame in read_video(path, **choice)]

    assert positions(every=5, first=6) == [10, 15, 20]
    assert positions(start=0.2, end=0.4) == [5, 6, 7, 8, 9, 10]
    assert positions(every=4, start=0.2, end=0.4) == [8]
    assert positions(first=7, end=0.32) == [7, 8]
    assert positions(start=3.0) == []
    assert next(read_video(path, start=0.2)).time_s == pytest.approx(0.2)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_turned_telephone_gives_upright_frames(tmp_path, turn):
    """The square stands where players show it: turned counterclockwise by the container's angle."""
    path = film(tmp_path / "a.mp4", turn=turn)
    image = next(read_video(path)).image
    expected = np.rot90(picture(0), turn // 90)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 6


def test_the_turn_is_that_of_opencv(tmp_path):
    cv2 = pytest.importorskip("cv2")
    for turn in (90, 180, 270):
        path = film(tmp_path / f"{turn}.mp4", turn=turn)
        shown = cv2.VideoCapture(str(path)).read()[1][..., ::-1]
        assert np.abs(next(read_video(path)).image.astype(int) - shown).mean() < 3


def test_wide_pixels_become_square(tmp_path):
    path = film(tmp_path / "a.mp4", aspect=Fraction(4, 3))
    assert next(read_video(path)).image.shape == (HEIGHT, round(WIDTH * 4 / 3), 3)


def test_sound_that_is_longer_is_no_fault(tmp_path):
    for suffix in (".mkv", ".mp4"):
        path = film(tmp_path / f"a{suffix}", sound=4.0)
        assert len(list(read_video(path))) == 12 and frame_count(path) in (12, None)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".avi", "mpeg4")]
)
def test_a_video_that_breaks_off_says_after_which_frame(tmp_path, suffix, codec):
    path = film(tmp_path / f"a{suffix}", codec=codec, frames=50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    frames, sentence = until_the_end(path)
    assert 8 < len(frames) < 45
    assert f"{path}: breaks off after frame {len(frames)}, at " in sentence


def test_a_damaged_frame_in_the_middle_does_not_end_the_video(tmp_path):
    path = film(tmp_path / "a.mov", codec="mjpeg", pixels="yuvj420p", frames=20)
    with av.open(str(path)) as file:
        packets = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for number in (7, 8):
        place, size = packets[number]
        data[place : place + size] = bytes(size)
    path.write_bytes(data)
    frames = list(read_video(path))
    assert [frame.position for frame in frames] == list(range(20))
    assert [n for n, frame in enumerate(frames) if frame.image is None] == [7, 8]
    assert frames[9].time_s == pytest.approx(9 / 25)


def test_a_damaged_frame_keeps_its_place_where_packets_come_in_another_order(tmp_path):
    path = film(tmp_path / "a.mp4", frames=20)
    with av.open(str(path)) as file:
        packets = [(p.pos, p.size, p.pts) for p in file.demux(video=0) if p.size]
    stamps = sorted(stamp for _, _, stamp in packets)
    earlier = [n for n in range(1, 20) if packets[n][2] < packets[n - 1][2]]
    place, size, stamp = packets[earlier[-1]]
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    lost = stamps.index(stamp)
    frames = list(read_video(path))
    assert [frame.position for frame in frames] == list(range(20))
    assert [n for n, frame in enumerate(frames) if frame.image is None] == [lost]
    assert [frame.time_s for frame in frames] == pytest.approx([n / 25 for n in range(20)])


def test_what_is_no_video_says_so(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert "not a readable video" in until_the_end(tmp_path / "a.mp4")[1]
    assert "no such video" in until_the_end(tmp_path / "b.mp4")[1]
    assert frame_count(tmp_path / "a.mp4") is None and frame_count(tmp_path / "b.mp4") is None

    with av.open(str(tmp_path / "c.mp4"), "w") as file:
        audio = file.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        file.mux(audio.encode(sound))
        file.mux(audio.encode(None))
    assert "holds no pictures" in until_the_end(tmp_path / "c.mp4")[1]


def test_an_unknown_codec_is_one_sentence_with_a_cure(tmp_path):
    path = film(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1").replace(b"avcC", b"xyzC"))
    frames, sentence = until_the_end(path)
    assert not frames and "codec" in sentence and "ffmpeg -i INPUT -c:v libx264" in sentence


def test_a_playlist_opens_no_other_file(tmp_path):
    film(tmp_path / "other.ts", codec="mpeg2video")
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", str(tmp_path / "other.ts")]
    (tmp_path / "a.mp4").write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    frames, sentence = until_the_end(tmp_path / "a.mp4")
    assert not frames and "a.mp4: " in sentence


def test_an_odd_name_is_no_address(tmp_path):
    path = film(tmp_path / "a.mp4").rename(tmp_path / "concat:b #1?.mp4")
    assert len(list(read_video(path))) == 12
    path = path.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    assert len(list(read_video(Path(path)))) == 12


def test_the_number_of_frames_is_known_beforehand(tmp_path):
    for suffix in (".mp4", ".mkv", ".avi"):
        path = film(tmp_path / f"a{suffix}", codec="mpeg4", frames=20)
        assert frame_count(path) == 20


# --- moving pictures ------------------------------------------------------------------------------


def moving(path, frames=5, **more):
    images = [Image.fromarray(picture(4 * number)) for number in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], **more)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_a_moving_picture_is_a_video(tmp_path, suffix):
    path = moving(tmp_path / f"a{suffix}", duration=[40, 40, 200, 40, 40])
    assert is_video(path) and frame_count(path) == 5
    frames = list(read_video(path))
    np.testing.assert_allclose(
        [frame.time_s for frame in frames], [0, 0.04, 0.08, 0.28, 0.32], atol=0.011
    )
    for frame in frames:
        assert np.abs(frame.image.astype(int) - picture(4 * frame.position)).mean() < 8
    chosen = [frame.position for frame in read_video(path, every=2, first=1, end=0.3)]
    assert chosen == [2]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_a_picture_that_does_not_move_is_none(tmp_path, suffix):
    Image.fromarray(picture(0)).save(tmp_path / f"a{suffix}")
    assert not is_video(tmp_path / f"a{suffix}")


def test_a_moving_picture_that_is_damaged_is_one_sentence(tmp_path):
    for suffix in (".gif", ".webp", ".png"):
        path = moving(tmp_path / f"a{suffix}", frames=8, duration=40)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        frames, sentence = until_the_end(path)
        assert len(frames) < 8
        assert str(path) in sentence
    (tmp_path / "b.gif").write_bytes(b"GIF89a")
    assert "not a readable image" in until_the_end(tmp_path / "b.gif")[1]


def test_transparent_frames_lie_over_white(tmp_path):
    clear = Image.fromarray(np.zeros((32, 32, 4), np.uint8))
    solid = Image.fromarray(np.full((32, 32, 4), (10, 20, 30, 255), np.uint8))
    clear.save(
        tmp_path / "a.webp", save_all=True, append_images=[solid], duration=40, lossless=True
    )
    first, second = read_video(tmp_path / "a.webp")
    assert (first.image == 255).all() and (second.image == (10, 20, 30)).all()


# --- the given cases ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"), [("gap.mp4", 30), ("long_audio.mkv", 8), ("av1.mp4", 8), ("vp9.webm", 8)]
)
def test_the_cases(name, count):
    folder = Path(os.environ.get("NORFACE_PHOTOS", "")).parent / "cases"
    if "NORFACE_PHOTOS" not in os.environ or not (folder / name).is_file():
        pytest.skip(f"no {name} in a folder cases beside that which NORFACE_PHOTOS names")
    frames = list(read_video(folder / name))
    assert len(frames) == count and frames[-1].time_s == pytest.approx((count - 1) / 25)
