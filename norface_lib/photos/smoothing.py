"""The one-euro filter (Casiez, Roussel and Vogel 2012) over a face's values in a video: a low-pass
filter whose cutoff rises with the speed of what it filters, so that a still face does not tremble
and a fast expression is hardly late."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from norface_lib.common.errors import DataError


@dataclass(frozen=True, kw_only=True)
class OneEuro:
    """Settings of the filter. ``min_cutoff``: Hz at rest, where less is smoother; ``beta``: Hz for
    each unit a second of speed, where more is less late; ``speed_cutoff``: Hz by which the speed
    itself is smoothed, as its authors set it."""

    min_cutoff: float
    beta: float
    speed_cutoff: float = 1.0

    def __post_init__(self):
        if not (self.min_cutoff > 0 and self.beta >= 0 and self.speed_cutoff > 0):
            raise DataError(
                "min_cutoff must be above 0 and beta at least 0, not "
                f"{self.min_cutoff} and {self.beta}"
            )

    def smooth(self, times: NDArray[np.floating], values: NDArray) -> NDArray[np.float64]:
        """Values (T, ...) at times (T,) in rising seconds, each number filtered on its own from the
        first on; same shape."""
        values = np.asarray(values, np.float64)
        smoothed = values.copy()
        speed = np.zeros_like(values[:1])[0]
        for i in range(1, len(values)):
            step = float(times[i] - times[i - 1])
            raw = (values[i] - smoothed[i - 1]) / step
            speed = speed + _share(self.speed_cutoff, step) * (raw - speed)
            cutoff = self.min_cutoff + self.beta * np.abs(speed)
            smoothed[i] += (_share(cutoff, step) - 1) * (values[i] - smoothed[i - 1])
        return smoothed


def _share(cutoff, step: float):
    """Weight of a new value in an exponential filter of a cutoff in Hz, for steps in seconds."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


INTENSITIES = OneEuro(min_cutoff=0.5, beta=1.0)
"""For AU intensities 0..5: of the settings of ``results/bench-smoothing.jsonl`` that are at most
half a frame late, those with the least jitter."""

POINTS = OneEuro(min_cutoff=2.0, beta=20.0)
"""For points in widths of the face: the tremor of a still face is far slower than a turning head's
half width a second, at which the cutoff is 12 Hz. Our choice."""
