"""The choice by validation: smaller first, larger only by more than the standard error."""

from __future__ import annotations

import numpy as np
import pytest

from onetrunk.eval.outcomes import Outcomes, TaskOutcomes
from onetrunk.eval.table import Row
from onetrunk.runs.unify.choice import Candidate, Scale, choose, lost_domains

IMAGES = 400


def candidate(name: str, size: int, **errors: float) -> Candidate:
    """A candidate with these errors in percent; the first images of each domain are wrong."""
    rows, tasks = [], {}
    for domain, error in errors.items():
        wrong = np.arange(IMAGES) < round(error / 100 * IMAGES)
        arrays = {"sum": wrong.astype(float), "count": np.ones(IMAGES)}
        tasks[domain, "classify"] = TaskOutcomes("classify", arrays)
        rows.append(
            Row(domain, "classify", "error", 100 * wrong.mean(), IMAGES, "classify", "%",
                headline=True)
        )  # fmt: skip
    digests = dict.fromkeys(errors, "same")
    return Candidate(name, size, rows, Outcomes("val", tasks, digests))


SPECIALISTS = candidate("specialists", 300, one=10.0, two=20.0)
SCALE = Scale(SPECIALISTS)


def test_of_equal_size_the_lower_error_is_chosen() -> None:
    joint = candidate("joint", 100, one=12.0, two=20.0)
    distilled = candidate("distilled", 100, one=11.0, two=20.0)
    for order in ([joint, distilled], [distilled, joint]):
        choice = choose(order, SCALE)
        assert choice.candidate is distilled
        assert len(choice.reasons) == 1


@pytest.mark.parametrize(("error", "wins"), [(11.75, False), (8.0, True)])
def test_a_larger_network_has_to_win_by_more_than_the_standard_error(
    error: float, wins: bool
) -> None:
    small = candidate("distilled", 100, one=12.0, two=20.0)
    large = candidate("adapters", 150, one=error, two=20.0)
    found = SCALE.compare(large, small)
    assert found.difference == pytest.approx((error - 12.0) / 2)
    # k images of n differ in one of two domains: sqrt(p(1 - p)/n)/2
    share = (12.0 - error) / 100
    expected = 100 * np.sqrt(share * (1 - share) / IMAGES) / 2
    assert found.standard_error == pytest.approx(expected, rel=0.15)
    assert (choose([small, large], SCALE).candidate is large) == wins


def test_domains_that_lose_by_more_than_the_margin() -> None:
    one = candidate("one", 100, one=14.0, two=20.5)
    lost = lost_domains(one, SPECIALISTS, SCALE)
    assert list(lost) == ["one"]
    assert "14.00" in lost["one"] and "10.00" in lost["one"]
    assert lost_domains(SPECIALISTS, SPECIALISTS, SCALE) == {}


def test_kinds_that_differ_are_compared_with_the_specialists() -> None:
    def mixed(name: str, error: float, iou: float) -> Candidate:
        rows = [
            Row("one", "classify", "error", error, 10, "classify", "%", headline=True),
            Row("two", "segment", "miou", iou, 10, "segment", "%", "higher", headline=True),
        ]
        return Candidate(name, 1, rows, Outcomes("val", {}, {}))

    specialists = mixed("specialists", 10.0, 60.0)
    scale = Scale(specialists)
    assert scale.mixed
    assert scale.score(specialists) == pytest.approx(1.0)
    # a fifth worse on one, a tenth better on the other
    assert scale.score(mixed("other", 12.0, 64.0)) == pytest.approx((1.2 + 0.9) / 2)
