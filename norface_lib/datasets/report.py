"""The report on a dataset's folder: frames, what was dropped and why, and what is odd."""

from dataclasses import dataclass, field

_EXAMPLES = 3


@dataclass
class Report:
    """Counts of a dataset's folder: ``found``; left out, by reason: ``dropped``; kept but odd:
    ``noted``.

    ``print(report)`` shows the counts, with a few examples of each reason.
    """

    title: str
    found: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, example: object, count: int = 1) -> None:
        """Counts what was left out."""
        self._count(self.dropped, reason, example, count)

    def note(self, reason: str, example: object, count: int = 1) -> None:
        """Counts what was kept, or never belonged to the data, and should be known."""
        self._count(self.noted, reason, example, count)

    def _count(self, counts: dict[str, int], reason: str, example: object, count: int) -> None:
        if count <= 0:
            return
        counts[reason] = counts.get(reason, 0) + count
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES and str(example) not in examples:
            examples.append(str(example))

    def __str__(self) -> str:
        lines = [
            f"{self.title}: "
            + (", ".join(f"{count:,} {what}" for what, count in self.found.items()) or "nothing")
        ]
        for head, counts in (("dropped", self.dropped), ("noted", self.noted)):
            lines += [f"{head}:"] if counts else []
            for reason, count in counts.items():
                lines.append(f"  {count:>9,}  {reason} ({'; '.join(self.examples[reason])})")
        return "\n".join(lines)
