"""Following faces through the frames of a video by the overlap of their boxes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from norface_lib.images.crop import overlap


class Tracker:
    """Numbers the faces of a video: one whose box overlaps a face of the last few frames is the
    same, any other is new.

    ``least``: intersection over union that it takes; ``patience``: frames, of those looked at, that
    a face may be away.
    """

    def __init__(self, *, least: float = 0.3, patience: int = 10):
        self.least = least
        self.patience = patience
        self.next = 0
        self.frames = 0
        self.known: dict[int, tuple[NDArray[np.float64], int]] = {}

    def number(self, boxes: Sequence[NDArray]) -> list[int]:
        """Track numbers of the boxes (4,) of the next frame; the pairs that overlap most are
        matched first."""
        self.frames += 1
        oldest = self.frames - self.patience
        self.known = {track: last for track, last in self.known.items() if last[1] >= oldest}
        matches = self._match(boxes)
        numbers = []
        for face, box in enumerate(boxes):
            track = matches.get(face)
            if track is None:
                track = self.next
                self.next += 1
            self.known[track] = (box, self.frames)
            numbers.append(track)
        return numbers

    def _match(self, boxes: Sequence[NDArray]) -> dict[int, int]:
        """Known tracks by the index of the box that continues them."""
        tracks = list(self.known)
        places = np.array([self.known[track][0] for track in tracks]).reshape(-1, 4)
        shared = np.array([overlap(box, places) for box in boxes]).reshape(len(boxes), len(tracks))
        matches = {}
        while shared.size and shared.max() >= self.least:
            face, column = np.unravel_index(shared.argmax(), shared.shape)
            matches[int(face)] = tracks[column]
            shared[face] = -1
            shared[:, column] = -1
        return matches

    def restore(self, boxes: Sequence[NDArray], tracks: Sequence[int]) -> None:
        """Takes a frame as it was numbered before."""
        self.frames += 1
        for track, box in zip(tracks, boxes, strict=True):
            self.known[track] = (box, self.frames)
            self.next = max(self.next, track + 1)
