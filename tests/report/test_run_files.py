"""Reading run folders: finished, unfinished or damaged, with seeds and sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onetrunk.errors import BadInput
from onetrunk.eval.outcomes import Outcomes, TaskOutcomes
from onetrunk.eval.table import Row, Table
from onetrunk.report.columns import describe, scores_of
from onetrunk.report.run_files import (
    RunFiles,
    RunGroup,
    match_single_task_domains,
    read_groups,
    run_folders,
    setting_folders,
)
from tests.helpers.errors import raises
from tests.helpers.runs import make_run
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
    assert run.selected_step("a") == 360
    assert describe(run) == "resnet20, norm shared"
    assert len(run.records) == 30


def test_separate_networks_and_frozen_trunks_are_recognized(tmp_path: Path) -> None:
    alone = make_run(tmp_path / "alone", TWO, ERRORS, sharing="none", model=False)
    frozen = make_run(tmp_path / "still", TWO, ERRORS, model=False, extra={"frozen": True})
    groups = read_groups([alone, frozen])
    assert [(g.separate, g.frozen) for g in groups] == [(True, False), (False, True)]
    assert groups[0].first.selected_step("b") == 360
    assert "one network per domain" in describe(groups[0].first)


def test_an_unfinished_run_with_a_truncated_line(tmp_path: Path) -> None:
    path = make_run(tmp_path / "half", TWO, ERRORS, finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999, "loss": {"a/cla')
    (group,) = read_groups([path])
    assert group.first.test is None and group.first.outcomes is None
    assert group.first.records[-1]["step"] == 400
    assert scores_of(group) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scores.json", "{"),
        ("scores.json", "[1]"),
        ("recipe.toml", "a = "),
        ("environment.json", "nonsense"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str) -> None:
    path = make_run(tmp_path / "half", TWO, ERRORS, finished=False)
    (path / name).write_text(text)
    with raises(BadInput, f"half/{name}"):
        read_groups([path])


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x", TWO, ERRORS, model=False)
    document = json.loads((path / "scores.json").read_text())
    document["test"]["rows"][0]["value"] = "many"
    (path / "scores.json").write_text(json.dumps(document))
    with raises(BadInput, "x/scores.json", "test.rows[0].value", got="many"):
        scores_of(read_groups([path])[0])


def test_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "shop", TWO, ERRORS, finished=False)
    with raises(BadInput, "recipe.toml", got=str(tmp_path), available=[tmp_path / "shop"]):
        read_groups([tmp_path])


def test_seeds_form_one_group_in_order_and_names_are_distinct(tmp_path: Path) -> None:
    for seed in (10, 2):
        make_run(tmp_path / "one" / "shop" / f"seed-{seed}", TWO, ERRORS, seed=seed, model=False)
    other = make_run(tmp_path / "two" / "shop", TWO, ERRORS, model=False)
    first, second = read_groups([tmp_path / "one" / "shop", other])
    assert [run.seed for run in first.runs] == [2, 10]
    assert (first.name, second.name) == ("shop", "two/shop")
    assert run_folders(other) == [other]


def test_each_setting_of_a_sweep_is_a_group(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    for label in ("train.lr=0.1", "train.lr=0.03"):
        make_run(tmp_path / label / "seed-0", TWO, ERRORS, model=False)
    assert [path.name for path in setting_folders(tmp_path)] == ["train.lr=0.03", "train.lr=0.1"]
    assert [group.name for group in read_groups([tmp_path])] == ["train.lr=0.03", "train.lr=0.1"]


def group(*units: tuple[str, str]) -> RunGroup:
    """Return a finished run with a score for each (domain, task)."""
    rows = tuple(
        Row(domain, task, "abs", float(i), 4, "depth", "m", "lower", True)
        for i, (domain, task) in enumerate(units)
    )
    scores = {split: Table(rows, split).to_json() for split in ("val", "test")}
    tasks = {u: TaskOutcomes("depth", {"sum": np.ones(4), "count": np.ones(4)}) for u in units}
    given = Outcomes("test", tasks, {domain: "same images" for domain, _ in units})
    return RunGroup("run", (RunFiles(Path("run"), "", {}, scores, {}, (), given),))


def units(group: RunGroup) -> list[tuple[str, str, float]]:
    assert group.first.test is not None
    assert group.first.val is not None
    test, val = group.first.test.rows, group.first.val.rows
    assert [(r.domain, r.task) for r in test] == [(r.domain, r.task) for r in val]
    return [(row.domain, row.task, row.value) for row in test]


def test_a_domain_of_a_single_task_is_compared_with_that_task() -> None:
    one = group(("rooms", "depth"), ("rooms", "far"), ("shop", "depth"))
    alone = group(("rooms-depth", "depth"), ("rooms-far", "far"), ("shop", "depth"))
    found = match_single_task_domains(alone, [one])
    assert units(found) == [("rooms", "depth", 0), ("rooms", "far", 1), ("shop", "depth", 2)]
    outcomes = found.first.outcomes
    assert outcomes is not None
    assert list(outcomes.tasks) == [("rooms", "depth"), ("rooms", "far"), ("shop", "depth")]
    assert set(outcomes.image_digests) == {"rooms", "shop"}


def test_domains_with_other_tasks_or_a_taken_name_are_not_renamed() -> None:
    one = group(("rooms", "depth"), ("shop", "depth"))
    given = group(("rooms", "depth"), ("rooms-depth", "depth"))
    assert match_single_task_domains(given, [one]) is given
    several = group(("shop-depth", "depth"), ("shop-depth", "far"))
    assert match_single_task_domains(several, [one]) is several
    other = group(("rooms-depth", "far"))
    assert match_single_task_domains(other, [one]) is other
