"""Run folders as the report reads them: files only, whatever state the run is in."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from onetrunk.errors import BadInput
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Table
from onetrunk.store.run_folder import METRICS, RECIPE, SCORES

ENVIRONMENT, OUTCOMES = "environment.json", "outcomes.safetensors"
SWEEP = "sweep.json"  # of a folder that holds several settings
SEED = "seed-"  # of folders inside a run's: one each, for `--seeds`


@dataclass(frozen=True)
class Run:
    """One training, of one seed."""

    path: Path
    text: str  # its recipe
    recipe: Mapping[str, Any]
    scores: Mapping[str, Any]  # empty while it is not finished
    environment: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...] = field(repr=False)  # of metrics.jsonl
    held: Outcomes | None = None  # where no file holds them

    @classmethod
    def read(cls, path: Path) -> Run:
        """The run of a folder; a file that is damaged is said, one that is missing is empty."""
        try:
            text = (path / RECIPE).read_text("utf-8")
            recipe = tomllib.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"cannot read {path.name}/{RECIPE}", got=str(error)[:120]) from None
        records = tuple(_lines(path / METRICS))
        return cls(
            path, text, recipe, _document(path / SCORES), _document(path / ENVIRONMENT), records
        )

    @property
    def seed(self) -> int:
        """Of all that was drawn."""
        return int(self.scores.get("seed", self.recipe.get("seed", 0)))

    @property
    def sharing(self) -> str:
        """`none`: a network for each domain."""
        return str(self.trunk.get("sharing", "deep"))

    @property
    def trunk(self) -> Mapping[str, Any]:
        """The recipe's [trunk]."""
        trunk = self.recipe.get("trunk", {})
        return trunk if isinstance(trunk, Mapping) else {}

    @cached_property
    def test(self) -> Table | None:
        """Its scores on the test splits."""
        return self._table("test")

    @cached_property
    def val(self) -> Table | None:
        """Its scores on the validation splits, of the checkpoint that was chosen."""
        return self._table("val")

    def _table(self, split: str) -> Table | None:
        document = self.scores.get(split)
        if not isinstance(document, Mapping):
            return None
        try:
            return Table.from_json(document)
        except BadInput as error:
            raise BadInput(f"{self.path.name}/{SCORES}: {error}") from None

    @cached_property
    def outcomes(self) -> Outcomes | None:
        """What each test image added to the scores, where that was kept."""
        if self.held is not None:
            return self.held
        path = self.path / OUTCOMES
        return Outcomes.open(path) if self.test is not None and path.is_file() else None

    def chosen(self, domain: str) -> int | None:
        """The step whose weights this domain's network ends with."""
        best = self.scores.get("best")
        if not isinstance(best, Mapping):
            return None
        part = best.get(domain, best.get("", best))
        step = part.get("step") if isinstance(part, Mapping) else None
        return step if isinstance(step, int) else None


@dataclass(frozen=True)
class Group:
    """One recipe's runs: a column of the report; several where it ran with several seeds."""

    name: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The run that stands for all where one is enough: the first that is finished."""
        return next((run for run in self.runs if run.test is not None), self.runs[0])

    @property
    def separate(self) -> bool:
        """Whether it is a network for each domain."""
        return self.first.sharing == "none"

    @property
    def frozen(self) -> bool:
        """Whether its trunk did not learn, only heads."""
        return any(
            part.get("frozen") is True
            for part in (self.first.scores, self.first.trunk, self.first.recipe.get("train", {}))
            if isinstance(part, Mapping)
        )


PathOrRun = str | PathLike[str]


def read_groups(paths: Sequence[PathOrRun]) -> list[Group]:
    """Each folder's runs; the names of two groups differ."""
    groups: list[Group] = []
    for path in [each for given in paths for each in variations(Path(given))]:
        runs = tuple(Run.read(folder) for folder in folders(path))
        name = path.resolve().name
        taken = [group.name for group in groups]
        if name in taken:
            name = f"{path.resolve().parent.name}/{name}"
        while name in taken:
            name += "'"
        groups.append(Group(name, runs))
    return groups


def variations(path: Path) -> list[Path]:
    """The recipes' folders of a path: itself, or those of a sweep over settings."""
    if (path / SWEEP).is_file() and not any(path.glob(f"{SEED}*")):
        found = {seed.parent.parent for seed in path.glob(f"*/{SEED}*/{RECIPE}")}
        return sorted(found) or [path]
    return [path]


def folders(path: Path) -> list[Path]:
    """The run folders of a path: itself, or its seeds'."""
    if (path / RECIPE).is_file() and not any(path.glob(f"{SEED}*/{RECIPE}")):
        return [path]
    seeds = [folder.parent for folder in path.glob(f"{SEED}*/{RECIPE}")]
    if not seeds:
        near = path if path.is_dir() else path.parent
        there = sorted(p.name for p in near.iterdir()) if near.is_dir() else []
        raise BadInput(
            f"not the folder of a run: it holds no {RECIPE}",
            got=str(path),
            available=there,
            try_="onetrunk train RECIPE makes one",
        )

    def number(folder: Path) -> tuple[int, str]:
        rest = folder.name.removeprefix(SEED)
        return (int(rest) if rest.isdecimal() else 0, rest)

    return sorted(seeds, key=number)


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"cannot read {path.parent.name}/{path.name}", got=str(error)[:120]
        ) from None
    if not isinstance(document, dict):
        raise BadInput(f"{path.parent.name}/{path.name} is to be a table", got=type(document))
    return document


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Records; a last line that was cut off while it was written is left out."""
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadInput(f"cannot read {path.parent.name}/{path.name}", got=error.strerror) from None
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record
