"""Adding a domain leaves all others unchanged, for every adapter and three families of trunks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Diverged, Failed
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Table
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load
from onetrunk.nn.shared_heads import SharedHead
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.runs import train_domain
from onetrunk.runs.add import add
from onetrunk.runs.open import Run
from onetrunk.runs.unchanged import Fingerprint, fingerprints
from onetrunk.store.tensors import KEY
from tests.helpers.added import FEW, files, more, predictions, predictions_of, same
from tests.helpers.errors import raises
from tests.helpers.worlds import network, noise, worlds

KINDS = ("none", "norm", "lora", "series", "parallel")
FAMILIES = {"resnet20": 8, "timm/test_efficientnet": 32, "timm/test_vit": 32}


def sized(name: str, size: int, first: int) -> Domain:
    return Domain(name, noise(40, "abc", first), size=size)


def perturbed(arch: str, size: int) -> Universal:
    """Return a model of two domains with different slots and heads."""
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
def test_other_domains_stay_unchanged_to_the_bit(arch: str, kind: str) -> None:
    size = FAMILIES[arch]
    model = perturbed(arch, size)
    before = predictions_of(model)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    result = add(model, sized("new", size, 900), adapters=kind, train=Train(**FEW))
    assert same(before, predictions_of(model, "one", "two"))
    after = model.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in weights.items())
    assert set(result.unchanged.fingerprints) == {"one", "two"}
    assert list(model.domains) == ["one", "two", "new"]
    assert model.domains["new"].adapters == ("none" if kind == "norm" else kind)
    assert predictions_of(model, "new")["new"]["classify"].shape == (3, 3)
    assert not model.training


@pytest.mark.parametrize("kind", ["none", "parallel"])
def test_adapters_are_trained(run: Path, kind: str) -> None:
    result = add(run, more(), adapters=kind, start="trunk", train=Train(steps=4))
    slots = {k: v for k, v in result.pack.tensors.items() if "/branch." in k}
    assert bool(slots) == (kind == "parallel")
    assert all(bool(v.abs().max() > 0) for v in slots.values())


def test_a_run_gets_the_pack_the_scores_and_the_outcomes(run: Path) -> None:
    trunk = (run / "model/trunk.safetensors").read_bytes()
    packs = files(run / "model/packs")
    before, scores = predictions(run), (run / "scores.json").read_bytes()
    trained = json.loads(scores)
    domain = more()
    result = add(run, domain)
    assert (run / "model/trunk.safetensors").read_bytes() == trunk
    assert files(run / "model/packs").items() >= packs.items()
    assert same(before, predictions(run, "one", "two"))
    assert list(load(run).domains) == ["one", "two", "new"]
    assert (run / "scores.json").read_bytes() == scores  # of the training
    found = Run(run).scores
    for split in ("val", "test"):
        rows = Table.from_json(found[split]).rows
        assert rows[: -len(result.table.rows)] == Table.from_json(trained[split]).rows
    assert Run(run).table.value("new") == result.table.value("new")
    assert Run(run).record("one")["test"]["rows"] == [
        row for row in trained["test"]["rows"] if row["domain"] == "one"
    ]
    assert found["splits"]["new"]["train"] == len(domain.train)
    assert [d["name"] for d in found["budget"][""]["domains"]] == ["one", "two", "new"]
    both = trained["budget"][""]["universal"]["bytes"]
    assert found["budget"][""]["universal"]["bytes"] > both
    size = (run / "model/packs/new.pack").stat().st_size
    assert found["added"]["new"]["bytes"] == size
    outcomes = Run(run).outcomes
    assert outcomes is not None and outcomes.domains == ("one", "two", "new")
    assert Outcomes.open(run / "outcomes.safetensors").domains == ("one", "two")
    assert sorted(p.name for p in (run / "added/new").iterdir()) == [
        *("environment.json", "metrics.jsonl", "outcomes.safetensors", "recipe.toml"),
        "scores.json",
    ]
    assert not list((run / "adding").iterdir())


def test_the_header_of_the_pack_has_its_history_and_no_path(run: Path) -> None:
    add(run, more(), adapters="lora", rank=2, seed=4, train=Train(**FEW))
    path = run / "model/packs/new.pack"
    with safe_open(path, "pt") as file:
        document = json.loads(file.metadata()[KEY])
    (event,) = document["provenance"]["history"]
    assert (event["event"], event["seed"]) == ("added", 4)
    assert (event["add"]["adapters"], event["add"]["rank"], document["rank"]) == ("lora", 2, 2)
    assert event["train"]["steps"] == 2
    assert event["images"] == {"train": 132, "val": 42, "test": 42}
    assert event["scores"] == document["scores"]
    assert "test/classify/error" in document["scores"]
    assert str(run.parent) not in json.dumps(document)


def test_steps_default_to_those_of_the_run(run: Path) -> None:
    add(run, more())
    assert "steps = 2 " in (run / "added/new/recipe.toml").read_text()
    add(run, more("other", first=7000), train=Train(steps=3))
    assert "steps = 3 " in (run / "added/other/recipe.toml").read_text()


def test_the_same_addition_gives_the_same_numbers(run: Path) -> None:
    model = load(run)
    add(run, more(), train=Train(**FEW))
    add(model, more(), train=Train(**FEW))  # also in memory
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
        add(model, Domain(f"faces-{kind}", source, size=12), adapters=kind, train=Train(**FEW))
    out = predictions_of(model, "faces-parallel")["faces-parallel"]
    assert out["age"].shape == (3, 1)
    assert out["who"].shape == (3, 128)
    mean = model.heads_of("faces-none").head("age").get_buffer("mean")
    assert 5 < float(mean) < 35  # the head starts from the scale of the labels


@pytest.mark.parametrize("norm", ["shared", "domain-stats", "instance-domain"])
def test_other_norms(norm: str) -> None:
    model = network(worlds("one"), norm=norm)
    for kind in ("none", "parallel"):
        add(model, more(f"new-{kind}"), adapters=kind, train=Train(**FEW))
    if norm == "shared":
        with raises(BadInput, "norm = 'shared'", try_="--adapters none"):
            add(model, more("third"), adapters="norm", train=Train(**FEW))
    assert list(model.domains)[:3] == ["one", "new-none", "new-parallel"]


def test_full_sharing_learns_a_head_that_only_the_new_domain_has() -> None:
    model = network(worlds("one"), sharing="full")
    before = predictions_of(model)
    add(model, more("other", classes="xyz"), adapters="parallel", train=Train(**FEW))
    assert same(before, predictions_of(model, "one"))
    head = model.heads_of("other").head("classify")
    assert isinstance(head, SharedHead)
    assert head.held[0].get_parameter("weight").abs().max() > 0


def test_specialists_cannot_get_another_domain() -> None:
    model = network(worlds("one"), sharing="none")
    with raises(BadInput, try_="sharing = 'deep'"):
        add(model, more(), train=Train(**FEW))


def test_a_domain_that_would_change_another_is_not_added(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(run / "model")

    def changed(
        model: Universal, domains: dict[str, Domain], without: str
    ) -> dict[str, Fingerprint]:
        found = fingerprints(model, domains, without)
        if without in model.domains:
            found["two"] = replace(found["two"], sha256="0" * 64)
        return found

    monkeypatch.setattr(train_domain, "fingerprints", changed)
    with raises(Failed, "new", "outputs of two"):
        add(run, more())
    assert files(run / "model") == before
    assert list(load(run).domains) == ["one", "two"]


def test_a_model_is_unchanged_after_a_failed_addition() -> None:
    model = network(worlds("one"))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with raises(BadInput, "stepz"):
        add(model, more(), train=Train(stepz=3))  # type: ignore[call-arg]  # on purpose
    with pytest.raises(Diverged):
        add(model, more(), train=Train(steps=6, batch=4, optimizer="sgd", lr=1e30, warmup=0.0))
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.requires_grad for p in model.parameters_of("one").values())


def test_custom_adapters_of_another_trunk_are_refused(run: Path) -> None:
    with raises(BadInput, got="package.module:thing", available=["none"]):
        add(run, more(), adapters="package.module:thing")
    assert not (run / "adding").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_an_addition_that_fails_before_its_first_step_leaves_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = files(run)
    with raises(BadInput, "new", "one class", got="a"):
        add(run, more(classes="a"), few=False, train=Train(**FEW), resume=resume)
    assert files(run) == before
    monkeypatch.setattr(train_domain, "fingerprints", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add(run, more(), few=False, train=Train(**FEW), resume=resume)
    assert files(run) == before
