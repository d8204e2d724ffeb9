"""Mixup: images and targets mixed alike, by draws that depend on seed, domain and step alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onetrunk.data.loader import Batch
from onetrunk.train.mixup import Mixup


def batch(count: int = 6, domain: str = "ants") -> Batch:
    chance = torch.Generator().manual_seed(count)
    images = torch.randn(count, 3, 4, 5, generator=chance)
    targets = {"what": torch.arange(count), "size": torch.arange(count).float()[:, None] * 10}
    places = np.arange(count)
    return Batch(domain, images.to(memory_format=torch.channels_last), targets, places, places)


def test_without_alpha_batches_are_unchanged() -> None:
    given = batch()
    images, shares = Mixup(0.0, 0)(given, 3)
    assert images is given.images
    assert shares == ((1.0, given.targets),)
    alone = batch(1)
    assert Mixup(0.4, 0)(alone, 3) == (alone.images, ((1.0, alone.targets),))


def test_images_and_targets_have_the_same_partner_and_share() -> None:
    given = batch()
    drawn = set()
    for step in range(20):
        images, ((one, mine), (other, theirs)) = Mixup(1.0, 0)(given, step)
        assert one + other == pytest.approx(1)
        assert 0 <= one <= 1
        assert mine is given.targets
        order = theirs["what"]  # each image's label is its place
        assert sorted(order.tolist()) == list(range(6))
        assert theirs["size"].equal(given.targets["size"][order])
        for i in range(6):
            expected = one * given.images[i] + other * given.images[int(order[i])]
            assert torch.allclose(images[i], expected, atol=1e-6)
        drawn.add((one, tuple(order.tolist())))
    assert len(drawn) == 20


def test_draws_depend_on_seed_domain_and_step_alone() -> None:
    def drawn(seed: int, domain: str, step: int) -> tuple[float, list[int]]:
        _, ((share, _), (_, theirs)) = Mixup(0.5, seed)(batch(domain=domain), step)
        return share, theirs["what"].tolist()

    before = torch.random.get_rng_state()
    expected = drawn(7, "ants", 3)
    drawn(7, "bees", 3), drawn(7, "ants", 4)
    assert drawn(7, "ants", 3) == expected
    assert len({str(drawn(*key)) for key in [(7, "ants", 3), (8, "ants", 3), (7, "bees", 3)]}) == 3
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_are_drawn_from_beta(alpha: float) -> None:
    mixup, given = Mixup(alpha, 0), batch(2)
    shares = [mixup(given, step)[1][0][0] for step in range(3000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
