"""Run folders read: whole, half-done, damaged; seeds and sweeps; what is compared with what."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.intervals import differences
from onetrunk.eval.outcomes import Outcomes
from onetrunk.report.column import in_words, validation
from onetrunk.report.runs import Run, folders, read_groups, variations
from onetrunk.report.scores import compare, mean_difference, scores
from onetrunk.report.training import courses
from tests.helpers.runs import make_run, outcomes
from tests.helpers.small import domain

TWO = [domain("a"), domain("b", seed=1)]
ERRORS = {"a": 10.0, "b": 20.0}


def test_a_finished_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "shop", TWO, ERRORS, norm="shared", model=False, images=200)
    (group,) = read_groups([path])
    run = group.first
    assert (group.name, run.seed, run.sharing, group.separate, group.frozen) == (
        *("shop", 0, "deep"),
        *(False, False),
    )
    assert run.test is not None and run.test.value("a") == pytest.approx(10)
    assert run.val is not None and run.val.split == "val"
    assert run.outcomes is not None and run.outcomes.domains == ("a", "b")
    assert run.chosen("a") == 360
    assert in_words(run) == "resnet20, norm shared"
    assert len(run.records) == 30


def test_specialists_and_frozen_trunks_are_known_as_such(tmp_path: Path) -> None:
    alone = make_run(tmp_path / "alone", TWO, ERRORS, sharing="none", model=False)
    frozen = make_run(tmp_path / "still", TWO, ERRORS, model=False, extra={"frozen": True})
    groups = read_groups([alone, frozen])
    assert [(g.separate, g.frozen) for g in groups] == [(True, False), (False, True)]
    assert groups[0].first.chosen("b") == 360
    assert "a network for each domain" in in_words(groups[0].first)


def test_a_run_that_is_not_finished_and_a_line_cut_off(tmp_path: Path) -> None:
    path = make_run(tmp_path / "half", TWO, ERRORS, finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999, "loss": {"a/cla')
    (group,) = read_groups([path])
    assert group.first.test is None and group.first.outcomes is None
    assert group.first.records[-1]["step"] == 400
    assert scores(group) == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scores.json", "{", "cannot read half/scores.json"),
        ("scores.json", "[1]", "is to be a table"),
        ("recipe.toml", "a = ", "cannot read half/recipe.toml"),
        ("environment.json", "nonsense", "cannot read half/environment.json"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = make_run(tmp_path / "half", TWO, ERRORS, finished=False)
    (path / name).write_text(text)
    with pytest.raises(BadInput, match=message):
        read_groups([path])


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x", TWO, ERRORS, model=False)
    document = json.loads((path / "scores.json").read_text())
    document["test"]["rows"][0]["value"] = "many"
    (path / "scores.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match=r"x/scores\.json"):
        scores(read_groups([path])[0])


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    make_run(tmp_path / "shop", TWO, ERRORS, finished=False)
    with pytest.raises(BadInput, match=r"no recipe.toml.*available: shop"):
        read_groups([tmp_path])


def test_seeds_are_one_group_in_order_and_names_differ(tmp_path: Path) -> None:
    for seed in (10, 2):
        make_run(tmp_path / "one" / "shop" / f"seed-{seed}", TWO, ERRORS, seed=seed, model=False)
    other = make_run(tmp_path / "two" / "shop", TWO, ERRORS, model=False)
    first, second = read_groups([tmp_path / "one" / "shop", other])
    assert [run.seed for run in first.runs] == [2, 10]
    assert (first.name, second.name) == ("shop", "two/shop")
    assert folders(other) == [other]


def test_a_sweep_over_settings_is_a_group_each(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    for label in ("train.lr=0.1", "train.lr=0.03"):
        make_run(tmp_path / label / "seed-0", TWO, ERRORS, model=False)
    assert [path.name for path in variations(tmp_path)] == ["train.lr=0.03", "train.lr=0.1"]
    assert [group.name for group in read_groups([tmp_path])] == ["train.lr=0.03", "train.lr=0.1"]


def test_scores_over_seeds(tmp_path: Path) -> None:
    for seed, error in ((0, 10.0), (1, 14.0)):
        path = tmp_path / "shop" / f"seed-{seed}"
        make_run(path, TWO, {**ERRORS, "a": error}, seed=seed, model=False, images=200)
    make_run(tmp_path / "shop" / "seed-2", TWO, ERRORS, seed=2, finished=False)
    (group,) = read_groups([tmp_path / "shop"])
    found = scores(group)["a", "classify"]
    assert found.estimate.value == pytest.approx(12)
    assert found.estimate.seeds == pytest.approx((10, 14))
    assert found.also[0][:2] == ("balanced_error", "%")
    assert found.also[0][2] == pytest.approx(13.2)
    assert found.error == found.estimate.value


def test_differences_are_the_paired_bootstrap_s(tmp_path: Path) -> None:
    tasks = (Task("classify", "classify", ("a", "b")), Task("parts", "segment", ("x", "y")))
    both = [domain("a", *tasks), domain("b", Task("near", "embed", ("p", "q")))]
    one = make_run(tmp_path / "one", both, {"a": 14.0, "b": 30.0}, model=False, images=300)
    alone = make_run(tmp_path / "alone", both, ERRORS, seed=1, model=False, images=300)
    ours, base = read_groups([one, alone])
    found = {(c.domain, c.task): c for c in compare(ours, base)}
    expected = differences(*(Outcomes.open(p / "outcomes.safetensors") for p in (one, alone)))
    for d in expected:
        mine = found[d.domain, d.task]
        assert mine.paired
        turn = -1 if d.better == "higher" else 1  # as errors: lower is better
        assert mine.difference.value == pytest.approx(turn * d.value)
        ends = sorted((turn * d.low, turn * d.high))
        assert (mine.difference.low, mine.difference.high) == pytest.approx(tuple(ends))
        assert mine.difference.value > 0  # it is worse by construction
    assert found["b", "near"].margin == pytest.approx(0.1 * 20)
    assert mean_difference(ours, base) is None  # one domain classifies


def test_without_outcomes_intervals_are_those_of_independent_scores(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", TWO, ERRORS, model=False, images=400)
    alone = make_run(tmp_path / "alone", TWO, ERRORS, model=False, images=400, paired=False)
    ours, base = read_groups([one, alone])
    (first, _) = compare(ours, base)
    assert not first.paired and first.difference.value == 0
    assert first.one.low is not None and first.one.high is not None
    half = math.sqrt(2) * (first.one.high - first.one.low) / 2
    assert first.difference.high == pytest.approx(half)
    assert mean_difference(ours, base) is None


def test_other_images_are_not_paired(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", TWO, ERRORS, model=False, images=200)
    alone = make_run(tmp_path / "alone", TWO, ERRORS, model=False, images=200)
    held = outcomes(TWO, ERRORS, 0, 200)
    replace(held, names={"a": "0" * 64, "b": "f" * 64}).save(alone / "outcomes.safetensors")
    a, b = compare(*read_groups([one, alone]))
    assert (a.paired, b.paired) == (True, False)


def test_the_mean_difference_over_domains(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", TWO, {"a": 12.0, "b": 20.0}, model=False, images=500)
    alone = make_run(tmp_path / "alone", TWO, ERRORS, seed=1, model=False, images=500)
    found = mean_difference(*read_groups([one, alone]))
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(1.0)
    assert found.low < found.value < found.high


def test_runs_are_chosen_by_the_mean_over_domains_on_validation(tmp_path: Path) -> None:
    tasks = (Task("classify", "classify", ("a", "b")), Task("age", "regress"))
    mixed = [domain("a", *tasks), domain("b")]
    one = make_run(tmp_path / "one", mixed, ERRORS, model=False, images=200)
    two = make_run(tmp_path / "two", mixed, {"a": 5.0, "b": 20.0}, model=False, images=200)
    ours, other = read_groups([one, two])
    assert validation(ours, ours) == pytest.approx(1)
    row = {(r.domain, r.task): r.value for r in ours.first.val.headlines()}  # type: ignore[union-attr]
    less = {(r.domain, r.task): r.value for r in other.first.val.headlines()}  # type: ignore[union-attr]
    ratios = {key: less[key] / row[key] for key in row}
    a = (ratios["a", "classify"] + ratios["a", "age"]) / 2
    assert validation(other, ours) == pytest.approx((a + ratios["b", "classify"]) / 2)
    plain = [make_run(tmp_path / n, TWO, ERRORS, model=False, images=200) for n in ("p", "q")]
    first, second = read_groups(plain)
    assert validation(first, second) == pytest.approx(15)


def test_curves_come_from_the_records(tmp_path: Path) -> None:
    rooms = [domain("a", Task("parts", "segment", ("x", "y"))), domain("b")]
    one = make_run(tmp_path / "one", rooms, ERRORS, model=False)
    alone = make_run(tmp_path / "alone", rooms, ERRORS, sharing="none", model=False)
    ours, base = read_groups([one, alone])
    found = {(c.domain, c.task): c for c in courses([(0, ours), (-1, base)])}
    parts = found["a", "parts"]
    assert parts.metric is not None and parts.metric.name == "miou"
    assert [line.column for line in parts.lines] == [0, -1]
    first = parts.lines[0]
    record = next(r for r in ours.first.records if "val" in r)
    assert first.val[0] == (record["step"], pytest.approx(100 - record["val"]["a/parts/miou"]))
    assert first.chosen == 360 and first.at_chosen is not None
    assert first.best is not None and first.best[1] == min(y for _, y in first.val)
    assert len(first.loss) == 20
    assert len(found["b", "classify"].lines[1].loss) == 20


def test_numbers_that_are_none_are_left_out_of_curves(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x", TWO, ERRORS, finished=False)
    broken = [
        {"step": 500, "loss": {"a/classify": float("nan"), "b/classify": "x"}},
        {"step": 520, "loss": 3, "val": [1]},
    ]
    with (path / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in broken)
    run = Run.read(path)
    for course in courses([(0, read_groups([path])[0])]):
        assert all(np.isfinite(y) for _, y in course.lines[0].loss)
        assert course.lines[0].loss[-1][0] == 400
    assert len(run.records) == 32
