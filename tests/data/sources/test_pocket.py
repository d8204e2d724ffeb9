"""The embedded domains: all of them load, and their splits are separate."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.duplicates import near_pairs
from onetrunk.data.sources.pocket import ASSETS, cards
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stored_images import GOOD
from onetrunk.errors import BadInput
from tests.helpers.errors import raises

NAMES = list(cards())


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every domain, decoded once for all tests of this file."""
    home = tmp_path_factory.mktemp("pocket")
    kept: dict[str, Domain] = {}

    def open_(name: str) -> Domain:
        return kept.setdefault(name, Domain(name, f"pocket:{name}", cache=home))

    return open_


def test_the_embedded_domains_exist() -> None:
    expected = {"digits", "fashion", "optdigits", "emoji", "flags", "glyphs", "words", "icons"}
    assert expected <= set(NAMES)


def test_all_together_they_are_small() -> None:
    assert sum(len(p.read_bytes()) for p in ASSETS.iterdir()) <= 15_000_000


@pytest.mark.parametrize("name", NAMES)
def test_every_image_has_the_size_on_its_card(name: str, opened: Any) -> None:
    domain, card = opened(name), cards()[name]
    assert domain.shape.size == tuple(card["size"])
    assert (domain.decoded.records["status"] == GOOD).all()
    assert set(domain.decoded.records["height"]) == {card["size"][0]}
    assert set(domain.decoded.records["width"]) == {card["size"][1]}
    for split in SPLITS:
        assert len(domain.splits[split]) == card["splits"][split]["count"] >= 100
    images, targets = domain.train.batch(np.arange(4))
    assert images.shape == (4, 3, *card["size"])
    assert set(targets) == {task.name for task in domain.tasks}


@pytest.mark.parametrize("name", NAMES)
def test_every_class_is_in_every_split(name: str, opened: Any) -> None:
    domain = opened(name)
    assert not [w for w in domain.index.warnings if "lacks" in w]
    for task in domain.tasks:
        if task.kind == "segment":
            for split in SPLITS:
                part = domain.splits[split]
                met = np.unique(part.stored(np.arange(len(part)))[1][task.name])
                assert set(met) - {255} == set(range(len(task.classes)))


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_in_one_split(name: str) -> None:
    home: dict[str, str] = {}
    for item in Domain(name, f"pocket:{name}").opened.items():
        assert item.group is not None
        assert item.split is not None
        assert home.setdefault(item.group, item.split) == item.split


@pytest.mark.parametrize("name", [n for n in NAMES if n != "flags"])
def test_at_most_one_test_image_in_a_hundred_is_near_a_training_image(
    name: str, opened: Any
) -> None:
    domain = opened(name)
    thumbs = {s: domain.decoded.records["thumb"][domain.good(s)] for s in SPLITS}
    pairs = near_pairs(thumbs["test"], thumbs["train"])
    assert len(np.unique(pairs[:, 0])) <= 0.01 * len(thumbs["test"])


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_in_two_splits(name: str, opened: Any) -> None:
    domain = opened(name)
    digests = {
        split: {d.tobytes() for d in domain.decoded.records["digest"][domain.good(split)]}
        for split in SPLITS
    }
    shared = digests["train"] & (digests["val"] | digests["test"])
    assert len(shared) <= 0.01 * len(digests["test"])


@pytest.mark.parametrize("name", NAMES)
def test_images_are_not_blank(name: str, opened: Any) -> None:
    scan = opened(name).decoded.records
    assert ((scan["flags"] & 1) > 0).mean() <= 0.01


@pytest.mark.parametrize("name", NAMES)
def test_the_card_names_its_source_and_licence(name: str) -> None:
    card = cards()[name]
    for key in ("title", "package", "licence", "counterpart"):
        assert card[key]
    json.dumps(card)


@pytest.mark.parametrize("name", [n for n in NAMES if cards()[n]["kind"] == "dense"])
def test_dense_targets_are_labelled_almost_everywhere(name: str, opened: Any) -> None:
    domain = opened(name)
    _, targets = domain.test.stored(np.arange(len(domain.test)))
    assert (targets["segment"] != 255).mean() > 0.9
    assert (targets["depth"] > 0).mean() > 0.8
    length = np.linalg.norm(targets["normals"].astype(np.float32), axis=-1)
    labelled = length > 0
    assert labelled.mean() > 0.7
    np.testing.assert_allclose(length[labelled], 1, atol=2e-3)
    assert targets["normals"].astype(np.float32)[labelled][:, 2].mean() > 0  # towards the viewer


def test_an_unknown_embedded_domain_is_refused_with_those_available() -> None:
    with raises(BadInput, got="digit", available=("digits",)):
        _ = Domain("d", "pocket:digit").train


def test_the_same_tile_is_the_same_image_from_a_fresh_source() -> None:
    name = "optdigits"
    one, other = (Domain("d", f"pocket:{name}").opened for _ in range(2))
    for item in list(one.items())[:3]:
        np.testing.assert_array_equal(one.image(item.where), other.image(item.where))
