"""Runs that survive anything: killed at random instants, resumed, and the same to the bit."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from onetrunk.store.run_folder import RunFolder
from tests.helpers.killing import Server, lines, outcome, signal_when

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.timeout(1800),  # of a machine that does other things as well
]

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
workers = {workers}
"""
STEPS = 36


class Shelf:
    """Servers by their threads, and undisturbed runs: each is made once for all tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: dict[int, Server] = {}
        self.wholes: dict[tuple[int, str], Path] = {}

    def server(self, threads: int = 1) -> Server:
        if threads not in self.servers:
            self.servers[threads] = Server(self.folder / f"threads-{threads}", threads)
        return self.servers[threads]

    def whole(self, threads: int = 1, sharing: str = "deep") -> Path:
        if (threads, sharing) not in self.wholes:
            server = self.server(threads)
            out = f"whole-{sharing}"
            code, said = server.run("train", recipe(server, out, sharing))
            assert code == 0, said
            self.wholes[threads, sharing] = server.folder / out
        return self.wholes[threads, sharing]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path_factory.mktemp("kill"))
    yield shelf
    for server in shelf.servers.values():
        server.close()


def recipe(
    server: Server, out: str, sharing: str = "deep", steps: int = STEPS, workers: int = 0
) -> str:
    path = server.folder / f"{out}.toml"
    text = RECIPE.format(out=out, sharing=sharing, steps=steps, workers=workers)
    path.write_text(text)
    return path.name


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, content in one.items():
        assert other[name] == content, f"{name} is another"


def kill(server: Server, run: Path, total: int, kills: int, sharing: str, seed: int) -> int:
    """Kill a run so many times, then leave it alone; how often it was in fact killed.

    Each life gets a random share of what is to be done, so that the instants fall anywhere:
    before the first line, in steps, checkpoints and evaluations, and after the last line.
    """
    chance = random.Random(seed)
    words = ("train", recipe(server, run.name, sharing), "--resume")
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
    return done


def test_three_kills_change_nothing(shelf: Shelf) -> None:
    whole, run = shelf.whole(), shelf.server().folder / "three"
    assert kill(shelf.server(), run, lines(whole), 3, "deep", seed=0) == 3
    same(outcome(whole), outcome(run))


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["deep", "none"])
@pytest.mark.parametrize("threads", [1, 2])
def test_thirty_kills_change_nothing(shelf: Shelf, threads: int, sharing: str) -> None:
    whole = shelf.whole(threads, sharing)
    server = shelf.server(threads)
    run = server.folder / f"thirty-{sharing}"
    kills = kill(server, run, lines(whole), 30, sharing, seed=threads)
    assert kills >= 27, "the run ended before it could be killed"
    same(outcome(whole), outcome(run))


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGINT, 1)],
    ids=["SIGTERM", "SIGINT", "SIGINT with a worker"],
)
def test_asked_to_stop_it_writes_a_checkpoint_and_says_how_to_go_on(
    shelf: Shelf, number: signal.Signals, workers: int
) -> None:
    server, whole = shelf.server(), shelf.whole()
    run = server.folder / f"asked {number} {workers}"
    path = recipe(server, run.name, workers=workers)
    code, said = server.run("train", path, then=signal_when(lambda: lines(run) >= 14, 0.01, number))
    assert code == 1, said
    last = said.strip().splitlines()[-1]
    assert "try: onetrunk train" in last and last.endswith("--resume"), said
    assert "Traceback" not in said
    at = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert (run / f"checkpoints/step-{at}").is_dir(), "what was learned is lost"
    assert 13 <= at < STEPS
    words = shlex.split(last.split("try: onetrunk ")[1])
    code, said = server.run(*words)
    assert code == 0, said
    same(outcome(whole), outcome(run))


def test_two_processes_on_one_run_and_a_run_begun_twice_are_refused(shelf: Shelf) -> None:
    server = shelf.server()
    run = server.folder / "twice"
    path = recipe(server, run.name, steps=4000)
    RunFolder.open(run, "").close()
    (run / "recipe.toml").unlink()
    with FileLock(run / ".lock"):
        code, said = server.run("train", path, "--resume")
        assert code == 2 and "another process is writing to the run twice" in said
    server.run("train", path, then=signal_when((run / "checkpoints/step-3").exists, 0.0))
    code, said = server.run("train", path)
    assert code == 2 and re.search(r"is unfinished at step [1-9]\d*; try: .* --resume", said), said
    other = recipe(server, run.name, steps=5000)
    code, said = server.run("train", other, "--resume")
    assert code == 2 and "train.steps (was 4000, is 5000)" in said


def test_a_finished_run_that_is_resumed_stays_as_it_is(shelf: Shelf) -> None:
    server, whole = shelf.server(), shelf.whole()
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.name != ".lock"}
    path = recipe(server, whole.name)
    code, said = server.run("train", path)
    assert code == 2 and "is finished; try: onetrunk eval" in said
    code, said = server.run("train", path, "--resume")
    assert code == 0, said
    after = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.name != ".lock"}
    assert before == after
