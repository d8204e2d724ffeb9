"""The exponential average of the weights, against a loop over numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onetrunk.nn.universal import Universal
from onetrunk.train.ema import Average
from tests.helpers.worlds import learner, network, same, weights, worlds


def floats(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: t.clone() for k, t in model.state_dict().items() if t.is_floating_point()}


def move(model: Universal, names: tuple[str, ...], seed: int) -> None:
    """Add noise to shared tensors and to those of these domains."""
    chance = torch.Generator().manual_seed(seed)
    others = {id(t) for n in model.domains if n not in names for t in model.own(n).values()}
    with torch.no_grad():
        for tensor in model.state_dict(keep_vars=True).values():
            noise = torch.randn(tensor.shape, generator=chance)
            if tensor.is_floating_point() and id(tensor) not in others:
                tensor.add_(noise)


@pytest.mark.parametrize(
    "trunk", [{}, {"norm": "shared"}, {"sharing": "full"}, {"adapters": "parallel"}], ids=str
)
def test_each_tensor_is_averaged_in_the_steps_that_changed_it(trunk: dict[str, Any]) -> None:
    model = network(worlds("ants", "bees"), **trunk).double()
    own = {name: {id(t) for t in model.own(name).values()} for name in model.domains}
    owner = {
        key: next((n for n in own if id(t) in own[n]), "")
        for key, t in model.state_dict(keep_vars=True).items()
    }
    average, expected = Average(model, 0.25), floats(model)
    count = dict.fromkeys(expected, 0)
    for step, names in enumerate([("ants", "bees"), ("ants",), ("ants",), ("bees", "ants")]):
        move(model, names, step)
        average.step(names)
        for key, value in floats(model).items():
            if owner[key] in ("", *names):
                count[key] += 1
                decay = min(0.25, (1 + count[key]) / (10 + count[key]))
                expected[key] = decay * expected[key] + (1 - decay) * value
    found = average.state()
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert torch.allclose(value, expected[key], rtol=1e-12, atol=1e-14), key


def test_averaged_weights_are_applied_and_removed() -> None:
    domains = worlds("ants", "bees")
    made = learner(domains, ema=0.9)
    assert made.average is not None
    going = made.passes()
    for _ in range(2):
        made.step(next(going))
    before, kept = weights(made.model), {k: t.clone() for k, t in made.average.state().items()}
    with made.averaged():
        inside = weights(made.model)
        assert torch.is_grad_enabled()
        assert all(inside[key].equal(tensor) for key, tensor in kept.items())
        assert all(inside[key].equal(before[key]) for key in before.keys() - kept.keys())
        assert not same(inside, before)
    assert same(weights(made.model), before)
    with pytest.raises(ZeroDivisionError), made.averaged():
        raise ZeroDivisionError
    assert same(weights(made.model), before)
    assert same(made.average.state(), kept)


def test_going_on_keeps_the_average() -> None:
    domains = worlds("ants", "bees")
    one, other = learner(domains, ema=0.9), learner(domains, ema=0.9)
    assert one.average is not None and other.average is not None
    one.step(next(one.passes()))
    saved = {key: tensor.clone() for key, tensor in one.average.state().items()}
    other.average.restore(saved)
    assert same(other.average.state(), one.average.state())
    other.average.step(["ants", "bees"])
    assert same(saved, one.average.state())  # the checkpoint's tensors are not its own


def test_a_network_of_its_own_is_averaged_once() -> None:
    model = network(worlds("ants"), sharing="none").double()
    average, before = Average(model, 0.1), floats(model)
    move(model, ("ants",), 0)
    average.step(["ants"])
    after = floats(model)
    for key, value in average.state().items():
        assert torch.allclose(
            value, 0.1 * before[key] + 0.9 * after[key], rtol=1e-12, atol=1e-14
        ), key


def test_the_average_is_over_the_last_tenth_of_the_updates_until_the_decay_is_reached() -> None:
    average = Average(network(worlds("ants")), 0.999)
    assert [average.decay_at(n) for n in (1, 8, 80, 10_000)] == [2 / 11, 0.5, 0.9, 0.999]
    for count in (6, 60, 600):  # what is left of the weights at the start
        left = 1.0
        for n in range(1, count + 1):
            left *= average.decay_at(n)
        assert left < 1e-3


def test_a_domain_in_few_steps_forgets_its_initial_weights_as_quickly() -> None:
    model = network(worlds("ants", "bees")).double()
    average = Average(model, 0.999)
    for step in range(20):
        names = ("ants", "bees") if step % 5 == 0 else ("ants",)
        move(model, names, step)
        average.step(names)
    assert average.updates == {"": 20, "ants": 20, "bees": 4}
