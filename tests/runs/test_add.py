"""A domain is added: nothing else moves, over every adapter and three families of trunks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Table
from onetrunk.nn.pack import KEY, Pack
from onetrunk.nn.saving import load
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.runs import proof
from onetrunk.runs.add import add
from onetrunk.train.new_domain.scratch import decay_factor
from tests.helpers.added import FEW, files, more, predictions, predictions_of, same
from tests.helpers.worlds import network, noise, worlds

KINDS = ("none", "norm", "lora", "series", "parallel")
FAMILIES = {"resnet20": 8, "timm/test_efficientnet": 32, "timm/test_vit": 32}


def sized(name: str, size: int, first: int) -> Domain:
    return Domain(name, noise(40, "abc", first), size=size)


def scattered(arch: str, size: int) -> Universal:
    """Two domains whose slots and heads are their own."""
    torch.manual_seed(0)
    trunk = Trunk(arch, adapters="parallel")
    model = Universal(trunk, [sized("one", size, 0), sized("two", size, 500)]).eval()
    with torch.no_grad():
        for name in model.domains:
            for parameter in model.parameters_of(name).values():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_other_domain_predictions_as_before_to_the_bit(arch: str, kind: str) -> None:
    size = FAMILIES[arch]
    model = scattered(arch, size)
    before = predictions_of(model)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    grown = add(model, sized("new", size, 900), adapters=kind, **FEW)
    assert same(before, predictions_of(model, "one", "two"))
    after = model.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in weights.items())
    assert set(grown.proof.prints) == {"one", "two"}
    assert list(model.domains) == ["one", "two", "new"]
    assert model.domains["new"].adapters == ("none" if kind == "norm" else kind)
    assert predictions_of(model, "new")["new"]["classify"].shape == (3, 3)
    assert not model.training


@pytest.mark.parametrize("kind", ["none", "parallel"])
def test_with_each_adapter_something_is_learned(run: Path, kind: str) -> None:
    grown = add(run, more(), adapters=kind, start="trunk", steps=4)
    slots = {k: v for k, v in grown.pack.tensors.items() if "/branch." in k}
    assert bool(slots) == (kind == "parallel")
    assert all(bool(v.abs().max() > 0) for v in slots.values())


def test_a_run_gets_the_pack_the_scores_and_the_outcomes(run: Path) -> None:
    trunk = (run / "model/trunk.safetensors").read_bytes()
    packs = files(run / "model/packs")
    before, scores = predictions(run), json.loads((run / "scores.json").read_text())
    domain = more()
    grown = add(run, domain)
    assert (run / "model/trunk.safetensors").read_bytes() == trunk
    assert files(run / "model/packs").items() >= packs.items()
    assert same(before, predictions(run, "one", "two"))
    assert list(load(run).domains) == ["one", "two", "new"]
    found = json.loads((run / "scores.json").read_text())
    for split in ("val", "test"):
        rows = Table.from_json(found[split]).rows
        assert rows[: -len(grown.table.rows)] == Table.from_json(scores[split]).rows
    assert Table.from_json(found["test"]).value("new") == grown.table.value("new")
    assert found["splits"]["new"]["train"] == len(domain.train)
    assert [d["name"] for d in found["budget"][""]["domains"]] == ["one", "two", "new"]
    both = scores["budget"][""]["universal"]["bytes"]
    assert found["budget"][""]["universal"]["bytes"] > both
    assert found["grown"]["new"]["bytes"] == sum(
        t.numel() * t.element_size() for t in grown.pack.tensors.values()
    )
    assert Outcomes.open(run / "outcomes.safetensors").domains == ("one", "two", "new")
    assert sorted(p.name for p in (run / "grown/new").iterdir()) == [
        *("environment.json", "metrics.jsonl", "outcomes.safetensors", "recipe.toml"),
        "scores.json",
    ]
    assert not list((run / "growing").iterdir())


def test_the_packs_header_tells_its_life_and_no_place(run: Path) -> None:
    add(run, more(), adapters="lora", rank=2, seed=4, **FEW)
    path = run / "model/packs/new.pack"
    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()[KEY])
    (event,) = said["provenance"]["history"]
    assert (event["what"], event["seed"]) == ("added", 4)
    assert (event["grow"]["adapters"], event["grow"]["rank"], said["rank"]) == ("lora", 2, 2)
    assert event["train"]["steps"] == 2
    assert event["images"] == {"train": 36, "val": 12, "test": 12}
    assert event["scores"] == said["scores"]
    assert "test/classify/error" in said["scores"]
    assert str(run.parent) not in json.dumps(said)


def test_steps_are_those_of_the_run_unless_said(run: Path) -> None:
    add(run, more())
    assert "steps = 2 " in (run / "grown/new/recipe.toml").read_text()
    add(run, more("other", first=7000), steps=3)
    assert "steps = 3 " in (run / "grown/other/recipe.toml").read_text()


def test_the_same_growth_has_the_same_numbers(run: Path) -> None:
    model = load(run)
    add(run, more(), **FEW)
    add(model, more(), **FEW)  # in memory, too
    one, two = Pack.open(run / "model/packs/new.pack").tensors, model.pack("new").tensors
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_domains_with_other_tasks_and_sizes() -> None:
    model = network(worlds("one"))
    numbers = noise(40, "ab", 100)
    tasks = (Task("age", "regress"), Task("who", "embed"))
    items = [
        type(i)(i.key, i.where, i.stamp, i.split, None, {"age": float(n), "who": str(n % 2)})
        for n, i in enumerate(numbers.listed)
    ]
    source = type(numbers)(tasks, items, numbers.images)
    for kind in ("none", "parallel"):
        add(model, Domain(f"faces-{kind}", source, size=12), adapters=kind, **FEW)
    out = predictions_of(model, "faces-parallel")["faces-parallel"]
    assert out["age"].shape == (3, 1)
    assert out["who"].shape == (3, 128)
    mean = model.heads_of("faces-none").head("age").mean
    assert 5 < float(mean) < 35  # it starts from the labels' own scale


@pytest.mark.parametrize("norm", ["shared", "domain-stats", "instance-domain"])
def test_other_norms(norm: str) -> None:
    model = network(worlds("one"), norm=norm)
    for kind in ("none", "parallel"):
        add(model, more(f"new-{kind}"), adapters=kind, **FEW)
    if norm == "shared":
        with pytest.raises(BadInput, match="shares its norms"):
            add(model, more("third"), adapters="norm", **FEW)
    assert list(model.domains)[:3] == ["one", "new-none", "new-parallel"]


def test_full_sharing_learns_a_head_that_only_the_new_domain_has() -> None:
    model = network(worlds("one"), sharing="full")
    before = predictions_of(model)
    add(model, more("other", classes="xyz"), adapters="parallel", **FEW)
    assert same(before, predictions_of(model, "one"))
    head = model.heads_of("other").head("classify").held[0]
    assert head.weight.abs().max() > 0


def test_networks_that_share_nothing_take_no_domain() -> None:
    model = network(worlds("one"), sharing="none")
    with pytest.raises(BadInput, match="trunk that domains share"):
        add(model, more(), **FEW)


def test_what_would_move_another_domain_is_not_added(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, taken = files(run / "model"), proof.take

    def moved(model: Universal, domains: dict[str, Domain], but: str) -> dict[str, proof.Print]:
        found = taken(model, domains, but)
        if but in model.domains:
            found["two"] = proof.Print("0" * 64, found["two"].images, found["two"].of)
        return found

    monkeypatch.setattr(proof, "take", moved)
    with pytest.raises(Failed, match="outputs of two are not the same"):
        add(run, more())
    assert files(run / "model") == before
    assert list(load(run).domains) == ["one", "two"]


def test_a_model_whose_growth_fails_stays_as_it_was() -> None:
    model = network(worlds("one"))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(BadInput, match="unknown key"):
        add(model, more(), stepz=3)
    with pytest.raises(Failed, match=r"not finite|is nan|is inf"):
        add(model, more(), **{**FEW, "lr": 1e30, "steps": 6})
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.requires_grad for p in model.parameters_of("one").values())


def test_adapters_of_ones_own_are_refused_before_anything_is_learned(run: Path) -> None:
    with pytest.raises(BadInput, match="adapters of one's own"):
        add(run, more(), adapters="package.module:thing")
    assert not (run / "growing").exists()


def test_auto_shows_the_ladder_and_keeps_to_the_budget(run: Path) -> None:
    grown = add(run, more(), adapters="auto", budget=0.06, **FEW)
    tried = grown.scores["tried"]
    assert tried[0]["adapters"] == "none"
    assert {"norm", "parallel"} <= {t["adapters"] for t in tried}
    assert all(t["share"] <= 0.06 for t in tried)
    assert "series" not in {t["adapters"] for t in tried}  # over it
    best = min(tried, key=lambda t: (t["error"], t["bytes"]))
    assert grown.scores["grown"]["bytes"] == best["bytes"]
    assert "lowest validation error" in grown.scores["grown"]["chosen"]
    assert load(run).domains["new"].provenance["grown"] == best["adapters"]


def test_decay_grows_with_adapters_and_shrinks_with_images() -> None:
    assert decay_factor(645_216, 50_000) == 1.0  # the paper's adapters on CIFAR
    assert decay_factor(645_216, 1_020) == pytest.approx(6.3256, abs=1e-3)  # on its flowers
    assert decay_factor(645_216, 100) == 10.0
    assert decay_factor(60_000, 1_020) == 1.0  # a tenth of the numbers
    assert decay_factor(0, 1) == 1.0
