"""Faces followed through a whole video before any of it is drawn: where each is in each frame, also
where the detector missed it, and what was read of it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from norface_lib.images.crop import NORFACE_CROP, align_face, pixels_within, similarity
from norface_lib.images.files import SMALLEST
from norface_lib.photos.detection import Detector, Face
from norface_lib.photos.smoothing import POINTS, OneEuro
from norface_lib.photos.tracking import Tracker
from norface_lib.photos.videos import VideoFrame

HOLD = 5
"""Frames for which a face is taken to be where it was, before it is first found and after it was
last found: a detector finds a face that turns or enters some frames late."""

RATE = 25.0
"""Frames a second where a container gives no times."""

Code = NDArray[np.float64]
"""What was read of a face, such as AU intensities (A, 2)."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A face of a frame. ``points`` (5, 2) and ``box`` (4,) in pixels, as found or between those
    found; ``at`` (5, 2): the same points, smoothed; ``code``: what was read, smoothed; ``found``:
    whether the detector found it in this very frame."""

    track: int
    points: NDArray[np.float64]
    at: NDArray[np.float64]
    box: NDArray[np.float64]
    code: Code
    found: bool


@dataclass(kw_only=True)
class Followed:
    """All faces of a video. ``times`` (F,): seconds of its frames, in rising order; ``faces``:
    those of each frame by its position, the largest first; ``found``: how many were found in each
    frame; ``tracks``: how many there are in all; ``small``: how many faces were too small to read;
    ``unreadable``: how many frames could not be decoded."""

    times: NDArray[np.float64]
    faces: dict[int, list[Placed]]
    found: list[int]
    tracks: int
    small: int
    unreadable: int

    def all_faces(self) -> list[Placed]:
        """Those of all frames."""
        return [face for faces in self.faces.values() for face in faces]


@dataclass
class _Track:
    """A face as it was found; a list of as many entries in each field."""

    positions: list[int] = field(default_factory=list)
    points: list[NDArray] = field(default_factory=list)
    boxes: list[NDArray] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)


def follow(
    frames: Iterable[VideoFrame],
    detector: Detector,
    read: Callable[[NDArray[np.uint8]], Code],
    neutral: Code,
    smoothing: OneEuro,
    *,
    size: int = 112,
) -> Followed:
    """Finds and reads the faces of all frames of a video.

    ``read``: a face's code by its crop (size, size, 3); ``neutral``: that of a face that is too
    small to read; ``smoothing``: of codes, by track. Memory grows with the number of faces, not
    with their pixels.
    """
    tracker = Tracker()
    tracks: dict[int, _Track] = defaultdict(_Track)
    times: list[float | None] = []
    found: list[int] = []
    small = 0
    unreadable = 0
    for frame in frames:
        times.append(frame.time_s)
        faces = [] if frame.image is None else detector.detect(frame.image)
        unreadable += frame.image is None
        found.append(len(faces))
        for face, number in zip(faces, tracker.number([f.box for f in faces]), strict=True):
            points = _points_of(face)
            readable = pixels_within(points) >= SMALLEST
            small += not readable
            code = read(align_face(frame.image, points, size=size)) if readable else neutral
            track = tracks[number]
            track.positions.append(len(times) - 1)
            track.points.append(points)
            track.boxes.append(np.asarray(face.box, float))
            track.codes.append(code)

    seconds = rising(times)
    placed: dict[int, list[Placed]] = defaultdict(list)
    for number, track in tracks.items():
        _place(number, track, seconds, smoothing, placed)
    for each in placed.values():
        each.sort(key=lambda face: -float(np.prod(face.box[2:] - face.box[:2])))
    return Followed(
        times=seconds,
        faces=dict(placed),
        found=found,
        tracks=len(tracks),
        small=small,
        unreadable=unreadable,
    )


def _points_of(face: Face) -> NDArray[np.float64]:
    """The five points of a face; those of an upright one in its box where they cannot be used."""
    points = np.asarray(face.points, float)
    try:
        similarity(points, NORFACE_CROP.pixels(1))
        return points
    except ValueError:
        return face.box[:2] + NORFACE_CROP.pixels(1) * (face.box[2:] - face.box[:2])


def rising(times: Sequence[float | None]) -> NDArray[np.float64]:
    """Times of frames in seconds, each after the one before; at `RATE` if a container tells none,
    and where its times go back."""
    values = np.array([np.nan if time is None else time for time in times], float)
    if np.isnan(values).any():
        return np.arange(len(values)) / RATE
    for i in range(1, len(values)):
        if values[i] <= values[i - 1]:
            values[i] = values[i - 1] + 1 / RATE
    return values


def _place(
    number: int,
    track: _Track,
    times: NDArray[np.float64],
    smoothing: OneEuro,
    placed: dict[int, list[Placed]],
) -> None:
    """Adds a track to the faces of each frame from `HOLD` frames before its first to as many after
    its last."""
    first = max(0, track.positions[0] - HOLD)
    last = min(len(times) - 1, track.positions[-1] + HOLD)
    every = np.arange(first, last + 1)
    points, boxes, codes = (
        _between(every, track.positions, np.stack(values))
        for values in (track.points, track.boxes, track.codes)
    )
    width = float(np.median([pixels_within(each) for each in track.points]))
    at = width * POINTS.smooth(times[every], points / width)
    codes = smoothing.smooth(times[every], codes)
    found = set(track.positions)
    for row, position in enumerate(every.tolist()):
        placed[position].append(
            Placed(
                track=number,
                points=points[row],
                at=at[row],
                box=boxes[row],
                code=codes[row],
                found=position in found,
            )
        )


def _between(every: NDArray, positions: Sequence[int], values: NDArray) -> NDArray[np.float64]:
    """Values (T, ...) at some frames, for all frames of ``every``: in a straight line between two,
    constant before the first and after the last."""
    between = np.empty((len(every), *values.shape[1:]))
    for place in np.ndindex(values.shape[1:]):
        between[:, *place] = np.interp(every, positions, values[:, *place])
    return between
