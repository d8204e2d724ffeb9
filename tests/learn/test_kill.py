"""Runs that survive anything: killed at random instants, resumed, and the same to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from killing import Server, lines, outcome, signal_when

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

RECIPE = """
name = "tiny"
seed = 5
out = "{out}"

[trunk]
arch = "resnet20"
pretrained = false
norm = "domain"
sharing = "{sharing}"

[[domains]]
name = "digits"
source = "pocket:digits"
size = 8

[[domains]]
name = "flags"
source = "pocket:flags"
size = 12
batch = 6

[train]
steps = {steps}
batch = 8
optimizer = "sgd"
lr = 0.05
average = 0.8
mixup = 0.2
clip = 5.0
evaluate = 12
checkpoint = 3
log = 1
"""
STEPS = 48


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of decoded images for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONETRUNK_CACHE", str(home))
    return tmp_path


def recipe(place: Path, out: str, sharing: str = "deep", steps: int = STEPS) -> str:
    path = place / f"{out}.toml"
    path.write_text(RECIPE.format(out=out, sharing=sharing, steps=steps))
    return str(path)


def undisturbed(server: Server, place: Path, sharing: str = "deep") -> dict[str, Any]:
    code, said = server.run("train", recipe(place, "whole", sharing))
    assert code == 0, said
    return outcome(place / "whole")


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, content in one.items():
        assert other[name] == content, f"{name} is another"


def killed(
    server: Server, place: Path, kills: int, sharing: str = "deep", seed: int = 0
) -> tuple[Path, int]:
    """A run that is killed so many times, then left alone; how often it was in fact killed.

    Each life gets a random share of what is to be done, so that the instants fall anywhere:
    before the first line, in steps, checkpoints and evaluations, and after the last line.
    """
    chance = random.Random(seed)
    run, words = place / "killed", ("train", recipe(place, "killed", sharing), "--resume")
    total = lines(place / "whole")
    done = 0
    for life in range(kills):
        share = 2 * (total - lines(run)) / (kills - life)  # lines, in the mean half of it
        goal = min(total, lines(run) + int(chance.uniform(0, share)))
        # at the first and at the last, and now and then between, an instant off the lines
        delay = chance.uniform(0, 1.0) if goal in (0, total) else chance.uniform(0, 0.1)
        code, said = server.run(
            *words, then=signal_when(lambda goal=goal: lines(run) >= goal, delay)
        )
        if code == 0:
            break
        assert code == -signal.SIGKILL, said
        done += 1
    code, said = server.run(*words)
    assert code == 0, said
    return run, done


def test_three_kills_change_nothing(place: Path) -> None:
    with Server(place, threads=1) as server:
        whole = undisturbed(server, place)
        run, kills = killed(server, place, 3)
        assert kills == 3
        same(whole, outcome(run))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("threads", "sharing"), [(1, "deep"), (2, "deep"), (1, "none"), (2, "none")]
)
def test_thirty_kills_change_nothing(place: Path, threads: int, sharing: str) -> None:
    with Server(place, threads) as server:
        whole = undisturbed(server, place, sharing)
        run, kills = killed(server, place, 30, sharing, seed=threads)
        assert kills >= 27, "the run ended before it could be killed"
        same(whole, outcome(run))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_asked_to_stop_it_writes_a_checkpoint_and_says_how_to_go_on(
    place: Path, number: signal.Signals
) -> None:
    run = place / "killed"
    with Server(place, threads=1) as server:
        whole = undisturbed(server, place)
        path = recipe(place, "killed")
        code, said = server.run(
            "train", path, then=signal_when(lambda: lines(run) >= 17, 0.01, number)
        )
        assert code == 1, said
        last = said.strip().splitlines()[-1]
        assert "next: onetrunk train" in last and last.endswith("--resume"), said
        assert "Traceback" not in said
        at = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        assert (run / f"checkpoints/step-{at}").is_dir(), "what was learned is lost"
        assert 16 <= at < STEPS
        words = last.split("next: onetrunk ")[1].split()
        code, said = server.run(*words)
        assert code == 0, said
        same(whole, outcome(run))


def test_two_processes_on_one_run_and_a_run_begun_twice_are_refused(place: Path) -> None:
    run = place / "killed"
    path = recipe(place, "killed", steps=4000)
    with Server(place, threads=1) as first, Server(place, threads=1) as second:

        def meanwhile(child: int) -> None:
            signal_when(lambda: lines(run) >= 1, 0.0, 0)(child)
            code, said = second.run("train", path, "--resume")
            assert code == 2 and "another process is writing to the run" in said
            os.kill(child, signal.SIGKILL)

        first.run("train", path, then=meanwhile)
        code, said = second.run("train", path)
        assert code == 2 and "is unfinished at step" in said and "--resume" in said
        other = recipe(place, "killed", steps=5000)
        code, said = second.run("train", other, "--resume")
        assert code == 2 and "train.steps (4000 there, 5000 here)" in said


def test_a_finished_run_that_is_resumed_stays_as_it_is(place: Path) -> None:
    with Server(place, threads=1) as server:
        undisturbed(server, place)
        before = {p: p.stat().st_mtime_ns for p in (place / "whole").rglob("*") if p.is_file()}
        time.sleep(0.01)
        code, said = server.run("train", recipe(place, "whole"))
        assert code == 2 and "is finished; next: onetrunk eval" in said
        code, said = server.run("train", recipe(place, "whole"), "--resume")
        assert code == 0, said
        after = {p: p.stat().st_mtime_ns for p in (place / "whole").rglob("*") if p.is_file()}
        before.pop(place / "whole/.lock"), after.pop(place / "whole/.lock")
        assert before == after
