"""Dataset classes of torchvision, on files in their real formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onetrunk.data.pixels import BadImage
from onetrunk.errors import BadInput, Failed
from tests.helpers.errors import raises


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    class Offline:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise OSError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", Offline)


def test_mnist_from_its_idx_files(built: Any, opened: Any) -> None:
    source = opened(built("torchvision"))
    items = list(source.items())
    assert source.tasks[0].classes[:2] == ("0 - zero", "1 - one")
    assert [i.split for i in items] == ["train"] * 5 + ["test"] * 3
    assert items[2].labels == {"classify": "2 - two"}
    assert items[2].key == "train/2"
    picture = source.image(items[2].where)
    assert isinstance(picture, Image.Image)
    assert picture.size == (28, 28)


def test_the_checksum_of_the_pixels_is_the_stamp(built: Any, opened: Any, tmp_path: Path) -> None:
    name = built("torchvision")
    before = [i.stamp for i in opened(name).items()]
    path = tmp_path / "data/MNIST/raw/train-images-idx3-ubyte"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the last training image
    path.write_bytes(bytes(data))
    after = [i.stamp for i in opened(name).items()]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * 4 + [False] + [True] * 3


def test_class_folders_in_splits(photo: Any, opened: Any, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        for name in ("AD", "ZW"):
            photo(tmp_path / "geo/country211" / split / name / "1.jpg")
    items = list(opened("torchvision:country211:geo").items())
    assert [i.split for i in items] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert items[2].key == "val/country211/valid/AD/1.jpg"
    assert items[3].labels == {"classify": "ZW"}


def test_lists_of_files_in_splits(photo: Any, opened: Any, tmp_path: Path) -> None:
    home = tmp_path / "data/dtd/dtd"
    (home / "labels").mkdir(parents=True)
    for split in ("train", "val", "test"):
        names = ["banded/banded_1.jpg", "zigzagged/zigzagged_1.jpg"]
        names = [name.replace("1", split) for name in names]
        (home / "labels" / f"{split}1.txt").write_text("\n".join(names) + "\n")
        for name in names:
            photo(home / "images" / name)
    source = opened("torchvision:DTD")
    items = list(source.items())
    assert source.tasks[0].classes == ("banded", "zigzagged")
    assert [i.split for i in items] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert isinstance(source.image(items[0].where), Path)


def test_no_splits_at_all(photo: Any, opened: Any, tmp_path: Path) -> None:
    for name in ("Forest", "River"):
        photo(tmp_path / "data/eurosat/2750" / name / f"{name}_1.jpg")
    items = list(opened("torchvision:EuroSAT").items())
    assert [(i.split, i.labels["classify"]) for i in items] == [(None, "Forest"), (None, "River")]


def test_classes_without_names(opened: Any, tmp_path: Path) -> None:
    """SVHN has neither `classes` nor files: numbers, and images out of an array."""
    scipy_io = pytest.importorskip("scipy.io")
    from torchvision.datasets import SVHN

    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        path = tmp_path / "data" / SVHN.split_list[split][1]
        images = np.zeros((32, 32, 3, 10), np.uint8)
        labels = np.arange(1, 11, dtype=np.uint8)[:, None]  # its files have 10 for the digit 0
        scipy_io.savemat(path, {"X": images, "y": labels})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
        source = opened("torchvision:SVHN")
    assert source.tasks[0].classes == tuple("0123456789")
    items = list(source.items())
    assert items[9].labels == {"classify": "0"}
    assert [i.split for i in items] == ["train"] * 10 + ["test"] * 10


def test_problems_are_named(opened: Any, tmp_path: Path) -> None:
    with raises(BadInput, got="MNST", available=["MNIST"]):
        opened("torchvision:MNST")
    with raises(BadInput, "torchvision:LSUN", "pickle"):
        opened("torchvision:LSUN")
    with raises(Failed, "torchvision:MNIST:nowhere", try_="torchvision.datasets.MNIST"):
        opened("torchvision:MNIST:nowhere")
    (tmp_path / "data/eurosat/2750/A").mkdir(parents=True)
    Image.new("RGB", (3, 3)).save(tmp_path / "data/eurosat/2750/A/1.jpg")
    with raises(BadInput, got="depth", available=["classify"]):
        opened("torchvision:EuroSAT", ["depth"])


def test_a_damaged_file_is_one_line(built: Any, opened: Any, tmp_path: Path) -> None:
    name = built("torchvision")
    path = tmp_path / "data/MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Failed) as caught:
        opened(name)
    assert "\n" not in str(caught.value)


class Pairs:
    """A dataset without lists of labels or paths."""

    class_to_idx: Mapping[str, int] = {"zebra": 1, "ape": 0}
    pairs: Sequence[tuple[Any, Any]] = ()

    def __init__(self, root: str) -> None:
        self.root = root

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        picture, label = self.pairs[index]
        if isinstance(picture, Exception):
            raise picture
        return picture, label


class OtherSplits(Pairs):
    def __init__(self, root: str, split: str = "extra") -> None:
        if split != "extra":
            raise ValueError(f"Unknown value {split!r} for argument split. Valid values are extra.")
        super().__init__(root)


class NeedsMore(Pairs):
    def __init__(self, root: str, year: int) -> None:
        super().__init__(root)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Offer a dataset class in torchvision with these pairs of pictures and labels."""
    from torchvision import datasets

    def offer(kind: type[Pairs], *pairs: tuple[Any, Any]) -> str:
        monkeypatch.setattr(kind, "pairs", pairs)
        monkeypatch.setattr(datasets, kind.__name__, kind, raising=False)
        monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, kind.__name__))
        return f"torchvision:{kind.__name__}"

    return offer


def test_without_a_list_of_labels_images_are_decoded(
    offered: Any, opened: Any, tmp_path: Path
) -> None:
    picture = Image.new("L", (4, 4))
    name = offered(Pairs, (picture, 1), (picture, np.int64(0)), (picture, -1))
    (tmp_path / "data").mkdir()
    source = opened(name)
    assert source.tasks[0].classes == ("ape", "zebra")  # in the order of their numbers
    items = list(source.items())
    assert [i.labels["classify"] for i in items] == ["zebra", "ape", None]
    assert any("images are decoded to list their labels" in note for note in source.notes)
    assert source.image(items[0].where) is picture
    (tmp_path / "data/more.bin").write_bytes(b"changed")
    stamps = [i.stamp for i in opened(name).items()]  # of all files, as the pixels are unknown
    assert all(a != b.stamp for a, b in zip(stamps, items, strict=True))


def test_pictures_that_cannot_be_read_are_bad_images(offered: Any, opened: Any) -> None:
    from torchvision import datasets

    broken = RuntimeError("truncated")
    name = offered(Pairs, (broken, 0), ("a text", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.Pairs, "targets", [0, 1], raising=False)
        source = opened(name)
    first, second = source.items()
    with pytest.raises(BadImage, match="truncated"):
        source.image(first.where)
    with pytest.raises(BadImage, match="expected a picture, got str"):
        source.image(second.where)


def test_wrong_labels_and_classes_are_refused(offered: Any, opened: Any) -> None:
    picture = Image.new("L", (4, 4))
    with raises(BadInput, "all/1", "outside the classes", got=2):
        list(opened(offered(Pairs, (picture, 0), (picture, 2))).items())
    with raises(BadInput, "one class per image", got="tuple"):
        list(opened(offered(Pairs, (picture, (0, 1)))).items())
    with raises(BadInput, "none of its splits"):
        opened(offered(OtherSplits, (picture, 0)))
    with raises(BadInput, "other arguments"):
        opened(offered(NeedsMore, (picture, 0)))
