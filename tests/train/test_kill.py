"""Runs that are killed at random instants and resumed are the same to the bit."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from onetrunk.store.run_folder import RunFolder
from tests.helpers.killing import Server, has_lines, lines, outcome, signal_when

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.timeout(1800),  # the machine may be busy
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
ema = 0.8
mixup = 0.2
clip = 5.0
eval_every = 12
checkpoint_every = 3
log_every = 1
workers = {workers}
"""
STEPS = 36


class Runs:
    """Servers by their number of threads, and uninterrupted runs; each is created once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: dict[int, Server] = {}
        self.uninterrupted_runs: dict[tuple[int, str], Path] = {}

    def server(self, threads: int = 1) -> Server:
        if threads not in self.servers:
            self.servers[threads] = Server(self.folder / f"threads-{threads}", threads)
        return self.servers[threads]

    def uninterrupted(self, threads: int = 1, sharing: str = "deep") -> Path:
        if (threads, sharing) not in self.uninterrupted_runs:
            server = self.server(threads)
            out = f"uninterrupted-{sharing}"
            code, output = server.run("train", recipe(server, out, sharing))
            assert code == 0, output
            self.uninterrupted_runs[threads, sharing] = server.folder / out
        return self.uninterrupted_runs[threads, sharing]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    runs = Runs(tmp_path_factory.mktemp("kill"))
    yield runs
    for server in runs.servers.values():
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
        assert other[name] == content, f"{name} differs"


def kill(server: Server, run: Path, total: int, kills: int, sharing: str, seed: int) -> int:
    """Kill a run up to `kills` times, then let it finish; return how often it was killed.

    The goals are random shares of the remaining lines, so that the kills fall anywhere: before the
    first line, in steps, checkpoints and evaluations, and after the last line.
    """
    chance = random.Random(seed)
    words = ("train", recipe(server, run.name, sharing), "--resume")
    done = 0
    for attempt in range(kills):
        share = 2 * (total - lines(run)) / (kills - attempt)  # twice the mean number of lines
        goal = min(total, lines(run) + int(chance.uniform(0, share)))
        # longer delays at the ends, where there are no lines to wait for
        delay = chance.uniform(0, 1.0) if goal in (0, total) else chance.uniform(0, 0.1)
        code, output = server.run(*words, then=signal_when(partial(has_lines, run, goal), delay))
        if code == 0:
            break
        assert code == -signal.SIGKILL, output
        done += 1
    code, output = server.run(*words)
    assert code == 0, output
    return done


@pytest.mark.slow
def test_three_kills_change_nothing(runs: Runs) -> None:
    expected, run = runs.uninterrupted(), runs.server().folder / "three"
    assert kill(runs.server(), run, lines(expected), 3, "deep", seed=0) == 3
    same(outcome(expected), outcome(run))


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["deep", "none"])
@pytest.mark.parametrize("threads", [1, 2])
def test_thirty_kills_change_nothing(runs: Runs, threads: int, sharing: str) -> None:
    expected = runs.uninterrupted(threads, sharing)
    server = runs.server(threads)
    run = server.folder / f"thirty-{sharing}"
    kills = kill(server, run, lines(expected), 30, sharing, seed=threads)
    assert kills >= 27, "the run ended before it could be killed"
    same(outcome(expected), outcome(run))


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGINT, 1)],
    ids=["SIGTERM", "SIGINT", "SIGINT with a worker"],
)
def test_a_stopped_run_saves_a_checkpoint_and_prints_how_to_resume(
    runs: Runs, number: signal.Signals, workers: int
) -> None:
    server, expected = runs.server(), runs.uninterrupted()
    run = server.folder / f"stopped {number} {workers}"
    path = recipe(server, run.name, workers=workers)
    code, output = server.run(
        "train", path, then=signal_when(lambda: lines(run) >= 14, 0.01, number)
    )
    assert code == 1, output
    last = output.strip().splitlines()[-1]
    assert "try: onetrunk train" in last and last.endswith("--resume"), output
    assert "Traceback" not in output
    at = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert (run / f"checkpoints/step-{at}").is_dir(), "the last step is lost"
    assert 13 <= at < STEPS
    words = shlex.split(last.split("try: onetrunk ")[1])
    code, output = server.run(*words)
    assert code == 0, output
    same(outcome(expected), outcome(run))


def test_a_second_process_and_a_second_start_are_refused(runs: Runs) -> None:
    server = runs.server()
    run = server.folder / "twice"
    path = recipe(server, run.name, steps=4000)
    RunFolder.open(run, "").close()
    (run / "recipe.toml").unlink()
    with FileLock(run / ".lock"):
        code, output = server.run("train", path, "--resume")
        assert code == 2 and "another process is writing to the run twice" in output
    server.run("train", path, then=signal_when((run / "checkpoints/step-3").exists, 0.0))
    code, output = server.run("train", path)
    assert code == 2, output
    assert re.search(r"step [1-9]\d*", output) and "--resume" in output, output
    other = recipe(server, run.name, steps=5000)
    code, output = server.run("train", other, "--resume")
    assert code == 2 and "train.steps (was 4000, is 5000)" in output


def test_resuming_a_finished_run_changes_nothing(runs: Runs) -> None:
    server, expected = runs.server(), runs.uninterrupted()
    before = {p: p.stat().st_mtime_ns for p in expected.rglob("*") if p.name != ".lock"}
    path = recipe(server, expected.name)
    code, output = server.run("train", path)
    assert code == 2 and "try: onetrunk eval" in output
    code, output = server.run("train", path, "--resume")
    assert code == 0, output
    after = {p: p.stat().st_mtime_ns for p in expected.rglob("*") if p.name != ".lock"}
    assert before == after
