"""The result of evaluating a split: table with intervals, outcomes, confusions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.eval.evaluate import evaluate, evaluate_split
from onetrunk.eval.intervals import wilson
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.result import TaskResult
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.fakes import small
from tests.helpers.outputs import TASKS


@pytest.fixture
def domain() -> Domain:
    return Domain("small", small(160, classes=("a", "b", "c")), size=12)


@pytest.fixture
def model(domain: Domain) -> Universal:
    torch.manual_seed(0)
    return Universal(Trunk("resnet20"), [domain])


def test_only_headlines_have_intervals(model: Universal, domain: Domain) -> None:
    row = evaluate(model, [domain]).row("small")
    assert (row.low, row.high) == wilson(row.value / 100, row.count)
    assert evaluate(model, [domain]).row("small", metric="ece").low is None
    assert evaluate(model, [domain], intervals=False).row("small").low is None


def test_table_and_outcomes_agree_for_each_image(
    model: Universal, domain: Domain, tmp_path: Path
) -> None:
    result = evaluate_split(model, [domain])
    assert result.table() == evaluate(model, [domain])
    saved = Outcomes.open(result.outcomes().save(tmp_path / "o.safetensors"))
    one = saved.tasks["small", "classify"]
    assert one.headline() == result.table().value("small")
    right = []
    model.eval()
    for i in range(len(domain.test)):
        images, targets = domain.test.batch(np.array([i]))
        with torch.no_grad():
            right.append(bool(model(images, "small")["classify"].argmax() == targets["classify"]))
    assert one.arrays["sum"].tolist() == [float(not hit) for hit in right]


def test_confusions_of_known_predictions(domain: Domain) -> None:
    task = TASKS["classify"]
    scores = scores_of(task)
    true = [0] * 10 + [1] * 4 + [2] * 3 + [-1]
    predicted = [0] * 5 + [1] * 3 + [2] * 2 + [0] * 3 + [1] + [4] * 3 + [0]
    scores.update(torch.eye(5)[predicted], torch.tensor(true))
    result = TaskResult("d", task, domain.test, scores, np.arange(18))
    found = [(c.true, c.predicted, c.count, c.share) for c in result.confusions(3)]
    assert found == [("c", "e", 3, 1.0), ("b", "a", 3, 0.75), ("a", "b", 3, 0.3)]
    assert len(result.confusions(10)) == 4
    right = scores_of(task)
    right.update(torch.eye(5)[[0, 1]], torch.tensor([0, 1]))
    assert TaskResult("d", task, domain.test, right, np.arange(2)).confusions(3) == []


def test_confusions_are_plain_data(model: Universal, domain: Domain) -> None:
    found = evaluate_split(model, [domain]).confusions(2)
    pairs = found["small"]["classify"]
    assert 0 < len(pairs) <= 2 and list(pairs[0]) == ["true", "predicted", "count", "share"]
    assert json.loads(json.dumps(found)) == found
