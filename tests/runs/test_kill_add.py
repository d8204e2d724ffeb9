"""`onetrunk add` resumes after a kill with the same result; a second process is refused."""

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
from onetrunk.runs.open import Run
from onetrunk.store.run_folder import CHECKPOINTS
from tests.helpers.killing import Server, lines, signal_when, without_clock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.timeout(1800),
]
TRAIN = ("train", "--domain", "digits=pocket:optdigits", "--set", "trunk.arch=resnet20")
SETS = ("train.steps=3", "train.batch=8", "domains.digits.size=8", "seed=3")
ADD = ("add", "run", "flags", "pocket:flags", "--set", "domains.flags.size=8")
FEW = ("train.steps=40", "train.log_every=1", "train.eval_every=40", "train.checkpoint_every=4")
MORE = (*FEW, "add.few=false")  # flags has few images a class
ADAPTERS = (*FEW, "add.adapters=parallel")  # otherwise a head would be chosen after one fold


def set_words(sets: tuple[str, ...]) -> list[str]:
    return [word for each in sets for word in ("--set", each)]


class Additions:
    """A server in a folder with a finished run, and the expected outcome of `add`."""

    def __init__(self, folder: Path, sets: tuple[str, ...]) -> None:
        self.server = Server(folder / "work", threads=1)
        code, text = self.server.run(*TRAIN, *set_words(SETS), "--out", "fresh")
        assert code == 0, text
        self.begin()
        code, text = self.server.run(*ADD, *set_words(sets))
        assert code == 0, text
        self.expected = outcome(self.run)

    @property
    def run(self) -> Path:
        return self.server.folder / "run"

    def begin(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.server.folder / "fresh", self.run)


@pytest.fixture(scope="module")
def additions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Additions]:
    additions = Additions(tmp_path_factory.mktemp("add"), MORE)
    yield additions
    additions.server.close()


@pytest.fixture(scope="module")
def few_additions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Additions]:
    additions = Additions(tmp_path_factory.mktemp("few"), ADAPTERS)
    yield additions
    additions.server.close()


def outcome(run: Path) -> dict[str, Any]:
    """Return what `add` wrote, without times."""
    pack = Pack.open(run / "model/packs/flags.pack")
    text = (run / "added/flags/metrics.jsonl").read_text()
    return {
        "tensors": {key: tensor.numpy().tobytes() for key, tensor in pack.tensors.items()},
        "lines": [without_clock(json.loads(line)) for line in text.splitlines()],
        "scores": Run(run).scores["test"],
        "domains": list(load(run).domains),
    }


@pytest.mark.parametrize("at", [0, 3, 17, 41])
def test_a_killed_add_is_resumed_with_the_same_outcome(additions: Additions, at: int) -> None:
    """The kill comes before the first line, during the steps, or at the end."""
    additions.begin()
    work = additions.run / "adding/flags"
    trunk = (additions.run / "model/trunk.safetensors").read_bytes()
    delay = 0.3 if at == 0 else 0.01
    code, text = additions.server.run(
        *ADD, *set_words(MORE), then=signal_when(lambda: work.exists() and lines(work) >= at, delay)
    )
    assert code in (0, -signal.SIGKILL), text
    if code:
        assert list(load(additions.run).domains) == ["digits"]
        code, text = additions.server.run(*ADD, *set_words(MORE), "--resume")
        assert code == 0, text
    assert outcome(additions.run) == additions.expected
    assert (additions.run / "model/trunk.safetensors").read_bytes() == trunk


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 30, 55])
def test_a_killed_add_with_few_images_is_resumed_with_the_same_outcome(
    few_additions: Additions, at: int
) -> None:
    """The kill comes on the first fold, or while all images are trained on."""
    few_additions.begin()
    work = few_additions.run / "adding/flags"
    code, text = few_additions.server.run(
        *ADD,
        *set_words(ADAPTERS),
        then=signal_when(lambda: work.exists() and lines(work) >= at, 0.01),
    )
    assert code == -signal.SIGKILL, text
    code, text = few_additions.server.run(*ADD, *set_words(ADAPTERS), "--resume")
    assert code == 0, text
    assert outcome(few_additions.run) == few_additions.expected
    record = Run(few_additions.run).record("flags")
    assert {each["method"] for each in record["tried"]} >= {"class means", "parallel"}


def test_a_stopped_add_suggests_the_command_that_resumes_it(additions: Additions) -> None:
    additions.begin()
    work = additions.run / "adding/flags"
    code, text = additions.server.run(
        *ADD, *set_words(MORE), then=signal_when(lambda: lines(work) >= 9, 0.0, signal.SIGTERM)
    )
    assert code == 1, text
    last = text.strip().splitlines()[-1]
    assert "try: onetrunk add run flags pocket:flags" in last and last.endswith("--resume")
    assert list((work / CHECKPOINTS / "parallel").iterdir())
    code, text = additions.server.run(*ADD, *set_words(MORE))
    assert code == 2 and "is unfinished at step" in text and text.strip().endswith("--resume")
    code, text = additions.server.run(*ADD, *set_words(MORE), "--set", "train.lr=0.5", "--resume")
    assert code == 2 and "train.lr" in text and "remove run/adding/flags" in text
    code, text = additions.server.run(*last.split("try: onetrunk ")[1].split())
    assert code == 0, text
    assert outcome(additions.run) == additions.expected


def test_a_second_add_is_refused_at_the_same_time(additions: Additions) -> None:
    additions.begin()
    with FileLock(additions.run / ".lock"):
        code, text = additions.server.run("add", "run", "other", "pocket:digits")
        assert code == 2 and "another process is writing to the run run" in text
        assert "try: wait until it ends, then onetrunk add run other" in text
    assert not (additions.run / "adding").exists()
    assert list(load(additions.run).domains) == ["digits"]


def test_domains_cannot_be_added_to_an_unfinished_run(additions: Additions) -> None:
    additions.begin()
    (additions.run / "scores.json").unlink()
    code, text = additions.server.run(*ADD)
    assert code == 2 and "is not finished" in text
    assert text.strip().endswith("try: onetrunk train run/recipe.toml --resume")
