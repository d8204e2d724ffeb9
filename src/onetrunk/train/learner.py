"""The learner: a model with all state that changes in training, and one step of training.

A step is a list of pure batches. L = mean over the step's batches of w·ℓ, so every domain counts
equally whatever its size (Bilen & Vedaldi 2017). Shared parameters take ∇L; a domain's own
parameters the mean over its own batches, so the rate of a head does not fall as domains are added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from onetrunk.config import Distill, Train
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch, Loader
from onetrunk.errors import Diverged, Failed, shorten
from onetrunk.nn.feature_points import NO_POINTS, Outputs, Points
from onetrunk.nn.universal import Universal
from onetrunk.store.run_folder import Saved
from onetrunk.train.clock import Clock, Means
from onetrunk.train.device import Precision
from onetrunk.train.distill.distiller import Distiller
from onetrunk.train.distill.lwf import OldPredictions
from onetrunk.train.distill.stored_teachers import fixed_of
from onetrunk.train.distill.teachers import Teacher
from onetrunk.train.ema import Average
from onetrunk.train.losses import Losses
from onetrunk.train.mixup import Mixup
from onetrunk.train.objective import BatchLosses, Objective, Rerun
from onetrunk.train.optimizer import Optimizers, tensors_under
from onetrunk.train.selection import Selection
from onetrunk.train.weighting import Weighting

NO_DISTILL = Distill()


class NotFinite(Diverged):
    """A loss that is NaN or infinite."""

    def __init__(self, step: int, domain: str, task: str, value: float, files: list[str]) -> None:
        super().__init__(
            f"the loss of {domain}/{task} is {value} at step {step}; files of the batch: "
            f"{shorten(files, 6)}; the last checkpoint is intact",
            try_="check these files, or start a new run with a lower train.lr or train.clip = 1",
        )
        self.record = {"step": step, "domain": domain, "task": task, "files": files}


@dataclass
class Learner:
    """A model in training."""

    model: Universal
    domains: Sequence[Domain]
    train: Train
    device: torch.device
    seed: int
    teachers: Mapping[str, Sequence[Teacher]] = field(default_factory=dict)  # by domain
    distill: Distill = NO_DISTILL
    old_predictions: OldPredictions | None = None  # learning without forgetting

    def __post_init__(self) -> None:
        train, domains = self.train, self.domains
        self.model.to(self.device)
        self.model.zero_grad()  # left by the caller
        if train.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.precision = Precision.of(train.precision, self.device)
        self.losses = Losses(domains, train.label_smoothing, train.class_weights == "balanced")
        self.mixup = Mixup(train.mixup, self.seed)
        self.optimizers = Optimizers(self.model, train)
        self.distiller = Distiller(
            self.model, domains, self.teachers, self.distill, train, self.precision, self.seed
        )
        if self.old_predictions is not None:
            self.old_predictions.follow(self.model, self.precision, train.channels_last)
        self.average = Average(self.model, train.ema) if train.ema else None
        self.loader = Loader(
            domains,
            train.batch,
            seed=self.seed,
            sampling=train.sampling,
            temperature=train.temperature,
            workers=train.workers,
            pin=self.device.type == "cuda",
            fixed={n: fixed for n, t in self.teachers.items() if (fixed := fixed_of(t))},
        )
        epoch = self.loader.sampler.steps_per_epoch
        self.objective = Objective(
            self.model,
            domains,
            train,
            self.precision,
            self.seed,
            epoch,
            self.distill.label_weight,
        )
        self.clock = Clock.of(train, epoch)
        self.selection = Selection(train.patience, all(d.unlabelled for d in domains))
        self.means = Means()
        self.forward = self.model.joined
        if train.compile:
            self.forward = torch.compile(self.forward)

    def passes(self) -> Generator[list[list[Batch]]]:
        """Yield the forward passes of each step, endlessly: lists of batches that run together.

        With `accumulate`, the gradients of several steps of the loader make one longer step.
        """
        joined = self.loader.sampler.joined
        steps = iter(self.loader)
        while True:
            before = self.loader.state()
            try:
                taken = [next(steps) for _ in range(self.train.accumulate)]
            except Failed:  # none of these steps was used; a resumed run starts with them
                self.loader.restore(before)
                raise
            yield taken if joined else [[batch] for batches in taken for batch in batches]

    def step(self, passes: Sequence[Sequence[Batch]]) -> dict[str, float]:
        """Train on the batches of one step; return the loss of each unit "domain/task"."""
        batches = [batch for group in passes for batch in group]
        times = Counter(batch.domain for batch in batches)  # batches of each domain

        # forward passes; backward too, unless the weighting needs all losses first
        losses: dict[tuple[str, str], list[Tensor]] = {}  # by domain, and "/task" or " distilled"
        self.objective.begin(batches)
        for group in passes:
            group_losses, rerun = self._forward(group)
            for each in group_losses:
                for task, loss in each.losses.items():
                    losses.setdefault((each.batch.domain, f"/{task}"), []).append(loss.detach())
                for source, loss in each.distilled.items():
                    losses.setdefault((each.batch.domain, f" {source}"), []).append(loss.detach())
            self.objective.add(group_losses, rerun)
        values = self._finite(losses, batches)
        self.objective.finish()

        # L is a mean over all batches; a domain's own parameters take the mean over its own
        for name, count in times.items():
            if own := self.optimizers.gradients([name]) + self.distiller.gradients([name]):
                torch._foreach_mul_(own, len(batches) / count)
        if self.train.clip:
            self.precision.unscale(self.optimizers.for_domains(times))
            self.optimizers.clip(times)

        progress, scaler = self.clock.progress, self.precision.scaler
        rate = self.optimizers.step(times, progress, scaler)
        self.distiller.step(times, progress, scaler)
        self.precision.update()
        self.objective.after_update()
        if self.average is not None:
            self.average.step(times)

        units = {domain + key: v for (domain, key), v in values.items() if key.startswith("/")}
        distilled = {domain + key: v for (domain, key), v in values.items() if key.startswith(" ")}
        images = Counter(batch.domain for batch in batches for _ in batch.places)
        self.means.add(units, images, rate, distilled)
        return units

    def _forward(self, group: Sequence[Batch]) -> tuple[list[BatchLosses], Rerun]:
        """Run batches through the network together; return their losses."""
        inputs = [self.mixup(self._moved(batch), self.clock.step) for batch in group]
        names = [batch.domain for batch in group]

        def through(points: Points = NO_POINTS) -> Iterator[tuple[BatchLosses, Tensor, Outputs]]:
            with self.precision.autocast():
                insides = self.forward([x for x, _ in inputs], names, points)
            for batch, inside, (x, shares) in zip(group, insides, inputs, strict=True):
                losses = self.losses(batch.domain, inside.predictions, shares)
                yield BatchLosses(batch, losses, {}), x, inside

        group_losses = []
        clock = self.clock
        for each, x, inside in through(self.distiller.points):
            each.distilled = self.distiller.losses(
                each.batch, x, inside, clock.progress, clock.step
            )
            if self.old_predictions is not None:
                old = self.old_predictions.loss(each.batch.domain, x, clock.step)
                each.distilled["old predictions"] = old
            group_losses.append(each)
        return group_losses, lambda: [each for each, _, _ in through()]

    def _moved(self, batch: Batch) -> Batch:
        moved = batch.to(self.device, next(self.model.parameters()).dtype)
        if not self.train.channels_last:  # images arrive channels_last, and outputs would follow
            moved.images = moved.images.contiguous()
        return moved

    def _finite(
        self, losses: Mapping[tuple[str, str], list[Tensor]], batches: Sequence[Batch]
    ) -> dict[tuple[str, str], float]:
        """Return the mean losses as numbers; raise NotFinite before any parameter has changed."""
        flat = torch.stack([loss for values in losses.values() for loss in values])
        numbers = iter(flat.tolist())  # the only synchronization with the device in a step
        means: dict[tuple[str, str], float] = {}
        for (domain, key), tensors in losses.items():
            values = [next(numbers) for _ in tensors]
            own = [batch for batch in batches if batch.domain == domain]
            for value, batch in zip(values, own, strict=True):
                if not abs(value) < float("inf"):
                    split = next(d for d in self.domains if d.name == domain).train
                    files = [split.key(int(place)) for place in batch.places]
                    raise NotFinite(self.clock.step + 1, domain, key[1:], value, files)
            means[domain, key] = sum(values) / len(values)
        return means

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights inside the block, if they are kept."""
        with self.average.applied() if self.average is not None else nullcontext():
            yield

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next step depends on: tensors, and other values as JSON."""
        weights = self.model.state_dict()
        floats = [name for name, tensor in weights.items() if tensor.is_floating_point()]
        # one check for all tensors, because each check synchronizes with the device
        finite = torch.stack([torch.isfinite(weights[name]).all() for name in floats])
        if not bool(finite.all()):
            name = next(n for n, fine in zip(floats, finite.tolist(), strict=True) if not fine)
            raise Diverged(
                f"{name} is not finite after step {self.clock.step}, though every loss was; the "
                "last checkpoint is intact",
                try_="a new run with a lower train.lr or with train.clip = 1",
            )
        tensors = {f"model/{name}": tensor for name, tensor in weights.items()}
        for prefix, state in self._parts().items():
            tensors |= {f"{prefix}/{name}": tensor for name, tensor in state.state().items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        scaler = self.precision.scaler
        values = {
            "clock": self.clock.state(),
            "means": self.means.state(),
            "selection": self.selection.state(),
            "loader": self.loader.state(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "averaged": {} if self.average is None else {**self.average.updates},
        }
        return tensors, values

    def restore(self, saved: Saved) -> None:
        """Load a checkpoint."""
        tensors = saved.tensors()
        self.model.load_state_dict(tensors_under("model", tensors))
        for prefix, part in self._parts().items():
            part.restore(tensors_under(prefix, tensors))
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random/cuda"], self.device)
        self.clock.restore(saved.state["clock"])
        self.means.restore(saved.state["means"])
        self.selection.restore(saved.state["selection"])
        self.loader.restore(saved.state["loader"])
        if self.precision.scaler is not None:
            self.precision.scaler.load_state_dict(saved.state["scaler"])
        if self.average is not None:
            self.average.updates.update(saved.state["averaged"])

    def load_evaluated(self, saved: Saved) -> None:
        """Load the weights that were evaluated at a checkpoint: the averaged ones, if kept."""
        tensors = saved.tensors()
        self.model.load_state_dict(
            tensors_under("model", tensors) | tensors_under("average", tensors)
        )

    def _parts(self) -> dict[str, Optimizers | Distiller | Weighting | Average]:
        """Return the parts that have tensors to save, by their prefix in a checkpoint."""
        parts: dict[str, Optimizers | Distiller | Weighting | Average] = {
            "optimizer": self.optimizers,
            "distill": self.distiller,
            "weighting": self.objective.weighting,
        }
        return parts if self.average is None else {**parts, "average": self.average}
