"""The scratch model in which a new domain is trained."""

from __future__ import annotations

import pytest

from onetrunk.train.new_domain.scratch_model import decay_factor


def test_decay_grows_with_adapters_and_shrinks_with_images() -> None:
    assert decay_factor(645_216, 50_000) == 1.0  # the paper's adapters on CIFAR
    assert decay_factor(645_216, 1_020) == pytest.approx(6.3256, abs=1e-3)  # on its flowers
    assert decay_factor(645_216, 100) == 10.0
    assert decay_factor(60_000, 1_020) == 1.0  # a tenth of the parameters
    assert decay_factor(0, 1) == 1.0
