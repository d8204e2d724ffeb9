"""Agreement of gradients: against autograd on each batch, properties, and bad input."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval import gradient_agreement as module
from onetrunk.eval.gradient_agreement import gradient_agreement
from onetrunk.eval.model_split import sample_places
from onetrunk.nn.universal import Universal
from tests.helpers.errors import raises
from tests.helpers.small import domain, network


def entropy(_: str, out: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(out["classify"], target["classify"], ignore_index=-1)


def two() -> tuple[Universal, list[Domain]]:
    domains = [domain("a"), domain("b", seed=1)]
    return network(domains), domains


def flat(model: Universal, domain: Domain, rows: NDArray[np.int64]) -> Tensor:
    images, targets = domain.val.batch(rows)
    model.zero_grad()
    torch.autograd.backward(entropy(domain.name, model(images, domain=domain.name), targets))
    shared = model.shared_parameters().values()
    return torch.cat([p.grad.flatten().clone() for p in shared if p.grad is not None])


def cosine(one: Tensor, other: Tensor) -> float:
    return F.cosine_similarity(one.double(), other.double(), dim=0).item()


def test_cosines_of_two_batches_of_each_domain() -> None:
    model, domains = two()
    found = gradient_agreement(model, domains, entropy, batches=2, batch=12)
    halves = {}
    for of in domains:
        rows = sample_places(of.val, of.name, 24, 0)
        rows = np.random.default_rng(0).permutation(rows)
        halves[of.name] = [flat(model, of, part) for part in np.array_split(rows, 2)]
    (a, b), (c, d) = halves["a"], halves["b"]
    assert found.cosine[0, 1] == pytest.approx(cosine(a + b, c + d), abs=1e-4)
    assert found.own[0] == pytest.approx(cosine(a, b), abs=1e-4)
    assert found.length[1] == pytest.approx(((c + d) / 2).norm().item(), rel=1e-4)
    assert found.images == (24, 24)
    assert found.shared == sum(p.numel() for p in model.shared_parameters().values())


def test_the_model_is_left_unchanged() -> None:
    model, domains = two()
    model.learn_only("a")
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wanted = {key: p.requires_grad for key, p in model.named_parameters()}
    modes = [m.training for m in model.modules()]
    gradient_agreement(model, domains, entropy, batches=2, batch=8)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert wanted == {key: p.requires_grad for key, p in model.named_parameters()}
    assert modes == [m.training for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


def test_equal_domains_agree_and_opposite_ones_conflict() -> None:
    domains = [domain("a"), domain("b"), domain("c")]
    model = network(domains, norm="shared")
    with torch.no_grad():
        for key, value in model.own("a").items():
            model.own("b")[key].copy_(value)
            model.own("c")[key].copy_(-value)
    found = gradient_agreement(model, domains[:2], entropy, batches=1, batch=24)
    assert found.cosine[0, 1] == pytest.approx(1, abs=1e-5)

    def sum_of_outputs(_: str, out: Mapping[str, Tensor], __: Mapping[str, Tensor]) -> Tensor:
        return out["classify"].sum()

    found = gradient_agreement(model, domains, sum_of_outputs, batches=2, batch=12)
    assert found.cosine[0, 2] == pytest.approx(-1, abs=1e-5)
    assert found.share_in_conflict() == pytest.approx(2 / 3)


def test_cosines_of_very_long_gradients_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    model, domains = two()
    every = gradient_agreement(model, domains, entropy, batches=2, batch=12)
    monkeypatch.setattr(module, "MAX_ENTRIES", 50_000)
    estimate = gradient_agreement(model, domains, entropy, batches=2, batch=12)
    assert estimate.cosine[0, 1] != every.cosine[0, 1]
    assert estimate.cosine[0, 1] == pytest.approx(every.cosine[0, 1], abs=0.05)


def test_one_domain_and_unshared_networks_are_refused() -> None:
    one = domain("a")
    with raises(BadInput, "two domains", got=1):
        gradient_agreement(network([one]), [one], entropy)
    with raises(BadInput, got="sharing 'none'"):
        gradient_agreement(network([one], sharing="none"), [one, domain("b")], entropy)
