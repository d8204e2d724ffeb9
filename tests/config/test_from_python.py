"""Recipes of trainings from Python give the same model and domains when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from onetrunk.config import Distill, Recipe, Train
from onetrunk.config.from_python import distill_settings, recipe_of
from onetrunk.data.augment import Augment
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.errors import raises
from tests.helpers.worlds import network, settings, worlds


def shop(root: Path) -> Path:
    """Write images and a table of their labels."""
    rng = np.random.default_rng(0)
    rows = ["image,category,price,item,part"]
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(root / f"{i:02}.png")
        part = ("train", "train", "val", "test")[i // 2 % 4]
        rows.append(f"{i:02}.png,{'ab'[i % 2]},{i * 1.5},{i // 2},{part}")
    (root / "shop.csv").write_text("\n".join(rows))
    return root


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pixels": {"size": (12, 16), "fit": "pad", "fill": 7, "margin": 2, "normalize": "imagenet"},
    "numbers": {"normalize": ((0.1, 0.2, 0.3), (0.5, 0.25, 0.125)), "weight": 2, "batch": 3},
    "table": {"flip": True, "augment": {"area": (0.5, 1.0), "contrast": 0.25}, "split": "part"},
    "an augment": {"augment": Augment(pad=1, flip=True, scale=(0.75, 1.5))},
    "groups": {"group": "item", "allow_bad": True},
    "tasks": {
        "tasks": {
            "what": {"kind": "classify", "column": "category", "classes": ["b", "a"]},
            "cost": {"kind": "regress", "column": "price", "unit": "EUR"},
        }
    },
}


def test_seeding_torch_gives_a_model_the_weights_of_the_recipe(tmp_path: Path) -> None:
    domains = worlds("one", "two")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Universal(Trunk("resnet20"), domains)
    recipe = recipe_of(model, domains, settings(), 3, tmp_path / "run")
    made = recipe.make_model(domains)[""].state_dict()
    assert made.keys() == model.state_dict().keys()
    assert all(torch.equal(made[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("case", SETTINGS)
def test_a_domain_is_the_same_when_read_back(case: str, tmp_path: Path) -> None:
    given = {"size": 8, "tasks": [Task("what", "classify", column="category")], **SETTINGS[case]}
    domain = Domain("shop", "table:shop.csv", base=shop(tmp_path), image="image", **given)
    recipe = recipe_of(network([domain]), [domain], settings(), 3, tmp_path / "runs" / "one")
    (again,) = Recipe.parse(recipe.to_toml(), tmp_path / "elsewhere").make_domains()
    found = {"size": again.shape.size, "tasks": again.settings.tasks}
    assert again.settings == domain.settings.model_copy(update=found)
    for name in ("name", "source", "shape", "augmentation", "pixels", "tasks"):
        assert getattr(again, name) == getattr(domain, name), name
    assert again.index.fingerprint == domain.index.fingerprint
    for split in ("train", "val", "test"):
        assert again.splits[split].rows.tolist() == domain.splits[split].rows.tolist()


@pytest.mark.parametrize(
    "trunk",
    [
        {"norm": "shared", "adapters": "parallel", "adapter_layers": ["*conv1", "stem*"]},
        {"sharing": "partial", "own_stages": ["stem", 2]},
        {"sharing": "none", "arch": "timm/test_resnet"},
    ],
    ids=str,
)
def test_trunk_and_settings_are_the_same_when_read_back(
    trunk: dict[str, Any], tmp_path: Path
) -> None:
    domains = [Domain("digits", "pocket:optdigits", size=32)]
    train = settings(steps=12, milestones=(0.25, 0.5), loggers=("a.b:c",), weight_decay=0.25)
    model = network(domains, **dict(trunk))
    described = recipe_of(model, domains, train, 9, tmp_path / "one")
    recipe = Recipe.parse(described.to_toml(), tmp_path)
    assert recipe == described
    assert (recipe.seed, recipe.train) == (9, train)
    assert recipe.out_folder == tmp_path / "one"
    (again,) = recipe.make_model(recipe.make_domains()).values()
    for name in ("arch", "norm", "sharing", "own_stages", "adapters", "adapter_layers"):
        assert getattr(again.trunk, name) == getattr(model.trunk, name)
    assert again.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("One", "one"),
        ("exp 1.2", "exp-1-2"),
        ("é", "run"),
        ("x" * 99, "x" * 64),
        (".hidden", "hidden"),
    ],
)
def test_a_run_is_named_after_its_folder(folder: str, name: str, tmp_path: Path) -> None:
    domains = worlds("ants")
    recipe = recipe_of(network(domains), domains, settings(), 0, tmp_path / folder)
    assert recipe.name == name
    assert recipe.out_folder == tmp_path / folder


def test_a_source_object_is_given_by_its_type() -> None:
    domains = worlds("ants")
    recipe = recipe_of(network(domains), domains, settings(), 0, Path("runs/one"))
    assert recipe.domains[0].source == "python:Fake"
    assert recipe.out_folder == Path("runs/one")
    assert Recipe.parse(recipe.to_toml()) == recipe


def test_other_settings_give_another_recipe() -> None:
    domains = worlds("ants", "bees")
    model, out = network(domains), Path("runs/one")
    one = recipe_of(model, domains, settings(), 0, out)
    changed = worlds("ants", "bees", batch=7)
    others = [
        recipe_of(model, domains, settings(lr=0.25), 0, out),
        recipe_of(model, domains, settings(), 1, out),
        recipe_of(model, changed, settings(), 0, out),
        recipe_of(network(domains, norm="shared"), domains, settings(), 0, out),
    ]
    assert recipe_of(model, worlds("ants", "bees"), settings(), 0, out) == one
    assert all(other != one for other in others)


def test_teachers_are_given_by_their_names() -> None:
    class Ours:
        name = "ours"

    given = {"a": ["runs/one", Ours()], "b": {"classify": Path("runs/two")}}
    distill = distill_settings(Distill(features="cka"), given)
    assert distill is not None
    assert distill.features == "cka"
    assert distill.teachers == {"a": ["runs/one", "python:ours"], "b": {"classify": "runs/two"}}
    assert distill_settings(None, "") is None
    assert distill_settings(Distill(teachers="runs/one"), "") == Distill(teachers="runs/one")
    with raises(BadInput, try_="teachers="):
        distill_settings(Distill(features="cka"), "")


def test_a_pretrained_trunk_has_its_rates_in_python_too(tmp_path: Path) -> None:
    domains = worlds("one")
    model = network(domains)
    scratch = recipe_of(model, domains, Train(steps=2), 0, tmp_path / "run").train
    model.trunk.pretrained = True
    train = recipe_of(model, domains, Train(steps=2, ema=0.5), 0, tmp_path / "run").train
    assert (scratch.lr, scratch.ema, scratch.label_smoothing) == (1e-3, 0.0, 0.0)
    assert (train.lr, train.ema, train.label_smoothing) == (5e-4, 0.5, 0.1)
    taught = Distill(teachers="runs/x")
    assert recipe_of(model, domains, Train(), 0, tmp_path / "r", taught).train.label_smoothing == 0
