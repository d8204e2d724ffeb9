"""Which images of which domain make up a step.

A step is a list of draws, each of one domain. A sampler is its settings plus a few numbers: the
step, and how many batches each domain gave. The same seed gives the same draws on any machine, with
any number of workers, from any step on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.seeded import Chance, permutation, seed_of
from onetrunk.errors import BadInput

SAMPLINGS = ("round-robin", "temperature", "joined")


def views_seed(seed: int, domain: str) -> int:
    """Of the augmentation of a domain's images, of the seed of a run."""
    return seed_of(seed, domain, "augment")


@dataclass(frozen=True)
class Draw:
    """One domain's part of a step: places in its split, and which view of each image."""

    domain: str
    places: NDArray[np.int64]
    views: NDArray[np.int64]  # the epoch of that domain: every pass sees a new view
    seed: int  # of the domain's augmentation


@dataclass(frozen=True)
class Fixed:
    """So many views of each image, all that are ever seen: pass e sees view e mod `views`."""

    views: int
    seed: int  # of their augmentation


@dataclass
class Sampler:
    """Steps over domains of these sizes.

    `round-robin`: each domain gives one batch. `joined`: the same draws, for one forward pass.
    `temperature`: one batch a step, of a domain drawn with probability ∝ n^(1/T): T = 1 follows the
    sizes, T → ∞ treats all alike.
    """

    sizes: Mapping[str, int]  # images of each domain's training split
    batches: Mapping[str, int]  # of each domain
    seed: int = 0
    kind: str = "round-robin"
    temperature: float = 2.0
    fixed: Mapping[str, Fixed] = field(default_factory=dict)  # of domains that have such views
    step: int = 0
    given: dict[str, int] = field(default_factory=dict)  # batches given so far, by domain

    def __post_init__(self) -> None:
        if self.kind not in SAMPLINGS:
            raise BadInput("unknown sampling", got=self.kind, available=SAMPLINGS)
        for name, size in self.sizes.items():
            if size < 1 or self.batches[name] < 1:
                raise BadInput(
                    f"{name}: a domain has at least one image, and a batch too", got=size
                )
        if not self.temperature > 0:
            raise BadInput("temperature is above 0", got=self.temperature)
        self.given = {name: self.given.get(name, 0) for name in self.sizes}
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """One pass over the largest domain; with temperature, as many images as all have."""
        rounds = [-(-n // self.batches[name]) for name, n in self.sizes.items()]
        return sum(rounds) if self.kind == "temperature" else max(rounds)

    def next(self) -> list[Draw]:
        """The next step's draws."""
        if self.kind == "temperature":
            names = sorted(self.sizes)
            share = np.array([self.sizes[n] for n in names], np.float64) ** (1 / self.temperature)
            chance = float(Chance(seed_of(self.seed, "domain"), self.step, 0)(0))
            place = np.searchsorted(np.cumsum(share / share.sum()), chance, "right")
            chosen = [names[min(int(place), len(names) - 1)]]
        else:
            chosen = list(self.sizes)
        self.step += 1
        return [self._draw(name) for name in chosen]

    def state(self) -> dict[str, object]:
        """What `restore` needs."""
        return {"step": self.step, "given": dict(self.given), "plan": self._plan()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on where this state was taken; the plan must be the same, or images would be skipped
        and seen twice."""
        given, plan = state["given"], state["plan"]
        if not isinstance(given, Mapping) or set(given) != set(self.sizes):
            raise BadInput(
                "the sampler's state is of other domains", got=given, available=self.sizes
            )
        if plan != self._plan():
            raise BadInput(
                "the sampler's state is of other images, batch sizes, sampling or seed",
                got=plan,
                available=[str(self._plan())],
                try_="go on with the same data and settings, or start anew",
            )
        self.step = int(str(state["step"]))
        self.given = {str(name): int(n) for name, n in given.items()}

    def _plan(self) -> list[object]:
        """What the draws depend on, beside the step."""
        domains = [[name, n, self.batches[name]] for name, n in sorted(self.sizes.items())]
        fixed = [[name, f.views, f.seed] for name, f in sorted(self.fixed.items())]
        return [domains, self.kind, float(self.temperature), self.seed, *([fixed] if fixed else [])]

    def _draw(self, name: str) -> Draw:
        """The next images of a domain: its shuffled passes end to end, cut into batches."""
        size, batch = self.sizes[name], self.batches[name]
        first = self.given[name] * batch
        self.given[name] += 1
        at = np.arange(first, first + batch)
        epochs, offset = at // size, at % size
        places = np.empty(batch, np.int64)
        for epoch in np.unique(epochs):
            places[epochs == epoch] = self._order(name, int(epoch))[offset[epochs == epoch]]
        if (fixed := self.fixed.get(name)) is not None:
            return Draw(name, places, epochs % fixed.views, fixed.seed)
        return Draw(name, places, epochs, views_seed(self.seed, name))

    def _order(self, name: str, epoch: int) -> NDArray[np.int64]:
        """A domain's order depends on its own name and size alone: others may come and go."""
        kept = self._orders.get(name)
        if kept is None or kept[0] != epoch:
            order = permutation(seed_of(self.seed, name, "order"), epoch, self.sizes[name])
            kept = self._orders[name] = (epoch, order)
        return kept[1]
