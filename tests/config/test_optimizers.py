"""The optimizer decides the defaults of its own keys, wherever it is chosen."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from onetrunk.config import Recipe, Train
from onetrunk.config.optimizers import (
    DEFAULT_KEYS,
    OPTIMIZER_KEYS,
    OPTIMIZERS,
    START_KEYS,
    STARTS,
    OptimizerName,
    Start,
    train_defaults,
)
from onetrunk.errors import BadInput
from onetrunk.train.optimizer import MAKERS
from tests.helpers.errors import raises

TEXT = """name = "a"
[trunk]
arch = "resnet20"
[[domains]]
name = "digits"
source = "pocket:digits"
[train]
"""
NAMES: tuple[OptimizerName, ...] = get_args(OptimizerName)


def values(train: Train) -> dict[str, Any]:
    return {key: getattr(train, key) for key in OPTIMIZER_KEYS}


def test_every_optimizer_has_defaults_and_is_made() -> None:
    for start in get_args(Start):
        assert set(OPTIMIZERS[start]) == set(MAKERS) == set(NAMES)
    assert set(STARTS) == set(OPTIMIZERS) == set(get_args(Start))


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_are_those_of_the_optimizer(name: OptimizerName) -> None:
    train = Train(optimizer=name)
    expected = vars(OPTIMIZERS["scratch"][name])
    assert values(train) == expected
    assert train.given() == {"optimizer": name}
    assert values(Train(optimizer=name, lr=0.3)) == {**expected, "lr": 0.3}


def test_sgd_is_never_trained_with_the_weight_decay_of_adamw() -> None:
    """Also where a file states all values of AdamW, as that of every run does."""
    defaults = OPTIMIZERS["scratch"]
    resolved = Recipe.parse(TEXT).to_toml()
    for text in (TEXT, resolved, TEXT + "lr = 1e-4\nweight_decay = 0.05\n"):
        sgd = Recipe.parse(text, sets=["train.optimizer=sgd"])
        assert values(sgd.train) == vars(defaults["sgd"])
        back = Recipe.parse(sgd.to_toml(), sets=["train.optimizer=adamw"])
        assert values(back.train) == vars(defaults["adamw"])


def test_values_that_are_set_stay() -> None:
    sets = ["train.lr=0.2", "train.optimizer=sgd", "train.momentum=0.5"]
    train = Recipe.parse(Recipe.parse(TEXT).to_toml(), sets=sets).train
    assert values(train) == {"lr": 0.2, "momentum": 0.5, "weight_decay": 5e-4}
    same = Recipe.parse(TEXT + "lr = 0.2\n", sets=["train.optimizer=adamw"]).train
    assert same.lr == 0.2  # the optimizer stays the same


def test_a_momentum_that_nothing_would_use_is_refused() -> None:
    with raises(BadInput, got="momentum = 0.9", try_="optimizer = 'sgd'"):
        Train(momentum=0.9)


def test_a_resolved_recipe_says_which_values_are_defaults() -> None:
    recipe = Recipe.parse(TEXT + 'optimizer = "sgd"\nlr = 0.2\n')
    lines = {line.split(" ")[0]: line for line in recipe.to_toml().splitlines()}
    assert "default of sgd" in lines["momentum"]
    assert "default of sgd" in lines["weight_decay"]
    assert lines["lr"].startswith("lr = 0.2 ")
    assert "default of sgd" not in lines["lr"]
    assert Recipe.parse(recipe.to_toml()) == recipe


PRETRAINED = TEXT.replace('"resnet20"', '"timm/test_resnet"\npretrained = true')


@pytest.mark.parametrize("name", NAMES)
def test_a_pretrained_trunk_has_defaults_of_its_own(name: OptimizerName) -> None:
    sets = [f"train.optimizer={name}"]
    for text in (
        PRETRAINED,
        PRETRAINED.replace('arch = "timm/test_resnet"\npretrained = true', ""),
    ):
        recipe = Recipe.parse(text, sets=sets)
        found = {key: getattr(recipe.train, key) for key in DEFAULT_KEYS}
        assert found == {**vars(OPTIMIZERS["pretrained"][name]), **vars(STARTS["pretrained"])}
        assert recipe.train.given() == {"optimizer": name}
        scratch = recipe.with_sets(["trunk.arch=resnet20", "trunk.pretrained=false"]).train
        assert {key: getattr(scratch, key) for key in DEFAULT_KEYS} == train_defaults(name)


def test_teachers_replace_label_smoothing() -> None:
    recipe = Recipe.parse(PRETRAINED, sets=["distill.teachers=runs/x"])
    assert recipe.train.label_smoothing == 0.0
    assert recipe.train.ema == STARTS["pretrained"].ema
    assert recipe.with_sets(["distill.enabled=false"]).train.label_smoothing == 0.1
    assert recipe.with_sets(["train.label_smoothing=0.2"]).train.label_smoothing == 0.2


def test_auto_is_the_same_as_leaving_a_key_out() -> None:
    sets = [f"train.{key}=auto" for key in DEFAULT_KEYS]
    for text in (TEXT, PRETRAINED):
        assert Recipe.parse(text, sets=sets) == Recipe.parse(text)
        assert Recipe.parse(text, sets=sets).train.given() == {}


def test_a_written_recipe_keeps_its_values_with_other_weights() -> None:
    """A run that is trained again from its recipe has the numbers that the recipe states."""
    recipe = Recipe.parse(PRETRAINED)
    back = Recipe.parse(recipe.to_toml(), sets=["trunk.arch=resnet20", "trunk.pretrained=false"])
    assert back.train == recipe.train
    lines = {line.split(" ")[0]: line for line in recipe.to_toml().splitlines()}
    for key in ("lr", *START_KEYS):
        assert "for a pretrained trunk" in lines[key], key
    assert "pretrained trunk" not in lines["weight_decay"].split(";")[-1]
