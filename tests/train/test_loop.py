"""The loop: what is written when, which weights are kept, when it ends, what it does not change."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from onetrunk.errors import Diverged
from onetrunk.eval.evaluate import evaluate
from onetrunk.train import loop as module
from onetrunk.train.learner import Learner, NotFinite
from onetrunk.train.loop import Paused
from tests.helpers.errors import raises
from tests.helpers.worlds import (
    CPU,
    Recorder,
    assert_same_run,
    at,
    checkpoints,
    go,
    learner,
    lines,
    network,
    same,
    settings,
    steps,
    weights,
    worlds,
)

SHORT: dict[str, Any] = {"steps": 6, "eval_every": 3, "log_every": 2}


def test_log_lines_evaluations_and_checkpoints_are_written_when_due(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    logger = Recorder()
    go(tmp_path / "run", domains, network(domains), logger, **SHORT, keep_checkpoints=9)
    found = lines(tmp_path / "run")
    assert [("val" in line, line["step"]) for line in found] == [
        (False, 2), (True, 3), (False, 4), (False, 6), (True, 6)
    ]  # fmt: skip
    assert logger.events == [
        ("begin", 0), ("step", 2), ("evaluated", 3), ("step", 4), ("step", 6), ("evaluated", 6),
        ("end", -1),
    ]  # fmt: skip
    assert list(checkpoints(tmp_path / "run")) == [3, 6]
    for line in found:
        assert line["part"] == ""
        if "val" in line:
            units = {"ants/classify/error", "bees/classify/error"}
            assert line["val"].keys() == units
            assert line["score"] == pytest.approx(sum(line["val"].values()) / 2)
        else:
            assert line["loss"].keys() == {"ants/classify", "bees/classify"}
            assert all(0 < loss < 10 for loss in line["loss"].values())
            assert line["lr"] == pytest.approx(
                0.05 * 0.5 * (1 + math.cos(math.pi * (line["step"] - 1) / 6))
            )


def test_a_log_line_holds_the_means_of_its_steps(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    go(tmp_path / "run", domains, network(domains), **SHORT)
    again = Learner(network(domains), domains, settings(**SHORT), CPU, 3)
    again.model.train()
    passes, each = again.passes(), []
    for _ in range(6):
        each.append(again.step(next(passes)))
        again.clock.tick()
    found = [line["loss"] for line in lines(tmp_path / "run") if "loss" in line]
    for place, loss in enumerate(found):
        for unit, value in loss.items():
            both = each[2 * place][unit], each[2 * place + 1][unit]
            assert value == pytest.approx(sum(both) / 2, rel=1e-9)


@pytest.mark.parametrize("average", [0.0, 0.2])
def test_the_weights_of_the_best_evaluation_are_kept(average: float, tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    model = network(domains)
    chosen = go(
        tmp_path / "run", domains, model, steps=8, eval_every=1, ema=average, keep_checkpoints=9
    )
    scores = {line["step"]: line["score"] for line in lines(tmp_path / "run") if "val" in line}
    best = min(scores, key=lambda step: (scores[step], step))
    assert best < 8  # else this test would show nothing
    assert (chosen.step, chosen.score) == (best, scores[best])
    _, saved = checkpoints(tmp_path / "run")[best]
    for name, tensor in weights(model).items():
        kept = saved.get(f"average/{name}") if average else None
        assert tensor.equal(saved[f"model/{name}"] if kept is None else kept), name
    table = evaluate(model, domains, "val")
    assert sum(table.errors().values()) / 2 == pytest.approx(chosen.score)


def test_training_stops_early_without_improvement(tmp_path: Path) -> None:
    domains = worlds("ants")
    model = network(domains)
    given: dict[str, Any] = {"steps": 50, "eval_every": 2, "patience": 2, "lr": 1e-12, "ema": 0.9}
    chosen = go(tmp_path / "run", domains, model, **given)
    assert (chosen.step, chosen.waited, chosen.out_of_patience) == (2, 2, True)
    assert [line["step"] for line in lines(tmp_path / "run") if "val" in line] == [2, 4, 6]


def test_only_the_last_and_the_best_checkpoint_are_kept(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    chosen = go(
        tmp_path / "run", domains, network(domains), steps=8, eval_every=1, keep_checkpoints=1
    )
    assert chosen.step < 8
    assert list(checkpoints(tmp_path / "run")) == [chosen.step, 8]


def test_a_checkpoint_is_due_by_steps_and_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = worlds("ants")
    go(
        tmp_path / "steps",
        domains,
        network(domains),
        steps=7,
        eval_every=7,
        checkpoint_every=3,
        keep_checkpoints=9,
    )
    assert list(checkpoints(tmp_path / "steps")) == [3, 6, 7]
    monkeypatch.setattr(module, "CHECKPOINT", -1.0)
    go(tmp_path / "time", domains, network(domains), steps=4, eval_every=4, keep_checkpoints=9)
    assert list(checkpoints(tmp_path / "time")) == [1, 2, 3, 4]


def test_epochs_and_hours(tmp_path: Path) -> None:
    domains = worlds("ants")  # 24 training images
    go(tmp_path / "epochs", domains, network(domains), epochs=0.5)
    assert lines(tmp_path / "epochs")[-1]["step"] == 3
    go(tmp_path / "hours", domains, network(domains), hours=0.5 / 3600)
    found = lines(tmp_path / "hours")
    assert found[-1]["step"] >= 1
    assert "val" in found[-1]
    assert {"step"} <= found[-2].keys() and "loss" in found[-2]


def poison(model: Any) -> None:
    with torch.no_grad():
        model.heads_of("bees").head("classify").bias.fill_(math.nan)


def test_nothing_is_written_after_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    model = network(domains)
    given: dict[str, Any] = {"steps": 9, "eval_every": 2, "log_every": 1, "keep_checkpoints": 9}
    poisoned = at("step", 5, lambda: poison(model))
    with raises(NotFinite, "bees/classify", "nan", "step 6", try_="train.lr"):
        go(tmp_path / "run", domains, model, poisoned, **given)
    assert lines(tmp_path / "run")[-1]["step"] == 5
    found = checkpoints(tmp_path / "run")
    assert list(found) == [2, 4]
    for _, tensors in found.values():
        assert all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    model = network(domains)
    given: dict[str, Any] = {"steps": 9, "eval_every": 6, "checkpoint_every": 2, "log_every": 1}
    given["keep_checkpoints"] = 9
    poisoned = at("step", 4, lambda: poison(model))
    with raises(Diverged, "heads.bees.", "step 4", try_="train.lr"):
        go(tmp_path / "run", domains, model, poisoned, **given)
    assert list(checkpoints(tmp_path / "run")) == [2]


def test_torch_flags_and_generators_are_restored(tmp_path: Path) -> None:
    domains = worlds("ants")
    model = network(domains)
    flags = torch.are_deterministic_algorithms_enabled()
    chance = torch.get_rng_state()
    expected = torch.rand(1)
    torch.set_rng_state(chance)
    inside = []
    logger = at("step", 1, lambda: inside.append(torch.are_deterministic_algorithms_enabled()))
    go(tmp_path / "run", domains, model, logger, steps=2, log_every=1)
    assert inside == [True]
    assert torch.are_deterministic_algorithms_enabled() == flags
    assert torch.get_rng_state().equal(chance)
    assert torch.rand(1).equal(expected)


def test_results_do_not_depend_on_the_callers_generator(tmp_path: Path) -> None:
    domains = worlds("ants", size=32)
    found = []
    for seed in (0, 1):
        model = network(domains, arch="timm/test_vit")
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.5
        torch.manual_seed(seed)
        go(tmp_path / str(seed), domains, model, steps=2)
        found.append(weights(model))
    assert same(*found)


def test_steps_run_in_training_mode(tmp_path: Path) -> None:
    domains = worlds("ants")
    model = network(domains).eval()
    modes: list[tuple[str, bool]] = []
    logger = Recorder(lambda what, _: modes.append((what, model.training)))
    go(tmp_path / "run", domains, model, logger, steps=2, eval_every=1, log_every=1)
    assert {mode for what, mode in modes if what in ("step", "evaluated")} == {True}


@pytest.mark.parametrize("wanted", [True, False])
def test_channels_last_can_be_switched_off(wanted: bool) -> None:
    made = learner(worlds("ants"), channels_last=wanted)
    seen: list[bool] = []

    def look(_: Any, __: Any, out: torch.Tensor) -> None:
        layout = torch.channels_last if wanted else torch.contiguous_format
        seen.append(out.is_contiguous(memory_format=layout))

    for part in made.model.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(look)
    made.step(steps(made, 1)[0])
    assert len(seen) > 15
    assert all(seen)


def test_initial_weights_are_kept_if_training_makes_them_worse(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    trained = network(domains)
    go(tmp_path / "first", domains, trained, steps=40)
    before = weights(trained)
    given = {**SHORT, "lr": 1.0, "optimizer": "adamw"}
    found = go(tmp_path / "run", domains, trained, **given, evaluate_start=True)
    assert lines(tmp_path / "run")[0]["step"] == 0 and "val" in lines(tmp_path / "run")[0]
    assert found.step == 0 and same(weights(trained), before)
    again = go(tmp_path / "run", domains, network(domains), **given, evaluate_start=True)
    assert again.step == 0
    assert [line["step"] for line in lines(tmp_path / "run") if "val" in line] == [0, 3, 6]


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("pauses", [(1,), (3,), (2, 4)])
def test_a_training_that_paused_equals_one_that_did_not(
    tmp_path: Path, pauses: tuple[int, ...], start: bool
) -> None:
    domains = worlds("ants", "bees")
    given = {**SHORT, "evaluate_start": start, "ema": 0.9}
    go(tmp_path / "once", domains, network(domains), **given)
    for step in pauses:
        with pytest.raises(Paused):
            go(tmp_path / "paused", domains, network(domains), pause_at=step, **given)
        assert max(checkpoints(tmp_path / "paused")) == step
        with pytest.raises(Paused):  # the same pause again trains nothing
            go(tmp_path / "paused", domains, network(domains), pause_at=step, **given)
    found = go(tmp_path / "paused", domains, network(domains), pause_at=6, **given)
    assert found.step in (0, 3, 6)
    assert_same_run(tmp_path / "once", tmp_path / "paused")
