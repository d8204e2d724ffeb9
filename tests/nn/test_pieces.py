"""Inference in pieces of a batch: when it applies, where it cuts, and equal outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.nn import batches, pieces
from onetrunk.nn.pieces import Cost
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import NAMES, make_images, make_model

MB = 2**20
# 10 ms per pass, and 1 MB per image in use, of which every map is 0.25 MB
TYPICAL = Cost(400, 10 * 10**6, tuple((MB, MB // 4) for _ in range(20)))
HEAVY = Cost(68, 45 * 10**6, ((MB, MB // 4),))  # most of the time is for its weights
LIGHT = Cost(30, 10**5, tuple((MB // 8, MB // 32) for _ in range(200)))
X = make_images(20, 32)


@pytest.mark.parametrize(
    ("cost", "images", "sizes"),
    [
        (TYPICAL, 1, [1]),
        (TYPICAL, 64, [64]),  # all that is in use is below the limit
        (TYPICAL, 65, [33, 32]),
        (TYPICAL, 256, [64] * 4),
        (TYPICAL, 300, [60] * 5),
        (HEAVY, 100, [100]),  # more memory is cheaper than another pass
    ],
)
def test_pieces_stay_below_the_limit_unless_passes_are_expensive(
    cost: Cost, images: int, sizes: list[int]
) -> None:
    assert pieces.cut(cost, images) == sizes


def test_a_mixed_batch_runs_in_one_pass_or_by_domain_whichever_is_cheaper() -> None:
    assert pieces.cut_mixed(TYPICAL, [20, 20, 20]) == [60]
    assert pieces.cut_mixed(HEAVY, [20, 20, 20]) == [60]
    assert pieces.cut_mixed(LIGHT, [20, 21, 20]) == [20, 21, 20]
    assert pieces.cut_mixed(LIGHT, [1] * 60) == [60]  # one pass per image is the most expensive


def test_segments_of_pieces() -> None:
    found = batches.segments(["a", "b", "c"], [3, 1, 4], [2, 3, 3])
    assert list(found) == [{"a": 2}, {"a": 1, "b": 1, "c": 1}, {"c": 3}]


@pytest.fixture
def model() -> Universal:
    torch.manual_seed(0)
    return make_model(lambda: Trunk("resnet20"), 32).eval()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cut into pieces of 8 at most, and record the images of every pass of a trunk."""
    seen: list[int] = []
    forward = Trunk.forward

    def recorded(self: Trunk, x: Tensor, *given: Any) -> Any:
        seen.append(len(x))
        return forward(self, x, *given)

    monkeypatch.setattr(Trunk, "forward", recorded)
    monkeypatch.setattr(pieces, "best_count", lambda _, images: -(-images // 8))
    return seen


def uncut(call: Callable[[], Any]) -> Any:
    """Return the outputs of one pass."""
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(pieces, "applies", lambda _: False)
        return call()


def test_outputs_in_pieces_are_those_of_one_pass(model: Universal, passes: list[int]) -> None:
    expected = uncut(lambda: model(X, "bees"))["classify"]
    passes.clear()
    with torch.inference_mode():
        got = model(X, "bees")["classify"]
        assert passes[-3:] == [7, 7, 6]
        passes.clear()
        assert torch.equal(model(X, "bees")["classify"], got)
    assert passes == [7, 7, 6]  # what a pass consists of is counted once
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_mixed_batch_in_pieces(model: Universal, passes: list[int]) -> None:
    names = [NAMES[i % 3] for i in range(len(X))]
    expected = uncut(lambda: model(X, names))
    passes.clear()
    with torch.no_grad():
        got = model(X, names)
    assert max(passes[-3:]) <= 8
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one["classify"], other["classify"], rtol=1e-4, atol=1e-5)


def test_maps_and_numbers_of_one_domain_in_pieces(passes: list[int]) -> None:
    torch.manual_seed(0)  # the outputs of some random weights are almost 0 at a few pixels
    tasks = (Task("parts", "segment", ("a", "b")), Task("depth", "depth"))
    model = Universal(Trunk("resnet20"), [Domain("room", None, tasks, size=32)]).eval()
    plain = model.for_domain("room")
    calls: list[Callable[[], dict[str, Tensor]]] = [lambda: model(X, "room"), lambda: plain(X)]
    for call in calls:
        expected = uncut(call)
        with torch.inference_mode():
            got = call()
        assert passes[-3:] == [7, 7, 6]
        assert got.keys() == expected.keys() == {"parts", "depth"}
        for task, values in expected.items():
            assert got[task].is_contiguous()
            torch.testing.assert_close(got[task], values, rtol=1e-4, atol=1e-5)


def _hook(model: Universal) -> None:
    model.trunk.net.get_submodule("stage1").register_forward_hook(lambda *_: None)


def _slot_in_training(model: Universal) -> None:
    next(iter(model.trunk.banks().values())).slots["bees"].train()


def _mixes(model: Universal) -> None:
    model.trunk._independent = False


WHOLE: dict[str, Callable[[Universal], object]] = {
    "a hook": _hook,
    "statistics are collected": _slot_in_training,
    "images depend on each other": _mixes,
    "training": lambda model: model.train(),
    "float64": lambda model: model.double(),
}


@pytest.mark.parametrize("case", WHOLE)
def test_one_pass_where_pieces_would_change_the_result(
    case: str, model: Universal, passes: list[int]
) -> None:
    WHOLE[case](model)
    passes.clear()
    with torch.no_grad():
        model(X.to(next(model.parameters()).dtype), "bees")
    assert passes == [20]


def test_one_pass_with_gradients(model: Universal, passes: list[int]) -> None:
    model(X, "bees")
    assert passes[-1:] == [20]


def test_one_pass_with_statistics_of_the_batch(passes: list[int]) -> None:
    model = make_model(lambda: Trunk("resnet20", norm="shared-batch"), 32).eval()
    with torch.no_grad():
        model(X, "bees")
    assert passes[-1:] == [20]


def test_nothing_applies_in_a_trace() -> None:
    class Probe(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0 + (1.0 if pieces.applies(x) else 0.0)

    with torch.no_grad():
        assert Probe()(X).max() == 1
        assert torch.export.export(Probe(), (X,)).module()(X).max() == 0


def test_a_changed_or_copied_network_is_counted_again(model: Universal) -> None:
    with torch.inference_mode():
        model(X, "bees")
    assert model._plans._costs
    assert not copy.deepcopy(model)._plans._costs
    model.remove("ants")
    assert not model._plans._costs


def test_what_a_pass_consists_of(model: Universal) -> None:
    def cost() -> Cost:
        with torch.inference_mode():
            return model._plans.cost(model._pure("bees"), X[:3], "bees")

    first = cost()
    model._plans.clear()
    assert cost() == first
    shared = sum(p.nbytes for p in model.trunk.net.parameters() if p.ndim == 4)
    assert shared <= first.weights <= 1.2 * shared
    assert max(size for _, size in first.maps) == 16 * 32 * 32 * 4  # a map of 16 channels
    assert first.maps[0][0] == 4 * 16 * 32 * 32 * 4


@pytest.mark.usefixtures("passes")
def test_threads_get_their_own_outputs(model: Universal) -> None:
    images = [make_images(20, 32, seed) for seed in range(4)]
    names = [NAMES[i % 3] for i in range(20)]

    def run(seed: int) -> Tensor:
        with torch.inference_mode():
            if seed % 2:
                return torch.stack([out["classify"] for out in model(images[seed], names)])
            return model(images[seed], NAMES[seed % 3])["classify"]

    expected = [run(seed) for seed in range(4)]
    model._plans.clear()
    with ThreadPoolExecutor(8) as pool:
        for seed, got in enumerate(pool.map(run, [0, 1, 2, 3] * 4)):
            assert torch.equal(got, expected[seed % 4])
