"""What every weighting has to do, a third party's too.

    from onetrunk.testing import conform_balance
    conform_balance("mypackage.weightings:thing", scale="direction")

The units are bowls over the same few numbers, looked at where chance says; nothing is descended, so
that every weighting meets the same gradients, some of which conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from onetrunk.data.seeded import seed_of
from onetrunk.errors import BadInput, Failed
from onetrunk.train.jacobian import Jacobian
from onetrunk.train.weighting import Weighting, make_weighting

Scale = Literal["weights", "direction", "none"]
# What one unit's loss in another measure (times 8) leaves as it was. weights: the weights, so the
# unit pulls 8 times as hard; direction: that of the shared gradient; none: neither.
Seen = tuple[
    Tensor, Tensor | None
]  # a step's shared gradient, and its weights where there are some
UNITS = ("ants/classify", "bees/depth", "bees/classify", "cats/classify")
ALL = tuple(range(len(UNITS)))
PLAN = (ALL, ALL, (1, 3), ALL, (0, 1, 2), (2,), ALL, ALL)  # which units are in which step
SIZE = 12  # shared numbers
CPU = torch.device("cpu")


class World:
    """A weighting's settings, and the losses that it meets."""

    def __init__(self, name: str, settings: Mapping[str, object], device: torch.device) -> None:
        self.name, self.settings, self.device = name, settings, device
        self.alike = False  # every unit has the loss of the first

    def make(self, units: Sequence[str] = UNITS) -> Weighting:
        """Fresh; an epoch is two steps, so that what happens by epochs happens here."""
        return make_weighting(
            self.name, units, seed=0, device=self.device, settings=self.settings, epoch=2
        )

    def point(self, step: int) -> Tensor:
        """Where the shared numbers are in this step."""
        return self._noise("point", step, SIZE).requires_grad_(True)

    def loss(self, unit: str, x: Tensor) -> Tensor:
        """ℓ(x) = ‖Ax − b‖²/2n + 0.1, A and b of this unit."""
        unit = UNITS[0] if self.alike else unit
        A, b = self._noise(unit, "A", SIZE, SIZE), self._noise(unit, "b", SIZE)
        return (A @ x - b).square().mean() / 2 + 0.1

    def step(
        self,
        weighting: Weighting,
        units: Sequence[str],
        present: Sequence[int],
        number: int,
        factors: Mapping[str, float] | None = None,
    ) -> Seen:
        """One step of these units; `factors` multiply their losses."""

        def losses(x: Tensor) -> list[Tensor]:
            of = [units[unit] for unit in present]
            return [(factors or {}).get(unit, 1.0) * self.loss(unit, x) for unit in of]

        x, weights = self.point(number), None
        found = losses(x)
        numbers = torch.stack(found).detach()
        if weighting.needs_gradients:
            jacobian = Jacobian([x], units)
            jacobian.add(list(zip(present, found, strict=True)))
            jacobian.apply(weighting)
            assert x.grad is not None, "no gradient came"
            gradient = x.grad
        else:
            weights = weighting.weights(numbers if weighting.needs_losses else None, present)
            assert weights.shape == (len(present),), f"weights of shape {tuple(weights.shape)}"
            assert not weights.requires_grad, "weights with a graph"
            mean = (weights * torch.stack(found)).mean()
            (gradient,) = torch.autograd.grad(mean, x)
        assert bool(gradient.isfinite().all()), f"step {number}: {gradient}"
        weighting.update(numbers, present)
        if weighting.needs_losses_after:
            after = losses(x.detach() - 0.01 * gradient)
            weighting.update_after(torch.stack(after).detach(), present)
        return gradient, weights

    def _noise(self, of: str, kind: object, *shape: int) -> Tensor:
        chance = torch.Generator().manual_seed(seed_of(of, kind) % 2**31)
        return torch.randn(shape, generator=chance, dtype=torch.float64).to(self.device)


def conform_weighting(
    name: str,
    scale: Scale,
    settings: Mapping[str, object] | None = None,
    device: torch.device = CPU,
) -> None:
    """Every check, on one weighting by its name."""
    world = World(name, settings or {}, device)
    before = torch.get_rng_state()
    one_is_the_plain_loss(world)
    alike_is_the_mean(world)
    order_does_not_matter(world)
    goes_on_from_its_state(world)
    scales_as_declared(world, scale)
    names_who_is_not_finite(world)
    assert torch.equal(before, torch.get_rng_state()), "torch's generator was drawn from"


def one_is_the_plain_loss(world: World) -> None:
    """A run of one unit has weight 1, or is refused; a first step of one has its gradient."""
    weighting = world.make()
    if not weighting.needs_gradients:
        weighting = world.make(UNITS[:1])
        for number in range(3):
            _close(world.step(weighting, UNITS[:1], [0], number)[0], _plain(world, number, [0]))
        return
    _close(world.step(weighting, UNITS, [2], 0)[0], _plain(world, 0, [2]))
    try:
        world.make(UNITS[:1])
    except BadInput:
        return
    raise AssertionError("a single unit is balanced by gradients")


def alike_is_the_mean(world: World) -> None:
    """Where all units have one loss and one gradient, that is the step's."""
    world = World(world.name, world.settings, world.device)
    world.alike, weighting = True, world.make()
    for present in (ALL, ALL, (0, 3), ALL):
        if not (weighting.needs_losses or weighting.needs_gradients) and len(present) < len(ALL):
            continue  # their weights have a mean of 1 over the run, not over every step
        _close(world.step(weighting, UNITS, present, 0)[0], _plain(world, 0, present))


def order_does_not_matter(world: World) -> None:
    """Units in another order: the same gradients, and the weights in that order."""
    one, other = world.make(), world.make(UNITS[::-1])
    for number, present in enumerate(PLAN):
        expected, weights = world.step(one, UNITS, present, number)
        places = [len(UNITS) - 1 - unit for unit in reversed(present)]  # the same units
        got, listed = world.step(other, UNITS[::-1], places, number)
        _close(got, expected)
        if weights is not None and listed is not None:
            _close(listed.flip(0), weights)


def goes_on_from_its_state(world: World) -> None:
    """Restored, it goes on to the bit, and keeps no hold of the checkpoint's tensors."""
    one, other = world.make(), world.make()
    for number, present in enumerate(PLAN):
        world.step(one, UNITS, present, number)
    saved = {key: tensor.clone() for key, tensor in one.state().items()}
    given = {key: tensor.clone() for key, tensor in saved.items()}
    other.restore(given)
    for number, present in enumerate(PLAN, len(PLAN)):
        expected, _ = world.step(one, UNITS, present, number)
        got, _ = world.step(other, UNITS, present, number)
        assert torch.equal(got, expected), f"after going on, {_far(got, expected):.1e} off"
    held = [key for key in saved if not torch.equal(given[key], saved[key])]
    assert not held, f"the checkpoint's {', '.join(held)} moved"


def scales_as_declared(world: World, scale: Scale) -> None:
    """What is left as it was when one unit's loss is measured in other units."""
    one, other = world.make(), world.make()
    same_weights = same_direction = True
    for number in range(6):
        plain, weights = world.step(one, UNITS, ALL, number)
        scaled, others = world.step(other, UNITS, ALL, number, {UNITS[0]: 8.0})
        cosine = torch.cosine_similarity(plain, scaled, dim=0)
        same_direction &= bool(cosine > 1 - 1e-6)
        same_weights &= weights is not None and others is not None and _far(weights, others) < 1e-5
    found = "weights" if same_weights else "direction" if same_direction else "none"
    assert found == scale, f"another measure of one loss leaves: {found}, not: {scale}"


def names_who_is_not_finite(world: World) -> None:
    """A gradient that is NaN ends the step with the unit's name, and the weighting has not seen it.

    (Losses that are NaN the loop finds by itself.)
    """
    weighting = world.make()
    if not weighting.needs_gradients:
        return
    world.step(weighting, UNITS, ALL, 0)
    before = {key: tensor.clone() for key, tensor in weighting.state().items()}
    said = "nothing"
    try:
        world.step(weighting, UNITS, ALL, 1, {UNITS[1]: float("nan")})
    except Failed as error:
        said = str(error)
    named = [unit for unit in UNITS if unit in said]
    assert named == [UNITS[1]], f"{UNITS[1]} has a gradient that is NaN; said: {said}"
    after = weighting.state()
    assert all(torch.equal(before[key], after[key]) for key in before), "it was seen"


def _plain(world: World, number: int, present: Sequence[int]) -> Tensor:
    x = world.point(number)
    mean = torch.stack([world.loss(UNITS[unit], x) for unit in present]).mean()
    return torch.autograd.grad(mean, x)[0]


def _far(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _close(got: Tensor, expected: Tensor) -> None:
    assert _far(got, expected) <= 1e-4, f"{_far(got, expected):.1e} off: {got}, not {expected}"
