"""The index: splits, groups and labels of a source, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from onetrunk.data.index import Index, read_index
from onetrunk.data.sources import Item, Label
from onetrunk.data.splitting import SPLITS, hash_of
from onetrunk.data.stratified import KnownSplits
from onetrunk.data.task import NO_CLASS, NO_LABEL, Kind, Task, read_tasks
from onetrunk.errors import BadInput
from tests.helpers.errors import raises
from tests.helpers.fakes import CLASSIFY, Fake, dense_source, labelled


def item(key: str, label: Label = "a", split: str | None = None, group: str | None = None) -> Item:
    return Item(key, key, "s", split, group, {"classify": label})


def read(*items: Item, task: Task = CLASSIFY[0], **more: Any) -> Index:
    renamed = [
        Item(i.key, i.where, i.stamp, i.split, i.group, {task.name: i.labels.get("classify")})
        for i in items
    ]
    return read_index(Fake((task,), renamed), "d", **more)


# named splits, so that nothing is cut from train
ELSEWHERE = (item("~val", None, "val"), item("~test", None, "test"))


def splits_of(index: Index) -> dict[str, str]:
    return {key: SPLITS[code] for key, code in zip(index.keys, index.split, strict=True)}


def refused(*items: Item, **more: Any) -> str:
    with pytest.raises(BadInput) as error:
        read(*items, **more)
    return str(error.value)


MANY = [item(f"photos/{i:05}.jpg") for i in range(4000)]


# splits by hash


def test_splits_by_hash_are_70_15_15() -> None:
    index = read(*MANY)
    assert np.bincount(index.split).tolist() == [2800, 600, 600]
    assert index.how == "70/15/15 by hash of the path"


def test_the_hash_of_a_name_is_pinned() -> None:
    # other numbers here would move every user's images into other splits
    assert hash_of("photos/00000.jpg") / 2**64 == pytest.approx(0.265750099041948, abs=1e-15)
    assert hash_of("ø") / 2**64 == pytest.approx(0.2328826202882475, abs=1e-15)


def test_every_class_is_divided_by_itself() -> None:
    counts = {"a": 34, "b": 34, "c": 100, "d": 10, "e": 3, "f": 2, "g": 1}
    items = [item(f"{c}/{i}", c) for c, count in counts.items() for i in range(count)]
    index = read(*items)
    found = splits_of(index)
    by_class = {
        c: [sum(found[f"{c}/{i}"] == s for i in range(count)) for s in SPLITS]
        for c, count in counts.items()
    }
    assert by_class == {
        "a": [24, 5, 5],
        "b": [24, 5, 5],
        "c": [70, 15, 15],
        "d": [7, 1, 2],
        "e": [1, 1, 1],
        "f": [1, 0, 1],
        "g": [1, 0, 0],
    }
    assert index.how == "70/15/15 by hash of the path in each class"


def test_a_class_is_divided_alike_whatever_other_classes_there_are() -> None:
    some = [item(f"a/{i}", "a") for i in range(37)]
    other = [item(f"b/{i}", "b") for i in range(41)]
    before, after = splits_of(read(*some)), splits_of(read(*some, *other))
    assert {key: after[key] for key in before} == before


def test_images_without_a_label_are_a_class_of_their_own() -> None:
    items = [item(f"a{i}") for i in range(40)] + [item(f"n{i}", None) for i in range(40)]
    found = splits_of(read(*items))
    for letter in "an":
        counts = Counter(found[f"{letter}{i}"] for i in range(40))
        assert counts == {"train": 28, "val": 6, "test": 6}


def test_other_kinds_of_tasks_count_as_one_class() -> None:
    for kind in ("multilabel", "embed"):
        items = [item(f"{i}", "ab"[i % 2]) for i in range(40)]
        index = read(*items, task=Task("t", kind))
        assert np.bincount(index.split).tolist() == [28, 6, 6]
        assert index.how == "70/15/15 by hash of the path"


def test_few_old_images_move_when_files_are_added_and_hardly_any_from_train_to_test() -> None:
    items = [item(f"photos/{i:05}.jpg", "abcd"[i % 4]) for i in range(800)]
    before, after = splits_of(read(*items[:400])), splits_of(read(*items))
    moved = Counter((split, after[key]) for key, split in before.items() if split != after[key])
    assert 0 < moved.total() < 0.12 * 400
    assert moved["train", "test"] == moved["test", "train"] == 0


def test_known_images_keep_their_split_and_new_ones_fill_the_shares() -> None:
    items = [item(f"photos/{i:05}.jpg", "abcd"[i % 4]) for i in range(800)]
    before = read(*items[:400])
    after = read(*items, known=before.assigned)
    assert splits_of(before).items() <= splits_of(after).items()
    assert after.how.endswith("in each class; 400 images keep their earlier split")
    for c in range(4):
        counts = np.bincount(after.split[after.labels["classify"] == c])
        assert counts.tolist() == [140, 30, 30]
    none = read(*items[:400], known=KnownSplits.of(np.array([7], np.uint64), np.zeros(1, np.uint8)))
    assert splits_of(none) == splits_of(before)


def test_a_split_of_the_source_has_priority_over_a_known_one() -> None:
    items = [item(f"{i}") for i in range(40)]
    known = read(*items).assigned
    named = [item(f"{i}", split=("train", "test")[i % 2]) for i in range(40)]
    found = splits_of(read(*named, known=known))
    assert all(found[f"{i}"] == "test" for i in range(1, 40, 2))
    assert Counter(found[f"{i}"] for i in range(0, 40, 2)).keys() == {"train", "val"}


def test_the_order_of_listing_changes_nothing() -> None:
    forward, backward = read(*MANY[:50]), read(*MANY[49::-1])
    assert splits_of(forward) == splits_of(backward)
    assert list(forward.keys) == list(backward.keys)
    assert forward.fingerprint == backward.fingerprint


def test_groups_are_never_in_two_splits() -> None:
    items = [item(f"{i:04}.jpg", group=f"item {i // 5}") for i in range(1000)]
    index = read(*items)
    met: dict[str, set[int]] = {}
    for i, code in zip(items, index.split, strict=True):
        met.setdefault(str(i.group), set()).add(int(code))
    assert all(len(codes) == 1 for codes in met.values())
    assert set().union(*met.values()) == {0, 1, 2}
    assert index.how == "70/15/15 by hash of the group"
    assert np.bincount(index.split).tolist() == [700, 150, 150]


def test_groups_are_divided_by_the_class_of_most_of_their_images() -> None:
    items = [
        item(f"{g:03}-{i}", "b" if g % 2 and i else "a", group=f"g{g}")
        for g in range(60)
        for i in range(3)
    ]
    index = read(*items)
    assert index.how == "70/15/15 by hash of the group in each class"
    codes = index.split.reshape(60, 3)
    assert (codes == codes[:, :1]).all()
    for odd in (0, 1):  # groups of "a" alone, and groups of mostly "b"
        assert np.bincount(codes[odd::2, 0])[0] == 21
        assert set(np.bincount(codes[odd::2, 0])[1:].tolist()) <= {4, 5}


def test_a_large_group_is_trained_on() -> None:
    for name in "xyz":  # whatever its hash
        items = [item(f"{name}-{i}", group=name) for i in range(60)]
        items += [item(f"{i}") for i in range(40)]
        found = splits_of(read(*items))
        assert Counter(found.values()) == {"train": 70, "val": 15, "test": 15}
        assert found[f"{name}-0"] == "train"


def test_a_pattern_finds_the_group_in_the_path() -> None:
    items = [item(f"shop/{i:03}_{view}.jpg") for i in range(200) for view in range(4)]
    for pattern in (r"(\d+)_", r"\d+_"):
        found = splits_of(read(*items, group=pattern))
        for i in range(200):
            assert len({found[f"shop/{i:03}_{view}.jpg"] for view in range(4)}) == 1
    assert Counter(found.values())["val"] > 0


def test_paths_that_the_pattern_does_not_match_are_listed() -> None:
    items = [item(f"{i:03}_a.jpg") for i in range(20)] + [item("odd.jpg")]
    index = read(*items, group=r"(\d+)_")
    assert any("odd.jpg" in warning for warning in index.warnings)


@pytest.mark.parametrize("pattern", ["[", r"nothing(\d+)like this"])
def test_a_group_that_is_neither_column_nor_pattern_is_refused(pattern: str) -> None:
    line = refused(*MANY[:10], group=pattern)
    assert pattern.split("(")[0] in line
    assert "group" in line and "d: " in line


@pytest.mark.parametrize("pattern", ["id", "i(d)"])
def test_a_pattern_that_makes_one_group_is_refused(pattern: str) -> None:
    items = [item(f"kid/{i:03}.jpg") for i in range(10)]
    source = Fake(CLASSIFY, [*items, item("other.jpg")])
    source.columns = ("path", "ids")  # type: ignore[attr-defined]
    with raises(BadInput, "10 of 11", got=pattern, available=["path", "ids"]):
        read_index(source, "d", group=pattern)


def test_groups_of_the_source_have_priority_over_the_pattern() -> None:
    items = [item(f"{i:03}", group=f"g{i % 7}") for i in range(100)]
    assert splits_of(read(*items, group="item_id")) == splits_of(read(*items))


# splits that the source names


def test_splits_are_those_that_the_source_names() -> None:
    items = [item(f"{i}", split=SPLITS[i % 3]) for i in range(9)]
    index = read(*items)
    assert splits_of(index) == {f"{i}": SPLITS[i % 3] for i in range(9)}
    assert index.how == "from the source"


@pytest.mark.parametrize("lacking", [("val",), ("test",), ("val", "test")])
def test_missing_splits_are_cut_from_train_alone(lacking: tuple[str, ...]) -> None:
    named = [s for s in SPLITS if s not in lacking]
    items = [item(f"{s}/{i:04}", split=s) for s in named for i in range(2000)]
    index = read(*items)
    found = splits_of(index)
    for key, split in found.items():
        if not key.startswith("train"):
            assert key.startswith(split)  # nothing is taken from what is named
    counts = Counter(split for key, split in found.items() if key.startswith("train"))
    wanted = {"train": 0.70, **dict.fromkeys(lacking, 0.15)}
    for split, part in wanted.items():
        assert counts[split] / 2000 == pytest.approx(part / sum(wanted.values()), abs=3e-4)
    assert f"{' and '.join(lacking)} cut from train" in index.how


def test_a_cut_keeps_groups_together() -> None:
    items = [item(f"{i:04}", split="train", group=f"g{i // 4}") for i in range(800)]
    found = splits_of(read(*items))
    assert Counter(found.values()) == {"train": 560, "val": 120, "test": 120}
    for i in range(0, 800, 4):
        assert len({found[f"{j:04}"] for j in range(i, i + 4)}) == 1


def test_a_cut_takes_its_share_of_every_class() -> None:
    items = [item(f"{c}{i:03}", c, "train") for c in "abc" for i in range(40)]
    items += [item(f"test{c}", c, "test") for c in "abc"]
    index = read(*items)
    assert index.how == "from the source; val cut from train by hash of the path in each class"
    for c in range(3):
        assert np.bincount(index.split[index.labels["classify"] == c]).tolist() == [33, 7, 1]


@pytest.mark.parametrize("named", [("train",), ("train", "val"), SPLITS], ids=str)
def test_items_without_a_split_follow_their_group(named: tuple[str, ...]) -> None:
    items = []
    for g in range(300):
        items.append(item(f"{g:03}a", split=named[g % len(named)], group=f"g{g}"))
        items.append(item(f"{g:03}b", group=f"g{g}"))
    found = splits_of(read(*items))
    for g in range(300):
        assert found[f"{g:03}a"] == found[f"{g:03}b"]
        if named == SPLITS:
            assert found[f"{g:03}a"] == named[g % 3]


def test_items_without_a_split_are_split_by_hash_and_reported() -> None:
    items = [item(f"{i:04}", split="test" if i < 50 else None) for i in range(1000)]
    index = read(*items)
    assert set(list(splits_of(index).values())[:50]) == {"test"}
    assert np.bincount(index.split[50:]).tolist() == pytest.approx([665, 142.5, 142.5], abs=0.5)
    assert "items without a split 70/15/15" in index.how
    assert "cut from train" not in index.how


def test_groups_in_several_splits_of_the_source_are_refused() -> None:
    line = refused(item("a", split="train", group="g1"), item("b", split="test", group="g1"))
    assert "groups" in line
    assert "got: 'g1'" in line
    assert "; try: " in line


def test_an_unknown_split_is_refused_with_those_available() -> None:
    line = refused(item("a", split="train"), item("b", split="dev"))
    assert "'dev'" in line
    assert "train, val, test" in line


def test_a_source_without_a_train_split_is_refused() -> None:
    line = refused(item("a", split="val"), item("b", split="test"))
    assert "train" in line and "available: test, val" in line


# labels


def test_classes_are_the_names_that_occur_in_natural_order() -> None:
    names = ["10", "9", "b2", "b10", "a", "1", "02", "2", "img1x", "img01x"]
    index = read(*(item(f"{i}", name, "train") for i, name in enumerate(names)), *ELSEWHERE)
    assert index.tasks[0].classes == (
        *("1", "02", "2", "9", "10"),
        *("a", "b2", "b10", "img01x", "img1x"),
    )


def test_the_order_of_classes_does_not_depend_on_the_order_of_files() -> None:
    one = read(item("a", "1", "train"), item("b", "01", "train"), *ELSEWHERE)
    other = read(item("a", "01", "train"), item("b", "1", "train"), *ELSEWHERE)
    assert one.tasks[0].classes == other.tasks[0].classes


def test_a_class_of_thousands_of_digits_is_only_a_name() -> None:
    index = read(item("a", "9" * 5000, "train"), item("b", "8", "train"), *ELSEWHERE)
    assert index.tasks[0].classes[0] == "8"


def test_labels_are_positions_in_the_classes() -> None:
    items = [item(f"{i}", name, "train") for i, name in enumerate(["cat", "ant", None, "cat"])]
    index = read(*items, *ELSEWHERE)
    assert index.tasks[0].classes == ("ant", "cat")
    assert index.labels["classify"].tolist() == [1, 0, NO_CLASS, 1, NO_CLASS, NO_CLASS]


def test_the_users_own_classes_keep_their_order() -> None:
    task = Task("classify", "classify", ("cat", "ant"))
    index = read(item("0", "cat", "train"), item("1", "ant", "train"), *ELSEWHERE, task=task)
    assert index.labels["classify"].tolist() == [0, 1, NO_CLASS, NO_CLASS]


def test_a_label_outside_the_classes_is_refused_with_its_file() -> None:
    task = Task("classify", "classify", ("cat", "ant"))
    line = refused(item("0", "cat"), item("1", "ant"), item("2.jpg", "cow"), task=task)
    assert "2.jpg" in line
    assert "'cow'" in line
    assert "cat, ant" in line
    assert "; try: " in line
    assert "\n" not in line


def test_two_classes_for_a_classification_are_refused() -> None:
    line = refused(item("0.jpg", ("a", "b"), "train"), item("1", "a", "train"))
    assert "0.jpg" in line
    assert "multilabel" in line


def test_several_labels_become_a_row_of_zeros_and_ones() -> None:
    task = Task("tags", "multilabel")
    labels = [("red", "big"), (), None, ("red",), "big"]
    items = [item(f"{i}", x, "train") for i, x in enumerate(labels)]
    index = read(*items, *ELSEWHERE, task=task)
    assert index.tasks[0].classes == ("big", "red")
    none = [NO_LABEL, NO_LABEL]
    expected = [[1, 1], [0, 0], none, [0, 1], [1, 0], none, none]
    assert index.labels["tags"].tolist() == expected


def test_numbers_are_kept_and_none_becomes_nan() -> None:
    task = Task("price", "regress")
    items = [item(f"{i}", x, "train") for i, x in enumerate([1.5, None, 2])]
    index = read(*items, *ELSEWHERE, task=task)
    assert index.tasks[0].outputs == 1
    np.testing.assert_array_equal(index.labels["price"][:3], [[1.5], [np.nan], [2]])
    pair = read(item("0", (1.0, 2.0), "train"), *ELSEWHERE, task=task)
    assert pair.tasks[0].outputs == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), (1.0, 2.0), 1e300], ids=str)
def test_an_invalid_number_is_refused_with_its_file(bad: Label) -> None:
    items = [item("0", (1.0, 2.0, 3.0), "train"), item("1.jpg", bad, "train")]
    if not isinstance(bad, tuple):
        items[0] = item("0", 1.0, "train")
    line = refused(*items, task=Task("price", "regress"))
    assert "1.jpg" in line
    assert "finite" in line


def test_a_task_of_two_outputs_does_not_become_one_of_three() -> None:
    task = Task("place", "regress", outputs=2)
    assert "outputs = 3" in refused(item("0", (1.0, 2.0, 3.0), "train"), task=task)


@pytest.mark.parametrize("kind", ["classify", "multilabel", "regress", "embed"])
def test_a_task_without_any_label_in_train_is_refused(kind: Kind) -> None:
    task = Task("t", kind)
    label = 1.0 if kind == "regress" else "a"
    items = [item("0", None, "train"), item("1", label, "test"), item("2", label, "val")]
    line = refused(*items, task=task)
    assert "train" in line
    assert "; try: " in line
    nothing = refused(item("0", None, "train"), item("1", None, "test"), task=task)
    assert "train has no labelled image" in nothing


def test_classes_of_one_image_are_trained_on() -> None:
    index = read(*(item(f"{c}.png", c) for c in "abcdefghij"))
    assert set(splits_of(index).values()) == {"train"}
    assert not any("moved" in line for line in index.warnings)


def held_out(*items: Item, **more: Any) -> list[str]:
    """Return the keys of the images that are not in train."""
    return [key for key, split in splits_of(read(*items, **more)).items() if split != "train"]


def test_the_image_of_a_tag_with_the_smallest_hash_is_moved_to_train() -> None:
    items = [item(f"{i}.png", ("a",)) for i in range(40)]
    tags = Task("tags", "multilabel")
    far = held_out(*items, task=tags)
    rare = [item(i.key, ("a", "b") if i.key in far else ("a",)) for i in items]
    index = read(*rare, task=tags)
    (line,) = [line for line in index.warnings if "moved" in line]
    assert line.endswith(": b")
    assert {*far} - {*held_out(*rare, task=tags)} == {min(far, key=hash_of)}


def test_a_group_is_moved_to_train_together() -> None:
    items = [item(f"{g}-{i}", group=f"g{g}") for g in range(20) for i in range(3)]
    far = held_out(*items)[0].split("-")[0]  # its first image gets a class of its own
    rare = [item(i.key, "b" if i.key == f"{far}-0" else "a", group=i.group) for i in items]
    found = splits_of(read(*rare))
    assert {found[f"{far}-{i}"] for i in range(3)} == {"train"}


def test_a_class_that_the_source_puts_in_test_alone_is_not_moved() -> None:
    named = [item(f"{s}a", "a", s) for s in SPLITS]
    assert "train lacks 1 of 2 classes: b" in refused(*named, item("1", "b", "test"))
    one = read(*named, item("z", "b"))  # without a split
    assert splits_of(one)["z"] == "train"


def test_a_class_missing_from_train_is_an_error_from_val_or_test_a_warning() -> None:
    items = [item(f"{s}{c}", c, s) for s in SPLITS for c in "ab"]
    assert read(*items).warnings == []
    without = [i for i in items if i.key != "trainb"]
    line = refused(*without)
    assert "train lacks 1 of 2 classes: b" in line
    assert "; try: " in line
    index = read(*(i for i in items if i.key != "testb"))
    assert index.warnings == ["task classify: test lacks 1 of 2 classes: b"]


def test_all_problems_are_reported_together_one_per_line() -> None:
    items = [
        Item("0", "0", "s", "train", "g", {"a": "x", "b": (1.0, 2.0)}),
        Item("1", "1", "s", "test", "g", {"a": "y", "b": 1.0}),
        Item("1", "1", "s", "test", None, {"a": "y", "b": 1.0}),
    ]
    tasks = (Task("a", "classify", ("x",)), Task("b", "regress"))
    with pytest.raises(BadInput) as error:
        read_index(Fake(tasks, items), "shop")
    lines = str(error.value).split("\n")
    assert len(lines) == 4
    assert all(line.startswith("shop: ") for line in lines)
    for word in ("twice", "groups", "outside the classes", "finite"):
        assert sum(word in line for line in lines) == 1


def test_a_source_without_images_is_refused() -> None:
    assert "no images" in refused()


def test_a_source_without_a_task_is_refused() -> None:
    with raises(BadInput, "d: ", "task", try_="--task NAME=KIND"):
        read_index(Fake((), [item("0")]), "d")


def test_a_task_that_the_source_lacks_is_refused_with_those_available() -> None:
    for tasks in (["regress"], {"classify": "embed"}):
        with raises(BadInput, available=["classify (classify)"]):
            read_index(Fake(CLASSIFY, labelled(4)), "d", read_tasks(tasks))


def test_classes_of_a_map_are_never_renamed() -> None:
    source = dense_source()
    tasks = (Task("segment", "segment", ("floor", "wall", "item")),)
    with raises(BadInput, "task segment", available=["wall", "floor", "item"]):
        read_index(source, "d", tasks)
    same = read_index(source, "d", (Task("segment", "segment", ("wall", "floor", "item")),))
    assert same.tasks[0].classes == ("wall", "floor", "item")
    assert read_index(source, "d", (Task("segment", "segment"),)).tasks == same.tasks


def test_the_fingerprint_changes_with_keys_and_stamps_alone() -> None:
    plain = read(*MANY[:10]).fingerprint
    assert read(*(item(i.key, "b", "train") for i in MANY[:10])).fingerprint == plain
    assert read(*MANY[:9]).fingerprint != plain
    touched = Item(MANY[0].key, "w", "other", labels={"classify": "a"})
    assert read(touched, *MANY[1:10]).fingerprint != plain


def test_notes_of_the_source_become_warnings() -> None:
    source = Fake(CLASSIFY, labelled(4), notes=["passed over: 3 files"])
    assert "passed over: 3 files" in read_index(source, "d").warnings
    assert source.notes == ["passed over: 3 files"]
