"""Devices, precision and determinism; the caller's state is restored."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import pytest
import torch

from onetrunk.data.seeded import seed_of
from onetrunk.errors import BadInput
from onetrunk.train.device import Precision, choose_device, deterministic, start_generators
from tests.helpers.errors import raises

CPU = torch.device("cpu")


def test_a_device_is_chosen_from_those_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == choose_device("cpu") == choose_device(CPU) == CPU
    with raises(BadInput, got="cuda:1", available=("cpu",)):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == torch.device("mps")
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device() == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with raises(BadInput, got="cuda:2", available=("cuda", "cuda:0", "cuda:1", "mps", "cpu")):
        choose_device("cuda:2")


def test_auto_precision_depends_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert Precision.of("auto", CPU).dtype == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert Precision.of("auto", cuda).dtype == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with warnings.catch_warnings(action="ignore"):  # of a scaler for a device that is not there
        assert Precision.of("auto", cuda).dtype == torch.float16
    assert Precision.of("float32", cuda).dtype == torch.float32
    assert Precision.of("bfloat16", CPU).scaler is None
    assert Precision.of("float16", CPU).scaler is not None


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_autocast_and_gradient_scaling(name: str) -> None:
    precision = Precision.of(name, CPU)
    weight = torch.nn.Parameter(torch.ones(2, 2))
    sgd = torch.optim.SGD([weight], lr=1.0)
    with precision.autocast():
        out = torch.ones(1, 2) @ weight
    assert out.dtype == getattr(torch, name)
    precision.backward(out.float().sum() / 1024)
    assert weight.grad is not None
    assert (float(weight.grad[0, 0]) == 1 / 1024) == (name != "float16")
    precision.unscale([("", sgd)])
    assert weight.grad.eq(1 / 1024).all()
    if precision.scaler is not None:
        precision.scaler.step(sgd)
    precision.update()


@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)], ids=str)
def test_flags_and_generator_are_restored(before: tuple[bool, bool]) -> None:
    memory: Any = torch.utils.deterministic

    def flags() -> tuple[bool, bool, bool]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            memory.fill_uninitialized_memory,
        )

    outside = flags()
    try:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        expected, chance = flags(), torch.get_rng_state()
        for wanted in (True, False):
            with suppress(ZeroDivisionError), deterministic(wanted, CPU):
                assert flags() == ((True, True, False) if wanted else expected)
                torch.rand(3)
                raise ZeroDivisionError
            assert flags() == expected
            assert torch.get_rng_state().equal(chance)
    finally:
        torch.use_deterministic_algorithms(outside[0], warn_only=outside[1])


def test_generators_are_seeded() -> None:
    with deterministic(True, CPU):
        start_generators(seed_of(3, "", "fit"), CPU)
        one = torch.rand(3)
        start_generators(seed_of(3, "", "fit"), CPU)
        assert torch.rand(3).equal(one)
        start_generators(seed_of(4, "", "fit"), CPU)
        assert not torch.rand(3).equal(one)
