"""Recalibration: statistics as a slow reference computes them, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.errors import BadInput
from onetrunk.nn.universal import Universal
from onetrunk.train.recalibrate import recalibrate
from tests.helpers.errors import raises
from tests.helpers.worlds import network, same, weights, worlds


def predictions(model: Universal, domain: Domain) -> torch.Tensor:
    images, _ = domain.test.batch(torch.arange(4).numpy())
    with torch.no_grad():
        found: torch.Tensor = model.eval()(images, domain.name)["classify"]
    return found


@pytest.mark.parametrize("norm", ["domain", "domain-stats"])
def test_statistics_are_those_of_the_training_images(norm: str) -> None:
    """The stem's norm by hand: mean and unbiased variance of each batch, their means."""
    domains = worlds("ants", "bees")
    model = network(domains, norm=norm).eval()
    before = weights(model)
    recalibrate(model, domains[:1], images=20, batch=8)
    train = domains[0].train
    places = permutation(seed_of("recalibrate", "ants"), 0, len(train))[:20]
    means, variances = [], []
    for part in (
        places[:7],
        places[7:14],
        places[14:],
    ):  # 20 images in three batches, as even as possible
        images, _ = train.batch(part)
        with torch.no_grad():
            y = model.trunk.net.get_submodule("stem.conv")(images).transpose(0, 1).flatten(1)
        means.append(y.mean(1))
        variances.append(y.var(1, unbiased=True))
    slot = model.trunk.banks()["stem.norm"].slots["ants"].state_dict()
    torch.testing.assert_close(slot["running_mean"], torch.stack(means).mean(0))
    torch.testing.assert_close(slot["running_var"], torch.stack(variances).mean(0))
    moved = {key for key, t in model.state_dict().items() if not t.equal(before[key])}
    assert moved
    assert all("ants" in k and ("running" in k or "num_batches" in k) for k in moved), moved
    assert not any(module.training for module in model.modules())
    momenta = {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_recalibration_is_deterministic_and_repairs_predictions() -> None:
    domains = worlds("ants", "bees")
    model = network(domains).eval()
    recalibrate(model, domains)
    again = network(domains[::-1]).eval()
    recalibrate(again, domains[::-1])
    for path, bank in model.trunk.banks().items():
        other = again.trunk.banks()[path].slots["bees"]
        assert same(bank.slots["bees"].state_dict(), other.state_dict())
    found = predictions(model, domains[0])
    for slot in [bank.slots["ants"] for bank in model.trunk.banks().values()]:
        slot.get_buffer("running_mean").add_(5)
        slot.get_buffer("running_var").mul_(9)
    assert not predictions(model, domains[0]).allclose(found)
    recalibrate(model, domains[:1])
    assert predictions(model, domains[0]).equal(found)


def test_a_norm_without_statistics_of_the_domain_is_refused() -> None:
    domains = worlds("ants")
    with raises(BadInput, "ants", got="norm = 'shared'", available=("domain", "domain-stats")):
        recalibrate(network(domains, norm="shared"), domains)
