"""The keys in which two recipes differ."""

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
        ("seed = 0", "seed = 1", ["seed (was 0, is 1)"]),
        ("seed = 0", "seed = 0.0 # the same number", []),
        ("seed = 0", "", ["seed (removed)"]),
        ("steps = 400", "steps = 400\nlr = 1.0", ["train.lr (added)"]),
        ("size = 32", "size = 64", ["domains.digits.size (was 32, is 64)"]),
        ('"regress"', '"classify"', ["domains.shop.tasks.price.kind (was 'regress', is 'cl"]),
        ('"digits"', '"fashion"', ["domains.digits (removed)", "domains.fashion (added)"]),
        ("[64, 32]", f"{list(range(30))}", ["domains.shop.size (was [64, 32], is [0, 1, 2, "]),
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
        "domains (was [{'name': 'a'}, {'name': 'a'}], is [{'name': 'a'}])"
    ]
