"""A wipe between an original and its normalized face, and galleries of them, as HTML that needs no
kernel. In place of the normalized face can be shown how far it differs from the original, or where
in the original the normalizer looked.

The control is a range input that lies over the pictures: the browser gives it pointer, touch and
keys (arrows, Page Up and Down, Home, End) and the role of a slider. What it moves is a CSS
variable, by an attribute ``oninput``, which also runs where a ``<script>`` does not: in the value
of an ``ipywidgets.HTML``. So one text works as a notebook's output, in a widget, in an exported
page and in a page of its own. Where scripts are stripped, both pictures are seen, each on one half;
where styles are stripped, too, as in a notebook that is not trusted, one after the other.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from norface_lib.viz.bars import bars_as_html

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB of 8 bits."""

VIEWS = {
    "normalized": "the normalized face",
    "difference": "absolute difference of original and normalized face; black: none",
    "attention": "where in the original the normalizer looked for what it drew; red: most",
}
"""What can be left of the border, and what that is."""

_STYLE = """
.norface-wipe { position: relative; isolation: isolate; max-width: 100%; aspect-ratio: 1;
  overflow: hidden; border-radius: 4px; user-select: none; }
.norface-wipe img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
  object-fit: cover; }
.norface-wipe img + img { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.norface-wipe input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
  padding: 0; opacity: 0; cursor: ew-resize; touch-action: pan-y; appearance: none;
  -webkit-appearance: none; }
.norface-wipe input::-webkit-slider-runnable-track { height: 100%; }
.norface-wipe input::-webkit-slider-thumb { -webkit-appearance: none; width: 1px; height: 100%; }
.norface-wipe input::-moz-range-thumb { width: 1px; height: 100%; border: 0; }
.norface-wipe i { position: absolute; top: 0; bottom: 0; left: calc(var(--at) - 1px); width: 2px;
  background: #fff; box-shadow: 0 0 3px #000a; pointer-events: none; }
.norface-wipe i::after { content: "\\2194"; position: absolute; top: calc(50% - 12px); left: -11px;
  width: 24px; font: 16px/24px sans-serif; text-align: center; color: #222; background: #fff;
  border-radius: 50%; box-shadow: 0 0 3px #000a; }
.norface-wipe b { position: absolute; bottom: 6px; padding: 1px 6px; color: #fff;
  background: #000a; border-radius: 3px; font: 12px/1.4 sans-serif; pointer-events: none; }
.norface-wipe b { left: 6px; }
.norface-wipe b:last-of-type { left: auto; right: 6px; }
.norface-wipe [data-view="difference"], .norface-wipe [data-view="attention"] { display: none; }
.norface-look:has([value="difference"]:checked) .norface-wipe b[data-view="normalized"],
.norface-look:has([value="attention"]:checked) .norface-looked [data-view="normalized"],
.norface-look:not(:has(.norface-looked)) .norface-views label:has([value="attention"])
  { display: none; }
.norface-look:has([value="difference"]:checked) .norface-wipe [data-view="difference"],
.norface-look:has([value="attention"]:checked) .norface-looked [data-view="attention"]
  { display: block; }
.norface-look:has([value="difference"]:checked) .norface-wipe img + img
  { mix-blend-mode: difference; }
.norface-views { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 6px 0;
  font: 13px/1.4 sans-serif; }
.norface-views label { cursor: pointer; }
.norface-views input { margin: 0 5px 0 0; vertical-align: -1px; }
.norface-wipe u { position: absolute; inset: 0; pointer-events: none; }
.norface-wipe input:focus-visible ~ u { box-shadow: inset 0 0 0 3px #1a73e8, inset 0 0 0 5px #fff; }
"""

_GALLERY = """
.norface-choice { display: flex; flex-wrap: wrap; gap: 8px; max-height: 330px; overflow: auto;
  padding: 4px; margin-bottom: 10px; }
.norface-choice label { position: relative; width: 72px; cursor: pointer; text-align: center;
  font: 11px/1.3 sans-serif; overflow-wrap: anywhere; }
.norface-choice input { position: absolute; opacity: 0; margin: 0; }
.norface-choice img { display: block; width: 72px; height: 72px; margin: 0; object-fit: cover;
  border-radius: 4px; }
.norface-choice label:has(:checked) img { outline: 3px solid #4c9f9a; }
.norface-choice label:has(:focus-visible) img { outline: 3px solid #1a73e8; }
.norface-shown > div { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
.norface-shown details { flex-basis: 100%; }
"""

_SAY = (
    "const view=this.closest('.norface-look').querySelector('[name=view]:checked').value,"
    "known=view!='attention'||this.parentNode.classList.contains('norface-looked');"
    "this.setAttribute('aria-valuetext',this.value+' % '+(known?view:'normalized'))"
)
"""What a screen reader says of the slider. It follows the view, so it is set again on focus."""

_MOVE = f"this.parentNode.style.setProperty('--at',this.value+'%');{_SAY}"


class Item(NamedTuple):
    """A face of a gallery: its name, the addresses of its pictures (a relative path, or what
    `data_uri` gives), and its row of ``predictions.csv``, if it has one.

    ``normalized``: empty for a face without one. ``thumbnail``: a small picture, by default the
    original. ``more``: HTML that follows the bars. ``attention``: where the normalizer looked,
    empty if that is not known.
    """

    name: str
    original: str
    normalized: str = ""
    row: Mapping[str, Any] | None = None
    thumbnail: str = ""
    more: str = ""
    attention: str = ""


def png(image: Picture, size: int = 0) -> bytes:
    """An image as PNG, enlarged or shrunk to ``size`` pixels along a side unless that is 0."""
    if size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def data_uri(image: Picture, size: int = 0, quality: int = 92) -> str:
    """The address of an image that holds the image itself, as JPEG. ``size``: pixels along a side
    of a square one that is shrunk; 0 leaves it as it is."""
    if size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    jpeg = cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def wipe_as_html(item: Item, size: int = 280) -> str:
    """The normalized face of an item over its original, with a border that is dragged on the
    picture itself or moved by keys, and below it a choice of what is left of the border.

    ``size``: CSS pixels along a side.
    """
    return f'<div class="{LOOK}">{picture_as_html(item, size)}{views_as_html()}</div>'


LOOK = "norface-look"
"""Class of what holds a wipe and the choice of what is left of its border."""


def picture_as_html(item: Item, size: int = 280) -> str:
    """A wipe as in `wipe_as_html`, without the choice: it stays while the picture is replaced, if
    something of the class `LOOK` holds this and `views_as_html`."""
    return f"<style>{_STYLE}</style>{_wipe(item, size)}"


def views_as_html() -> str:
    """A choice of what is left of the border; attention only where it is known."""
    return f"<form {_OWN_KEYS}>{_VIEWS}</form>"


def _wipe(item: Item, size: int) -> str:
    """The pictures over each other, the slider and what it moves."""
    name = escape(item.name)
    original = f'<img src="{escape(item.original)}" alt="{name}, original" loading="lazy">'
    pictures = {"normalized": item.normalized, "attention": item.attention}
    above = "".join(
        f'<img src="{escape(address)}" data-view="{view}" alt="{name}, {view}" loading="lazy">'
        for view, address in pictures.items()
        if address
    )
    control = (
        f'<input type="range" min="0" max="100" value="50" '
        f'aria-label="{name}: border between normalized (left) and original (right)" '
        f'aria-valuetext="50 % normalized" oninput="{_MOVE}" onfocus="{_SAY}" {_NOT_RESTORED}>'
    )
    words = "".join(f'<b aria-hidden="true" data-view="{view}">{view}</b>' for view in VIEWS)
    signs = f'<i></i>{words}<b aria-hidden="true">original</b><u></u>'
    kind = "norface-wipe norface-looked" if item.attention else "norface-wipe"
    style = f"--at:50%;width:{size}px"
    return (
        f'<div class="{kind}" style="{style}" {_OWN_KEYS}>{original}{above}{control}{signs}</div>'
    )


_NOT_RESTORED = 'autocomplete="off"'
"""Browsers give controls their last values back when a page is loaded again or returned to, but not
what the values moved: the border would stand at one place and its slider at another."""

_CHOICE = "".join(
    f'<label title="{meaning}"><input type="radio" name="view" value="{view}"'
    f"{' checked' if view == 'normalized' else ''} {_NOT_RESTORED}>{view}</label>"
    for view, meaning in VIEWS.items()
)
_VIEWS = (
    f'<div class="norface-views" role="radiogroup" aria-label="left of the border">{_CHOICE}</div>'
)
"""The choice of a view, to stand in a form of its own or in that of a gallery."""


_OWN_KEYS = 'data-lm-suppress-shortcuts="true"'
"""JupyterLab takes the arrows for its own otherwise."""


def gallery_as_html(items: Sequence[Item], size: int = 280) -> str:
    """Faces to click through: small pictures, and below them the chosen face with its wipe, its
    bars and what else is given. Choosing needs no script, but a browser that knows ``:has`` (from
    2023 on); another one shows all faces."""
    choice = []
    for number, item in enumerate(items):
        small = escape(item.thumbnail or item.original)
        checked = " checked" if number == 0 else ""
        choice.append(
            f'<label><input type="radio" name="face"{checked}>'
            f'<img src="{small}" alt="" loading="lazy">{escape(item.name)}</label>'
        )
    # of as many faces as there are: the numbers of all galleries of a page agree
    hidden = "".join(
        f".norface-gallery:has(.norface-choice > :nth-child({number}) :checked) "
        f".norface-shown > :not(:nth-child({number})) {{ display: none; }}\n"
        for number in range(1, len(items) + 1)
    )
    shown = "".join(f"<div>{_shown(item, size)}</div>" for item in items)
    views = _VIEWS if any(item.normalized for item in items) else ""
    return (
        f"<style>{_STYLE}{_GALLERY}{hidden}</style>"
        f'<form class="norface-gallery {LOOK}" {_OWN_KEYS}>'
        f'<div class="norface-choice">{"".join(choice)}</div>{views}'
        f'<div class="norface-shown">{shown}</div></form>'
    )


def _shown(item: Item, size: int) -> str:
    """The chosen face of a gallery."""
    if item.normalized:
        picture = _wipe(item, size)
    else:
        address, name = escape(item.original), escape(item.name)
        picture = f'<img src="{address}" alt="{name}, original" width="{size}" loading="lazy">'
    bars = "" if item.row is None else bars_as_html(item.row)
    return f"{picture}{bars}{item.more}"


def links_as_html(files: Mapping[str, bytes]) -> str:
    """Links that save files, by name, from the page itself."""
    style = "margin-right: 14px; text-decoration: underline"
    return "".join(
        f'<a style="{style}" download="{escape(name)}" href="data:application/octet-stream;base64,'
        f'{base64.b64encode(content).decode()}">save {escape(name)}</a>'
        for name, content in files.items()
    )
