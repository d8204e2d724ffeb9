"""Callbacks: when they are called, how they stop a training, and what their errors leave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import onetrunk as ot
from onetrunk.errors import BadInput, Failed
from onetrunk.train.callbacks import Callback, Training, check_callbacks
from tests.helpers.errors import raises
from tests.helpers.worlds import checkpoints, go, lines, network, same, weights, worlds

SHORT: dict[str, Any] = {"steps": 6, "eval_every": 3, "log_every": 2, "checkpoint_every": 2}


class Note(Callback):
    """Notes its calls, and does something at one of them; counts steps over restarts."""

    def __init__(self, at: str = "", do: str = "") -> None:
        self.at, self.do, self.calls, self.steps, self.reason = at, do, list[str](), 0, ""

    def on_start(self, training: Training) -> None:
        self._note(f"start {training.step}", training)

    def on_step(self, training: Training) -> None:
        self.steps += 1
        assert set(training.losses) == {"ants/classify"}
        self._note(f"step {training.step}", training)

    def on_eval(self, training: Training) -> None:
        assert set(training.val) == {"ants/classify/error"}
        assert training.score == training.val["ants/classify/error"]
        self._note(f"eval {training.step}", training)

    def on_end(self, training: Training) -> None:
        self.reason = training.reason
        self._note(f"end {training.step}", training)

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]

    def _note(self, call: str, training: Training) -> None:
        self.calls.append(call)
        if call == self.at:
            if self.do == "stop":
                training.stop("enough")
            elif self.do == "fail":
                raise ValueError("no\x1b network")


def train(folder: Path, *callbacks: Callback) -> dict[str, Any]:
    """Train, or resume the run in the folder."""
    domains = worlds("ants")
    model = network(domains)
    selection = go(folder, domains, model, callbacks=callbacks, **SHORT)
    return {"weights": weights(model), "best": selection.step}


def test_the_four_hooks_are_called_in_order(tmp_path: Path) -> None:
    note = Note()
    train(tmp_path / "run", note)
    assert note.calls == [
        "start 0", "step 1", "step 2", "step 3", "eval 3", "step 4", "step 5", "step 6", "eval 6",
        "end 6",
    ]  # fmt: skip
    assert note.reason == "finished"


def test_callbacks_do_not_change_the_training(tmp_path: Path) -> None:
    plain, watched = train(tmp_path / "plain"), train(tmp_path / "watched", Note())
    assert same(plain["weights"], watched["weights"])


def test_a_stop_evaluates_and_keeps_the_best_weights(tmp_path: Path) -> None:
    note, after = Note("step 4", "stop"), Note()
    found = train(tmp_path / "run", note, after)
    assert after.calls[-5:] == ["step 3", "eval 3", "step 4", "eval 4", "end 4"]
    assert note.reason == "enough"
    assert found["best"] in (3, 4)
    assert [line["step"] for line in lines(tmp_path / "run") if "val" in line] == [3, 4]
    again = Note()
    train(tmp_path / "run", again)  # a resumed run stays stopped
    assert again.calls == ["start 4", "end 4"]
    assert again.steps == 4


@pytest.mark.parametrize("at", ["start 0", "step 2", "step 3", "eval 3", "step 5", "end 6"])
def test_an_error_ends_the_run_which_resumes_to_the_same_weights(at: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plain = train(tmp_path / "plain")
    broken = Note(at, "fail")
    with raises(
        Failed, "Note", f"on_{at.split()[0]}", got="ValueError: no\\x1b network", try_="--resume"
    ):
        train(folder, broken)
    step = int(at.split()[1])
    assert max(checkpoints(folder), default=0) == step
    assert at == "end 6" or "Note failed" in broken.reason
    repaired = Note()
    found = train(folder, repaired)
    assert repaired.calls[0] == f"start {step}"
    assert repaired.steps == 6
    assert same(plain["weights"], found["weights"])
    assert lines(folder) == lines(tmp_path / "plain")


def test_an_interrupted_training_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Note):
        def on_step(self, training: Training) -> None:
            if training.step == 3:
                raise KeyboardInterrupt

    note = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", note)
    assert note.reason == "KeyboardInterrupt"
    domains, other = worlds("ants"), tmp_path / "other"
    model, settings = network(domains), ot.Train(**SHORT)
    with pytest.raises(KeyboardInterrupt):
        ot.train(model, domains, out=other, train=settings, callbacks=[note])
    last = capsys.readouterr().err.splitlines()[-1]
    assert "step 2" in last
    assert last.endswith(f"continue with train(…, out={str(other)!r}, resume=True)")


def test_a_wrong_callback_is_refused_before_training(tmp_path: Path) -> None:
    with raises(BadInput, got="Note", try_="Note()"):
        check_callbacks([Note])
    with raises(BadInput, got="int", available=["on_start", "on_end"]):
        check_callbacks([3])
    domains = worlds("ants")
    out = tmp_path / "run"
    with raises(BadInput, got="int"):
        ot.train(network(domains), domains, out=out, callbacks=[3])  # type: ignore[list-item]
    frozen = ot.Train(frozen=True)
    with raises(BadInput, got="train.frozen = true"):
        ot.train(network(domains), domains, out=out, train=frozen, callbacks=[Note()])
    with raises(BadInput, got="int without begin, log_step, log_evaluation, end"):
        ot.train(network(domains), domains, out=out, loggers=[3])  # type: ignore[list-item]
    assert not out.exists()


def test_callbacks_and_loggers_are_arguments_of_train(tmp_path: Path) -> None:
    class Log:
        def __init__(self) -> None:
            self.plans: list[Mapping[str, Any]] = []
            self.kinds: list[str] = []

        def begin(self, plan: Mapping[str, Any]) -> None:
            self.plans.append(plan)

        def log_step(self, record: Mapping[str, Any]) -> None:
            self.kinds.append("step")

        def log_evaluation(self, record: Mapping[str, Any]) -> None:
            self.kinds.append("evaluation")

        def end(self) -> None:
            self.kinds.append("end")

    domains, note, log = worlds("ants"), Note("step 2", "stop"), Log()
    settings = ot.Train(steps=4, batch=4, log_every=1, optimizer="sgd", eval_every=1)
    run = ot.train(
        network(domains), domains, out=tmp_path / "My-Run", train=settings,
        device="cpu", loggers=[log], callbacks=[note],
    )  # fmt: skip
    assert note.reason == "enough"
    assert run.scores["best"][""]["step"] <= 2
    (plan,) = log.plans
    assert plan["name"] == "my-run"
    assert plan["config"]["train"]["lr"] == 0.05  # resolved
    assert plan["config"]["domains"][0]["name"] == "ants"
    assert log.kinds == ["step", "evaluation", "step", "evaluation", "end"]
