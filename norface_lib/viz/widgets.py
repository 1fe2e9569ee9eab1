"""Controls for notebooks. They only choose the arguments of pure functions that make figures."""

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from html import escape
from io import BytesIO

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib import labels
from norface_lib.common.errors import DataError, NorfaceError, needs
from norface_lib.faces.sampling import Frame, Person, sample_face
from norface_lib.faces.scene import Camera, Light
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import align_face, pixels_within
from norface_lib.images.files import SMALLEST, decode
from norface_lib.images.sheets import wipe
from norface_lib.photos.detection import Detector
from norface_lib.viz import plots

with needs("notebooks"):
    import ipywidgets
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

Face = NDArray[np.uint8]
"""(S, S, 3) RGB of 8 bits."""


def _png(image: Face, size: int) -> bytes:
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def _wiper(
    size: int, steps: int
) -> tuple[ipywidgets.Stack, ipywidgets.IntSlider, Callable[[Face, Face], None]]:
    """A stack of ready pictures, the slider that moves it in the browser without the kernel, and
    the function that fills it with two faces."""
    frames = [ipywidgets.Image(format="png", width=size, height=size) for _ in range(steps)]
    stack = ipywidgets.Stack(frames, selected_index=steps // 2)
    slider = ipywidgets.IntSlider(steps // 2, 0, steps - 1, description="normalized", readout=False)
    ipywidgets.jslink((slider, "value"), (stack, "selected_index"))

    def fill(left: Face, right: Face) -> None:
        for index, frame in enumerate(frames):
            frame.value = _png(wipe(left, right, index / (steps - 1)), size)

    return stack, slider, fill


def compare(
    originals: Face, normalized: Face, names: list[str], size: int = 280, steps: int = 11
) -> ipywidgets.Widget:
    """Slider between the original (right) and the normalized image (left) of a face to choose.
    Faces are (N, S, S, 3).

    The slider moves a stack of ready images in the browser; only a new face asks the kernel.
    """
    stack, slider, fill = _wiper(size, steps)
    face = ipywidgets.Dropdown(
        options=[(name, index) for index, name in enumerate(names)], description="face"
    )

    def show(_=None) -> None:
        fill(normalized[face.value], originals[face.value])

    face.observe(show, "value")
    show()
    return ipywidgets.VBox([face, stack, slider])


def quickstart(
    faces: Mapping[str, Face],
    identities: Mapping[str, Callable[[Faces], Faces]],
    read: Callable[[Faces, Faces], pd.DataFrame],
    detector: Callable[[], Detector],
    size: int = 280,
    steps: int = 11,
) -> ipywidgets.Widget:
    """`compare` with a choice of identity, the predictions for the face beside it, and a button for
    a picture of your own.

    ``faces``: aligned ones (S, S, 3) by name. ``identities``: functions that normalize originals
    (N, S, S, 3), by the name of the identity. ``read``: from originals and normalized faces, a row
    for each with the columns of ``predictions.csv``. ``detector``: opens one; it is called at the
    first upload and not before. The widget shows why a picture cannot be taken.
    """
    originals = list(faces.values())
    stack, slider, fill = _wiper(size, steps)
    face = ipywidgets.Dropdown(
        options=[(name, index) for index, name in enumerate(faces)], description="face"
    )
    identity = ipywidgets.Dropdown(options=list(identities), description="identity")
    upload = ipywidgets.FileUpload(accept="image/*", description="your picture")
    message = ipywidgets.HTML()
    bars = ipywidgets.HTML()
    opened = cache(detector)

    @cache
    def normalized_and_read(index: int, name: str) -> tuple[Face, pd.Series]:
        normalized = identities[name](originals[index][None])
        return normalized[0], read(originals[index][None], normalized).iloc[0]

    def show(_=None) -> None:
        normalized, row = normalized_and_read(face.value, identity.value)
        fill(normalized, originals[face.value])
        bars.value = plots.bars_as_html(row)

    def take(_) -> None:
        for file in upload.value:
            message.value = "looking for a face ..."
            try:
                originals.append(
                    face_in(bytes(file["content"]), file["name"], opened(), len(originals[0]))
                )
            except NorfaceError as error:
                message.value = escape(str(error))
            else:
                message.value = ""
                face.options = (*face.options, (file["name"], len(originals) - 1))
                face.value = len(originals) - 1
        upload.value = ()

    for control in (face, identity):
        control.observe(show, "value")
    upload.observe(take, "value")
    show()
    pictures = ipywidgets.HBox(
        [ipywidgets.VBox([stack, slider]), bars], layout={"flex_flow": "row wrap"}
    )
    return ipywidgets.VBox(
        [
            ipywidgets.HBox([face, identity, upload], layout={"flex_flow": "row wrap"}),
            message,
            pictures,
        ]
    )


def face_in(data: bytes, name: str, detector: Detector, size: int) -> Face:
    """The largest face of an encoded picture, aligned: (size, size, 3).

    Raises :class:`DataError`, naming the picture, if it is no image, or if it shows no face or one
    too small to be read.
    """
    image = decode(data, name)
    faces = detector.detect(image)
    if not faces:
        raise DataError(
            f"{name}: no face was found; take a picture in which it is larger, or seen from the "
            "front"
        )
    side = pixels_within(faces[0].points)
    if side < SMALLEST:
        raise DataError(
            f"{name}: its face would be {side:.0f} px wide; action units show from {SMALLEST} px on"
        )
    return align_face(image, faces[0].points, size=size)


def browse(figures: Mapping[str, Figure], description: str = "") -> ipywidgets.Widget:
    """A slider over ready figures by name, which are closed. It moves in the browser, without a
    kernel."""
    frames = [ipywidgets.Image(value=_png_of(figure), format="png") for figure in figures.values()]
    stack = ipywidgets.Stack(frames, selected_index=0)
    slider = ipywidgets.SelectionSlider(
        options=[(name, index) for index, name in enumerate(figures)],
        description=description,
        continuous_update=True,
    )
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([stack, slider])


def _png_of(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()


def portrait(
    studio: Studio,
    person: Person,
    intensities: Mapping[int, float],
    yaw: float = 0.0,
    pitch: float = 0.0,
    lamp: float = 0.35,
) -> Face:
    """A person with AU intensities (number -> 0..5) before a gray wall: (S, S, 3). Angles and the
    lamp's side in radians."""
    intensities = {au: value for au, value in intensities.items() if value}
    light = Light(direction=(float(np.sin(lamp)), 0.5, float(np.cos(lamp))))
    frame = Frame(
        intensities, intensities, "", "lab", (0.0, 0.0), Camera(yaw=yaw, pitch=pitch), light
    )
    return studio.plain(person, frame)


def explore(size: int = 224) -> ipywidgets.Widget:
    """Sliders for a rendered face: the person, the head's pose, the lamp and every AU. Each change
    renders it anew."""
    studio = Studio(size)
    people = lru_cache(maxsize=8)(lambda number: sample_face(np.random.default_rng(number)))
    picture = ipywidgets.Image(format="png", width=320, height=320)
    person = ipywidgets.IntSlider(2, 0, 99, description="person")
    scene = {
        "yaw": ipywidgets.FloatSlider(0.0, min=-0.8, max=0.8, step=0.05),
        "pitch": ipywidgets.FloatSlider(0.0, min=-0.4, max=0.4, step=0.05),
        "lamp": ipywidgets.FloatSlider(0.35, min=-1.5, max=1.5, step=0.1),
    }
    for name, slider in scene.items():
        slider.description = name
    aus = {
        au: ipywidgets.FloatSlider(0.0, min=0, max=5, step=0.5, description=f"AU{au}")
        for au in labels.AUS
    }

    def show(_=None) -> None:
        intensities = {au: slider.value for au, slider in aus.items()}
        settings = {name: slider.value for name, slider in scene.items()}
        image = portrait(studio, people(person.value), intensities, **settings)
        picture.value = _png(image, size)

    for slider in (person, *scene.values(), *aus.values()):
        slider.observe(show, "value")
    show()
    half = len(aus) // 2
    sliders = list(aus.values())
    columns = [[picture, person, *scene.values()], sliders[:half], sliders[half:]]
    return ipywidgets.HBox([ipywidgets.VBox(column) for column in columns])
