"""The columns of the report: scores, sizes and summaries that follow from a group's files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onetrunk.errors import BadInput
from onetrunk.eval.budget import Budget, Cost, budget
from onetrunk.eval.intervals import (
    agresti_min,
    differences,
    percentiles,
    replicates,
    wilson,
)
from onetrunk.eval.margins import Estimate, margin_of, scale_of
from onetrunk.eval.metrics import SCORES, as_error
from onetrunk.eval.outcomes import Key, Outcomes
from onetrunk.eval.summary import decathlon_score, delta_mtl
from onetrunk.eval.table import Better, Row, Table
from onetrunk.nn.adapters import NO_ADAPTERS
from onetrunk.nn.universal import Universal
from onetrunk.report.floors import CONSTANT, Floors
from onetrunk.report.run_files import RunFiles, RunGroup
from onetrunk.report.verdict import TaskComparison, result_of

SHARING = {"none": "one network per domain", "full": "heads shared too"}


@dataclass(frozen=True)
class MeanMetric:
    """A metric beside the headline: its mean over seeds."""

    name: str
    unit: str
    value: float


@dataclass(frozen=True)
class Score:
    """The headline score of one task over a group's seeds, and its other metrics."""

    row: Row  # of the first seed: names, kind, unit, number of images
    estimate: Estimate
    others: tuple[MeanMetric, ...]

    @property
    def error(self) -> float:
        """The score as a number where lower is better."""
        return as_error(self.row.kind, self.estimate.value)


@dataclass(frozen=True)
class Column:
    """One run, or the runs of one recipe with several seeds."""

    name: str
    css: str  # the class that colours it
    description: str  # trunk, norm, sharing
    separate: bool  # one network per domain
    seeds: tuple[int, ...]
    finished: int  # number of finished runs
    scores: Mapping[Key, Score]
    budgets: Mapping[str, Budget] = field(default_factory=dict)  # by part; "" for one network
    comparisons: tuple[TaskComparison, ...] = ()
    mean_difference: Estimate | None = None  # of the errors in percent, over domains
    decathlon: tuple[float, ...] = ()  # by seed
    delta: tuple[float, ...] = ()  # by seed

    @property
    def cost(self) -> Cost | None:
        """The cost of all its networks; FLOPs are summed over one image of each domain."""
        return _total(budget.universal for budget in self.budgets.values())

    @property
    def separate_cost(self) -> Cost | None:
        """The cost of a separate network of the same trunk for each domain."""
        return _total(budget.separate for budget in self.budgets.values())

    def task_label(self, key: Key) -> str:
        """Return the task's name; "" if it is the domain's only task and named like its kind."""
        several = sum(domain == key[0] for domain, _ in self.scores) > 1
        return key[1] if several or key[1] != self.scores[key].row.kind else ""

    def mean_error(self, keys: Sequence[Key]) -> float:
        """Return the mean error in percent over these tasks."""
        return math.fsum(self.scores[key].estimate.value for key in keys) / len(keys)


def _total(costs: Iterable[Cost]) -> Cost | None:
    listed = list(costs)
    return sum(listed, Cost()) if listed else None


def column_of(
    group: RunGroup,
    css: str,
    baseline: RunGroup | None,
    models: Mapping[str, Universal],
    floors: Floors,
) -> Column:
    """Derive a column from a group's files and models."""
    different = {id(model): model for model in models.values()}
    parts = {next(iter(model.domains)): model for model in different.values()}
    return Column(
        name=group.name,
        css=css,
        description=describe(group.first),
        separate=group.separate,
        seeds=tuple(run.seed for run in group.runs),
        finished=len(group.finished),
        scores=scores_of(group),
        budgets={name: budget(model) for name, model in parts.items()},
        comparisons=compare(group, baseline, floors) if baseline else (),
        mean_difference=mean_difference(group, baseline) if baseline else None,
        decathlon=_decathlon(group, baseline) if baseline else (),
        delta=_delta(group, baseline) if baseline else (),
    )


def describe(run: RunFiles) -> str:
    """Describe the network of a recipe in a few words."""
    trunk = run.trunk
    if not run.recipe_text:
        return "predictions from another source"
    words = [str(trunk.get("arch", "")), f"norm {trunk.get('norm', 'domain')}"]
    sharing = str(trunk.get("sharing", "deep"))
    stages = ", ".join(map(str, trunk.get("own_stages") or ()))
    words.append(SHARING.get(sharing, f"own stages {stages}" if sharing == "partial" else ""))
    if trunk.get("adapters", NO_ADAPTERS) != NO_ADAPTERS:
        words.append(f"{trunk['adapters']} adapters")
    if trunk.get("pretrained"):
        words.append("pretrained")
    return ", ".join(word for word in words if word)


def scores_of(group: RunGroup) -> dict[Key, Score]:
    """Return the test scores by domain and task; empty if no run of the group is finished."""
    by_key: dict[Key, list[Row]] = {}
    for row in (row for table in group.tables for row in table.rows):
        by_key.setdefault((row.domain, row.task), []).append(row)
    scores: dict[Key, Score] = {}
    for key, rows in by_key.items():
        headlines = [row for row in rows if row.headline]
        others: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            if not row.headline:
                others.setdefault((row.metric, row.unit), []).append(row.value)
        if headlines:
            means = tuple(MeanMetric(*name, _mean(values)) for name, values in others.items())
            scores[key] = Score(headlines[0], over_seeds(headlines), means)
    return scores


def over_seeds(rows: Sequence[Row]) -> Estimate:
    """Return the mean over seeds; the ends of its interval are the means of the seeds' ends."""
    values = tuple(row.value for row in rows)
    intervals = [interval for row in rows if (interval := _interval(row)) is not None]
    if len(intervals) < len(rows):
        return Estimate(_mean(values), seeds=values)
    low, high = (_mean(ends) for ends in zip(*intervals, strict=True))
    return Estimate(_mean(values), low, high, values)


def _interval(row: Row) -> tuple[float, float] | None:
    """Return the interval in the table; for a share of images it follows from their number."""
    if row.low is not None and row.high is not None:
        return row.low, row.high
    if SCORES[row.kind].share_of_images and row.count:
        return wilson(row.value / 100, row.count)
    return None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


# -- comparisons with the baseline


def compare(group: RunGroup, baseline: RunGroup, floors: Floors) -> tuple[TaskComparison, ...]:
    """Compare every task that has a score on both sides."""
    ours, theirs = scores_of(group), scores_of(baseline)
    scales = scales_of(baseline, floors)
    comparisons = []
    for key, (difference, paired) in errors_between(group, baseline).items():
        margin = margin_of(theirs[key].error, scales[key])
        comparisons.append(
            TaskComparison(
                *key,
                ours[key].estimate,
                theirs[key].estimate,
                difference,
                margin,
                result_of(difference, margin),
                paired,
            )
        )
    return tuple(comparisons)


def scales_of(group: RunGroup, floors: Floors) -> dict[Key, float | None]:
    """Return the scale of each score of a group, see margins.py."""
    constant = scores_of(floors[CONSTANT]) if CONSTANT in floors else {}
    return {
        key: scale_of(score.row.unit, constant[key].error if key in constant else None)
        for key, score in scores_of(group).items()
    }


def errors_between(ours: RunGroup, theirs: RunGroup) -> dict[Key, tuple[Estimate, bool]]:
    """Return our error minus theirs of the tasks that both have, and whether images are paired."""
    left, right = scores_of(ours), scores_of(theirs)
    paired = _paired_differences(ours, theirs)
    return {
        key: (paired.get(key) or unpaired_difference(score, right[key]), key in paired)
        for key, score in left.items()
        if key in right and right[key].row.metric == score.row.metric
    }


def unpaired_difference(ours: Score, baseline: Score) -> Estimate:
    """Return the difference of two independent scores: half-widths of intervals add as squares."""
    value = ours.error - baseline.error
    halves = []
    for estimate in (ours.estimate, baseline.estimate):
        if estimate.low is None or estimate.high is None:
            return Estimate(value)
        halves.append((estimate.high - estimate.low) / 2)
    half = math.hypot(*halves)
    return Estimate(value, value - half, value + half)


def mean_difference(group: RunGroup, baseline: RunGroup) -> Estimate | None:
    """Return the mean difference of errors over the domains that both classify, paired by image."""
    sides = _common_outcomes(group, baseline)
    if sides is None:
        return None
    keys = [key for key, one in sides[0][0].tasks.items() if one.kind == "classify"]
    if len(keys) < 2:
        return None
    ours, theirs = (replicates(side) for side in sides)
    drawn = np.mean([ours[key] - theirs[key] for key in keys], axis=0)
    values = [
        math.fsum(run.tasks[key].headline() for run in side for key in keys) / len(side) / len(keys)
        for side in sides
    ]
    return Estimate(values[0] - values[1], *percentiles(drawn))


def _paired_differences(group: RunGroup, baseline: RunGroup) -> dict[Key, Estimate]:
    """Return differences of errors for tasks whose outcomes are known on both sides.

    Intervals of shares of images reach at least as far as those of Agresti & Min, because runs that
    agree on a few images need not be equally good.
    """
    sides = _common_outcomes(group, baseline)
    estimates = {}
    for d in differences(*sides) if sides else ():
        low, high, key = d.low, d.high, (d.domain, d.task)
        ours, theirs = ([run.tasks[key] for run in side] for side in sides or ())
        if SCORES[ours[0].kind].share_of_images:
            least = agresti_min(ours, theirs)
            low, high = min(low, least[0]), max(high, least[1])
        ends = (-high, -low) if d.better == "higher" else (low, high)
        estimates[key] = Estimate(-d.gain, *ends)
    return estimates


def _common_outcomes(
    group: RunGroup, baseline: RunGroup
) -> tuple[list[Outcomes], list[Outcomes]] | None:
    """Return both sides' outcomes, of the tasks that all runs have over the same images."""
    sides = []
    for each in (group, baseline):
        known = [run.outcomes for run in each.finished if run.outcomes is not None]
        if not known or len(known) < len(each.finished):
            return None
        sides.append(known)
    runs = [run for side in sides for run in side]
    first = runs[0]
    common = [
        key
        for key, one in first.tasks.items()
        if all(
            key in run.tasks
            and run.tasks[key].kind == one.kind
            and run.image_digests[key[0]] == first.image_digests[key[0]]
            for run in runs
        )
    ]
    if not common:
        return None
    ours, theirs = (
        [replace(run, tasks={key: run.tasks[key] for key in common}) for run in side]
        for side in sides
    )
    return ours, theirs


# -- summaries over domains


def common_classify_keys(columns: Sequence[Column]) -> list[Key]:
    """Return the classification tasks that have a score in every column."""
    return [
        key
        for key, score in columns[0].scores.items()
        if score.row.kind == "classify" and all(key in column.scores for column in columns)
    ]


def validation_error(group: RunGroup, reference: RunGroup) -> float | None:
    """Return the mean validation error over domains and seeds, by which runs are compared.

    Where units are mixed, each error is divided by the reference group's.
    """
    errors, base = _validation_errors(group), _validation_errors(reference)
    mixed = len({unit for unit, _ in errors.values()}) > 1
    if not errors or (mixed and errors.keys() - base.keys()):
        return None
    by_domain: dict[str, list[float]] = {}
    for key, (_, error) in errors.items():
        by_domain.setdefault(key[0], []).append(error / max(base[key][1], 1e-9) if mixed else error)
    return _mean([_mean(values) for values in by_domain.values()])


def _validation_errors(group: RunGroup) -> dict[Key, tuple[str, float]]:
    """Return the unit and the mean error over seeds, by domain and task."""
    errors: dict[Key, list[float]] = {}
    units: dict[Key, str] = {}
    for run in group.runs:
        for row in run.val.headlines() if run.val else ():
            errors.setdefault((row.domain, row.task), []).append(as_error(row.kind, row.value))
            units[row.domain, row.task] = f"{row.kind} {row.unit}" if row.unit != "%" else "%"
    return {key: (units[key], _mean(values)) for key, values in errors.items()}


def _decathlon(group: RunGroup, baseline: RunGroup) -> tuple[float, ...]:
    """Return the decathlon score of each seed against the baseline's mean errors."""
    by_domain: dict[str, list[float]] = {}
    for table in baseline.tables:
        for domain, error in table.errors().items():
            by_domain.setdefault(domain, []).append(error)
    theirs = {domain: _mean(errors) for domain, errors in by_domain.items()}
    counts = baseline.tables[0].counts() if baseline.tables else {}

    def score(table: Table) -> float:
        ours = {domain: error for domain, error in table.errors().items() if domain in theirs}
        return decathlon_score(ours, {d: theirs[d] for d in ours}, {d: counts[d] for d in ours})

    return _by_seed(group, score)


def _delta(group: RunGroup, baseline: RunGroup) -> tuple[float, ...]:
    """Return the mean relative gain Δ of each seed over the baseline's mean scores."""
    theirs = scores_of(baseline)

    def gain(table: Table) -> float:
        ours: dict[str, tuple[float, Better]] = {}
        base: dict[str, tuple[float, Better]] = {}
        for row in table.headlines():
            if other := theirs.get((row.domain, row.task)):
                name = f"{row.domain}/{row.task}"
                ours[name] = (row.value, row.better)
                base[name] = (other.estimate.value, row.better)
        return delta_mtl(ours, base)

    return _by_seed(group, gain)


def _by_seed(group: RunGroup, summary: Callable[[Table], float]) -> tuple[float, ...]:
    """Return a summary of each finished run; empty where it is not defined."""
    try:
        return tuple(summary(table) for table in group.tables)
    except BadInput:  # no task in common, or a baseline score of 0
        return ()
