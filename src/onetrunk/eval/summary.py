"""Summary scores over domains or tasks, relative to a baseline run.

Decathlon score (Rebuffi, Bilen & Vedaldi 2017): S = Σ_d 1000·(max(0, E_d^max − E_d)/E_d^max)², with
E_d^max twice the baseline's error; the baseline itself has 250 points per domain. If the number n
of images is known, the baseline's error counts as at least that of half a wrong image, 100·0.5/n,
so that a baseline without errors does not reduce all other networks to 0.

Δ (Maninis, Radosavovic & Kokkinos 2019): 100/T·Σ_t (−1)^l_t·(M_t − B_t)/B_t, with l_t = 1 where
lower is better: the mean relative gain in percent over single-task networks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from onetrunk.errors import BadInput
from onetrunk.eval.table import Better, Table

Errors = Table | Mapping[str, float]  # percent, by domain
Scores = Table | Mapping[str, tuple[float, Better]]  # by metric
HALF_IMAGE = 100 * 0.5  # the error of half an image, in percent, times the number of images
MAX_POINTS = 1000.0  # for a domain without errors


def decathlon_points(
    errors: Errors, baseline_errors: Errors, counts: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Return the points of each domain in the decathlon score."""
    ours, base = _errors(errors, "errors"), _errors(baseline_errors, "baseline_errors")
    _check_same(ours, base, "domains")
    for given in (baseline_errors, errors):
        if counts is None and isinstance(given, Table):
            counts = given.counts()
    points = {}
    for domain, error in ours.items():
        least = 0.0
        if counts is not None and domain in counts:
            if counts[domain] < 1:
                raise BadInput(f"expected at least 1 image of {domain}", got=counts[domain])
            least = HALF_IMAGE / counts[domain]
        limit = 2 * max(base[domain], least)
        if limit == 0:
            raise BadInput(
                f"the decathlon score is undefined for {domain}, whose baseline error is 0",
                got="0 %",
                try_="give counts, the numbers of test images, so that half a wrong image counts",
            )
        points[domain] = MAX_POINTS * (max(0.0, limit - error) / limit) ** 2
    return points


def decathlon_score(
    errors: Errors, baseline_errors: Errors, counts: Mapping[str, int] | None = None
) -> float:
    """Return the decathlon score S relative to a baseline.

    Args:
        errors: A table, or errors in percent by domain.
        baseline_errors: The same of the baseline.
        counts: The number of test images by domain; tables contain it.
    """
    return math.fsum(decathlon_points(errors, baseline_errors, counts).values())


def delta_parts(scores: Scores, baseline_scores: Scores) -> dict[str, float]:
    """Return each task's relative gain over the baseline in percent; above 0 is better."""
    ours, base = _scores(scores, "scores"), _scores(baseline_scores, "baseline_scores")
    _check_same(ours, base, "metrics")
    gains = {}
    for name, (value, better) in ours.items():
        before, same = base[name]
        if better != same:
            raise BadInput(
                f"expected the same direction of {name} in both", got=f"{better} and {same}"
            )
        if before <= 0:
            raise BadInput(
                f"expected a baseline above 0 for {name}, because the gain is relative to it",
                got=before,
                try_="leave this metric out on both sides",
            )
        gains[name] = 100 * (value - before) / before * (1 if better == "higher" else -1)
    return gains


def delta_mtl(scores: Scores, baseline_scores: Scores) -> float:
    """Return Δ in percent over tasks.

    Args:
        scores: A table, of which the headlines count, or {metric: (value, "higher" or "lower")}.
        baseline_scores: The same of the baseline.
    """
    gains = delta_parts(scores, baseline_scores)
    return math.fsum(gains.values()) / len(gains)


def _errors(given: Errors, argument: str) -> dict[str, float]:
    errors = given.errors() if isinstance(given, Table) else dict(given)
    if not errors:
        raise BadInput(f"expected at least one classification domain in {argument}", got="none")
    for domain, error in errors.items():
        if not (isinstance(error, int | float) and 0 <= error <= 100):
            raise BadInput(f"expected 0 to 100 percent for {domain} in {argument}", got=error)
    return errors


def _scores(given: Scores, argument: str) -> dict[str, tuple[float, Better]]:
    if isinstance(given, Table):
        given = {f"{r.domain}/{r.task}/{r.metric}": (r.value, r.better) for r in given.headlines()}
    if not given:
        raise BadInput(f"expected at least one metric in {argument}", got="none")
    scores: dict[str, tuple[float, Better]] = {}
    for name, pair in given.items():
        where = f"for {name} in {argument}"
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise BadInput(f"expected (value, 'higher' or 'lower') {where}", got=pair)
        value, better = pair
        if better not in ("higher", "lower"):
            raise BadInput(
                f"expected a direction {where}", got=better, available=("higher", "lower")
            )
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise BadInput(f"expected a finite number {where}", got=value)
        scores[name] = (float(value), better)
    return scores


def _check_same(ours: Collection[str], base: Collection[str], things: str) -> None:
    """Refuse sums over different sets, which cannot be compared."""
    for names, others, where in ((ours, base, "the baseline"), (base, ours, "ours")):
        missing = [name for name in names if name not in others]
        if missing:
            raise BadInput(
                f"expected the same {things} on both sides, but some are missing in {where}",
                got=", ".join(missing),
                available=[name for name in ours if name in base],
                try_="evaluate both on the same, or leave these out on both sides",
            )
