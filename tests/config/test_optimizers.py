"""The optimizer decides the defaults of its own keys, wherever it is chosen."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from onetrunk.config import Recipe, Train
from onetrunk.config.optimizers import OPTIMIZER_KEYS, OPTIMIZERS, OptimizerName
from onetrunk.errors import BadInput
from onetrunk.train.optimizer import MAKERS
from tests.helpers.errors import raises

TEXT = 'name = "a"\n[[domains]]\nname = "digits"\nsource = "pocket:digits"\n[train]\n'
NAMES: tuple[OptimizerName, ...] = get_args(OptimizerName)


def values(train: Train) -> dict[str, Any]:
    return {key: getattr(train, key) for key in OPTIMIZER_KEYS}


def test_every_optimizer_has_defaults_and_is_made() -> None:
    assert set(OPTIMIZERS) == set(MAKERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_are_those_of_the_optimizer(name: OptimizerName) -> None:
    train = Train(optimizer=name)
    assert values(train) == vars(OPTIMIZERS[name])
    assert train.given() == {"optimizer": name}
    assert values(Train(optimizer=name, lr=0.3)) == {**vars(OPTIMIZERS[name]), "lr": 0.3}


def test_sgd_is_never_trained_with_the_weight_decay_of_adamw() -> None:
    """Also where a file states all values of AdamW, as that of every run does."""
    resolved = Recipe.parse(TEXT).to_toml()
    for text in (TEXT, resolved, TEXT + "lr = 1e-4\nweight_decay = 0.05\n"):
        sgd = Recipe.parse(text, sets=["train.optimizer=sgd"])
        assert values(sgd.train) == vars(OPTIMIZERS["sgd"])
        back = Recipe.parse(sgd.to_toml(), sets=["train.optimizer=adamw"])
        assert values(back.train) == vars(OPTIMIZERS["adamw"])


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
