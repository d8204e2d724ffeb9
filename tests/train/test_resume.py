"""A run that breaks off in mid-epoch and goes on is, to the bit, the run that did not."""

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

# an epoch of the smaller domain has 6 steps; the only checkpoint on the way is the evaluation's
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
    """What nobody catches."""


def breaks() -> None:
    raise Broken


def stops() -> None:
    signal.raise_signal(signal.SIGTERM)


def falls(
    model: Callable[[], Universal],
    domains: list[Domain],
    place: Path,
    act: Callable[[], None] = breaks,
    **given: Any,
) -> None:
    """Undisturbed; broken off, and gone on with by a model of other weights: nothing differs."""
    whole, other = model(), model()
    chosen = go(place / "whole", domains, whole, **given)
    patient = "patience" in given  # that one ends by itself after three evaluations
    watch = at("evaluated", 2, act) if patient else at("step", 6, act)
    with pytest.raises(Broken if act is breaks else Stopped):
        go(place / "run", domains, other, watch, **given)
    assert watch.seen[-1] == ("end", -1)
    assert len(lines(place / "run")) < len(lines(place / "whole"))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    again = go(place / "run", domains, other, **given)
    assert again.state() == chosen.state()
    assert same(weights(other), weights(whole))
    assert_same_run(place / "run", place / "whole")


@pytest.mark.parametrize("way", WAYS)
def test_going_on_is_not_having_stopped(way: str, tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    falls(lambda: network(domains), domains, tmp_path, **{**SHORT, **WAYS[way]})


@pytest.mark.parametrize("way", ["sgd", "accumulate"])
def test_a_signal_keeps_all_up_to_its_step(way: str, tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    falls(lambda: network(domains), domains, tmp_path, stops, **{**SHORT, **WAYS[way]})
    assert (tmp_path / "run" / "checkpoints" / "step-6").is_dir()


@pytest.mark.parametrize(
    "trunk",
    [{"norm": "shared"}, {"adapters": "series", "sharing": "full"}, {"norm": "shared-batch"}],
    ids=str,
)
def test_going_on_whatever_domains_own(trunk: dict[str, Any], tmp_path: Path) -> None:
    domains = worlds("ants", "bees", batch=8)
    falls(lambda: network(domains, **trunk), domains, tmp_path, **SHORT)


def test_going_on_with_dropout(tmp_path: Path) -> None:
    domains = worlds("ants", "bees", size=32)

    def model() -> Universal:
        made = network(domains, arch="timm/test_vit")
        drops = [m for m in made.modules() if isinstance(m, torch.nn.Dropout)]
        for drop in drops:
            drop.p = 0.3
        assert drops
        return made

    falls(model, domains, tmp_path, **SHORT)


def test_a_signal_in_the_last_evaluation_is_heard(tmp_path: Path) -> None:
    domains = worlds("ants")
    whole, model = network(domains), network(domains)
    go(tmp_path / "whole", domains, whole, **SHORT)
    with pytest.raises(Stopped, match=r"stopped at step 7 of 7, .*--resume") as caught:
        go(tmp_path / "run", domains, model, at("evaluated", 7, stops), **SHORT)
    assert str(tmp_path / "run") in str(caught.value)
    go(tmp_path / "run", domains, model, **SHORT)
    assert same(weights(model), weights(whole))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_is_over_is_not_learned_again(tmp_path: Path) -> None:
    domains = worlds("ants")
    one, other = network(domains), network(domains, seed=1)
    chosen = go(tmp_path / "run", domains, one, **SHORT)
    before = lines(tmp_path / "run")
    again = go(tmp_path / "run", domains, other, **SHORT)
    assert again.state() == chosen.state()
    assert same(weights(one), weights(other))
    assert lines(tmp_path / "run") == before


@pytest.mark.parametrize("fails", [4, 5])
def test_images_that_do_not_come_are_had_again(
    fails: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two steps that are learned as one, the first or the second cannot be had."""
    domains = worlds("ants", "bees")
    given = {**SHORT, "accumulate": 2}
    whole, model = network(domains), network(domains)
    go(tmp_path / "whole", domains, whole, **given)
    real = _Steps.__getitem__

    def broken(self: _Steps, plan: Plan) -> Step:
        _, state = plan
        return (Failed("the disk is gone"), state) if state["step"] == fails else real(self, plan)

    with monkeypatch.context() as patch:
        patch.setattr(_Steps, "__getitem__", broken)
        with pytest.raises(Failed, match="the disk is gone"):
            go(tmp_path / "run", domains, model, **given)
    assert lines(tmp_path / "run")[-1]["step"] == (fails - 1) // 2
    go(tmp_path / "run", domains, model, **given)
    assert same(weights(model), weights(whole))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def kill_the_worker() -> None:
    """As when memory runs out: while this process is busy with something else."""
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    time.sleep(0.1)  # signals of children have come by now


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_data_worker_that_dies_is_named_and_the_run_goes_on(
    accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    domains = worlds("ants", "bees", cache=False)
    given = {**SHORT, "steps": 6, "accumulate": accumulate, "workers": 1}
    whole, model = network(domains), network(domains)
    go(tmp_path / "whole", domains, whole, **{**given, "workers": 0})

    with pytest.raises(Failed, match=r"a process that reads images died: .*try: go on with fewer"):
        go(tmp_path / "run", domains, model, at("step", 2, kill_the_worker), **given)
    reached = max(line["step"] for line in lines(tmp_path / "run"))
    assert 2 <= reached < 6
    assert (tmp_path / "run" / "checkpoints" / f"step-{reached}").is_dir()
    go(tmp_path / "run", domains, model, **given)
    assert same(weights(model), weights(whole))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@dataclass
class Fatal(Fake):
    """Whoever reads one of its images in a worker dies, while the trap is set."""

    trap: Path = Path()

    def image(self, where: str) -> Any:
        if where == "21" and get_worker_info() is not None and self.trap.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(where)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_worker_that_dies_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    plain, trap = noise(30), tmp_path / "trap"
    source = Fatal(plain.tasks, plain.listed, plain.images, trap=trap)
    domains = [Domain("ants", source, size=8, cache=False)]
    given = {**SHORT, "steps": 12, "workers": 1}
    whole, model = network(domains), network(domains)
    go(tmp_path / "whole", domains, whole, **given)
    trap.touch()
    for _ in range(2):  # it dies of it again
        with pytest.raises(Failed, match="a process that reads images died"):
            go(tmp_path / "run", domains, model, **given)
    trap.unlink()
    go(tmp_path / "run", domains, model, **given)
    assert same(weights(model), weights(whole))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_ctrl_c_comes_to_workers_too_and_stops_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    domains = worlds("ants", cache=False)
    given = {**SHORT, "workers": 1}

    def press() -> None:
        (worker,) = multiprocessing.active_children()
        for pid in (worker.pid, os.getpid()):
            os.kill(pid, signal.SIGINT)
        worker.join(0.5)
        assert worker.is_alive()

    with pytest.raises(Stopped):
        go(tmp_path / "run", domains, network(domains), at("step", 3, press), **given)
    assert lines(tmp_path / "run")[-1]["step"] == 3
    assert capfd.readouterr().err.count("stopping after this step") == 1


def test_checkpoints_that_a_kill_left_unpruned_go(
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
