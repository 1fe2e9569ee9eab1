"""The report on a dataset's folder: frames, what was dropped and why, and what is odd."""

from dataclasses import dataclass, field

from norface_lib.common.errors import without_addresses

_EXAMPLES = 3


@dataclass
class Report:
    """Counts of a dataset's folder: ``found``; left out, by reason: ``dropped``; kept but odd:
    ``noted``; files that no rule of the dataset reads, by kind: ``unused``; how frames are
    counted, and why: ``counting``.

    ``print(report)`` shows the counts, with a few examples of each reason.
    """

    title: str
    found: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)
    counting: list[str] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, example: object, count: int = 1) -> None:
        """Counts what was left out."""
        self._count(self.dropped, reason, example, count)

    def note(self, reason: str, example: object, count: int = 1) -> None:
        """Counts what was kept, or never belonged to the data, and should be known."""
        self._count(self.noted, reason, example, count)

    def leave(self, kind: str, example: object, count: int = 1) -> None:
        """Counts files that no rule of the dataset reads."""
        self._count(self.unused, kind, example, count)

    def reasons(self) -> str:
        """What was dropped, noted and not used, with one example each, in one line; empty if
        nothing was."""
        counts = self.dropped | self.noted | self.unused
        return "; ".join(
            f"{count} x {reason}, such as {self.examples[reason][0]}"
            for reason, count in counts.items()
        )

    def _count(self, counts: dict[str, int], reason: str, example: object, count: int) -> None:
        if count <= 0:
            return
        counts[reason] = counts.get(reason, 0) + count
        examples = self.examples.setdefault(reason, [])
        # a name on disk need not be text
        text = without_addresses(str(example)).encode("utf-8", "replace").decode()
        if len(examples) < _EXAMPLES and text not in examples:
            examples.append(text)

    def __str__(self) -> str:
        lines = [
            f"{self.title}: "
            + (", ".join(f"{count:,} {what}" for what, count in self.found.items()) or "nothing")
        ]
        lines += self.counting
        tables = {"dropped": self.dropped, "noted": self.noted, "not used": self.unused}
        for head, counts in tables.items():
            lines += [f"{head}:"] if counts else []
            for reason, count in counts.items():
                lines.append(f"  {count:>9,}  {reason} ({'; '.join(self.examples[reason])})")
        return "\n".join(lines)
