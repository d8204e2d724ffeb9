"""Heads of a user's own: what packs and runs record of them, consent, and what cannot be saved."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import onetrunk as ot
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.heads import make_head
from onetrunk.nn.pack import Pack
from tests.helpers.added import FEW
from tests.helpers.errors import raises
from tests.helpers.worlds import network, worlds

CLASSES = ("a", "b")
MODULE = """
from torch import nn


class Head(nn.Sequential):
    def __init__(self, task, inside, width=8):
        super().__init__(nn.Linear(inside, width), nn.ReLU(), nn.Linear(width, task.width))
"""


class Wide(nn.Sequential):
    """A head with a hidden layer."""

    def __init__(self, task: Task, inside: int, width: int = 8) -> None:
        super().__init__(nn.Linear(inside, width), nn.ReLU(), nn.Linear(width, task.width))


NAME = f"{__name__}:Wide"


def domain(name: str = "ants", **settings: Any) -> ot.Domain:
    return ot.Domain(name, None, [Task("classify", "classify", CLASSES)], size=8, **settings)


def outputs(model: ot.Universal, name: str = "ants") -> Tensor:
    with torch.no_grad():
        return model.eval()(torch.linspace(-1, 1, 384).view(2, 3, 8, 8), domain=name)["classify"]


FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "a name": (NAME, {}),
    "a class": (Wide, {}),
    "a table": ({"object": NAME, "arguments": {"width": 3}}, {"width": 3}),
    "a partial": (functools.partial(Wide, width=3), {"width": 3}),
}


@pytest.mark.parametrize("by", ["the model", "the domain"])
@pytest.mark.parametrize("form", FORMS)
def test_a_head_is_loaded_with_its_arguments(form: str, by: str, tmp_path: Path) -> None:
    head, arguments = FORMS[form]
    if by == "the model":
        model = ot.Universal(ot.Trunk("resnet20"), [domain()], {"ants": {"classify": head}})
    else:
        model = ot.Universal(ot.Trunk("resnet20"), [domain(heads={"classify": head})])
    ot.save(model, tmp_path)
    (named,) = Pack.open(tmp_path / "model/packs/ants.pack").card.heads.values()
    assert (named.object, named.arguments) == (NAME, arguments)
    with raises(BadInput, "head of classify", got=NAME, try_=f"trust=['{__name__}']"):
        ot.load(tmp_path)
    loaded = ot.load(tmp_path, trust=[__name__.partition(".")[0]])
    assert loaded.domains["ants"].heads == model.domains["ants"].heads
    torch.testing.assert_close(outputs(loaded), outputs(model))
    assert torch.equal(
        outputs(ot.Universal.from_pretrained(tmp_path, trust=__name__)), outputs(loaded)
    )


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `heads_of_mine` beside the model, which can be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "heads_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("heads_of_mine", None)


def test_a_file_runs_no_code_without_consent(mine: Path, tmp_path: Path) -> None:
    heads = {"classify": "heads_of_mine:Head"}
    model = ot.Universal(ot.Trunk("resnet20"), [domain(heads=heads)])
    ot.save(model, tmp_path)
    sys.modules.pop("heads_of_mine")
    path = tmp_path / "model/packs/ants.pack"
    other = ot.Universal(ot.Trunk("resnet20"))
    other.trunk.load_shared(model.trunk.shared())
    for call in (
        lambda: ot.load(tmp_path),
        lambda: ot.load(tmp_path, trust=["heads_of", "mine"]),
        lambda: ot.Run(tmp_path).model,
        lambda: other.load_pack(path),
        lambda: other.load_pack(path, trust=["heads"]),
    ):
        with raises(BadInput, got="heads_of_mine:Head", try_="--trust heads_of_mine"):
            call()
    assert not other.domains
    assert "heads_of_mine" not in sys.modules
    assert other.load_pack(path, trust=["heads_of_mine"]) == "ants"
    other.remove("ants")
    (mine / "heads_of_mine.py").unlink()
    sys.modules.pop("heads_of_mine")
    with raises(BadInput, "heads_of_mine:Head", "head of classify", try_="install"):
        ot.load(tmp_path, trust=["heads_of_mine"])


def test_a_model_that_uses_a_module_accepts_packs_that_name_it(mine: Path, tmp_path: Path) -> None:
    del mine
    heads = {"classify": "heads_of_mine:Head"}
    model = ot.Universal(ot.Trunk("resnet20"), [domain(heads=heads), domain("bees", heads=heads)])
    model.pack("bees").save(tmp_path / "bees.pack")
    model.remove("bees")
    assert model.load_pack(tmp_path / "bees.pack") == "bees"
    memory = model.pack("bees")
    model.remove("bees")
    model.remove("ants")
    assert model.add_pack(memory) == "bees"  # it was never in a file


def test_a_head_without_a_name_works_in_memory_and_is_refused_before_work(tmp_path: Path) -> None:
    (one,) = worlds("one")
    heads = {"one": {"classify": lambda task, inside: nn.Linear(inside, task.width)}}
    model = ot.Universal(ot.Trunk("resnet20"), [one], heads)
    assert outputs(model, "one").shape == (2, 2)
    for call in (
        lambda: ot.train(model, [one], out=tmp_path / "run", train=ot.Train(**FEW)),
        lambda: ot.save(model, tmp_path / "run"),
        lambda: model.pack("one"),
    ):
        with raises(BadInput, "one", "mymodule.py"):
            call()
    assert not (tmp_path / "run").exists()
    with raises(BadInput, place="domains.one.heads.classify", try_="mymodule.py"):
        domain("one", heads=heads["one"])


def test_wrong_heads_are_refused() -> None:
    for heads, facts in (
        ({"kind": NAME}, ["kind", "classify"]),
        ({"classify": f"{__name__}:CLASSES"}, ["classify"]),
        ({"classify": "nowhere_at_all:Head"}, ["nowhere_at_all"]),
    ):
        with raises(BadInput, *facts):
            ot.Universal(ot.Trunk("resnet20"), [domain(heads=heads)])
    wrong: Any = lambda *_: 3  # noqa: E731
    with raises(BadInput, "classify", got="int"):
        ot.Universal(ot.Trunk("resnet20"), [domain()], {"ants": {"classify": wrong}})


def test_a_head_of_the_wrong_width_is_refused_when_it_is_built() -> None:
    for head, got in (
        (lambda task, inside: nn.Linear(inside, task.width + 1), "(B, 3)"),
        (lambda _, inside: nn.Unflatten(1, (inside, 1)), "(B, 64, 1)"),
        (lambda task, inside: nn.Linear(inside + 1, task.width), None),
    ):
        facts = ["head of classify"] + (["(B, 2)"] if got else ["RuntimeError", "(B, 64)"])
        model = ot.Universal(ot.Trunk("resnet20"))
        with raises(BadInput, *facts, place="domain ants", **({"got": got} if got else {})):
            model.add_domain(domain(), heads={"classify": head})
        assert not model.domains


def test_a_head_of_another_signature_is_refused_with_its_name() -> None:
    class Plain(nn.Linear):
        pass

    wrong: Any = Plain
    with raises(
        BadInput, "head of classify", "Plain(task, inside)", "TypeError", place="domain ants"
    ):
        ot.Universal(ot.Trunk("resnet20"), [domain()], {"ants": {"classify": wrong}})
    head: Any = nn.Linear(64, 2)
    with raises(BadInput, got="an instance of Linear", try_="Linear"):
        domain(heads={"classify": head})


def test_trying_a_head_changes_neither_random_numbers_nor_statistics() -> None:
    class Noisy(nn.Sequential):
        def __init__(self, task: Task, inside: int) -> None:
            super().__init__(nn.BatchNorm1d(inside), nn.Linear(inside, task.width))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self[1](self[0](x + torch.randn_like(x)))
            return out

    torch.manual_seed(0)
    Noisy(domain().tasks[0], 64)
    expected = torch.rand(3)
    torch.manual_seed(0)
    made = make_head(domain().tasks[0], 64, Noisy)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(made.get_buffer("0.running_mean"), torch.zeros(64))
    assert made.training


def test_a_run_keeps_the_head_of_a_domain(tmp_path: Path) -> None:
    domains = worlds("one", "two")
    model = network(domains)
    model.remove("one")
    model.add_domain(domains[0], heads={"classify": NAME})
    run = ot.train(model, domains, out=tmp_path / "run", train=ot.Train(**FEW), device="cpu")
    assert run.recipe is not None
    assert [part.heads for part in run.recipe.domains] == [{"classify": NAME}, {}]
    trust = [__name__]
    with raises(BadInput, got=NAME):
        ot.relabel(run.folder, "one", rename={"b": "c"})
    renamed = ot.relabel(run.folder, "one", rename={"b": "c"}, trust=trust)
    assert renamed.model.domains["one"].tasks[0].classes == ("a", "c")
    assert torch.equal(
        outputs(renamed.model, "one"), outputs(ot.load(run.folder, trust=trust), "one")
    )
    with raises(BadInput, "one", got=NAME, try_="SOURCE"):
        ot.relabel(run.folder, "one", drop=["c"], trust=trust)
    with raises(BadInput, "one", got=NAME, try_="SOURCE"):
        ot.relabel(run.folder, "one", rename={"a": "z"}, trust=trust)  # would be sorted
    assert ot.undo(run.folder, "one", trust=trust).model.domains["one"].tasks[0].classes == CLASSES
