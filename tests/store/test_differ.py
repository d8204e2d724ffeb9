"""Which keys of two recipes differ, in the words of the recipe."""

from __future__ import annotations

import pytest

from onetrunk.store.differ import differ

RECIPE = """
seed = 0
[train]
steps = 400
[[domains]]
name = "digits"
size = 32
[[domains]]
name = "shop"
size = [64, 32]
[domains.tasks]
price = { kind = "regress" }
"""


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("seed = 0", "seed = 1", ["seed (0 there, 1 here)"]),
        ("seed = 0", "seed = 0.0 # the same number", []),
        ("seed = 0", "", ["seed (only there)"]),
        ("steps = 400", "steps = 400\nlr = 1.0", ["train.lr (only here)"]),
        ("size = 32", "size = 64", ["domains.digits.size (32 there, 64 here)"]),
        ('"regress"', '"classify"', ["domains.shop.tasks.price.kind ('regress' there, 'cl"]),
        ('"digits"', '"fashion"', ["domains.digits (only there)", "domains.fashion (only here)"]),
        ("[64, 32]", f"{list(range(30))}", ["domains.shop.size ([64, 32] there, [0, 1, 2, "]),
        ("seed = 0", "seed = ", ["all of its text (not TOML)"]),
    ],
)
def test_keys_that_differ(old: str, new: str, keys: list[str]) -> None:
    found = differ(RECIPE, RECIPE.replace(old, new))
    assert len(found) == len(keys)
    assert all(line.startswith(key) for line, key in zip(found, keys, strict=True)), found
    assert all(len(line) < 140 for line in found)


def test_the_order_of_domains_is_a_difference() -> None:
    one, two = ('[[domains]]\nname = "a"\n', '[[domains]]\nname = "b"\n')
    assert differ(one + two, two + one) == ["the order of domains"]
    assert differ(one + one, one) == [
        "domains ([{'name': 'a'}, {'name': 'a'}] there, [{'name': 'a'}] here)"
    ]
