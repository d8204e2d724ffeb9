"""`ot.unify`: from domains to one network and the page that compares it with the alternatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from onetrunk.config import Recipe, Train
from onetrunk.config.check import check
from onetrunk.config.from_python import check_settings, recipe_for, table_of
from onetrunk.config.resolve import resolve
from onetrunk.data.domain import Domain
from onetrunk.data.domain_list import list_domains
from onetrunk.display import Described, Summary, scaled
from onetrunk.errors import BadInput
from onetrunk.eval.table import number
from onetrunk.objects import modules_of, trusting
from onetrunk.progress import say
from onetrunk.report.report import report
from onetrunk.runs.open import Run
from onetrunk.runs.unify.checks import check_out
from onetrunk.runs.unify.plan import parse_time
from onetrunk.runs.unify.record import earlier_request
from onetrunk.runs.unify.stages import SPECIALISTS
from onetrunk.runs.unify.unify import Unified, bytes_of, unify_domains
from onetrunk.train.device import choose_device

PAGE = "report.html"
TIME = "1h"
LONG = 900.0  # seconds from which a first report is worth its time


@dataclass(frozen=True)
class LadderRow:
    """One of the compared networks, or networks: its size, and its errors on test images.

    Args:
        name: The name of the stage.
        bytes: The size on disk.
        errors: The headline of each task, by "domain/task".
        mean: The mean error in percent; None if the kinds of tasks differ.
        chosen: Whether it was chosen by validation.
    """

    name: str
    folder: Path
    bytes: int
    errors: dict[str, str]
    mean: float | None
    chosen: bool


@dataclass(frozen=True, repr=False)
class Result(Described):
    """The result of `ot.unify`.

    Args:
        run: The run of the chosen network; all verbs take its folder.
        chosen: The name of its stage.
        rows: All networks that were compared.
        own: Why some domains have a network of their own, by domain.
        reasons: How the network was chosen.
        page: The report.
        seconds: The time of everything.
    """

    run: Run
    chosen: str
    rows: tuple[LadderRow, ...]
    own: dict[str, str]
    reasons: tuple[str, ...]
    page: Path
    seconds: float

    def summary(self) -> Summary:
        """Return the compared networks with their sizes and test errors."""
        units = list(self.rows[0].errors) if self.rows else []
        rows = [
            (
                f"{row.name} (chosen)" if row.chosen else row.name,
                scaled(row.bytes, "B"),
                "" if row.mean is None else f"{row.mean:.2f}",
                *(row.errors.get(unit, "") for unit in units),
            )
            for row in self.rows
        ]
        facts = [("run", str(self.run.folder)), ("report", str(self.page))]
        facts += [(f"own network of {name}", reason) for name, reason in self.own.items()]
        columns = ("networks", "size", "mean error", *units)
        return Summary(f"Result({str(self.run.folder)!r})", facts, columns, rows)


def unify(
    domains: Sequence[Domain],
    *,
    out: str | Path,
    trunk: str | None = None,
    pretrained: bool | str | None = None,
    time: str | float = TIME,
    train: Train | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Result:
    """Train specialists and one network for all domains, choose by validation, and report.

    The same call continues after an interruption.

    Args:
        domains: The domains, at least one.
        out: The folder of the result.
        trunk: The architecture, as `trunk.arch` of a recipe.
        pretrained: Its weights, as `trunk.pretrained`.
        time: How long everything may take: seconds, or a text such as "90m" or "2h".
        train: Settings of all trainings. A learning rate or a length that is set is not searched.
        seed: The seed of all random numbers.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
    """
    check_settings(train, Train)
    listed = list_domains(domains)
    folder = Path(out)
    given = {"arch": trunk, "pretrained": pretrained}
    table = {key: value for key, value in given.items() if value is not None}
    tables = [_table(domain) for domain in listed]
    recipe = recipe_for(listed, train or Train(), seed, folder, table, tables=tables)
    check_out(folder)
    place = choose_device(device)
    resolved = resolve(recipe, place, earlier_request(folder))
    for note in resolved.notes:
        say(note)
    recipe = resolved.recipe
    listed = [
        domain.with_defaults({"size": settings.size, "normalize": settings.normalize})
        for domain, settings in zip(listed, recipe.domains, strict=True)
    ]
    seconds = parse_time(time) if isinstance(time, str) else float(time)
    if not 0 < seconds < math.inf:
        raise BadInput("expected a time of more than 0 seconds", got=time, try_="time='1h'")
    with trusting(modules_of(recipe.objects)):
        done = unify_domains(recipe, listed, seconds=seconds, device=place)
        return finish(done, listed, recipe)


def _table(domain: Domain) -> dict[str, Any]:
    """Return the table of a domain in a recipe, without a size that the user has not set."""
    return {k: v for k, v in table_of(domain).items() if k != "size" or k in domain.given}


def unify_recipe(
    recipe: Recipe, *, seconds: float, device: str | None = None, command: str = ""
) -> Result:
    """Do what `unify` does with the domains and settings of a recipe.

    Args:
        recipe: The recipe; its `out` is the folder of the result.
        seconds: How long everything may take.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
        command: The command that continues the work, for messages.
    """
    check_out(recipe.out_folder)
    place = choose_device(device)
    resolved = resolve(recipe, place, earlier_request(recipe.out_folder))
    for note in resolved.notes:
        say(note)
    recipe = resolved.recipe
    with trusting(modules_of(recipe.objects)):
        checked = check(recipe)
        for warning in checked.warnings:
            say(f"note: {warning}")
        done = unify_domains(
            recipe,
            checked.domains,
            seconds=seconds,
            device=place,
            command=command,
            first_look=partial(_first_page, domains=checked.domains) if seconds >= LONG else None,
        )
        return finish(done, checked.domains, recipe)


def _first_page(frozen: Path, out: Path, domains: Sequence[Domain]) -> None:
    """Write a report of the frozen trunk, while the other networks are trained."""
    page = report([frozen], out=out / PAGE, domains=domains)
    say(f"{page} shows what heads on the frozen trunk reach; it is replaced at the end")


def finish(done: Unified, domains: Sequence[Domain], recipe: Recipe) -> Result:
    """Write the report, and return the result."""
    trust = modules_of(recipe.objects)
    page = done.folder / PAGE
    several = len(domains) > 1
    baseline = done.stages[SPECIALISTS] if several else None
    others = [path for name, path in done.stages.items() if name not in (SPECIALISTS, done.chosen)]
    notes = [*done.reasons, *(f"{n} keeps its own network: {why}" for n, why in done.own.items())]
    report(
        [done.folder, *others],
        baseline=baseline,
        out=page,
        domains=domains,
        chosen=0,
        notes=notes,
    )
    rows = [
        _row(name, path, done.chosen)
        for name, path in {**done.stages, done.chosen: done.folder}.items()
    ]
    return Result(
        Run(done.folder, domains=domains, trust=trust),
        done.chosen,
        tuple(rows),
        done.own,
        done.reasons,
        page,
        done.seconds,
    )


def _row(name: str, folder: Path, chosen: str) -> LadderRow:
    run = Run(folder)
    headlines = run.table.headlines()
    percent = len({row.kind for row in headlines}) == 1
    means = run.table.errors() if percent else {}
    return LadderRow(
        name,
        folder,
        bytes_of(run),
        {f"{row.domain}/{row.task}": number(row.value, row.unit) for row in headlines},
        sum(means.values()) / len(means) if means else None,
        name == chosen,
    )


def plain(result: Result) -> dict[str, object]:
    """Return the result as plain data."""
    return {
        "run": str(result.run.folder),
        "chosen": result.chosen,
        "report": str(result.page),
        "seconds": round(result.seconds, 1),
        "own_networks": result.own,
        "reasons": list(result.reasons),
        "networks": [
            {
                "name": row.name,
                "folder": str(row.folder),
                "bytes": row.bytes,
                "mean_error": row.mean,
                "errors": row.errors,
                "chosen": row.chosen,
            }
            for row in result.rows
        ],
        "scores": result.run.scores["test"],
    }
