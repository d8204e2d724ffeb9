"""How many steps each stage of `onetrunk unify` has, so that all of them fit the time.

Every network that is compared sees the same number of images and has the same search: with the
rates r₁ … r_n, all start, and after the shares RUNGS of the steps the better half goes on
(successive halving: Jamieson & Talwalkar 2016). A stage of N steps therefore costs f·N steps and
some validations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onetrunk.errors import BadInput
from onetrunk.runs.unify.stages import (
    ADAPTERS,
    CONTINUED,
    DISTILLED,
    EVALUATIONS,
    FROZEN,
    JOINT,
    SPECIALISTS,
)
from onetrunk.train.console import duration

RUNGS = (0.1, 0.3)  # shares of the steps after which learning rates are dropped
TEACHERS = 1.35  # the cost of a step with teachers, which run forward, beside one without
WITH_ADAPTERS = 1.3  # the cost of a step with adapters beside one without
ADAPTER_SHARE = 0.3  # steps of the stage with adapters beside those of the others
CONTINUED_SHARE = 0.5  # the least that is planned for the last stage
MAX_EPOCHS = 60.0  # passes over the largest domain in one stage, at most
DECODER_STEPS = 0.1  # steps of decoders on the frozen trunk, beside those of the others
REPORT = 60.0  # seconds
CHOICES = 6  # evaluations of candidates on validation images
MIN_STEPS = 20


@dataclass(frozen=True)
class Costs:
    """Measured seconds.

    Args:
        specialists: One step of all specialists.
        joint: One step of one network, with a batch of each domain.
        validation: The validation images of all domains, once.
        test: The test images of all domains, once.
        epoch: The steps of one pass over the largest domain.
    """

    specialists: float
    joint: float
    validation: float
    test: float
    epoch: int

    @property
    def end(self) -> float:
        """The seconds of the evaluation at the end of a run."""
        return self.validation + self.test


@dataclass(frozen=True)
class Plan:
    """The length of the stages.

    Args:
        steps: Of each network that is compared.
        seconds: Estimated, by stage.
    """

    steps: int
    seconds: Mapping[str, float]

    @property
    def total(self) -> float:
        """The estimated seconds of all stages."""
        return math.fsum(self.seconds.values())

    @property
    def adapter_steps(self) -> int:
        """The steps of the stage with adapters."""
        return max(1, round(ADAPTER_SHARE * self.steps))

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)


def survivors(count: int) -> list[int]:
    """Return how many rates go on after each rung."""
    left = []
    for rung in range(len(RUNGS)):
        last = rung == len(RUNGS) - 1
        count = 1 if last else max(1, math.ceil(count / 2))
        left.append(count)
    return left


def search_factor(count: int) -> float:
    """Return the steps of a stage with a search over `count` rates, in steps of one training."""
    total, before, running = 0.0, 0.0, count
    for rung, left in zip(RUNGS, survivors(count), strict=True):
        total += running * (rung - before)
        before, running = rung, left
    return total + (1 - before)


def search_validations(count: int) -> int:
    """Return the number of validations of a stage with a search, with those of step 0."""
    total, before, running = count, 0.0, count
    for rung, left in zip(RUNGS, survivors(count), strict=True):
        total += running * round((rung - before) * EVALUATIONS)
        before, running = rung, left
    return total + round((1 - before) * EVALUATIONS)


@dataclass(frozen=True)
class Shape:
    """Which stages there are.

    Args:
        rates: The number of learning rates that are tried.
        several: Whether there are several domains to unify.
        frozen: Whether heads on the frozen trunk are solved first.
        dense: Whether decoders are trained for them.
        continued: Whether the chosen network is trained for the rest of the time.
    """

    rates: int
    several: bool = True
    frozen: bool = True
    dense: bool = False
    continued: bool = True


def seconds_by_stage(costs: Costs, steps: int, shape: Shape) -> dict[str, float]:
    """Return the estimated seconds of each stage.

    Args:
        steps: Of each network that is compared.
        shape: Which stages there are.
    """
    factor, validations = search_factor(shape.rates), search_validations(shape.rates)
    searched = validations * costs.validation + costs.end
    once = (EVALUATIONS + 1) * costs.validation + costs.end
    found = {}
    if shape.frozen:
        # features of all images once, the evaluation, and the first report with its floors
        found[FROZEN] = costs.epoch * costs.joint / 3 + 3 * costs.end
        if shape.dense:
            found[FROZEN] += DECODER_STEPS * steps * costs.joint + once
    found[SPECIALISTS] = factor * steps * costs.specialists + searched
    step = costs.joint
    if shape.several:
        taught = step = TEACHERS * costs.joint
        found |= {
            JOINT: factor * steps * costs.joint + searched,
            DISTILLED: factor * steps * taught + searched,
            ADAPTERS: ADAPTER_SHARE * steps * WITH_ADAPTERS * taught + once,
        }
    if shape.continued:
        found[CONTINUED] = CONTINUED_SHARE * steps * step + once
    return {**found, "choice and report": REPORT + CHOICES * costs.validation}


def make_plan(costs: Costs, seconds: float, shape: Shape, used: float = 0.0) -> Plan:
    """Return the longest plan that fits the time; BadInput if not even one epoch does.

    Args:
        seconds: The time for everything.
        shape: Which stages there are.
        used: The time that is used already.
    """

    def total(steps: int) -> float:
        return math.fsum(seconds_by_stage(costs, steps, shape).values())

    fixed = total(0)
    per_step = total(1) - fixed
    most = max(MIN_STEPS, math.ceil(MAX_EPOCHS * costs.epoch))
    steps = min(most, math.floor((seconds - used - fixed) / per_step))
    least = max(MIN_STEPS, costs.epoch)
    if steps < least:
        enough = 1.1 * (total(least) + used)
        raise BadInput(
            "the time is too short for one pass over the largest domain in each stage",
            got=duration(seconds),
            try_=f"--time {in_minutes(enough)}m, smaller images, or fewer of them",
        )
    return Plan(steps, seconds_by_stage(costs, steps, shape))


def in_minutes(seconds: float) -> int:
    """Return minutes, rounded up."""
    return max(1, math.ceil(seconds / 60))


def parse_time(text: str) -> float:
    """Return the seconds in a duration such as "90m", "2h", "1h30m" or "600s"."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    parts = match.groups() if match and text else (None, None, None)
    seconds = sum(
        float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True) if part
    )
    if not seconds > 0:
        raise BadInput("expected a duration, such as 30m, 2h or 1h30m", got=text, place="--time")
    return seconds
