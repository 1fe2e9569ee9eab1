"""A table of text, as markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

FORMATS = ("markdown", "csv", "latex")
"""What a table can be written as."""

SUFFIXES = {"markdown": ".md", "csv": ".csv", "latex": ".tex"}
"""File suffix of each format."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "->": r"$\to$",
    "<": r"$<$",
    ">": r"$>$",
}
_SIGNS = re.compile("|".join(map(re.escape, sorted(_LATEX, key=len, reverse=True))))
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_MARKS = re.compile(r"\*\*|`|\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table whose cells are text with markdown's marks for bold and code. ``name`` is that of its
    place in a document, ``notes`` are sentences below it."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"{self.name}: each row needs {len(self.header)} cells")

    def as_text(self, form: str) -> str:
        """The table in one of ``FORMATS``."""
        return {"markdown": self.markdown, "csv": self.csv, "latex": self.latex}[form]()

    def markdown(self) -> str:
        """A table of GitHub's markdown, and the notes."""
        lines = [_piped(self.header), "|" + "---|" * len(self.header)]
        lines += map(_piped, self.rows)
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def csv(self) -> str:
        """Comma-separated values without marks and notes."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([plain(cell) for cell in row] for row in (self.header, *self.rows))
        return text.getvalue()

    def latex(self) -> str:
        """A table for LaTeX with the package booktabs; notes are in the caption."""
        rows = [_tabbed(row) for row in self.rows]
        caption = _escaped(" ".join([f"{self.title}.", *self.notes]))
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
            r"\toprule",
            _tabbed(self.header),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{self.name}}}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Text without the marks for bold, code and links."""
    return _MARKS.sub(lambda match: match[1] or "", text)


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _tabbed(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    """Text for LaTeX: marks for bold become commands, other marks go."""
    parts = _BOLD.split(text)
    escaped = [_SIGNS.sub(lambda match: _LATEX[match[0]], plain(part)) for part in parts]
    # every second part was bold
    return "".join(
        rf"\textbf{{{part}}}" if number % 2 else part for number, part in enumerate(escaped)
    )


def with_interval(value: float, interval: Sequence[float] | None, digits: int = 3) -> str:
    """``0.660 [0.649, 0.670]``, without an interval the value alone."""
    text = f"{value:.{digits}f}"
    if interval is None:
        return text
    low, high = interval
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def signed(value: float, *intervals: Sequence[float] | None, digits: int = 3) -> str:
    """A difference with its sign and those of its intervals; bold if all intervals leave out
    zero."""
    known = [interval for interval in intervals if interval is not None]
    text = f"{value:+.{digits}f}"
    text += "".join(f" [{low:+.{digits}f}, {high:+.{digits}f}]" for low, high in known)
    sure = known and all(low > 0 or high < 0 for low, high in known)
    return f"**{text}**" if sure else text
