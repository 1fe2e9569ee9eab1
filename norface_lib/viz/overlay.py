"""Predictions over the image that they are of: box, emotion, bars of AUs, and the normalized face
beside it. With Pillow and OpenCV, as a frame of a video should cost milliseconds.

Rows have the columns of ``predictions.csv``: ``AU12`` is a probability 0..1, ``AU12_intensity``
0..5. Images are (H, W, 3) RGB of 8 bits.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from norface_lib.labels import AUS, EMOTIONS, INTENSITY_MAX

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB of 8 bits."""

COLORS = ((255, 196, 0), (64, 196, 255), (255, 112, 146), (110, 220, 130), (190, 150, 255))
"""Of the faces of one image, in turn."""

CARD = (440, 262)
"""Width and height of what is shown beside the image for each face, in pixels."""

MOST_CARDS = 16
"""Faces with a card of their own; the boxes of others are drawn all the same."""

MOST_BARS = 12
"""AUs with a bar on a card."""

_BACKGROUND = (24, 26, 30)
_TRACK = (52, 56, 62)
_TEXT = (238, 238, 238)
_FAINT = (150, 154, 162)
_SHORTEST = 540
_LARGEST = (1600, 1080)
"""Width and height of a shown image at most; ``_SHORTEST``: its height at least, if its width
allows."""


class Reading(NamedTuple):
    """A face to show: its row of ``predictions.csv``, and its normalized image (S, S, 3)."""

    row: Mapping[str, Any]
    normalized: Picture | None = None


class Layout(NamedTuple):
    """Places in an overlay: width and height of the image in it, whether cards stand below the
    image, and how many there are side by side and in all."""

    size: tuple[int, int]
    below: bool
    columns: int
    cards: int

    @property
    def canvas(self) -> tuple[int, int]:
        """Width and height of the whole, both even, as videos need."""
        rows = -(-self.cards // self.columns)
        width, height = self.size
        if self.below:
            whole = (max(width, self.columns * CARD[0]), height + rows * CARD[1])
        else:
            whole = (width + self.columns * CARD[0], max(height, rows * CARD[1]))
        return whole[0] + whole[0] % 2, whole[1] + whole[1] % 2

    def card(self, number: int) -> tuple[int, int]:
        """Left and top of a card."""
        row, column = divmod(number, self.columns)
        left = column * CARD[0] + (0 if self.below else self.size[0])
        return left, row * CARD[1] + (self.size[1] if self.below else 0)


def layout_of(width: int, height: int, faces: int) -> Layout:
    """The layout for images of this size with at most so many faces. Small images are enlarged,
    large ones shrunk, so that cards can be read beside them at full size."""
    scale = max(1.0, _SHORTEST / height)
    scale = min(scale, _LARGEST[0] / width, _LARGEST[1] / height)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    cards = min(max(1, faces), MOST_CARDS)
    if size[0] > 2 * size[1]:
        return Layout(size, True, max(1, min(cards, size[0] // CARD[0])), cards)
    return Layout(size, False, -(-cards // max(1, size[1] // CARD[1])), cards)


def overlay(image: Picture, readings: Sequence[Reading], layout: Layout | None = None) -> Picture:
    """An image with the boxes of its faces, and a card for each beside it: emotion, normalized
    face, and bars of its AUs.

    ``readings``: rows with the box ``x0``, ``y0``, ``x1``, ``y1`` in pixels of the image; values
    that are missing are left out. ``layout``: default that of this image; frames of a video need
    one for all.
    """
    height, width = image.shape[:2]
    layout = layout or layout_of(width, height, len(readings))
    canvas = np.full((*layout.canvas[::-1], 3), _BACKGROUND, np.uint8)
    shrinks = layout.size[0] < width
    shown = cv2.resize(
        image, layout.size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    canvas[: layout.size[1], : layout.size[0]] = shown

    scale = layout.size[0] / width
    for number, reading in enumerate(readings):
        _box(canvas[: layout.size[1], : layout.size[0]], reading.row, number, scale)
    for number, reading in enumerate(readings[: layout.cards]):
        left, top = layout.card(number)
        _card(canvas[top : top + CARD[1], left : left + CARD[0]], reading, number)
    if not readings:
        left, top = layout.card(0)
        _write(canvas[top:, left:], "no face", (18, 14), 18, _FAINT)
    if len(readings) > layout.cards:
        words = f"and {len(readings) - layout.cards} more faces without a card"
        _write(canvas, words, (12, layout.size[1] - 28), 16, _TEXT)
    return canvas


def _name(row: Mapping[str, Any], number: int) -> str:
    """Number of a face as the table has it: its track in a video, else counted from 0."""
    for column in ("track", "face"):
        value = row.get(column)
        if value is not None and value == value and value != "":
            return str(int(float(value)))
    return str(number)


def _emotion(row: Mapping[str, Any]) -> str:
    emotion = row.get("emotion")
    if not isinstance(emotion, str) or not emotion:
        return ""
    return f"{emotion} {100 * float(row[emotion]):.0f} %" if emotion in row else emotion


def _box(canvas: Picture, row: Mapping[str, Any], number: int, scale: float) -> None:
    corners = np.array([row.get(name, np.nan) for name in ("x0", "y0", "x1", "y1")], float)
    if not np.isfinite(corners).all():
        return
    x0, y0, x1, y1 = np.round(scale * corners).astype(int)
    color = COLORS[number % len(COLORS)]
    cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 2, cv2.LINE_AA)

    words = f"{_name(row, number)}  {_emotion(row)}".strip()
    mask = _mask(words, 16)
    height, width = mask.shape
    left = int(np.clip(x0 - 1, 0, max(0, canvas.shape[1] - width - 10)))
    top = y0 - height - 7
    top = int(np.clip(top if top >= 0 else y1 + 1, 0, max(0, canvas.shape[0] - height - 6)))
    canvas[top : top + height + 6, left : left + width + 10] = color
    _write(canvas, words, (left + 5, top + 3), 16, (16, 16, 16))


def _card(card: Picture, reading: Reading, number: int) -> None:
    """Fills the card of a face."""
    row = reading.row
    color = COLORS[number % len(COLORS)]
    card[6:-6, 4:8] = color
    _write(card, f"{_name(row, number)}  {_emotion(row)}", (18, 10), 19, _TEXT)

    face = reading.normalized
    if face is not None:
        side = 124
        card[44 : 44 + side, 18 : 18 + side] = cv2.resize(face, (side, side))
        _write(card, "normalized", (18, 44 + side + 3), 13, _FAINT)
    likely = sorted((name for name in EMOTIONS if _number(row, name) is not None), key=row.get)
    for place, name in enumerate(reversed(likely[-3:])):
        top = 194 + 19 * place
        _bar(card[top + 3 : top + 14, 92:142], float(row[name]), color if place == 0 else _FAINT)
        _write(card, name, (18, top), 13, _TEXT if place == 0 else _FAINT)
    _au_bars(card[38:, 158:], row, color)


def _au_bars(card: Picture, row: Mapping[str, Any], color: tuple[int, int, int]) -> None:
    """Bars of the ``MOST_BARS`` strongest AUs, as long as the intensity, else as the probability;
    in color if the probability is over 0.5."""
    lengths = {}
    for column in (f"AU{number:02d}" for number in AUS):
        probability = _number(row, column)
        intensity = _number(row, f"{column}_intensity")
        if intensity is not None:
            lengths[column] = intensity / INTENSITY_MAX
        elif probability is not None:
            lengths[column] = probability

    strongest = sorted(lengths, key=lengths.get, reverse=True)[:MOST_BARS]
    for place, column in enumerate(sorted(strongest)):
        top = 18 * place
        probability = _number(row, column)
        intensity = _number(row, f"{column}_intensity")
        length = lengths[column]
        sure = length > 0.2 if probability is None else probability > 0.5
        _bar(card[top + 3 : top + 14, 160:226], length, color if sure else _FAINT)
        text = _TEXT if sure else _FAINT
        _write(card, f"{column[2:]} {AUS[int(column[2:])].name}", (0, top), 13, text)
        value = f"{probability:.2f}" if intensity is None else f"{intensity:.1f}"
        _write(card, value, (234, top), 13, text)


def _number(row: Mapping[str, Any], column: str) -> float | None:
    """A value of a row; None if it is missing."""
    value = row.get(column)
    if value is None or isinstance(value, str) or value != value:
        return None
    return float(value)


def _bar(area: Picture, share: float, color: tuple[int, int, int]) -> None:
    area[:] = _TRACK
    area[:, : round(float(np.clip(share, 0, 1)) * area.shape[1])] = color


# --- text -----------------------------------------------------------------------------------------


def _write(
    canvas: Picture, words: str, place: tuple[int, int], size: int, color: tuple[int, int, int]
) -> None:
    """Writes words with their upper left corner at a place (x, y); cuts what lies outside."""
    left, top = place
    area = canvas[top:, left:]
    mask = _mask(words, size)[: area.shape[0], : area.shape[1]]
    area = area[: mask.shape[0], : mask.shape[1]]
    area[:] = area + mask[..., None] * (np.array(color, np.float32) - area)


@lru_cache(maxsize=2048)
def _mask(words: str, size: int) -> NDArray[np.float32]:
    """How much of each pixel some words cover, (H, W) in 0..1; kept, as frames repeat them."""
    font = _font(size)
    ascent, descent = font.getmetrics()
    image = Image.new("L", (max(1, int(font.getlength(words)) + 2), ascent + descent))
    ImageDraw.Draw(image).text((0, 0), words, fill=255, font=font)
    return np.asarray(image, np.float32) / 255


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
