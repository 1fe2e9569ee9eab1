"""Frames of photographed videos, with their times as the container gives them.

FFmpeg decodes, through PyAV. Moving pictures (GIF, animated WebP, PNG and AVIF) are videos, too:
Pillow reads those. The loaders of datasets, which need single frames in any order, have a reader of
their own (`norface_lib.datasets.frames`).
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import DataError, needs
from norface_lib.images.animations import ANIMATED_SUFFIXES, animation_frames, count_frames

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".mts", ".m2ts",
    ".ts", ".3gp", ".3g2", ".flv", ".ogv",
)  # fmt: skip
"""Suffixes of video files. Moving pictures have those of images: see `is_video`."""

_CONVERT = "convert it (ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4)"

_STATES_DURATION = ("mov", "matroska", "avi", "flv")
"""Formats whose header states a duration; those of others are estimates from the file's size."""

_SECONDS_SHORT = 0.25
_FRAMES_SHORT = 2
"""By how many seconds, and further frames, a whole video may end before its header says."""


class VideoFrame(NamedTuple):
    """A frame of a video: its position, counted from 0, the seconds since the first frame as the
    container gives them (None if it gives none), and the image (H, W, 3) RGB, None if the frame
    cannot be decoded."""

    position: int
    time_s: float | None
    image: NDArray[np.uint8] | None


Lazy = tuple[int, float | None, Callable[[], NDArray[np.uint8] | None]]
"""A frame that is converted to RGB only when it is called for: position, seconds, image."""


def is_video(path: Path) -> bool:
    """True for a file with a video's suffix, and for a moving picture of more than one frame."""
    suffix = Path(path).suffix.lower()
    if suffix in ANIMATED_SUFFIXES:
        return count_frames(path) > 1
    return suffix in VIDEO_SUFFIXES


def read_video(
    path: Path,
    every: int = 1,
    first: int = 0,
    *,
    start: float | None = None,
    end: float | None = None,
) -> Iterator[VideoFrame]:
    """Each ``every``-th frame of a video from the one at ``first`` on, one in memory at a time.

    Positions are multiples of ``every``, whatever the rest. ``start`` and ``end``: seconds since
    the first frame between which frames are read, both included; frames without a time are always
    read. Frames are upright as the container says, and their pixels square.

    A frame that cannot be decoded has no image. Raises :class:`DataError` for a video that cannot
    be opened or decoded, and after the last readable frame of one that breaks off early.
    """
    path = Path(path)
    moves = path.suffix.lower() in ANIMATED_SUFFIXES
    source = animation_frames(path) if moves else _film_frames(path)
    with closing(source):
        for position, time_s, image in source:
            if time_s is not None and end is not None and time_s > end:
                return
            before = time_s is not None and start is not None and time_s < start
            if position >= first and position % every == 0 and not before:
                yield VideoFrame(position, time_s, image())


def frame_count(path: Path) -> int | None:
    """Number of frames of a video as its header states it, or an estimate from duration and rate;
    None if it gives neither, or cannot be opened."""
    path = Path(path)
    try:
        if path.suffix.lower() in ANIMATED_SUFFIXES:
            return count_frames(path)
        with path.open("rb") as file, _opened(file, path) as container:
            return _stated_frames(container, _video_stream(container, path))
    except (DataError, OSError):
        return None


def frame_rate(path: Path) -> float | None:
    """Frames a second of a video by its header, the mean where they vary; None if it gives none."""
    path = Path(path)
    if path.suffix.lower() in ANIMATED_SUFFIXES:
        return None
    with path.open("rb") as file, _opened(file, path) as container:
        rate = _video_stream(container, path).average_rate
    return float(rate) if rate else None


def read_sound(path: Path) -> Iterator[tuple[float, "av.AudioFrame"]]:
    """The sound of a video, decoded, with the seconds from its first picture to each piece; nothing
    if it has none. What cannot be decoded is left out."""
    path = Path(path)
    if path.suffix.lower() in ANIMATED_SUFFIXES:
        return
    import av

    with path.open("rb") as file, _opened(file, path) as container:
        sound = container.streams.best("audio")
        if sound is None or sound.codec_context is None:
            return
        pictures = _video_stream(container, path)
        first = float((pictures.start_time or 0) * (pictures.time_base or 0))
        for packet in container.demux(sound):
            with suppress(av.error.FFmpegError):
                for frame in packet.decode():
                    if frame.time is not None:
                        yield frame.time - first, frame


def _stated_frames(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> int | None:
    if stream.frames:
        return int(stream.frames)
    seconds = _seconds_of(stream.metadata.get("DURATION", ""))
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif seconds is None and container.duration and len(container.streams) == 1:
        seconds = container.duration / 1e6
    rate = stream.average_rate
    return round(seconds * rate) if seconds and rate else None


def _seconds_of(text: str) -> float | None:
    """Seconds of Matroska's ``hh:mm:ss.fff``."""
    try:
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


# --- FFmpeg ---------------------------------------------------------------------------------------


@contextmanager
def _opened(file: BinaryIO, path: Path) -> Iterator["av.container.InputContainer"]:
    """A container that FFmpeg reads through an open file.

    It never opens another one: a playlist that calls itself a video must not reach other files or
    the network.
    """
    with needs("photos"):
        import av

    try:
        container = av.open(file, options={"protocol_whitelist": "none"})
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable video (damaged, truncated, or of an unknown format); download "
            f"it again, or {_CONVERT}"
        ) from error
    with container:
        yield container


def _video_stream(container: "av.container.InputContainer", path: Path) -> "av.VideoStream":
    stream = container.streams.best("video")
    if stream is None:
        raise DataError(f"{path}: holds no pictures, only other streams; leave it out")
    if stream.codec_context is None:
        raise DataError(f"{path}: its codec is unknown to this FFmpeg; {_CONVERT}")
    stream.thread_type = "SLICE"  # frame threads lose whole frames before a damaged one
    return stream


def _film_frames(path: Path) -> Iterator[Lazy]:
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such video") from error
    with file, _opened(file, path) as container:
        yield from _Film(container, path)


class _Film:
    """Frames of an open container, and what shows at its end that some are missing."""

    def __init__(self, container: "av.container.InputContainer", path: Path):
        self.container = container
        self.path = path
        self.stream = _video_stream(container, path)
        self.aspect = self.stream.sample_aspect_ratio or Fraction(1)
        self.packets = 0
        self.frames = 0
        self.lost: list[int] = []
        self.waiting: list[int | None] = []
        self.first_stamp: int | None = None
        self.last_s = 0.0
        self.failed = False

    def __iter__(self) -> Iterator[Lazy]:
        for packet in self._demuxed():
            for frame in self._decoded(packet):
                if frame is None:
                    self.waiting.append(_stamp(packet))
                    continue
                yield from self._lost_before(_stamp(frame))
                yield self.frames, self._time(_stamp(frame)), partial(_upright, frame, self.aspect)
                self.frames += 1
        if self._ends_early():
            self.waiting.clear()  # half a frame is no frame
        yield from self._lost_before(None)
        self._check()

    def _lost_before(self, stamp: int | None) -> Iterator[Lazy]:
        """Frames that could not be decoded and are shown before the one of a time stamp: all, if
        that is None. Packets come in another order than their frames are shown in."""
        due = [lost for lost in self.waiting if None in (lost, stamp) or lost < stamp]
        for lost in sorted(due, key=lambda lost: -1 if lost is None else lost):
            self.waiting.remove(lost)
            self.lost.append(self.frames)
            yield self.frames, self._time(lost), lambda: None
            self.frames += 1

    def _demuxed(self) -> Iterator["av.Packet"]:
        """Packets of the video. Those of other streams only show how far the file goes."""
        import av

        packets = self.container.demux()
        start = (self.container.start_time or 0) / 1e6
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                self.failed = True
                packet = None
            if packet is None:
                break
            if packet.pts is not None and packet.time_base:
                until = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self.last_s = max(self.last_s, until - start)
            if packet.stream is self.stream:
                self.packets += bool(packet.size)
                yield packet

    def _decoded(self, packet: "av.Packet") -> list["av.VideoFrame | None"]:
        """Frames that a packet completes; None for one that is damaged."""
        import av

        try:
            return packet.decode()
        except av.error.FFmpegError:
            return [None] if packet.size else []

    def _time(self, stamp: int | None) -> float | None:
        """Seconds since the first frame of a time stamp."""
        if stamp is None or not self.stream.time_base:
            return None
        if self.first_stamp is None:
            self.first_stamp = stamp
        return float((stamp - self.first_stamp) * self.stream.time_base)

    def _check(self) -> None:
        """Raises :class:`DataError` if all frames are missing, or the last ones."""
        codec = self.stream.codec_context.name
        if self.frames == len(self.lost):
            raise DataError(
                f"{self.path}: no frame can be decoded (codec {codec}): it is damaged, or this "
                f"FFmpeg lacks the codec; {_CONVERT}"
            )
        if self._ends_early():
            duration = self.container.duration
            whole = f" of {duration / 1e6:.2f} s" if duration else ""
            raise DataError(
                f"{self.path}: breaks off after frame {self.frames}, at {self.last_s:.2f} s"
                f"{whole}; download it again"
            )

    def _ends_early(self) -> bool:
        kind = self.container.format.name
        if self.failed:
            return True
        if kind == "avi" and self.packets < self.stream.frames - _FRAMES_SHORT:
            return True  # others count the frames that an edit cut away, too
        if not self.container.duration or not kind.startswith(_STATES_DURATION):
            return False

        rate = self.stream.average_rate or Fraction(25)
        tolerated = _SECONDS_SHORT + float(_FRAMES_SHORT / rate)
        return self.last_s < self.container.duration / 1e6 - tolerated


def _stamp(timed: "av.Packet | av.VideoFrame") -> int | None:
    """When a packet or frame is shown, in units of its stream; None if nothing says so."""
    return timed.pts if timed.pts is not None else timed.dts


def _upright(frame: "av.VideoFrame", aspect: Fraction) -> NDArray[np.uint8]:
    """A frame as RGB (H, W, 3), turned as its container says. ``aspect``: width of its pixels over
    their height; they become square."""
    width = frame.width if aspect == 1 else max(1, round(frame.width * aspect))
    image = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
