"""Splits: readable images in order, and targets in the types that losses take."""

from __future__ import annotations

import numpy as np
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.sources import Item, Label
from onetrunk.data.task import Task
from tests.helpers.fakes import Fake, dense_source, dense_targets, picture, small


def test_a_split_has_its_own_images_in_the_order_of_their_keys() -> None:
    domain = Domain("d", small(24), size=12)
    keys = [domain.val.key(i) for i in range(len(domain.val))]
    assert keys == [f"{i:04}.png" for i in range(24) if i // 2 % 4 == 2]
    images, _ = domain.val.stored(np.arange(len(keys)))
    for image, key in zip(images, keys, strict=True):
        np.testing.assert_array_equal(image, picture(int(key[:4])))


def test_unreadable_images_are_left_out_and_the_others_stay() -> None:
    domain = Domain("d", small(24, images={"3": b"text", "0": b""}), size=12)
    keys = [domain.train.key(i) for i in range(len(domain.train))]
    assert "0003.png" not in keys
    assert len(keys) == 12 - 2
    places = np.arange(len(keys))
    images, targets = domain.train.stored(places)
    for i, key in enumerate(keys):
        np.testing.assert_array_equal(images[i], picture(int(key[:4])))
        assert targets["classify"][i] == int(key[:4]) % 2
    np.testing.assert_array_equal(domain.train.label("classify"), targets["classify"])


def test_a_batch_is_the_middle_normalized_with_its_targets() -> None:
    domain = Domain("d", dense_source(12), size=(6, 10), margin=4)
    places = np.array([2, 0])
    images, targets = domain.test.batch(places)
    assert images.shape == (2, 3, 6, 10)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for i, place in enumerate(places):
        seed = int(domain.test.key(int(place)))
        expected = picture(seed, 10, 14)[2:8, 2:12]
        back = images[i].permute(1, 2, 0) * torch.tensor(domain.pixels.std)
        back = (back + torch.tensor(domain.pixels.mean)) * 255
        np.testing.assert_allclose(back.numpy(), expected, atol=0.01)
        given = {k: v[2:8, 2:12] for k, v in dense_targets(seed, 10, 14).items()}
        np.testing.assert_array_equal(targets["segment"][i], given["segment"])
        np.testing.assert_array_equal(targets["depth"][i], given["depth"])
        normals = targets["normals"][i].permute(1, 2, 0)
        np.testing.assert_allclose(normals, given["normals"], atol=1e-3)
    assert targets["segment"].dtype == torch.uint8
    assert targets["depth"].dtype == torch.float32
    assert targets["normals"].dtype == torch.float32
    assert targets["normals"].shape == (2, 3, 6, 10)


def test_labels_are_tensors_of_the_documented_types() -> None:
    tasks = (
        Task("category", "classify"),
        Task("tags", "multilabel"),
        Task("price", "regress"),
        Task("who", "embed"),
    )
    labels: dict[str, Label] = {
        "category": "a",
        "tags": ("x", "y"),
        "price": (1.0, 2.0),
        "who": "b",
    }
    split = ("train", "val", "test")
    items = [Item(f"{i}", str(i), "s", split[i % 3], labels=labels) for i in range(6)]
    items.append(Item("9", "9", "s", "train"))  # not labelled
    _, targets = Domain("d", Fake(tasks, items), size=8).train.batch(np.arange(3))
    assert targets["category"].dtype == torch.int64
    assert targets["category"].tolist() == [0, 0, -1]
    assert targets["tags"].dtype == torch.uint8
    assert targets["tags"].tolist() == [[1, 1], [1, 1], [255, 255]]
    assert targets["price"].dtype == torch.float32
    assert targets["price"][:2].tolist() == [[1, 2], [1, 2]]
    assert targets["price"][2].isnan().all()
    assert targets["who"].dtype == torch.int64
