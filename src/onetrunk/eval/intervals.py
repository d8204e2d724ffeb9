"""Intervals by drawing images again (Efron 1979), and differences of runs on the same images.

A draw takes as many images of a domain as there are, with replacement. Draws depend on (seed,
domain, number of images) alone, so two runs that saw the same images are drawn alike: a difference
of their draws is the paired bootstrap, and what both find hard does not blur it. Several seeds of a
run are drawn too, as often as there are; the same draws on both sides where both have as many.
(From few seeds this says too little spread: by (S − 1)/S in variance. So does drawing single images
where several show one thing.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onetrunk.data.seeded import seed_of
from onetrunk.errors import BadInput
from onetrunk.eval.accumulator import F64
from onetrunk.eval.metrics import headline
from onetrunk.eval.outcomes import Key, Outcomes, Part
from onetrunk.eval.table import Better

DRAWS = 1000
MOST = 10_000  # units that are drawn; more images than that are drawn in groups made by chance
CELLS = 2**22  # weights that are held at once
Z = 1.959963984540054  # of 95 %
Runs = Outcomes | Sequence[Outcomes]


@dataclass(frozen=True)
class Difference:
    """Headline of our runs minus that of theirs, with its 95 % interval."""

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
    seeds: tuple[int, int]  # runs on either side

    @property
    def value(self) -> float:
        """Ours minus theirs."""
        return self.ours - self.theirs

    @property
    def clear(self) -> bool:
        """Does the interval leave out 0?"""
        return not self.low <= 0 <= self.high

    @property
    def gain(self) -> float:
        """How much better ours is; below 0: worse."""
        return self.value if self.better == "higher" else -self.value


def interval(domain: str, part: Part, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of one task's headline in one run.

    Of a share of images (error, recall) it is Wilson's (1927), which holds for few images and for
    none wrong, where drawing again could only say 0 to 0; of the others it goes from the 2.5th to
    the 97.5th percentile of the draws. (An nrmse stays in deviations of these very targets.)
    """
    if part.kind in ("classify", "embed"):
        return wilson(part.headline() / 100, part.images)
    found = _drawn(domain, [part], draws, seed)[0]
    return percentiles(found)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share of `count` images, in percent."""
    shrink = 1 + Z * Z / count
    centre = (share + Z * Z / (2 * count)) / shrink
    half = Z / shrink * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return 100 * min(max(0.0, centre - half), share), 100 * max(min(1.0, centre + half), share)


def percentiles(found: F64) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the draws; those in which nothing counted are left out."""
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return float(low), float(high)


def replicates(runs: Runs, draws: int = DRAWS, seed: int = 0) -> dict[Key, F64]:
    """Draws of each task's headline, mean over a run's seeds: (draws,) by domain and task.

    For intervals of whatever is made of them: their mean, a decathlon score, a Δ.
    """
    several = _listed(runs)
    chance = np.random.default_rng(seed_of(seed, "seeds", len(several)))
    picked = chance.integers(0, len(several), (draws, len(several)))
    found: dict[Key, F64] = {}
    for domain in several[0].domains:
        for task, _ in several[0].of(domain):
            parts = [run.parts[domain, task] for run in several]
            drawn = _drawn(domain, parts, draws, seed)
            found[domain, task] = drawn[picked, np.arange(draws)[:, None]].mean(1)
    return found


def differences(ours: Runs, theirs: Runs, draws: int = DRAWS, seed: int = 0) -> list[Difference]:
    """Headlines of ours minus theirs, task by task, over the same images: a paired bootstrap.

    Either side is one run or several seeds of one. Tasks that only one side has are left out.
    """
    left, right = _listed(ours), _listed(theirs)
    common = [key for key in left[0].parts if key in right[0].parts]
    if not common:
        raise BadInput(
            "both sides have no task in common",
            got=", ".join("/".join(key) for key in right[0].parts),
            available=["/".join(key) for key in left[0].parts],
        )
    for domain in dict.fromkeys(domain for domain, _ in common):
        _same_images(domain, left[0], right[0])
    mine, base = replicates(left, draws, seed), replicates(right, draws, seed)
    found = []
    for key in common:
        part = left[0].parts[key]
        if right[0].parts[key].kind != part.kind:
            raise BadInput(f"{'/'.join(key)}: of one kind", got=right[0].parts[key].kind)
        metric = headline(part.kind)
        low, high = percentiles(mine[key] - base[key])
        either = [math.fsum(r.parts[key].headline() for r in side) for side in (left, right)]
        found.append(
            Difference(
                *key,
                metric.name,
                metric.unit,
                metric.better,
                either[0] / len(left),
                either[1] / len(right),
                low,
                high,
                part.images,
                (len(left), len(right)),
            )
        )
    return found


def _listed(runs: Runs) -> list[Outcomes]:
    """Seeds of one run: the same tasks over the same images."""
    several = [runs] if isinstance(runs, Outcomes) else list(runs)
    if not several:
        raise BadInput("expected the outcomes of at least one run", got="none")
    for run in several[1:]:
        if set(run.parts) != set(several[0].parts):
            more = set(run.parts) ^ set(several[0].parts)
            raise BadInput(
                "seeds of one run have the same tasks",
                got=", ".join("/".join(key) for key in sorted(more)),
            )
        for domain in run.domains:
            _same_images(domain, several[0], run)
    return several


def _same_images(domain: str, left: Outcomes, right: Outcomes) -> None:
    if left.split != right.split or left.names[domain] != right.names[domain]:
        sizes = [len(next(run.of(domain))[1]) for run in (left, right)]
        raise BadInput(
            f"{domain}: runs are compared on the same images",
            got=f"{sizes[0]} {left.split} and {sizes[1]} {right.split} images, not the same",
            try_="evaluate both on one source with the same splits",
        )


def _drawn(domain: str, parts: Sequence[Part], draws: int, seed: int) -> Any:
    """(runs, draws): the headline of each part in each draw."""
    columns = np.concatenate([part.columns() for part in parts], 1)
    if len(columns) > MOST:
        columns = _grouped(columns)
    ends = np.cumsum([part.columns().shape[1] for part in parts])[:-1]
    found: list[list[F64]] = [[] for _ in parts]
    for weights in _weights(seed_of(seed, domain, len(parts[0])), len(columns), draws):
        for one, part, sums in zip(
            found, parts, np.split(weights @ columns, ends, axis=1), strict=True
        ):
            one.append(part.headlines(sums))
    return np.stack([np.concatenate(one) for one in found])


def _grouped(columns: F64) -> F64:
    """Sums over MOST groups of nearly equal size, made by chance.

    A mean over drawn groups varies as one over drawn images does, and draws cost no more than for
    MOST images.
    """
    order = np.random.default_rng(len(columns)).permutation(len(columns))
    starts = np.linspace(0, len(columns), MOST, endpoint=False).astype(np.int64)
    sums: F64 = np.add.reduceat(columns[order], starts, axis=0)
    return sums


def _weights(seed: int, count: int, draws: int) -> Iterator[F64]:
    """How often each of `count` units is drawn, some draws at a time."""
    chance = np.random.default_rng(seed)
    step = max(1, CELLS // count)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = chance.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(float)
