"""Intervals and paired differences: textbook values, slow references, and bad input."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onetrunk.data.seeded import seed_of
from onetrunk.errors import BadInput
from onetrunk.eval import intervals
from onetrunk.eval.intervals import agresti_min, differences, interval, replicates, wilson
from onetrunk.eval.outcomes import Outcomes, TaskOutcomes
from tests.helpers.errors import raises
from tests.helpers.outputs import random_outputs, scored

Array = np.ndarray[Any, Any]


def task_outcomes(
    wrong: Array, kind: str = "classify", counted: Array | None = None
) -> TaskOutcomes:
    counts = np.ones(len(wrong)) if counted is None else counted
    return TaskOutcomes(kind, {"sum": wrong.astype(float) * counts, "count": counts})


def outcomes(tasks: Mapping[str, TaskOutcomes], digest: str = "same") -> Outcomes:
    """Return outcomes of one task "t" in each of these domains."""
    by_key = {(domain, "t"): one for domain, one in tasks.items()}
    return Outcomes("test", by_key, dict.fromkeys(tasks, digest))


def test_wilson_intervals_are_those_of_textbooks() -> None:
    assert wilson(0.1, 100) == pytest.approx((5.5229, 17.4366), abs=1e-3)
    assert wilson(0, 100) == pytest.approx((0, 3.6995), abs=1e-3)
    assert wilson(1, 10) == pytest.approx((72.2467, 100), abs=1e-3)


@given(st.floats(0, 1), st.integers(1, 10**7))
def test_an_interval_contains_its_share(share: float, count: int) -> None:
    low, high = wilson(share, count)
    assert 0 <= low <= 100 * share <= high <= 100
    narrow = wilson(share, 4 * count)
    assert narrow[1] - narrow[0] < high - low


def test_an_error_has_the_wilson_interval_of_its_labelled_images() -> None:
    wrong = np.arange(200) < 20
    counted = (np.arange(200) % 2 == 0).astype(float)
    assert interval("d", task_outcomes(wrong, counted=counted)) == wilson(0.1, 100)


@pytest.mark.parametrize("count", [400, 25_000])
def test_a_mean_has_the_interval_of_its_standard_error(count: int) -> None:
    """1.96·σ/√n, also where groups of images are drawn."""
    values = np.random.default_rng(1).gamma(2.0, 1.0, count)
    low, high = interval("d", task_outcomes(values, "depth"), draws=2000)
    half = 1.96 * values.std() / count**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.15 * half)


@pytest.mark.parametrize("kind", ["regress", "segment", "depth", "normals"])
def test_replicates_are_scores_of_drawn_images(kind: str) -> None:
    """Each replicate is the score of the images that it draws."""
    out, target = random_outputs(kind, 12)
    scores = scored(kind, out, target)
    one = TaskOutcomes(kind, scores.per_image())
    found = replicates(outcomes({"d": one}), draws=5)["d", "t"]
    weights = np.concatenate(list(intervals._weights(seed_of(0, "d", 12), 12, 5)))
    assert weights.sum(1).tolist() == [12] * 5
    for value, weight in zip(found, weights.astype(int), strict=True):
        taken = np.repeat(np.arange(12), weight)
        again = scored(kind, out[taken], target[taken]).compute()
        if kind == "regress":  # in standard deviations of all targets
            off = (out - target).double().numpy()[taken]
            off = off[~np.isnan(off[:, 0])]
            std = scores.stds()
            assert value == pytest.approx((np.sqrt((off**2).mean(0)) / std).mean())
        else:
            assert value == pytest.approx(next(iter(again.values())))


def test_replicates_depend_on_seed_domain_and_number_of_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    a, b = (task_outcomes(rng.random(300) < 0.2) for _ in range(2))
    alone = replicates(outcomes({"x": a}))["x", "t"]
    assert np.array_equal(replicates(outcomes({"y": b, "x": a}))["x", "t"], alone)
    assert not np.array_equal(replicates(outcomes({"x": a}), seed=1)["x", "t"], alone)
    assert not np.array_equal(replicates(outcomes({"z": a}))["z", "t"], alone)
    monkeypatch.setattr(intervals, "CELLS", 700)
    assert np.allclose(replicates(outcomes({"x": a}))["x", "t"], alone)


def test_pairing_cancels_images_that_are_hard_for_both() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(1000) < 0.3
    worse = hard | (rng.random(1000) < 0.02)
    (found,) = differences(
        outcomes({"d": task_outcomes(worse)}), outcomes({"d": task_outcomes(hard)})
    )
    gap = worse.astype(float) - hard
    half = 1.96 * 100 * gap.std() / 1000**0.5
    assert found.value == pytest.approx(100 * gap.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.low > 0 and found.clear and found.gain < 0
    alone = interval("d", task_outcomes(hard))
    assert found.high - found.low < (alone[1] - alone[0]) / 2
    assert (found.metric, found.unit, found.images, found.seeds) == ("error", "%", 1000, (1, 1))
    (same,) = differences(
        outcomes({"d": task_outcomes(hard)}), outcomes({"d": task_outcomes(hard)})
    )
    assert (same.value, same.low, same.high, same.clear) == (0, 0, 0, False)


def test_swapped_sides_give_the_negative_difference() -> None:
    rng = np.random.default_rng(3)
    a, b = (outcomes({"d": task_outcomes(rng.random(300) < p, "embed")}) for p in (0.6, 0.5))
    (one,), (other,) = differences(a, b), differences(b, a)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.better == "higher" and one.gain == one.value


def test_the_spread_between_seeds_is_in_the_interval() -> None:
    """Seeds that differ by more than the images explain."""
    rng = np.random.default_rng(0)
    runs = [outcomes({"d": task_outcomes(rng.random(4000) < p)}) for p in (0.1, 0.2, 0.3)]
    drawn = replicates(runs)["d", "t"]
    means = np.mean([run.tasks["d", "t"].headline() for run in runs])
    assert drawn.mean() == pytest.approx(means, abs=0.6)
    assert drawn.std() > 10 * replicates(runs[0])["d", "t"].std() / 3
    (found,) = differences(runs, runs[1])
    assert found.seeds == (3, 1) and not found.clear
    (same,) = differences(runs, runs)  # the same number on both sides: the same draws
    assert (same.low, same.high) == (0, 0)


def test_agreement_on_few_images_leaves_a_wide_interval() -> None:
    none = task_outcomes(np.zeros(10, bool))
    low, high = agresti_min([none], [none])
    assert (low, high) == pytest.approx((-16.333, 16.333), abs=0.001)  # ± 1.96·100/12
    many = task_outcomes(np.zeros(1000, bool))
    assert agresti_min([many], [many])[1] == pytest.approx(0.1956, abs=1e-4)
    rng = np.random.default_rng(0)
    ours, theirs = (task_outcomes(rng.random(500) < p) for p in (0.3, 0.2))
    low, high = agresti_min([ours], [theirs])
    b, c = (
        int((x.arrays["sum"] > y.arrays["sum"]).sum()) for x, y in ((ours, theirs), (theirs, ours))
    )
    centre, n = (b - c) / 502, 502
    half = 1.959964 * np.sqrt((b + c + 1) / n - centre**2) / n**0.5  # as in the paper
    assert (low, high) == pytest.approx((100 * (centre - half), 100 * (centre + half)), abs=1e-3)
    bootstrap = differences(outcomes({"d": ours}), outcomes({"d": theirs}))[0]
    assert (low, high) == pytest.approx((bootstrap.low, bootstrap.high), abs=0.7)
    assert agresti_min([ours, ours], [theirs]) == pytest.approx((low, high))
    half_labelled = TaskOutcomes(
        "classify", {"sum": np.zeros(20), "count": np.repeat([0.0, 1.0], 10)}
    )
    assert agresti_min([half_labelled], [half_labelled]) == agresti_min([none], [none])


def test_replicates_of_only_unlabelled_images_are_ignored() -> None:
    counted = np.zeros(6)
    counted[0] = 1
    low, high = interval("d", task_outcomes(np.full(6, 2.5), "depth", counted))
    assert (low, high) == (2.5, 2.5)


def test_runs_that_cannot_be_compared_are_refused() -> None:
    one = task_outcomes(np.arange(50) < 5)
    run = outcomes({"d": one})
    with raises(BadInput, "at least one", got="none"):
        differences([], run)
    other_images = replace(run, image_digests={"d": "others"})
    with raises(BadInput, "d", got="50 test and 50 test images, not the same"):
        differences(run, other_images)
    with raises(BadInput, "d", got="50 test and 50 val images, not the same"):
        differences(run, replace(run, split="val"))
    with raises(BadInput, got="e/t", available=["d/t"]):
        differences(run, outcomes({"e": one}))
    with raises(BadInput, "d/t", got="classify, embed"):
        differences(run, outcomes({"d": replace(one, kind="embed")}))


def test_seeds_of_other_tasks_or_images_are_refused() -> None:
    one = task_outcomes(np.arange(50) < 5)
    run = outcomes({"d": one})
    with raises(BadInput, "seeds", got="e/t"):
        replicates([run, outcomes({"d": one, "e": one})])
    with raises(BadInput, "d", got="50 test and 50 test images, not the same"):
        replicates([run, outcomes({"d": one}, "others")])


def test_tasks_of_one_side_are_left_out() -> None:
    one = task_outcomes(np.arange(50) < 5)
    found = differences(outcomes({"d": one, "e": one}), outcomes({"d": one}))
    assert [each.domain for each in found] == ["d"]
