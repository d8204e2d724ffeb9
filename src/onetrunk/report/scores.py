"""A group's scores over its seeds, and their difference from the baseline's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onetrunk.eval.intervals import differences, percentiles, replicates, wilson
from onetrunk.eval.metrics import as_error
from onetrunk.eval.outcomes import Key, Outcomes
from onetrunk.eval.table import Row
from onetrunk.report.runs import Group
from onetrunk.report.verdict import Compared, Estimate, margin, read


@dataclass(frozen=True)
class Score:
    """One task's headline over a group's seeds, and its other metrics."""

    row: Row  # of the first seed: names, kind, unit, images
    estimate: Estimate
    also: tuple[tuple[str, str, float], ...]  # metric, unit, mean over seeds

    @property
    def error(self) -> float:
        """As a number where lower is better."""
        return as_error(self.row.kind, self.estimate.value)


def scores(group: Group) -> dict[Key, Score]:
    """By domain and task, of the test split; empty where no run of the group is finished."""
    tables = [run.test for run in group.runs if run.test is not None]
    found: dict[Key, Score] = {}
    if not tables:
        return found
    for row in tables[0].headlines():
        key = (row.domain, row.task)
        same = [r for table in tables for r in table.headlines() if (r.domain, r.task) == key]
        others: dict[tuple[str, str], list[float]] = {}
        for table in tables:
            for r in table.rows:
                if (r.domain, r.task) == key and not r.headline:
                    others.setdefault((r.metric, r.unit), []).append(r.value)
        also = tuple((m, u, math.fsum(values) / len(values)) for (m, u), values in others.items())
        found[key] = Score(row, over_seeds(same), also)
    return found


def over_seeds(rows: Sequence[Row]) -> Estimate:
    """The mean over seeds; its interval is the first seed's, or the mean of the seeds' ends."""
    values = tuple(row.value for row in rows)
    mean = math.fsum(values) / len(values)
    known = [ends for row in rows if (ends := _interval(row)) is not None]
    if len(known) < len(rows):
        return Estimate(mean, seeds=values)
    low, high = (math.fsum(ends) / len(known) for ends in zip(*known, strict=True))
    return Estimate(mean, low, high, values)


def _interval(row: Row) -> tuple[float, float] | None:
    """As the table has it; of a share of images it follows from how many there are."""
    if row.low is not None and row.high is not None:
        return row.low, row.high
    if row.kind in ("classify", "embed") and row.count:
        return wilson(row.value / 100, row.count)
    return None


def compare(ours: Group, baseline: Group) -> tuple[Compared, ...]:
    """Every task that both have a score of."""
    one, alone = scores(ours), scores(baseline)
    paired = _paired(ours, baseline)
    found = []
    for key, mine in one.items():
        other = alone.get(key)
        if other is None or other.row.metric != mine.row.metric:
            continue
        difference = paired.get(key) or unpaired(mine, other)
        allowed = margin(mine.row.unit, other.error)
        reading = read(difference, allowed)
        found.append(
            Compared(
                *key,
                mine.estimate,
                other.estimate,
                difference,
                allowed,
                reading,
                key in paired,
            )
        )
    return tuple(found)


def unpaired(mine: Score, other: Score) -> Estimate:
    """From the two intervals alone: the halves of independent intervals add up as squares."""
    value = mine.error - other.error
    halves = []
    for estimate in (mine.estimate, other.estimate):
        if estimate.low is None or estimate.high is None:
            return Estimate(value)
        halves.append((estimate.high - estimate.low) / 2)
    half = math.hypot(*halves)
    return Estimate(value, value - half, value + half)


def mean_difference(ours: Group, baseline: Group) -> Estimate | None:
    """Of the errors in percent over the domains that both classify, paired image by image."""
    sides = _outcomes(ours, baseline)
    if sides is None:
        return None
    keys = [key for key, part in sides[0][0].parts.items() if part.kind == "classify"]
    if len(keys) < 2:
        return None
    mine, base = (replicates(side) for side in sides)
    drawn = np.mean([mine[key] - base[key] for key in keys], axis=0)
    values = [
        math.fsum(run.parts[key].headline() for run in side for key in keys) / len(side) / len(keys)
        for side in sides
    ]
    return Estimate(values[0] - values[1], *percentiles(drawn))


def _paired(ours: Group, baseline: Group) -> dict[Key, Estimate]:
    """Differences of errors, of the tasks that are known image by image on both sides."""
    sides = _outcomes(ours, baseline)
    found = {}
    for d in differences(*sides) if sides else ():
        ends = (-d.high, -d.low) if d.better == "higher" else (d.low, d.high)
        found[d.domain, d.task] = Estimate(-d.gain, *ends)
    return found


def _outcomes(ours: Group, baseline: Group) -> tuple[list[Outcomes], list[Outcomes]] | None:
    """Of all runs on either side, the tasks that all of them have over the same images."""
    sides = []
    for group in (ours, baseline):
        found = [run.outcomes for run in group.runs if run.test is not None]
        known = [one for one in found if one is not None]
        if not known or len(known) < len(found):
            return None
        sides.append(known)
    every = [run for side in sides for run in side]
    first = every[0]
    kept = [
        key
        for key, part in first.parts.items()
        if all(
            key in run.parts
            and run.parts[key].kind == part.kind
            and run.names[key[0]] == first.names[key[0]]
            for run in every
        )
    ]
    if not kept:
        return None
    left, right = (
        [replace(r, parts={k: r.parts[k] for k in kept}) for r in side] for side in sides
    )
    return left, right
