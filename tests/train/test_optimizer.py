"""Optimizers: which parameters they update, at which rate, and their saved state."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from onetrunk.train.learner import Learner
from onetrunk.train.optimizer import SHARED, Optimizers, rate_at
from tests.helpers.tensors import change_gradient
from tests.helpers.worlds import learner, network, same, settings, steps, weights, worlds

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.05},
    "plain sgd": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.0},
    "adamw": {"optimizer": "adamw", "lr": 1e-3},
}


def give_gradients(optimizers: Optimizers, units: list[str], seed: int = 0) -> None:
    """Set noise as the gradients of these owners' parameters."""
    chance = torch.Generator().manual_seed(seed)
    for unit in units:
        for parameter in optimizers.parameters.get(unit, {}).values():
            drawn = torch.randn(parameter.shape, generator=chance)
            parameter.grad = torch.empty_like(parameter).copy_(drawn)


def test_every_trainable_parameter_has_one_optimizer() -> None:
    for trunk in ({}, {"adapters": "parallel"}, {"sharing": "partial", "own_stages": [1]}):
        model = network(worlds("ants", "bees"), **trunk)
        optimizers = Optimizers(model, settings())
        assert list(optimizers.optimizers) == [SHARED, "ants", "bees"]
        moved = [
            p for o in optimizers.optimizers.values() for g in o.param_groups for p in g["params"]
        ]
        own = [p for name in model.domains for p in model.parameters_of(name).values()]
        expected = [*model.shared_parameters().values(), *own]
        assert sorted(map(id, moved)) == sorted(map(id, expected))
        assert len(set(map(id, moved))) == len(moved)


def test_a_shared_head_is_updated_by_the_shared_optimizer() -> None:
    model = network(worlds("ants", "cats", "bees")[::2], sharing="full")
    optimizers = Optimizers(model, settings())
    own = [name for unit in ("ants", "bees") for name in optimizers.parameters[unit]]
    assert not any(name.startswith("heads/") for name in own)
    shared = [name for name in optimizers.parameters[SHARED] if name.startswith("heads/")]
    assert len(shared) == 2 * len({d.classes for c in model.domains.values() for d in c.tasks})


def test_a_specialist_has_one_optimizer() -> None:
    model = network(worlds("ants"), sharing="none")
    optimizers = Optimizers(model, settings())
    assert list(optimizers.optimizers) == ["ants"]
    learns = [p for p in model.parameters() if p.requires_grad]
    assert sorted(map(id, optimizers.parameters["ants"].values())) == sorted(map(id, learns))


def test_frozen_parameters_have_no_optimizer() -> None:
    model = network(worlds("ants", "bees"))
    model.learn_only("bees")
    assert list(Optimizers(model, settings()).optimizers) == ["bees"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_vectors_do_not_decay_and_heads_have_their_own_rate(optimizer: str) -> None:
    model = network(worlds("ants"), adapters="parallel")
    without = {"momentum": 0.0} if optimizer == "sgd" else {}
    given = settings(optimizer=optimizer, lr=0.02, weight_decay=0.3, head_lr_factor=10.0, **without)
    optimizers = Optimizers(model, given)
    groups: dict[int, dict[str, Any]] = {
        id(p): group
        for one in optimizers.optimizers.values()
        for group in one.param_groups
        for p in group["params"]
    }
    for unit, named in optimizers.parameters.items():
        for name, parameter in named.items():
            group = groups[id(parameter)]
            assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0), (unit, name)
            assert group["peak"] == pytest.approx(0.2 if name.startswith("heads/") else 0.02)
    # with gradients of 0, matrices shrink and vectors stay
    for unit, named in optimizers.parameters.items():
        for parameter in named.values():
            parameter.grad = torch.zeros_like(parameter)
        before = {name: p.detach().clone() for name, p in named.items()}
        optimizers.step([unit] if unit else [], 0.0)
        for name, parameter in named.items():
            if parameter.ndim == 1:
                assert parameter.equal(before[name])
            else:
                rate = 0.2 if name.startswith("heads/") else 0.02
                assert torch.allclose(parameter, before[name] * (1 - rate * 0.3), atol=1e-7)


@pytest.mark.parametrize("head_lr", [1.0, 3.0])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_equals_torchs_optimizer(kind: str, head_lr: float) -> None:
    """Against one plain optimizer of torch over all parameters, three steps long."""
    train = settings(
        **OPTIMIZERS[kind], schedule="cosine", weight_decay=0.1, head_lr_factor=head_lr
    )
    model, twin = network(worlds("ants", "bees")), network(worlds("ants", "bees"))
    optimizers = Optimizers(model, train)
    groups = []
    named = {**twin.shared_parameters()}
    for name in twin.domains:
        named |= {f"{name} {key}": p for key, p in twin.parameters_of(name).items()}
    for name, parameter in named.items():
        peak = train.lr * (head_lr if "heads/" in name else 1.0)
        decay = 0.1 if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "lr": peak, "peak": peak, "weight_decay": decay})
    plain: torch.optim.Optimizer
    if kind == "adamw":
        plain = torch.optim.AdamW(groups, foreach=False)
    else:
        momentum = train.momentum or 0.0
        plain = torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, foreach=False)
    for step in range(3):
        give_gradients(optimizers, [SHARED, "ants", "bees"], step)
        give_gradients(Optimizers(twin, train), [SHARED, "ants", "bees"], step)
        progress = step / 8
        assert optimizers.step(["ants", "bees"], progress) == pytest.approx(
            train.lr * 0.5 * (1 + math.cos(math.pi * progress))
        )
        for group in plain.param_groups:
            group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * progress))
        plain.step()
        for name, tensor in model.state_dict().items():
            assert torch.allclose(tensor, twin.state_dict()[name], rtol=1e-5, atol=1e-7), name
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_shared_parameter_may_get_its_first_gradient_late(kind: str) -> None:
    """A head that some domains share, where a step holds one domain."""
    model, twin = network(worlds("ants", "bees")), network(worlds("ants", "bees"))
    train = settings(**OPTIMIZERS[kind], schedule="constant", weight_decay=0.0)
    optimizers, other = Optimizers(model, train), Optimizers(twin, train)
    ours, theirs = optimizers.parameters[SHARED], other.parameters[SHARED]
    # against one optimizer of torch for each parameter
    alone: list[torch.optim.Optimizer] = []
    for parameter in theirs.values():
        if kind == "adamw":
            alone.append(torch.optim.AdamW([parameter], train.lr, weight_decay=0.0))
        else:
            momentum = train.momentum or 0.0
            alone.append(torch.optim.SGD([parameter], train.lr, momentum, nesterov=momentum > 0))
    for step in range(4):
        for one in (optimizers, other):
            give_gradients(one, [SHARED], step)
        for name in sorted(ours)[: len(ours) // 2] if step < 2 else []:
            ours[name].grad = theirs[name].grad = None
        optimizers.step([], 0.0)
        for optimizer in alone:
            optimizer.step()
    for name, parameter in ours.items():
        assert torch.allclose(parameter, theirs[name], rtol=1e-5, atol=1e-7), name


def test_schedules() -> None:
    def rates(*at: float, **given: Any) -> list[float]:
        return [rate_at(progress, settings(**given)) for progress in at]

    assert rates(0, 0.5, 1, schedule="constant") == [1.0, 1.0, 1.0]
    found = rates(0, 0.25, 0.5, 0.75, 1, schedule="cosine")
    assert found == pytest.approx([1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0])
    assert found[-1] == 0
    found = rates(0, 0.49, 0.5, 0.74, 0.75, 1, schedule="step", gamma=0.1)
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    for schedule in ("cosine", "step", "constant"):
        found = rates(0.05, 0.1, 0.15, 0.2, schedule=schedule, warmup=0.2)
        assert found == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates(0.6, 1, schedule="cosine", warmup=0.2) == pytest.approx([0.5, 0])
    assert rates(0.0, schedule="cosine", warmup=0.1)[0] > 0  # the first step has a rate above 0


@pytest.mark.parametrize("warmup", [1e-5, 3e-4, 1e-3, 2e-3, 0.5])
def test_warmup_never_exceeds_the_peak_and_never_falls(warmup: float) -> None:
    train = settings(schedule="constant", warmup=warmup)
    found = [rate_at(i / 4000, train) for i in range(4001)]
    assert all(0 < a <= b <= 1 for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_domain_that_is_not_in_a_step_is_not_changed(kind: str) -> None:
    model = network(worlds("ants", "bees"))
    optimizers = Optimizers(model, settings(**OPTIMIZERS[kind], weight_decay=0.1))
    for step in range(2):  # so that both have momentum and statistics
        give_gradients(optimizers, [SHARED, "ants", "bees"], step)
        optimizers.step(["ants", "bees"], 0.0)
    bees, state = model.pack("bees").tensors, optimizers.state()
    bees = {name: tensor.clone() for name, tensor in bees.items()}
    state = {name: tensor.clone() for name, tensor in state.items()}
    before = weights(model)
    for step in range(3):
        give_gradients(optimizers, [SHARED, "ants"], step)
        optimizers.step(["ants"], 0.0)
    assert all(tensor.equal(bees[name]) for name, tensor in model.pack("bees").tensors.items())
    after = optimizers.state()
    mine = [name for name in after if name.startswith("bees:")]
    assert bool(mine) == (kind != "plain sgd")
    assert all(after[name].equal(state[name]) for name in mine)
    assert not same(before, weights(model))


def test_a_step_calls_only_the_optimizers_of_its_domains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"d{i}" for i in range(6)]
    made = learner(worlds(*names), sampling="temperature", clip=1.0)
    calls: Counter[str] = Counter()
    units = {id(one): unit for unit, one in made.optimizers.optimizers.items()}
    real = torch.optim.SGD.step

    def spy(self: torch.optim.SGD, *args: Any) -> Any:
        calls[units[id(self)]] += 1
        return real(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    monkeypatch.setattr(torch.optim.SGD, "zero_grad", count_zeros(calls, units))
    drawn = [passes[0][0].domain for passes in steps(made, 5)]
    made = learner(worlds(*names), made.model, sampling="temperature", clip=1.0)
    units |= {id(one): unit for unit, one in made.optimizers.optimizers.items()}
    going = made.passes()
    for _ in range(5):
        made.step(next(going))
    expected = Counter(drawn)
    assert len(expected) < len(names)
    assert {n: calls[n] for n in names if calls[n]} == dict(expected)
    assert calls[SHARED] == 5
    assert {n: calls[f"zero {n}"] for n in names if calls[f"zero {n}"]} == dict(expected)


def count_zeros(calls: Counter[str], units: dict[int, str]) -> Any:
    real = torch.optim.SGD.zero_grad

    def spy(self: torch.optim.SGD, *args: Any) -> Any:
        calls[f"zero {units[id(self)]}"] += 1
        return real(self, *args)

    return spy


@pytest.mark.parametrize("largest", [1e-3, 0.5, 1e6])
def test_clipping_equals_torchs_over_the_step(largest: float) -> None:
    model, twin = network(worlds("ants", "bees", "cats")), network(worlds("ants", "bees", "cats"))
    optimizers, other = Optimizers(model, settings(clip=largest)), Optimizers(twin, settings())
    for one in (optimizers, other):
        give_gradients(one, [SHARED, "ants", "cats"])
    optimizers.clip(["ants", "cats"])
    moved = [p for unit in (SHARED, "ants", "cats") for p in other.parameters[unit].values()]
    nn.utils.clip_grad_norm_(moved, largest, foreach=False)
    pairs = list(zip(model.parameters(), twin.parameters(), strict=True))
    assert any(p.grad is not None for p, _ in pairs)
    for p, q in pairs:
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None and q.grad is not None:
            assert torch.allclose(p.grad, q.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_restored_optimizers_continue_to_the_bit(kind: str) -> None:
    domains = worlds("ants", "bees")
    trunk: dict[str, Any] = {"adapters": "parallel", "sharing": "partial", "own_stages": [2]}
    one = learner(domains, network(domains, **trunk), **OPTIMIZERS[kind], clip=1.0)
    going = one.passes()
    for _ in range(3):
        one.step(next(going))
    state = {name: tensor.clone() for name, tensor in one.optimizers.state().items()}
    middle = weights(one.model)
    batches = [next(going) for _ in range(2)]

    def continue_from(with_one: Learner) -> dict[str, torch.Tensor]:
        for passes in batches:
            with_one.step(passes)
        return weights(with_one.model)

    expected = continue_from(one)
    two = learner(domains, network(domains, seed=1, **trunk), **OPTIMIZERS[kind], clip=1.0)
    two.model.load_state_dict(middle)
    two.optimizers.restore(state)
    assert same(continue_from(two), expected)
    assert same(two.optimizers.state(), one.optimizers.state())


def test_restored_state_has_the_memory_layout_of_its_parameter() -> None:
    domains = worlds("ants")
    made = learner(domains, optimizer="adamw", lr=1e-3)
    made.step(next(made.passes()))
    plain = {name: tensor.contiguous() for name, tensor in made.optimizers.state().items()}
    made.optimizers.restore(plain)
    for one in made.optimizers.optimizers.values():
        for parameter, kept in one.state.items():
            for tensor in kept.values():
                if tensor.shape == parameter.shape:
                    assert tensor.stride() == parameter.stride()


def test_an_overflow_in_the_first_step_leaves_finite_state() -> None:
    domains = worlds("ants")
    made = learner(domains, precision="float16")
    head = made.model.heads_of("ants").head("classify").get_parameter("weight")
    hook = change_gradient(head, lambda grad: grad * math.nan)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # uninitialised memory is filled with NaN
    try:
        going = made.passes()
        made.step(next(going))
        hook.remove()
        made.step(next(going))
    finally:
        torch.use_deterministic_algorithms(before)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in made.optimizers.state().values())


def test_an_overflow_of_float16_in_one_unit_leaves_the_others_finite() -> None:
    domains = worlds("ants", "bees")
    made = learner(domains, precision="float16", clip=1.0)
    going = made.passes()
    made.step(next(going))
    assert made.precision.scaler is not None
    scale, before = made.precision.scaler.get_scale(), weights(made.model)
    head = made.model.heads_of("bees").head("classify").get_parameter("weight")
    hook = change_gradient(head, lambda grad: grad * math.nan)
    made.step(next(going))
    after = weights(made.model)
    assert made.precision.scaler.get_scale() == scale / 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values())
    bees = [name for name in after if name.startswith("heads.bees.")]
    assert bees and all(after[name].equal(before[name]) for name in bees)
    hook.remove()
    made.step(next(going))
    assert all(not weights(made.model)[name].equal(after[name]) for name in bees)
