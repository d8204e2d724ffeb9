"""One column of the report: a group's scores, sizes and summaries."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onetrunk.errors import BadInput
from onetrunk.eval.budget import budget
from onetrunk.eval.metrics import as_error
from onetrunk.eval.outcomes import Key
from onetrunk.eval.summary import decathlon_score, delta_mtl
from onetrunk.eval.table import Better, Table
from onetrunk.nn.adapters import NO_ADAPTERS
from onetrunk.nn.universal import Universal
from onetrunk.report.findings import Column
from onetrunk.report.runs import Group, Run
from onetrunk.report.scores import compare, mean_difference, scores

OWN = {"none": "a network for each domain", "full": "heads shared too"}


def column_of(
    group: Group, css: str, base: Group | None, models: Mapping[str, Universal]
) -> Column:
    """All that is known of a group without its images."""
    different = {id(model): model for model in models.values()}
    parts = {next(iter(model.domains)): model for model in different.values()}
    return Column(
        name=group.name,
        css=css,
        what=in_words(group.first),
        separate=group.separate,
        seeds=tuple(run.seed for run in group.runs),
        finished=sum(run.test is not None for run in group.runs),
        scores=scores(group),
        budgets={name: budget(model) for name, model in parts.items()},
        compared=compare(group, base) if base else (),
        mean_difference=mean_difference(group, base) if base else None,
        decathlon=_decathlon(group, base) if base else (),
        delta=_delta(group, base) if base else (),
    )


def in_words(run: Run) -> str:
    """What kind of network a recipe makes."""
    trunk = run.trunk
    if not run.text:
        return "predictions from elsewhere"
    words = [str(trunk.get("arch", "")), f"norm {trunk.get('norm', 'domain')}"]
    sharing = str(trunk.get("sharing", "deep"))
    stages = ", ".join(map(str, trunk.get("own_stages") or ()))
    words.append(OWN.get(sharing, f"own stages {stages}" if sharing == "partial" else ""))
    if trunk.get("adapters", NO_ADAPTERS) != NO_ADAPTERS:
        words.append(f"{trunk['adapters']} adapters")
    if trunk.get("pretrained"):
        words.append("pretrained")
    return ", ".join(word for word in words if word)


def validation(group: Group, reference: Group) -> float | None:
    """By which runs are chosen: the mean over domains of validation errors, mean over seeds.

    Where units mix, each error is divided by the reference group's, as no mean is of percents and
    metres.
    """
    mine, base = _val(group), _val(reference)
    if not mine or (len({unit for unit, _ in mine.values()}) > 1 and mine.keys() - base.keys()):
        return None
    mixed = len({unit for unit, _ in mine.values()}) > 1
    by_domain: dict[str, list[float]] = {}
    for key, (_, error) in mine.items():
        by_domain.setdefault(key[0], []).append(error / max(base[key][1], 1e-9) if mixed else error)
    means = [math.fsum(errors) / len(errors) for errors in by_domain.values()]
    return math.fsum(means) / len(means)


def _val(group: Group) -> dict[Key, tuple[str, float]]:
    """Unit and mean error over seeds, by task, on validation."""
    errors: dict[Key, list[float]] = {}
    units: dict[Key, str] = {}
    for run in group.runs:
        for row in run.val.headlines() if run.val else ():
            errors.setdefault((row.domain, row.task), []).append(as_error(row.kind, row.value))
            units[row.domain, row.task] = f"{row.kind} {row.unit}" if row.unit != "%" else "%"
    return {key: (units[key], math.fsum(v) / len(v)) for key, v in errors.items()}


def _decathlon(group: Group, base: Group) -> tuple[float, ...]:
    """By seed, over the domains that both classify, against the baseline's mean errors."""
    theirs = _mean_errors(base)
    tables = [run.test for run in base.runs if run.test]
    counts = tables[0].counts() if tables else {}
    found = []
    for table in [run.test for run in group.runs if run.test]:
        mine = {domain: e for domain, e in table.errors().items() if domain in theirs}
        try:
            against = {d: theirs[d] for d in mine}
            found.append(decathlon_score(mine, against, {d: counts[d] for d in mine}))
        except BadInput:  # no domain that both classify
            return ()
    return tuple(found)


def _mean_errors(group: Group) -> dict[str, float]:
    tables = [run.test for run in group.runs if run.test]
    every: dict[str, list[float]] = {}
    for table in tables:
        for domain, error in table.errors().items():
            every.setdefault(domain, []).append(error)
    return {domain: math.fsum(errors) / len(errors) for domain, errors in every.items()}


def _delta(group: Group, base: Group) -> tuple[float, ...]:
    """By seed, over the tasks that both have, against the baseline's mean scores."""
    theirs = scores(base)
    found = []
    for table in [run.test for run in group.runs if run.test]:
        mine = {key: pair for key, pair in _headlines(table).items() if key in theirs}
        against = {key: (theirs[key].estimate.value, better) for key, (_, better) in mine.items()}
        try:
            found.append(delta_mtl(_named(mine), _named(against)))
        except BadInput:  # nothing in common, or a baseline of 0
            return ()
    return tuple(found)


def _headlines(table: Table) -> dict[Key, tuple[float, Better]]:
    return {(row.domain, row.task): (row.value, row.better) for row in table.headlines()}


def _named(scores: Mapping[Key, tuple[float, Better]]) -> dict[str, tuple[float, Better]]:
    return {"/".join(key): pair for key, pair in scores.items()}
