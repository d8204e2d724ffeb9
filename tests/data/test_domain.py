"""A domain: its settings, its images, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onetrunk.data.augment import Augment
from onetrunk.data.check_domains import check_domains
from onetrunk.data.domain import IMAGENET, SIZE, Domain
from onetrunk.data.pixels import Raw
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from tests.helpers.errors import raises
from tests.helpers.fakes import (
    CLASSIFY,
    Fake,
    Files,
    dense_source,
    encoded,
    labelled,
    picture,
    png_header,
    small,
)


def torn(count: int, bad: int, **more: Any) -> Domain:
    """Return a domain of one class with `bad` unreadable images among its training images."""
    items = labelled(count, ("a",), ("train",)) + [
        type(labelled(1)[0])(f"z{s}", "0", s, s, labels={"classify": "a"}) for s in ("val", "test")
    ]
    images = {str(i): b"a text" for i in range(1, bad + 1)}
    return Domain("shop", Fake(CLASSIFY, items, images), size=4, **more)


@pytest.mark.parametrize(
    ("count", "bad", "refused"),
    [
        (50, 3, False),
        (50, 4, True),
        (300, 3, False),
        (300, 4, True),
        (400, 4, False),
        (400, 5, True),
    ],
)
def test_more_bad_images_than_1_percent_and_3_are_refused(
    count: int, bad: int, refused: bool
) -> None:
    if not refused:
        assert len(torn(count, bad).train) == count - bad
        return
    fix = "allow_bad=True"
    with raises(BadInput, f"{bad} of {count} train images", "0001.png", try_=fix) as error:
        _ = torn(count, bad).train
    assert "ot.inspect(domain).unreadable" in str(error.value.try_)
    assert "\n" not in str(error.value)
    assert len(torn(count, bad, allow_bad=True).train) == count - bad


def test_bad_images_are_skipped_counted_and_listed() -> None:
    domain = torn(50, 3)
    assert [domain.index.keys[i] for i in domain.bad("train")] == [f"000{i}.png" for i in (1, 2, 3)]
    assert len(domain.bad("val")) == 0
    assert len(domain.good("train")) == 47


def test_a_class_with_unreadable_images_alone_is_refused() -> None:
    items = labelled(40, ("a",), ("train", "val", "test"))
    items.append(type(items[0])("odd.png", "odd", "s", "train", labels={"classify": "b"}))
    domain = Domain("shop", Fake(CLASSIFY, items, {"odd": b"text"}), size=4, allow_bad=True)
    with raises(BadInput, "readable", "train lacks 1 of 2 classes: b"):
        _ = domain.train


def test_a_domain_without_a_readable_image_is_refused() -> None:
    everything = {str(i): b"a text" for i in range(24)}
    with raises(BadInput, "d: ", "train images", try_="ot.inspect(domain)"):
        _ = Domain("d", small(24, images=everything), size=4, allow_bad=True).pixels


def test_bad_files_in_a_folder_are_counted(tmp_path: Path) -> None:
    for i in range(60):
        path = tmp_path / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(picture(i)))
    bad = {
        "a/text.jpg": b"a text",
        "a/cut.png": encoded(picture(1, 60, 60))[:2000],
        "b/huge.png": png_header(30_000, 30_000),
        "b/empty.png": b"",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a/dangling.jpg").symlink_to("nowhere.jpg")
    domain = Domain("shop", Files(tmp_path), size=8, allow_bad=True)
    found = {domain.index.keys[row]: why for row, why in domain.decoded.reasons.items()}
    assert set(found) == {*bad, "a/dangling.jpg"}
    assert "pixels" in found["b/huge.png"]
    assert sum(len(part) for part in domain.splits.values()) == 60


# names


@pytest.mark.parametrize("name", ["Shop", "a b", "", "../x", "-x"])
def test_the_name_of_a_domain_can_be_the_name_of_a_file(name: str) -> None:
    with raises(BadInput, "name of a domain", got=name):
        Domain(name, small())


def test_two_domains_of_one_name_are_refused_and_all_problems_listed() -> None:
    given = [Domain("a", small()), Domain("b", small()), Domain("a", small()), torn(50, 9)]
    with pytest.raises(BadInput) as error:
        check_domains(given)
    names, unreadable = error.value.errors
    assert "name a" in names.expected
    assert "shop: 9 of 50" in unreadable.expected
    check_domains(given[:2])


# settings and sources


def test_images_are_read_when_they_are_first_needed() -> None:
    class Sealed:
        tasks: tuple[Task, ...] = CLASSIFY

        def items(self) -> Iterator[Item]:
            raise AssertionError("the source was listed")

        def image(self, where: str) -> Raw:
            raise AssertionError("an image was read")

        def target(self, where: str, task: str) -> np.ndarray | None:
            raise AssertionError("a target was read")

    domain = Domain("d", Sealed(), size=9)
    assert domain.shape.size == (9, 9)
    assert repr(domain).startswith("Domain('d'")


def test_a_domain_without_a_source_has_tasks_and_a_size() -> None:
    domain = Domain("d", tasks=[Task("classify", "classify", ("a", "b"))], size=(8, 9))
    assert domain.tasks[0].classes == ("a", "b")
    assert domain.pixels.size == (8, 9)
    assert (domain.pixels.mean, domain.pixels.std) == IMAGENET
    with raises(BadInput, "domain d", "no source", try_="Domain("):
        _ = domain.train
    with raises(BadInput, "domain d", "tasks", try_="Domain("):
        _ = Domain("d").tasks


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, (SIZE, SIZE)), (9, (9, 9)), ((8, 16), (8, 16)), ([8, 16], (8, 16))],
    ids=str,
)
def test_the_size_is_the_given_or_the_default(size: Any, expected: tuple[int, int]) -> None:
    assert Domain("d", small(), size=size).shape.size == expected


def test_the_size_is_that_of_the_source_if_it_has_one() -> None:
    assert Domain("d", "pocket:optdigits").shape.size == (8, 8)
    assert Domain("d", "pocket:optdigits", size=12).shape.size == (12, 12)


@pytest.mark.parametrize("size", [0, -3, (0, 8), 99_999], ids=str)
def test_an_impossible_size_is_refused(size: Any) -> None:
    with raises(BadInput, "16384", place="domains.d.size", got=size):
        Domain("d", small(), size=size)


@pytest.mark.parametrize(
    "wrong",
    [{"weight": 0.0}, {"weight": -1.0}, {"weight": float("nan")}, {"batch": 0}, {"batch": -4}],
    ids=str,
)
def test_an_impossible_weight_or_batch_is_refused(wrong: dict[str, Any]) -> None:
    with raises(BadInput, place=f"domains.d.{next(iter(wrong))}"):
        Domain("d", small(), **wrong)


# normalization


def test_the_default_normalization_is_by_the_training_images() -> None:
    domain = Domain("d", small(24, images={"3": b"text"}), size=10)
    images, _ = domain.train.stored(np.arange(len(domain.train)))
    values = images.reshape(-1, 3) / 255.0
    np.testing.assert_allclose(domain.pixels.mean, values.mean(0), atol=1e-5)
    np.testing.assert_allclose(domain.pixels.std, values.std(0), atol=1e-5)
    normalized = domain.train.batch(np.arange(len(domain.train)))[0]
    np.testing.assert_allclose(normalized.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std((0, 2, 3)), 1, atol=1e-2)
    assert domain.val.pixels == domain.train.pixels


def test_the_normalization_may_be_that_of_imagenet_or_given() -> None:
    imagenet = Domain("d", small(), size=8, normalize="imagenet").pixels
    assert (imagenet.mean, imagenet.std) == IMAGENET
    own = Domain("d", small(), size=8, normalize=((0, 0.5, 1), (1, 2, 3))).pixels
    assert own.mean == (0.0, 0.5, 1.0)
    assert own.std == (1.0, 2.0, 3.0)
    assert hash(own)


@pytest.mark.parametrize("normalize", ["domain", (0.5, 0.5), ((0.5,), (0.2,)), 3], ids=str)
def test_an_impossible_normalization_is_refused(normalize: Any) -> None:
    with raises(BadInput, place="domains.d.normalize", available=["auto", "dataset", "imagenet"]):
        Domain("d", small(), size=8, normalize=normalize)


def test_the_std_of_a_blank_domain_is_not_zero() -> None:
    blank = {str(i): np.full((8, 8, 3), 100, np.uint8) for i in range(24)}
    domain = Domain("d", small(24, images=blank), size=8)
    normalized = domain.train.batch(np.arange(4))[0]
    assert domain.pixels.std == (0.01, 0.01, 0.01)
    assert normalized.abs().max() < 0.01


# augmentation


def test_the_augmentation_is_the_default_with_changes_or_given() -> None:
    source = small()
    assert Domain("d", source, size=32).augmentation == Augment(pad=4)
    assert Domain("d", source, size=32, flip=True).augmentation == Augment(pad=4, flip=True)
    assert Domain("d", source, size=32, augment={"pad": 1}).augmentation == Augment(pad=1)
    own = Augment(scale=(0.5, 1.0))
    assert Domain("d", source, size=32, augment=own).augmentation == own

    @dataclass
    class Mirrored(Fake):
        flip: bool = True

    mirrored = Mirrored(source.tasks, source.listed)
    assert Domain("d", mirrored, size=32).augmentation.flip
    assert not Domain("d", mirrored, size=32, flip=False).augmentation.flip


# sources by name


def test_a_user_defined_source_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("")
    (tmp_path / "mine/photos.py").write_text(
        "from tests.helpers.fakes import small\n\ndef shop(rest, asked):\n    return small()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(Domain("d", "mine.photos:shop", size=8).train) == 12
    for name in ("mine.photos:nothing", "mine.films:shop"):
        with raises(BadInput, *name.split(":")):
            _ = Domain("d", name).train


@pytest.mark.parametrize("name", ["photos", "zip:photos", "", ":", "pocket"])
def test_a_source_without_a_known_prefix_is_refused(name: str) -> None:
    with raises(BadInput, name, available=["folder:", "pocket:"]):
        _ = Domain("d", name).index


def test_a_folder_without_a_prefix_gets_a_hint(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with raises(BadInput, got="photos", try_="folder:photos"):
        _ = Domain("d", "photos", base=tmp_path).index


@pytest.mark.parametrize("cache", [None, False])
def test_a_split_has_the_requested_dense_tasks_alone(cache: Any) -> None:
    domain = Domain("d", dense_source(), ["depth"], size=8, cache=cache)
    assert [task.name for task in domain.tasks] == ["depth"]
    assert set(domain.train.batch(np.arange(2))[1]) == {"depth"}


def test_the_cache_may_be_in_another_folder(tmp_path: Path) -> None:
    domain = Domain("d", small(), size=8, cache=tmp_path / "here")
    assert domain.decoded.folder.parent == tmp_path / "here"
