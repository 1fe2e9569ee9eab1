"""Sweeps: a YAML file of many experiments, run one after the other or side by side, each to a
result file of its own.

A file of a sweep holds two entries. ``defaults`` are fields of
`norface_lib.studies.experiment.Experiment`; ``runs`` is a list, and each of its items has a
``name`` and the fields in which it differs. ``each`` in an item is a table of fields and lists of
values: the item stands for one experiment for each combination of them. ``data`` and ``test_data``
may be tables, the fields of a `norface_lib.faces.benchmark.BenchmarkSpec`, and ``training`` one of
`norface_lib.studies.settings.TrainingSettings`. With a third entry, ``kind: normalizer``, the
experiments are those of `norface_lib.studies.normalizer_experiment.NormalizerExperiment`::

    defaults: {task: au_detection, data: {pool: lab, subjects: 240}, backbone: mini}
    runs:
      - {name: rows, rows: [original, both]}
      - {name: people, each: {people: [5, 20, 80]}}
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from norface_lib.common.errors import DataError
from norface_lib.studies.sweep_kinds import KINDS, Study, study_of

SHIPPED = Path(__file__).parent / "sweeps"
"""Folder of the sweeps of notebook 08, which can be named without their ending."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """An experiment of a sweep, and the name of its result file."""

    name: str
    experiment: Study

    def path(self, out: Path) -> Path:
        """Its result file below a folder."""
        return Path(out) / f"{self.name}.json"

    def seeds_done(self, out: Path) -> tuple[int, ...]:
        """Seeds of its result file; none if there is no file. Raises :class:`DataError` if the file
        is damaged, or was made with other settings."""
        path = self.path(out)
        if not path.exists():
            return ()
        try:
            made = json.loads(path.read_text(encoding="utf-8"))["settings"]["experiment"]
            seeds = tuple(made.pop("seeds"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: is no result file of a sweep; delete it") from error
        ours = json.loads(json.dumps(self.experiment.settings()))
        if other := [name for name in made if _differ(made[name], ours.get(name))]:
            raise DataError(
                f"{path}: was made with other settings ({', '.join(other)}); delete it, or choose "
                "another folder"
            )
        return seeds

    def is_done(self, out: Path) -> bool:
        """Whether its result file has all its seeds. Errors as of `seeds_done`."""
        return set(self.experiment.seeds) <= set(self.seeds_done(out))


def _differ(made: Any, ours: Any) -> bool:
    """Whether a setting of a result file is another one than ours. A file of an older version lacks
    newer settings, in its tables too."""
    if isinstance(made, dict) and isinstance(ours, dict):
        return any(_differ(value, ours.get(name)) for name, value in made.items())
    return made != ours


def shipped_names() -> list[str]:
    """Names of the sweeps of this package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_sweep(name: str) -> Path:
    """The file of a sweep by its path, or by the name of a shipped one. Raises :class:`DataError`
    if it is neither."""
    for path in (Path(name), SHIPPED / f"{name}.yaml"):
        if path.is_file():
            return path
    raise DataError(f"{name}: neither a file nor a sweep of {', '.join(shipped_names())}")


def read_sweep(path: Path, seeds: Sequence[int] = ()) -> list[Configuration]:
    """The configurations of a file in its order. ``seeds``: in place of those of the file.

    Raises :class:`DataError`, naming the file and the run, for what is no YAML, for an unknown
    field, for a value that an experiment refuses, and for a name that two runs have.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
        raise DataError(f"{path}: must be a table with a list `runs`")
    if unknown := sorted(map(str, content.keys() - {"kind", "defaults", "runs"})):
        raise DataError(
            f"{path}: has {', '.join(unknown)} beside kind, defaults and runs; remove it"
        )
    kind = KINDS.get(str(content.get("kind", "experiment")))
    if kind is None:
        raise DataError(f"{path}: kind must be one of {', '.join(KINDS)}, got {content['kind']!r}")

    defaults = _table(content.get("defaults") or {}, f"{path}: defaults")
    configurations = []
    for number, run in enumerate(content["runs"], start=1):
        where = f"{path}: run {number}"
        configurations += _of_run(kind, defaults, _table(run, where), where)
    names = [configuration.name for configuration in configurations]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: two runs are called {', '.join(twice)}; rename one")
    if not seeds:
        return configurations
    return [
        replace(one, experiment=replace(one.experiment, seeds=tuple(seeds)))
        for one in configurations
    ]


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where} must be a table of names and values, got {value!r}")
    return value


def _of_run(
    kind: type[Study], defaults: Mapping[str, Any], run: Mapping[str, Any], where: str
) -> Iterator[Configuration]:
    """The configurations of an item: one, or one for each combination of what ``each`` lists."""
    run = dict(run)
    name = str(run.pop("name", ""))
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise DataError(f"{where} needs a name of letters, digits, '-' and '_', got {name!r}")
    where = f"{where} ({name})"
    each = _table(run.pop("each", {}), f"{where}: each")
    for field_name, values in each.items():
        if not isinstance(values, list) or not values:
            raise DataError(f"{where}: each must give {field_name} a list of values")
    for values in itertools.product(*each.values()):
        chosen = dict(zip(each, values, strict=True))
        parts = [_as_name(key, value) for key, value in chosen.items()]
        try:
            experiment = study_of(kind, _merged(_merged(defaults, run), chosen))
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: {error}") from error
        yield Configuration(name="-".join([name, *parts]), experiment=experiment)


def _as_name(key: str, value: Any) -> str:
    """A field and its value as a part of a file's name; of a table, its fields and theirs."""
    table = value if isinstance(value, dict) else {key: value}
    text = "-".join(f"{name}-{each}" for name, each in table.items())
    return re.sub(r"[^\w.]+", "-", text).strip("-")


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The first table with the entries of the second; a table in both has the entries of both."""
    merged = dict(first)
    for name, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if both else value
    return merged
