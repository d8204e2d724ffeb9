"""Lists of pairs and torch datasets as sources: labels, keys, splits, and messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomCrop, ToTensor

from onetrunk.data.domain import Domain
from onetrunk.data.objects.images import digest_of
from onetrunk.errors import BadInput
from tests.data.objects.files import Pair, photos
from tests.helpers.errors import raises
from tests.helpers.fakes import encoded, picture


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """Twenty paths of each of two classes, relative to the current folder."""
    monkeypatch.chdir(tmp_path)
    return photos(tmp_path)


def opened(source: object, **settings: Any) -> Domain:
    return Domain("shop", source, size=8, **settings)


def labels_of(domain: Domain, task: str = "classify") -> list[int]:
    """The labels of all images in the order of their keys."""
    return [int(label) for label in domain.index.labels[task]]


def test_paths_give_the_splits_and_pixels_of_a_folder_source(pairs: list[Pair]) -> None:
    listed, folder = opened(pairs), opened("folder:.", base="photos")
    assert listed.tasks == folder.tasks
    assert list(listed.index.keys) == [f"photos/{key}" for key in folder.index.keys]
    assert listed.pixels.size == folder.pixels.size
    # the key is the path below `base`, so the same base gives the same splits
    below = [(path.removeprefix("photos/"), label) for path, label in pairs]
    same = opened(below, base="photos")
    assert list(same.index.keys) == list(folder.index.keys)
    assert same.index.split.tolist() == folder.index.split.tolist()
    assert same.stats("train") == folder.stats("train")
    assert labels_of(same) == labels_of(folder)


def test_full_paths_lie_anywhere(pairs: list[Pair], tmp_path: Path) -> None:
    full = [(tmp_path / path, label) for path, label in pairs]
    assert list(opened(full).index.keys) == list(opened(pairs).index.keys)
    other = opened(full, base=tmp_path / "elsewhere")
    assert str(other.index.keys[0]) == (tmp_path / pairs[0][0]).as_posix()


FORMS: dict[str, Callable[[Path], Any]] = {
    "picture": lambda path: Image.open(path).copy(),
    "array": lambda path: np.asarray(Image.open(path)),
    "tensor": lambda path: torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1),
    "floats": lambda path: torch.from_numpy(np.asarray(Image.open(path)) / 255).permute(2, 0, 1),
    "bytes": lambda path: path.read_bytes(),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_memory_have_the_pixels_of_their_files(form: str, pairs: list[Pair]) -> None:
    inside = opened([(FORMS[form](Path(path)), label) for path, label in pairs])
    assert sum(len(split) for split in inside.splits.values()) == len(pairs)
    files = opened(pairs)
    assert sorted(labels_of(inside)) == sorted(labels_of(files))
    mean = inside.decoded.records["mean"].astype(float).mean(0)
    assert mean == pytest.approx(files.decoded.records["mean"].astype(float).mean(0), abs=1e-3)


def test_splits_of_images_in_memory_do_not_depend_on_positions(pairs: list[Pair]) -> None:
    images = [(np.asarray(Image.open(path)), label) for path, label in pairs]
    first, turned = opened(images), opened([*reversed(images)])
    assert list(turned.index.keys) == list(first.index.keys)
    assert turned.index.split.tolist() == first.index.split.tolist()
    assert turned.index.fingerprint == first.index.fingerprint
    assert opened(images[1:]).index.fingerprint != first.index.fingerprint


def test_equal_images_share_a_split() -> None:
    images = [(picture(i // 3), "ab"[i // 3 % 2]) for i in range(90)]
    domain = opened(images)
    split: dict[str, set[int]] = {}
    for key, code in zip(domain.index.keys, domain.index.split, strict=True):
        split.setdefault(key.partition("-")[0], set()).add(int(code))
    assert len(split) == 30
    assert all(len(codes) == 1 for codes in split.values())


def test_a_mapping_gives_the_splits(pairs: list[Pair]) -> None:
    chance = np.random.default_rng(0)
    order = [pairs[i] for i in chance.permutation(len(pairs))]
    images = [(np.asarray(Image.open(path)), label) for path, label in order[30:]]
    domain = opened({"train": order[:20], "validation": order[20:30], "test": images})
    assert [len(split) for split in domain.splits.values()] == [20, 10, 10]
    assert domain.tasks[0].classes == ("cat", "dog")
    with raises(BadInput, got="shop, test", available=["train", "val", "test"]):
        _ = opened({"shop": pairs, "test": pairs}).index
    with raises(BadInput, got="train, training"):
        _ = opened({"train": pairs, "training": pairs}).index
    floats = [(path, 0.5) for path, _ in pairs]
    with raises(BadInput, "test", got="regress (regress)", available=["classify (classify)"]):
        _ = opened({"train": pairs, "test": floats}).index


def test_a_split_that_has_splits_itself_is_refused(pairs: list[Pair]) -> None:
    both = {"train": pairs[:30], "test": pairs[30:]}
    with raises(BadInput, "train", got="a source with test and train"):
        _ = opened({"train": both, "test": pairs[30:]}).index
    assert len(opened({"train": {"train": pairs[:30]}, "test": pairs[30:]}).test) == 10


def test_images_in_train_and_test_are_counted(pairs: list[Pair], tmp_path: Path) -> None:
    same = opened({"train": pairs, "test": pairs[10:]})
    (line,) = [line for line in same.warnings() if "also in train" in line]
    assert "30 of 30 test images" in line and pairs[10][0] in line
    assert any(line in note for note in same.notes())
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(pairs[0][0]).read_bytes())
    other = opened({"train": pairs[:30], "test": [*pairs[30:], (str(copy), "cat")]})
    (line,) = [line for line in other.warnings() if "also in train" in line]
    assert "1 of 11 test images" in line and "copy.png" in line
    apart = opened({"train": pairs[:30], "test": pairs[30:]})
    assert not [line for line in apart.warnings() if "also in train" in line]


@pytest.mark.parametrize("values", [("x", "y"), (1, 2), (0.5, 1.5), ([0.5, 1.0], [1.0, 2.0])])
def test_nan_is_no_label_and_counted(values: Any) -> None:
    gap = [math.nan, math.nan] if isinstance(values[0], list) else math.nan
    things = [(picture(i), gap if i % 4 == 0 else values[i % 2]) for i in range(80)]
    domain = opened(things)
    assert domain.tasks == opened([(i, None if v is gap else v) for i, v in things]).tasks
    assert any("20 of 80 images have no label" in line for line in domain.notes())


LABELS: dict[str, tuple[Callable[[int], Any], str, Any]] = {
    "numbers of classes": (lambda i: 9 + i % 2, "classify", ("9", "10")),
    "numpy's numbers": (lambda i: np.int64(i % 2), "classify", ("0", "1")),
    "tensors": (lambda i: torch.tensor(i % 2), "classify", ("0", "1")),
    "lists": (lambda i: ["x", "y"][: 1 + i % 2], "multilabel", ("x", "y")),
    "sets": (lambda i: {"x"} if i % 2 else {"y", "x"}, "multilabel", ("x", "y")),
    "floats": (lambda i: i / 2, "regress", 1),
    "vectors": (lambda i: np.array([i / 2, 1.0]), "regress", 2),
    "whole numbers among floats": (lambda i: i / 2 if i % 2 else i, "regress", 1),
}


@pytest.mark.parametrize("case", LABELS)
def test_tasks_follow_from_the_labels(case: str) -> None:
    make, kind, found = LABELS[case]
    (task,) = opened([(picture(i), make(i)) for i in range(40)]).tasks
    assert (task.name, task.kind) == (kind, kind)
    assert (task.outputs if kind == "regress" else task.classes) == found


def test_dictionaries_are_labels_of_several_tasks() -> None:
    things = [
        (picture(i), {"what": "ab"[i % 2], "price": None if i % 5 == 0 else i / 2})
        for i in range(40)
    ]
    domain = opened(things)
    assert [(t.name, t.kind) for t in domain.tasks] == [("what", "classify"), ("price", "regress")]
    assert int(np.isnan(domain.index.labels["price"]).sum()) == 8
    tasks = {"what": "classify", "price": "regress"}
    assert opened(things, tasks=tasks).tasks == domain.tasks
    with raises(BadInput, "item 0", try_="'what': …"):
        _ = opened([(picture(i), i % 2) for i in range(40)], tasks=tasks).index


def test_tasks_can_be_named() -> None:
    things = [(picture(i), i % 3) for i in range(40)]
    (task,) = opened(things, tasks=["regress"]).tasks
    assert task.kind == "regress"
    (task,) = opened(things, tasks={"kind": {"kind": "classify", "classes": [2, 1, 0]}}).tasks
    assert task.classes == ("2", "1", "0")


def test_image_folders_are_read_from_their_files(pairs: list[Pair]) -> None:
    folder = ImageFolder("photos", transform=RandomCrop(4))
    domain = opened(folder)
    assert list(domain.index.keys) == [path for path, _ in pairs]
    assert domain.index.split.tolist() == opened(pairs).index.split.tolist()
    assert domain.tasks[0].classes == ("cat", "dog")
    assert any("transform" in note for note in domain.index.warnings)
    half = Subset(Subset(folder, list(range(0, 40, 2))), list(range(15)))
    assert list(opened(half).index.keys) == sorted(pairs[2 * i][0] for i in range(15))


class Turned(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """Counts its classes from the end."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = super().__getitem__(index)
        return image, len(self.classes) - 1 - label


class Grey(Dataset[tuple[Any, Any]]):
    """A user's dataset with the samples of an ImageFolder, and labels of its own."""

    def __init__(self, folder: ImageFolder) -> None:
        self.samples = folder.samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.open(self.samples[index][0]).convert("L"), "even" if index % 2 else "odd"


def test_a_dataset_with_items_of_its_own_is_not_read_from_its_files(pairs: list[Pair]) -> None:
    def label(domain: Domain, path: str) -> str:
        """The class of the image that has the pixels of a file."""
        key, _ = next((k, p) for k, p in keys(domain).items() if p == path)
        at = list(domain.index.keys).index(key)
        return domain.tasks[0].classes[labels_of(domain)[at]]

    def keys(domain: Domain) -> dict[str, str]:
        known = {digest_of(Path(path)): path for path, _ in pairs}
        return {key: known[key] for key in domain.index.keys}

    first = pairs[0][0]
    assert label(opened(Turned("photos")), first) == "dog"
    targets = ImageFolder("photos", target_transform=lambda number: 7 - number)
    assert label(opened(targets), first) == "7"
    assert opened(targets).index.notes != opened(Turned("photos")).index.notes
    half = Subset(targets, list(range(0, 40, 2)))
    assert opened(half).tasks[0].classes == ("6", "7")
    loaded = ImageFolder("photos", loader=lambda path: Image.open(path).convert("RGB").rotate(90))
    turned = digest_of(np.rot90(np.asarray(Image.open(first))))
    assert turned in opened(loaded).index.keys
    assert opened(Grey(ImageFolder("photos"))).tasks[0].classes == ("even", "odd")


class Noise(Dataset[tuple[Any, Any]]):
    """Images of noise; `random` makes other ones each time."""

    classes = ("quiet", "loud")

    def __init__(self, random: bool = False) -> None:
        self.random, self.reads = random, 0

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.reads += 1
        seed = 1000 * self.reads if self.random else index
        if not self.random and index == 7:
            raise OSError("a broken file")
        return ToTensor()(picture(seed)), index % 2


def test_datasets_are_read_item_by_item() -> None:
    domain = opened(Noise())
    assert domain.tasks[0].classes == ("quiet", "loud")
    assert sum(len(split) for split in domain.splits.values()) == 39
    assert sum(len(domain.bad(split)) for split in domain.splits) == 1
    assert any("read once" in note for note in domain.index.warnings)
    tensors = TensorDataset(torch.rand(40, 3, 8, 8), torch.arange(40) % 2)
    assert opened(tensors).tasks[0].classes == ("0", "1")


def test_a_dataset_with_random_transforms_is_refused() -> None:
    with raises(BadInput, try_="augment"):
        _ = opened(Noise(random=True)).index


class Changing(Dataset[tuple[Any, Any]]):
    """Forty images; `image` returns one of them, given its place and how many were read before."""

    def __init__(self, image: Callable[[int, int], Any]) -> None:
        self.image, self.reads = image, 0

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.reads += 1
        return self.image(index, self.reads - 1), index % 2


def test_a_transform_that_changes_few_images_is_found() -> None:
    chance = np.random.default_rng(0).random(10_000) < 0.1

    def flipped(index: int, reads: int) -> Any:
        return picture(index)[:, ::-1] if chance[reads] else picture(index)

    with raises(BadInput, "the same image", try_="augment"):
        _ = opened(Changing(flipped)).index
    # an item that changes later than it is listed
    late = opened(Changing(lambda index, reads: picture(index if reads < 80 else 99)))
    assert len(late.index) == 40
    with raises(BadInput, "the same image", try_="augment"):
        _ = late.decoded


class Rows(Dataset[Any]):
    """A dataset of dictionaries, which has a length and no IndexError after it."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert index < len(self)
        return {"picture": picture(index), "class": index % 4}


def test_a_dataset_of_dictionaries_is_refused_without_reading_beyond_its_end() -> None:
    with raises(
        BadInput,
        "item 0",
        got="a dictionary with picture, class",
        try_="(row['picture'], row['class'])",
    ):
        _ = opened(Rows()).index


def test_a_missing_file_is_counted_and_all_missing_refused(pairs: list[Pair]) -> None:
    domain = opened([*pairs, ("photos/nowhere.png", "cat")])
    assert any("photos/nowhere.png" in note for note in domain.index.warnings)
    assert sum(len(domain.bad(split)) for split in domain.splits) == 1
    with raises(BadInput, "3", try_="base=FOLDER"):
        _ = opened([(f"nowhere/{i}.png", "cat") for i in range(3)]).index


WRONG: dict[str, tuple[Callable[[list[Pair]], Any], str]] = {
    "a label of another type": (lambda p: [(p[0][0], object())], "object"),
    "labels of two kinds": (lambda p: [*p[:5], (p[6][0], ["a"])], "['a']"),
    "a row as a dictionary": (lambda p: [{"image": a, "label": b} for a, b in p], "dictionary"),
    "a path alone": (lambda p: [a for a, _ in p], "str"),
    "three values": (lambda p: [(a, b, 1) for a, b in p], "3 values"),
    "images, labels": (lambda p: ([a for a, _ in p], [b for _, b in p]), "zip"),
    "of different lengths": (lambda p: ([a for a, _ in p], [b for _, b in p[1:]]), "40 and 39"),
    "no labels": (lambda p: [(a, None) for a, _ in p], "unlabelled:"),
    "an empty list": (lambda _: [], "at least one"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_items_are_named(case: str, pairs: list[Pair]) -> None:
    make, word = WRONG[case]
    with pytest.raises(BadInput, match=r"item|expected|label") as info:
        _ = opened(make(pairs)).index
    assert word in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "thing",
    [3, object(), b"png", np.zeros((3, 8, 8, 3)), torch.zeros(3, 3, 8, 8), iter([]), {1, 2}],
    ids=lambda thing: type(thing).__name__,
)
def test_other_objects_are_refused_at_once(thing: object) -> None:
    with raises(
        BadInput,
        got=type(thing).__name__,
        available=["a list of (image, label)"],
        place="domains.shop",
    ):
        Domain("shop", thing)


@pytest.mark.parametrize(
    ("image", "fact"),
    [
        (np.full((8, 8, 3), 254.0), "254"),
        (np.zeros((3, 20, 20), np.uint8), "(3, 20, 20)"),
        (3.5, "float"),
    ],
)
def test_images_that_cannot_be_read_are_named_and_not_their_labels(image: Any, fact: str) -> None:
    with raises(BadInput, "item 0", fact, try_="0 to 1") as error:
        _ = opened([(image, "ab"[i % 2]) for i in range(40)]).index
    assert "label" not in str(error.value)


def test_an_unreadable_image_is_counted() -> None:
    things = [(encoded(picture(i)), i % 2) for i in range(60)]
    things[3] = (b"not an image", 1)
    domain = opened(things)
    assert sum(len(domain.bad(split)) for split in domain.splits) == 1
