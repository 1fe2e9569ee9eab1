"""Controls for notebooks. They only choose what a pure function then draws."""

import cv2
import ipywidgets
import numpy as np
from numpy.typing import NDArray

Face = NDArray[np.uint8]


def wipe(left: Face, right: Face, position: float) -> Face:
    """Two images (S, S, 3) in one: ``left`` up to ``position`` (0..1) of the width, ``right`` after it, a line between."""
    edge = round(position * left.shape[1])
    mixed = np.concatenate([left[:, :edge], right[:, edge:]], axis=1)
    if 0 < edge < left.shape[1]:
        mixed[:, edge - 1 : edge + 1] = 255
    return mixed


def _png(image: Face, size: int) -> bytes:
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def compare(originals: Face, normalized: Face, names: list[str], size: int = 280, steps: int = 11) -> ipywidgets.Widget:
    """Choose a face, slide between the original (right) and the normalized image (left). Faces are (N, S, S, 3).

    The slider moves a stack of ready images in the browser; only a new face asks the kernel.
    """
    frames = [ipywidgets.Image(format="png", width=size, height=size) for _ in range(steps)]
    stack = ipywidgets.Stack(frames, selected_index=steps // 2)
    face = ipywidgets.Dropdown(options=[(name, index) for index, name in enumerate(names)], description="face")
    slider = ipywidgets.IntSlider(steps // 2, 0, steps - 1, description="normalized", readout=False)
    ipywidgets.jslink((slider, "value"), (stack, "selected_index"))

    def show(_=None) -> None:
        for index, frame in enumerate(frames):
            frame.value = _png(wipe(normalized[face.value], originals[face.value], index / (steps - 1)), size)

    face.observe(show, "value")
    show()
    return ipywidgets.VBox([face, stack, slider])
