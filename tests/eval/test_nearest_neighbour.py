"""The error of nearest neighbours on pixels, against a loop."""

from __future__ import annotations

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.nearest_neighbour import neighbour_error
from tests.helpers.errors import raises


def test_the_error_equals_that_of_a_loop() -> None:
    domain = Domain("optdigits", "pocket:optdigits")
    train, _ = domain.train.batch(np.arange(len(domain.train)))
    test, _ = domain.val.batch(np.arange(len(domain.val)))
    train_labels, labels = domain.train.label("classify"), domain.val.label("classify")
    wrong = 0
    for image, label in zip(test, labels, strict=True):
        nearest = int((train - image).square().sum((1, 2, 3)).argmin())
        wrong += int(train_labels[nearest]) != int(label)
    assert neighbour_error(domain, "val") == pytest.approx(100 * wrong / len(labels))


def test_a_task_without_classes_is_refused() -> None:
    with raises(BadInput, "rooms", got="depth"):
        neighbour_error(Domain("rooms", "pocket:rooms"), task="depth")
