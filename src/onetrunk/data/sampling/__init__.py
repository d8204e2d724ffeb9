"""Samplers: which images of which domains make up a step.

A step is a list of draws, each of one domain. The same seed gives the same draws on any machine,
with any number of workers, from any step on: the state of a sampler is the number of the step and
the number of batches of each domain so far. Each public file of this package is one way of choosing
the domains of a step; it binds its class to `SAMPLER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.seeded import permutation, seed_of
from onetrunk.errors import BadInput
from onetrunk.registry import Registry


class Sampling(Protocol):
    """How the domains of a step are chosen.

    Attributes:
        joined: Whether all batches of a step go through the network in one forward pass.
    """

    joined: bool

    def domains(
        self, sizes: Mapping[str, int], step: int, seed: int, temperature: float
    ) -> Sequence[str]:
        """Return the domains that give a batch in a step.

        Args:
            sizes: The number of training images of each domain.
        """
        ...

    def steps_per_epoch(self, rounds: Sequence[int]) -> int:
        """Return the steps of an epoch; `rounds` are the batches of one pass over each domain."""
        ...


SAMPLERS = Registry[type[Sampling]]("onetrunk.data.sampling", "sampler")
PARTS = ("joined", "domains", "steps_per_epoch")


def make_sampling(name: str) -> Sampling:
    """Return the sampler of this name: a built-in one, or a user's "package.module:thing"."""
    sampling = SAMPLERS.load(name)()
    if missing := [part for part in PARTS if not hasattr(sampling, part)]:
        raise BadInput(
            f"sampler {name}: expected a class with {', '.join(PARTS)}",
            got=f"{type(sampling).__name__} without {', '.join(missing)}",
        )
    return sampling


@dataclass(frozen=True)
class Draw:
    """One batch of a step.

    Attributes:
        places: Positions of the images in the domain's training split.
        views: Which view of each image: the number of the domain's epoch.
        seed: The seed of the domain's augmentation.
    """

    domain: str
    places: NDArray[np.int64]
    views: NDArray[np.int64]
    seed: int


@dataclass(frozen=True)
class Fixed:
    """A limited number of views per image: epoch e uses view e mod `views`, drawn with `seed`."""

    views: int
    seed: int


def views_seed(seed: int, domain: str) -> int:
    """Return the seed of a domain's augmentation, from the seed of the run."""
    return seed_of(seed, domain, "augment")


@dataclass
class Sampler:
    """Draws the steps of a training.

    Args:
        sizes: The number of training images of each domain.
        batches: The batch size of each domain.
        kind: A built-in sampler, or "package.module:thing".
        temperature: T of the sampler `temperature`.
        fixed: The domains with a limited number of views.
        step: The number of steps drawn so far.
        given: The number of batches of each domain so far.
    """

    sizes: Mapping[str, int]
    batches: Mapping[str, int]
    seed: int = 0
    kind: str = "round-robin"
    temperature: float = 2.0
    fixed: Mapping[str, Fixed] = field(default_factory=dict)
    step: int = 0
    given: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sampling = make_sampling(self.kind)
        for name, size in self.sizes.items():
            if size < 1 or self.batches[name] < 1:
                raise BadInput(
                    f"domain {name}: expected at least one image and a batch of at least 1",
                    got=f"{size} images, batch {self.batches[name]}",
                )
        if not self.temperature > 0:
            raise BadInput("expected a temperature above 0", got=self.temperature)
        self.given = {name: self.given.get(name, 0) for name in self.sizes}
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    @property
    def joined(self) -> bool:
        """Whether all batches of a step go through the network in one forward pass."""
        return self._sampling.joined

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch."""
        return self._sampling.steps_per_epoch(
            [-(-size // self.batches[name]) for name, size in self.sizes.items()]
        )

    def next(self) -> list[Draw]:
        """Return the draws of the next step."""
        names = self._sampling.domains(self.sizes, self.step, self.seed, self.temperature)
        self.step += 1
        return [self._draw(name) for name in names]

    def state(self) -> dict[str, object]:
        """Return the state for `restore`."""
        return {"step": self.step, "given": dict(self.given), "plan": self._plan()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Continue from a state of a sampler with the same domains, sizes and settings.

        With other ones, some images would be skipped and others repeated.
        """
        given, plan = state["given"], state["plan"]
        if not isinstance(given, Mapping) or set(given) != set(self.sizes):
            raise BadInput(
                "the state of the sampler belongs to other domains", got=given, available=self.sizes
            )
        if plan != self._plan():
            raise BadInput(
                "the state of the sampler belongs to other images, batch sizes, sampling or seed",
                got=plan,
                available=[str(self._plan())],
                try_="resume with the same data and settings, or start a new run",
            )
        self.step = int(str(state["step"]))
        self.given = {str(name): int(n) for name, n in given.items()}

    def _plan(self) -> list[object]:
        """Return everything that the draws depend on, except the step."""
        domains = [[name, n, self.batches[name]] for name, n in sorted(self.sizes.items())]
        fixed = [[name, f.views, f.seed] for name, f in sorted(self.fixed.items())]
        return [domains, self.kind, float(self.temperature), self.seed, *([fixed] if fixed else [])]

    def _draw(self, name: str) -> Draw:
        """Return a domain's next batch: its shuffled epochs end to end, cut into batches."""
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
        """Return a domain's order in an epoch; it does not depend on the other domains."""
        kept = self._orders.get(name)
        if kept is None or kept[0] != epoch:
            order = permutation(seed_of(self.seed, name, "order"), epoch, self.sizes[name])
            kept = self._orders[name] = (epoch, order)
        return kept[1]
