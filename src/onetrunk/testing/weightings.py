"""Conformance of loss weightings.

    check_weighting("mypackage.weightings:thing", scale="direction")

The losses of the units are quadratic functions of the same few numbers, which are drawn at random
in every step. They are not optimized, so every weighting gets the same gradients, some of which
conflict.
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
# What stays the same if the loss of one unit is multiplied by 8: "weights" (so the unit has 8 times
# the influence), the "direction" of the shared gradient, or "none" of these.
StepResult = tuple[Tensor, Tensor | None]  # the shared gradient of a step, and its weights, if any
UNITS = ("ants/classify", "bees/depth", "bees/classify", "cats/classify")
ALL = tuple(range(len(UNITS)))
PLAN = (ALL, ALL, (1, 3), ALL, (0, 1, 2), (2,), ALL, ALL)  # which units are in which step
SIZE = 12  # shared numbers
CPU = torch.device("cpu")


class Problem:
    """A weighting with its settings, and the losses of its units."""

    def __init__(self, name: str, settings: Mapping[str, object], device: torch.device) -> None:
        self.name, self.settings, self.device = name, settings, device
        self.equal_losses = False  # whether every unit has the loss of the first one

    def make(self, units: Sequence[str] = UNITS) -> Weighting:
        """Return a new weighting; an epoch has two steps, so that changes by epoch happen."""
        return make_weighting(
            self.name, units, seed=0, device=self.device, settings=self.settings, epoch=2
        )

    def point(self, step: int) -> Tensor:
        """Return the shared numbers in a step."""
        return self._noise("point", step, SIZE).requires_grad_(True)

    def loss(self, unit: str, x: Tensor) -> Tensor:
        """Return ℓ(x) = ‖Ax − b‖²/2n + 0.1, with the A and b of this unit."""
        unit = UNITS[0] if self.equal_losses else unit
        A, b = self._noise(unit, "A", SIZE, SIZE), self._noise(unit, "b", SIZE)
        return (A @ x - b).square().mean() / 2 + 0.1

    def step(
        self,
        weighting: Weighting,
        units: Sequence[str],
        present: Sequence[int],
        number: int,
        factors: Mapping[str, float] | None = None,
    ) -> StepResult:
        """Run a step with these units; `factors` multiply their losses."""

        def losses(x: Tensor) -> list[Tensor]:
            of = [units[unit] for unit in present]
            return [(factors or {}).get(unit, 1.0) * self.loss(unit, x) for unit in of]

        x, weights = self.point(number), None
        unit_losses = losses(x)
        numbers = torch.stack(unit_losses).detach()
        if weighting.needs_gradients:
            jacobian = Jacobian([x], units)
            jacobian.add(list(zip(present, unit_losses, strict=True)))
            jacobian.apply(weighting)
            assert x.grad is not None, "no gradient of the shared numbers"
            gradient = x.grad
        else:
            weights = weighting.weights(numbers if weighting.needs_losses else None, present)
            assert weights.shape == (len(present),), f"weights of shape {tuple(weights.shape)}"
            assert not weights.requires_grad, "weights with a graph"
            mean = (weights * torch.stack(unit_losses)).mean()
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


def check_weighting(
    name: str,
    scale: Scale,
    settings: Mapping[str, object] | None = None,
    device: torch.device = CPU,
) -> None:
    """Check a weighting by its name.

    Args:
        name: Its name, or "package.module:thing".
        scale: What stays the same if the loss of one unit is multiplied.
    """
    problem = Problem(name, settings or {}, device)
    before = torch.get_rng_state()
    check_single_unit(problem)
    check_equal_losses(problem)
    check_order(problem)
    check_resume(problem)
    check_scale(problem, scale)
    check_non_finite(problem)
    assert torch.equal(before, torch.get_rng_state()), "it draws from torch's generator"


def check_single_unit(problem: Problem) -> None:
    """A run of one unit has weight 1 or is an error; a first step of one unit has its gradient."""
    weighting = problem.make()
    if not weighting.needs_gradients:
        weighting = problem.make(UNITS[:1])
        for number in range(3):
            _close(problem.step(weighting, UNITS[:1], [0], number)[0], _plain(problem, number, [0]))
        return
    _close(problem.step(weighting, UNITS, [2], 0)[0], _plain(problem, 0, [2]))
    try:
        problem.make(UNITS[:1])
    except BadInput:
        return
    raise AssertionError("a weighting by gradients accepts a single unit")


def check_equal_losses(problem: Problem) -> None:
    """If all units have the same loss, the gradient of the step is that of the loss."""
    problem = Problem(problem.name, problem.settings, problem.device)
    problem.equal_losses, weighting = True, problem.make()
    for present in (ALL, ALL, (0, 3), ALL):
        if not (weighting.needs_losses or weighting.needs_gradients) and len(present) < len(ALL):
            continue  # fixed weights have a mean of 1 over all units, not over those of a step
        _close(problem.step(weighting, UNITS, present, 0)[0], _plain(problem, 0, present))


def check_order(problem: Problem) -> None:
    """The order of the units changes the order of the weights and nothing else."""
    one, other = problem.make(), problem.make(UNITS[::-1])
    for number, present in enumerate(PLAN):
        expected, weights = problem.step(one, UNITS, present, number)
        places = [len(UNITS) - 1 - unit for unit in reversed(present)]  # the same units
        got, listed = problem.step(other, UNITS[::-1], places, number)
        _close(got, expected)
        if weights is not None and listed is not None:
            _close(listed.flip(0), weights)


def check_resume(problem: Problem) -> None:
    """A restored weighting continues to the bit, and does not change the checkpoint's tensors."""
    one, other = problem.make(), problem.make()
    for number, present in enumerate(PLAN):
        problem.step(one, UNITS, present, number)
    saved = {key: tensor.clone() for key, tensor in one.state().items()}
    given = {key: tensor.clone() for key, tensor in saved.items()}
    other.restore(given)
    for number, present in enumerate(PLAN, len(PLAN)):
        expected, _ = problem.step(one, UNITS, present, number)
        got, _ = problem.step(other, UNITS, present, number)
        assert torch.equal(got, expected), f"after resuming, {_far(got, expected):.1e} off"
    changed = [key for key in saved if not torch.equal(given[key], saved[key])]
    assert not changed, f"it changes the checkpoint's {', '.join(changed)}"


def check_scale(problem: Problem, scale: Scale) -> None:
    """If the loss of one unit is multiplied, exactly the declared quantity stays the same."""
    one, other = problem.make(), problem.make()
    same_weights = same_direction = True
    for number in range(6):
        plain, weights = problem.step(one, UNITS, ALL, number)
        scaled, others = problem.step(other, UNITS, ALL, number, {UNITS[0]: 8.0})
        cosine = torch.cosine_similarity(plain, scaled, dim=0)
        same_direction &= bool(cosine > 1 - 1e-6)
        same_weights &= weights is not None and others is not None and _far(weights, others) < 1e-5
    found = "weights" if same_weights else "direction" if same_direction else "none"
    assert found == scale, f"expected unchanged: {scale}; got: {found}"


def check_non_finite(problem: Problem) -> None:
    """A NaN gradient raises an error with the unit's name, and does not change the weighting.

    (The training loop checks for NaN losses.)
    """
    weighting = problem.make()
    if not weighting.needs_gradients:
        return
    problem.step(weighting, UNITS, ALL, 0)
    before = {key: tensor.clone() for key, tensor in weighting.state().items()}
    message = "no error"
    try:
        problem.step(weighting, UNITS, ALL, 1, {UNITS[1]: float("nan")})
    except Failed as error:
        message = str(error)
    named = [unit for unit in UNITS if unit in message]
    assert named == [UNITS[1]], f"expected an error that names {UNITS[1]}; got: {message}"
    after = weighting.state()
    assert all(torch.equal(before[key], after[key]) for key in before), (
        "a NaN gradient changes the weighting"
    )


def _plain(problem: Problem, number: int, present: Sequence[int]) -> Tensor:
    x = problem.point(number)
    mean = torch.stack([problem.loss(UNITS[unit], x) for unit in present]).mean()
    return torch.autograd.grad(mean, x)[0]


def _far(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _close(got: Tensor, expected: Tensor) -> None:
    assert _far(got, expected) <= 1e-4, f"{_far(got, expected):.1e} off: {got}, not {expected}"
