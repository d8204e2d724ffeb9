"""Threads: chosen before training, without a trace in the model, and kept when a run resumes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from onetrunk.runs.train import train_recipe
from onetrunk.store.run_folder import RunFolder
from onetrunk.train import threads as module
from onetrunk.train.threads import (
    VARIABLES,
    Threads,
    choose_threads,
    fastest,
    idle_cores,
    probe_step,
    time_steps,
    using_threads,
)
from tests.helpers.worlds import CPU, network, recipe, same, weights, worlds


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def never() -> None:
    raise AssertionError("no step is timed")


def busy() -> float:
    return 0.4


def test_the_reasons_come_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with using_threads(2):
        assert choose_threads(3, CPU, never, recorded=1) == Threads(3, "train.threads")
        assert choose_threads(None, CPU, never, recorded=1).count == 1
        assert choose_threads(None, CPU, never, idle=lambda: 1.6) == Threads(2, "default")
        assert choose_threads(None, torch.device("cuda"), never, idle=busy).count == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert choose_threads(None, CPU, never, idle=busy) == Threads(2, "OMP_NUM_THREADS")
    with using_threads(1):
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert choose_threads(None, CPU, never, idle=busy) == Threads(1, "default")


def test_an_explicit_number_that_differs_from_the_runs_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with using_threads(2):
        assert choose_threads(None, CPU, never, recorded=2).count == 2
        assert capsys.readouterr().err == ""
        assert choose_threads(None, CPU, never, recorded=1).count == 2
    assert "started with 1 thread" in capsys.readouterr().err


def test_a_busy_machine_uses_the_fastest_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {1: 0.1, 2: 5.0}
    asked: list[list[int]] = []

    def time_steps(_: object, counts: list[int]) -> dict[int, float]:
        asked.append(counts)
        return {count: seconds[count] for count in counts}

    monkeypatch.setattr(module, "time_steps", time_steps)
    with using_threads(2):
        chosen = choose_threads(None, CPU, never, idle=busy)
        (line,) = capsys.readouterr().err.splitlines()
        assert asked == [[1, 2]]
        assert (chosen.count, torch.get_num_threads()) == (1, 2)
        for fact in ("0.4 idle cores", "1 thread 10 steps/s", "2 threads 0.2 steps/s"):
            assert fact in line
        choose_threads(None, CPU, never, idle=busy, work="measuring")
        line = capsys.readouterr().err
        assert "measuring with 1 thread" in line and "OMP_NUM_THREADS sets the number" in line
        seconds[2] = 0.05
        assert choose_threads(None, CPU, never, idle=busy).count == 2


def test_more_threads_have_to_be_clearly_faster() -> None:
    assert fastest({1: 1.0, 2: 0.95}) == 1
    assert fastest({1: 1.0, 2: 0.6, 4: 0.58}) == 2
    assert fastest({1: 1.0, 2: 3.0, 4: 0.5}) == 4


def test_a_slow_number_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, used = [0.0], []

    def step() -> None:
        used.append(torch.get_num_threads())
        clock[0] += 1.0 if torch.get_num_threads() == 1 else 10.0

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    before = torch.get_num_threads()
    assert time_steps(step, [1, 2]) == {1: 1.0, 2: 10.0}
    assert used == [1, 1, 1, 2]
    assert torch.get_num_threads() == before


def test_idle_cores_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, of which one is idle and one half idle."""
    stat = [
        "cpu 9 9 9 9\ncpu0 100 0 0 100 0 0 0 0\ncpu1 100 0 0 100 0 0 0 0\ncpu7 1 1 1 1 1 1 1 1\n",
        "cpu 9 9 9 9\ncpu0 100 0 0 140 0 0 0 0\ncpu1 120 0 0 110 10 0 0 0\ncpu7 1 1 1 1 1 1 1 1\n",
    ]
    monkeypatch.setattr(module, "_cores", lambda: {0, 1})
    monkeypatch.setattr(module, "_quota", lambda: float("inf"))
    monkeypatch.setattr(time, "sleep", lambda _: stat.pop(0))
    monkeypatch.setattr(Path, "read_text", lambda *_: stat[0])
    assert idle_cores() == pytest.approx(1.5)
    stat[:] = ["nothing"]
    monkeypatch.setattr(os, "getloadavg", lambda: (1.25, 0, 0), raising=False)
    assert idle_cores() == pytest.approx(0.75)


@pytest.mark.parametrize("norm", ["domain", "shared-batch"])
def test_timed_steps_leave_no_trace(norm: str) -> None:
    domains = worlds("ants", "bees")
    model = network(domains, norm=norm)
    model.eval()
    model.heads_of("ants").train()
    modes = [module.training for module in model.modules()]
    before, chance = weights(model), torch.get_rng_state()
    probe_step(model, domains, 4)()
    assert same(weights(model), before)
    assert torch.get_rng_state().equal(chance)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_timed_run_has_the_weights_of_any_other_and_keeps_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train_recipe(recipe(tmp_path / "plain"), device="cpu")
    monkeypatch.setattr(module, "idle_cores", busy)
    monkeypatch.setattr(module, "fastest", lambda _: 1)
    timed = recipe(tmp_path / "timed")
    real = RunFolder.finish

    def stop(*_: object) -> Path:
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    with using_threads(2):
        monkeypatch.setattr(RunFolder, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            train_recipe(timed, device="cpu")
        monkeypatch.setattr(RunFolder, "finish", real)
        monkeypatch.setattr(module, "time_steps", lambda *_: never())
        run = train_recipe(timed, resume=True, device="cpu")
        assert torch.get_num_threads() == 2
    assert same(weights(run.model), weights(plain.model))
    hardware = json.loads((run.folder / "environment.json").read_text())["hardware"]
    assert hardware["threads"] == 1
    assert "busy machine" in hardware["threads_by"]
