"""The switch: threads, copies, and backward passes with gradient checkpointing."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from onetrunk.errors import Failed
from onetrunk.nn.switch import Switch
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import NAMES, make_images, make_model
from tests.helpers.errors import raises


def test_without_a_choice() -> None:
    with raises(Failed, try_="domain=NAME"):
        Switch(["a"]).read()


def test_the_previous_choice_is_restored() -> None:
    switch = Switch(["a", "b"])
    with switch.using("a"):
        with pytest.raises(ZeroDivisionError), switch.using("b"):
            raise ZeroDivisionError
        assert switch.read() == "a"


def test_two_switches_are_independent() -> None:
    one, two = Switch(["a"]), Switch(["b"])
    with one.using("a"), two.using("b"):
        assert (one.read(), two.read()) == ("a", "b")
        with pytest.raises(Failed):
            copy.deepcopy(one).read()


def test_threads_have_separate_choices() -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    x = make_images(2, 32)
    with torch.no_grad():
        right = {name: model(x, name)["classify"] for name in NAMES}
    wrong = []

    def work(name: str) -> None:
        with torch.no_grad():
            for _ in range(12):
                if not torch.equal(model(x, name)["classify"], right[name]):
                    wrong.append(name)

    threads = [threading.Thread(target=work, args=(NAMES[i % 3],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def _checkpoint(model: Universal) -> None:
    set_grad_checkpointing = model.trunk.net.set_grad_checkpointing
    assert callable(set_grad_checkpointing)
    set_grad_checkpointing(True)


def _gradients(
    model: Universal, names: Sequence[str], reentrant: bool | None = None, together: bool = False
) -> dict[str, Tensor]:
    model.zero_grad()
    if reentrant is not None:

        def again(x: Tensor) -> list[Tensor]:
            maps = []
            for (path,) in model.trunk.backbone.stages.values():
                part = model.trunk.net.get_submodule(path)
                x = checkpoint(part, x, use_reentrant=reentrant)
                maps.append(x)
            return maps

        assert hasattr(type(model.trunk.net), "forward_pyramid")
        model.trunk.net.__dict__["forward_pyramid"] = again
    losses = [
        model(make_images(3, 32, seed).requires_grad_(), name)["classify"].square().sum()
        for seed, name in enumerate(names)
    ]
    if together:
        torch.autograd.backward(torch.stack(losses).sum())
    else:
        for loss in losses:
            torch.autograd.backward(loss)
    model.trunk.net.__dict__.pop("forward_pyramid", None)
    return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_checkpointing_uses_the_same_slots(reentrant: bool, together: bool) -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)  # in evaluation mode: statistics are kept
    expected = _gradients(model, NAMES[:2], together=together)
    got = _gradients(model, NAMES[:2], reentrant, together)
    assert got.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], msg=key)
    assert not model.trunk.switch._backward


def test_checkpointing_in_two_threads() -> None:
    model = make_model(lambda: Trunk("timm/test_vit"), 64)
    twins = [copy.deepcopy(model) for _ in range(2)]
    x = make_images(2, 64)

    def grads(network: Universal, name: str) -> list[Tensor]:
        loss = network(x, name)["classify"].square().sum()
        torch.autograd.backward(loss)
        return [_gradient(p) for p in network.parameters_of(name).values()]

    expected = [grads(twin, name) for twin, name in zip(twins, NAMES, strict=False)]
    _checkpoint(model)
    got: list[list[Tensor]] = [[], []]
    gate = threading.Barrier(2)

    def work(i: int) -> None:
        gate.wait()
        for _ in range(4):
            for p in model.parameters_of(NAMES[i]).values():
                p.grad = None
            got[i] = grads(model, NAMES[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(got, expected, strict=True):
        for left, right in zip(a, b, strict=True):
            torch.testing.assert_close(left, right)


def test_a_choice_outside_of_the_backward_pass_does_not_affect_it() -> None:
    model = make_model(lambda: Trunk("timm/test_vit"), 64)
    x = make_images(2, 64)
    loss = model(x, "ants")["classify"].square().sum()
    torch.autograd.backward(loss)
    key, right = next((k, _gradient(p)) for k, p in model.parameters_of("ants").items())
    model.zero_grad()
    _checkpoint(model)
    loss = model(x, "ants")["classify"].square().sum()
    with model.trunk.switch.using("bees"):
        torch.autograd.backward(loss)
    torch.testing.assert_close(model.parameters_of("ants")[key].grad, right)
    assert all(p.grad is None for p in model.parameters_of("bees").values())
