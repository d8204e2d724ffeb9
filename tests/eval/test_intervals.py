"""Intervals: textbook ones where there are any, and what pairing is for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onetrunk.errors import BadInput
from onetrunk.eval import intervals
from onetrunk.eval.intervals import differences, interval, replicates, wilson
from onetrunk.eval.outcomes import Outcomes, Part
from tests.helpers.making import made, scored

Array = np.ndarray[Any, Any]


def shares(wrong: Array, kind: str = "classify", counted: Array | None = None) -> Part:
    counts = np.ones(len(wrong)) if counted is None else counted
    return Part(kind, {"sum": wrong.astype(float) * counts, "count": counts})


def of(parts: Mapping[str, Part], names: str = "same", split: str = "test") -> Outcomes:
    return Outcomes(split, {(d, "t"): p for d, p in parts.items()}, dict.fromkeys(parts, names))


def test_wilson_as_in_the_books() -> None:
    assert wilson(0.1, 100) == pytest.approx((5.5229, 17.4366), abs=1e-3)
    assert wilson(0, 100) == pytest.approx((0, 3.6995), abs=1e-3)
    assert wilson(1, 10) == pytest.approx((72.2467, 100), abs=1e-3)


@given(st.floats(0, 1), st.integers(1, 10**7))
def test_an_interval_holds_its_share(share: float, count: int) -> None:
    low, high = wilson(share, count)
    assert 0 <= low <= 100 * share <= high <= 100
    narrow = wilson(share, 4 * count)
    assert narrow[1] - narrow[0] < high - low


def test_an_error_has_wilsons_interval_over_labelled_images() -> None:
    wrong = np.arange(200) < 20
    counted = (np.arange(200) % 2 == 0).astype(float)
    assert interval("d", shares(wrong, counted=counted)) == wilson(0.1, 100)


@pytest.mark.parametrize("count", [400, 25_000])
def test_a_mean_has_the_interval_of_its_deviation(count: int) -> None:
    """1.96·σ/√n, also where images are drawn in groups."""
    values = np.random.default_rng(1).gamma(2.0, 1.0, count)
    low, high = interval("d", shares(values, "depth"), draws=2000)
    half = 1.96 * values.std() / count**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.15 * half)


@pytest.mark.parametrize("kind", ["regress", "segment", "depth", "normals"])
def test_draws_are_scores_of_drawn_images(kind: str) -> None:
    """Each draw is what the slow way gives: the scores of the images that it took."""
    out, target = made(kind, 12)
    scores = scored(kind, out, target)
    part = Part(kind, scores.parts())
    found = replicates(of({"d": part}), draws=5)["d", "t"]
    weights = np.concatenate(list(intervals._weights(intervals.seed_of(0, "d", 12), 12, 5)))
    assert weights.sum(1).tolist() == [12] * 5
    for value, weight in zip(found, weights.astype(int), strict=True):
        taken = np.repeat(np.arange(12), weight)
        again = scored(kind, out[taken], target[taken]).compute()
        if kind == "regress":  # deviations stay those of all targets
            off = (out - target).double().numpy()[taken]
            off = off[~np.isnan(off[:, 0])]
            std = scores.stds()  # type: ignore[attr-defined]
            assert value == pytest.approx((np.sqrt((off**2).mean(0)) / std).mean())
        else:
            assert value == pytest.approx(next(iter(again.values())))


def test_draws_depend_on_seed_domain_and_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    a, b = (shares(chance.random(300) < 0.2) for _ in range(2))
    alone = replicates(of({"x": a}))["x", "t"]
    assert np.array_equal(replicates(of({"y": b, "x": a}))["x", "t"], alone)
    assert not np.array_equal(replicates(of({"x": a}), seed=1)["x", "t"], alone)
    assert not np.array_equal(replicates(of({"z": a}))["z", "t"], alone)
    monkeypatch.setattr(intervals, "CELLS", 700)
    assert np.allclose(replicates(of({"x": a}))["x", "t"], alone)


def test_pairing_takes_out_what_both_find_hard() -> None:
    chance = np.random.default_rng(0)
    hard = chance.random(1000) < 0.3
    worse = hard | (chance.random(1000) < 0.02)
    (found,) = differences(of({"d": shares(worse)}), of({"d": shares(hard)}))
    gap = worse.astype(float) - hard
    half = 1.96 * 100 * gap.std() / 1000**0.5
    assert found.value == pytest.approx(100 * gap.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.low > 0 and found.clear and found.gain < 0
    alone = interval("d", shares(hard))
    assert found.high - found.low < (alone[1] - alone[0]) / 2
    assert (found.metric, found.unit, found.images, found.seeds) == ("error", "%", 1000, (1, 1))
    (same,) = differences(of({"d": shares(hard)}), of({"d": shares(hard)}))
    assert (same.value, same.low, same.high, same.clear) == (0, 0, 0, False)


def test_either_way_round() -> None:
    chance = np.random.default_rng(3)
    a, b = (of({"d": shares(chance.random(300) < p, "embed")}) for p in (0.6, 0.5))
    (one,), (other,) = differences(a, b), differences(b, a)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.better == "higher" and one.gain == one.value


def test_seeds_are_drawn_too() -> None:
    """Runs that differ from seed to seed by more than images can explain."""
    chance = np.random.default_rng(0)
    runs = [of({"d": shares(chance.random(4000) < p)}) for p in (0.1, 0.2, 0.3)]
    drawn = replicates(runs)["d", "t"]
    means = np.mean([run.parts["d", "t"].headline() for run in runs])
    assert drawn.mean() == pytest.approx(means, abs=0.6)
    assert drawn.std() > 10 * replicates(runs[0])["d", "t"].std() / 3
    (found,) = differences(runs, runs[1])
    assert found.seeds == (3, 1) and not found.clear
    (same,) = differences(runs, runs)  # as many on both sides: drawn alike
    assert (same.low, same.high) == (0, 0)


def test_images_without_a_label_that_are_drawn_alone() -> None:
    counted = np.zeros(6)
    counted[0] = 1
    low, high = interval("d", shares(np.full(6, 2.5), "depth", counted))
    assert (low, high) == (2.5, 2.5)


REFUSED: dict[str, Any] = {
    "no run": (lambda a: differences([], a), "at least one run"),
    "other images": (
        lambda a: differences(a, replace(a, names={"d": "others"})),
        "d: runs are compared on the same images; got: '50 test and 50 test images, not the same'",
    ),
    "another split": (lambda a: differences(a, replace(a, split="val")), "50 test and 50 val"),
    "other tasks": (
        lambda a: differences(a, of({"e": a.parts["d", "t"]})),
        "no task in common; got: 'e/t'; available: d/t",
    ),
    "seeds of other tasks": (
        lambda a: replicates([a, of({"d": a.parts["d", "t"], "e": a.parts["d", "t"]})]),
        "seeds of one run have the same tasks; got: 'e/t'",
    ),
    "seeds of other images": (
        lambda a: replicates([a, of({"d": a.parts["d", "t"]}, "others")]),
        "on the same images",
    ),
    "another kind": (
        lambda a: differences(a, of({"d": replace(a.parts["d", "t"], kind="embed")})),
        "d/t: of one kind; got: 'embed'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    call, says = REFUSED[case]
    with pytest.raises(BadInput, match=says):
        call(of({"d": shares(np.arange(50) < 5)}))


def test_tasks_of_one_side_alone_are_left_out() -> None:
    part = shares(np.arange(50) < 5)
    found = differences(of({"d": part, "e": part}), of({"d": part}))
    assert [one.domain for one in found] == ["d"]
