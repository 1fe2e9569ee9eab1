"""The explorer: a rendered face whose AUs are moved by hand, and what the networks make of it."""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from norface_lib import labels
from norface_lib.common.errors import needs
from norface_lib.faces.sampling import Frame, Person, sample_face, sample_intensities
from norface_lib.faces.scene import Camera, Light
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import resized
from norface_lib.networks.inference import normalize_faces
from norface_lib.networks.weights import load_normalizer, target_names
from norface_lib.photos.readers import READERS, load_reader, read_table
from norface_lib.viz.bars import bars_as_html
from norface_lib.viz.exports import saved
from norface_lib.viz.wipe import Picture, png

with needs("notebooks"):
    import ipywidgets

READ_BY = {
    "token reader, of the original": READERS,
    "classifiers, of both faces": ("tiny-au", "tiny-intensity", "tiny-emotion"),
}
"""What the explorer can read with: shipped weights by what they are."""

_SCENE = {"yaw": (0.0, 0.8, 0.05), "pitch": (0.0, 0.4, 0.05), "lamp": (0.35, 1.5, 0.05)}
"""Angles in radians: default, largest to either side, step."""

_WIDE = {"style": {"description_width": "13.4em"}, "layout": {"width": "322px"}}
"""Of sliders: room for the longest name of an AU."""

_OWN = "your own"


class Pose(NamedTuple):
    """What the explorer's controls say: the person's number, AU intensities 0..5 of the left and
    the right side (AU number -> value), and angles in radians."""

    person: int
    left: Mapping[int, float]
    right: Mapping[int, float]
    yaw: float = 0.0
    pitch: float = 0.0
    lamp: float = 0.35


class Seen(NamedTuple):
    """The rendered face, its true normalized image and the network's, each (S, S, 3), and what was
    read: a row with the columns of ``predictions.csv``."""

    rendered: Picture
    truth: Picture
    normalized: Picture
    row: pd.Series


class Explorer:
    """Renders a pose, normalizes it, and reads it. ``size``: pixels along a side of the rendered
    images; ``weights``: a normalizer, shipped or a path."""

    def __init__(self, size: int = 224, weights: str = "tiny"):
        self.normalizer, self.target, card = load_normalizer(weights)
        self.studio = Studio(size, target_names(card)[0])
        self.person = lru_cache(maxsize=8)(
            lambda number: sample_face(np.random.default_rng(number))
        )
        self.readers = cache(lambda kind: [load_reader(name) for name in READ_BY[kind]])

    def look(self, pose: Pose, kind: str = next(iter(READ_BY))) -> Seen:
        """All that is to be seen of a pose, read by a ``kind`` of ``READ_BY``."""
        left, right = _shown(pose.left), _shown(pose.right)
        rendered = portrait(
            self.studio, self.person(pose.person), left, pose.yaw, pose.pitch, pose.lamp, right
        )
        original = resized(rendered[None], self.normalizer.config.encoder.image_size)
        normalized = normalize_faces(self.normalizer, self.target, original)
        row = read_table(self.readers(kind), original, normalized).iloc[0]
        return Seen(rendered, self.studio.normalized(left, right), normalized[0], row)


def portrait(
    studio: Studio,
    person: Person,
    intensities: Mapping[int, float],
    yaw: float = 0.0,
    pitch: float = 0.0,
    lamp: float = 0.35,
    right: Mapping[int, float] | None = None,
) -> Picture:
    """A person with AU intensities (number -> 0..5) before a gray wall: (S, S, 3). Angles and the
    lamp's side in radians. ``right``: intensities of the right side, if they differ."""
    left = _shown(intensities)
    right = left if right is None else _shown(right)
    light = Light(direction=(float(np.sin(lamp)), 0.5, float(np.cos(lamp))))
    return studio.plain(
        person, Frame(left, right, "", "lab", (0.0, 0.0), Camera(yaw=yaw, pitch=pitch), light)
    )


def _shown(intensities: Mapping[int, float]) -> dict[int, float]:
    return {au: value for au, value in intensities.items() if value}


def as_csv(pose: Pose, row: Mapping[str, Any]) -> str:
    """A line for each AU: what was posed on each side, and what was read of it, if it was."""
    table = pd.DataFrame(
        {
            "AU": labels.au_column(number),
            "name": unit.name,
            "posed_left": pose.left.get(number, 0.0),
            "posed_right": pose.right.get(number, 0.0),
            "read_probability": row.get(unit.column),
            "read_intensity": row.get(f"{unit.column}_intensity"),
        }
        for number, unit in labels.AUS.items()
    )
    return table.to_csv(index=False)


def explore(size: int = 224, weights: str = "tiny") -> ipywidgets.Widget:
    """A rendered face to play with: sliders for every AU, presets of the emotions, the person, the
    head's pose and the lamp. Beside it, anew at each change, its true normalized image, that of the
    normalizer ``weights``, and what a reader reads. ``size``: pixels of the rendered images."""
    return _Controls(Explorer(size, weights)).box


class _Controls:
    """The controls of an explorer, and what they show."""

    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self.silent = False  # while several controls are set at once
        self.person = ipywidgets.IntSlider(2, 0, 99, description="person", **_WIDE)
        self.scene = {name: _angle(name, *numbers) for name, numbers in _SCENE.items()}
        self.aus = {number: _au_slider(number) for number in labels.AUS}
        self.side = ipywidgets.Dropdown(
            options=("both", "left", "right"), description="side", layout={"width": "150px"}
        )
        self.preset = ipywidgets.Dropdown(
            options=(_OWN, *labels.EMOTIONS),
            value="neutral",
            description="expression",
            layout={"width": "220px"},
        )
        self.kind = ipywidgets.Dropdown(options=list(READ_BY), description="read by")
        self.buttons = [
            _button("reset", "no AU, and pose and light as at first", self.reset),
            _button("random", "a random set of AUs, as often as people show them", self.random),
            _button("save ...", "links that save this comparison and its AUs", self.save),
        ]
        self.links = ipywidgets.HTML()
        self.bars = ipywidgets.HTML()
        self.pictures = [ipywidgets.Image(format="png", width=200, height=200) for _ in range(3)]
        self.box = self._laid_out()
        self._observe()
        self.show()

    def _observe(self) -> None:
        for slider in (*self.aus.values(), self.side):
            slider.observe(self._by_hand, "value")
        for control in (self.person, *self.scene.values(), self.kind):
            control.observe(self.show, "value")
        self.preset.observe(self._take_preset, "value")

    def _laid_out(self) -> ipywidgets.Widget:
        captions = ("rendered", "true normalized face", "the network's")
        faces = [
            ipywidgets.VBox([ipywidgets.HTML(caption), picture])
            for caption, picture in zip(captions, self.pictures, strict=True)
        ]
        upper = [part for name in labels.REGIONS if name != "mouth" for part in self._region(name)]
        scene = [ipywidgets.HTML("<b>head and lamp</b>"), self.person, *self.scene.values()]
        columns = [ipywidgets.VBox([*upper, *scene]), ipywidgets.VBox(self._region("mouth"))]
        left = [_row(faces), _row([self.preset, self.side, *self.buttons]), self.links]
        right = [self.kind, self.bars]
        return _row(
            [
                ipywidgets.VBox([*left, _row(columns)], layout={"width": "660px"}),
                ipywidgets.VBox(right, layout={"width": "380px"}),
            ]
        )

    def _region(self, name: str) -> list[ipywidgets.Widget]:
        title = ipywidgets.HTML(f"<b>{name}</b>")
        return [title, *(self.aus[number] for number in labels.REGIONS[name])]

    @property
    def pose(self) -> Pose:
        """What the controls say. An AU whose sides cannot move apart is there on both."""
        whole = {number: slider.value for number, slider in self.aus.items()}
        half = {number: whole[number] * (not labels.AUS[number].sided) for number in whole}
        left = half if self.side.value == "right" else whole
        right = half if self.side.value == "left" else whole
        angles = {name: slider.value for name, slider in self.scene.items()}
        return Pose(self.person.value, left, right, **angles)

    def show(self, _: object = None) -> None:
        """Draws and reads what the controls say."""
        if self.silent:
            return
        self.seen = self.explorer.look(self.pose, self.kind.value)
        for picture, image in zip(self.pictures, self.seen[:3], strict=True):
            picture.value = png(image)
        self.bars.value = bars_as_html(self.seen.row)
        self.links.value = ""  # they are of another face

    def _set(self, intensities: Mapping[int, float], side: str, preset: str) -> None:
        self.silent = True
        try:
            for number, slider in self.aus.items():
                slider.value = round(2 * intensities.get(number, 0.0)) / 2
            self.side.value = side
            self.preset.value = preset
        finally:
            self.silent = False
        self.show()

    def _by_hand(self, _: object) -> None:
        if not self.silent:
            self.silent = True
            self.preset.value = _OWN
            self.silent = False
            self.show()

    def _take_preset(self, change: Mapping[str, Any]) -> None:
        emotion = change["new"]
        if not self.silent and emotion != _OWN:
            side = "left" if emotion == "contempt" else "both"
            self._set(labels.typical(emotion), side, emotion)

    def reset(self, _: object) -> None:
        """No AU, and pose and light as at first; the person stays."""
        self.silent = True
        for name, slider in self.scene.items():
            slider.value = _SCENE[name][0]
        self._set({}, "both", "neutral")

    def random(self, _: object) -> None:
        """A random set of AUs, which is not empty."""
        shown: dict[int, float] = {}
        while not shown:
            shown = sample_intensities(np.random.default_rng())[0]
        self._set(shown, "both", _OWN)

    def save(self, _: object) -> None:
        """Shows links that save the pictures and the AUs."""
        self.links.value = saved(self.seen[:3], as_csv(self.pose, self.seen.row))


def _row(parts: Sequence[ipywidgets.Widget]) -> ipywidgets.Widget:
    return ipywidgets.HBox(parts, layout={"flex_flow": "row wrap", "overflow": "visible"})


def _button(name: str, tooltip: str, action) -> ipywidgets.Button:
    button = ipywidgets.Button(description=name, tooltip=tooltip, layout={"width": "auto"})
    button.on_click(action)
    return button


def _angle(name: str, default: float, largest: float, step: float) -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(
        default, min=-largest, max=largest, step=step, description=name, **_WIDE
    )


def _au_slider(number: int) -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(
        0.0,
        min=0,
        max=labels.INTENSITY_MAX,
        step=0.5,
        description=f"AU{number} {labels.AUS[number].name}",
        readout_format=".1f",
        **_WIDE,
    )
