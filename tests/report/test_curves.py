"""Training curves as they are read from the records of runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onetrunk.data.task import Task
from onetrunk.report.curves import training_curves
from onetrunk.report.run_files import RunFiles, read_groups
from tests.helpers.runs import make_run
from tests.helpers.small import domain

TWO = [domain("a"), domain("b", seed=1)]
ERRORS = {"a": 10.0, "b": 20.0}


def test_curves_are_read_from_the_records(tmp_path: Path) -> None:
    rooms = [domain("a", Task("parts", "segment", ("x", "y"))), domain("b")]
    one = make_run(tmp_path / "one", rooms, ERRORS, model=False)
    alone = make_run(tmp_path / "alone", rooms, ERRORS, sharing="none", model=False)
    ours, base = read_groups([one, alone])
    found = {(c.domain, c.task): c for c in training_curves([(0, ours), (-1, base)])}
    parts = found["a", "parts"]
    assert parts.metric is not None and parts.metric.name == "miou"
    assert [run.column for run in parts.runs] == [0, -1]
    first = parts.runs[0]
    record = next(r for r in ours.first.records if "val" in r)
    step, error = first.val[0]
    assert step == record["step"]
    assert error == pytest.approx(100 - record["val"]["a/parts/miou"])
    assert first.selected == 360 and first.selected_error is not None
    assert first.best is not None and first.best[1] == min(y for _, y in first.val)
    assert len(first.loss) == 20
    assert len(found["b", "classify"].runs[1].loss) == 20


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x", TWO, ERRORS, finished=False)
    broken = [
        {"step": 500, "loss": {"a/classify": float("nan"), "b/classify": "x"}},
        {"step": 520, "loss": 3, "val": [1]},
    ]
    with (path / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in broken)
    run = RunFiles.read(path)
    for task in training_curves([(0, read_groups([path])[0])]):
        assert all(np.isfinite(y) for _, y in task.runs[0].loss)
        assert task.runs[0].loss[-1][0] == 400
    assert len(run.records) == 32
