"""What a step descends: its units' losses, balanced, and what teachers add.

L = mean over the step's batches of w_domain · [ w_label · mean over its tasks of λ·ℓ + taught ],

λ the weight that the weighting gives to the unit (domain, task): 1 for `equal`. A weighting that works
on gradients takes the place of this sum on what several units share: the trunk, and of a domain
with several tasks its slots and its decoder; heads learn from their own losses, as they always do.
A domain without labels has no units: only teachers speak of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.nn.heads import key_of
from onetrunk.nn.universal import Universal
from onetrunk.train.device import Precision
from onetrunk.train.weighting import make_weighting
from onetrunk.train.weighting.equal import Equal
from onetrunk.train.weighting.jacobian import Jacobian
from onetrunk.train.weighting.protocol import GRADIENTS


@dataclass
class Told:
    """What a batch's labels and teachers say of the network's predictions."""

    batch: Batch
    losses: dict[str, Tensor]  # by task, with their graphs
    taught: dict[str, Tensor]  # of teachers "features" and "logits", and "old answers"; weighted


Again = Callable[[], list[Told]]  # the same images once more through the network, without teachers


class Objective:
    """The weighting of one run, and one step at a time what comes of it."""

    def __init__(
        self,
        model: Universal,
        domains: Sequence[Domain],
        train: Train,
        precision: Precision,
        seed: int,
        epoch: int,
        label_weight: float = 1.0,
    ) -> None:
        self.precision, self.label_weight = precision, label_weight
        self.weights = {domain.name: domain.weight for domain in domains}
        self.tasks = {
            domain.name: [] if domain.unlabelled else [task.name for task in domain.tasks]
            for domain in domains
        }
        self.units = tuple(f"{name}/{task}" for name, tasks in self.tasks.items() for task in tasks)
        self.number = {unit: i for i, unit in enumerate(self.units)}
        name, given = train.weighting, train.weighting_settings
        if not self.units:
            name, given = "equal", {}
        self.weighting = make_weighting(
            name,
            self.units or ("nobody/nothing",),
            seed=seed,
            device=precision.device,
            settings=given,
            epoch=epoch,
        )
        self.equal = type(self.weighting) is Equal
        if self.weighting.needs in GRADIENTS:
            self.shared, self.own = shared_and_own(model, self.tasks)
        if self.weighting.needs == "after":
            self.stats = stats_of(model)

    # -- a step: begin, add each pass, finish, then after the descent saw

    def begin(self, batches: Sequence[Batch]) -> None:
        """The batches of a step, before anything is computed."""
        self.count = len(batches)
        self.times = Counter(batch.domain for batch in batches)
        self.present = sorted(
            self.number[f"{name}/{task}"] for name in self.times for task in self.tasks[name]
        )
        self.plain = self.equal or not self.present  # nothing is multiplied
        self.by_gradients = not self.plain and self.weighting.needs in GRADIENTS
        self.held: list[Told] = []
        self.again: list[Again] = []
        self.sums: dict[int, Tensor] = {}
        self.lambdas: Mapping[int, Tensor] | None = None
        if self.plain:
            self.lambdas = {}
        elif self.weighting.needs == "nothing":
            self.lambdas = self._by_unit(self.weighting.weights(None, self.present))
        elif self.by_gradients:
            scaler = self.precision.scaler
            self.jacobian = Jacobian(self.shared, self.units, scaler)

    def add(self, told: Sequence[Told], again: Again) -> None:
        """What went through the network together."""
        if not self.plain:
            self._sum(told)
        if not self.plain and self.weighting.needs == "after":
            self.again.append(again)
        if self.by_gradients:
            self._rows(told)
        elif self.lambdas is None:
            self.held += told  # their graphs with them
        else:
            self._backward(told, self.lambdas)

    def finish(self) -> None:
        """The gradients of the whole step, once its losses are known to be finite."""
        if self.by_gradients:
            self.jacobian.learn(self.weighting)
        elif self.lambdas is None:
            found = self.weighting.weights(self._losses(), self.present)
            self._backward(self.held, self._by_unit(found))

    def saw(self) -> None:
        """The parameters have moved."""
        if self.plain:
            return
        self.weighting.saw(self._losses(), self.present)
        if self.weighting.needs == "after":
            self.sums = {}
            stats = [m for name in ("", *self.times) for m in self.stats[name]]
            with torch.no_grad(), unmoved(stats):
                for again in self.again:
                    self._sum(again())
            self.weighting.saw_after(self._losses(), self.present)
        self.held, self.again, self.sums = [], [], {}

    # -- how

    def _sum(self, told: Sequence[Told]) -> None:
        for one in told:
            for task, loss in one.losses.items():
                unit = self.number[f"{one.batch.domain}/{task}"]
                before = self.sums.get(unit)
                self.sums[unit] = loss.detach() if before is None else before + loss.detach()

    def _backward(self, told: Sequence[Told], lambdas: Mapping[int, Tensor]) -> None:
        """Of L or a part of it; its graphs are gone."""
        total = torch.zeros((), device=self.precision.device)
        for one in told:
            name = one.batch.domain
            losses = [
                loss if self.plain else lambdas[self.number[f"{name}/{task}"]] * loss
                for task, loss in one.losses.items()
            ]
            mean = torch.stack(losses).mean() if losses else torch.zeros_like(total)
            if one.taught:
                mean = self.label_weight * mean + sum(one.taught.values())
            total = total + self.weights[name] * mean / self.count
        self.precision.backward(total)

    def _rows(self, told: Sequence[Told]) -> None:
        """Gradients whose mean over the K units is that of L."""
        for one in told:
            if one.taught:  # no weighting weighs them: they have weights of their own
                taught = torch.stack(list(one.taught.values())).sum()
                part = self.weights[one.batch.domain] / self.count
                self.precision.backward(part * taught, again=True)
        units = [
            (self.number[f"{one.batch.domain}/{task}"], one.batch.domain, loss)
            for one in told
            for task, loss in one.losses.items()
        ]
        rows = {u: len(self.present) * self.times[name] for u, name, _ in units}
        labels = {one.batch.domain: self.label_weight if one.taught else 1.0 for one in told}
        parts = {
            name: labels[name] * self.weights[name] / (len(self.tasks[name]) * self.count)
            for name in labels
            if self.tasks[name]
        }
        self.jacobian.add(
            [(u, rows[u] * parts[name] * loss) for u, name, loss in units],
            {u: self.own[self.units[u]] for u, _, _ in units},
            {u: 1 / rows[u] for u, _, _ in units},
        )

    def _losses(self) -> Tensor:
        """Of the units that are present, means over their batches."""
        means = [
            self.sums[unit] / self.times[self.units[unit].partition("/")[0]]
            for unit in self.present
        ]
        return torch.stack(means)

    def _by_unit(self, weights_K: Tensor) -> dict[int, Tensor]:
        return dict(zip(self.present, weights_K.unbind(), strict=True))


def shared_and_own(
    model: Universal, tasks: Mapping[str, Sequence[str]]
) -> tuple[list[nn.Parameter], dict[str, list[nn.Parameter]]]:
    """What several units move, and by unit what it moves alone."""
    shared = list(model.shared_parameters().values())
    own: dict[str, list[nn.Parameter]] = {}
    taken = set(map(id, shared))
    for name, mine in tasks.items():
        free = {k: p for k, p in model.parameters_of(name).items() if id(p) not in taken}
        heads = {
            task: [k for k in free if k.startswith(f"heads/of.{key_of(task)}.")] for task in mine
        }
        for task, keys in heads.items():
            own[f"{name}/{task}"] = [free[k] for k in (keys if len(mine) > 1 else free)]
        if len(mine) > 1:
            alone = {k for keys in heads.values() for k in keys}
            shared += [p for k, p in free.items() if k not in alone]
    return shared, own


def stats_of(model: Universal) -> dict[str, list[Tensor]]:
    """Running statistics and the like, by the domain that owns them; "" for what is shared."""
    found = {
        name: [t for t in model.own(name).values() if not isinstance(t, nn.Parameter)]
        for name in model.domains
    }
    taken = {id(tensor) for mine in found.values() for tensor in mine}
    return {"": [t for t in model.buffers() if id(t) not in taken], **found}


@contextmanager
def unmoved(tensors: Sequence[Tensor]) -> Iterator[None]:
    """They are afterwards what they were."""
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, was in zip(tensors, before, strict=True):
            tensor.copy_(was)
