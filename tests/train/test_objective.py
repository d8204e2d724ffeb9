"""The objective of a step: weighted losses, against sums by hand in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, Diverged
from onetrunk.runs.train import check_weighting
from onetrunk.train.losses import Losses
from onetrunk.train.objective import shared_and_own
from onetrunk.train.weighting import Setup
from onetrunk.train.weighting.equal import Equal
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, dense_source
from tests.helpers.tensors import change_gradient
from tests.helpers.worlds import CPU, learner, same, specialists, steps, weights, worlds
from tests.train.test_step import TIGHT, Grads, exact, gradients, weighted

SETTINGS = Mapping[str, object]


class EqualByGram(Equal):
    """Equal weights, by way of the Gram matrix."""

    needs_gram, uniform = True, False

    def weights_from_gram(
        self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]
    ) -> Tensor:
        assert gram_KK.shape == (len(present), len(present))
        return torch.ones(len(present), dtype=torch.float64)


class MeanRow(Equal):
    """The mean row of the Jacobian."""

    needs_jacobian, uniform = True, False

    def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        return jacobian_KP.mean(0)


class ByLoss(Equal):
    """The weight of a unit is its loss, divided by the mean loss."""

    needs_losses, uniform = True, False

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        assert losses_K is not None
        return losses_K / losses_K.mean()


class Recording(Equal):
    """Records the losses that it gets."""

    needs_losses = needs_losses_after = True
    uniform = False

    def __init__(self, setup: Setup, settings: SETTINGS) -> None:
        super().__init__(setup, settings)
        self.calls: list[tuple[str, Tensor]] = []

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        return torch.ones(len(present))

    def update(self, losses_K: Tensor, present: Sequence[int]) -> None:
        self.calls.append(("update", losses_K.clone()))

    def update_after(self, losses_K: Tensor, present: Sequence[int]) -> None:
        self.calls.append(("after", losses_K.clone()))


def name_of(thing: type) -> str:
    return f"{__name__}:{thing.__name__}"


def several() -> list[Domain]:
    """A domain of three dense tasks beside two that have one task each."""
    rooms = Domain("rooms", dense_source(), size=(8, 8), batch=3, weight=1.5)
    return [rooms, *weighted()[:2]]


@pytest.mark.parametrize("thing", [EqualByGram, MeanRow], ids=lambda t: t.__name__)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"accumulate": 2},
        {"sampling": "temperature", "accumulate": 5},
        {"sampling": "joined"},
        {"trunk": {"norm": "shared"}},
        {"trunk": {"adapters": "parallel"}},
    ],
    ids=str,
)
def test_equal_weights_by_gradients_give_the_plain_objective(
    thing: type, given: dict[str, Any]
) -> None:
    plain, other = exact(several(), **given), exact(several(), weighting=name_of(thing), **given)
    expected = gradients(plain, next(plain.passes()))
    found = gradients(other, next(other.passes()))
    assert {n for n, g in expected.items() if g.any()} == {n for n, g in found.items() if g.any()}
    assert len(found) > 50
    for name, grad in found.items():
        assert torch.allclose(grad, expected[name], **TIGHT), name


@pytest.mark.parametrize("thing", [EqualByGram, MeanRow], ids=lambda t: t.__name__)
def test_label_weight_applies_only_with_teachers(thing: type) -> None:
    """`label_weight` applies to domains with teachers, with and without gradients of units."""
    ants, bees = worlds("ants", "bees")
    found = []
    for weighting in ("equal", name_of(thing)):
        made = learner(
            [ants, bees],
            teachers={"ants": specialists([ants])["ants"]},
            distill={"label_weight": 0.25, "features": "none"},
            weighting=weighting,
        )
        found.append(gradients(made, next(made.passes())))
    expected, other = found
    for name, grad in other.items():
        assert torch.allclose(grad, expected[name], rtol=1e-3, atol=1e-5), name


def test_weights_by_losses_scale_all_gradients() -> None:
    domains = weighted()
    made = exact(domains, weighting=name_of(ByLoss))
    passes = next(made.passes())
    found = gradients(made, passes)
    alone: list[tuple[float, Grads]] = []
    for domain in domains:  # each domain's part of the plain gradient, and its loss
        plain = exact(domains)
        mine = [[batch for batch in group if batch.domain == domain.name] for group in passes]
        grads = gradients(plain, [group for group in mine if group])
        twin = exact(domains)
        (loss,) = twin.step([group for group in mine if group]).values()
        alone.append((loss, grads))
    mean = sum(loss for loss, _ in alone) / len(alone)
    shared = [n for n in found if all(n in grads for _, grads in alone)]
    assert len(shared) > 10
    for name in shared:
        total = sum(loss / mean * grads[name] for loss, grads in alone) / len(alone)
        assert isinstance(total, Tensor)
        assert torch.allclose(found[name], total, rtol=1e-6, atol=1e-12), name


@pytest.mark.parametrize("name", ["uncertainty", "dwa", "rlw", "famo", "stch", "fixed"])
def test_with_one_unit_every_weighting_is_the_plain_loss(name: str) -> None:
    domains = worlds("ants")
    settings = {"ants": 3.0} if name == "fixed" else {}
    plain = learner(domains)
    made = learner(domains, weighting=name, weighting_settings=settings)
    for one, other in zip(steps(plain, 4), steps(made, 4), strict=True):
        assert plain.step(one) == made.step(other)
    for key, tensor in weights(made.model).items():
        assert torch.allclose(tensor, weights(plain.model)[key], rtol=1e-5, atol=1e-7), key


def test_losses_after_the_step_use_the_same_batches_and_change_no_statistics() -> None:
    domains = worlds("ants", "bees")
    made, plain = learner(domains, weighting=name_of(Recording)), learner(domains)
    passes = next(made.passes())
    made.step(passes)
    plain.step(passes)
    assert same(weights(made.model), weights(plain.model))  # running statistics among them
    weighting = made.objective.weighting
    assert isinstance(weighting, Recording)
    (first, before), (second, after) = weighting.calls
    assert (first, second) == ("update", "after")
    losses = Losses(domains)
    for place, batch in enumerate(batch for group in passes for batch in group):
        out = plain.model(batch.images, batch.domain)  # in training mode: statistics of the batch
        expected = losses(batch.domain, out, [(1.0, batch.targets)])["classify"]
        assert float(after[place]) == pytest.approx(float(expected.detach()), rel=1e-6)
        assert float(after[place]) != pytest.approx(float(before[place]), rel=1e-6)


def test_shared_and_own_parameters_of_units() -> None:
    made = exact(several())
    shared, own = shared_and_own(made.model, made.objective.tasks)
    names = {id(p): name for name, p in made.model.named_parameters()}
    common = {names[id(p)] for p in shared}
    assert any("decoder" in name for name in common)
    assert any(".slots.rooms." in name for name in common)
    assert not any(".slots.ants." in name for name in common)
    for unit, parameters in own.items():
        domain, _, task = unit.partition("/")
        mine = {names[id(p)] for p in parameters}
        assert mine and not mine & common
        assert any(task in name for name in mine)
        if domain == "rooms":
            assert all(f"task_{task}" in name for name in mine)
    everything = [*common, *(names[id(p)] for own_ in own.values() for p in own_)]
    assert len(everything) == len(set(everything))
    moved = {id(p) for unit in made.optimizers.parameters.values() for p in unit.values()}
    assert {names[i] for i in moved} == set(everything)


def test_a_gradient_that_is_not_finite_ends_the_run_before_parameters_change() -> None:
    made = learner(worlds("ants", "bees"), weighting=name_of(EqualByGram))
    before = weights(made.model)
    passes = next(made.passes())
    parameter = next(iter(made.model.shared_parameters().values()))
    change_gradient(parameter, lambda grad: torch.full_like(grad, float("nan")))
    with raises(Diverged, "ants/classify", "bees/classify", try_="train.lr"):
        made.step(passes)
    stats = ("running_mean", "running_var", "num_batches_tracked")
    after = weights(made.model)
    kept = [name for name in before if not name.endswith(stats)]
    assert all(before[name].equal(after[name]) for name in kept)


@pytest.mark.parametrize(
    ("given", "got", "available"),
    [
        ({"weighting": "pcgrad"}, "ants/classify", ()),
        ({"weighting": "pcgard"}, "pcgard", ("pcgrad",)),
        ({"weighting": "dwa", "weighting_settings": {"heat": 1}}, "heat", ("temperature",)),
    ],
)
def test_a_wrong_weighting_is_refused_before_training(
    given: dict[str, Any], got: str, available: tuple[str, ...]
) -> None:
    domains = worlds("ants")
    model = exact(domains).model
    if given["weighting"] == "pcgrad":
        pytest.importorskip("torchjd")
    with raises(BadInput, got=got, available=available) as error:
        check_weighting(model, domains, Train.of({"steps": 1, **given}))
    assert "\n" not in str(error.value)


def test_a_task_without_any_label_in_the_batch_has_loss_0() -> None:
    source = dense_source()
    assert isinstance(source, Fake)
    made = learner(
        [Domain("rooms", source, size=(8, 8)), *worlds("ants")], weighting=name_of(EqualByGram)
    )
    passes = next(made.passes())
    for batch in passes[0]:
        batch.targets["segment"] = torch.full_like(batch.targets["segment"], 255)
    found = made.step(passes)
    assert found["rooms/segment"] == 0.0
    assert made.device == CPU
