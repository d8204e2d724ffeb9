"""Floors: constant predictions and nearest neighbours, against loops and known results."""

from __future__ import annotations

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.task import KINDS, Task
from onetrunk.eval import floors
from onetrunk.eval.floors import constant_floor, neighbour_floor
from onetrunk.nn.card import Card
from tests.helpers.small import DENSE, domain

MANY = (
    Task("tags", "multilabel", ("x", "y", "z")),
    Task("age", "regress", unit="years"),
    Task("near", "embed", ("p", "q")),
)


def card(one: Domain) -> Card:
    return Card.of(one, "none")


def test_the_error_of_the_nearest_neighbour_equals_that_of_a_loop() -> None:
    digits = Domain("optdigits", "pocket:optdigits")
    train, _ = digits.train.batch(np.arange(len(digits.train)))
    test, _ = digits.val.batch(np.arange(len(digits.val)))
    train_labels, labels = digits.train.label("classify"), digits.val.label("classify")
    wrong = 0
    for image, label in zip(test, labels, strict=True):
        nearest = int((train - image).square().sum((1, 2, 3)).argmin())
        wrong += int(train_labels[nearest]) != int(label)
    table = neighbour_floor(digits, card(digits), "val").table()
    assert table.value("optdigits") == pytest.approx(100 * wrong / len(labels))


def test_the_majority_class_is_wrong_on_all_others() -> None:
    digits = Domain("optdigits", "pocket:optdigits")
    most = np.bincount(digits.train.label("classify")).argmax()
    expected = 100 * np.mean(digits.test.label("classify") != most)
    result = constant_floor(digits, card(digits))
    assert result.table().value("optdigits") == pytest.approx(expected)
    outcomes = result.outcomes().tasks["optdigits", "classify"]
    assert outcomes.headline() == pytest.approx(expected)  # so differences can be paired


def test_every_kind_has_a_constant() -> None:
    rows = {
        row.kind: row.value
        for one in (domain("plain"), domain("many", *MANY), domain("rooms", *DENSE))
        for row in constant_floor(one, card(one)).table().headlines()
    }
    assert {*rows} == {*KINDS}
    assert rows["classify"] == pytest.approx(100 * 2 / 3)
    assert rows["regress"] == pytest.approx(1.0, abs=0.05)  # its own standard deviation
    assert rows["embed"] == pytest.approx(100 * 11 / 23)  # chance: 11 of the 23 others
    assert rows["segment"] == pytest.approx(100 * 0.625 / 2)  # one class: 10 of 16 columns
    ramp = np.linspace(1, 4, 16)
    assert rows["depth"] == pytest.approx(np.abs(ramp - np.median(ramp)).mean(), abs=1e-3)
    assert rows["normals"] == pytest.approx(0.0, abs=1e-3)  # all of them point up


def test_neighbours_predict_everything_but_maps() -> None:
    many, rooms = domain("many", *MANY), domain("rooms", *DENSE)
    found = neighbour_floor(many, card(many)).table()
    assert [row.task for row in found.headlines()] == ["tags", "age", "near"]
    assert not neighbour_floor(rooms, card(rooms)).tasks


def test_neighbours_of_large_images_are_found_on_small_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digits = Domain("optdigits", "pocket:optdigits")
    exact = neighbour_floor(digits, card(digits)).table().value("optdigits")
    monkeypatch.setattr(floors, "SIDE", 4)
    small = neighbour_floor(digits, card(digits)).table().value("optdigits")
    assert exact < small < 50
