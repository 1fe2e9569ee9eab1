"""Bars of predictions: AU intensities and emotions of a face, as values and as HTML. Without
matplotlib, so that a command can write them where it is not installed."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from norface_lib import labels

STANDS_OUT, FAINT = "#4c9f9a", "#c9c9c9"
"""Colors of bars that stand out, and of others."""


class Bars(NamedTuple):
    """A few values of a ``unit``, from 0 to ``limit``, under a title; those that are ``dark`` stand
    out."""

    title: str
    unit: str
    limit: float
    names: Sequence[str]
    values: Sequence[float]
    dark: Sequence[bool]


def bars_of(row: Mapping[str, Any]) -> tuple[Bars, ...]:
    """Bars of a row with the columns of ``predictions.csv``: AU intensities, and probabilities of
    emotions; without those that the row does not have.

    Dark are AUs whose own probability is over 0.5, and the likeliest emotion.
    """
    aus = [name for name in row.keys() if f"{name}_intensity" in row]  # noqa: SIM118 (of a pandas row, too)
    named = [f"{name} {labels.AUS[int(name[2:])].name}" for name in aus]
    intensities = [float(row[f"{name}_intensity"]) for name in aus]
    au_bars = Bars(
        title="intensity of action units",
        unit="0 absent, 1 a trace, 5 maximum",
        limit=labels.INTENSITY_MAX,
        names=named,
        values=intensities,
        dark=[row[name] > 0.5 for name in aus],
    )

    emotions = [name for name in labels.EMOTIONS if name in row and "emotion" in row]
    likeliest = row["emotion"] if emotions else ""
    emotion_bars = Bars(
        title=f"emotion: {likeliest}",
        unit="probability",
        limit=1.0,
        names=emotions,
        values=[float(row[name]) for name in emotions],
        dark=[name == likeliest for name in emotions],
    )
    return tuple(bars for bars in (au_bars, emotion_bars) if bars.names)


def bars_as_html(row: Mapping[str, Any]) -> str:
    """The bars of `bars_of` a row as HTML: a figure takes ten times as long, which is felt while
    one plays with a control."""
    bars = "".join(map(_html_of, bars_of(row)))
    return f'<div style="display: flex; flex-wrap: wrap; gap: 8px 28px">{bars}</div>'


_GRID = (
    "display: grid; grid-template-columns: auto 120px 2.5em; gap: 4px 8px; align-items: center; "
    "line-height: 1.3; margin-top: 6px"
)
"""Style of three columns: name, bar, number."""


def _html_of(bars: Bars) -> str:
    lines = []
    for name, value, dark in zip(bars.names, bars.values, bars.dark, strict=True):
        width = min(100 * value / bars.limit, 100)
        style = f"display: block; height: 12px; width: {width:.1f}%; background: {shade(dark)}"
        lines += [
            f'<span style="text-align: right">{escape(name)}</span>',
            f'<span style="background: #8882; height: 12px"><span style="{style}"></span></span>',
            f"<span>{value:.2f}</span>",
        ]
    return f'<div><b>{escape(bars.title)}</b><div style="{_GRID}">{"".join(lines)}</div></div>'


def shade(dark: bool) -> str:
    """The color of a bar."""
    return STANDS_OUT if dark else FAINT
