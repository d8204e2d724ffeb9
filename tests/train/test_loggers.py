"""Loggers: TensorBoard's file, a user's own, and what is refused or switched off."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onetrunk.errors import BadInput, Missing
from onetrunk.train.loggers import Loggers, make_logger

PLAN = {"part": "", "steps": 40, "step": 0, "domains": ["digits"], "run": "runs/x"}
LINE = {
    "part": "",
    "step": 10,
    "lr": 0.1,
    "loss": {"digits/classify": 0.5},
    "seconds": 1.0,
    "images_per_s": {"digits": 210.0},
    "left_s": 3.0,
}
EVALUATED = {
    "part": "",
    "step": 10,
    "val": {"digits/classify/error": 12.5},
    "score": 12.5,
    "best": True,
}

MINE = """
class Mine:
    def __init__(self, folder): self.folder, self.told = folder, []
    def begin(self, plan): self.told.append(("begin", plan))
    def log_step(self, record): self.told.append(("step", record)); record["loss"].clear()
    def log_evaluation(self, record): self.told.append(("evaluated", record))
    def end(self): self.told.append(("end",))

class Bad(Mine):
    def log_evaluation(self, record): raise RuntimeError("no network\\n\\x1b[2Jat all")
    def end(self): raise AssertionError("asked again")

class Lame:
    def __init__(self, folder): ...
    def begin(self, plan): ...
    log_step = 3

def broken(folder): raise KeyError("token")
def nothing(folder): return None
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_loggers.py").write_text(MINE)
    (tmp_path / "my_torn.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_loggers", None)


def tell(logger: Any) -> None:
    logger.begin(PLAN)
    logger.log_step(LINE)
    logger.log_evaluation(EVALUATED)
    logger.log_evaluation(EVALUATED)
    logger.end()


def test_a_users_own_is_told_all_and_can_spoil_nothing(mine: Path) -> None:
    logger = make_logger(["my_loggers:Mine"], mine / "run")
    tell(logger)
    assert isinstance(logger, Loggers)
    own: Any = logger.loggers[1][1]
    assert own.folder == mine / "run"
    assert own.told == [
        ("begin", PLAN),
        ("step", {**LINE, "loss": {}}),
        ("evaluated", EVALUATED),
        ("evaluated", EVALUATED),
        ("end",),
    ]
    assert LINE["loss"] == {"digits/classify": 0.5}


def test_one_that_fails_is_named_once_and_the_others_go_on(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = make_logger(["my_loggers:Bad", "my_loggers:Mine"], mine)
    tell(logger)
    said = [line for line in capsys.readouterr().err.splitlines() if "logger" in line]
    assert said == [
        "the logger my_loggers:Bad failed in evaluated (RuntimeError: no network\\n\\x1b[2Jat all) "
        "and is switched off; training goes on"
    ]
    assert isinstance(logger, Loggers)
    own: Any = logger.loggers[1][1]
    assert [told[0] for told in own.told] == ["begin", "step", "evaluated", "evaluated", "end"]


def test_what_stops_the_run_is_not_kept_by_a_logger() -> None:
    class Stopping:
        def begin(self, plan: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Loggers([("x", Stopping())]).begin({})  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wandb", "expected a logger's name.*got: 'wandb'; available: tensorboard, package.module"),
        ("my_loggers:", "expected a logger's name"),
        ("my_nothing:Mine", "cannot import my_nothing"),
        ("my_torn:Mine", "my_torn fails when imported; got: 'ZeroDivisionError"),
        ("my_loggers:mine", "my_loggers has nothing to call; got: 'mine'; available: Mine, "),
        ("my_loggers:number", "my_loggers has nothing to call; got: 'number'"),
        ("my_loggers:broken", r"my_loggers:broken does not start; got: \"KeyError: 'token'\""),
        ("my_loggers:Lame", "got: 'Lame without step, evaluated, end'"),
        ("my_loggers:nothing", "got: 'NoneType without begin"),
    ],
)
def test_a_wrong_one_is_refused_before_training(mine: Path, name: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make_logger([name], mine)


def test_tensorboard_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.startswith(("torch.utils.tensorboard", "tensorb"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(Missing, match=r"try: pip install 'onetrunk\[tensorboard\]'"):
        make_logger(["tensorboard"], tmp_path)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))  # type: ignore[no-untyped-call]
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def test_tensorboard_reads_what_was_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = make_logger(["tensorboard"], tmp_path)
    tell(logger)
    logger.begin({**PLAN, "part": "digits"})
    logger.log_step({**LINE, "part": "digits", "step": 20, "images_per_s": {"digits": None}})
    logger.end()
    assert scalars(tmp_path / "tensorboard/digits") == {
        "lr": [(20, pytest.approx(0.1))],
        "loss/digits/classify": [(20, 0.5)],
    }
    assert scalars(tmp_path / "tensorboard") == {
        "lr": [(10, pytest.approx(0.1))],
        "loss/digits/classify": [(10, 0.5)],
        "images_per_s/digits": [(10, 210.0)],
        "val/digits/classify/error": [(10, 12.5), (10, 12.5)],
        "score": [(10, 12.5), (10, 12.5)],
    }


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    """A run killed at step 30 and resumed at 20 has one curve, not two."""
    pytest.importorskip("tensorboard")
    for steps, rate in (((10, 20, 30), 0.5), ((30, 40), 0.25)):
        logger = make_logger(["tensorboard"], tmp_path)
        logger.begin({**PLAN, "step": steps[0] - 10})
        for step in steps:
            logger.log_step({**LINE, "step": step, "lr": rate})
        if steps[0] == 30:
            logger.end()
        else:
            logger.loggers[1][1]._writer.flush()  # type: ignore[attr-defined]  # killed
    assert scalars(tmp_path / "tensorboard")["lr"] == [(10, 0.5), (20, 0.5), (30, 0.25), (40, 0.25)]
