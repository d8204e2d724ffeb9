"""Where a new domain's slots start: with the domain that fits, and as that domain predictions."""

from __future__ import annotations

import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.card import Card
from onetrunk.nn.universal import Universal
from onetrunk.train.new_domain import initial_slots as start
from onetrunk.train.new_domain.scratch import make_worker, owns
from tests.helpers.added import more
from tests.helpers.fakes import CLASSIFY, Fake, labelled
from tests.helpers.worlds import network, worlds


def two() -> Universal:
    model = network(worlds("one", "two"))
    with torch.no_grad():
        for name, by in (("one", 0.01), ("two", 0.3)):
            for key, tensor in start.slots_of(model, name).items():
                if tensor.is_floating_point() and "running" not in key:
                    tensor.add_(by * torch.randn_like(tensor))
    return model


def worker_of(model: Universal, domain: Domain, adapters: str = "none") -> Universal:
    return make_worker(model, Card.of(domain, adapters), 0)


def equal(worker: Universal, model: Universal, name: str) -> bool:
    mine, theirs = start.slots_of(worker, "new"), start.slots_of(model, name)
    return all(mine[key].equal(theirs[key]) for key in theirs)


def test_a_start_that_is_asked_for() -> None:
    model, domain = two(), more()
    worker = worker_of(model, domain)
    assert list(worker.domains) == ["new"]
    fresh = {k: v.clone() for k, v in start.slots_of(worker, "new").items()}
    assert start.choose_start(worker, model, domain, "two", 0).of == "two"
    assert equal(worker, model, "two")
    again = worker_of(model, domain)
    start.choose_start(again, model, domain, "trunk", 0)
    assert all(fresh[k].equal(v) for k, v in start.slots_of(again, "new").items())
    with pytest.raises(BadInput, match="no such domain"):
        start.choose_start(again, model, domain, "nowhere", 0)


def test_the_start_with_the_lowest_error_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, domain = two(), more()
    errors = iter([60.0, 50.0, 40.0, 45.0])  # trunk, one, two, two settled
    monkeypatch.setattr(start, "means_error", lambda *_: next(errors))
    worker = worker_of(model, domain)
    found = start.choose_start(worker, model, domain, "auto", 0)
    assert (found.of, found.settled) == ("two", False)
    assert found.errors == {"trunk": 60.0, "one": 50.0, "two": 40.0, "two, settled": 45.0}
    assert equal(worker, model, "two")
    assert "the slots of two" in found.said
    errors = iter([30.0, 50.0, 40.0, 20.0])
    worker = worker_of(model, domain)
    found = start.choose_start(worker, model, domain, "auto", 0)
    assert (found.of, found.settled) == ("trunk", True)
    other = worker_of(model, domain)
    start.again(other, model, domain, found.to_json(), 0)
    mine, theirs = start.slots_of(worker, "new"), start.slots_of(other, "new")
    assert all(mine[key].equal(theirs[key]) for key in mine)
    assert not torch.equal(
        mine["slots/stem.norm/running_mean"], torch.zeros_like(mine["slots/stem.norm/running_mean"])
    )


def test_of_an_image_a_class_nothing_is_tried() -> None:
    domain = Domain("new", Fake(CLASSIFY, labelled(3, "abc", ("train",))), size=8)
    model = two()
    worker = worker_of(model, domain)
    found = start.choose_start(worker, model, domain, "auto", 0)
    assert (found.of, found.settled, dict(found.errors)) == ("one", False, {})
    assert equal(worker, model, "one")


def test_settling_moves_statistics_and_nothing_else() -> None:
    model, domain = two(), more()
    worker = worker_of(model, domain)
    before = {k: v.clone() for k, v in worker.state_dict().items()}
    assert start.settle(worker, domain, 0)
    moved = {k for k, v in worker.state_dict().items() if not v.equal(before[k])}
    assert moved
    assert all(".slots.new." in k for k in moved)
    assert {k.rsplit(".", 1)[1] for k in moved} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }


def test_without_classes_a_domain_with_such_a_task_is_taken() -> None:
    model = network([*worlds("one"), Domain("ages", None, [Task("age", "regress")], size=8)])
    domain = Domain("new", None, [Task("weight", "regress")], size=8)
    assert start.choose_start(worker_of(model, domain), model, domain, "auto", 0).of == "ages"


def test_shared_norms_leave_nothing_to_choose() -> None:
    model, domain = network(worlds("one"), norm="shared"), more()
    worker = worker_of(model, domain)
    assert not owns(worker, "new")
    assert start.choose_start(worker, model, domain, "auto", 0).errors == {}
