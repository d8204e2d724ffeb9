"""The training loop: step, log, evaluate, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from types import MappingProxyType
from typing import Any

import torch

from onetrunk.config import Distill, Train
from onetrunk.data.domain import Domain
from onetrunk.data.seeded import seed_of
from onetrunk.errors import Failed
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn.norms import keeps_statistics
from onetrunk.nn.universal import Universal
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.callbacks import Callback, Callbacks, Training
from onetrunk.train.device import deterministic, start_generators
from onetrunk.train.distill.lwf import OldPredictions
from onetrunk.train.distill.teachers import Teacher
from onetrunk.train.interrupt import Stop, stoppable, stopped
from onetrunk.train.learner import NO_DISTILL, Learner
from onetrunk.train.loggers import Logger
from onetrunk.train.selection import Selection

NO_TEACHERS: Mapping[str, Sequence[Teacher]] = MappingProxyType({})
CHECKPOINT = 300.0  # the longest time between checkpoints, in seconds


class Paused(Exception):
    """A training has reached the step at which it pauses; its checkpoint is written."""


def fit(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    run: RunFolder,
    logger: Logger,
    *,
    part: str = "",
    device: torch.device,
    seed: int = 0,
    teachers: Mapping[str, Sequence[Teacher]] = NO_TEACHERS,
    distill: Distill = NO_DISTILL,
    old_predictions: OldPredictions | None = None,
    callbacks: Sequence[Callback] = (),
    pause_at: int | None = None,
) -> Selection:
    """Train a model in place, from the run's last checkpoint if it has one.

    The model ends with the weights of its best evaluation. `part` names the network in a run that
    trains several: a specialist's domain. At the step `pause_at`, if it is not the last one, the
    training is saved and `Paused` is raised; it continues from there like an interrupted one.
    """
    hooks = Callbacks(callbacks, Training(model, domains, run.path, part))
    with stoppable() as stop, deterministic(train.deterministic, device):
        start_generators(seed_of(seed, part, "fit"), device)
        learner = Learner(model, domains, train, device, seed, teachers, distill, old_predictions)
        if (saved := run.last(part)) is not None:
            learner.restore(saved)
            hooks.restore(saved.state.get("callbacks", {}))
            # a killed run may have written a checkpoint without removing old ones
            run.prune(part, train.keep_checkpoints, {saved.step, learner.selection.step})
        train_loop(learner, run, logger, part, stop, hooks, pause_at)
        learner.load_evaluated(run.at(part, learner.selection.step))
    return learner.selection


def train_loop(
    learner: Learner,
    run: RunFolder,
    logger: Logger,
    part: str,
    stop: Stop,
    hooks: Callbacks,
    pause_at: int | None = None,
) -> None:
    """Train from the learner's current step to the end, or to a pause."""
    clock, selection = learner.clock, learner.selection
    plan = {
        "part": part,
        "step": clock.step,
        "steps": clock.steps,
        "domains": [domain.name for domain in learner.domains],
        "run": str(run.path),
    }
    learner.model.train()
    if not any(p.requires_grad for p in learner.model.trunk.parameters()):
        learner.model.trunk.eval()  # a frozen trunk keeps its running statistics, too
    if learner.train.fixed_statistics:
        for module in learner.model.trunk.modules():
            if keeps_statistics(module):
                module.eval()

    clock.start()
    written = time.monotonic()  # of the last checkpoint
    logger.begin(plan)
    with ExitStack() as stack:
        stack.callback(logger.end)
        hooks.training.step, hooks.training.steps = clock.step, clock.steps
        stack.enter_context(ending(hooks))
        hooks.call("on_start")
        hooks.raise_failure()
        if learner.train.evaluate_start and clock.step == 0 and not run.steps(part):
            evaluate_and_log(learner, run, logger, part, hooks)
            save(learner, run, part, hooks)
            hooks.raise_failure()
        steps = stack.enter_context(closing(learner.passes()))
        while stop.requested or not (clock.over or selection.out_of_patience or hooks.stopping):
            if stop.requested:
                save(learner, run, part, hooks)
                raise stopped(f"at step {clock.step} of {clock.length}", run.path)
            if pause_at is not None and clock.step >= pause_at:
                raise Paused(f"at step {clock.step} of {clock.length}")

            # step
            try:
                passes = next(steps)
            except Failed:  # images cannot be read: a data worker died, or a disk is missing
                if stop.requested:  # because the workers got the signal, too
                    continue
                save(learner, run, part, hooks)
                raise
            losses = learner.step(passes)
            clock.tick()

            # log
            if clock.log_due:
                record = {"step": clock.step, "part": part, **learner.means.take(clock)}
                run.log(record)
                logger.log_step(record)

            hooks.step(clock.step, losses)

            # evaluate; also where a callback ends the training
            if evaluated := clock.evaluation_due() or hooks.training.stop_reason is not None:
                evaluate_and_log(learner, run, logger, part, hooks)

            # checkpoint
            late = time.monotonic() - written > CHECKPOINT
            due = clock.step % learner.train.checkpoint_every == 0 or clock.step == pause_at
            if evaluated or late or due or hooks.failure is not None:
                save(learner, run, part, hooks)
                written = time.monotonic()
            hooks.raise_failure()


def evaluate_and_log(
    learner: Learner, run: RunFolder, logger: Logger, part: str, hooks: Callbacks
) -> None:
    """Evaluate on the validation splits, and pass the scores on."""
    record = {"step": learner.clock.step, "part": part, **validate(learner)}
    run.log(record)
    logger.log_evaluation(record)
    hooks.evaluated(record)


@contextmanager
def ending(hooks: Callbacks) -> Iterator[None]:
    """Tell callbacks when the block ends, and how."""
    try:
        yield
    except BaseException as error:
        hooks.end(error)
        raise
    hooks.end(None)
    hooks.raise_failure()


def validate(learner: Learner) -> dict[str, Any]:
    """Evaluate on the validation splits: headline errors, and whether they are the best so far."""
    with learner.averaged():
        table = evaluate(learner.model, learner.domains, "val", notes=False)
    best = learner.selection.update(learner.clock.step, table)
    values = {f"{r.domain}/{r.task}/{r.metric}": r.value for r in table.rows if r.headline}
    return {"val": values, "score": learner.selection.last, "best": best}


def save(learner: Learner, run: RunFolder, part: str, hooks: Callbacks | None = None) -> None:
    """Write a checkpoint, and remove old ones except for the best."""
    tensors, state = learner.state()
    if hooks:
        state["callbacks"] = hooks.state()
    run.save(part, learner.clock.step, tensors, state)
    run.prune(part, learner.train.keep_checkpoints, {learner.selection.step})
