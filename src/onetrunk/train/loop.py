"""The loop: one network learned on many domains.

A step is a list of pure batches. L = mean over the step's batches of w·ℓ, so every domain counts
equally whatever its size (Bilen & Vedaldi 2017). What is shared descends ∇L; what a domain owns
descends the mean over its own batches, so that a head's rate does not fall as domains are added.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from onetrunk.config import Distill, Train
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch, Loader
from onetrunk.data.seeded import seed_of
from onetrunk.errors import Diverged, Failed
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn.feature_points import NOWHERE, Inside, Points
from onetrunk.nn.universal import Universal
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.clock import Clock
from onetrunk.train.device import Precision, deterministic, start_generators
from onetrunk.train.distill.distiller import Distiller
from onetrunk.train.distill.lwf import Memory
from onetrunk.train.distill.stored_teachers import fixed_of
from onetrunk.train.distill.teachers import Teacher
from onetrunk.train.ema import Average
from onetrunk.train.interrupt import Stop, stoppable, stopped
from onetrunk.train.loggers import Watch
from onetrunk.train.losses import Losses
from onetrunk.train.mixup import Mixup
from onetrunk.train.objective import Again, Objective, Told
from onetrunk.train.optimizer import Descent
from onetrunk.train.selection import Selection
from onetrunk.train.state import restore, snapshot, take_weights
from onetrunk.train.tally import Tally

NOBODY: Mapping[str, Sequence[Teacher]] = MappingProxyType({})
NOTHING = Distill()
CHECKPOINT = 300.0  # seconds that a kill costs at most, beside the checkpoints by steps


@dataclass
class Learner:
    """A model with everything that moves while it learns."""

    model: Universal
    domains: Sequence[Domain]
    train: Train
    device: torch.device
    seed: int
    teachers: Mapping[str, Sequence[Teacher]] = field(default_factory=dict)  # by domain
    distill: Distill = NOTHING
    memory: Memory | None = None  # of the domains of the run that this one starts from

    def __post_init__(self) -> None:
        train, domains = self.train, self.domains
        self.model.to(self.device)
        self.model.zero_grad()  # what somebody else's backward pass left is nobody's lesson
        if train.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.precision = Precision.of(train.precision, self.device)
        self.losses = Losses(domains, train.label_smoothing, train.class_weights == "balanced")
        self.mixup = Mixup(train.mixup, self.seed)
        self.descent = Descent(self.model, train)
        self.distiller = Distiller(
            self.model, domains, self.teachers, self.distill, train, self.precision, self.seed
        )
        if self.memory is not None:
            self.memory.follow(self.model, self.precision, train.channels_last)
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
        self.objective = Objective(
            self.model,
            domains,
            train,
            self.precision,
            self.seed,
            self.loader.sampler.steps_per_epoch,
            self.distill.label_weight,
        )
        self.clock = Clock.of(train, self.loader.sampler.steps_per_epoch)
        self.selection = Selection(train.patience, all(d.unlabelled for d in domains))
        self.tally = Tally()
        self.forward = self.model.joined
        if train.compile:
            self.forward = torch.compile(self.forward)

    def step(self, passes: Sequence[Sequence[Batch]]) -> dict[str, float]:
        """Batches to losses to gradients to descent; the loss of every unit.

        `passes`: what goes through the network together: one batch, or one of every domain.
        """
        batches = [batch for group in passes for batch in group]
        times = Counter(batch.domain for batch in batches)
        losses: dict[str, list[Tensor]] = {}
        self.objective.begin(batches)
        for group in passes:
            told, again = self._told(group)
            for one in told:
                name = one.batch.domain
                for task, loss in one.losses.items():
                    losses.setdefault(f"{name}/{task}", []).append(loss.detach())
                for what, loss in one.taught.items():
                    losses.setdefault(f"{name} {what}", []).append(loss.detach())
            self.objective.add(told, again)
        found = self._finite(losses, batches)
        self.objective.finish()

        for name, count in times.items():
            if own := self.descent.gradients([name]) + self.distiller.gradients([name]):
                torch._foreach_mul_(own, len(batches) / count)
        if self.train.clip:
            self.precision.unscale(self.descent.of(times))
            self.descent.clip(times)
        progress, scaler = self.clock.progress, self.precision.scaler
        rate = self.descent.step(times, progress, scaler)
        self.distiller.step(times, progress, scaler)
        self.precision.update()
        self.objective.saw()
        if self.average is not None:
            self.average.step(times)
        units = {unit: value for unit, value in found.items() if "/" in unit}
        taught = {what: value for what, value in found.items() if what not in units}
        images = Counter(batch.domain for batch in batches for _ in batch.places)
        self.tally.add(units, images, rate, taught)
        return units

    def _told(self, group: Sequence[Batch]) -> tuple[list[Told], Again]:
        """Batches through the network together; what their labels and their teachers say."""
        seen = [self.mixup(self._moved(batch), self.clock.step) for batch in group]
        names = [batch.domain for batch in group]

        def through(points: Points = NOWHERE) -> Iterator[tuple[Told, Tensor, Inside]]:
            with self.precision.autocast():
                insides = self.forward([x for x, _ in seen], names, points)
            for batch, inside, (x, shares) in zip(group, insides, seen, strict=True):
                losses = self.losses(batch.domain, inside.predictions, shares)
                yield Told(batch, losses, {}), x, inside

        told = []
        now = self.clock
        for one, x, inside in through(self.distiller.points):
            one.taught = self.distiller.losses(one.batch, x, inside, now.progress, now.step)
            if self.memory is not None:
                one.taught["old predictions"] = self.memory.loss(one.batch.domain, x, now.step)
            told.append(one)
        return told, lambda: [one for one, _, _ in through()]

    def passes(self) -> Generator[list[list[Batch]]]:
        """Endless steps. Gradients of several steps added up are those of one longer step."""
        joined = self.train.sampling == "joined"
        steps = iter(self.loader)
        while True:
            before = self.loader.state()
            try:
                taken = [next(steps) for _ in range(self.train.accumulate)]
            except Failed:  # of these steps nothing was learned: whoever goes on has them again
                self.loader.restore(before)
                raise
            yield taken if joined else [[batch] for batches in taken for batch in batches]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model as it is evaluated: with its averaged weights, if it has them."""
        with self.average.applied() if self.average is not None else nullcontext():
            yield

    def _moved(self, batch: Batch) -> Batch:
        moved = batch.to(self.device, next(self.model.parameters()).dtype)
        if not self.train.channels_last:  # as they come, their layout would decide that of all
            moved.images = moved.images.contiguous()
        return moved

    def _finite(self, units: dict[str, list[Tensor]], batches: Sequence[Batch]) -> dict[str, float]:
        """The losses as numbers; one that is not finite ends the run before anything is moved."""
        flat = torch.stack([value for values in units.values() for value in values])
        numbers = iter(flat.tolist())  # the step's one wait for the device
        found = {unit: [next(numbers) for _ in values] for unit, values in units.items()}
        for unit, values in found.items():
            domain, _, task = unit.replace(" ", "/", 1).partition("/")
            own = [batch for batch in batches if batch.domain == domain]
            for value, batch in zip(values, own, strict=True):
                if not abs(value) < float("inf"):
                    split = next(d for d in self.domains if d.name == domain).train
                    files = [split.key(int(place)) for place in batch.places]
                    raise NotFinite(self.clock.step + 1, domain, task, value, files)
        return {unit: sum(values) / len(values) for unit, values in found.items()}


class NotFinite(Diverged):
    """A loss that is NaN or infinite."""

    def __init__(self, step: int, domain: str, task: str, value: float, files: list[str]) -> None:
        shown = ", ".join(files[:6]) + (f", … ({len(files)} in all)" if len(files) > 6 else "")
        super().__init__(
            f"the loss of {domain}/{task} is {value} at step {step}; files of the batch: {shown}; "
            "nothing after it was written and the last checkpoint is whole; try: look at these "
            "files, or start a new run with a lower train.lr or with train.clip = 1"
        )
        self.record = {"step": step, "domain": domain, "task": task, "files": files}


def fit(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    run: RunFolder,
    watch: Watch,
    *,
    part: str = "",
    device: torch.device,
    seed: int = 0,
    teachers: Mapping[str, Sequence[Teacher]] = NOBODY,
    distill: Distill = NOTHING,
    memory: Memory | None = None,
) -> Selection:
    """Learn; the model ends with the weights of its best evaluation. Goes on from `run`."""
    with stoppable() as stop, deterministic(train.deterministic, device):
        start_generators(seed_of(seed, part, "fit"), device)
        learner = Learner(model, domains, train, device, seed, teachers, distill, memory)
        if (saved := run.last(part)) is not None:
            restore(learner, saved)
            # what a kill between a checkpoint and its pruning left
            run.prune(part, train.keep_checkpoints, {saved.step, learner.selection.step})
        learn(learner, run, watch, part, stop)
        take_weights(learner, run.at(part, learner.selection.step))
    return learner.selection


def learn(learner: Learner, run: RunFolder, watch: Watch, part: str, stop: Stop) -> None:
    """From wherever the learner is to the end."""
    clock, tally, selection = learner.clock, learner.tally, learner.selection
    clock.start()
    names = [domain.name for domain in learner.domains]
    plan = {"part": part, "step": clock.step, "steps": clock.steps, "domains": names}
    written = time.monotonic()
    learner.model.train()
    if not any(p.requires_grad for p in learner.model.trunk.parameters()):
        learner.model.trunk.eval()  # of a frozen trunk the statistics stay, too
    with shown(watch, {**plan, "run": str(run.path)}), closing(learner.passes()) as steps:
        while stop.asked or not (clock.over or selection.enough):
            if stop.asked:
                save(learner, run, part)
                raise stopped(f"at step {clock.step} of {clock.described}", run.path)
            try:
                passes = next(steps)
            except Failed:  # the images cannot come: a worker died, a disk is gone
                if stop.asked:  # of the signal that has come here, too
                    continue
                save(learner, run, part)
                raise
            learner.step(passes)
            clock.tick()

            if clock.log_due:
                record = {"step": clock.step, "part": part, **tally.take(clock)}
                run.log(record)
                watch.step(record)
            if evaluated := clock.evaluation_due:
                record = {"step": clock.step, "part": part, **validate(learner)}
                run.log(record)
                watch.evaluated(record)
            late = time.monotonic() - written > CHECKPOINT
            if evaluated or late or clock.step % learner.train.checkpoint_every == 0:
                save(learner, run, part)
                written = time.monotonic()


@contextmanager
def shown(watch: Watch, plan: Mapping[str, Any]) -> Iterator[None]:
    """The watch is told of the end, whatever it is."""
    watch.begin(plan)
    try:
        yield
    finally:
        watch.end()


def validate(learner: Learner) -> dict[str, Any]:
    """Headline errors on the validation splits, and whether they are the best so far."""
    with learner.applied():
        table = evaluate(learner.model, learner.domains, "val", progress=False)
    best = learner.selection.see(learner.clock.step, table)
    values = {f"{r.domain}/{r.task}/{r.metric}": r.value for r in table.rows if r.headline}
    return {"val": values, "score": learner.selection.last, "best": best}


def save(learner: Learner, run: RunFolder, part: str) -> None:
    """A checkpoint: everything that the next step depends on."""
    tensors, state = snapshot(learner)
    run.save(part, learner.clock.step, tensors, state)
    run.prune(part, learner.train.keep_checkpoints, {learner.selection.step})
