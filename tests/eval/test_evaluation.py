"""One pass, three views of it: table with intervals, outcomes, confusions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.eval.evaluate import confusions, evaluate, outcomes, run_evaluation
from onetrunk.eval.evaluation import TaskResult
from onetrunk.eval.intervals import wilson
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.outcomes import Outcomes
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.fakes import small
from tests.helpers.making import TASKS


@pytest.fixture
def domain() -> Domain:
    return Domain("small", small(160, classes=("a", "b", "c")), size=12)


@pytest.fixture
def model(domain: Domain) -> Universal:
    torch.manual_seed(0)
    return Universal(Trunk("resnet20"), [domain])


def test_intervals_when_asked_for(model: Universal, domain: Domain) -> None:
    row = evaluate(model, [domain]).row("small")
    assert (row.low, row.high) == wilson(row.value / 100, row.count)
    assert evaluate(model, [domain]).row("small", metric="ece").low is None
    assert evaluate(model, [domain], intervals=False).row("small").low is None


def test_three_views_of_one_pass(model: Universal, domain: Domain, tmp_path: Path) -> None:
    found = run_evaluation(model, [domain])
    assert found.table() == evaluate(model, [domain])
    assert found.confusions() == confusions(model, [domain])
    saved = Outcomes.open(outcomes(model, [domain]).save(tmp_path / "o.safetensors"))
    part = saved.parts["small", "classify"]
    assert part.headline() == found.table().value("small")
    right = []
    model.eval()
    for i in range(len(domain.test)):
        images, targets = domain.test.batch(np.array([i]))
        with torch.no_grad():
            right.append(bool(model(images, "small")["classify"].argmax() == targets["classify"]))
    assert part.arrays["sum"].tolist() == [float(not hit) for hit in right]


def test_confusions_by_hand(domain: Domain) -> None:
    task = TASKS["classify"]
    scores = scores_of(task)
    true = [0] * 10 + [1] * 4 + [2] * 3 + [-1]
    best = [0] * 5 + [1] * 3 + [2] * 2 + [0] * 3 + [1] + [4] * 3 + [0]
    scores.update(torch.eye(5)[best], torch.tensor(true))
    one = TaskResult("d", task, domain.test, scores, np.arange(18))
    found = [(c.true, c.predicted, c.count, c.share) for c in one.confused(3)]
    assert found == [("c", "e", 3, 1.0), ("b", "a", 3, 0.75), ("a", "b", 3, 0.3)]
    assert len(one.confused(10)) == 4
    right = scores_of(task)
    right.update(torch.eye(5)[[0, 1]], torch.tensor([0, 1]))
    assert TaskResult("d", task, domain.test, right, np.arange(2)).confused(3) == []


def test_confusions_are_plain_data(model: Universal, domain: Domain) -> None:
    found = confusions(model, [domain], most=2)
    pairs = found["small"]["classify"]
    assert 0 < len(pairs) <= 2 and list(pairs[0]) == ["true", "predicted", "count", "share"]
    assert json.loads(json.dumps(found)) == found
