"""From a recipe to a model: seeded by its own seed, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from onetrunk.config import Recipe
from onetrunk.nn.universal import Universal

TEXT = """
name = "x"
seed = 4
trunk = { arch = "resnet20" }
[[domains]]
name = "digits"
source = "pocket:optdigits"
[[domains]]
name = "others"
source = "pocket:optdigits"
"""


def made(*sets: str, text: str = TEXT) -> dict[str, Universal]:
    recipe = Recipe.parse(text, sets=sets)
    return recipe.make_model(recipe.make_domains())


def weights(model: Universal) -> dict[str, Tensor]:
    return model.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_seed_and_nothing_else_makes_the_weights() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = made()
    assert list(first) == [""]
    assert torch.equal(torch.get_rng_state(), before)  # the caller's generator is unmoved
    torch.rand(7)
    assert same(weights(first[""]), weights(made()[""]))
    assert not same(weights(first[""]), weights(made("seed=5")[""]))


def test_specialists_depend_on_their_own_names() -> None:
    both = made("trunk.sharing=none")
    assert {name: list(model.domains) for name, model in both.items()} == {
        "digits": ["digits"],
        "others": ["others"],
    }
    alone = made("trunk.sharing=none", text=TEXT[: TEXT.rindex("[[domains]]")])
    assert same(weights(both["digits"]), weights(alone["digits"]))
    stems = [model.trunk.shared()["stem.conv.weight"] for model in both.values()]
    assert not torch.equal(*stems)


def test_all_keys_of_the_trunk_reach_it() -> None:
    model = made(
        *("trunk.norm=domain-stats", "trunk.sharing=partial", "trunk.own_stages=[1]"),
        *("trunk.adapters=parallel", 'trunk.adapter_layers=["stage3.*"]', "trunk.pair=index"),
    )[""]
    trunk = model.trunk
    assert (trunk.norm, trunk.sharing, trunk.own_stages) == ("domain-stats", "partial", ("1",))
    assert (trunk.adapters, trunk.adapter_layers, model.pair) == (
        "parallel",
        ("stage3.*",),
        "index",
    )


def test_a_file_of_weights_is_found_from_the_recipes_folder(tmp_path: Path) -> None:
    plain = made()[""].trunk.shared()
    save_file({k: torch.full_like(v, 2) for k, v in plain.items()}, tmp_path / "w.safetensors")
    recipe = Recipe.parse(TEXT, tmp_path, ["trunk.pretrained=w.safetensors"])
    model = recipe.make_model(recipe.make_domains())[""]
    assert bool((model.trunk.shared()["stem.conv.weight"] == 2).all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_devices_generator_is_unmoved() -> None:
    before = torch.cuda.get_rng_state()
    made()
    assert torch.equal(torch.cuda.get_rng_state(), before)
