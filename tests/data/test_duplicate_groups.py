"""What a domain does with duplicates, and that nothing is decoded twice for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.duplicate_groups import find_duplicates
from onetrunk.data.pixels import Raw
from onetrunk.data.sources import Item, Label
from onetrunk.data.splitting import SPLITS
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from tests.helpers.errors import raises
from tests.helpers.fakes import CLASSIFY, Fake

Images = dict[str, Raw | Exception]


def blob(seed: int) -> np.ndarray:
    """A soft picture, whose near copies are near."""
    coarse = np.random.default_rng(seed).integers(30, 220, (4, 4, 3))
    return coarse.repeat(8, 0).repeat(8, 1).astype(np.uint8)


def item(key: str, label: Label = "a", split: str | None = None, where: str = "") -> Item:
    return Item(key, where or key, key, split, labels={"classify": label})


def brighter(seed: int, by: int) -> np.ndarray:
    image: np.ndarray = np.clip(blob(seed).astype(int) + by, 0, 255).astype(np.uint8)
    return image


PLAIN = [item(f"{i:02}", "ab"[i % 2]) for i in range(40)]
IMAGES: Images = {i.key: blob(n) for n, i in enumerate(PLAIN)}


def domain(items: list[Item], images: Images | None = None, **more: Any) -> Domain:
    return Domain("d", Fake(CLASSIFY, items, {**IMAGES, **(images or {})}), size=16, **more)


def split_of(made: Domain) -> dict[str, str]:
    names = (*SPLITS, "left out")
    return {k: names[code] for k, code in zip(made.index.keys, made.index.split, strict=True)}


def warned(made: Domain, about: str) -> list[str]:
    return [line for line in made.index.warnings if line.startswith(about)]


# twelve copies, so that by chance alone they would not all be in one split
COPIES = [item(f"copy{i:02}", "ab"[i % 2], where=f"{i:02}") for i in range(12)]


def test_by_default_nothing_is_decoded_for_the_splits() -> None:
    made = domain([*PLAIN, *COPIES])
    found = split_of(made)
    assert any(found[f"copy{i:02}"] != found[f"{i:02}"] for i in range(12))
    assert made.opened.reads == []  # type: ignore[attr-defined]
    assert warned(made, "duplicates") == []


def test_grouped_copies_are_in_the_split_of_their_original() -> None:
    made = domain([*PLAIN, *COPIES], duplicates="group")
    found = split_of(made)
    assert all(found[f"copy{i:02}"] == found[f"{i:02}"] for i in range(12))
    assert {*found.values()} == {*SPLITS}
    assert np.bincount(made.index.split).tolist() == pytest.approx([36, 8, 8], abs=2)
    (line,) = warned(made, "duplicates")
    assert "24 images in 12 groups" in line
    reads = made.opened.reads  # type: ignore[attr-defined]
    _ = made.splits
    assert len(reads) == len(made.opened.reads) == 52  # type: ignore[attr-defined]


def test_near_copies_are_grouped_through_others() -> None:
    near: Images = {"n1": brighter(0, 3), "n2": brighter(0, 6), "n3": brighter(0, 9)}
    made = domain([*PLAIN, *(item(key, "a") for key in near)], near, duplicates="group")
    found = split_of(made)
    assert {found[key] for key in ("00", *near)} == {found["00"]}
    (group,) = find_duplicates(made.listing, made.decoded.records).groups()
    assert {made.index.keys[row] for row in group} == {"00", *near}


def test_groups_of_duplicates_are_combined_with_those_of_the_user() -> None:
    # pairs 00-01, 02-03, …, and copies that join 00-01 with 02-03, and 04-05 with 06-07
    copies = [item("x02", where="00"), item("x06", where="04")]
    paired = [
        Item(i.key, i.where, i.stamp, group=f"g{int(i.key[-2:]) // 2}", labels=i.labels)
        for i in [*PLAIN, *copies]
    ]
    found = split_of(domain(paired, duplicates="group"))
    assert len({found[key] for key in ("00", "01", "02", "03", "x02")}) == 1
    assert len({found[key] for key in ("04", "05", "06", "07", "x06")}) == 1
    assert all(found[f"{i:02}"] == found[f"{i + 1:02}"] for i in range(8, 40, 2))


def test_dropped_copies_are_in_no_split_and_counted() -> None:
    made = domain([*PLAIN, *COPIES], duplicates="drop")
    found = split_of(made)
    assert [key for key in found if found[key] == "left out"] == [i.key for i in COPIES]
    assert sum(len(part) for part in made.splits.values()) == 40
    assert {k: v for k, v in found.items() if v != "left out"} == split_of(domain(PLAIN))
    assert any("12 images are left out" in line for line in warned(made, "duplicates"))
    assert made.index.how.endswith("12 images left out")
    assert not len(np.intersect1d(made.index.assigned.units, made.index.units[-12:]))


def test_only_images_near_a_kept_one_are_dropped() -> None:
    chain: Images = {f"n{step}": brighter(0, 3 * step) for step in range(1, 6)}
    made = domain([*PLAIN, *(item(key) for key in chain)], chain, duplicates="drop")
    found = split_of(made)
    kept = [key for key in ("00", *chain) if found[key] != "left out"]
    assert kept == ["00", "n2", "n4"]  # n1 is near 00, n3 near n2, n5 near n4
    assert len({found[key] for key in kept}) == 1


def test_copies_with_another_label_are_conflicts_and_never_dropped_as_duplicates() -> None:
    wrong = [item("wrong", "b", where="00"), item("bare", None, where="00")]
    made = domain([*PLAIN, *wrong], duplicates="drop")
    found = split_of(made)
    assert found["00"] == found["wrong"] == found["bare"] != "left out"
    left = split_of(domain([*PLAIN, *wrong], conflicts="drop"))
    assert [key for key in left if left[key] == "left out"] == ["00", "wrong"]
    both = domain([*PLAIN, *wrong, *COPIES], duplicates="drop", conflicts="drop")
    assert any("3 images are left out" in line for line in warned(both, "conflicts"))
    assert sum(split == "left out" for split in split_of(both).values()) == 3 + 11


def test_a_near_image_with_another_label_is_kept_in_the_same_split() -> None:
    made = domain([*PLAIN, item("near", "b")], {"near": brighter(0, 3)}, duplicates="drop")
    found = split_of(made)
    assert found["near"] == found["00"] != "left out"


def test_images_stay_where_the_source_puts_them_or_the_one_in_test_is_kept() -> None:
    named = [item(i.key, i.labels["classify"], SPLITS[int(i.key) % 3]) for i in PLAIN]
    copies = [item("x00", "a", "test", "00"), item("x02", "a", "train", "02")]  # of train, test
    grouped = domain([*named, *copies], duplicates="group")
    found = split_of(grouped)
    assert (found["00"], found["x00"], found["02"], found["x02"]) == (
        *("train", "test"),
        *("test", "train"),
    )
    assert any("2 groups are in several" in line for line in warned(grouped, "duplicates"))
    dropped = split_of(domain([*named, *copies], duplicates="drop"))
    assert [key for key in dropped if dropped[key] == "left out"] == ["00", "x02"]
    assert dropped["x00"] == dropped["02"] == "test"


def test_a_copy_without_a_split_follows_the_one_with_a_split() -> None:
    named = [item(i.key, i.labels["classify"], SPLITS[int(i.key) % 3]) for i in PLAIN]
    free = [item(f"x{i}", "ab"[i % 2], None, f"{i:02}") for i in range(12)]
    found = split_of(domain([*named, *free], duplicates="group"))
    assert all(found[f"x{i}"] == found[f"{i:02}"] for i in range(12))


def test_blank_images_are_not_near_each_other() -> None:
    blank: Images = {f"blank{i}": np.full((16, 16, 3), 3 * i, np.uint8) for i in range(4)}
    made = domain([*PLAIN, *(item(key) for key in blank)], blank, duplicates="drop")
    assert list(find_duplicates(made.listing, made.decoded.records).groups()) == []


def test_unreadable_images_are_no_duplicates() -> None:
    bad: Images = {"bad1": b"text", "bad2": b"text"}
    made = domain([*PLAIN, *(item(key) for key in bad)], bad, duplicates="drop", conflicts="drop")
    assert "left out" not in split_of(made).values()


def test_one_group_of_most_images_is_reported() -> None:
    alike: Images = {f"n{i:02}": brighter(0, i % 3) for i in range(30)}
    made = domain([*PLAIN, *(item(key) for key in alike)], alike, duplicates="group")
    assert any('"keep"' in line for line in warned(made, "duplicates"))


def test_a_class_that_loses_all_of_its_images_is_refused() -> None:
    items = [*PLAIN, item("c1", "c", where="c"), item("c2", "a", where="c")]
    with raises(BadInput, "train lacks 1 of 3 classes: c"):
        _ = domain(items, {"c": blob(99)}, conflicts="drop").index


def test_known_images_keep_their_split_with_their_copies() -> None:
    before = domain(PLAIN, duplicates="group")
    after = domain([*PLAIN, *COPIES], duplicates="group").keeping(before.assigned)
    found = split_of(after)
    assert split_of(before).items() <= found.items()
    assert all(found[f"copy{i:02}"] == found[f"{i:02}"] for i in range(12))


@pytest.mark.parametrize("setting", ["duplicates", "conflicts"])
def test_an_unknown_value_is_refused(setting: str) -> None:
    given: dict[str, Any] = {setting: "remove"}
    with raises(BadInput, got="remove", available=["keep"]):
        domain(PLAIN, **given)


def test_numbers_and_tags_are_labels_too() -> None:
    tasks = (Task("tags", "multilabel"), Task("price", "regress"))
    rows: list[tuple[str, tuple[str, ...], float | None, str]] = [
        ("0", ("x",), 1.0, "00"),
        ("1", ("x",), 1.0, "00"),  # the same
        ("2", ("x", "y"), 1.0, "00"),  # other tags
        ("3", ("x",), 2.0, "00"),  # another number
        ("4", ("x",), None, "00"),
        ("5", ("x",), None, "00"),  # the same as 4
    ]
    more = [(f"m{i}", ("x", "y"), float(i), f"{i + 1:02}") for i in range(20)]
    items = [
        Item(key, where, key, labels={"tags": tags, "price": price})
        for key, tags, price, where in [*rows, *more]
    ]
    made = Domain("d", Fake(tasks, items, IMAGES), size=16, duplicates="drop")
    found = split_of(made)
    assert [key for key in found if found[key] == "left out"] == ["1", "5"]
    assert len({found[key] for key in "0234"}) == 1
