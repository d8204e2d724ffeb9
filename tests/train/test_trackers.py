"""Experiment trackers: one run over restarts, each step once, and nothing leaves the machine.

Fakes record what the packages are asked for; where a package is installed, it is used as well.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from onetrunk.train.loggers import Loggers, make_logger

ABOUT = {
    "name": "shop",
    "config": {
        "seed": 3,
        "train": {"lr": 0.1, "loggers": ["wandb"]},
        "domains": [{"name": "digits", "source": "pocket:digits"}],
    },
}
KEYS = {
    "lr": 0.1,
    "loss/digits/classify": 0.5,
    "distilled/digits features": 0.25,
    "images_per_s/digits": 210.0,
}
SCORES = {"val/digits/classify/error": 12.5, "score": 12.5}
REASON = "not installed: pip install onetrunk[{}]"


def log(folder: Path, name: str, *steps: int, part: str = "") -> None:
    """Train a part with log lines and evaluations at these steps."""
    logger = make_logger([name], folder, ABOUT)
    logger.begin({"part": part, "step": 0, "steps": 40, "domains": ["digits"], "run": str(folder)})
    for step in steps:
        line = {
            "part": part,
            "step": step,
            "lr": 0.1,
            "loss": {"digits/classify": 0.5},
            "distilled": {"digits features": 0.25},
            "images_per_s": {"digits": 210.0},
            "seconds": 1.0,
            "left_s": 3.0,
        }
        logger.log_step(line)
        val = {"digits/classify/error": 12.5}
        record = {"part": part, "step": step, "val": val, "score": 12.5, "best": True}
        logger.log_evaluation(record)
    logger.end()
    assert isinstance(logger, Loggers)
    assert name in [used for used, _ in logger.loggers]  # it was not switched off


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings of the user's own; home folders of the packages inside the test's folder."""
    for name in os.environ:
        if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("TRACKIO_PROJECT", "mine")
    return tmp_path / "run"


class FakeWandb(ModuleType):
    """The parts of wandb that are used."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.Settings = lambda **given: given
        self.inits: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.axes: dict[str, str | None] = {}
        self.finished = 0

    def init(self, **given: Any) -> FakeWandb:
        self.inits.append(given)
        self.settings = SimpleNamespace(sync_dir="offline-run-1")
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, numbers: dict[str, Any]) -> None:
        self.logged.append(numbers)

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.parametrize("login", ["", "WANDB_API_KEY", "NETRC"])
def test_wandb_continues_its_run(
    login: str, clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    if login:
        clean.parent.joinpath("netrc").write_text("machine api.wandb.ai login user password x\n")
        monkeypatch.setenv(login, str(clean.parent / "netrc"))
    mode, resume = ("online", "allow") if login else ("offline", None)
    log(clean, "wandb", 10, 20)
    log(clean, "wandb", 20, 30)  # killed after step 20, resumed at 10
    first, second = fake.inits
    assert first == second
    assert (first["mode"], first["resume"], first["name"]) == (mode, resume, "shop")
    assert (first["config"], first["dir"]) == (ABOUT["config"], str(clean))
    assert fake.axes == {"step": None, "*": "step"}
    assert fake.logged == [
        {"step": step, **each} for step in (10, 20, 30) for each in (KEYS, SCORES)
    ]
    assert fake.finished == 2
    assert ("wandb sync offline-run-1" in capsys.readouterr().err) == (mode == "offline")
    log(clean, "wandb", 10, part="flags")  # each network has its own steps
    assert fake.axes["flags/*"] == "flags/step"
    assert fake.logged[-1] == {"flags/step": 10} | {f"flags/{k}": v for k, v in SCORES.items()}


class FakeMlflow(ModuleType):
    """The parts of MLflow that are used."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: list[str] = []
        self.params: dict[str, str] = {}
        self.metrics: list[tuple[str, str, float, int]] = []
        self.states: list[str] = []
        self.entities = SimpleNamespace(Param=lambda *given: given, Metric=lambda *given: given)

    def MlflowClient(self, tracking_uri: str) -> FakeMlflow:
        self.uri = tracking_uri
        return self

    def get_experiment_by_name(self, name: str) -> None:
        assert name == "onetrunk"

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        self.artifacts = artifact_location
        return name

    def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
        self.runs.append(run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id-{len(self.runs)}"))

    def update_run(self, run_id: str, status: str) -> None:
        self.states.append(f"{run_id} {status}")

    def log_dict(self, run_id: str, document: Any, file: str) -> None:
        assert (document, file) == (ABOUT["config"], "recipe.json")

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert 0 < len(metrics) + len(params) <= 100
        self.params |= dict(params)
        self.metrics += [(run_id, key, value, step) for key, value, _, step in metrics]

    def set_terminated(self, run_id: str) -> None:
        self.states.append(f"{run_id} finished")


def test_mlflow_continues_its_run(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    log(clean, "mlflow", 10, 20)
    log(clean, "mlflow", 20, 30)
    assert fake.runs == ["shop"]
    assert fake.states == ["id-1 finished", "id-1 RUNNING", "id-1 finished"]
    assert fake.params == {
        "seed": "3",
        "train.lr": "0.1",
        "train.loggers": "['wandb']",
        "domains.digits.name": "digits",
        "domains.digits.source": "pocket:digits",
    }
    every = {**KEYS, **SCORES}
    assert sorted(fake.metrics) == sorted(
        ("id-1", key, value, step) for step in (10, 20, 30) for key, value in every.items()
    )
    assert fake.uri == f"sqlite:///{clean / 'mlflow/mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    log(clean, "mlflow", 40)
    assert fake.uri == "https://mlflow.example.org"


def test_trackio_continues_its_run(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inits: list[dict[str, Any]] = []
    logged: list[tuple[int, dict[str, float]]] = []
    fake: Any = ModuleType("trackio")
    run = SimpleNamespace(
        log=lambda numbers, step: logged.append((step, numbers)), finish=lambda: None
    )

    def init(**given: Any) -> SimpleNamespace:
        inits.append(given)
        return run

    fake.init = init
    monkeypatch.setitem(sys.modules, "trackio", fake)
    log(clean, "trackio", 10, 20)
    log(clean, "trackio", 20, 30)
    first, second = inits
    assert first == second
    assert (first["project"], first["resume"]) == ("mine", "allow")
    assert first["name"].startswith("shop-")
    assert first["config"] == ABOUT["config"]
    assert logged == [(step, each) for step in (10, 20, 30) for each in (KEYS, SCORES)]


def test_a_damaged_record_of_what_was_sent_starts_a_new_run(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log(clean, "wandb", 10)
    (clean / "loggers/wandb.json").write_text('{"id": ')
    log(clean, "wandb", 10)
    assert fake.inits[0]["id"] != fake.inits[1]["id"]
    assert json.loads((clean / "loggers/wandb.json").read_text())["id"] == fake.inits[1]["id"]


def test_wandb_itself_works_offline(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason=REASON.format("wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    log(clean, "wandb", 10, 20)
    log(clean, "wandb", 20, 30)
    assert len(list((clean / "wandb").glob("offline-run-*/*.wandb"))) == 2


def test_mlflow_itself_keeps_one_run(clean: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason=REASON.format("mlflow"))
    log(clean, "mlflow", 10, 20)
    log(clean, "mlflow", 20, 30)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{clean / 'mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("onetrunk")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("shop", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "val/digits/classify/error")
    assert [(each.step, each.value) for each in history] == [(10, 12.5), (20, 12.5), (30, 12.5)]
    assert run.data.params["train.lr"] == "0.1"


def test_trackio_itself_keeps_one_run(clean: Path) -> None:
    pytest.importorskip("trackio", reason=REASON.format("trackio"))
    log(clean, "trackio", 10, 20)
    log(clean, "trackio", 20, 30)
    assert (clean.parent / "trackio" / "mine.db").is_file()
