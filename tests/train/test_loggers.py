"""Loggers: TensorBoard, users' own, and which are refused or switched off."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onetrunk.config.train import LOGGERS
from onetrunk.errors import BadInput, Missing
from onetrunk.train.loggers import LOGGERS as REGISTRY
from onetrunk.train.loggers import Loggers, check_loggers, make_logger
from tests.helpers.errors import raises

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
    def __init__(self, folder): self.folder, self.calls = folder, []
    def begin(self, plan): self.calls.append(("begin", plan))
    def log_step(self, record): self.calls.append(("log_step", record)); record["loss"].clear()
    def log_evaluation(self, record): self.calls.append(("log_evaluation", record))
    def end(self): self.calls.append(("end",))

class Bad(Mine):
    def log_evaluation(self, record): raise RuntimeError("no network\\n\\x1b[2Jat all")
    def end(self): raise AssertionError("called again")

class Incomplete:
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


def call(logger: Any) -> None:
    logger.begin(PLAN)
    logger.log_step(LINE)
    logger.log_evaluation(EVALUATED)
    logger.log_evaluation(EVALUATED)
    logger.end()


def test_a_users_logger_gets_copies_of_all_records(mine: Path) -> None:
    logger = make_logger(["my_loggers:Mine"], mine / "run")
    call(logger)
    assert isinstance(logger, Loggers)
    own: Any = logger.loggers[1][1]
    assert own.folder == mine / "run"
    assert own.calls == [
        ("begin", PLAN),
        ("log_step", {**LINE, "loss": {}}),
        ("log_evaluation", EVALUATED),
        ("log_evaluation", EVALUATED),
        ("end",),
    ]
    assert LINE["loss"] == {"digits/classify": 0.5}


def test_a_failing_logger_is_reported_once_and_switched_off(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = make_logger(["my_loggers:Bad", "my_loggers:Mine"], mine)
    call(logger)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "my_loggers:Bad" in line]
    assert "log_evaluation" in line
    assert "RuntimeError: no network\\n\\x1b[2Jat all" in line  # escaped for the terminal
    assert isinstance(logger, Loggers)
    own: Any = logger.loggers[1][1]
    names = ["begin", "log_step", "log_evaluation", "log_evaluation", "end"]
    assert [call[0] for call in own.calls] == names


def test_keyboard_interrupts_pass_through_loggers() -> None:
    class Stopping:
        def begin(self, plan: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        # it needs no other method here
        Loggers([("x", Stopping())]).begin({})  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("name", "got", "fact"),
    [
        ("wnadb", "wnadb", "package.module:thing"),
        ("my_loggers:", "my_loggers:", "package.module:thing"),
        ("my_nothing:Mine", "No module named 'my_nothing'", "my_nothing"),
        ("my_torn:Mine", "ZeroDivisionError: division by zero", "my_torn"),
        ("my_loggers:mine", "mine", "my_loggers"),
        ("my_loggers:number", "int", "my_loggers:number"),
        ("my_loggers:broken", "KeyError: 'token'", "my_loggers:broken"),
        (
            "my_loggers:Incomplete",
            "Incomplete without log_step, log_evaluation, end",
            "my_loggers:Incomplete",
        ),
        (
            "my_loggers:nothing",
            "NoneType without begin, log_step, log_evaluation, end",
            "my_loggers:nothing",
        ),
    ],
)
def test_a_wrong_logger_is_refused_before_training(
    mine: Path, name: str, got: str, fact: str
) -> None:
    with raises(BadInput, fact, got=got):
        make_logger([name], mine)


def test_available_loggers_are_listed(mine: Path) -> None:
    built_in = ("mlflow", "tensorboard", "trackio", "wandb")
    with raises(BadInput, got="wnadb", available=built_in, try_="wandb"):
        make_logger(["wnadb"], mine)
    assert built_in == LOGGERS == tuple(REGISTRY)
    with raises(BadInput, got="mine", available=("Mine", "Bad", "Incomplete", "broken")):
        make_logger(["my_loggers:mine"], mine)


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_package_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.startswith(("torch.utils.tensorboard", name))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    for use in (lambda: make_logger([name], tmp_path), lambda: check_loggers([name])):
        with raises(Missing, name, try_=f"pip install 'onetrunk[{name}]'"):
            use()


def test_an_object_is_used_as_it_is(tmp_path: Path) -> None:
    class Mine:
        plan: Any = None

        def begin(self, plan: Any) -> None:
            self.plan = plan

        def log_step(self, record: Any) -> None: ...
        def log_evaluation(self, record: Any) -> None: ...
        def end(self) -> None: ...

    mine = Mine()
    about = {"name": "shop", "config": {"train": {"lr": 0.1}}}
    call(make_logger([mine], tmp_path, about))
    assert mine.plan == {**PLAN, **about}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def test_tensorboard_gets_all_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = make_logger(["tensorboard"], tmp_path)
    call(logger)
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


def test_tensorboard_purges_values_after_the_checkpoint(tmp_path: Path) -> None:
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
            assert isinstance(logger, Loggers)
            tensorboard: Any = logger.loggers[1][1]
            tensorboard._writer.flush()  # and then it is killed
    assert scalars(tmp_path / "tensorboard")["lr"] == [(10, 0.5), (20, 0.5), (30, 0.25), (40, 0.25)]
