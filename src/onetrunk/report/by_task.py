"""Networks for one task each, read as networks of the domain whose tasks they are.

One network that predicts several tasks of `rooms` is held against `rooms-depth`, `rooms-normals`,
…: domains of one recipe need names of their own. What such a domain (DOMAIN-TASK, with this task
alone) scored counts as that task's of DOMAIN, where the other side has it and the names do not
clash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Row, Table
from onetrunk.report.runs import Group, Run


def by_task(baseline: Group, groups: Iterable[Group]) -> Group:
    """The baseline under the names of these groups' domains."""
    wanted = {(row.domain, row.task) for group in groups for row in _rows(group)}
    theirs = {(row.domain, row.task) for row in _rows(baseline)}
    known = {domain for domain, _ in theirs}
    names = {
        f"{domain}-{task}": domain
        for domain, task in wanted
        if domain not in known and [t for d, t in theirs if d == f"{domain}-{task}"] == [task]
    }
    if not names:
        return baseline
    return replace(baseline, runs=tuple(_renamed(run, names) for run in baseline.runs))


def _rows(group: Group) -> tuple[Row, ...]:
    table = group.first.test
    return () if table is None else table.rows


def _renamed(run: Run, names: Mapping[str, str]) -> Run:
    scores = dict(run.scores)
    for split, table in (("test", run.test), ("val", run.val)):
        if table is not None:
            rows = tuple(replace(r, domain=names.get(r.domain, r.domain)) for r in table.rows)
            scores[split] = Table(rows, table.split).to_json()
    held = run.outcomes
    if held is not None:
        held = Outcomes(
            held.split,
            {(names.get(d, d), task): part for (d, task), part in held.parts.items()},
            {names.get(d, d): digest for d, digest in held.names.items()},
        )
    return replace(run, scores=scores, held=held)
