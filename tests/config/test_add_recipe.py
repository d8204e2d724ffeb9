"""The recipe of a domain that is added: reading, writing, and the settings of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from onetrunk.config import Recipe
from onetrunk.config.add_recipe import (
    AddRecipe,
    AddSettings,
    added_domain,
    base_from,
    card_adapters,
    merged_train,
    read_add_recipe,
    train_like,
)
from onetrunk.errors import BadInput
from tests.helpers.errors import raises

DOCUMENT = {
    "seed": 3,
    "base": "photos",
    "trunk": "0" * 64,
    "add": {"adapters": "lora", "rank": 2, "few": False},
    "domains": [{"name": "shop", "source": "folder:shop", "size": [8, 9]}],
    "train": {"epochs": 2},
}


def test_a_written_recipe_reads_back(tmp_path: Path) -> None:
    recipe = AddRecipe.of(DOCUMENT)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert read_add_recipe(tmp_path) == recipe
    assert (recipe.add.few, recipe.add.start, recipe.add.budget) == (False, "auto", 0.15)
    domain = added_domain(tmp_path)
    assert (domain.name, domain.base) == ("shop", tmp_path / "photos")
    assert domain.settings == recipe.domain


@pytest.mark.parametrize(
    ("key", "value", "available"),
    [
        ("adapters", "paralel", ["parallel", "norm", "auto"]),
        ("few", "yes", []),
        ("decay", 0, []),
        ("rank", 0, []),
        ("budgett", 1, ["budget"]),
    ],
)
def test_wrong_settings(key: str, value: object, available: list[str]) -> None:
    got = key if key == "budgett" else value
    with raises(BadInput, place=f"add.{key}", got=got, available=available):
        AddRecipe.of({**DOCUMENT, "add": {key: value}})


def test_a_wrong_recipe_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("[train]\nlr = 0\n" + AddRecipe.of(DOCUMENT).to_toml())
    with raises(BadInput, "recipe.toml", "TOML"):  # [train] twice
        read_add_recipe(tmp_path)
    (tmp_path / "recipe.toml").write_text("[train]\nlr = 0\n")
    with raises(BadInput, place=f"{tmp_path / 'recipe.toml'}: train.lr", got=0):
        read_add_recipe(tmp_path)


def test_one_domain_is_added_at_a_time() -> None:
    two = [{"name": name, "source": "folder:a"} for name in "ab"]
    with raises(BadInput, place="domains", got=2):
        AddRecipe.of({**DOCUMENT, "domains": two})


def test_a_rank_goes_with_low_rank_adapters() -> None:
    with raises(BadInput, "rank", got=2, available=["lora"]):
        AddSettings(adapters="norm", rank=2)
    assert AddSettings(adapters="auto", rank=2).rank == 2
    assert [card_adapters(kind) for kind in ("norm", "none", "lora")] == ["none", "none", "lora"]


def test_the_settings_of_the_run_are_the_defaults(tmp_path: Path) -> None:
    text = (
        'name = "x"\n[[domains]]\nname = "a"\nsource = "folder:a"\n[train]\nhours = 3\nlr = 0.2\n'
    )
    (tmp_path / "recipe.toml").write_text(Recipe.parse(text + "loggers = ['a:b']").to_toml())
    like = train_like(tmp_path, 2)
    assert (like["hours"], like["lr"], like["weight_decay"]) == (1.5, 0.2, 0.05)
    assert not {"loggers", "sampling", "steps", "epochs"} & like.keys()
    assert train_like(tmp_path / "nowhere") == {}
    assert merged_train({}, like) == like
    assert merged_train({"steps": 4}, like)["steps"] == 4
    assert "hours" not in merged_train({"steps": 4}, like)
    assert not {"lr", "weight_decay"} & merged_train({"optimizer": "sgd"}, like).keys()


def test_a_base_is_relative_to_the_folder_of_the_recipe(tmp_path: Path) -> None:
    assert base_from(tmp_path / "a", tmp_path) == (tmp_path / "a").as_posix()
    assert base_from(Path("a"), Path("runs/b")) == "../../a"
