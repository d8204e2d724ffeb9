"""Initialising from a finished run: which weights are copied, and which domains are new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from onetrunk.config import Recipe
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.model_files import save_models
from onetrunk.nn.saving import save
from onetrunk.nn.universal import Universal
from onetrunk.runs.train import train_recipe
from onetrunk.train.initialize import copy_weights, start_from
from tests.helpers.errors import raises
from tests.helpers.worlds import CPU, network, noise, same, weights, worlds


def trained(domains: Sequence[Domain], seed: int = 5, **trunk: Any) -> Universal:
    """A network with changed weights, as if trained."""
    model = network(domains, seed, **trunk)
    chance = torch.Generator(CPU).manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=chance))
    return model.eval()


def predictions(model: Universal, domain: Domain) -> torch.Tensor:
    images, _ = domain.test.batch(torch.arange(4).numpy())
    with torch.no_grad():
        found: torch.Tensor = model.eval()(images, domain.name)["classify"]
    return found


@pytest.mark.parametrize(
    "trunk",
    [
        {},
        {"norm": "shared"},
        {"norm": "domain-stats", "adapters": "parallel"},
        {"sharing": "partial", "own_stages": ["stem", 2]},
        {"sharing": "full"},
    ],
    ids=str,
)
def test_copied_domains_predict_as_before(
    trunk: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = worlds("ants", "bees", "cats")
    other = trained(domains[:2], **trunk)
    save(other, tmp_path)
    model = network([domains[2], domains[1]], **trunk)
    start_from(tmp_path, {"": model})
    assert predictions(model, domains[1]).equal(predictions(other, domains[1]))
    assert same(dict(model.trunk.shared()), dict(other.trunk.shared()))
    output = capsys.readouterr().err
    assert "known domains: bees; new domains: cats" in output


def test_the_same_domains_are_the_same_model(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    other = trained(domains, sharing="full", adapters="series")
    save(other, tmp_path)
    model = network(domains, sharing="full", adapters="series")
    start_from(tmp_path, {"": model})
    assert same(weights(model), weights(other))


def test_a_domain_with_other_classes_or_adapters_is_new() -> None:
    domains = worlds("ants", "bees")
    other = trained(domains)
    changed = [Domain("ants", noise(40, "xyz"), size=8), domains[1]]
    assert copy_weights(network(changed), other) == ["bees"]
    adapted = trained(domains, adapters="parallel")
    assert copy_weights(network(domains), adapted) == []
    assert copy_weights(network(domains, adapters="series"), adapted) == []


@pytest.mark.parametrize("adapters", ["parallel", "series", "lora"])
def test_new_adapters_change_nothing_at_first(adapters: str) -> None:
    domains = worlds("ants", "bees")
    other = trained(domains)
    model = network(domains, adapters=adapters)
    assert copy_weights(model, other) == ["ants", "bees"]
    for domain in domains:
        torch.testing.assert_close(predictions(model, domain), predictions(other, domain))


@pytest.mark.parametrize("sharing", ["deep", "partial"])
def test_a_new_domain_starts_with_copies_of_the_trunks_layers(sharing: str) -> None:
    """Its slots are copies of the layers of the finished trunk that they replace."""
    domains = worlds("ants", "bees")
    other = trained(domains[:1])
    own: dict[str, Any] = {"own_stages": ["stem", 3]} if sharing == "partial" else {}
    model = network(domains[1:], sharing=sharing, **own)
    copy_weights(model, other)
    fresh = network(domains[1:], sharing=sharing, **own)
    fresh.remove("bees")
    fresh.trunk.load_shared(other.trunk.shared())
    fresh.add_domain(domains[1])
    expected, found = fresh.own("bees"), model.own("bees")
    slots = [key for key in expected if key.startswith("slots/")]
    assert len(slots) > 30
    assert all(found[key].equal(expected[key]) for key in slots)


def test_heads_are_copied_between_shared_and_own() -> None:
    """Classes in another order share a head by name; every domain keeps its own predictions."""
    (ants,) = worlds("ants")
    turned = Domain(
        "bees", noise(80, "ab", 4000), [Task("classify", "classify", ("b", "a"))], size=8
    )
    assert turned.tasks[0].classes == ("b", "a")
    full = trained([ants, turned], sharing="full")
    deep = network([ants, turned])
    assert copy_weights(deep, full) == ["ants", "bees"]
    for domain in (ants, turned):
        assert predictions(deep, domain).equal(predictions(full, domain))
    back = network([turned, ants], sharing="full")  # the head has the order of the first
    copy_weights(back, full)
    for domain in (ants, turned):
        assert predictions(back, domain).equal(predictions(full, domain))
    alone = network([turned], sharing="full")
    copy_weights(alone, trained([turned]))
    assert predictions(alone, turned).equal(predictions(trained([turned]), turned))
    assert ants.tasks[0].classes == ("a", "b")


def test_each_specialist_starts_from_its_own(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    others = {d.name: trained([d], seed, sharing="none") for seed, d in enumerate(domains)}
    save_models(others, tmp_path)
    models = {d.name: network([d], sharing="none") for d in domains}
    start_from(tmp_path, models)
    for name, model in models.items():
        assert same(weights(model), weights(others[name]))
    with raises(BadInput, tmp_path, available=("ants", "bees"), try_="sharing = 'deep'"):
        start_from(tmp_path, {"": network(domains)})
    (cats,) = worlds("cats")
    with raises(BadInput, got="cats", available=("ants", "bees")):
        start_from(tmp_path, {**models, "cats": network([cats], sharing="none")})


@pytest.mark.parametrize("norm", ["domain", "shared"])
def test_specialists_start_from_one_trunk(
    norm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fine-tuning: known domains keep their weights, a new one starts as usual."""
    domains = worlds("ants", "bees", "cats")
    deep = trained(domains[:2], norm=norm)
    save(deep, tmp_path)
    models = {
        d.name: network([d], seed, sharing="none", norm=norm) for seed, d in enumerate(domains)
    }
    start_from(tmp_path, models)
    for model in models.values():
        assert same(dict(model.trunk.shared()), dict(deep.trunk.shared()))
    for domain in domains[:2]:
        assert predictions(models[domain.name], domain).equal(predictions(deep, domain))
    output = capsys.readouterr().err.splitlines()
    assert [line.partition("known domains: ")[2] for line in output] == [
        "ants; new domains: none", "bees; new domains: none", "none; new domains: cats"
    ]  # fmt: skip


def photos(root: Path, seed: int) -> None:
    """Write a small folder of two classes of noise."""
    rng = np.random.default_rng(seed)
    for kind in "ab":
        (root / kind).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
                root / kind / f"{i}.png"
            )


def test_fine_tuning_by_the_keys_of_a_recipe(tmp_path: Path) -> None:
    """sharing = "none" and init = RUN; with a tiny rate all weights end where they began."""
    for seed, name in enumerate(("ants", "bees")):
        photos(tmp_path / name, seed)
    text = (
        'name = "x"\ntrain = { steps = 2, batch = 4, optimizer = "sgd", lr = 1e-9, warmup = 0.0 }\n'
    )
    part = '[[domains]]\nname = "{0}"\nsource = "folder:{0}"\nsize = 16\n'
    both = text + part.format("ants") + part.format("bees")
    sets = ("trunk.sharing=none", "trunk.arch=resnet20")
    one = train_recipe(Recipe.parse(text + part.format("ants"), tmp_path, ("out=deep", sets[1])))
    tuned = train_recipe(Recipe.parse(both, tmp_path, (*sets, "out=alone", "init=deep")))
    assert list(tuned.models) == ["ants", "bees"]
    fresh = Recipe.parse(both, tmp_path, sets)
    for name, model in fresh.make_model(fresh.make_domains()).items():
        shared, drawn = tuned.models[name].trunk.shared(), model.trunk.shared()
        for key, tensor in one.model.trunk.shared().items():
            torch.testing.assert_close(shared[key], tensor, atol=1e-5, rtol=1e-5)
        assert not all(drawn[key].allclose(tensor) for key, tensor in shared.items())


def test_another_trunk_is_refused(tmp_path: Path) -> None:
    domains = worlds("ants")
    save(trained(domains), tmp_path / "deep")
    with raises(BadInput, "trunk.norm", "'domain'", got="shared"):
        start_from(tmp_path / "deep", {"": network(domains, norm="shared")})
    with raises(BadInput, "trunk.arch", "'resnet20'", got="resnet26"):
        start_from(tmp_path / "deep", {"": network(domains, arch="resnet26")})
    save(trained(domains, sharing="partial", own_stages=[2]), tmp_path / "partial")
    with raises(BadInput, "trunk.own_stages", tmp_path / "partial"):
        start_from(tmp_path / "partial", {"": network(domains)})
    with raises(BadInput, tmp_path / "nowhere"):
        start_from(tmp_path / "nowhere", {"": network(domains)})
