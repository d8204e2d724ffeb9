"""What an updated domain takes from its previous pack."""

from __future__ import annotations

from pathlib import Path

import torch

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.nn.card import Card
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.runs.add import add
from onetrunk.train.new_domain.previous_pack import copy_previous, rename_classes, select_classes
from onetrunk.train.new_domain.scratch_model import make_scratch_model
from tests.helpers.added import FEW, more
from tests.helpers.worlds import noise


def scratch_of(run: Path, pack: Pack, domain: Domain) -> Universal:
    """A scratch model of this domain that starts from a pack."""
    scratch = make_scratch_model(load(run), Card.of(domain, pack.card.adapters), 0)
    copy_previous(scratch, pack)
    return scratch


def test_remaining_classes_keep_their_rows_by_name(run: Path) -> None:
    add(run, more(classes="abc"), train=Train(**FEW))
    old = Pack.open(run / "model/packs/new.pack")
    new = Domain("new", noise(60, "cxa", 400), size=8)
    scratch = scratch_of(run, rename_classes(old, {"b": "x"}), new)
    head = scratch.heads_of("new").head("classify")
    weight, bias = (old.tensors[f"heads/of.task_classify.{key}"] for key in ("weight", "bias"))
    assert new.tasks[0].classes == ("a", "c", "x")
    assert head.get_parameter("weight").equal(weight[[0, 2, 1]])
    assert head.get_parameter("bias").equal(bias[[0, 2, 1]])
    slots = {k: v for k, v in scratch.own("new").items() if k.startswith("slots/")}
    assert all(value.equal(old.tensors[key]) for key, value in slots.items())
    other = scratch_of(run, old, new).heads_of("new").head("classify").get_parameter("weight")
    assert other[:2].equal(weight[[0, 2]])  # x is a new class
    assert not other[2].equal(weight[1])


def test_rows_are_selected_and_reordered_by_name() -> None:
    domain = Domain("a", None, [Task("what", "multilabel", ("x", "y", "z"))], size=8)
    pack = Universal(Trunk("resnet20"), [domain]).pack("a")
    made = select_classes(pack, [Task("what", "multilabel", ("z", "x"))])
    for key in ("weight", "bias"):
        name = f"heads/of.task_what.{key}"
        assert made.tensors[name].equal(pack.tensors[name][[2, 0]])
    rest = {k for k in pack.tensors if not k.startswith("heads/")}
    assert all(torch.equal(made.tensors[key], pack.tensors[key]) for key in rest)
