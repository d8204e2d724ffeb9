"""Bootstrap intervals (Efron 1979), and differences of runs on the same images.

A replicate draws with replacement as many images of a domain as it has. Draws depend on (seed,
domain, number of images) only, so two runs over the same images have the same draws: differences
of their replicates are the paired bootstrap, in which images that are hard for both cancel. The
seeds of a run are drawn too, as many as there are; sides with the same number of seeds have the
same draws.
(With S seeds the variance between seeds is too small by the factor (S − 1)/S. It is also too small
where several images show one object, because single images are drawn.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onetrunk.data.seeded import seed_of
from onetrunk.errors import BadInput
from onetrunk.eval.metrics import SCORES, headline
from onetrunk.eval.metrics.scores import F64
from onetrunk.eval.outcomes import Key, Outcomes, TaskOutcomes
from onetrunk.eval.table import Better

DRAWS = 1000
MAX_UNITS = 10_000  # of more images, random groups are drawn
CELLS = 2**22  # weights in memory at a time
Z = 1.959963984540054  # of 95 %
Runs = Outcomes | Sequence[Outcomes]


@dataclass(frozen=True)
class Difference:
    """The headline of our runs minus that of theirs, with its 95 % interval."""

    domain: str
    task: str
    metric: str
    unit: str
    better: Better
    ours: float
    theirs: float
    low: float
    high: float
    images: int
    seeds: tuple[int, int]  # numbers of runs: ours, theirs

    @property
    def value(self) -> float:
        """Ours minus theirs."""
        return self.ours - self.theirs

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return not self.low <= 0 <= self.high

    @property
    def gain(self) -> float:
        """How much better ours is; negative if it is worse."""
        return self.value if self.better == "higher" else -self.value


def interval(
    domain: str, outcomes: TaskOutcomes, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of one task's headline in one run.

    For a share of images (error, recall) it is Wilson's (1927), which is also valid for few images
    and without errors, where the bootstrap gives 0 to 0. For the others it is from the 2.5th to the
    97.5th percentile of the bootstrap, in which the unit of an nrmse, the standard deviation of all
    targets, is kept.
    """
    if SCORES[outcomes.kind].share_of_images:
        return wilson(outcomes.headline() / 100, outcomes.images)
    return percentiles(_bootstrap(domain, [outcomes], draws, seed)[0])


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's score interval of a share of `count` images, in percent."""
    shrink = 1 + Z * Z / count
    centre = (share + Z * Z / (2 * count)) / shrink
    half = Z / shrink * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return 100 * min(max(0.0, centre - half), share), 100 * max(min(1.0, centre + half), share)


def percentiles(replicates: F64) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile, ignoring NaN: replicates in which no image counts."""
    low, high = np.nanpercentile(replicates, (2.5, 97.5))
    return float(low), float(high)


def replicates(runs: Runs, draws: int = DRAWS, seed: int = 0) -> dict[Key, F64]:
    """Return bootstrap replicates of each task's headline, (draws,), the mean over a run's seeds.

    They give intervals of any function of the headlines: a mean, a decathlon score, a Δ.
    """
    listed = _list_runs(runs)
    rng = np.random.default_rng(seed_of(seed, "seeds", len(listed)))
    picked = rng.integers(0, len(listed), (draws, len(listed)))
    by_task: dict[Key, F64] = {}
    for domain in listed[0].domains:
        for task, _ in listed[0].of(domain):
            outcomes = [run.tasks[domain, task] for run in listed]
            headlines = _bootstrap(domain, outcomes, draws, seed)
            by_task[domain, task] = headlines[picked, np.arange(draws)[:, None]].mean(1)
    return by_task


def differences(ours: Runs, theirs: Runs, draws: int = DRAWS, seed: int = 0) -> list[Difference]:
    """Return the headlines of ours minus theirs, by task, over the same images: a paired bootstrap.

    Each side is one run or several seeds of one. Tasks that only one side has are left out.
    """
    left, right = _list_runs(ours), _list_runs(theirs)
    common = [key for key in left[0].tasks if key in right[0].tasks]
    if not common:
        raise BadInput(
            "the runs have no task in common",
            got=", ".join("/".join(key) for key in right[0].tasks),
            available=["/".join(key) for key in left[0].tasks],
        )
    for domain in dict.fromkeys(domain for domain, _ in common):
        _check_same_images(domain, left[0], right[0])
    our_replicates, their_replicates = replicates(left, draws, seed), replicates(right, draws, seed)
    result = []
    for key in common:
        kind, other = left[0].tasks[key].kind, right[0].tasks[key].kind
        if other != kind:
            raise BadInput(f"{'/'.join(key)}: expected tasks of one kind", got=f"{kind}, {other}")
        metric = headline(kind)
        low, high = percentiles(our_replicates[key] - their_replicates[key])
        sums = [math.fsum(run.tasks[key].headline() for run in side) for side in (left, right)]
        result.append(
            Difference(
                *key,
                metric.name,
                metric.unit,
                metric.better,
                ours=sums[0] / len(left),
                theirs=sums[1] / len(right),
                low=low,
                high=high,
                images=left[0].tasks[key].images,
                seeds=(len(left), len(right)),
            )
        )
    return result


def agresti_min(
    ours: Sequence[TaskOutcomes], theirs: Sequence[TaskOutcomes]
) -> tuple[float, float]:
    """Return the 95 % interval of our share of images minus theirs, in percent.

    It is that of Agresti & Min (2005), which counts half an image more for each of the four
    outcomes of a pair. Two different networks that differ on few images, or on none, may differ on
    others: the bootstrap, which draws from these images alone, gives 0 to 0 without a difference.

    Args:
        ours: The outcomes of each seed, over the images of `theirs`.
    """
    left, right = _shares(ours), _shares(theirs)
    d = (left - right)[np.isfinite(left) & np.isfinite(right)]
    count, total = len(d) + 2, float(d.sum())
    half = Z * math.sqrt(float((d * d).sum()) + 1 - total * total / count)
    return 100 * (total - half) / count, 100 * (total + half) / count


def _shares(runs: Sequence[TaskOutcomes]) -> F64:
    """Return what each image adds to a share, the mean over seeds; NaN if it does not count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        each = [run.arrays["sum"] / run.arrays["count"] for run in runs]
    mean: F64 = np.mean(each, axis=0)
    return mean


def _list_runs(runs: Runs) -> list[Outcomes]:
    """Return the seeds of one run, after checking that they have the same tasks and images."""
    listed = [runs] if isinstance(runs, Outcomes) else list(runs)
    if not listed:
        raise BadInput("expected the outcomes of at least one run", got="none")
    for run in listed[1:]:
        unmatched = set(run.tasks) ^ set(listed[0].tasks)
        if unmatched:
            raise BadInput(
                "expected all seeds of a run to have the same tasks",
                got=", ".join("/".join(key) for key in sorted(unmatched)),
            )
        for domain in run.domains:
            _check_same_images(domain, listed[0], run)
    return listed


def _check_same_images(domain: str, left: Outcomes, right: Outcomes) -> None:
    same = left.image_digests[domain] == right.image_digests[domain]
    if left.split != right.split or not same:
        sizes = [len(next(run.of(domain))[1]) for run in (left, right)]
        raise BadInput(
            f"{domain}: expected runs that were evaluated on the same images",
            got=f"{sizes[0]} {left.split} and {sizes[1]} {right.split} images, not the same",
            try_="evaluate both on one source with the same splits",
        )


def _bootstrap(domain: str, runs: Sequence[TaskOutcomes], draws: int, seed: int) -> F64:
    """Return each run's headline in each replicate, (runs, draws)."""
    columns = np.concatenate([run.columns() for run in runs], 1)
    if len(columns) > MAX_UNITS:
        columns = _sum_groups(columns)
    ends = np.cumsum([run.columns().shape[1] for run in runs])[:-1]
    headlines: list[list[F64]] = [[] for _ in runs]
    for weights in _weights(seed_of(seed, domain, len(runs[0])), len(columns), draws):
        sums_by_run = np.split(weights @ columns, ends, axis=1)
        for values, run, sums in zip(headlines, runs, sums_by_run, strict=True):
            values.append(run.headlines(sums))
    return np.stack([np.concatenate(values) for values in headlines])


def _sum_groups(columns: F64) -> F64:
    """Return sums over MAX_UNITS random groups of nearly equal size.

    A mean over drawn groups varies like one over drawn images, and costs no more than MAX_UNITS
    images do.
    """
    order = np.random.default_rng(len(columns)).permutation(len(columns))
    starts = np.linspace(0, len(columns), MAX_UNITS, endpoint=False).astype(np.int64)
    sums: F64 = np.add.reduceat(columns[order], starts, axis=0)
    return sums


def _weights(seed: int, count: int, draws: int) -> Iterator[F64]:
    """Iterate over blocks of draws: how often each of `count` units is drawn, (rows, count)."""
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // count)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(float)
