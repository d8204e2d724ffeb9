"""Nearest neighbour on pixels, against a loop."""

from __future__ import annotations

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.nearest_neighbour import neighbour_error


def test_it_is_what_a_loop_finds() -> None:
    domain = Domain("optdigits", "pocket:optdigits")
    train, _ = domain.train.batch(np.arange(len(domain.train)))
    test, _ = domain.val.batch(np.arange(len(domain.val)))
    known, labels = domain.train.label("classify"), domain.val.label("classify")
    wrong = 0
    for image, label in zip(test, labels, strict=True):
        nearest = int((train - image).square().sum((1, 2, 3)).argmin())
        wrong += int(known[nearest]) != int(label)
    assert neighbour_error(domain, "val") == pytest.approx(100 * wrong / len(labels))


def test_a_domain_without_classes_is_refused() -> None:
    with pytest.raises(BadInput, match="expected a classify task"):
        neighbour_error(Domain("rooms", "pocket:rooms"), task="depth")
