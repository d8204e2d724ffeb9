"""The files of run folders, as the report reads them; runs need not be finished."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from onetrunk.errors import BadInput
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Row, Table
from onetrunk.runs.experiment import SWEEP
from onetrunk.runs.open import read_json, read_outcomes, read_scores
from onetrunk.store.results import is_run
from onetrunk.store.run_folder import METRICS, RECIPE, SCORES

ENVIRONMENT = "environment.json"
SEED = "seed-"  # prefix of the folders of single seeds, which `--seeds` creates

PathOrName = str | PathLike[str]


@dataclass(frozen=True)
class RunFiles:
    """The files of one training with one seed."""

    path: Path
    recipe_text: str
    recipe: Mapping[str, Any]
    scores: Mapping[str, Any]  # empty until the run is finished
    environment: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...] = field(repr=False)  # of metrics.jsonl
    given_outcomes: Outcomes | None = None  # of predictions that come without a run folder

    @classmethod
    def read(cls, path: Path) -> RunFiles:
        """Read a run folder. Missing files count as empty; damaged ones raise an error."""
        try:
            text = (path / RECIPE).read_text("utf-8")
            recipe = tomllib.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise _unreadable(path / RECIPE, error) from None
        scores, environment = read_scores(path), read_json(path / ENVIRONMENT)
        return cls(path, text, recipe, scores, environment, tuple(_read_records(path / METRICS)))

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.scores.get("seed", self.recipe.get("seed", 0)))

    @property
    def sharing(self) -> str:
        """`trunk.sharing` of the recipe; `none` is one network per domain."""
        return str(self.trunk.get("sharing", "deep"))

    @property
    def trunk(self) -> Mapping[str, Any]:
        """The table [trunk] of the recipe."""
        trunk = self.recipe.get("trunk", {})
        return trunk if isinstance(trunk, Mapping) else {}

    @cached_property
    def test(self) -> Table | None:
        """The scores on the test splits; None until the run is finished."""
        return self._table("test")

    @cached_property
    def val(self) -> Table | None:
        """The scores of the selected checkpoint on the validation splits."""
        return self._table("val")

    def _table(self, split: str) -> Table | None:
        document = self.scores.get(split)
        if not isinstance(document, Mapping):
            return None
        try:
            return Table.from_json(document)
        except BadInput as error:
            raise error.within(f"{self.path.name}/{SCORES}: {split}") from None

    @cached_property
    def outcomes(self) -> Outcomes | None:
        """What each test image contributes to the scores, if the run stored it."""
        if self.given_outcomes is not None:
            return self.given_outcomes
        return None if self.test is None else read_outcomes(self.path)

    def selected_step(self, domain: str) -> int | None:
        """Return the step of the checkpoint that was selected for a domain's network."""
        best = self.scores.get("best")
        if not isinstance(best, Mapping):
            return None
        part = best.get(domain, best.get("", best))
        step = part.get("step") if isinstance(part, Mapping) else None
        return step if isinstance(step, int) else None


@dataclass(frozen=True)
class RunGroup:
    """The runs of one recipe, one per seed: a column of the report."""

    name: str
    runs: tuple[RunFiles, ...]

    @property
    def first(self) -> RunFiles:
        """The first finished run, or the first run if none is finished."""
        return next((run for run in self.runs if run.test is not None), self.runs[0])

    @property
    def finished(self) -> list[RunFiles]:
        """The runs that have test scores."""
        return [run for run in self.runs if run.test is not None]

    @property
    def tables(self) -> list[Table]:
        """The test scores of the finished runs."""
        return [run.test for run in self.runs if run.test is not None]

    def is_at(self, path: Path) -> bool:
        """Return whether this is the folder of these runs, or of one of them."""
        folders = {run.path.resolve() for run in self.runs}
        folders |= {folder.parent for folder in folders if folder.name.startswith(SEED)}
        return path.resolve() in folders

    @property
    def separate(self) -> bool:
        """Whether every domain has its own network."""
        return self.first.sharing == "none"

    @property
    def frozen(self) -> bool:
        """Whether only heads were trained."""
        return any(
            part.get("frozen") is True
            for part in (self.first.scores, self.first.trunk, self.first.recipe.get("train", {}))
            if isinstance(part, Mapping)
        )


def read_groups(paths: Sequence[PathOrName]) -> list[RunGroup]:
    """Read the runs of each folder; the groups get distinct names."""
    groups: list[RunGroup] = []
    for path in [setting for given in paths for setting in setting_folders(Path(given))]:
        runs = tuple(RunFiles.read(folder) for folder in run_folders(path))
        name = path.resolve().name
        taken = [group.name for group in groups]
        if name in taken:
            name = f"{path.resolve().parent.name}/{name}"
        while name in taken:
            name += "'"
        groups.append(RunGroup(name, runs))
    return groups


def setting_folders(path: Path) -> list[Path]:
    """Return the folder itself, or for a sweep the folders of its settings."""
    if (path / SWEEP).is_file() and not any(path.glob(f"{SEED}*")):
        settings = {recipe.parent.parent for recipe in path.glob(f"*/{SEED}*/{RECIPE}")}
        return sorted(settings) or [path]
    return [path]


def run_folders(path: Path) -> list[Path]:
    """Return the folder itself, or the folders of its seeds in the order of the seeds."""
    seeds = [recipe.parent for recipe in path.glob(f"{SEED}*/{RECIPE}")]
    if (path / RECIPE).is_file() and not seeds:
        return [path]
    if not seeds:
        parent = path if path.is_dir() else path.parent
        raise BadInput(
            f"expected the folder of a run, with a {RECIPE}",
            got=str(path),
            available=sorted(str(p) for p in parent.iterdir() if is_run(p))
            if parent.is_dir()
            else [],
            try_="onetrunk train RECIPE",
        )

    def number(folder: Path) -> tuple[int, str]:
        rest = folder.name.removeprefix(SEED)
        return (int(rest) if rest.isdecimal() else 0, rest)

    return sorted(seeds, key=number)


def match_single_task_domains(baseline: RunGroup, groups: Iterable[RunGroup]) -> RunGroup:
    """Rename the baseline's single-task domains to the domains that they are part of.

    A network with several tasks of `rooms` is compared with the networks `rooms-depth`,
    `rooms-normals`, …, because the domains of one recipe need distinct names. A domain
    DOMAIN-TASK that has this one task becomes DOMAIN, if the other runs have that task and the
    baseline has no domain of that name.
    """
    wanted = {(row.domain, row.task) for group in groups for row in _test_rows(group)}
    given = {(row.domain, row.task) for row in _test_rows(baseline)}
    taken = {domain for domain, _ in given}
    names = {
        f"{domain}-{task}": domain
        for domain, task in wanted
        if domain not in taken and [t for d, t in given if d == f"{domain}-{task}"] == [task]
    }
    if not names:
        return baseline
    return replace(baseline, runs=tuple(_rename_domains(run, names) for run in baseline.runs))


def _test_rows(group: RunGroup) -> tuple[Row, ...]:
    table = group.first.test
    return () if table is None else table.rows


def _rename_domains(run: RunFiles, names: Mapping[str, str]) -> RunFiles:
    scores = dict(run.scores)
    for split, table in (("test", run.test), ("val", run.val)):
        if table is not None:
            rows = tuple(replace(r, domain=names.get(r.domain, r.domain)) for r in table.rows)
            scores[split] = Table(rows, table.split).to_json()
    outcomes = run.outcomes
    if outcomes is not None:
        outcomes = Outcomes(
            outcomes.split,
            {(names.get(d, d), task): one for (d, task), one in outcomes.tasks.items()},
            {names.get(d, d): digest for d, digest in outcomes.image_digests.items()},
        )
    return replace(run, scores=scores, given_outcomes=outcomes)


def _unreadable(path: Path, reason: Exception | str | None) -> BadInput:
    return BadInput(f"cannot read {path.parent.name}/{path.name}", got=str(reason)[:160])


def _read_records(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a JSON lines file, without lines that were cut off while written."""
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error.strerror) from None
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record
