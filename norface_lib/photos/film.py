"""Writing videos: H.264 in MP4, each frame at its own time, with or without sound."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import needs
from norface_lib.common.files import write_atomically

if TYPE_CHECKING:
    import av

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB of 8 bits."""

_TICKS = 90_000
"""Units of time in a second."""

_SOUND_RATE = 48_000
"""Samples a second."""

_QUALITY = "18"
"""CRF of x264: no loss that is seen."""


def write_film(
    path: Path,
    frames: Iterator[tuple[float, Picture]],
    sound: Iterable[tuple[float, "av.AudioFrame"]] = (),
) -> Path:
    """Writes frames with their times in rising seconds, and sound, as `read_sound` gives it; the
    file appears when it is whole, and holds nothing else.

    All frames have the size of the first; H.264 needs even ones, so the last row or column may be
    there twice.
    """
    with needs("photos"):
        import av

    def write(part: Path) -> None:
        with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as file:
            _write(file, frames, iter(sound))

    return write_atomically(path, write)


def _write(
    file: "av.container.OutputContainer",
    frames: Iterator[tuple[float, Picture]],
    sound: Iterator[tuple[float, "av.AudioFrame"]],
) -> None:
    import av

    stream = None
    track = None
    piece = next(sound, None)
    for time_s, image in frames:
        image = _even(image)
        if stream is None:
            stream = file.add_stream("libx264", width=image.shape[1], height=image.shape[0])
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": _QUALITY}
            stream.codec_context.time_base = Fraction(1, _TICKS)
            track = _Track(file) if piece else None
        while piece and piece[0] <= time_s:
            track.add(*piece)
            piece = next(sound, None)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = round(time_s * _TICKS)
        frame.time_base = Fraction(1, _TICKS)
        file.mux(stream.encode(frame))

    while piece and track:
        track.add(*piece)
        piece = next(sound, None)
    if stream is not None:
        file.mux(stream.encode(None))
    if track is not None:
        track.end()


class _Track:
    """The sound of a file, as AAC in stereo."""

    def __init__(self, file: "av.container.OutputContainer"):
        import av

        self.file = file
        self.stream = file.add_stream("aac", rate=_SOUND_RATE, layout="stereo")
        self.resampler = av.AudioResampler("fltp", "stereo", _SOUND_RATE)

    def add(self, time_s: float, frame: "av.AudioFrame") -> None:
        """A piece of sound; what comes before the first picture is left out."""
        if time_s < 0:
            return
        frame.pts = round(time_s * frame.sample_rate)
        frame.time_base = Fraction(1, frame.sample_rate)
        for each in self.resampler.resample(frame):
            self.file.mux(self.stream.encode(each))

    def end(self) -> None:
        """Writes what is left."""
        for each in self.resampler.resample(None):
            self.file.mux(self.stream.encode(each))
        self.file.mux(self.stream.encode(None))


def _even(image: Picture) -> Picture:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(image)
