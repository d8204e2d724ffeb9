"""The objective of a step: the weighted losses of its units, plus what distillation adds.

L = mean over the step's batches of w_domain · [ w_label · mean over its tasks of λ·ℓ + distilled ],

where λ is the weight of the unit (domain, task) in the loss weighting: 1 for `equal`. A weighting
that works on gradients replaces this sum on the parameters that several units share: the trunk,
and the slots and the decoder of a domain with several tasks; heads are always trained on their own
losses. A domain without labels has no units; only teachers contribute to its loss.
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
from onetrunk.train.jacobian import Jacobian
from onetrunk.train.weighting import make_weighting


@dataclass
class BatchLosses:
    """The losses of one batch, with their graphs."""

    batch: Batch
    losses: dict[str, Tensor]  # by task
    distilled: dict[str, Tensor]  # by "features", "logits", "old predictions"; already weighted


# one more forward pass of the same images, without teachers
Rerun = Callable[[], list[BatchLosses]]


class Objective:
    """Computes the gradients of each step, with the run's loss weighting.

    Call `begin` before a step, `add` after each forward pass, `finish` when the losses are known to
    be finite, `after_update` when the parameters have changed.
    """

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
        name, settings = train.weighting, train.weighting_settings
        if not self.units:
            name, settings = "equal", {}
        self.weighting = make_weighting(
            name,
            self.units or ("no domain/no task",),
            seed=seed,
            device=precision.device,
            settings=settings,
            epoch=epoch,
        )
        if self.weighting.needs_gradients:
            self.shared, self.own = shared_and_own(model, self.tasks)
        if self.weighting.needs_losses_after:
            self.stats = running_stats(model)

    def begin(self, batches: Sequence[Batch]) -> None:
        """Start a step with these batches."""
        self.count = len(batches)
        self.times = Counter(batch.domain for batch in batches)
        self.present = sorted(
            self.number[f"{name}/{task}"] for name in self.times for task in self.tasks[name]
        )
        self.unweighted = self.weighting.uniform or not self.present  # no loss is multiplied
        self.by_gradients = not self.unweighted and self.weighting.needs_gradients
        self.batches: list[BatchLosses] = []
        self.reruns: list[Rerun] = []
        self.sums: dict[int, Tensor] = {}
        self.lambdas: Mapping[int, Tensor] | None = None  # None: not known yet
        if self.unweighted:
            self.lambdas = {}
        elif self.by_gradients:
            self.jacobian = Jacobian(self.shared, self.units, self.precision.scaler)
        elif not self.weighting.needs_losses:
            self.lambdas = self._by_unit(self.weighting.weights(None, self.present))

    def add(self, batches: Sequence[BatchLosses], rerun: Rerun) -> None:
        """Add the batches of one forward pass."""
        if not self.unweighted:
            self._sum(batches)
            if self.weighting.needs_losses_after:
                self.reruns.append(rerun)
        if self.by_gradients:
            self._add_rows(batches)
        elif self.lambdas is None:
            self.batches += batches  # with their graphs
        else:
            self._backward(batches, self.lambdas)

    def finish(self) -> None:
        """Complete the gradients of the step."""
        if self.by_gradients:
            self.jacobian.apply(self.weighting)
        elif self.lambdas is None:
            weights = self.weighting.weights(self._losses(), self.present)
            self._backward(self.batches, self._by_unit(weights))

    def after_update(self) -> None:
        """Update the weighting, after the parameters have changed."""
        if self.unweighted:
            return
        self.weighting.update(self._losses(), self.present)
        if self.weighting.needs_losses_after:
            self.sums = {}
            stats = [m for name in ("", *self.times) for m in self.stats[name]]
            with torch.no_grad(), restored(stats):
                for rerun in self.reruns:
                    self._sum(rerun())
            self.weighting.update_after(self._losses(), self.present)
        self.batches, self.reruns, self.sums = [], [], {}

    def _sum(self, batches: Sequence[BatchLosses]) -> None:
        for each in batches:
            for task, loss in each.losses.items():
                unit = self.number[f"{each.batch.domain}/{task}"]
                before = self.sums.get(unit)
                self.sums[unit] = loss.detach() if before is None else before + loss.detach()

    def _backward(self, batches: Sequence[BatchLosses], lambdas: Mapping[int, Tensor]) -> None:
        """Run the backward pass of L, or of these batches' part of it."""
        total = torch.zeros((), device=self.precision.device)
        for each in batches:
            name = each.batch.domain
            losses = [
                loss if self.unweighted else lambdas[self.number[f"{name}/{task}"]] * loss
                for task, loss in each.losses.items()
            ]
            mean = torch.stack(losses).mean() if losses else torch.zeros_like(total)
            if each.distilled:
                mean = self.label_weight * mean + sum(each.distilled.values())
            total = total + self.weights[name] * mean / self.count
        self.precision.backward(total)

    def _add_rows(self, batches: Sequence[BatchLosses]) -> None:
        """Add rows of the Jacobian, scaled so that their mean over the K units is ∇L."""
        for each in batches:
            if each.distilled:  # not weighted: these losses have weights of their own
                distilled = torch.stack(list(each.distilled.values())).sum()
                part = self.weights[each.batch.domain] / self.count
                self.precision.backward(part * distilled, retain=True)
        units = [
            (self.number[f"{each.batch.domain}/{task}"], each.batch.domain, loss)
            for each in batches
            for task, loss in each.losses.items()
        ]
        rows = {u: len(self.present) * self.times[name] for u, name, _ in units}
        labels = {
            each.batch.domain: self.label_weight if each.distilled else 1.0 for each in batches
        }
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
        """Return the mean loss of each unit over its batches, (K,)."""
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
    """Return the parameters that several units train, and those of each unit alone.

    Args:
        tasks: Names of tasks, by domain.
    """
    shared = list(model.shared_parameters().values())
    own: dict[str, list[nn.Parameter]] = {}
    taken = set(map(id, shared))
    for name, names in tasks.items():
        free = {k: p for k, p in model.parameters_of(name).items() if id(p) not in taken}
        heads = {
            task: [k for k in free if k.startswith(f"heads/of.{key_of(task)}.")] for task in names
        }
        for task, keys in heads.items():
            own[f"{name}/{task}"] = [free[k] for k in (keys if len(names) > 1 else free)]
        if len(names) > 1:
            in_heads = {k for keys in heads.values() for k in keys}
            shared += [p for k, p in free.items() if k not in in_heads]
    return shared, own


def running_stats(model: Universal) -> dict[str, list[Tensor]]:
    """Return running statistics and other buffers by the owning domain; "" for shared ones."""
    own = {
        name: [t for t in model.own(name).values() if not isinstance(t, nn.Parameter)]
        for name in model.domains
    }
    taken = {id(tensor) for tensors in own.values() for tensor in tensors}
    return {"": [t for t in model.buffers() if id(t) not in taken], **own}


@contextmanager
def restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore the values of these tensors after the block."""
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, saved in zip(tensors, before, strict=True):
            tensor.copy_(saved)
