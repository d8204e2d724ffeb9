"""Summaries: one number for many domains or tasks, against a stored baseline run.

Decathlon score (Rebuffi, Bilen & Vedaldi 2017): S = Σ_d 1000·(max(0, E_d^max − E_d)/E_d^max)², with
E_d^max twice the baseline's error; the baseline itself scores 250 a domain. Where the number n of
images is known, the baseline's error counts as at least that of half a wrong image, 100·0.5/n: a
baseline without any wrong image does not make every other network worthless.

Δ (Maninis, Radosavovic & Kokkinos 2019): 100/T·Σ_t (−1)^l_t·(M_t − B_t)/B_t, with l_t = 1 where
lower is better: the mean relative gain in percent over single-task networks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from onetrunk.errors import BadInput
from onetrunk.eval.table import Better, Row, Table, number, spaced

Errors = Table | Mapping[str, float]  # percent, by domain
Measured = Table | Mapping[str, tuple[float, Better]]  # by metric
HALF = 100 * 0.5  # of one image's error in percent
FULL = 1000.0  # points of a domain without any error


def decathlon_points(
    errors: Errors, baseline_errors: Errors, counts: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Each domain's part of the decathlon score."""
    mine, base = _errors(errors, "errors"), _errors(baseline_errors, "baseline_errors")
    _same(mine, base, "domains")
    for known in (baseline_errors, errors):
        if counts is None and isinstance(known, Table):
            counts = known.counts()
    points = {}
    for domain, error in mine.items():
        least = 0.0
        if counts is not None and domain in counts:
            if counts[domain] < 1:
                raise BadInput(f"{domain}: a count is at least one image", got=counts[domain])
            least = HALF / counts[domain]
        limit = 2 * max(base[domain], least)
        if limit == 0:
            raise BadInput(
                f"{domain}: a baseline without any error has no score to compare with",
                got="0 %",
                try_="give counts, the number of test images: half a wrong one is taken then",
            )
        points[domain] = FULL * (max(0.0, limit - error) / limit) ** 2
    return points


def decathlon_score(
    errors: Errors, baseline_errors: Errors, counts: Mapping[str, int] | None = None
) -> float:
    """The decathlon score S of errors in percent (tables, or by domain) against a baseline's.

    `counts`: images that the errors are of; a table knows its own.
    """
    return math.fsum(decathlon_points(errors, baseline_errors, counts).values())


def delta_parts(scores: Measured, baseline_scores: Measured) -> dict[str, float]:
    """Each task's relative gain over its baseline in percent; above 0 is better."""
    mine, base = _measured(scores, "scores"), _measured(baseline_scores, "baseline_scores")
    _same(mine, base, "metrics")
    gains = {}
    for name, (value, better) in mine.items():
        before, same = base[name]
        if better != same:
            raise BadInput(f"{name}: better is {better} here", got=f"{same} in the baseline")
        if before <= 0:
            raise BadInput(
                f"{name}: a gain is relative to a baseline above 0",
                got=before,
                try_="leave this metric out of both",
            )
        gains[name] = 100 * (value - before) / before * (1 if better == "higher" else -1)
    return gains


def delta_mtl(scores: Measured, baseline_scores: Measured) -> float:
    """Δ in percent over tasks: headlines of tables, or {metric: (value, "higher" | "lower")}."""
    gains = delta_parts(scores, baseline_scores)
    return math.fsum(gains.values()) / len(gains)


def _errors(given: Errors, what: str) -> dict[str, float]:
    errors = given.errors() if isinstance(given, Table) else dict(given)
    if not errors:
        raise BadInput(f"{what}: expected at least one domain that classifies", got="none")
    for domain, error in errors.items():
        if not (isinstance(error, int | float) and 0 <= error <= 100):
            raise BadInput(f"{what}: {domain}: an error is 0 to 100 percent", got=error)
    return errors


def _measured(given: Measured, what: str) -> dict[str, tuple[float, Better]]:
    if isinstance(given, Table):
        given = {f"{r.domain}/{r.task}/{r.metric}": (r.value, r.better) for r in given.headlines()}
    if not given:
        raise BadInput(f"{what}: expected at least one metric", got="none")
    measured: dict[str, tuple[float, Better]] = {}
    for name, pair in given.items():
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise BadInput(f"{what}: {name}: expected (value, 'higher' or 'lower')", got=pair)
        value, better = pair
        if better not in ("higher", "lower"):
            raise BadInput(f"{what}: {name}: better is", got=better, available=("higher", "lower"))
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise BadInput(f"{what}: {name}: expected a finite number", got=value)
        measured[name] = (float(value), better)
    return measured


def _same(mine: Collection[str], base: Collection[str], what: str) -> None:
    """Sums over unequal sets would compare nothing."""
    for sets, where in (
        ((mine, base), "only on this side"),
        ((base, mine), "only on the other"),
    ):
        more = [name for name in sets[0] if name not in sets[1]]
        if more:
            raise BadInput(
                f"both sides have the same {what}",
                got=f"{where} {', '.join(more)}",
                available=[name for name in mine if name in base],
                try_="evaluate both on the same, or leave these out of both",
            )


@dataclass(frozen=True)
class Spread:
    """One metric over several seeds: its mean, and its standard deviation from seed to seed."""

    row: Row  # of the first seed: domain, task, metric, unit
    mean: float
    std: float  # √(Σ(x − mean)²/(S − 1)); 0 for one seed, of which nothing is known
    seeds: int

    @property
    def shown(self) -> str:
        """`4.21 ± 0.30 % (3 seeds)`"""
        mean, std = (number(value, self.row.unit) for value in (self.mean, self.std))
        if self.seeds == 1:
            return f"{mean}{spaced(self.row.unit)} (1 seed)"
        return f"{mean} ± {std}{spaced(self.row.unit)} ({self.seeds} seeds)"


def spread(tables: Sequence[Table]) -> tuple[Spread, ...]:
    """Every metric over the tables of several seeds, which have the same rows."""
    if not tables:
        raise BadInput("expected at least one table", got="none")
    seeds = [{(r.domain, r.task, r.metric): r for r in table.rows} for table in tables]
    for other in seeds[1:]:
        _same(["/".join(key) for key in seeds[0]], ["/".join(key) for key in other], "rows")
    found = []
    for key, row in seeds[0].items():
        values = [seed[key].value for seed in seeds]
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        std = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0
        found.append(Spread(row, mean, std, len(values)))
    return tuple(found)
