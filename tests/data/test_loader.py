"""The loader: the same batches with any number of workers and after resuming."""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
from typing import Any

import numpy as np
import pytest
import torch

from onetrunk.data.augment import Augment
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch, Loader
from onetrunk.errors import BadInput, Failed
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, dense_source, small

VARIED = Augment(pad=2, flip=True, scale=(0.8, 1.2), brightness=0.2)


def domains(**more: Any) -> list[Domain]:
    return [
        Domain("flat", small(26), size=10, augment=VARIED, **more),
        Domain("rooms", dense_source(18), size=(8, 10), augment=VARIED, batch=3, **more),
    ]


def take(loader: Loader, steps: int) -> list[list[Batch]]:
    return list(itertools.islice(loader, steps))


def assert_same(one: list[list[Batch]], other: list[list[Batch]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(itertools.chain(*one), itertools.chain(*other), strict=True):
        assert a.domain == b.domain
        assert a.images.equal(b.images)
        assert a.targets.keys() == b.targets.keys()
        for name, target in a.targets.items():
            assert target.dtype == b.targets[name].dtype
            assert torch.equal(target.nan_to_num(), b.targets[name].nan_to_num())
        np.testing.assert_array_equal(a.places, b.places)
        np.testing.assert_array_equal(a.views, b.views)


@pytest.mark.parametrize("sampling", ["round-robin", "temperature"])
@pytest.mark.parametrize("cache", [None, False])
def test_batches_are_identical_for_0_1_and_2_workers(sampling: str, cache: Any) -> None:
    given = domains(cache=cache)
    expected = take(Loader(given, 4, seed=5, sampling=sampling), 12)
    for workers in (1, 2):
        loader = Loader(given, 4, seed=5, sampling=sampling, workers=workers)
        assert_same(take(loader, 12), expected)


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, False])
def test_batches_are_identical_from_spawned_workers(cache: Any) -> None:
    given = domains(cache=cache)
    expected = take(Loader(given, 4, seed=5), 6)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert_same(take(Loader(given, 4, seed=5, workers=2), 6), expected)
    finally:
        multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restored_loader_continues_within_an_epoch(workers: int) -> None:
    given = domains()
    expected = take(Loader(given, 4, seed=5), 12)
    loader = Loader(given, 4, seed=5, workers=workers)
    take(loader, 5)  # workers have drawn further ahead
    state = json.loads(json.dumps(loader.state()))
    assert state["step"] == 5
    again = Loader(given, 4, seed=5, workers=workers)
    again.restore(state)
    assert_same(take(again, 7), expected[5:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_loop_continues_where_the_first_stopped(workers: int) -> None:
    loader = Loader(domains(), 4, seed=5, workers=workers)
    complete = take(loader, 3) + take(loader, 3)
    assert_same(complete, take(Loader(domains(), 4, seed=5), 6))


def test_the_state_before_the_first_step_restores_the_start() -> None:
    loader = Loader(domains(), 4, seed=5)
    state = loader.state()
    first = take(loader, 2)
    loader.restore(state)
    assert_same(take(loader, 2), first)


def test_a_batch_is_normalized_augmented_and_its_domains_own_size() -> None:
    flat, rooms = take(Loader(domains(), 4), 1)[0]
    assert (flat.domain, rooms.domain) == ("flat", "rooms")
    assert flat.images.shape == (4, 3, 10, 10)
    assert rooms.images.shape == (3, 3, 8, 10)
    assert flat.images.dtype == torch.float32
    assert flat.images.is_contiguous(memory_format=torch.channels_last)
    assert set(rooms.targets) == {"segment", "depth", "normals"}


def test_batches_without_augmentation_are_those_of_evaluation() -> None:
    domain = Domain("d", small(26), size=10, augment=Augment())
    for (batch,) in take(Loader([domain], 6), 4):
        images, targets = domain.train.batch(batch.places)
        assert batch.images.equal(images)
        assert batch.targets["classify"].equal(targets["classify"])


def test_every_epoch_has_another_view_of_an_image() -> None:
    domain = Domain("d", small(16), size=10, augment=VARIED)
    count = len(domain.train)
    views: dict[int, list[torch.Tensor]] = {}
    for (batch,) in take(Loader([domain], count), 3):
        for place, image in zip(batch.places.tolist(), batch.images, strict=True):
            views.setdefault(place, []).append(image)
    assert len(views) == count
    for a, b, c in views.values():
        assert not a.equal(b)
        assert not b.equal(c)


def test_an_unreadable_image_does_not_change_the_views_of_the_others() -> None:
    complete = Domain("d", small(16), size=10, augment=VARIED, normalize="imagenet")
    source = small(16, images={"1": b"text"})
    torn = Domain("d", source, size=10, augment=VARIED, normalize="imagenet", cache=False)

    def by_key(domain: Domain) -> dict[str, torch.Tensor]:
        (batch,) = take(Loader([domain], len(domain.train)), 1)[0]
        keys = [domain.train.key(int(place)) for place in batch.places]
        return dict(zip(keys, batch.images, strict=True))

    all_images, remaining = by_key(complete), by_key(torn)
    assert set(all_images) - set(remaining) == {"0001.png"}
    assert all(all_images[key].equal(image) for key, image in remaining.items())


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_disappears_during_training_is_one_line(workers: int) -> None:
    source = small(16)
    domain = Domain("d", source, size=10, cache=False)
    loader = Loader([domain], 4, workers=workers)
    source.images = {str(i): FileNotFoundError(errno.ENOENT, "No such file") for i in range(16)}
    with raises(Failed, got="No such file") as error:
        take(loader, 1)
    assert "\n" not in str(error.value)


def test_joined_batches_need_one_image_size() -> None:
    with raises(BadInput, "size", "flat", "rooms"):
        Loader(domains(), sampling="joined")
    same = [Domain(name, small(16), size=10) for name in ("a", "b")]
    assert [b.domain for b in take(Loader(same, 4, sampling="joined"), 1)[0]] == ["a", "b"]


def test_a_loader_needs_a_domain_and_different_names() -> None:
    with raises(BadInput, "at least one domain"):
        Loader([])
    with raises(BadInput, "flat", try_="a different name for each"):
        Loader([*domains(), domains()[0]])


def test_a_domain_without_training_images_is_refused() -> None:
    source = small(8, images={str(i): b"text" for i in range(8)})
    with pytest.raises(BadInput):
        Loader([Domain("d", source, size=8, allow_bad=True)])
    assert isinstance(source, Fake)
