"""Controls for notebooks. They only choose the arguments of pure functions that make figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from io import BytesIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from norface_lib.common.errors import DataError, NorfaceError, needs
from norface_lib.images.arrays import Faces
from norface_lib.images.crop import align_face, pixels_within
from norface_lib.images.files import SMALLEST, decode
from norface_lib.images.sheets import wipe
from norface_lib.photos.detection import Detector
from norface_lib.viz.bars import bars_as_html
from norface_lib.viz.camera import camera
from norface_lib.viz.explorer import explore, portrait
from norface_lib.viz.exports import saved
from norface_lib.viz.wipe import (
    LOOK,
    Item,
    data_uri,
    gallery_as_html,
    picture_as_html,
    views_as_html,
)

with needs("notebooks"):
    import ipywidgets
    import matplotlib.pyplot as plt
    from IPython.display import HTML
    from matplotlib.figure import Figure

__all__ = ["browse", "compare", "explore", "face_in", "portrait", "quickstart", "wipe"]

Face = NDArray[np.uint8]
"""(S, S, 3) RGB of 8 bits."""


def compare(
    originals: Faces,
    normalized: Faces,
    names: Sequence[str],
    size: int = 280,
    attention: Faces | None = None,
) -> HTML:
    """A gallery of faces (N, S, S, 3): choose one by its small picture, and drag the border between
    its normalized (left) and its original image (right) on the picture itself, or move it by keys.
    In place of the normalized face, their difference can be left of the border, and where the
    normalizer looked, if ``attention`` shows that: pictures (N, S, S, 3), as `attention_pictures`
    gives them.

    It is plain HTML, which needs no kernel: an exported page has it, too. ``size``: CSS pixels
    along a side.
    """
    return HTML(gallery_as_html(items_of(originals, normalized, names, attention), size))


def items_of(
    originals: Faces, normalized: Faces, names: Sequence[str], attention: Faces | None = None
) -> list[Item]:
    """Faces (N, S, S, 3) for a gallery that holds their pictures itself."""
    looked = [""] * len(originals) if attention is None else map(data_uri, attention)
    small = [data_uri(original, _THUMBNAIL) for original in originals]
    pictures = zip(names, originals, normalized, small, looked, strict=True)
    return [
        Item(name, data_uri(original), data_uri(drawn), thumbnail=thumbnail, attention=looks)
        for name, original, drawn, thumbnail, looks in pictures
    ]


_THUMBNAIL = 72
"""Pixels of a small picture."""


def quickstart(
    faces: Mapping[str, Face],
    identities: Mapping[str, Callable[[Faces], Faces]],
    read: Callable[[Faces, Faces], pd.DataFrame],
    detector: Callable[[], Detector],
    size: int = 280,
    attention: Mapping[str, Callable[[Faces], Faces]] | None = None,
) -> ipywidgets.Widget:
    """A wipe as in `compare` with a choice of identity, the predictions for the face beside it, a
    button that saves both, and two ways to give a picture of your own: a file, or the camera.

    ``faces``: aligned ones (S, S, 3) by name. ``identities``: functions that normalize originals
    (N, S, S, 3), by the name of the identity. ``read``: from originals and normalized faces, a row
    for each with the columns of ``predictions.csv``. ``detector``: opens one; it is called at the
    first picture and not before. ``attention``: functions that show where in originals (N, S, S, 3)
    an identity's normalizer looks, as `attention_pictures` does, by the name of the identity; they
    may be missing. The widget shows why a picture cannot be taken.
    """
    attention = attention or {}
    originals = list(faces.values())
    picture = ipywidgets.HTML()
    face = ipywidgets.Dropdown(
        options=[(name, index) for index, name in enumerate(faces)], description="face"
    )
    identity = ipywidgets.Dropdown(options=list(identities), description="identity")
    upload = ipywidgets.FileUpload(accept="image/*", description="your picture")
    message = ipywidgets.HTML()
    bars = ipywidgets.HTML()
    save = ipywidgets.Button(description="save ...", layout={"width": "auto"})
    links = ipywidgets.HTML()
    opened = cache(detector)

    @cache
    def normalized_and_read(index: int, name: str) -> tuple[Face, pd.Series]:
        normalized = identities[name](originals[index][None])
        return normalized[0], read(originals[index][None], normalized).iloc[0]

    def show(_=None) -> None:
        normalized, row = normalized_and_read(face.value, identity.value)
        original = originals[face.value]
        looks = attention.get(identity.value)
        item = Item(
            face.options[face.value][0],
            data_uri(original),
            data_uri(normalized),
            attention=data_uri(looks(original[None])[0]) if looks else "",
        )
        picture.value = picture_as_html(item, size)
        bars.value = bars_as_html(row)
        links.value = ""  # they are of another face

    def offer(_) -> None:
        normalized, row = normalized_and_read(face.value, identity.value)
        table = row.to_frame().T.to_csv(index=False)
        links.value = saved((originals[face.value], normalized), table)

    def add(data: bytes, name: str) -> None:
        message.value = "looking for a face ..."
        try:
            originals.append(face_in(data, name, opened(), len(originals[0])))
        except NorfaceError as error:
            message.value = escape(str(error))
        else:
            message.value = ""
            face.options = (*face.options, (name, len(originals) - 1))
            face.value = len(originals) - 1

    def take(_) -> None:
        for file in upload.value:
            add(bytes(file["content"]), file["name"])
        upload.value = ()

    for control in (face, identity):
        control.observe(show, "value")
    upload.observe(take, "value")
    save.on_click(offer)
    show()
    views = ipywidgets.HTML(views_as_html())  # what is chosen stays with another face
    left = ipywidgets.VBox([picture, views, save, links], layout={"margin": "0 20px 0 0"})
    left.add_class(LOOK)
    pictures = ipywidgets.HBox([left, bars], layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox(
        [
            ipywidgets.HBox([face, identity, upload], layout={"flex_flow": "row wrap"}),
            camera(lambda data: add(data, "snapshot")),
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
