"""The initial slots of a new domain."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.card import Card
from onetrunk.nn.universal import Universal
from onetrunk.train.new_domain import initial_slots
from onetrunk.train.new_domain.scratch_model import has_own_slots, make_scratch_model
from tests.helpers.added import more
from tests.helpers.errors import raises
from tests.helpers.fakes import CLASSIFY, Fake, labelled
from tests.helpers.worlds import network, worlds


def two() -> Universal:
    model = network(worlds("one", "two"))
    with torch.no_grad():
        for name, by in (("one", 0.01), ("two", 0.3)):
            for key, tensor in initial_slots.slots_of(model, name).items():
                if tensor.is_floating_point() and "running" not in key:
                    tensor.add_(by * torch.randn_like(tensor))
    return model


def scratch_of(model: Universal, domain: Domain, adapters: str = "none") -> Universal:
    return make_scratch_model(model, Card.of(domain, adapters), 0)


def equal(scratch: Universal, model: Universal, name: str) -> bool:
    mine, theirs = initial_slots.slots_of(scratch, "new"), initial_slots.slots_of(model, name)
    return all(mine[key].equal(theirs[key]) for key in theirs)


def test_a_start_can_be_given() -> None:
    model, domain = two(), more()
    scratch = scratch_of(model, domain)
    assert list(scratch.domains) == ["new"]
    fresh = {k: v.clone() for k, v in initial_slots.slots_of(scratch, "new").items()}
    assert initial_slots.choose_initial_slots(scratch, model, domain, "two", 0).source == "two"
    assert equal(scratch, model, "two")
    again = scratch_of(model, domain)
    initial_slots.choose_initial_slots(again, model, domain, "trunk", 0)
    assert all(fresh[k].equal(v) for k, v in initial_slots.slots_of(again, "new").items())
    with raises(BadInput, got="nowhere", available=["auto", "trunk", "one", "two"]):
        initial_slots.choose_initial_slots(again, model, domain, "nowhere", 0)


def test_the_source_with_the_lowest_error_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, domain = two(), more()
    errors = iter([60.0, 50.0, 40.0, 45.0])  # trunk, one, two, two with new statistics
    monkeypatch.setattr(initial_slots, "class_means_error", lambda *_: next(errors))
    scratch = scratch_of(model, domain)
    found = initial_slots.choose_initial_slots(scratch, model, domain, "auto", 0)
    assert (found.source, found.new_statistics) == ("two", False)
    assert found.errors == {"trunk": 60.0, "one": 50.0, "two": 40.0, "two, new statistics": 45.0}
    assert equal(scratch, model, "two")
    assert "slots of two" in found.description
    errors = iter([30.0, 50.0, 40.0, 20.0])
    scratch = scratch_of(model, domain)
    found = initial_slots.choose_initial_slots(scratch, model, domain, "auto", 0)
    assert (found.source, found.new_statistics) == ("trunk", True)
    other = scratch_of(model, domain)
    initial_slots.InitialSlots(**asdict(found)).apply(other, model, domain, 0)
    mine, theirs = initial_slots.slots_of(scratch, "new"), initial_slots.slots_of(other, "new")
    assert all(mine[key].equal(theirs[key]) for key in mine)
    assert not torch.equal(
        mine["slots/stem.norm/running_mean"], torch.zeros_like(mine["slots/stem.norm/running_mean"])
    )


def test_with_one_image_per_class_nothing_is_compared() -> None:
    domain = Domain("new", Fake(CLASSIFY, labelled(3, "abc", ("train",))), size=8)
    model = two()
    scratch = scratch_of(model, domain)
    found = initial_slots.choose_initial_slots(scratch, model, domain, "auto", 0)
    assert (found.source, found.new_statistics, dict(found.errors)) == ("one", False, {})
    assert equal(scratch, model, "one")


def test_recomputing_changes_only_statistics() -> None:
    model, domain = two(), more()
    scratch = scratch_of(model, domain)
    before = {k: v.clone() for k, v in scratch.state_dict().items()}
    assert initial_slots.recompute_statistics(scratch, domain, 0)
    moved = {k for k, v in scratch.state_dict().items() if not v.equal(before[k])}
    assert moved
    assert all(".slots.new." in k for k in moved)
    assert {k.rsplit(".", 1)[1] for k in moved} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }


def test_without_classes_a_domain_with_the_same_kind_of_task_is_used() -> None:
    model = network([*worlds("one"), Domain("ages", None, [Task("age", "regress")], size=8)])
    domain = Domain("new", None, [Task("weight", "regress")], size=8)
    assert (
        initial_slots.choose_initial_slots(
            scratch_of(model, domain), model, domain, "auto", 0
        ).source
        == "ages"
    )


def test_with_shared_norms_there_is_no_choice() -> None:
    model, domain = network(worlds("one"), norm="shared"), more()
    scratch = scratch_of(model, domain)
    assert not has_own_slots(scratch, "new")
    assert initial_slots.choose_initial_slots(scratch, model, domain, "auto", 0).errors == {}
