"""The result files of a checkout: each is read as it was written, and nothing is typed by hand."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from norface_lib.common.errors import DataError

PROFILES = ("full", "quick")
"""Profiles whose result files are tracked, the one to quote first."""

REAL = "real"
"""Folder of result files of `train` on real datasets, below that of the results."""


@dataclass(frozen=True)
class ResultFile:
    """A result file: its path, as it is shown, and its content."""

    path: str
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the file without folder and ending."""
        return PurePosixPath(self.path).stem

    @property
    def result(self) -> Mapping[str, Any]:
        """What was measured."""
        return self.content["result"]

    @property
    def how(self) -> str:
        """The file and how many trainings its numbers are the mean of."""
        seeds = self.content.get("seed")
        count = len(seeds) if isinstance(seeds, list) else 1
        return f"`{self.path}`, {count} seed{'s' * (count > 1)}"


@dataclass(frozen=True)
class ResultFiles:
    """The result files below a folder, by default those of the repository."""

    root: Path

    def of_profile(self, name: str) -> ResultFile | None:
        """The file that a notebook wrote, of the first of ``PROFILES`` that has it, or None."""
        for profile in PROFILES:
            if found := self.file(f"{profile}/{name}.json"):
                return found
        return None

    def file(self, name: str) -> ResultFile | None:
        """A file by its path below the folder, or None if it is not there.

        Raises :class:`DataError` for a file that is no result.
        """
        path = self.root / name
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content["result"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: no readable result file; delete it, or run the command again that wrote "
                "it"
            ) from error
        return ResultFile(f"results/{name}", content)

    def matching(self, pattern: str) -> list[ResultFile]:
        """Files whose path below the folder matches a pattern, in order of their names."""
        names = sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))
        return [found for name in names if (found := self.file(name))]

    @cached_property
    def real(self) -> dict[tuple[str, str, str], ResultFile]:
        """Results of `train` on real datasets by task, dataset and tested dataset (empty if it is
        the same); of several the one whose name comes last. ``affectnet7`` is AffectNet with seven
        classes."""
        found = {}
        for file in self.matching(f"{REAL}/*.json"):
            try:
                settings = file.content["settings"]["experiment"]
                seven = (settings.get("options") or {}).get("classes") == 7
                name = "affectnet7" if seven else settings["data"]
                key = (settings["task"], name, settings.get("test_data") or "")
            except (KeyError, TypeError) as error:
                raise DataError(
                    f"{file.path}: was not written by `train`; put a result.json of that command "
                    "there"
                ) from error
            if "rendered" in key or not all(isinstance(name, str) for name in key):
                raise DataError(
                    f"{file.path}: is of rendered faces; only results of real datasets belong there"
                )
            found[key] = file
        return found
