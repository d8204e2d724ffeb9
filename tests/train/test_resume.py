"""A run that is interrupted in mid-epoch and resumed equals, to the bit, one that is not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import get_worker_info

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Plan, Step, _Steps
from onetrunk.errors import Failed
from onetrunk.nn.universal import Universal
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.interrupt import Stopped
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake
from tests.helpers.worlds import (
    assert_same_run,
    at,
    go,
    lines,
    network,
    noise,
    same,
    weights,
    worlds,
)

# an epoch of the smaller domain has 6 steps; the only checkpoint before the end is at step 4
SHORT: dict[str, Any] = {"steps": 7, "eval_every": 4, "log_every": 1, "keep_checkpoints": 9}
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {"sampling": "round-robin", "clip": 1.0},
    "adamw": {"optimizer": "adamw", "lr": 1e-3, "warmup": 0.3},
    "average": {"ema": 0.8, "schedule": "step"},
    "mixup": {"mixup": 0.4, "label_smoothing": 0.1, "class_weights": "balanced"},
    "temperature": {"sampling": "temperature", "temperature": 1.0},
    "accumulate": {"accumulate": 2, "ema": 0.5, "log_every": 3},
    "temperature, accumulate": {"sampling": "temperature", "accumulate": 3, "optimizer": "adamw"},
    "joined": {"sampling": "joined"},
    "float16": {"precision": "float16", "clip": 1.0},
    "patience": {"patience": 2, "eval_every": 1, "lr": 1e-9, "log_every": 5},
}


class Broken(Exception):
    """An error that nothing catches."""


def crash() -> None:
    raise Broken


def send_sigterm() -> None:
    signal.raise_signal(signal.SIGTERM)


def check_resumed(
    model: Callable[[], Universal],
    domains: list[Domain],
    place: Path,
    act: Callable[[], None] = crash,
    **given: Any,
) -> None:
    """Compare an uninterrupted run with an interrupted one that a changed model resumes."""
    expected, other = model(), model()
    chosen = go(place / "uninterrupted", domains, expected, **given)
    patient = "patience" in given  # it ends by itself after three evaluations
    logger = at("evaluated", 2, act) if patient else at("step", 6, act)
    with pytest.raises(Broken if act is crash else Stopped):
        go(place / "run", domains, other, logger, **given)
    assert logger.events[-1] == ("end", -1)
    assert len(lines(place / "run")) < len(lines(place / "uninterrupted"))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    again = go(place / "run", domains, other, **given)
    assert again.state() == chosen.state()
    assert same(weights(other), weights(expected))
    assert_same_run(place / "run", place / "uninterrupted")


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_equals_an_uninterrupted_one(way: str, tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    check_resumed(lambda: network(domains), domains, tmp_path, **{**SHORT, **WAYS[way]})


@pytest.mark.parametrize("way", ["sgd", "accumulate"])
def test_a_signal_saves_everything_up_to_its_step(way: str, tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    check_resumed(
        lambda: network(domains), domains, tmp_path, send_sigterm, **{**SHORT, **WAYS[way]}
    )
    assert (tmp_path / "run" / "checkpoints" / "step-6").is_dir()


@pytest.mark.parametrize(
    "trunk",
    [{"norm": "shared"}, {"adapters": "series", "sharing": "full"}, {"norm": "shared-batch"}],
    ids=str,
)
def test_a_resumed_run_with_other_trunks(trunk: dict[str, Any], tmp_path: Path) -> None:
    domains = worlds("ants", "bees", batch=8)
    check_resumed(lambda: network(domains, **trunk), domains, tmp_path, **SHORT)


def test_a_resumed_run_with_dropout(tmp_path: Path) -> None:
    domains = worlds("ants", "bees", size=32)

    def model() -> Universal:
        made = network(domains, arch="timm/test_vit")
        drops = [m for m in made.modules() if isinstance(m, torch.nn.Dropout)]
        for drop in drops:
            drop.p = 0.3
        assert drops
        return made

    check_resumed(model, domains, tmp_path, **SHORT)


def test_a_signal_in_the_last_evaluation_counts(tmp_path: Path) -> None:
    domains = worlds("ants")
    expected, model = network(domains), network(domains)
    go(tmp_path / "uninterrupted", domains, expected, **SHORT)
    with raises(Stopped, "step 7 of 7", tmp_path / "run", try_="--resume"):
        go(tmp_path / "run", domains, model, at("evaluated", 7, send_sigterm), **SHORT)
    go(tmp_path / "run", domains, model, **SHORT)
    assert same(weights(model), weights(expected))
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    domains = worlds("ants")
    one, other = network(domains), network(domains, seed=1)
    chosen = go(tmp_path / "run", domains, one, **SHORT)
    before = lines(tmp_path / "run")
    again = go(tmp_path / "run", domains, other, **SHORT)
    assert again.state() == chosen.state()
    assert same(weights(one), weights(other))
    assert lines(tmp_path / "run") == before


@pytest.mark.parametrize("fails", [4, 5])
def test_batches_that_cannot_be_read_come_first_after_resuming(
    fails: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two accumulated steps of the loader, the first or the second cannot be read."""
    domains = worlds("ants", "bees")
    given = {**SHORT, "accumulate": 2}
    expected, model = network(domains), network(domains)
    go(tmp_path / "uninterrupted", domains, expected, **given)
    real = _Steps.__getitem__

    def broken(self: _Steps, plan: Plan) -> Step:
        _, state = plan
        return (Failed("the disk is gone"), state) if state["step"] == fails else real(self, plan)

    with monkeypatch.context() as patch:
        patch.setattr(_Steps, "__getitem__", broken)
        with raises(Failed, "the disk is gone"):
            go(tmp_path / "run", domains, model, **given)
    assert lines(tmp_path / "run")[-1]["step"] == (fails - 1) // 2
    go(tmp_path / "run", domains, model, **given)
    assert same(weights(model), weights(expected))
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")


def kill_data_worker() -> None:
    """Kill the data worker while this process does something else, as when memory runs out."""
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    time.sleep(0.1)  # SIGCHLD has arrived by now


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_with_a_dead_data_worker_saves_and_resumes(
    accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    domains = worlds("ants", "bees", cache=False)
    given = {**SHORT, "steps": 6, "accumulate": accumulate, "workers": 1}
    expected, model = network(domains), network(domains)
    go(tmp_path / "uninterrupted", domains, expected, **{**given, "workers": 0})

    with raises(Failed, "data worker", try_="fewer workers"):
        go(tmp_path / "run", domains, model, at("step", 2, kill_data_worker), **given)
    reached = max(line["step"] for line in lines(tmp_path / "run"))
    assert 2 <= reached < 6
    assert (tmp_path / "run" / "checkpoints" / f"step-{reached}").is_dir()
    go(tmp_path / "run", domains, model, **given)
    assert same(weights(model), weights(expected))
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")


@dataclass
class Fatal(Fake):
    """A source that kills a data worker that reads one of its images, while the trap exists."""

    trap: Path = Path()

    def image(self, where: str) -> Any:
        if where == "21" and get_worker_info() is not None and self.trap.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(where)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_an_image_that_kills_data_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    plain, trap = noise(30), tmp_path / "trap"
    source = Fatal(plain.tasks, plain.listed, plain.images, trap=trap)
    domains = [Domain("ants", source, size=8, cache=False)]
    given = {**SHORT, "steps": 12, "workers": 1}
    expected, model = network(domains), network(domains)
    go(tmp_path / "uninterrupted", domains, expected, **given)
    trap.touch()
    for _ in range(2):  # it is killed again
        with raises(Failed, "data worker", try_="fewer workers"):
            go(tmp_path / "run", domains, model, **given)
    trap.unlink()
    go(tmp_path / "run", domains, model, **given)
    assert same(weights(model), weights(expected))
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_data_workers_ignore_ctrl_c(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    domains = worlds("ants", cache=False)
    given = {**SHORT, "workers": 1}

    def press() -> None:
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        for pid in (worker.pid, os.getpid()):
            os.kill(pid, signal.SIGINT)
        worker.join(0.5)
        assert worker.is_alive()

    with pytest.raises(Stopped):
        go(tmp_path / "run", domains, network(domains), at("step", 3, press), **given)
    assert lines(tmp_path / "run")[-1]["step"] == 3
    assert capfd.readouterr().err.count("stopping after this step") == 1


def test_checkpoints_that_a_kill_left_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = worlds("ants")
    given = {**SHORT, "checkpoint_every": 1, "eval_every": 7, "keep_checkpoints": 1}
    model = network(domains)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "prune", lambda *_: None)
        go(tmp_path / "run", domains, model, **given)
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 7
    go(tmp_path / "run", domains, model, **given)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-7"]
