"""Controls for notebooks. They only choose what a pure function then draws."""

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO

import cv2
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.faces.benchmark import Frame, Person, Studio, draw_face
from norface_lib.faces.render import Camera, Light

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


def browse(figures: Mapping[str, Figure], description: str = "") -> ipywidgets.Widget:
    """A slider over ready figures by name, which are closed. It moves in the browser, without a kernel."""
    frames = [ipywidgets.Image(value=_png_of(figure), format="png") for figure in figures.values()]
    stack = ipywidgets.Stack(frames, selected_index=0)
    slider = ipywidgets.SelectionSlider(
        options=[(name, index) for index, name in enumerate(figures)], description=description, continuous_update=True
    )
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([stack, slider])


def _png_of(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()


def portrait(
    studio: Studio, person: Person, intensities: Mapping[int, float], yaw: float = 0.0, pitch: float = 0.0, lamp: float = 0.35
) -> Face:
    """A person with AU intensities (number -> 0..5) before a gray wall: (S, S, 3). Angles and the lamp's side in radians."""
    shown = {au: value for au, value in intensities.items() if value}
    light = Light(direction=(float(np.sin(lamp)), 0.5, float(np.cos(lamp))))
    frame = Frame(shown, shown, "", "lab", (0.0, 0.0), Camera(yaw=yaw, pitch=pitch), light)
    return studio.plain(person, frame)


def explore(size: int = 224) -> ipywidgets.Widget:
    """Make a face: sliders for the person, the head's pose, the lamp and every AU. Each change draws it anew."""
    studio, people = Studio(size), lru_cache(maxsize=8)(lambda number: draw_face(np.random.default_rng(number)))
    picture = ipywidgets.Image(format="png", width=320, height=320)
    person = ipywidgets.IntSlider(2, 0, 99, description="person")
    scene = {
        "yaw": ipywidgets.FloatSlider(0.0, min=-0.8, max=0.8, step=0.05),
        "pitch": ipywidgets.FloatSlider(0.0, min=-0.4, max=0.4, step=0.05),
        "lamp": ipywidgets.FloatSlider(0.35, min=-1.5, max=1.5, step=0.1),
    }
    for name, slider in scene.items():
        slider.description = name
    aus = {au: ipywidgets.FloatSlider(0.0, min=0, max=5, step=0.5, description=f"AU{au}") for au in labels.AUS}

    def show(_=None) -> None:
        chosen = {name: slider.value for name, slider in scene.items()}
        picture.value = _png(portrait(studio, people(person.value), {au: s.value for au, s in aus.items()}, **chosen), size)

    for slider in (person, *scene.values(), *aus.values()):
        slider.observe(show, "value")
    show()
    half = len(aus) // 2
    columns = [ipywidgets.VBox(list(aus.values())[part]) for part in (slice(half), slice(half, None))]
    return ipywidgets.HBox([ipywidgets.VBox([picture, person, *scene.values()]), *columns])
