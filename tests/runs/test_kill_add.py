"""`onetrunk add` killed in the middle goes on to the same pack; two at once do not meet."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load
from onetrunk.store.run_folder import CHECKPOINTS
from tests.helpers.killing import Server, lines, signal_when, without_clock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.timeout(1800),
]
TRAIN = ("train", "--domain", "digits=pocket:optdigits", "--set", "trunk.arch=resnet20")
SETS = ("train.steps=3", "train.batch=8", "domains.digits.size=8", "seed=3")
ADD = ("add", "run", "flags", "pocket:flags", "--set", "domains.flags.size=8")
MORE = ("train.steps=40", "train.log=1", "train.evaluate=40", "train.checkpoint=4")


def said(sets: tuple[str, ...]) -> list[str]:
    return [word for each in sets for word in ("--set", each)]


class Shelf:
    """A server in a folder with a finished run, and what an undisturbed growth came to."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder / "here", threads=1)
        code, text = self.server.run(*TRAIN, *said(SETS), "--out", "fresh")
        assert code == 0, text
        self.begin()
        code, text = self.server.run(*ADD, *said(MORE))
        assert code == 0, text
        self.whole = outcome(self.run)

    @property
    def run(self) -> Path:
        return self.server.folder / "run"

    def begin(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.server.folder / "fresh", self.run)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    made = Shelf(tmp_path_factory.mktemp("grow"))
    yield made
    made.server.close()


def outcome(run: Path) -> dict[str, Any]:
    """What a growth came to, without dates."""
    pack = Pack.open(run / "model/packs/flags.pack")
    text = (run / "grown/flags/metrics.jsonl").read_text()
    return {
        "tensors": {key: tensor.numpy().tobytes() for key, tensor in pack.tensors.items()},
        "lines": [without_clock(json.loads(line)) for line in text.splitlines()],
        "scores": json.loads((run / "scores.json").read_text())["test"],
        "domains": list(load(run).domains),
    }


@pytest.mark.parametrize("at", [0, 3, 17, 41])
def test_a_growth_that_was_killed_ends_as_one_that_was_not(shelf: Shelf, at: int) -> None:
    """Before its first line, in its steps, and at its end; the model in use is whole throughout."""
    shelf.begin()
    work = shelf.run / "growing/flags"
    trunk = (shelf.run / "model/trunk.safetensors").read_bytes()
    delay = 0.3 if at == 0 else 0.01
    code, text = shelf.server.run(
        *ADD, *said(MORE), then=signal_when(lambda: work.exists() and lines(work) >= at, delay)
    )
    assert code in (0, -signal.SIGKILL), text
    if code:
        assert list(load(shelf.run).domains) == ["digits"]
        code, text = shelf.server.run(*ADD, *said(MORE), "--resume")
        assert code == 0, text
    assert outcome(shelf.run) == shelf.whole
    assert (shelf.run / "model/trunk.safetensors").read_bytes() == trunk


def test_asked_to_stop_it_says_the_command_that_goes_on(shelf: Shelf) -> None:
    shelf.begin()
    work = shelf.run / "growing/flags"
    code, text = shelf.server.run(
        *ADD, *said(MORE), then=signal_when(lambda: lines(work) >= 9, 0.0, signal.SIGTERM)
    )
    assert code == 1, text
    last = text.strip().splitlines()[-1]
    assert "try: onetrunk add run flags pocket:flags" in last and last.endswith("--resume")
    assert list((work / CHECKPOINTS / "parallel").iterdir())
    code, text = shelf.server.run(*ADD, *said(MORE))
    assert code == 2 and "is unfinished at step" in text and text.strip().endswith("--resume")
    code, text = shelf.server.run(*ADD, *said(MORE), "--set", "train.lr=0.5", "--resume")
    assert code == 2 and "train.lr" in text and "remove run/growing/flags" in text
    code, text = shelf.server.run(*last.split("try: onetrunk ")[1].split())
    assert code == 0, text
    assert outcome(shelf.run) == shelf.whole


def test_a_second_add_is_refused_while_the_first_goes_on(shelf: Shelf) -> None:
    shelf.begin()
    with FileLock(shelf.run / ".lock"):
        code, text = shelf.server.run("add", "run", "other", "pocket:digits")
        assert code == 2 and "another process is writing to the run run" in text
        assert "try: wait for its end, then onetrunk add run other" in text
    assert not (shelf.run / "growing").exists()
    assert list(load(shelf.run).domains) == ["digits"]


def test_a_run_that_still_trains_takes_no_domain(shelf: Shelf) -> None:
    shelf.begin()
    (shelf.run / "scores.json").unlink()
    code, text = shelf.server.run(*ADD)
    assert code == 2 and "is not finished" in text
    assert text.strip().endswith("try: onetrunk train run/recipe.toml --resume")
