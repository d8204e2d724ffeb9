"""Columns: scores over seeds, and comparisons with a baseline."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from onetrunk.data.task import Task
from onetrunk.eval.intervals import agresti_min, differences
from onetrunk.eval.outcomes import Outcomes
from onetrunk.report.columns import compare, mean_difference, scores_of, validation_error
from onetrunk.report.run_files import read_groups
from tests.helpers.runs import make_run, outcomes
from tests.helpers.small import domain

TWO = [domain("a"), domain("b", seed=1)]
ERRORS = {"a": 10.0, "b": 20.0}


def test_scores_over_seeds(tmp_path: Path) -> None:
    for seed, error in ((0, 10.0), (1, 14.0)):
        path = tmp_path / "shop" / f"seed-{seed}"
        make_run(path, TWO, {**ERRORS, "a": error}, seed=seed, model=False, images=200)
    make_run(tmp_path / "shop" / "seed-2", TWO, ERRORS, seed=2, finished=False)
    (group,) = read_groups([tmp_path / "shop"])
    found = scores_of(group)["a", "classify"]
    assert found.estimate.value == pytest.approx(12)
    assert found.estimate.seeds == pytest.approx((10, 14))
    assert (found.others[0].name, found.others[0].unit) == ("balanced_error", "%")
    assert found.others[0].value == pytest.approx(13.2)
    assert found.error == found.estimate.value


def test_differences_come_from_the_paired_bootstrap(tmp_path: Path) -> None:
    tasks = (Task("classify", "classify", ("a", "b")), Task("parts", "segment", ("x", "y")))
    both = [domain("a", *tasks), domain("b", Task("near", "embed", ("p", "q")))]
    one = make_run(tmp_path / "one", both, {"a": 14.0, "b": 30.0}, model=False, images=300)
    alone = make_run(tmp_path / "alone", both, ERRORS, seed=1, model=False, images=300)
    ours, base = read_groups([one, alone])
    found = {(c.domain, c.task): c for c in compare(ours, base, {})}
    opened = [Outcomes.open(run / "outcomes.safetensors") for run in (one, alone)]
    expected = differences(opened[0], opened[1])
    for d in expected:
        mine = found[d.domain, d.task]
        assert mine.paired
        turn = -1 if d.better == "higher" else 1  # as errors: lower is better
        assert mine.difference.value == pytest.approx(turn * d.value)
        ends = [turn * d.low, turn * d.high]
        if mine.task != "parts":  # a share of images
            sides = [[run.tasks[d.domain, d.task]] for run in opened]
            ends += [turn * end for end in agresti_min(*sides)]
        assert mine.difference.low == pytest.approx(min(ends))
        assert mine.difference.high == pytest.approx(max(ends))
        assert mine.difference.value > 0  # it is worse by construction
    assert found["b", "near"].margin == pytest.approx(0.05 * 20)
    assert mean_difference(ours, base) is None  # one domain classifies


@pytest.mark.parametrize(
    ("images", "result"), [(30, "undecided"), (300, "undecided"), (900, "equal")]
)
def test_agreement_on_few_images_does_not_show_that_networks_are_equal(
    tmp_path: Path, images: int, result: str
) -> None:
    runs = [
        make_run(tmp_path / name, TWO, {"a": 0.0, "b": 0.0}, model=False, images=images)
        for name in ("one", "alone")
    ]
    ours, base = read_groups(runs)
    found = compare(ours, base, {})
    assert [c.difference.value for c in found] == [0, 0]
    assert {c.result for c in found} == {result}


def test_without_outcomes_scores_count_as_independent(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", TWO, ERRORS, model=False, images=400)
    alone = make_run(tmp_path / "alone", TWO, ERRORS, model=False, images=400, paired=False)
    ours, base = read_groups([one, alone])
    (first, _) = compare(ours, base, {})
    assert not first.paired and first.difference.value == 0
    assert first.ours.low is not None and first.ours.high is not None
    half = math.sqrt(2) * (first.ours.high - first.ours.low) / 2
    assert first.difference.high == pytest.approx(half)
    assert mean_difference(ours, base) is None


def test_different_images_are_not_paired(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", TWO, ERRORS, model=False, images=200)
    alone = make_run(tmp_path / "alone", TWO, ERRORS, model=False, images=200)
    given = outcomes(TWO, ERRORS, 0, 200)
    replace(given, image_digests={"a": "0" * 64, "b": "f" * 64}).save(
        alone / "outcomes.safetensors"
    )
    ours, base = read_groups([one, alone])
    a, b = compare(ours, base, {})
    assert (a.paired, b.paired) == (True, False)


def test_the_mean_difference_over_domains(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", TWO, {"a": 12.0, "b": 20.0}, model=False, images=500)
    alone = make_run(tmp_path / "alone", TWO, ERRORS, seed=1, model=False, images=500)
    found = mean_difference(*read_groups([one, alone]))
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(1.0)
    assert found.low < found.value < found.high


def test_runs_are_ranked_by_the_mean_validation_error_over_domains(tmp_path: Path) -> None:
    tasks = (Task("classify", "classify", ("a", "b")), Task("age", "regress"))
    mixed = [domain("a", *tasks), domain("b")]
    one = make_run(tmp_path / "one", mixed, ERRORS, model=False, images=200)
    two = make_run(tmp_path / "two", mixed, {"a": 5.0, "b": 20.0}, model=False, images=200)
    ours, other = read_groups([one, two])
    assert validation_error(ours, ours) == pytest.approx(1)
    assert ours.first.val is not None and other.first.val is not None
    row = {(r.domain, r.task): r.value for r in ours.first.val.headlines()}
    less = {(r.domain, r.task): r.value for r in other.first.val.headlines()}
    ratios = {key: less[key] / row[key] for key in row}
    a = (ratios["a", "classify"] + ratios["a", "age"]) / 2
    assert validation_error(other, ours) == pytest.approx((a + ratios["b", "classify"]) / 2)
    plain = [make_run(tmp_path / n, TWO, ERRORS, model=False, images=200) for n in ("p", "q")]
    first, second = read_groups(plain)
    assert validation_error(first, second) == pytest.approx(15)
